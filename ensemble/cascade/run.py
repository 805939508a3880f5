"""Run a cascade on a block of images: ask for the passes that are still needed, decide each image; numpy only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.cascade.combine import Combined, Combiner, ExactBound, Floats, used_runs, votes_of
from ensemble.cascade.record import Cascade, Step
from ensemble.tta.merge import Merge
from folds.utils.numeric import softmax

RowIndex = NDArray[np.int64]
# (run, fold model, first view, view after the last, rows) → logits (views, rows, classes) of that model.
Ask = Callable[[int, int, int, int, RowIndex], NDArray[np.float32]]


@dataclass(frozen=True)
class RunModel:
    """What a cascade needs to know about the models of one run.

    Attributes
    ----------
    folds : number of fold models.
    columns : (classes,) column of the models' logits for each class; None if they are in the same order.
    """

    name: str
    merge: Merge
    folds: int
    columns: NDArray[np.int64] | None = None

    @property
    def views(self) -> int:
        """Return the number of views per model."""
        return len(self.merge.weights)


@dataclass(frozen=True)
class CascadeResult:
    """The predictions of a block of images.

    Attributes
    ----------
    probabilities : (n, classes).
    passes : (n,) forward passes that were made for each image.
    costs : (n,) their cost, in the unit of `Cascade.costs`.
    decided : (n,) the step that decided; the number of steps if the remaining models could not change the decision, and
        one more if all models were used.
    """

    probabilities: Floats
    passes: NDArray[np.int64]
    costs: Floats
    decided: NDArray[np.int64]


def run_cascade(cascade: Cascade, combiner: Combiner, runs: Sequence[RunModel], rows: int, ask: Ask) -> CascadeResult:
    """Return the predictions of `rows` images.

    Parameters
    ----------
    runs : the runs of the combination, in its order.
    ask : predicts some images with one model; called only for what is needed, with rows in ascending order.
    """
    return _Block(cascade, combiner, runs, rows, ask).result()


class _Block:
    """The models' predictions of a block so far."""

    def __init__(self, cascade: Cascade, combiner: Combiner, runs: Sequence[RunModel], rows: int, ask: Ask) -> None:
        self.cascade, self.combiner, self.runs, self.ask = cascade, combiner, list(runs), ask
        self.position = {run.name: i for i, run in enumerate(self.runs)}
        self.used = [self.position[name] for name in used_runs(combiner.combination)]
        self.rows, self.classes = rows, 0
        self.passes, self.costs = np.zeros(rows, np.int64), np.zeros(rows)
        self.views: dict[tuple[int, int], NDArray[np.int16]] = {}
        self.first: dict[tuple[int, int], NDArray[np.float32]] = {}
        self.values: dict[tuple[int, int], NDArray[np.float32]] = {}
        self.decided = np.full(rows, len(cascade.steps) + 1, np.int64)
        self.out: Floats = np.zeros((rows, 0))

    def result(self) -> CascadeResult:
        """Return the predictions of all rows."""
        active: RowIndex = np.arange(self.rows)
        for number, step in enumerate(self.cascade.steps):
            if len(active):
                active = self._step(number, step, active)
        if len(active):
            self._rest(active)
        return CascadeResult(self.out, self.passes, self.costs, self.decided)

    def _step(self, number: int, step: Step, active: RowIndex) -> RowIndex:
        """Decide the rows whose lead is large enough; return the others."""
        levels = {self.position[run]: views for run, views in step.views.items()}
        rows, answer = active, np.zeros(0, np.int64)
        for fold in range(step.folds):
            for run, views in levels.items():
                self._ensure(run, fold, views, rows)
            one = self._result(rows, levels, [fold]).classes
            # Another model that disagrees settles that this step cannot decide; its further models are not asked.
            agree = np.ones(len(rows), bool) if fold == 0 else one == answer
            answer, rows = one[agree], rows[agree]
            if not len(rows):
                return active
        found = self._result(rows, levels, range(step.folds))
        sure = (found.lead >= step.threshold) & (found.classes == answer)
        self._finish(rows[sure], found.probabilities[sure], number)
        return np.setdiff1d(active, rows[sure], assume_unique=True)

    def _rest(self, active: RowIndex) -> None:
        """Predict the rows with the remaining models, as far as these can change the decision."""
        combination = self.combiner.combination
        folds = [run.folds for run in self.runs]
        exact = self.cascade.exact and ExactBound.holds_for(combination)
        bound = ExactBound(combination, folds) if exact else None
        done = np.zeros(len(self.runs), np.int64)
        sums: Floats = np.zeros((len(self.runs), self.rows, 0))
        order = self._order()
        for at, (run, fold) in enumerate(order):
            self._ensure(run, fold, self.runs[run].views, active)
            if bound is None:
                continue
            if not sums.shape[2]:
                sums = np.zeros((len(self.runs), self.rows, self.classes))
            values = self.values[run, fold][active].astype(np.float64)
            sums[run, active] += votes_of(values) if self.combiner.counts_votes else values
            done[run] += 1
            if at + 1 < len(order):
                settled, probabilities = bound.settled(sums[:, active], done)
                self._finish(active[settled], probabilities[settled], len(self.cascade.steps))
                active = active[~settled]
                if not len(active):
                    return
        levels = {run: self.runs[run].views for run in self.used}
        found = self._result(active, levels, None)
        self._finish(active, found.probabilities, len(self.cascade.steps) + 1)

    def _order(self) -> list[tuple[int, int]]:
        """Return the models: first those that the last step has used, then by weight per cost."""
        shares = self.combiner.combination.shares
        step = self.cascade.steps[-1] if self.cascade.steps else Step({}, 0, 0)
        by_run = self.combiner.combination.before is not None

        def key(model: tuple[int, int]) -> tuple[bool, float, int, int]:
            run, fold = model
            one = self.runs[run]
            cost = self.cascade.costs.get(one.name, 1.0) * one.views
            started = one.name in step.views and fold < step.folds
            # A calibrated run counts only once it is complete, so its models follow each other.
            worth = shares[run] / cost if by_run else shares[run] / one.folds / cost
            return (not started and not by_run, -worth, run, fold)

        models = [(run, fold) for run in self.used for fold in range(self.runs[run].folds)]
        return sorted(models, key=key)

    def _ensure(self, run: int, fold: int, views: int, rows: RowIndex) -> None:
        """Predict the rows that a model has not predicted in this number of views."""
        one, key = self.runs[run], (run, fold)
        known = self.views.setdefault(key, np.zeros(self.rows, np.int16))
        whole = views >= one.views
        new = rows[known[rows] == 0]
        if len(new):
            at_once = whole and one.merge.threshold is None
            logits = self._asked(run, fold, 0, one.views if at_once else 1, new)
            self._store(key, new, one.merge.merged(logits) if at_once and one.views > 1 else softmax(logits[0]))
            self.first.setdefault(key, np.zeros((self.rows, logits.shape[2]), np.float32))[new] = logits[0]
            known[new] = one.views if at_once else 1
        if whole and one.views > 1:
            left = rows[known[rows] < one.views]
            more = left[one.merge.needs_more_views(self.first[key][left])] if len(left) else left
            if len(more):
                logits = self._asked(run, fold, 1, one.views, more)
                self._store(key, more, one.merge.merged(np.concatenate([self.first[key][None, more], logits])))
            known[left] = one.views

    def _asked(self, run: int, fold: int, start: int, stop: int, rows: RowIndex) -> NDArray[np.float32]:
        logits = self.ask(run, fold, start, stop, rows)
        self.passes[rows] += stop - start
        self.costs[rows] += (stop - start) * self.cascade.costs.get(self.runs[run].name, 1.0)
        return logits

    def _store(self, key: tuple[int, int], rows: RowIndex, values: Floats) -> None:
        columns = self.runs[key[0]].columns
        ordered = values if columns is None else values[:, columns]
        if not self.classes:
            self.classes = ordered.shape[1]
            self.out = np.zeros((self.rows, self.classes))
        self.values.setdefault(key, np.zeros((self.rows, self.classes), np.float32))[rows] = ordered

    def _result(self, rows: RowIndex, levels: Mapping[int, int], folds: Sequence[int] | None) -> Combined:
        """Return the combination of these folds of the runs in `levels`; None for all folds."""
        values = np.zeros((len(self.runs), len(rows), self.classes))
        votes = np.zeros(values.shape) if self.combiner.counts_votes else None
        present = np.zeros(len(self.runs), bool)
        for run in levels:
            present[run] = True
            some = range(self.runs[run].folds) if folds is None else folds
            for fold in some:
                one = self.values[run, fold][rows].astype(np.float64)
                values[run] += one / len(some)
                if votes is not None:
                    votes[run] += votes_of(one) / len(some)
        return self.combiner(values, votes, present)

    def _finish(self, rows: RowIndex, probabilities: Floats, number: int) -> None:
        self.out[rows] = probabilities
        self.decided[rows] = number


def all_passes(runs: Sequence[RunModel], names: Sequence[str]) -> int:
    """Return the forward passes per image of all models of these runs."""
    return sum(run.folds * run.views for run in runs if run.name in names)
