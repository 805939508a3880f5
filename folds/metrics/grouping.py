"""Aggregate rows by person: counts that add up over people, one averaged row a person."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from folds.metrics.classification import Labels, Probabilities
from folds.utils.numeric import factorize


def crosstab(rows: NDArray, columns: NDArray, height: int, width: int) -> NDArray[np.int64]:
    """Return (height, width): how often each pair of (row, column) occurs."""
    return np.bincount(rows * width + columns, minlength=height * width).reshape(height, width)


def confusion_counts_by_group(
    labels: Labels, predicted: Labels, classes: int, codes: NDArray[np.int64], units: int
) -> NDArray[np.int64]:
    """Return (units, 3, classes): what `folds.metrics.classification.confusion_counts` would say of the rows of each
    unit; they add up over units.
    """
    hit = labels == predicted
    parts = [
        crosstab(codes[hit], labels[hit], units, classes),
        crosstab(codes, labels, units, classes),
        crosstab(codes, predicted, units, classes),
    ]
    return np.stack(parts, axis=1)


def people_with_class(labels: Labels, persons: NDArray, classes: int) -> NDArray[np.int64]:
    """Return (classes,) how many people have at least one row of each class."""
    distinct, codes = factorize(persons)
    return (crosstab(codes, np.asarray(labels, np.int64), len(distinct), classes) > 0).sum(axis=0)


def average_by_person(
    labels: Labels, probabilities: Probabilities, persons: NDArray, classes: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray, int]:
    """Return one row a person: the mean of its rows' probabilities, and its most frequent label (lowest index among
    equals).

    Returns
    -------
    labels (people,), probabilities (people, classes), persons (people,), and how many people carry several labels.
    """
    names, codes = np.unique(persons, return_inverse=True)
    tallies = crosstab(codes, labels, len(names), classes)
    sums = np.zeros((len(names), classes))
    np.add.at(sums, codes, probabilities)
    return tallies.argmax(1), sums / tallies.sum(1, keepdims=True), names, int(np.sum((tallies > 0).sum(1) > 1))
