"""One pass over an array on disk: the hash of its file, and whether its rows are probabilities; numpy only."""

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

# How far a row may be from summing to 1: what rounding to that type can do, with room for products of softmaxes in bf16.
SUM_TOLERANCE = {"float16": 5e-3, "float32": 2e-3, "float64": 2e-3}
NEGATIVE = -1e-6
_CHECKED_AT_ONCE = 1 << 16  # numbers: a block stays in the processor's cache


@dataclass(frozen=True)
class Scan:
    """What an array holds.

    Attributes
    ----------
    sha : SHA-256 of the file.
    rows : how many rows.
    wrong : how many of them are no probabilities: a negative value, or a sum other than 1.
    first, total, lowest : the first such row, its sum and its least value.
    not_finite : row, column and value of the first number that is not finite; None where all are. Then nothing else is known.
    """

    sha: str
    rows: int
    wrong: int = 0
    first: int = -1
    total: float = 1.0
    lowest: float = 0.0
    not_finite: tuple[int, int, float] | None = None


@contextmanager
def scanned(arrays: Sequence[tuple[Path, NDArray]]) -> Iterator[list[Future[Scan]]]:
    """The scans of several arrays, under way on all cores (hashing and numpy's loops let other threads run), in order."""
    cores = cpu_count()
    pool = ThreadPoolExecutor(max(1, min(cores, 8, len(arrays))))
    try:
        yield [pool.submit(scan, path, values) for path, values in arrays]
    finally:
        # After an error the rest is of no interest.
        pool.shutdown(cancel_futures=True)


def scan(path: Path, values: NDArray) -> Scan:
    """Hash the file of an array (n, classes) and look at every row of it."""
    # A map in the order of the file is hashed while its blocks are in the cache; anything else is read once more.
    header = _header(path, values)
    digest = hashlib.sha256(header or b"")
    plain, wrong, first, found, lowest = np.asarray(values), 0, -1, 1.0, 0.0
    # Whole numbers and half floats are summed as float32, which holds what a probability can be.
    kind = (
        values.dtype.newbyteorder("=")
        if values.dtype.itemsize >= 4 and values.dtype.kind == "f"
        else np.dtype(np.float32)
    )
    ones, tolerance = np.ones(values.shape[1], kind), SUM_TOLERANCE.get(values.dtype.name, 2e-3)
    size = max(1, _CHECKED_AT_ONCE // values.shape[1])
    for start in range(0, len(plain), size):
        stored = plain[start : start + size]
        if header is not None:
            digest.update(stored.data)
        with np.errstate(invalid="ignore", over="ignore"):
            block = stored.astype(kind, copy=False)
            sums = block @ ones
            # What is not finite makes a sum that is not, and every comparison with it false.
            fine = sums.min() >= 1 - tolerance and sums.max() <= 1 + tolerance and block.min() >= NEGATIVE
        if not fine:
            block = stored.astype(np.float64)
            finite = np.isfinite(block)
            if not finite.all():
                row, column = (int(place[0]) for place in np.nonzero(~finite))
                return Scan("", len(plain), not_finite=(start + row, column, float(block[row, column])))
            sums, least = block.sum(axis=1), block.min(axis=1)
            bad = np.flatnonzero((np.abs(sums - 1) > tolerance) | (least < NEGATIVE))
            wrong += len(bad)
            if first < 0 and len(bad):
                first, found, lowest = start + int(bad[0]), float(sums[bad[0]]), float(least[bad[0]])
        release_pages(plain)
    return Scan(sha256_file(path) if header is None else digest.hexdigest(), len(plain), wrong, first, found, lowest)


def _header(path: Path, values: NDArray) -> bytes | None:
    """What stands in the file before the numbers of a map; None where more than that and the map, in its order, is in the file."""
    if (
        not isinstance(values, np.memmap)
        or not values.flags.c_contiguous
        or path.stat().st_size != values.offset + values.nbytes
    ):
        return None
    with open(path, "rb") as file:
        return file.read(values.offset)
