"""Cut the rows of a training into full batches: one shape for all steps of a run, so one compiled graph.

The rows of all epochs follow each other, and batches are cut from them without regard to where a round over the images
ends. So no image is left out: those that did not fit into the last batch of an epoch are the first of the next epoch,
and over a training all images are used as often as the sampler wants, ±1. An epoch is the whole number of batches that
is closest to the number of images.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

RowIndices = NDArray[np.int64]


def count_batches(images: int, size: int, *, full: bool = True) -> int:
    """Return the number of batches per epoch, at least one.

    Parameters
    ----------
    images : number of images of an epoch, 1 or more.
    size : images of a batch.
    full : full batches, the number that is closest to `images`; otherwise enough batches of almost equal sizes, as in
        runs that an earlier version started.
    """
    return max(1, (2 * images + size) // (2 * size) if full else math.ceil(images / size))


def full_batches(rows: Callable[[int], RowIndices], images: int, size: int, epoch: int) -> list[RowIndices]:
    """Return the rows of each step of an epoch, all batches of the same size.

    Epochs can be computed independently, in any order.

    Parameters
    ----------
    rows : function of a round (from 0) → (images,) its rows in random order.
    images : number of images of a round.
    size : images of a batch; with fewer images than that, a batch has all of them.
    epoch : number of the epoch, from 0.
    """
    size = min(size, images)
    steps = count_batches(images, size)
    start, end = epoch * steps * size, (epoch + 1) * steps * size
    first = start // images
    rounds = [rows(number) for number in range(first, -(-end // images))]
    shown = np.concatenate(rounds)[start - first * images : end - first * images]
    return list(shown.reshape(steps, size))
