"""Select runs greedily, with replacement, for the mean of predictions with a column for each label or number."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.columns.combination import ColumnCombination
from ensemble.learning.columns.stack import ColumnStack
from ensemble.learning.combination import Combination
from ensemble.learning.greedy import DECIMALS, MIN_ROUNDED_ERROR
from ensemble.learning.stack import Stack
from ensemble.learning.weights import describe_shares
from folds.errors import EnsembleError
from folds.metrics.classification import Metric

STEPS = 50
PATIENCE = 10  # steps without a better score, after which the selection ends


def greedy_columns(stack: Stack, metric: Metric, seed: int = 0) -> Combination:
    """Return one weight for each run, by greedy selection (Caruana et al., ICML 2004) for a metric."""
    assert isinstance(stack, ColumnStack)  # noqa: S101 - the methods of columns are fitted to columns
    counts = select_columns(stack, metric)
    weights = counts / counts.sum()
    summary = f"weights {describe_shares(stack.names, weights)}"
    return ColumnCombination(stack.names, weights=weights, summary=summary, task=stack.task, columns=stack.columns)


def select_columns(stack: ColumnStack, metric: Metric, steps: int = STEPS, patience: int = PATIENCE) -> NDArray:
    """Return (runs,) how often each run is selected for the running mean with the best score.

    Each step adds the run that gives the best score; the steps up to the first best one are kept. Scores are compared
    to six decimals; of equal ones a run that is selected already is taken, then the first by name. So are the rules of
    `ensemble.learning.greedy`, whose fast objectives are for classes.

    Raises
    ------
    EnsembleError : the metric is nan for every run.
    """
    values = stack.probabilities.astype(np.float64)
    present = np.ones((stack.runs, len(stack))) if stack.present is None else stack.present.astype(np.float64)
    values *= present[:, :, None]
    total, weight = np.zeros(values.shape[1:]), np.zeros(len(stack))
    sign = 1.0 if metric.greater_is_better else -1.0
    counts, order, reached, digits = np.zeros(stack.runs), [], [], DECIMALS
    for step in range(steps):
        scores = np.full(stack.runs, -math.inf)
        for run in range(stack.runs):
            found = _score(stack, metric, total + values[run], weight + present[run])
            scores[run] = -math.inf if math.isnan(found) else sign * found
        if not np.isfinite(scores.max()):
            if step == 0:
                raise EnsembleError(
                    f"{metric.title} is not defined for any run, so nothing can be selected by it",
                    hint="another `metric`, or `method=soft`",
                )
            break
        if step == 0 and abs(scores.max()) < MIN_ROUNDED_ERROR:
            digits = 15
        rounded = np.round(scores, digits)
        best = np.flatnonzero(rounded == rounded.max())
        chosen = next((int(run) for run in best if counts[run]), int(best[0]))
        counts[chosen] += 1
        total, weight = total + values[chosen], weight + present[chosen]
        order.append(chosen)
        reached.append(float(rounded.max()))
        if step - int(np.argmax(reached)) >= patience:
            break
    kept = order[: int(np.argmax(reached)) + 1]
    return np.bincount(kept, minlength=stack.runs).astype(np.float64)


def _score(stack: ColumnStack, metric: Metric, total: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    """Return the score of a sum of predictions over its weight (n,); rows without a selected run get the mean."""
    covered = weight > 0
    mean = total / np.where(covered, weight, 1)[:, None]
    if not covered.all():
        assert stack.present is not None  # noqa: S101 - else every row is covered
        rows = np.flatnonzero(~covered)
        has = stack.present[:, rows, None]
        mean[rows] = (stack.probabilities[:, rows] * has).sum(axis=0) / np.maximum(has.sum(axis=0), 1)
    return float(metric(stack.labels, mean.astype(np.float32)))
