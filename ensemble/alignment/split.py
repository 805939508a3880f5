"""Hold the runs of a split with their files aligned to its rows and classes, and read them in blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ensemble.members.reading import Member
from folds.metrics.label_scores import is_predicted
from folds.metrics.task_names import CLASSES, COLUMN_TASKS
from folds.predictions.files import SampleRows
from folds.predictions.links import predictions_of
from folds.utils.memmap import release_pages
from folds.utils.numeric import softmax

Present = NDArray[np.bool_]


@dataclass(frozen=True)
class Grouping:
    """A grouping of classes: (classes,) the group of each class, and the number of groups."""

    value: NDArray[np.int64]
    groups: int

    def sums(self, block: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sums over each group: (m, classes) → (m, groups)."""
        total = np.zeros((len(block), self.groups))
        for column, group in enumerate(self.value):
            total[:, group] += block[:, column]
        return total


@dataclass(frozen=True)
class AlignedFile:
    """One file aligned to a split.

    Attributes
    ----------
    rows : (n,) row in the file of each sample of the split, −1 if it has none; None if rows are in the same order.
    columns : (classes,) column in the file of each class; None if columns are in the same order.
    answers : (n of the file,) class indices of a file of hard labels, otherwise None.
    fold : (n,) fold of each row of the split (−1 unknown), or one fold for all rows; None if unknown.
    """

    member: Member
    rows: NDArray[np.int64] | None = None
    columns: NDArray[np.int64] | None = None
    answers: NDArray[np.int64] | None = None
    fold: NDArray[np.int64] | int | None = None

    def present(self, start: int, stop: int) -> Present | None:
        """Return (stop − start,) whether the file has each row; None if it has all."""
        if self.rows is None:
            return None
        present = self.rows[start:stop] >= 0
        return None if present.all() else present

    def read_block(self, start: int, stop: int) -> NDArray[np.float64]:
        """Return (stop − start, classes) stored values, classes in order; arbitrary values in rows the file lacks."""
        values = self.member.values
        assert values is not None  # noqa: S101 - `codes` reads hard labels
        block = values[start:stop] if self.rows is None else values[np.maximum(self.rows[start:stop], 0)]
        copied = np.array(block if self.columns is None else block[:, self.columns], dtype=np.float64)
        release_pages(values)
        return copied

    def raw_block(self, start: int, stop: int) -> NDArray[np.floating] | None:
        """Return (stop − start, classes) a view of the file's probabilities; None if rows, columns or values differ."""
        if self.rows is not None or self.columns is not None or self.member.values is None or self.member.logit:
            return None
        return np.asarray(self.member.values)[start:stop]

    def probabilities(self, start: int, stop: int) -> NDArray[np.float64]:
        """Return (stop − start, classes) probabilities; 0 in rows that the file lacks."""
        block = self.read_block(start, stop)
        if self.member.has_columns:
            block = predictions_of(self.member.task, block) if self.member.logit else block
        elif self.member.logit:
            softmax(block, out=block)
        present = self.present(start, stop)
        if present is not None:
            block[~present] = 0
        return block

    def codes(self, start: int, stop: int, grouping: Grouping | None = None) -> NDArray[np.int64]:
        """Return (stop − start,) the predicted class or group of classes; arbitrary in rows that the file lacks."""
        if self.answers is None:
            block = self.read_block(start, stop) if grouping is None else grouping.sums(self.probabilities(start, stop))
            return block.argmax(axis=1)
        codes = self.answers[start:stop] if self.rows is None else self.answers[np.maximum(self.rows[start:stop], 0)]
        return codes if grouping is None else grouping.value[codes]

    def take(self, index: NDArray[np.int64], length: int) -> AlignedFile:
        """Return the file restricted to the rows `index` of the split's `length` rows."""
        rows = np.arange(length)[index] if self.rows is None else self.rows[index]
        return replace(self, rows=rows, fold=self.fold[index] if isinstance(self.fold, np.ndarray) else self.fold)


@dataclass(frozen=True)
class RunPredictions:
    """The files of one run (architecture and recipe) on one split.

    Attributes
    ----------
    parts : on test, one file for each fold model; out of fold, usually one file with all folds.
    classes : number of classes.
    folds : folds with a prediction; () if unknown.
    rows : number of the split's rows with a prediction.
    """

    name: str
    parts: tuple[AlignedFile, ...]
    classes: int
    folds: tuple[int, ...] = ()
    rows: int = 0

    @property
    def hard(self) -> bool:
        """Return whether the run has only hard labels and no probabilities."""
        return any(part.answers is not None for part in self.parts)

    @property
    def views(self) -> tuple[str, ...]:
        """Return the test-time views of its files."""
        return tuple(dict.fromkeys(view for part in self.parts for view in part.member.views))

    def models(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return (stop − start,) the number of fold models that predict each row; 0 where the run is absent."""
        count = np.zeros(stop - start, np.int64)
        for part in self.parts:
            present = part.present(start, stop)
            count += 1 if present is None else present
        return count

    def present(self, start: int, stop: int) -> Present | None:
        """Return (stop − start,) whether the run has each row; None if it has all."""
        if any(part.rows is None for part in self.parts):
            return None
        present = self.models(start, stop) > 0
        return None if present.all() else present

    def raw_block(self, start: int, stop: int) -> NDArray[np.floating] | None:
        """Return (stop − start, classes) a view of its only file's probabilities; None if they must be computed."""
        return self.parts[0].raw_block(start, stop) if len(self.parts) == 1 else None

    def probabilities(self, start: int, stop: int) -> NDArray[np.float64]:
        """Return (stop − start, classes) the mean over the fold models that have the row; 0 where none has."""
        first, *others = self.parts
        total = first.probabilities(start, stop)
        for part in others:
            total += part.probabilities(start, stop)
        return total / np.maximum(self.models(start, stop), 1)[:, None] if others else total

    def votes(self, start: int, stop: int, grouping: Grouping | None = None) -> NDArray[np.float64]:
        """Return (stop − start, classes or groups) the share of fold models that vote for each; 0 where absent.

        Of several labels, a model votes for each with a probability above one half.
        """
        if self.parts[0].member.has_columns:
            yes = sum(
                (is_predicted(part.probabilities(start, stop)).astype(np.float64) for part in self.parts),
                np.zeros((stop - start, self.classes)),
            )
            return yes / np.maximum(self.models(start, stop), 1)[:, None]
        total, index = (
            np.zeros((stop - start, self.classes if grouping is None else grouping.groups)),
            np.arange(stop - start),
        )
        for part in self.parts:
            present = part.present(start, stop)
            total[index, part.codes(start, stop, grouping)] += 1 if present is None else present
        return total / np.maximum(self.models(start, stop), 1)[:, None]

    def take(self, index: NDArray[np.int64], length: int) -> RunPredictions:
        """Return the run restricted to the rows `index` of `length`."""
        return replace(self, parts=tuple(part.take(index, length) for part in self.parts))


@dataclass(frozen=True)
class AlignedSplit:
    """The samples of one split that have a prediction, and the runs that predict them.

    Attributes
    ----------
    name : ``oof`` or ``test``.
    rows : ids and, if known, labels and persons, each (n,).
    classes : classes in order; the columns of the runs' predictions.
    runs : in the order of their first appearance in the command.
    fold : (n,) fold of each sample; None if members disagree.
    folds_sha : hash of the fold assignment if all members have the same.
    table_rows : number of samples in the table, with those that no run has predicted yet.
    numbered : whether the ids are the numbers of rows, because nothing names the samples.
    task : ``binary`` if the last class is the positive one, ``ordinal`` if the classes are grades in their order,
        ``multilabel`` or ``regression`` if each class is a label or a number of its own.
    """

    name: str
    rows: SampleRows
    classes: tuple[str, ...]
    runs: tuple[RunPredictions, ...]
    target: str = "label"
    class_attributes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    fold: NDArray[np.int64] | None = None
    folds_sha: str | None = None
    table_rows: int = 0
    numbered: bool = False
    task: str = CLASSES

    @property
    def has_columns(self) -> bool:
        """Return whether every column has labels or numbers of its own (`COLUMN_TASKS`)."""
        return self.task in COLUMN_TASKS

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: NDArray[np.int64]) -> AlignedSplit:
        """Return the split restricted to the rows `index`."""
        fold = None if self.fold is None else self.fold[index]
        return replace(
            self, rows=self.rows.take(index), runs=tuple(run.take(index, len(self)) for run in self.runs), fold=fold
        )

    def select_runs(self, names: Sequence[str]) -> AlignedSplit | None:
        """Return the split with these runs only, restricted to their rows; None if the split has none of them."""
        runs = tuple(run for run in self.runs if run.name in names)
        if len(runs) == len(self.runs) or not runs:
            return self if runs else None
        covered = np.zeros(len(self), bool)
        for run in runs:
            covered |= run.models(0, len(self)) > 0
        kept = replace(self, runs=runs)
        return kept if covered.all() else kept.take(np.flatnonzero(covered))
