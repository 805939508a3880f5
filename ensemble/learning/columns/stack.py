"""Hold out-of-fold predictions with a column for each label or number, as the input of fitted methods; numpy only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.split import AlignedSplit
from ensemble.alignment.truth import GroundTruth
from ensemble.learning.stack import Stack, check_stack_size, images_of, read_runs
from ensemble.voting.base import VoteInput
from ensemble.voting.blocks import row_blocks
from folds.errors import EnsembleError
from folds.metrics.label_scores import is_predicted

_BINS = 5  # of the first number, by which people are assigned to outer folds


@dataclass(frozen=True)
class ColumnStack(Stack):
    """Predictions of several runs with a column for each label or number, on samples with a known value.

    `probabilities` (runs, n, columns) hold the probability of each label, or the numbers; `labels` (n, columns) are
    float64, nan where a value is unknown.

    Attributes
    ----------
    columns : the labels or numbers.
    task : ``multilabel`` or ``regression``.
    """

    columns: tuple[str, ...] = ()
    task: str = ""

    def known_rows(self, column: int) -> NDArray[np.int64]:
        """Return the samples with a known value of a column."""
        return np.flatnonzero(~np.isnan(self.labels[:, column]))

    def of_label(self, column: int) -> Stack:
        """Return the samples with a known value of one label, as a stack of two classes: without and with it."""
        rows = self.known_rows(column)
        present = None if self.present is None else self.present[:, rows]
        return self._as_classes(self.probabilities[:, rows, column], self.labels[rows, column], present, rows)

    def of_cells(self) -> Stack:
        """Return every known cell of every label as a sample of two classes, for what all labels share."""
        rows, columns = np.nonzero(~np.isnan(self.labels))
        present = None if self.present is None else self.present[:, rows]
        return self._as_classes(self.probabilities[:, rows, columns], self.labels[rows, columns], present, rows)

    def _as_classes(
        self,
        values: NDArray[np.float32],
        labels: NDArray[np.float64],
        present: NDArray[np.bool_] | None,
        rows: NDArray[np.int64],
    ) -> Stack:
        two = np.stack([1 - values, values], axis=2)
        if present is not None:
            two[~present] = 0
            present = None if present.all() else present
        codes = labels.astype(np.int64)
        return Stack(self.names, two, present, codes, self.persons[rows], self.outer_folds[rows])

    def filled(self, column: int) -> NDArray[np.float64]:
        """Return (runs, n) one column, where an absent run has the mean of the others."""
        present = np.ones((self.runs, len(self)), bool) if self.present is None else self.present
        return fill_absent(self.probabilities[:, :, column].astype(np.float64), present)

    def ballots(self, counts_votes: bool = False, needs_all_rows: bool = False) -> Iterator[tuple[slice, VoteInput]]:
        """Yield blocks of samples and the runs' predictions; a vote for a label is a probability above a half."""
        hard, ranking = np.zeros(self.runs, bool), np.arange(self.runs)
        least = max(1, len(self) if needs_all_rows else 256)
        for part in row_blocks(len(self), self.runs * self.classes, min_rows=least):
            values = self.probabilities[:, part].astype(np.float64)
            presence = np.ones(values.shape[:2]) if self.present is None else self.present[:, part].astype(float)
            votes = is_predicted(values) * presence[:, :, None] if counts_votes else None
            yield part, VoteInput(values, votes, presence, hard, ranking)


def fill_absent(values: NDArray[np.float64], present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return (runs, m, …) values, where an absent run has the mean of the runs that are present."""
    if present.all():
        return values
    has = present.reshape(*present.shape, *[1] * (values.ndim - 2))
    mean = np.where(has, values, 0).sum(axis=0) / np.maximum(has.sum(axis=0), 1)
    return np.where(has, values, mean)


def column_stack_of(
    split: AlignedSplit, truth: GroundTruth, outer_folds: NDArray[np.int64], images: AlignedSplit | None = None
) -> ColumnStack:
    """Return the samples of a split with a known value, as the input of fitted methods.

    Parameters
    ----------
    outer_folds : (n of the split,) see `Stack`.
    images : of a split of people, the split of their images; None without a pooling rule that is fitted.

    Raises
    ------
    EnsembleError : no sample has a label, or the predictions do not fit into memory.
    """
    rows = np.flatnonzero(truth.known)
    if not len(rows):
        raise EnsembleError(
            f"fitted methods need labels, found none for the {split.name} samples",
            hint="pass `labels=FILE.csv` with columns id, person, and one for each label or number",
        )
    check_stack_size(len(split.runs), len(rows), len(split.classes))
    names, values, present = read_runs(split, rows)
    labeled = split if len(rows) == len(split) else split.take(rows)
    return ColumnStack(
        names,
        values,
        present,
        truth.labels[rows],
        truth.persons[rows],
        outer_folds[rows],
        None if images is None else images_of(labeled, images, names),
        columns=split.classes,
        task=split.task,
    )


def strata_of(labels: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return (n,) a class of each row of (n, columns) labels or numbers, by which people are assigned to outer folds.

    Of labels of 0 and 1 it is the rarest one that a row has; of numbers the fifth of the first known one. −1 where
    nothing is known.
    """
    known = ~np.isnan(labels)
    if np.isin(labels[known], (0, 1)).all():
        rarity = np.argsort(np.argsort(np.nansum(np.where(known, labels, 0), axis=0), kind="stable"), kind="stable")
        has = known & (labels == 1)
        first = np.where(has, rarity, labels.shape[1]).min(axis=1)
        return np.where(known.any(axis=1), np.where(has.any(axis=1), first + 1, 0), -1)
    values = np.where(known.any(axis=1), labels[np.arange(len(labels)), known.argmax(axis=1)], np.nan)
    edges = np.nanquantile(values, np.arange(1, _BINS) / _BINS)
    return np.where(np.isnan(values), -1, np.searchsorted(edges, values, side="right"))
