"""Fit combinations of runs with several labels: each label is a decision of two classes, with and without it.

What a label has of its own (weights, bias, stacking, calibration) is the fit of two classes on the samples where it is
known; weights that all labels share are fitted to all known cells, or to the metric.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.columns.combination import ColumnCombination
from ensemble.learning.columns.stack import ColumnStack
from ensemble.learning.combination import Combination, Fit, Fitter
from ensemble.learning.nested import held_out
from ensemble.learning.stack import Stack
from ensemble.learning.weights import describe_shares, exponential, pool_loss, simplex, simplex_weights, true_class
from ensemble.voting.base import FLOOR
from folds.metrics.classification import Metric
from folds.metrics.custom import find_metric

MIN_PEOPLE = 2  # with and without a label; with fewer, nothing is fitted to it
# Parts of a label's own weights in its weights; the rest is shared by all labels. The best one on other people is used.
OWN_PARTS = (0.0, 0.25, 0.5, 0.75, 1.0)
# The score of one label whose mean is a metric of several labels, where its name differs.
_OF_ONE = {"macro_f1": "f_beta", "micro_f1": "f_beta", "subset_accuracy": "accuracy", "column_log_loss": "log_loss"}


def _shared(fit: Fit, stack: Stack, metric: Metric, seed: int = 0) -> Combination:
    columns = _columns(stack)
    return _with_weights(columns, fit(columns.of_cells(), metric, seed))


def on_scores(fit: Fit) -> Fit:
    """Return a fit of weights (runs,) by scores of all columns, such as the best single run."""
    return partial(_on_scores, fit)


def _on_scores(fit: Fit, stack: Stack, metric: Metric, seed: int = 0) -> Combination:
    return _with_weights(_columns(stack), fit(stack, metric, seed))


def _with_weights(stack: ColumnStack, found: Combination) -> ColumnCombination:
    return ColumnCombination(
        stack.names, weights=found.weights, summary=found.summary, task=stack.task, columns=stack.columns
    )


def _columns(stack: Stack) -> ColumnStack:
    assert isinstance(stack, ColumnStack)  # noqa: S101 - the methods of columns are fitted to columns
    return stack


def each_label(fitter: Fitter) -> Fitter:
    """Return a fitter of two classes as one of several labels, each of which it is fitted to by itself.

    A label that fewer than `MIN_PEOPLE` people have, or lack, gets the mean: nothing can be fitted to it.
    """
    return Fitter(fitter.name, f"{fitter.title}, for each label", partial(_each, fitter.fit), True, fitter.adds_bias)


def _each(fit: Fit, stack: Stack, metric: Metric, seed: int = 0) -> Combination:
    columns, own = _columns(stack), of_one_label(metric)
    found, skipped = [], []
    for column, name in enumerate(columns.columns):
        one = columns.of_label(column)
        if has_both(one):
            found.append(fit(one, own, seed))
        else:
            found.append(Combination(stack.names))
            skipped.append(name)
    summary = f"fitted for each of {len(found)} labels"
    if skipped:
        summary += f"; nothing fitted for {', '.join(skipped[:5])}, which too few people have or lack"
    return ColumnCombination(
        stack.names, summary=summary, task=columns.task, columns=columns.columns, each=tuple(found)
    )


def has_both(stack: Stack) -> bool:
    """Return whether at least `MIN_PEOPLE` people have a label, and as many lack it, of a stack of two classes."""
    return all(len(np.unique(stack.persons[stack.labels == value])) >= MIN_PEOPLE for value in (0, 1))


def of_one_label(metric: Metric) -> Metric:
    """Return the score of one label as of two classes, whose mean over the labels is a metric of several labels."""
    if metric.function is not None:
        return metric
    return find_metric(_OF_ONE[metric.name]) if metric.name in _OF_ONE else metric


def simplex_labels(stack: Stack, metric: Metric, seed: int = 0) -> Combination:
    """Return weights (runs,) that minimize the log loss over all known cells, for any metric."""
    return _shared(simplex, stack, metric, seed)


def exponential_labels(stack: Stack, metric: Metric, seed: int = 0) -> Combination:
    """Return weights (runs,) ∝ exp(−t · log loss of the run over all known cells)."""
    return _shared(exponential, stack, metric, seed)


def per_label(stack: Stack, metric: Metric, seed: int = 0) -> Combination:
    """Return weights of the runs for each label: a mixture of the label's own weights and those of all labels.

    Both minimize the log loss; the part of the own ones (`OWN_PARTS`, the same for all labels) is the one with the
    smallest log loss on held-out people, so that labels few people have do not get weights of chance.
    """
    columns = _columns(stack)
    losses = np.zeros(len(OWN_PARTS))
    for test_rows, fit_rows in held_out(columns):
        shared, own = _weights(columns.take(fit_rows))
        test = columns.take(test_rows)
        for column, weights in enumerate(own):
            losses += _losses(test.of_label(column), shared, weights)
    part = OWN_PARTS[int(np.argmin(losses))]
    shared, own = _weights(columns)
    mixed = [(1 - part) * shared + part * weights for weights in own]
    each = tuple(Combination(stack.names, weights=weights) for weights in mixed)
    mean = np.mean(mixed, axis=0)
    summary = f"{100 * part:.0f}% own weights of each label; mean weights {describe_shares(stack.names, mean)}"
    return ColumnCombination(stack.names, summary=summary, task=columns.task, columns=columns.columns, each=each)


def _weights(stack: ColumnStack) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Return the weights (runs,) of all labels together, and of each."""
    cells = stack.of_cells()
    shared = simplex_weights(true_class(cells), cells.present)
    own = []
    for column in range(stack.classes):
        one = stack.of_label(column)
        own.append(simplex_weights(true_class(one), one.present) if has_both(one) else shared)
    return shared, own


def _losses(one: Stack, shared: NDArray[np.float64], own: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (parts,) the summed log loss of one label with each part of its own weights."""
    if not len(one):
        return np.zeros(len(OWN_PARTS))
    values = np.maximum(true_class(one), FLOOR)
    present = None if one.present is None else one.present.astype(np.float64)
    values = values if present is None else values * present
    found = []
    for part in OWN_PARTS:
        # A run without a weight may be the only one on a row, which then counts it.
        weights = np.maximum((1 - part) * shared + part * own, 1e-9)
        found.append(pool_loss(weights / weights.sum(), values, present) * len(one))
    return np.array(found)
