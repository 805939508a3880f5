"""Compute scores of several labels, or several numbers, of a sample: labels and predictions are matrices; numpy only.

A score is the mean over the columns of the score of each column on its known cells, without the columns in which it is
not defined. Labels are (n, columns) float64, nan where a label is not known; predictions are (n, columns).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from folds.metrics.task_names import MULTILABEL

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

# What a person's part in a score is: every known cell; the cells with a label, of which hits and misses are counted; or
# those with and those without it, each as one half.
ROWS, POSITIVES, BOTH = "rows", "positives", "both"


def ratio(numerator: NDArray, denominator: NDArray, otherwise: float = 0.0) -> Floats:
    """Return numerator / denominator, and `otherwise` where the denominator is 0."""
    shape = np.broadcast_shapes(np.shape(numerator), np.shape(denominator))
    return np.divide(numerator, denominator, out=np.full(shape, otherwise), where=denominator > 0)


def counted_cells(values: NDArray[np.floating], task: str) -> NDArray[np.bool_]:
    """Return (n, columns): whether a sample has the label, or its number is known."""
    return values == 1 if task == MULTILABEL else ~np.isnan(values)


def units_with(cells: NDArray[np.bool_], codes: Codes) -> NDArray[np.int64]:
    """Return (columns,) the number of units (people) with a cell of (n, columns) that is True.

    Parameters
    ----------
    codes : (n,) the unit of each row, from 0.
    """
    return np.array([np.count_nonzero(np.bincount(codes[column])) for column in cells.T], dtype=np.int64)


def mean_of_known(values: Floats) -> Floats:
    """Return (…) the mean over the last axis of (…, columns) without nan; nan where all values are nan."""
    known = ~np.isnan(values)
    return np.where(known.any(-1), np.where(known, values, 0).sum(-1) / np.maximum(known.sum(-1), 1), np.nan)


@dataclass(frozen=True)
class OrderScore:
    """A score of one column that needs all of its cells at once.

    Attributes
    ----------
    score : labels (k,), bool if they are yes and no, and predictions (k,) → the score.
    without_each : the same, the unit (k,) of each cell, and the number of units → (units,) the score without the cells
        of each unit.
    """

    score: Callable[[NDArray, NDArray], float]
    without_each: Callable[[NDArray, NDArray, Codes, int], Floats]


@dataclass(frozen=True)
class ColumnScore:
    """A score of (n, columns) labels and predictions, computed in one of three ways.

    Attributes
    ----------
    task : `MULTILABEL` or `REGRESSION`.
    cell_sums, of_sums : labels (k,) and predictions (k,) of the known cells of a column → (k, m) numbers; their sums
        (…, m) → (…) the score of the column.
    row_sums : labels and predictions (n, columns) → (n, m), in the place of `cell_sums`, for a score of whole rows.
    order : a score of the order of the cells, or of a quantile.
    pooled : whether the cells of all columns count as those of one.
    lower_bound, upper_bound : the range of its values.
    is_share : whether it is a mean of values between the bounds, or is treated as one (F1), so that people who are each
        entirely right or entirely wrong have the largest possible variation.
    of_decisions : whether it is computed from decisions, of which few people can make none wrong by chance.
    weights : `ROWS`, `POSITIVES` or `BOTH`.
    keeps_unit : whether its values are in the unit of the numbers, or its square.
    """

    task: str
    cell_sums: Callable[[Floats, NDArray], Floats] | None = None
    of_sums: Callable[[Floats], Floats] | None = None
    row_sums: Callable[[Floats, NDArray], Floats] | None = None
    order: OrderScore | None = None
    pooled: bool = False
    lower_bound: float = 0.0
    upper_bound: float = 1.0
    is_share: bool = False
    of_decisions: bool = False
    weights: str = ROWS
    keeps_unit: bool = False

    def __call__(self, labels: Floats, values: NDArray) -> float:
        """Return the score; nan if it is not defined in any column."""
        return float(mean_of_known(self.of_columns(labels, values)))

    def of_columns(self, labels: Floats, values: NDArray) -> Floats:
        """Return (columns,) the score of each column, nan where it is not defined; (1,) for a score of all columns
        together.
        """
        if self.order is not None:
            return np.array([self.order.score(*cells) for cells, _ in self._cells(labels, values)])
        assert self.of_sums is not None  # noqa: S101 - set without `order`
        return self.of_sums(self._sums(labels, values, np.zeros(len(labels), np.int64), 1)[0])

    def of_columns_without_each(self, labels: Floats, values: NDArray, codes: Codes, units: int) -> Floats:
        """Return (units, columns) the same without the rows of each unit.

        Parameters
        ----------
        codes : (n,) the unit of each row.
        """
        if self.order is not None:
            parts = self._cells(labels, values)
            return np.stack([self.order.without_each(*cells, codes[rows], units) for cells, rows in parts], axis=1)
        assert self.of_sums is not None  # noqa: S101 - set without `order`
        sums = self._sums(labels, values, codes, units)
        return self.of_sums(sums.sum(axis=0) - sums)

    def without_each(self, labels: Floats, values: NDArray, codes: Codes, units: int) -> Floats:
        """Return (units,) the score without the rows of each unit."""
        return mean_of_known(self.of_columns_without_each(labels, values, codes, units))

    def _cells(self, labels: Floats, values: NDArray) -> list[tuple[tuple[NDArray, NDArray], NDArray[np.int64]]]:
        """Return labels and predictions of the known cells of each column, and the row of each cell."""
        found = []
        for column in range(labels.shape[1]):
            rows = np.flatnonzero(~np.isnan(labels[:, column]))
            truth = labels[rows, column]
            found.append(((truth > 0 if self.task == MULTILABEL else truth, np.asarray(values)[rows, column]), rows))
        if not self.pooled:
            return found
        truth, value = (np.concatenate([cells[i] for cells, _ in found]) for i in range(2))
        return [((truth, value), np.concatenate([rows for _, rows in found]))]

    def _sums(self, labels: Floats, values: NDArray, codes: Codes, units: int) -> Floats:
        """Return (units, columns, m) the sums of the cells of each unit; (units, 1, m) of all columns together."""
        if self.row_sums is not None:
            return _by_unit(self.row_sums(labels, values), codes, units)[:, None]
        assert self.cell_sums is not None  # noqa: S101 - set without `order` and `row_sums`
        sums = np.stack(
            [_by_unit(self.cell_sums(*cells), codes[rows], units) for cells, rows in self._cells(labels, values)],
            axis=1,
        )
        return sums


def _by_unit(numbers: NDArray, codes: Codes, units: int) -> Floats:
    """Return (units, m) the sums of (k, m) numbers over the rows of each unit."""
    return np.stack([np.bincount(codes, column, units) for column in np.asarray(numbers, np.float64).T], axis=1)


@dataclass(frozen=True)
class ColumnRows:
    """The labels (n, columns) and the units (n,) of rows, and what an interval needs of them."""

    labels: Floats
    codes: Codes
    units: int

    @cached_property
    def _people_of_labels(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return tuple(units_with(self.labels == one, self.codes) for one in (1, 0))  # type: ignore[return-value]

    @property
    def fewest_units(self) -> int:
        """Return the number of people of the label, or of its absence, that the fewest people have, of those that
        anyone has; 0 if a label has none.
        """
        return int(min(counts.min() for counts in self._people_of_labels))

    def weights(self, kind: str) -> Floats:
        """Return (units,) the part of each unit in a score, by its known cells: `ROWS`, `POSITIVES` or `BOTH`."""
        known = ~np.isnan(self.labels)
        masks = {ROWS: [known], POSITIVES: [self.labels == 1], BOTH: [self.labels == 1, self.labels == 0]}[kind]
        total = np.zeros(self.units)
        for mask in masks:
            part = ratio(mask, mask.sum(axis=0)).sum(axis=1)
            total += np.bincount(self.codes, part, self.units)
        return total
