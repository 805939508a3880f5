"""Rows in blocks, and what the runs say on each: memory is that of a block, whatever the files hold; numpy only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.split import RunPredictions
from ensemble.voting.base import VoteInput

NUMBERS_AT_ONCE = 1 << 20


def row_blocks(rows: int, width: int, *, least: int = 16, numbers: int | None = None) -> Iterator[slice]:
    """Yield slices that together are all rows, in order.

    Parameters
    ----------
    width : how many numbers a row has.
    least : rows of a block, however wide they are.
    numbers : how many a block may have; `NUMBERS_AT_ONCE` without it.
    """
    size = max(least, (NUMBERS_AT_ONCE if numbers is None else numbers) // width)
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def vote_inputs(
    runs: Sequence[RunPredictions | None], rows: int, classes: int, counts_votes: bool, ranking: NDArray[np.int64]
) -> Iterator[tuple[slice, VoteInput]]:
    """Yield blocks of rows and what the runs say on them; `VoteInput.weights` is 1 where a run is present, 0 elsewhere.

    The arrays are filled anew for the next block: what is to stay must be copied.

    Parameters
    ----------
    runs : None for one that is absent everywhere.
    counts_votes : give `VoteInput.votes` as well.
    ranking : (runs,) run indices, best first.
    """
    hard = np.array([run is not None and run.hard for run in runs])
    values = votes = present = np.zeros((0, 0, 0))
    for part in row_blocks(rows, len(runs) * classes):
        size = part.stop - part.start
        if values.shape[1] != size:
            values, present = np.zeros((len(runs), size, classes)), np.zeros((len(runs), size))
            votes = np.zeros(values.shape if counts_votes else (0, 0, 0))
        for i, run in enumerate(runs):
            if run is None:
                continue
            present[i] = run.models(part.start, part.stop) > 0
            if not run.hard:
                values[i] = run.probabilities(part.start, part.stop)
            if counts_votes:
                votes[i] = run.votes(part.start, part.stop)
        yield part, VoteInput(values, votes if counts_votes else None, present, hard, ranking)


def rank_order(names: Sequence[str], *orders: Sequence[str]) -> NDArray[np.int64]:
    """Return (names,) the indices of `names` in the order in which they come first in `orders`, one after the other."""
    order = [name for some in orders for name in some]
    return np.array(sorted(range(len(names)), key=lambda i: order.index(names[i])), dtype=np.int64)
