"""What fitted methods learn on: the runs' out-of-fold predictions of the samples whose label is known, in memory; numpy
only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.split import AlignedSplit
from ensemble.alignment.truth import Truth
from ensemble.voting.base import VoteInput
from ensemble.voting.blocks import row_blocks
from folds.errors import EnsembleError, UsageError

_MOST_BYTES = 16 * 2**30


@dataclass(frozen=True)
class Stack:
    """Predictions of several runs on the same labelled samples.

    Attributes
    ----------
    names : of the runs, sorted: what is learnt does not depend on the order of the files.
    probabilities : (runs, n, classes) float32; 0 where the run is absent.
    present : (runs, n) whether the run predicts the sample; None where all do.
    labels : (n,) class indices.
    persons : (n,) a number for each person.
    nests : (n,) the part of each sample when parts are held out; no person is in two.
    """

    names: tuple[str, ...]
    probabilities: NDArray[np.float32]
    present: NDArray[np.bool_] | None
    labels: NDArray[np.int64]
    persons: NDArray[np.int64]
    outer_folds: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def runs(self) -> int:
        """How many runs."""
        return len(self.names)

    @property
    def classes(self) -> int:
        """How many classes."""
        return self.probabilities.shape[2]

    def take(self, rows: NDArray[np.int64]) -> Stack:
        """The samples at `rows`, copied."""
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
        )

    def select_runs(self, runs: NDArray[np.int64] | list[int]) -> Stack:
        """These runs alone, in ascending order of their index; on all samples."""
        chosen = sorted(int(run) for run in runs)
        present = None if self.present is None else self.present[chosen]
        return replace(
            self, names=tuple(self.names[i] for i in chosen), probabilities=self.probabilities[chosen], present=present
        )

    def check_memory(self, copies: int, what: str) -> None:
        """Raise EnsembleError where so many copies in float64, which `what` needs, are more than should be held in
        memory.
        """
        if (size := 8 * copies * self.probabilities.size) > _MOST_BYTES:
            raise EnsembleError(
                f"{what} of {self.runs:,} runs × {len(self):,} samples × {self.classes:,} classes needs "
                f"{size / 2**30:.0f} GiB of memory",
                hint="`method=simplex`, which needs little, or fewer runs with `runs`",
            )

    def ballots(self, counts_votes: bool = False, whole: bool = False) -> Iterator[tuple[slice, VoteInput]]:
        """Blocks of samples (one of all with `whole`) and what the runs say on them, every run worth the same."""
        hard, ranking = np.zeros(self.runs, bool), np.arange(self.runs)
        for part in row_blocks(len(self), self.runs * self.classes, least=len(self) if whole else 256):
            values = self.probabilities[:, part].astype(np.float64)
            there = np.ones(values.shape[:2]) if self.present is None else self.present[:, part].astype(float)
            votes = None
            if counts_votes:  # out of fold a sample has one model of each run
                votes = np.zeros(values.shape)
                np.put_along_axis(votes, values.argmax(axis=2)[:, :, None], there[:, :, None], axis=2)
            yield part, VoteInput(values, votes, there, hard, ranking)


def stack_of(split: AlignedSplit, truth: Truth, nests: NDArray[np.int64]) -> Stack:
    """The labelled samples of a split that every fitted method needs.

    Parameters
    ----------
    nests : (n of the split,) see `Stack`.

    Raises
    ------
    UsageError : a run has hard labels only.
    EnsembleError : no sample has a label, or the predictions do not fit into memory.
    """
    hard = [run.name for run in split.runs if run.hard]
    if hard:
        raise UsageError(
            f"what is fitted needs probabilities, and {', '.join(hard)} has hard labels only",
            hint="`method=hard`, or leave it out with `runs`",
        )
    rows = np.flatnonzero(truth.labels >= 0)
    if not len(rows):
        raise EnsembleError(
            f"no {split.name} sample has a label, and fitting needs them",
            hint="`labels=FILE.csv` with id, label, person",
        )
    runs = sorted(split.runs, key=lambda run: run.name)
    shape = (len(runs), len(rows), len(split.classes))
    if (size := 4 * shape[0] * shape[1] * shape[2]) > _MOST_BYTES:
        raise EnsembleError(
            f"fitting holds {shape[0]:,} runs × {shape[1]:,} samples × {shape[2]:,} classes in memory, "
            f"{size / 2**30:.0f} GiB",
            hint="`method=soft`, which reads them block by block, or fewer runs with `runs`",
        )
    whole = split if len(rows) == len(split) else split.take(rows)
    of_name = {run.name: run for run in whole.runs}
    values, present = np.empty(shape, np.float32), np.empty(shape[:2], bool)
    for i, run in enumerate(runs):
        for part in row_blocks(shape[1], shape[2], least=256):
            values[i, part] = of_name[run.name].probabilities(part.start, part.stop)
            present[i, part] = of_name[run.name].models(part.start, part.stop) > 0
    return Stack(
        tuple(run.name for run in runs),
        values,
        None if present.all() else present,
        truth.labels[rows],
        truth.persons[rows],
        nests[rows],
    )
