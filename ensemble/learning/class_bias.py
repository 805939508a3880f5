"""A bias for each class, on log p, that moves decisions towards what a metric of counts wants: macro F1 wants rare
classes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.calibration import pooled_honestly, vector
from ensemble.learning.combination import Calibration, Combination, Fitter
from ensemble.learning.stack import Stack
from folds.metrics.classification import Metric

# Of the calibration that says how probable each class is, see `ensemble.learning.calibration.vector`.
OFFSET_STRENGTH = 3.0
# Largest bias, either way: e⁵ is 150 times the probability.
MOST = 5.0
_ROUNDS = 10


def biased(fitter: Fitter) -> Fitter:
    """A fitter whose decisions are moved by a bias for each class.

    The bias is what is best for the metric if labels were drawn from the calibrated probabilities, which is an expected
    score. The labels themselves it sees only through the calibration, of as many numbers as there are classes: fitted
    to the
    score of the labels, it learns which of the few samples of a rare class happen to be where, and on new ones most of
    that is lost. What is not a metric of counts does not ask for decisions, and gets no bias.
    """

    def fit(stack: Stack, metric: Metric, seed: int = 0) -> Combination:
        inner, pooled = pooled_honestly(fitter, stack, metric, seed)
        if metric.from_counts is None:
            return replace(
                inner, summary="; ".join(filter(None, [inner.summary, f"no bias: {metric.title} is not of decisions"]))
            )
        bias = expected_bias(pooled, stack.labels, metric)
        said = f"bias {bias.min():+.2f} to {bias.max():+.2f}"
        return replace(inner, bias=bias, summary="; ".join(filter(None, [inner.summary, said])))

    return Fitter(f"{fitter.name}+bias", f"{fitter.title}, and a bias for each class", fit, moves=True)


def expected_bias(
    probabilities: NDArray[np.floating], labels: NDArray[np.int64], metric: Metric
) -> NDArray[np.float64]:
    """(classes,) the bias on log p with the best expected score, their mean 0.

    It starts at the offsets of the calibration, whose largest probability is the most probable class, and goes up by
    one
    class at a time, over all values at which a decision changes.

    Parameters
    ----------
    probabilities : (n, classes); `labels` (n,).
    metric : with `of_counts`.
    """
    heat, offset = vector(probabilities, labels, OFFSET_STRENGTH)
    calibrated = Calibration(np.array(heat), offset)(probabilities)
    logs = np.log(calibrated)
    bias = np.zeros(logs.shape[1])
    sign = 1.0 if metric.greater_is_better else -1.0
    best = -np.inf
    for _ in range(_ROUNDS):
        before = best
        for c in range(len(bias)):
            bias[c], best = _best_of_class(logs, calibrated, bias, c, metric, sign)
        if best <= before + 1e-6:
            break
    # log calibrated = (log p)/T + offset: the same decisions as of log p with T · (offset + bias).
    bias = heat * (offset + bias)
    return bias - bias.mean()


def _best_of_class(
    logs: NDArray[np.float64],
    calibrated: NDArray[np.float64],
    bias: NDArray[np.float64],
    c: int,
    metric: Metric,
    sign: float,
) -> tuple[float, float]:
    """The bias of class `c` with the best expected score, the others' as they are, and that score times `sign`.

    The samples become `c` one by one as its bias grows; the counts after each are sums along that order.
    """
    n, classes = logs.shape
    others = logs + bias
    others[:, c] = -np.inf
    rival = others.argmax(axis=1)
    needed = others[np.arange(n), rival] - logs[:, c]  # above it, the sample is decided to be c
    order = np.argsort(needed, kind="stable")
    needed, rival, steps = needed[order], rival[order], np.arange(1, n + 1)
    hits, decided = np.zeros((n + 1, classes)), np.zeros((n + 1, classes))
    lost = calibrated[order, rival]
    hits[0], decided[0] = np.bincount(rival, lost, minlength=classes), np.bincount(rival, minlength=classes)
    hits[steps, rival] -= lost
    hits[1:, c] += calibrated[order, c]
    decided[steps, rival] -= 1
    decided[1:, c] += 1
    counts = np.stack(
        [hits.cumsum(axis=0), np.broadcast_to(calibrated.sum(axis=0), hits.shape), decided.cumsum(axis=0)], axis=1
    )
    assert metric.from_counts is not None  # noqa: S101 - the caller sees to it
    scores = sign * metric.from_counts(counts)
    edges = np.concatenate([[-MOST], np.clip(needed, -MOST, MOST), [MOST]])
    between = (edges[:-1] + edges[1:]) / 2
    scores[edges[1:] - edges[:-1] <= 1e-9] = -np.inf  # no bias tells these samples apart
    stays = int(np.searchsorted(needed, bias[c]))
    best = int(np.argmax(scores))
    if scores[best] <= scores[stays] + 1e-9:
        return float(bias[c]), float(scores[stays])
    return float(between[best]), float(scores[best])
