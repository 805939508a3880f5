"""Measure calibration: whether of what is predicted with 80 %, 80 % is right. numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from folds.metrics.classification import Labels, Probabilities, argmax_classes

BINS = 15


@dataclass(frozen=True)
class Bin:
    """Rows whose confidence is above `low` and at most `high` (the first has 0, too).

    Attributes
    ----------
    confidence, accuracy : means over its rows; nan where there are none.
    count : its rows.
    """

    low: float
    high: float
    confidence: float
    accuracy: float
    count: int


def reliability(labels: Labels, probabilities: Probabilities, bins: int = BINS, equal_mass: bool = False) -> list[Bin]:
    """Return the confidence of the predicted class against how often it is right (Guo et al., 2017, section 2).

    Parameters
    ----------
    labels : (n,) class indices.
    probabilities : (n, classes).
    equal_mass : bins of as many rows each instead of as much width; rows of equal confidence stay together, so there
        may be fewer.
    """
    values = np.asarray(probabilities, np.float64)
    return binned(values.max(axis=1), argmax_classes(probabilities) == labels, bins, equal_mass)


def binned(
    confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = BINS, equal_mass: bool = False
) -> list[Bin]:
    """Return (n,) confidences from 0 to 1 and (n,) whether it came true → bins in rising order."""
    if equal_mass:
        ordered = np.sort(confidence)
        inner = ordered[np.arange(1, bins) * len(ordered) // bins - 1] if len(ordered) >= bins else ordered[:-1]
        edges = np.unique(np.concatenate([[0.0], inner, [1.0]]))
    else:
        edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, len(edges) - 2)
    count, confident, hits = (
        np.bincount(place, weights, len(edges) - 1) for weights in (None, confidence, right.astype(float))
    )
    means = [np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0) for total in (confident, hits)]
    return [
        Bin(float(edges[i]), float(edges[i + 1]), float(means[0][i]), float(means[1][i]), int(count[i]))
        for i in range(len(count))
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Σ share of the rows · |accuracy − confidence|: the expected calibration error (Naeini, Cooper and Hauskrecht,
    2015).
    """
    rows = sum(one.count for one in bins)
    return sum(one.count * abs(one.accuracy - one.confidence) for one in bins if one.count) / max(rows, 1)


def classwise_calibration_error(
    labels: Labels, probabilities: Probabilities, bins: int = BINS, equal_mass: bool = False
) -> float:
    """Return the mean over classes of the calibration error of that class's probability (Kull et al., 2019, equation
    3).

    The error of the confidence hides what all but the predicted class get.
    """
    values = np.asarray(probabilities, np.float64)
    errors = [calibration_error(binned(column, labels == one, bins, equal_mass)) for one, column in enumerate(values.T)]
    return float(np.mean(errors))
