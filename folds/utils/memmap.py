"""Read and write memory maps in blocks and release their pages, so that memory use stays at the size of a block."""

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
    """Release the pages of a memory-mapped array from this process; they stay in the system's cache and are mapped
    again on use.

    No data is lost, because all maps here are of files, read-only or shared. Other arrays are left unchanged.
    """
    base: Any = values
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is not None and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def blocks(values: NDArray[Any], numbers: int = 1 << 20) -> Iterator[NDArray[Any]]:
    """Yield blocks of rows of an array (n, classes), of about `numbers` values each; the pages of a map are released
    after each block.
    """
    size = max(1, numbers // max(1, values.shape[1]))
    for start in range(0, len(values), size):
        yield values[start : start + size]
        release_pages(values)


def take_rows(values: NDArray[np.uint8], rows: NDArray[np.integer], out: NDArray[np.uint8]) -> None:
    """Copy rows of an array to `out` (rows, …), in one copy if the array is contiguous.

    Parameters
    ----------
    values : an array, or joined arrays, which gather rows themselves.

    Raises
    ------
    IndexError : there is no such row.
    """
    if not is_contiguous(values):
        out[...] = values[rows]
        return
    least, most = (int(rows.min()), int(rows.max())) if len(rows) else (0, 0)
    if least < 0 or most >= max(len(values), 1):
        raise IndexError(f"expected rows 0 to {len(values) - 1}, found {least} to {most}")
    # "clip" writes to the buffer itself; "raise" would go through a copy.
    np.take(values, rows, axis=0, out=out, mode="clip")


def is_contiguous(values: Any) -> bool:
    """Return whether values are an array whose rows follow each other in memory."""
    return isinstance(values, np.ndarray) and values.flags.c_contiguous


def allocate_result(shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return a float32 array for a result: in memory, or, if it is large, a map of an unnamed file in the current
    folder that disappears with the process.

    Raises
    ------
    EnsembleError : the disk has no room for it.
    """
    if shape[0] * shape[1] <= _LARGE:
        return np.empty(shape, np.float32)
    try:
        with tempfile.TemporaryFile(dir=".") as file:
            # Reserved now, because writing to a map on a full disk kills the process without a message.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, 4 * shape[0] * shape[1])
            return np.memmap(file, np.float32, "w+", shape=shape)
    except OSError as error:
        raise cannot_write(Path.cwd() / "the votes", error) from None


def same_values(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Return whether two arrays are equal, block by block."""
    if one.shape != other.shape:
        return False
    return all(np.array_equal(a, b) for a, b in zip(blocks(one), blocks(other), strict=True))
