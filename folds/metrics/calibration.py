"""Measure calibration: whether predictions with a confidence of 80% are right in 80% of cases; numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from folds.metrics.confusion import Labels, Probabilities, argmax_classes

BINS = 15


@dataclass(frozen=True)
class Bin:
    """The rows whose confidence is above `low` and at most `high` (the first bin includes 0).

    Attributes
    ----------
    confidence, accuracy : means over the rows; nan for an empty bin.
    count : number of rows.
    """

    low: float
    high: float
    confidence: float
    accuracy: float
    count: int


def reliability(labels: Labels, probabilities: Probabilities, bins: int = BINS, equal_mass: bool = False) -> list[Bin]:
    """Return the mean confidence and accuracy of the predicted class in bins of confidence (Guo et al., 2017, section
    2).

    Parameters
    ----------
    labels : (n,) class indices.
    probabilities : (n, classes).
    equal_mass : use bins with equal numbers of rows instead of equal width; rows of equal confidence stay together, so
        there may be fewer bins.
    """
    values = np.asarray(probabilities, np.float64)
    return binned(values.max(axis=1), argmax_classes(probabilities) == labels, bins, equal_mass)


def binned(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = BINS, equal_mass: bool = False
) -> list[Bin]:
    """Return bins in ascending order from (n,) confidences from 0 to 1 and (n,) booleans, whether each prediction was
    right.
    """
    if equal_mass:
        ascending = np.sort(confidence)
        inner = ascending[np.arange(1, bins) * len(ascending) // bins - 1] if len(ascending) >= bins else ascending[:-1]
        edges = np.unique(np.concatenate([[0.0], inner, [1.0]]))
    else:
        edges = np.linspace(0, 1, bins + 1)
    bin_index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, len(edges) - 2)
    count, confident, hits = (
        np.bincount(bin_index, weights, len(edges) - 1) for weights in (None, confidence, right.astype(float))
    )
    means = [np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0) for total in (confident, hits)]
    return [
        Bin(float(edges[i]), float(edges[i + 1]), float(means[0][i]), float(means[1][i]), int(count[i]))
        for i in range(len(count))
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error: Σ share of the rows · |accuracy − confidence| (Naeini, Cooper and
    Hauskrecht, 2015).
    """
    rows = sum(one.count for one in bins)
    return sum(one.count * abs(one.accuracy - one.confidence) for one in bins if one.count) / max(rows, 1)


def classwise_calibration_error(
    labels: Labels, probabilities: Probabilities, bins: int = BINS, equal_mass: bool = False
) -> float:
    """Return the mean over classes of the calibration error of each class's probability (Kull et al., 2019, equation
    3).

    Unlike the error of the confidence, it includes the probabilities of all classes that are not predicted.
    """
    values = np.asarray(probabilities, np.float64)
    errors = [calibration_error(binned(column, labels == one, bins, equal_mass)) for one, column in enumerate(values.T)]
    return float(np.mean(errors))
