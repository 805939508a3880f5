"""Aggregate rows by person: confusion counts per person, and averaged predictions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from folds.metrics.columns import units_with
from folds.metrics.confusion import Labels, Probabilities
from folds.metrics.task_names import COLUMN_TASKS, MULTILABEL
from folds.utils.numeric import factorize


def crosstab(rows: NDArray, columns: NDArray, height: int, width: int) -> NDArray[np.int64]:
    """Return (height, width): the number of occurrences of each pair (row, column)."""
    return np.bincount(rows * width + columns, minlength=height * width).reshape(height, width)


def confusion_counts_by_group(
    labels: Labels, predicted: Labels, classes: int, codes: NDArray[np.int64], units: int
) -> NDArray[np.int64]:
    """Return (units, 3, classes): `folds.metrics.confusion.confusion_counts` of the rows of each unit; their sum
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


def people_with_label(labels: NDArray[np.floating], persons: NDArray, value: float = 1.0) -> NDArray[np.int64]:
    """Return (columns,) the number of people with at least one row whose label is `value`.

    Parameters
    ----------
    labels : (n, columns) of 0, 1 and nan.
    """
    return units_with(labels == value, factorize(persons)[1])


def average_by_person(
    labels: NDArray, probabilities: Probabilities, persons: NDArray, classes: int, task: str
) -> tuple[NDArray, NDArray[np.float64], NDArray, int]:
    """Return one row per person: the mean of its rows' probabilities, and its most frequent label (lowest index among
    equals).

    Of several labels a person has those that any of its rows has; a label is unknown if no row knows it. Of numbers a
    person has the mean of the known ones. Predictions are means over all rows, whether their labels are known or not
    (`folds.metrics.scored_units` says why).

    Parameters
    ----------
    labels : (n,) class indices, −1 where one is not known; or (n, columns) with nan where one is not known.
    task : of labels (n, columns), multilabel or regression: numbers of 0 and 1 have a mean, too.

    Returns
    -------
    labels (people,), −1 for people of whom none is known, or (people, columns); probabilities (people, classes);
    persons (people,); and the number of people with several labels, or with different values in a column.
    """
    names, codes = np.unique(persons, return_inverse=True)
    sums = np.zeros((len(names), classes))
    np.add.at(sums, codes, probabilities)
    means = sums / np.bincount(codes, minlength=len(names))[:, None]
    if np.ndim(labels) == 2:
        found, several = columns_by_person(np.asarray(labels, np.float64), codes, len(names), task)
        return found, means, names, several
    known = labels >= 0
    counts = crosstab(codes[known], labels[known], len(names), classes)
    most = np.where(counts.any(axis=1), counts.argmax(1), -1)
    return most, means, names, int(np.sum((counts > 0).sum(1) > 1))


def columns_by_person(
    labels: NDArray[np.float64], codes: NDArray[np.int64], people: int, task: str
) -> tuple[NDArray[np.float64], int]:
    """Return (people, columns) the labels or numbers of people as `average_by_person` has them, and the number of
    people with different values in a column.

    Parameters
    ----------
    labels : (n, columns) of the images, nan where one is not known.
    codes : (n,) index of the person of each image.
    task : multilabel or regression.

    Raises
    ------
    ValueError : another task.
    """
    if task not in COLUMN_TASKS:
        raise ValueError(f"labels of shape {labels.shape} are not of the task {task}")
    known = ~np.isnan(labels)
    low, high = np.full((people, labels.shape[1]), np.inf), np.full((people, labels.shape[1]), -np.inf)
    np.minimum.at(low, codes, np.where(known, labels, np.inf))
    np.maximum.at(high, codes, np.where(known, labels, -np.inf))
    several = int((high > low).any(axis=1).sum())
    if task == MULTILABEL:
        return np.where(high >= low, high, np.nan), several
    sums, count = np.zeros_like(low), np.zeros_like(low)
    np.add.at(sums, codes, np.where(known, labels, 0))
    np.add.at(count, codes, known)
    mean = np.divide(sums, count, out=np.full_like(sums, np.nan), where=count > 0)
    # The mean of equal numbers is that number, without rounding.
    return np.where(high == low, high, mean), several
