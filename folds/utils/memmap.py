"""Read and write memory maps in blocks, whose pages are released so that a process stays as small as its blocks."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.utils.files import cannot_write

_LARGE = 1 << 25  # numbers: 128 MiB of float32


def release_pages(values: NDArray[Any]) -> None:
    """Take the pages of a memory-mapped array off this process; they stay in the system's cache, and are mapped again
    when used.

    Nothing is lost: the maps here are of files, read-only or shared. Other arrays are left alone.
    """
    base: Any = values
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is not None and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def blocks(values: NDArray[Any], numbers: int = 1 << 20) -> Iterator[NDArray[Any]]:
    """Blocks of rows of an array (n, classes) in order, of about that many numbers; of a map each is let go of after
    its turn.
    """
    size = max(1, numbers // max(1, values.shape[1]))
    for start in range(0, len(values), size):
        yield values[start : start + size]
        release_pages(values)


def allocate_result(shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return an array for a result: in memory, or, where it is large, a map of a nameless file in this folder, gone
    with the process.

    Raises
    ------
    EnsembleError : the disk has no room for it.
    """
    if shape[0] * shape[1] <= _LARGE:
        return np.empty(shape, np.float32)
    try:
        with tempfile.TemporaryFile(dir=".") as file:
            # Reserved now: a map of a disk that turns out full ends the process without a word.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, 4 * shape[0] * shape[1])
            return np.memmap(file, np.float32, "w+", shape=shape)
    except OSError as error:
        raise cannot_write(Path.cwd() / "the votes", error) from None


def same_values(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Return whether two arrays are equal, block by block."""
    if one.shape != other.shape:
        return False
    return all(np.array_equal(mine, theirs) for mine, theirs in zip(blocks(one), blocks(other), strict=True))
