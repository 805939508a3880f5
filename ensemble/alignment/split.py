"""What votes: the runs of a split, their files lined up with its rows and classes, read block by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ensemble.members.reading import Member
from folds.predictions.files import SampleRows
from folds.utils.memmap import release_pages
from folds.utils.numeric import softmax

Present = NDArray[np.bool_]


@dataclass(frozen=True)
class Grouping:
    """Classes put together: (classes,) the group of each, and how many groups there are."""

    value: NDArray[np.int64]
    groups: int

    def sums(self, block: NDArray[np.float64]) -> NDArray[np.float64]:
        """(m, classes) → (m, groups)."""
        total = np.zeros((len(block), self.groups))
        for column, group in enumerate(self.value):
            total[:, group] += block[:, column]
        return total


@dataclass(frozen=True)
class AlignedFile:
    """One file, lined up.

    Attributes
    ----------
    rows : (n,) position in the file of each sample of the split, −1 where it has none; None where they are the same.
    columns : (classes,) position in the file of each class; None where they are the same.
    answers : (n of the file,) class indices of a file of hard labels, otherwise None.
    fold : the fold of each of the split's rows (−1 unknown), or one for all, None where it is not known.
    """

    member: Member
    rows: NDArray[np.int64] | None = None
    columns: NDArray[np.int64] | None = None
    answers: NDArray[np.int64] | None = None
    fold: NDArray[np.int64] | int | None = None

    def present(self, start: int, stop: int) -> Present | None:
        """(stop − start,) whether the file has the row; None where it has all."""
        if self.rows is None:
            return None
        present = self.rows[start:stop] >= 0
        return None if present.all() else present

    def read_block(self, start: int, stop: int) -> NDArray[np.float64]:
        """(stop − start, classes) as stored, classes in order; any row of the file where it has none."""
        values = self.member.values
        assert values is not None  # noqa: S101 - hard labels are read by `codes`
        block = values[start:stop] if self.rows is None else values[np.maximum(self.rows[start:stop], 0)]
        copied = np.array(block if self.columns is None else block[:, self.columns], dtype=np.float64)
        release_pages(values)
        return copied

    def raw_block(self, start: int, stop: int) -> NDArray[np.floating] | None:
        """(stop − start, classes) the probabilities as they lie in the file, where they are the split's; otherwise None."""
        if self.rows is not None or self.columns is not None or self.member.values is None or self.member.logit:
            return None
        return np.asarray(self.member.values)[start:stop]

    def probabilities(self, start: int, stop: int) -> NDArray[np.float64]:
        """(stop − start, classes); 0 where the file has no such row."""
        block = self.read_block(start, stop)
        if self.member.logit:
            softmax(block, out=block)
        present = self.present(start, stop)
        if present is not None:
            block[~present] = 0
        return block

    def codes(self, start: int, stop: int, grouping: Grouping | None = None) -> NDArray[np.int64]:
        """(stop − start,) the class, or group of classes, the file votes for; without meaning where it has no such row."""
        if self.answers is None:
            block = self.read_block(start, stop) if grouping is None else grouping.sums(self.probabilities(start, stop))
            return block.argmax(axis=1)
        codes = self.answers[start:stop] if self.rows is None else self.answers[np.maximum(self.rows[start:stop], 0)]
        return codes if grouping is None else grouping.value[codes]

    def take(self, index: NDArray[np.int64], length: int) -> AlignedFile:
        """The part for the rows `index` of the `length` rows it was lined up with."""
        rows = np.arange(length)[index] if self.rows is None else self.rows[index]
        return replace(self, rows=rows, fold=self.fold[index] if isinstance(self.fold, np.ndarray) else self.fold)


@dataclass(frozen=True)
class RunPredictions:
    """One architecture and recipe: its files on one split.

    Attributes
    ----------
    parts : one file a fold model on test, usually one stitched file out of fold.
    classes : how many.
    folds : those there are; () where they are not known.
    rows : how many of the split's rows have a prediction.
    """

    name: str
    parts: tuple[AlignedFile, ...]
    classes: int
    folds: tuple[int, ...] = ()
    rows: int = 0

    @property
    def hard(self) -> bool:
        """Whether there are only hard labels, and no probabilities."""
        return any(part.answers is not None for part in self.parts)

    @property
    def views(self) -> tuple[str, ...]:
        """The test-time views of its files."""
        return tuple(dict.fromkeys(view for part in self.parts for view in part.member.views))

    def models(self, start: int, stop: int) -> NDArray[np.int64]:
        """(stop − start,) how many of its fold models have predicted the row; 0 where the run is absent."""
        count = np.zeros(stop - start, np.int64)
        for part in self.parts:
            present = part.present(start, stop)
            count += 1 if present is None else present
        return count

    def present(self, start: int, stop: int) -> Present | None:
        """(stop − start,) whether the run has the row; None where it has all."""
        if any(part.rows is None for part in self.parts):
            return None
        present = self.models(start, stop) > 0
        return None if present.all() else present

    def raw_block(self, start: int, stop: int) -> NDArray[np.floating] | None:
        """(stop − start, classes) its probabilities as they lie in its one file; None where they must be computed."""
        return self.parts[0].raw_block(start, stop) if len(self.parts) == 1 else None

    def probabilities(self, start: int, stop: int) -> NDArray[np.float64]:
        """(stop − start, classes) the mean over the fold models that have the row; 0 where none has."""
        first, *others = self.parts
        total = first.probabilities(start, stop)
        for part in others:
            total += part.probabilities(start, stop)
        return total / np.maximum(self.models(start, stop), 1)[:, None] if others else total

    def votes(self, start: int, stop: int, grouping: Grouping | None = None) -> NDArray[np.float64]:
        """(stop − start, classes or groups) the share of its fold models that vote for each; 0 where none has the row."""
        total, index = (
            np.zeros((stop - start, self.classes if grouping is None else grouping.groups)),
            np.arange(stop - start),
        )
        for part in self.parts:
            present = part.present(start, stop)
            total[index, part.codes(start, stop, grouping)] += 1 if present is None else present
        return total / np.maximum(self.models(start, stop), 1)[:, None]

    def take(self, index: NDArray[np.int64], length: int) -> RunPredictions:
        """The run on the rows `index` of `length`."""
        return replace(self, parts=tuple(part.take(index, length) for part in self.parts))


@dataclass(frozen=True)
class AlignedSplit:
    """The samples of one split that have a prediction, and the runs that predict them.

    Attributes
    ----------
    name : ``oof`` or ``test``.
    rows : ids and, where known, labels and persons, each (n,).
    classes : in order; the columns of what the runs give.
    runs : in the order in which they first appear in the command.
    fold : (n,) the fold of each sample where the members agree on it.
    folds_sha : of the fold assignment, where all have the same.
    table_rows : how many samples the table has, with those that no run has predicted yet.
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

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: NDArray[np.int64]) -> AlignedSplit:
        """The split on the rows `index`."""
        fold = None if self.fold is None else self.fold[index]
        return replace(
            self, rows=self.rows.take(index), runs=tuple(run.take(index, len(self)) for run in self.runs), fold=fold
        )

    def select_runs(self, names: Sequence[str]) -> AlignedSplit | None:
        """The split with these runs alone, on the rows that they have; None where none of them is in it."""
        runs = tuple(run for run in self.runs if run.name in names)
        if len(runs) == len(self.runs) or not runs:
            return self if runs else None
        covered = np.zeros(len(self), bool)
        for run in runs:
            covered |= run.models(0, len(self)) > 0
        kept = replace(self, runs=runs)
        return kept if covered.all() else kept.take(np.flatnonzero(covered))
