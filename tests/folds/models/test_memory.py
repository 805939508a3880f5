"""What a process that trains is told about its memory, unless the user has told it."""

from __future__ import annotations

import os

import pytest

from folds.models.memory import allocator_variables


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("PYTORCH_", "MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")):
            monkeypatch.delenv(name)


def test_both_kinds_of_memory_are_kept() -> None:
    assert set(allocator_variables()) == {
        "PYTORCH_CUDA_ALLOC_CONF",
        "MALLOC_MMAP_THRESHOLD_",
        "MALLOC_TRIM_THRESHOLD_",
    }


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES", "LD_PRELOAD"])
def test_a_heap_that_the_user_has_set_is_left(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    assert set(allocator_variables()) == {"PYTORCH_CUDA_ALLOC_CONF"}
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "backend:native")
    assert allocator_variables() == {}
