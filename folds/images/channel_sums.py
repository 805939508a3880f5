"""Compute mean and standard deviation of the channels of decoded images, exactly; the sums of each image are kept."""

from __future__ import annotations

import io
import math
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError
from folds.utils.files import write_atomic
from folds.utils.parallel import map_threads

_BLOCK_BYTES = 4 << 20  # of images read at once by a thread
_ROWS = 66_051  # rows of an image whose squares can be added in 32 bits


def mean_std(
    pixels: NDArray[np.uint8],
    index: NDArray[np.integer] | None = None,
    *,
    file: Path | None = None,
    threads: int = 1,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of each channel, in [0, 1], over the images `index` (by default all).

    Sums are exact integers, so the result does not depend on the order of the images or on the number of threads.

    Parameters
    ----------
    pixels : (n, height, width, channels) uint8.
    index : positions or booleans.
    file : cache file of `pixels`, beside which the sums of each image are kept, because every fold needs most of them;
        without it they are computed for `index` only.
    threads : number of threads; memory is bounded for any number of images.

    Returns
    -------
    mean, std : (channels,) float64 each; the standard deviation of the population (``ddof=0``).
    """
    rows = np.arange(len(pixels)) if index is None else np.asarray(index)
    if rows.dtype == bool:
        rows = np.flatnonzero(rows)
    if not len(rows):
        raise EnsembleError("expected at least one image for mean and standard deviation, found none")
    sums = channel_sums(pixels, rows, threads) if file is None else _kept_sums(file, pixels, threads)[rows]
    count = len(rows) * math.prod(pixels.shape[1:3])
    channels = pixels.shape[3]
    mean, std = np.empty(channels), np.empty(channels)
    for channel in range(channels):
        # Python integers do not overflow or round before the last division.
        first, second = (int(total) for total in sums[:, :, channel].sum(axis=0))
        mean[channel] = first / (255 * count)
        std[channel] = math.sqrt((count * second - first * first) / (255 * count) ** 2)
    return mean, std


def channel_sums(pixels: NDArray[np.uint8], rows: NDArray[np.integer], threads: int = 1) -> NDArray[np.uint64]:
    """Return (n, 2, channels) the sum of the levels and of their squares, for each of `rows` and each channel."""
    _, height, width, channels = pixels.shape
    block = max(1, _BLOCK_BYTES // (height * width * channels))
    wide = np.uint32 if height <= _ROWS else np.uint64

    def add(at: int) -> NDArray[np.uint64]:
        # Rows of 3·width numbers are added, because rows of three numbers take several times as long.
        images = pixels[rows[at * block : (at + 1) * block]].reshape(-1, height, channels * width)
        squares = np.square(images, dtype=np.uint16)
        columns = np.stack([part.sum(axis=1, dtype=wide) for part in (images, squares)], axis=1)
        return columns.reshape(len(images), 2, width, channels).sum(axis=2, dtype=np.uint64)

    return np.concatenate(map_threads(add, -(-len(rows) // block), threads, None))


def _kept_sums(file: Path, pixels: NDArray[np.uint8], threads: int) -> NDArray[np.uint64]:
    """Return (n, 2, channels) the sums of all images of a cache file, read from beside it or written there."""
    path, shape = file.with_suffix(".sums"), (len(pixels), 2, pixels.shape[3])
    try:
        if path.stat().st_size <= 1024 + 8 * math.prod(shape):
            sums = np.load(path, allow_pickle=False)
            if sums.shape == shape and sums.dtype == np.uint64:
                return sums  # type: ignore[no-any-return]
    except (OSError, ValueError, EOFError):
        pass  # not computed yet, or damaged
    sums = channel_sums(pixels, np.arange(len(pixels)), threads)
    written = io.BytesIO()
    np.save(written, sums, allow_pickle=False)
    with suppress(EnsembleError):  # a folder that cannot be written costs the time again
        write_atomic(path, written.getvalue())
    return sums
