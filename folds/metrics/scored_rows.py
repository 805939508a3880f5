"""Hold the rows that several predictions are scored on; numpy only.

What depends on their labels and people alone is computed once, for all runs of a blend.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from folds.metrics.columns import ROWS, ColumnRows
from folds.metrics.confusion import Labels
from folds.metrics.grouping import people_with_class
from folds.metrics.resampling import jackknife_groups


class ScoredRows:
    """The labels (n,) and the persons (n,) of rows, and their number of classes; both arrays must not change.

    Of several labels or numbers, labels are (n, columns), and rows of which none is known are left out (`take`).
    """

    def __init__(self, labels: NDArray, persons: NDArray, classes: int) -> None:
        self.has_columns = np.ndim(labels) == 2
        self._known: NDArray | None = None
        if self.has_columns:
            known = ~np.isnan(labels).all(axis=1)
            self._known = None if known.all() else known
            labels, persons = self.take(labels), self.take(persons)
        self.labels, self.persons, self.classes = labels, persons, classes

    def take(self, values: NDArray) -> NDArray:
        """Return the rows of values (n, …) of which a label is known, as those of `labels`."""
        return np.asarray(values) if self._known is None else np.asarray(values)[self._known]

    @cached_property
    def groups(self) -> tuple[NDArray[np.int64], int, int]:
        """Return (n,) the jackknife unit of each row, the number of units and of people."""
        return jackknife_groups(self.persons)

    @property
    def people(self) -> int:
        """Return the number of people."""
        return self.groups[2]

    @cached_property
    def _first_cells(self) -> NDArray[np.int64]:
        """Return (n,) the cell of class 0 in the row of each unit in a table (units, classes)."""
        return self.groups[0] * self.classes

    @cached_property
    def _true_cells(self) -> NDArray[np.int64]:
        return self._first_cells + self.labels

    @cached_property
    def _support(self) -> NDArray[np.int64]:
        return self._table(self._true_cells)

    def _table(self, cells: NDArray[np.int64]) -> NDArray[np.int64]:
        units = self.groups[1]
        return np.bincount(cells, minlength=units * self.classes).reshape(units, self.classes)

    def confusion_counts(self, predicted: Labels) -> NDArray[np.int64]:
        """Return (units, 3, classes): `folds.metrics.grouping.confusion_counts_by_group` of the jackknife units."""
        right = self._table(self._true_cells[predicted == self.labels])
        return np.stack([right, self._support, self._table(self._first_cells + predicted)], axis=1)

    @cached_property
    def _columns(self) -> ColumnRows:
        return ColumnRows(self.labels, *self.groups[:2])

    def column_size(self, weights: str) -> tuple[float, float]:
        """Return `effective_size` of several labels or numbers.

        Parameters
        ----------
        weights : what a person's part in the score is, of `folds.metrics.columns`.
        """
        parts = self._columns.weights(weights)
        return _kish(parts if parts.any() else self._columns.weights(ROWS))

    @cached_property
    def fewest_people(self) -> int:
        """Return the number of people of the class that the fewest people have; of several labels, of the label, or of
        its absence.
        """
        if self.has_columns:
            return self._columns.fewest_units
        return int(people_with_class(self.labels, self.persons, self.classes).min())

    @cached_property
    def _effective_sizes(self) -> dict[tuple[bool, bool], tuple[float, float]]:
        return {}

    def effective_size(self, macro_averaged: bool, of_positive: bool = False) -> tuple[float, float]:
        """Return the effective number of people (Kish, 1965), and that number for the squares of the weights.

        All rows have equal weight, or, in a mean over classes, the inverse of the size of their class. A score of the
        positive one of two classes is as uncertain as the class with the fewer people, of whom it takes all its hits
        or its threshold.
        """
        key = (macro_averaged, of_positive and self.classes == 2 and self.labels.min() < self.labels.max())
        if key not in self._effective_sizes:
            codes, units, _ = self.groups
            if key[1]:
                every = [np.bincount(codes[self.labels == one], minlength=units).astype(float) for one in range(2)]
            else:
                every = [
                    np.bincount(codes, 1 / np.bincount(self.labels)[self.labels] if macro_averaged else None, units)
                ]
            self._effective_sizes[key] = min(map(_kish, every))
        return self._effective_sizes[key]


def _kish(weights: NDArray) -> tuple[float, float]:
    """Return the effective number of units with these weights, and that for the squares of the weights."""
    squares = np.square(weights)
    return float(weights.sum() ** 2 / squares.sum()), float(squares.sum() ** 2 / np.square(squares).sum())
