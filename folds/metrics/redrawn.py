"""A user's score on people drawn with replacement: nothing is known of it, so it is called for each draw."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError
from folds.metrics.classification import Labels, Probabilities

RESAMPLES = 2000
# Fewer say little about the ends of an interval, which is then said.
ENOUGH = 200
LEAST = 20
SECONDS = 30.0


def redrawn(
    score: Callable[[Labels, Probabilities], float],
    labels: Labels,
    probabilities: Sequence[Probabilities],
    codes: NDArray[np.int64],
    units: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[NDArray[np.float64], str]:
    """(resamples, len(probabilities)) the scores of units drawn with replacement, and a warning where they are few or fail.

    The first draw is timed: as many are made as take half a minute, at least `LEAST`. A draw that cannot be scored (a
    class may be missing) is left out.

    Parameters
    ----------
    probabilities : each (n, classes); all are scored on the same draws.
    codes : (n,) the unit of each row.

    Raises
    ------
    EnsembleError : hardly any draw can be scored.
    """
    rng = np.random.default_rng(0)
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=units))
    rows_of = np.split(order, ends[:-1])
    found: list[list[float]] = []
    wanted, failed = RESAMPLES, 0
    began = clock()
    while len(found) + failed < wanted:
        rows = np.concatenate([rows_of[unit] for unit in rng.integers(0, units, units)])
        try:
            found.append([score(labels[rows], values[rows]) for values in probabilities])
        except EnsembleError as error:
            failed, last = failed + 1, error
        if len(found) + failed == 1:
            wanted = int(min(RESAMPLES, max(LEAST, SECONDS / max(clock() - began, 1e-9))))
    if len(found) < LEAST // 2:
        raise EnsembleError(f"of {wanted:,} draws of people {failed:,} could not be scored: {last.message}", hint=last.hint) from last
    said = [f"one call takes so long that only {wanted:,} draws of people were made, {ENOUGH} would be better"] if wanted < ENOUGH else []
    said += [f"{failed:,} of {wanted:,} draws of people could not be scored and are left out"] if failed else []
    return np.array(found), "; ".join(said)
