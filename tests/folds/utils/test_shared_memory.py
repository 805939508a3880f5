from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from folds.errors import EnsembleError
from folds.utils.memmap import take_rows
from folds.utils.shared_memory import SharedMemory, map_array


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("anonymous", [True, False])
def test_who_has_the_descriptor_sees_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anonymous: bool
) -> None:
    if not anonymous:
        monkeypatch.delattr(os, "memfd_create")
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = open_files()
    memory = SharedMemory(100)
    other = map_array(mmap.mmap(memory.descriptor, 100), 10, (2, 5))
    memory.array((100,))[:] = np.arange(100)
    np.testing.assert_array_equal(other, np.arange(10, 20).reshape(2, 5))
    kept = memory.array((50, 2))
    memory.close()
    memory.close()
    other[0, 0] = 200
    assert kept[5, 0] == 200
    assert list(tmp_path.iterdir()) == []
    del kept, other, memory
    assert open_files() == before


def test_no_room_anywhere_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, start: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    before = open_files()
    with pytest.raises(EnsembleError, match=f"cannot write {tmp_path}.*: no space left on device") as error:
        SharedMemory(100, [tmp_path])
    assert "free some space" in (error.value.hint or "")
    assert open_files() == before


def test_rows_are_copied_to_a_buffer() -> None:
    values, out = np.arange(24, dtype=np.uint8).reshape(6, 4), np.zeros((3, 4), np.uint8)
    rows = np.array([5, 0, 5])
    for source in (values, np.asfortranarray(values)):
        out[:] = 0
        take_rows(source, rows, out)
        np.testing.assert_array_equal(out, values[rows])
    for wrong in ([6], [-1]):
        with pytest.raises(IndexError):
            take_rows(values, np.array(wrong), out[:1])
