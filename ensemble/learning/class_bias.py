"""Fit a bias for each class, added to log p, that adapts decisions to a metric of counts such as macro F1."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.calibration import pool_out_of_fold, vector
from ensemble.learning.combination import Calibration, Combination, Fitter
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
    logs = np.log(calibrated)
    bias = np.zeros(logs.shape[1])
    sign = 1.0 if metric.greater_is_better else -1.0
    best = -np.inf
    for _ in range(_ROUNDS):
        previous = best
        for c in range(len(bias)):
            bias[c], best = _best_of_class(logs, calibrated, bias, c, metric, sign)
        if best <= previous + 1e-6:
            break
    # log calibrated = (log p)/T + offset: the decisions equal those of log p with a bias of T · (offset + bias).
    bias = temperature * (offset + bias)
    return bias - bias.mean()


def _best_of_class(
    logs: NDArray[np.float64],
    calibrated: NDArray[np.float64],
    bias: NDArray[np.float64],
    c: int,
    metric: Metric,
    sign: float,
) -> tuple[float, float]:
    """Return the bias of class `c` with the best expected score for fixed other biases, and that score times `sign`.

    As the bias grows, the samples change to class `c` one after another; the counts are cumulative sums in that order.
    """
    n, classes = logs.shape
    others = logs + bias
    others[:, c] = -np.inf
    rival = others.argmax(axis=1)
    threshold = others[np.arange(n), rival] - logs[:, c]  # with a larger bias, the sample is classified as c
    order = np.argsort(threshold, kind="stable")
    threshold, rival, steps = threshold[order], rival[order], np.arange(1, n + 1)
    expected_hits, decided = np.zeros((n + 1, classes)), np.zeros((n + 1, classes))
    lost = calibrated[order, rival]
    expected_hits[0], decided[0] = np.bincount(rival, lost, minlength=classes), np.bincount(rival, minlength=classes)
    expected_hits[steps, rival] -= lost
    expected_hits[1:, c] += calibrated[order, c]
    decided[steps, rival] -= 1
    decided[1:, c] += 1
    counts = np.stack(
        [
            expected_hits.cumsum(axis=0),
            np.broadcast_to(calibrated.sum(axis=0), expected_hits.shape),
            decided.cumsum(axis=0),
        ],
        axis=1,
    )
    assert metric.from_counts is not None  # noqa: S101 - checked by the caller
    scores = sign * metric.from_counts(counts)
    edges = np.concatenate([[-MAX_BIAS], np.clip(threshold, -MAX_BIAS, MAX_BIAS), [MAX_BIAS]])
    centers = (edges[:-1] + edges[1:]) / 2
    scores[edges[1:] - edges[:-1] <= 1e-9] = -np.inf  # no bias lies between these thresholds
    unchanged = int(np.searchsorted(threshold, bias[c]))
    best = int(np.argmax(scores))
    if scores[best] <= scores[unchanged] + 1e-9:
        return float(bias[c]), float(scores[unchanged])
    return float(centers[best]), float(scores[best])
