"""Count several labels, or average numbers, in the folds of a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.metrics.columns import counted_cells, units_with
from folds.metrics.task_names import MULTILABEL
from folds.predictions.label_columns import label_matrix


def fold_means(values: NDArray[np.float64], fold: NDArray[np.int64], parts: int) -> NDArray[np.float64]:
    """Return (columns, parts + 1) the mean of the known values in each fold and in all: a share of a label; else nan.

    Parameters
    ----------
    values : (n, columns) labels or numbers.
    fold : (n,) from 0 to parts - 1.
    """
    known = ~np.isnan(values)
    sums, counts = np.zeros((parts, values.shape[1])), np.zeros((parts, values.shape[1]))
    np.add.at(sums, fold, np.where(known, values, 0))
    np.add.at(counts, fold, known)
    sums, counts = np.vstack([sums, sums.sum(axis=0)]), np.vstack([counts, counts.sum(axis=0)])
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0).T


class ColumnFolds:
    """Labels or numbers in the folds of an assignment.

    Attributes
    ----------
    counts : (columns, parts) samples with each label, or with a known number.
    means : (columns, parts + 1) shares of the labels among samples of which they are known, or means of the numbers; of
        all samples in the last column.
    deviation : (columns,) the largest difference of a fold from all samples.
    people : people with each label, or with a known number.
    """

    def __init__(self, assignment: Any, names: Sequence[str]) -> None:
        parts = 2 if assignment.held_out else assignment.k
        values = label_matrix(assignment.labels, names, assignment.task)
        fold = assignment.fold % parts  # fold -1 (training only) becomes the last one
        counted = counted_cells(values, assignment.task)
        self.names, self.task = tuple(names), assignment.task
        self.counts = np.stack([np.bincount(fold[column], minlength=parts) for column in counted.T])
        self.means = fold_means(values, fold, parts)
        apart = np.abs(self.means[:, :-1] - self.means[:, -1:])
        self.deviation = np.where(np.isnan(apart), 0.0, apart).max(axis=1)
        self.people = units_with(counted, assignment.factorized_persons[1]).tolist()
        self.samples = np.bincount(fold, minlength=parts)

    def to_dict(self) -> dict[str, Any]:
        """Return means and deviations as plain values, None where nothing is known."""
        means = [[None if np.isnan(one) else float(one) for one in row] for row in self.means]
        return {
            "task": self.task,
            "samples": self.samples.tolist(),
            "means": {name: row[:-1] for name, row in zip(self.names, means, strict=True)},
            "mean": {name: row[-1] for name, row in zip(self.names, means, strict=True)},
            "deviation": dict(zip(self.names, self.deviation.tolist(), strict=True)),
        }

    def header(self, parts: Sequence[str]) -> list[str]:
        """Return the header of `rows`."""
        return ["label" if self.task == MULTILABEL else "mean of", *parts, "all", "people", "deviation"]

    def rows(self) -> list[list[object]]:
        """Return a row for each label (samples and their share), or for each number (its mean), with the deviation."""
        found: list[list[object]] = []
        for at, name in enumerate(self.names):
            counts = [*self.counts[at].tolist(), int(self.counts[at].sum())]
            if self.task == MULTILABEL:
                cells = [f"{n:,} ({_share(one)})" for n, one in zip(counts, self.means[at], strict=True)]
                deviation = _share(self.deviation[at])
            else:
                cells, deviation = [_number(one) for one in self.means[at]], _number(self.deviation[at])
            found.append([name, *cells, f"{self.people[at]:,}", deviation])
        return found


def _share(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}".removeprefix("0")


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.4g}"
