"""Read the runs' predictions in blocks of rows, so that memory does not depend on the file size; numpy only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.split import RunPredictions
from ensemble.voting.base import VoteInput

NUMBERS_AT_ONCE = 1 << 20


def row_blocks(rows: int, width: int, *, min_rows: int = 16, max_numbers: int | None = None) -> Iterator[slice]:
    """Yield slices that cover all rows in order.

    Parameters
    ----------
    width : numbers in a row.
    min_rows : minimum rows of a block, for any width.
    max_numbers : maximum numbers in a block otherwise; None for `NUMBERS_AT_ONCE`.
    """
    size = max(min_rows, (NUMBERS_AT_ONCE if max_numbers is None else max_numbers) // width)
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def vote_inputs(
    runs: Sequence[RunPredictions | None], rows: int, classes: int, counts_votes: bool, ranking: NDArray[np.int64]
) -> Iterator[tuple[slice, VoteInput]]:
    """Yield blocks of rows and the runs' predictions; `VoteInput.weights` is 1 where a run is present, 0 elsewhere.

    The arrays are reused for the next block; copy the values to keep.

    Parameters
    ----------
    runs : None for a run that is absent on all rows.
    counts_votes : fill `VoteInput.votes` as well.
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
    """Return (names,) the indices of `names`, sorted by first appearance in the concatenated `orders`."""
    ranked = [name for names_of_order in orders for name in names_of_order]
    return np.array(sorted(range(len(names)), key=lambda i: ranked.index(names[i])), dtype=np.int64)
