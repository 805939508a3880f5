"""The mean of many large files in one pass over small blocks: what soft and weighted voting are; numpy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ensemble.alignment.split import Run
from ensemble.voting.base import normalised
from folds.utils.memmap import let_go, result_array

_NUMBERS_AT_ONCE = 1 << 17  # a block and its sums stay in the processor's cache


def mean_of_runs(runs: Sequence[Run], share: NDArray[np.float64], rows: int, accumulate: DTypeLike = np.float64) -> NDArray[np.float32]:
    """The weighted mean of the runs' probabilities over the runs that are present on each row, normalised.

    Blocks of the maps are added where they lie, without a copy, so it is bound by memory. Runs are summed in the order
    given and divided once: with equal weights, of float32 files whose rows sum to 1, it is to the bit the mean in
    float64, rounded to float32.

    Parameters
    ----------
    share : (runs,) weights ≥ 0.
    accumulate : the type in which it is summed; float32 takes half the time and can differ in the last bits.

    Returns
    -------
    (rows, classes) float32; rows that no run with a weight has are NaN.
    """
    heard = [(run, weight) for run, weight in zip(runs, share.tolist(), strict=True) if weight > 0]
    if len({weight for _, weight in heard}) == 1:
        heard = [(run, 1.0) for run, _ in heard]
    classes = runs[0].classes
    size = min(rows, max(16, _NUMBERS_AT_ONCE // classes))
    combined = result_array((rows, classes))
    sums, weighted = np.empty((2, size, classes), accumulate)
    for start in range(0, rows, size):
        stop = min(start + size, rows)
        total, scaled = sums[: stop - start], weighted[: stop - start]
        total[:] = 0
        whole, partial = 0.0, np.zeros(stop - start)
        for run, weight in heard:
            stored = run.stored(start, stop)
            block = run.probabilities(start, stop) if stored is None else stored
            np.add(total, block if weight == 1 else np.multiply(block, weight, out=scaled, casting="unsafe"), out=total, casting="unsafe")
            if stored is not None:
                let_go(stored)
            present = run.present(start, stop)
            if present is None:
                whole += weight
            else:
                partial += weight * present
        if partial.any():
            with np.errstate(invalid="ignore"):
                total /= (whole + partial)[:, None]
        else:
            total /= whole if whole else np.nan
        combined[start:stop] = normalised(total)
        let_go(combined)
    return combined
