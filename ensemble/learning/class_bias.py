"""Fit a bias for each class, added to log p, that adapts decisions to a metric of counts such as macro F1."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.calibration import pool_out_of_fold, vector
from ensemble.learning.combination import Calibration, Combination, Fitter
from ensemble.learning.expected_scores import ExpectedScores
from ensemble.learning.stack import Stack
from folds.metrics.classification import Metric

# Penalty of the calibration that gives the class probabilities, see `ensemble.learning.calibration.vector`.
OFFSET_STRENGTH = 3.0
# Maximum absolute bias: e⁵ multiplies a probability by about 150.
MAX_BIAS = 5.0
_ROUNDS = 10


def biased(fitter: Fitter) -> Fitter:
    """Return the fitter with a bias for each class added to its combination.

    The bias maximizes the expected score of labels drawn from the calibrated probabilities. It depends on the labels
    only through the calibration, which has about one parameter for each class. A bias fitted to the score of the labels
    overfits the few samples of rare classes, and most of its gain is lost on new samples. For a metric that is not
    computed from counts, decisions do not matter and no bias is fitted.
    """

    fit = partial(_fit_biased, fitter)
    return Fitter(f"{fitter.name}+bias", f"{fitter.title}, and a bias for each class", fit, adds_bias=True)


def _fit_biased(fitter: Fitter, stack: Stack, metric: Metric, seed: int = 0) -> Combination:
    inner, pooled = pool_out_of_fold(fitter, stack, metric, seed)
    if metric.from_counts is None:
        text = f"no bias: {metric.title} is not a metric of counts"
        return replace(inner, summary="; ".join(filter(None, [inner.summary, text])))
    bias = expected_bias(pooled, stack.labels, metric)
    text = f"bias {bias.min():+.2f} to {bias.max():+.2f}"
    return replace(inner, bias=bias, summary="; ".join(filter(None, [inner.summary, text])))


def expected_bias(
    probabilities: NDArray[np.floating], labels: NDArray[np.int64], metric: Metric
) -> NDArray[np.float64]:
    """Return (classes,) the bias on log p with the best expected score and mean 0.

    Coordinate ascent from the offsets of the calibration: one class at a time, over all values where a decision
    changes.

    Parameters
    ----------
    probabilities : (n, classes).
    labels : (n,) class indices.
    metric : a metric of counts (`from_counts` is set).
    """
    temperature, offset = vector(probabilities, labels, OFFSET_STRENGTH)
    calibrated = Calibration(np.array(temperature), offset)(probabilities)
    assert metric.class_sums is not None  # noqa: S101 - set for every metric of counts
    search = ExpectedScores(calibrated, metric.class_sums, MAX_BIAS, 1.0 if metric.greater_is_better else -1.0)
    best = -np.inf
    for _ in range(_ROUNDS):
        previous = best
        for c in range(len(offset)):
            best = search.improve(c)
        if best <= previous + 1e-6:
            break
    # log calibrated = (log p)/T + offset: the decisions equal those of log p with a bias of T · (offset + bias).
    bias = temperature * (offset + search.bias)
    return bias - bias.mean()
