"""Hold the out-of-fold predictions of labeled samples in memory, as the input of fitted methods; numpy only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.split import AlignedSplit
from ensemble.alignment.truth import GroundTruth
from ensemble.learning.further_columns import Column, read_columns
from ensemble.pooling.bags import Bags
from ensemble.pooling.pooling import Pooling
from ensemble.voting.base import VoteInput
from ensemble.voting.blocks import row_blocks
from folds.errors import EnsembleError, UsageError

_MAX_BYTES = 16 * 2**30


@dataclass(frozen=True)
class StackImages:
    """The images of a stack whose samples are people, before they are pooled.

    Attributes
    ----------
    probabilities : (runs, images, classes) float32; 0 where the run is absent.
    present : (runs, images) whether the run predicts the image.
    bags : the images of each sample of the stack.
    """

    probabilities: NDArray[np.float32]
    present: NDArray[np.bool_]
    bags: Bags

    def take(self, people: NDArray[np.int64]) -> StackImages:
        """Return the images of the people at `people`."""
        place = np.full(self.bags.people, -1, np.int64)
        place[people] = np.arange(len(people))
        codes = place[self.bags.codes]
        kept = np.flatnonzero(codes >= 0)
        return StackImages(self.probabilities[:, kept], self.present[:, kept], Bags(codes[kept], len(people)))

    def of_run(self, run: int) -> tuple[NDArray[np.float32], Bags]:
        """Return (m, classes) the predictions of a run, and the images of each person that it has."""
        if self.present[run].all():
            return self.probabilities[run], self.bags
        rows = np.flatnonzero(self.present[run])
        return self.probabilities[run, rows], self.bags.take(rows)


@dataclass(frozen=True)
class Stack:
    """Predictions of several runs on the same labeled samples.

    Attributes
    ----------
    names : names of the runs, sorted, so that fits do not depend on the order of the files.
    probabilities : (runs, n, classes) float32; 0 where the run is absent.
    present : (runs, n) whether the run predicts the sample; None if all runs predict all samples.
    labels : (n,) class indices (int64).
    persons : (n,) index of the person of each sample.
    outer_folds : (n,) part of each sample in nested cross-validation; each person is in one part.
    images : the images of samples that are people, for pooling rules that are fitted; None otherwise.
    extra : further columns of the samples, for methods that use them.
    """

    names: tuple[str, ...]
    probabilities: NDArray[np.float32]
    present: NDArray[np.bool_] | None
    labels: NDArray[Any]
    persons: NDArray[np.int64]
    outer_folds: NDArray[np.int64]
    images: StackImages | None = None
    extra: tuple[Column, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def runs(self) -> int:
        """Return the number of runs."""
        return len(self.names)

    @property
    def classes(self) -> int:
        """Return the number of classes."""
        return self.probabilities.shape[2]

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Return a copy with the samples at `rows`."""
        present = None if self.present is None else self.present[:, rows]
        if present is not None and present.all():
            present = None
        return replace(
            self,
            probabilities=self.probabilities[:, rows],
            present=present,
            labels=self.labels[rows],
            persons=self.persons[rows],
            outer_folds=self.outer_folds[rows],
            images=None if self.images is None else self.images.take(rows),
            extra=tuple(column.take(rows) for column in self.extra),
        )

    def pooled(self, pooling: Pooling) -> Stack:
        """Return the stack of people with the predictions of `pooling` instead of those that it has."""
        assert self.images is not None  # noqa: S101 - only stacks of people are pooled
        values = np.empty_like(self.probabilities)
        for i, name in enumerate(self.names):
            values[i] = pooling.apply(name, *self.images.of_run(i))
        return replace(self, probabilities=values, images=None)

    def select_runs(self, runs: NDArray[np.int64] | list[int]) -> Self:
        """Return the stack with these runs only, in ascending order of their index, on all samples."""
        chosen = sorted(int(run) for run in runs)
        present = None if self.present is None else self.present[chosen]
        images = None
        if self.images is not None:
            of_runs = self.images.probabilities[chosen], self.images.present[chosen]
            images = StackImages(*of_runs, self.images.bags)
        return replace(
            self,
            names=tuple(self.names[i] for i in chosen),
            probabilities=self.probabilities[chosen],
            present=present,
            images=images,
        )

    def check_memory(self, copies: int, what: str) -> None:
        """Raise EnsembleError if the `copies` in float64 that `what` needs exceed the memory limit."""
        if (size := 8 * copies * self.probabilities.size) > _MAX_BYTES:
            raise EnsembleError(
                f"{what} of {self.runs:,} runs × {len(self):,} samples × {self.classes:,} classes "
                f"needs {size / 2**30:.0f} GiB of memory, the limit is {_MAX_BYTES / 2**30:.0f} GiB",
                hint="use `method=simplex`, which needs less memory, or fewer runs with `runs`",
            )

    def ballots(self, counts_votes: bool = False, needs_all_rows: bool = False) -> Iterator[tuple[slice, VoteInput]]:
        """Yield blocks of samples (one block with `needs_all_rows`) and the runs' predictions with equal weights."""
        hard, ranking = np.zeros(self.runs, bool), np.arange(self.runs)
        for part in row_blocks(len(self), self.runs * self.classes, min_rows=len(self) if needs_all_rows else 256):
            values = self.probabilities[:, part].astype(np.float64)
            presence = np.ones(values.shape[:2]) if self.present is None else self.present[:, part].astype(float)
            votes = None
            if counts_votes:  # out of fold, each run has one model for a sample
                votes = np.zeros(values.shape)
                np.put_along_axis(votes, values.argmax(axis=2)[:, :, None], presence[:, :, None], axis=2)
            yield part, VoteInput(values, votes, presence, hard, ranking)


def stack_of(
    split: AlignedSplit,
    truth: GroundTruth,
    outer_folds: NDArray[np.int64],
    images: AlignedSplit | None = None,
    columns: Sequence[tuple[str, str]] = (),
) -> Stack:
    """Return the labeled samples of a split, as the input of fitted methods.

    Parameters
    ----------
    outer_folds : (n of the split,) see `Stack`.
    images : of a split of people, the split of their images; None without a pooling rule that is fitted.
    columns : (name, kind) of the attributes of the rows that a method uses.

    Raises
    ------
    UsageError : a run has hard labels only.
    EnsembleError : no sample has a label, or the predictions do not fit into memory.
    """
    hard = [run.name for run in split.runs if run.hard]
    if hard:
        raise UsageError(
            f"fitted methods need probabilities, found only hard labels in {', '.join(hard)}",
            hint="use `method=hard`, or exclude these runs with `runs`",
        )
    rows = np.flatnonzero(truth.known)
    if not len(rows):
        raise EnsembleError(
            f"fitted methods need labels, found none for the {split.name} samples",
            hint="pass `labels=FILE.csv` with columns id, label, person",
        )
    check_stack_size(len(split.runs), len(rows), len(split.classes))
    names, values, present = read_runs(split, rows)
    labeled = split if len(rows) == len(split) else split.take(rows)
    return Stack(
        names,
        values,
        present,
        truth.labels[rows],
        truth.persons[rows],
        outer_folds[rows],
        None if images is None else images_of(labeled, images, names),
        read_columns(columns, split.rows.attributes, rows),
    )


def check_stack_size(runs: int, samples: int, classes: int) -> None:
    """Raise EnsembleError if the predictions of a stack exceed the memory limit."""
    if (size := 4 * runs * samples * classes) > _MAX_BYTES:
        raise EnsembleError(
            f"fitting {runs:,} runs × {samples:,} samples × {classes:,} classes "
            f"needs {size / 2**30:.0f} GiB of memory, the limit is {_MAX_BYTES / 2**30:.0f} GiB",
            hint="use `method=soft`, which reads predictions in blocks, or fewer runs with `runs`",
        )


def read_runs(
    split: AlignedSplit, rows: NDArray[np.int64]
) -> tuple[tuple[str, ...], NDArray[np.float32], NDArray[np.bool_] | None]:
    """Return the sorted names of the runs, (runs, rows, classes) their predictions, and where each is present."""
    runs = sorted(split.runs, key=lambda run: run.name)
    labeled = split if len(rows) == len(split) else split.take(rows)
    names = [run.name for run in runs]
    values, present = _read_all(labeled, names)
    return tuple(names), values, None if present.all() else present


def _read_all(split: AlignedSplit, names: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return (runs, n, classes) the predictions of the runs, and (runs, n) whether they are there."""
    by_name = {run.name: run for run in split.runs}
    shape = (len(names), len(split), len(split.classes))
    values, present = np.empty(shape, np.float32), np.empty(shape[:2], bool)
    for i, name in enumerate(names):
        for part in row_blocks(shape[1], shape[2], min_rows=256):
            values[i, part] = by_name[name].probabilities(part.start, part.stop)
            present[i, part] = by_name[name].models(part.start, part.stop) > 0
    return values, present


def images_of(people: AlignedSplit, images: AlignedSplit, names: Sequence[str]) -> StackImages:
    """Return the images of the people of a split, which are in the order of their names."""
    assert images.rows.persons is not None  # noqa: S101 - the split of people was made of them
    if (size := 4 * len(names) * len(images) * len(images.classes)) > _MAX_BYTES:
        raise EnsembleError(
            f"pooling {len(names):,} runs × {len(images):,} images × {len(images.classes):,} classes by a fitted rule "
            f"needs {size / 2**30:.0f} GiB of memory, the limit is {_MAX_BYTES / 2**30:.0f} GiB",
            hint="use a rule that fits nothing, as `pool=mean`, or fewer runs with `runs`",
        )
    place = np.searchsorted(people.rows.ids, images.rows.persons)
    place = np.minimum(place, len(people) - 1)
    kept = np.flatnonzero(people.rows.ids[place] == images.rows.persons)
    own = images if len(kept) == len(images) else images.take(kept)
    return StackImages(*_read_all(own, names), Bags(place[kept], len(people)))
