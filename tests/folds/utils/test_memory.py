"""How much memory is left, and how much a process has taken."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from folds.utils import memory
from folds.utils.memory import available_bytes, private_bytes

MIB = 2**20


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 4,000 MiB left and no limit."""
    (tmp_path / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable:  {4000 * 1024} kB\n")
    (tmp_path / "memory").mkdir()
    monkeypatch.setattr(memory, "_PROC", tmp_path)
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    return tmp_path


def test_memory_left_is_that_of_the_machine_without_a_limit(machine: Path) -> None:
    assert available_bytes() == 4000 * MIB
    (machine / "memory.max").write_text("max\n")
    assert available_bytes() == 4000 * MIB


@pytest.mark.parametrize("names", [("memory.max", "memory.current", "memory.stat"), ("v1",)])
def test_memory_left_is_limited_by_the_container(machine: Path, names: tuple[str, ...]) -> None:
    if names == ("v1",):
        names = tuple(f"memory/memory.{name}" for name in ("limit_in_bytes", "usage_in_bytes", "stat"))
    for name, text in zip(
        names, (f"{1000 * MIB}", f"{800 * MIB}", f"anon 5\ninactive_file {100 * MIB}\n"), strict=True
    ):
        (machine / name).write_text(text)
    assert available_bytes() == 300 * MIB


def test_unknown_memory_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_PROC", tmp_path)
    assert available_bytes() is None
    assert private_bytes(os.getpid()) is None


def test_private_memory_leaves_mapped_files_out(machine: Path) -> None:
    (machine / "7").mkdir()
    (machine / "7/status").write_text("VmHWM:  3072 kB\nVmRSS:  9 kB\nRssFile:  1024 kB\n")
    assert private_bytes(7) == 2 * MIB
    assert private_bytes(8) is None
