"""Contributions of runs to a combination of labels or numbers: single score, leave-one-out difference (numpy only)."""

from __future__ import annotations

import numpy as np

from ensemble.analysis.contributions import Contributions, RunContribution, alone, leave_one_out
from ensemble.analysis.diversity import Diversity, diversity
from ensemble.learning.columns.stack import ColumnStack
from ensemble.learning.nested import NestedResult
from folds.metrics.classification import Metric
from folds.metrics.task_names import REGRESSION

_FEWEST = 3  # errors that both runs have, for a correlation


def estimate_column_contributions(stack: ColumnStack, fitted: NestedResult, metric: Metric) -> Contributions:
    """Return the contribution of each run to a fitted (or plain) combination of several labels or of numbers.

    Without a run its weight goes to the others; in a linear model of numbers the run has the mean of the others.
    Shapley values are not computed.

    Parameters
    ----------
    fitted : a result of `ensemble.learning.nested.nested_cv`.
    """
    alike = column_diversity(stack)
    weights = fitted.combination.shares
    members = tuple(
        RunContribution(name, alone(stack, run, metric), float(weights[run]), without, None, alike.most_similar(run))
        for run, (name, without) in enumerate(zip(stack.names, leave_one_out(stack, fitted, metric), strict=True))
    )
    return Contributions(metric, members, None, alike)


def column_diversity(stack: ColumnStack) -> Diversity:
    """Return how similar the errors of runs are: of all known labels, each a decision of its own; of numbers, the
    correlation of predicted minus true, each number divided by its spread.
    """
    if stack.task != REGRESSION:
        return diversity(stack.of_cells())
    count, known = stack.runs, ~np.isnan(stack.labels)
    spread = np.array(
        [float(column[has].std()) if has.any() else 1.0 for column, has in zip(stack.labels.T, known.T, strict=True)]
    )
    errors = ((stack.probabilities - stack.labels) / np.where(spread > 0, spread, 1.0)).reshape(count, -1)
    if stack.present is not None:
        errors[~np.repeat(stack.present, stack.classes, axis=1)] = np.nan
    correlation, unknown = np.full((count, count), np.nan), np.full((count, count), np.nan)
    for i in range(count):
        for j in range(i + 1):
            both = np.isfinite(errors[i]) & np.isfinite(errors[j])
            if both.sum() >= _FEWEST and errors[i][both].std() > 0 and errors[j][both].std() > 0:
                correlation[i, j] = correlation[j, i] = np.corrcoef(errors[i][both], errors[j][both])[0, 1]
    return Diversity(stack.names, correlation, unknown, unknown, unknown, unknown)
