"""Aggregate rows by person: confusion counts per person, and averaged predictions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from folds.metrics.classification import Labels, Probabilities
from folds.utils.numeric import factorize


def crosstab(rows: NDArray, columns: NDArray, height: int, width: int) -> NDArray[np.int64]:
    """Return (height, width): the number of occurrences of each pair (row, column)."""
    return np.bincount(rows * width + columns, minlength=height * width).reshape(height, width)


def confusion_counts_by_group(
    labels: Labels, predicted: Labels, classes: int, codes: NDArray[np.int64], units: int
) -> NDArray[np.int64]:
    """Return (units, 3, classes): `folds.metrics.classification.confusion_counts` of the rows of each unit; their sum
    over units is that of all rows.
    """
    right = labels == predicted
    parts = [
        crosstab(codes[right], labels[right], units, classes),
        crosstab(codes, labels, units, classes),
        crosstab(codes, predicted, units, classes),
    ]
    return np.stack(parts, axis=1)


def people_with_class(labels: Labels, persons: NDArray, classes: int) -> NDArray[np.int64]:
    """Return (classes,) the number of people with at least one row of each class."""
    distinct, codes = factorize(persons)
    return (crosstab(codes, np.asarray(labels, np.int64), len(distinct), classes) > 0).sum(axis=0)


def average_by_person(
    labels: Labels, probabilities: Probabilities, persons: NDArray, classes: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray, int]:
    """Return one row per person: the mean of its rows' probabilities, and its most frequent label (lowest index among
    equals).

    Returns
    -------
    labels (people,), probabilities (people, classes), persons (people,), and the number of people with several labels.
    """
    names, codes = np.unique(persons, return_inverse=True)
    counts = crosstab(codes, labels, len(names), classes)
    sums = np.zeros((len(names), classes))
    np.add.at(sums, codes, probabilities)
    return counts.argmax(1), sums / counts.sum(1, keepdims=True), names, int(np.sum((counts > 0).sum(1) > 1))
