"""Fit the weights of views for several labels or numbers: each cell counts if its label is known (numpy only)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from folds.metrics.task_names import REGRESSION

_EPS = float(np.finfo(np.float64).eps)


def column_weights(
    values: NDArray[np.float64],
    labels: NDArray[np.float64],
    task: str,
    how: str,
    limit: int,
    *,
    steps: int,
    equal: float,
) -> NDArray[np.float64]:
    """Return (views,) the weight of each view, 0 for one that is not used.

    Greedy selection (Caruana et al., 2004) takes the view that lowers the loss of the mean most: the log loss of
    labels; of numbers the absolute error, in units of the spread of each column, so that no unit decides.

    Parameters
    ----------
    values : (views, n, columns) predictions.
    labels : (n, columns), nan where they are not known.
    how : ``mean``, ``geometric`` or ``median``: equal weights of the chosen views; ``weighted``: by how often each is
        chosen.
    limit : maximum number of views.
    steps : how often ``weighted`` chooses.
    equal : part of a fitted weight that is equal for all views.
    """
    views = len(values)
    if how != "weighted":
        chosen = _greedy(values, labels, task, limit, limit, again=False) > 0 if limit < views else np.ones(views, bool)
        return np.asarray(chosen / chosen.sum())
    counts = _greedy(values, labels, task, limit, steps, again=True)
    allowed = counts > 0 if limit < views else np.ones(views, bool)
    return np.asarray(equal * allowed / allowed.sum() + (1 - equal) * counts / counts.sum())


def _greedy(
    values: NDArray[np.float64], labels: NDArray[np.float64], task: str, limit: int, steps: int, again: bool
) -> NDArray[np.int64]:
    """Return (views,) how often each view is taken, up to the step with the lowest loss."""
    per_column = _absolute_errors if task == REGRESSION else _log_losses
    scale = _spread(labels) if task == REGRESSION else np.ones(labels.shape[1])
    counts = np.zeros(len(values), np.int64)
    total, best, kept = np.zeros(values.shape[1:]), np.inf, counts
    for step in range(1, steps + 1):
        allowed = counts == 0 if not again else (counts > 0) | (np.count_nonzero(counts) < limit)
        candidates = np.flatnonzero(allowed).tolist()
        losses = [mean_of_cells(per_column((total + values[view]) / step, labels) / scale) for view in candidates]
        taken = candidates[int(np.argmin(losses))]
        counts[taken] += 1
        total = total + values[taken]
        if min(losses) < best - 1e-12:
            best, kept = min(losses), counts.copy()
    return kept if kept.any() else counts


def mean_of_cells(values: NDArray[np.float64]) -> float:
    """Return the mean over the columns of the mean of the known cells of (n, columns); 0 if none is known."""
    known = np.isfinite(values)
    count = known.sum(axis=0)
    sums = np.where(known, values, 0).sum(axis=0)
    return float((sums[count > 0] / count[count > 0]).mean()) if count.any() else 0.0


def _absolute_errors(values: NDArray[np.float64], labels: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.abs(values - labels)


def _log_losses(values: NDArray[np.float64], labels: NDArray[np.float64]) -> NDArray[np.float64]:
    chance = np.clip(np.where(labels == 1, values, 1 - values), _EPS, 1)
    return np.where(np.isfinite(labels), -np.log(chance), np.nan)


def _spread(labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (columns,) the mean distance of the known numbers of a column from their median; 1 if they are equal."""
    spread = np.ones(labels.shape[1])
    for column, numbers in enumerate(labels.T):
        known = numbers[np.isfinite(numbers)]
        found = float(np.abs(known - np.median(known)).mean()) if len(known) else 0.0
        spread[column] = found if found > 0 else 1.0
    return spread
