"""Hold the predictions that a cascade is fitted to, and what a cascade does on them; numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.cascade.combine import Combined, Combiner, Floats, votes_of
from ensemble.cascade.record import Cascade, Step
from ensemble.cascade.run import CascadeResult, RowIndex, RunModel, run_cascade
from ensemble.tta.merge import Merge
from folds.metrics.task_names import CLASSES
from folds.utils.numeric import softmax


@dataclass(frozen=True)
class Unseen:
    """Predictions of images that no model has seen, by every fold model.

    Attributes
    ----------
    first, full : one array (folds, n, classes) per run: probabilities on the first view, and merged over all views.
    persons : (n,) index of the person of each image.
    labels : (n,) class indices, −1 if unknown; only for reports, never for fitting.
    ids : (n,) ids of the images; empty if they are not known.
    """

    first: tuple[NDArray[np.float32], ...]
    full: tuple[NDArray[np.float32], ...]
    persons: NDArray[np.int64]
    labels: NDArray[np.int64] | None = None
    ids: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.persons)

    def take(self, rows: RowIndex) -> Unseen:
        """Return the images at `rows`."""
        labels = None if self.labels is None else self.labels[rows]
        first, full = (tuple(one[:, rows] for one in values) for values in (self.first, self.full))
        return Unseen(first, full, self.persons[rows], labels)


@dataclass(frozen=True)
class CascadeEvidence:
    """What a cascade is fitted to.

    Attributes
    ----------
    runs : the runs of the combination, in its order.
    first, full : (runs, n, classes) out-of-fold probabilities on the first view, and merged over all views.
    labels, persons, parts : (n,) class, person and outer fold of each image.
    unseen : None if there are no images that no model has seen.
    ids : (n,) ids of the images; empty if they are not known.
    """

    runs: tuple[RunModel, ...]
    first: NDArray[np.float32]
    full: NDArray[np.float32]
    labels: NDArray[np.int64]
    persons: NDArray[np.int64]
    parts: NDArray[np.int64]
    unseen: Unseen | None = None
    ids: tuple[str, ...] = ()

    def take(self, rows: RowIndex, unseen: RowIndex | None) -> CascadeEvidence:
        """Return the out-of-fold images at `rows` and the unseen images at `unseen`."""
        some = None if self.unseen is None or unseen is None else self.unseen.take(unseen)
        return CascadeEvidence(
            self.runs,
            self.first[:, rows],
            self.full[:, rows],
            self.labels[rows],
            self.persons[rows],
            self.parts[rows],
            some,
        )


class _Recorded(Merge):
    """A merge of views whose result is known: the logits of the last view are its logarithm."""

    def merged(self, logits: NDArray[np.floating], task: str = CLASSES) -> Floats:
        return softmax(logits[-1])


def replay(cascade: Cascade, combiner: Combiner, runs: Sequence[RunModel], unseen: Unseen) -> CascadeResult:
    """Return what a cascade does on images whose predictions by all models are known."""
    recorded = [
        RunModel(one.name, _Recorded(one.merge.how, one.merge.weights, one.merge.threshold), one.folds) for one in runs
    ]

    def ask(run: int, fold: int, start: int, stop: int, rows: RowIndex) -> NDArray[np.float32]:
        views = [unseen.first if view == 0 else unseen.full for view in range(start, stop)]
        values = np.stack([one[run][fold][rows] for one in views])
        return np.log(np.maximum(values, np.finfo(np.float32).tiny))

    return run_cascade(cascade, combiner, recorded, len(unseen), ask)


def combined(evidence: CascadeEvidence, combiner: Combiner, views: Mapping[str, int]) -> Combined:
    """Return the combination of out-of-fold predictions in these views of the runs."""
    values = np.zeros(evidence.full.shape)
    present = np.zeros(len(evidence.runs), bool)
    for i, one in enumerate(evidence.runs):
        if one.name in views:
            present[i] = True
            values[i] = evidence.full[i] if views[one.name] >= one.views else evidence.first[i]
    return combiner(values, votes_of(values) if combiner.counts_votes else None, present)


def out_of_fold(evidence: CascadeEvidence, cascade: Cascade, combiner: Combiner) -> tuple[Floats, Floats]:
    """Return (n, classes) the out-of-fold predictions of the full blend and of a cascade."""
    full = combined(evidence, combiner, {one.name: one.views for one in evidence.runs}).probabilities
    out, open_rows = full.copy(), np.ones(len(full), bool)
    for step in cascade.steps:
        found = combined(evidence, combiner, step.views)
        sure = open_rows & (found.lead >= step.threshold)
        out[sure] = found.probabilities[sure]
        open_rows &= ~sure
    return full, out


def unseen_step(
    runs: Sequence[RunModel], unseen: Unseen, combiner: Combiner, step: Step
) -> tuple[Floats, NDArray[np.int64]]:
    """Return (n,) the lead of the highest class at a step (−1 where fold models disagree), and the classes."""
    singles = [_unseen_mean(runs, unseen, combiner, step.views, [fold]).classes for fold in range(step.folds)]
    found = _unseen_mean(runs, unseen, combiner, step.views, range(step.folds))
    agree = np.all([one == found.classes for one in singles], axis=0)
    return np.where(agree, found.lead, -1.0), found.classes


def _unseen_mean(
    runs: Sequence[RunModel], unseen: Unseen, combiner: Combiner, views: Mapping[str, int], folds: Sequence[int]
) -> Combined:
    """Return the combination of some folds of the runs in `views`."""
    shape = (len(runs), len(unseen), unseen.full[0].shape[2])
    values, present = np.zeros(shape), np.zeros(len(runs), bool)
    votes = np.zeros(shape) if combiner.counts_votes else None
    for i, one in enumerate(runs):
        if one.name not in views:
            continue
        present[i] = True
        source = unseen.full[i] if views[one.name] >= one.views else unseen.first[i]
        some = source[list(folds)].astype(np.float64)
        values[i] = some.mean(axis=0)
        if votes is not None:
            votes[i] = votes_of(some).mean(axis=0)
    return combiner(values, votes, present)


def full_blend(unseen: Unseen, combiner: Combiner) -> Floats:
    """Return (n, classes) the predictions of the full blend."""
    shape = (len(unseen.full), len(unseen), unseen.full[0].shape[2])
    values = np.array([one.astype(np.float64).mean(axis=0) for one in unseen.full]).reshape(shape)
    votes = None
    if combiner.counts_votes:
        votes = np.array([votes_of(one).mean(axis=0) for one in unseen.full])
    return combiner(values, votes, np.ones(len(unseen.full), bool)).probabilities


def regret_of(full: Floats, classes: NDArray[np.int64]) -> Floats:
    """Return (n,) how much less probable these classes are than those of the full blend, by its probabilities."""
    rows = np.arange(len(full))
    return np.asarray(full.max(axis=1) - full[rows, classes])
