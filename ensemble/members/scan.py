"""Hash an array file and check whether its rows are probabilities, in one pass; numpy only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from folds.utils.files import sha256_file
from folds.utils.memmap import release_pages
from folds.utils.parallel import cpu_count

# Tolerance of a row's sum around 1: the rounding of the type, with room for products of softmaxes in bf16.
SUM_TOLERANCE = {"float16": 5e-3, "float32": 2e-3, "float64": 2e-3}
NEGATIVE = -1e-6
_CHECKED_AT_ONCE = 1 << 16  # numbers of a block, which then fits into the CPU cache


@dataclass(frozen=True)
class Scan:
    """Result of the check of one array.

    Attributes
    ----------
    sha : SHA-256 of the file.
    rows : number of rows.
    wrong : number of rows that are not probabilities: a negative value, or a sum other than 1.
    first, total, lowest : the first such row, its sum and its smallest value.
    not_finite : row, column and value of the first number that is not finite; None if all are finite. If set, only
        `rows` is valid as well.
    transposed : whether the columns sum to 1 where the rows do not.
    """

    sha: str
    rows: int
    wrong: int = 0
    first: int = -1
    total: float = 1.0
    lowest: float = 0.0
    not_finite: tuple[int, int, float] | None = None
    transposed: bool = False


@contextmanager
def scan_arrays(arrays: Sequence[tuple[Path, NDArray]]) -> Iterator[list[Future[Scan]]]:
    """Yield the scans of several arrays, in order, as they run in threads on all cores.

    Hashing and numpy's loops release the interpreter lock.
    """
    cores = cpu_count()
    pool = ThreadPoolExecutor(max(1, min(cores, 8, len(arrays))))
    try:
        yield [pool.submit(scan, path, values) for path, values in arrays]
    finally:
        # After an error the remaining scans are not needed.
        pool.shutdown(cancel_futures=True)


def scan(path: Path, values: NDArray) -> Scan:
    """Return the hash of the file of an array (n, classes) and the result of the check of every row."""
    # A memory map in C order is hashed while its blocks are in the cache; any other file is read a second time.
    header = _header(path, values)
    digest = hashlib.sha256(header or b"")
    array, wrong, first, total, lowest = np.asarray(values), 0, -1, 1.0, 0.0
    # Integers and half floats are summed as float32, which is precise enough for probabilities.
    dtype = (
        values.dtype.newbyteorder("=")
        if values.dtype.itemsize >= 4 and values.dtype.kind == "f"
        else np.dtype(np.float32)
    )
    ones, tolerance = np.ones(values.shape[1], dtype), SUM_TOLERANCE.get(values.dtype.name, 2e-3)
    size = max(1, _CHECKED_AT_ONCE // values.shape[1])
    for start in range(0, len(array), size):
        stored = array[start : start + size]
        if header is not None:
            digest.update(stored.data)
        with np.errstate(invalid="ignore", over="ignore"):
            block = stored.astype(dtype, copy=False)
            sums = block @ ones
            # A value that is not finite makes the sum not finite, and every comparison with it false.
            valid = sums.min() >= 1 - tolerance and sums.max() <= 1 + tolerance and block.min() >= NEGATIVE
        if not valid:
            block = stored.astype(np.float64)
            finite = np.isfinite(block)
            if not finite.all():
                row, column = (int(place[0]) for place in np.nonzero(~finite))
                return Scan("", len(array), not_finite=(start + row, column, float(block[row, column])))
            sums, row_minima = block.sum(axis=1), block.min(axis=1)
            bad = np.flatnonzero((np.abs(sums - 1) > tolerance) | (row_minima < NEGATIVE))
            wrong += len(bad)
            if first < 0 and len(bad):
                first, total, lowest = start + int(bad[0]), float(sums[bad[0]]), float(row_minima[bad[0]])
        release_pages(array)
    sha = sha256_file(path) if header is None else digest.hexdigest()
    transposed = wrong > 0 and bool((np.abs(array.sum(axis=0, dtype=np.float64) - 1) < tolerance).all())
    return Scan(sha, len(array), wrong, first, total, lowest, transposed=transposed)


def first_outside(values: NDArray) -> tuple[int, int] | None:
    """Return row and column of the first number of (n, columns) that is no probability; None if all are."""
    size = max(1, _CHECKED_AT_ONCE // values.shape[1])
    for start in range(0, len(values), size):
        block = np.asarray(values[start : start + size])
        outside = np.argwhere((block < NEGATIVE) | (block > 1 - NEGATIVE))
        if len(outside):
            return start + int(outside[0, 0]), int(outside[0, 1])
    return None


def _header(path: Path, values: NDArray) -> bytes | None:
    """Return the bytes before the numbers of a memory map; None if the file is not exactly these bytes and the map."""
    if (
        not isinstance(values, np.memmap)
        or not values.flags.c_contiguous
        or path.stat().st_size != values.offset + values.nbytes
    ):
        return None
    with open(path, "rb") as file:
        return file.read(values.offset)
