"""Search the steps and the thresholds of a cascade: the smallest cost within a loss; numpy only."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ensemble.cascade.combine import Combiner, Floats, used_runs
from ensemble.cascade.predictions import CascadeEvidence, Unseen, combined, full_blend, regret_of, replay, unseen_step
from ensemble.cascade.record import Cascade, Step
from ensemble.learning.combination import Combination
from folds.metrics.classification import Metric
from folds.metrics.confusion import confusion_counts

_LEVELS = 24  # thresholds that are tried for each step
_FOLDS = (1, 2, 3, 5, 8)  # numbers of fold models of the steps
_ALL_ORDERS = 3  # every order of up to this many runs is tried
_MANY_ROWS = 20_000  # fewer orders are tried beyond
_NEVER = np.inf


def search(
    evidence: CascadeEvidence,
    combination: Combination,
    tolerance: float | None,
    metric: Metric,
    costs: Mapping[str, float],
    ranking: tuple[str, ...],
) -> Cascade:
    """Return the cascade fitted to all of the evidence."""
    plain = Cascade((), True, tolerance, metric.name, dict(costs))
    if tolerance is None:
        return plain
    combiner = Combiner(combination, ranking)
    best = (_Trial(evidence, combiner, (), metric, plain).cost, plain)
    for steps in _candidates(evidence, combination, costs):
        trial = _Trial(evidence, combiner, steps, metric, plain)
        best = min(best, trial.fit(tolerance), key=lambda one: one[0])
    return best[1]


def _candidates(
    evidence: CascadeEvidence, combination: Combination, costs: Mapping[str, float]
) -> Iterator[tuple[Step, ...]]:
    """Yield sequences of steps, each of which adds runs, fold models or views; thresholds are not yet fitted."""
    views = {one.name: one.views for one in evidence.runs}
    folds = {one.name: one.folds for one in evidence.runs}
    used = used_runs(combination)
    shares = dict(zip(combination.runs, combination.shares.tolist(), strict=True))
    cheap = sorted(used, key=lambda run: costs.get(run, 1.0))
    orders = [tuple(cheap), tuple(sorted(used, key=lambda run: -shares[run] / costs.get(run, 1.0)))]
    if len(used) <= _ALL_ORDERS and len(evidence.labels) <= _MANY_ROWS:
        orders += itertools.permutations(used)
    most = min(folds[run] for run in used)
    for order in dict.fromkeys(orders):
        sizes = [2**i for i in range(10) if 2**i < len(order)] if len(order) > 4 else [*range(1, len(order))]
        prefixes = [dict.fromkeys(order[:size], 1) for size in [*sizes, len(order)]]
        complete = {run: views[run] for run in order}
        if evidence.unseen is None:
            # What fewer fold models lose is unknown, so every step waits for all of them.
            yield _steps([(some, most) for some in prefixes if some != complete])
            continue
        counts = [count for count in _FOLDS if count < most] or [1]
        last = [(complete, counts[-1])]
        runs_first = [(some, counts[0]) for some in prefixes]
        yield _steps([*runs_first, *((prefixes[-1], count) for count in counts[1:]), *last])
        folds_first = [(prefixes[0], count) for count in counts]
        yield _steps([*folds_first, *((some, counts[-1]) for some in prefixes[1:]), *last])


def _steps(listed: Sequence[tuple[dict[str, int], int]]) -> tuple[Step, ...]:
    distinct = [one for i, one in enumerate(listed) if one not in listed[:i]]
    return tuple(Step(views, folds, _NEVER) for views, folds in distinct)


class _Trial:
    """One sequence of steps, whose thresholds are lowered as far as the losses allow."""

    def __init__(
        self, evidence: CascadeEvidence, combiner: Combiner, steps: tuple[Step, ...], metric: Metric, plain: Cascade
    ) -> None:
        self.steps, self.metric, self.plain = steps, metric, plain
        self.labels = evidence.labels
        found = [combined(evidence, combiner, step.views) for step in steps]
        full = combined(evidence, combiner, {one.name: one.views for one in evidence.runs})
        rows = len(self.labels)
        self.lead = np.array([one.lead for one in found]).reshape(len(steps), rows)
        self.outputs = [*(one.probabilities for one in found), full.probabilities]
        self.decisions = np.array([one.argmax(axis=1) for one in self.outputs])
        self.score = metric(self.labels, full.probabilities)
        costs, runs = plain.costs, {one.name: one for one in evidence.runs}
        used = used_runs(combiner.combination)
        total = sum(runs[run].folds * runs[run].views * costs.get(run, 1.0) for run in used)
        self.spent = np.array(
            [sum(step.folds * count * costs.get(run, 1.0) for run, count in step.views.items()) for step in steps]
        )
        unseen = evidence.unseen
        if unseen is None:
            self.unseen_lead, self.regret = np.zeros((len(steps), 0)), np.zeros((len(steps) + 1, 0))
            self.rest = np.full(rows, total)
        else:
            self._measure_unseen(evidence, unseen, combiner, metric)
        self.thresholds = np.full(len(steps), _NEVER)

    def _measure_unseen(self, evidence: CascadeEvidence, unseen: Unseen, combiner: Combiner, metric: Metric) -> None:
        """Set the lead, the regret and the remaining cost of unseen images."""
        full = full_blend(unseen, combiner)
        decided = full.argmax(axis=1)
        weights = np.full(len(unseen), 1 / len(unseen))
        if metric.macro_averaged:  # an image of a rare class counts more
            counts = np.bincount(decided, minlength=full.shape[1])
            weights = 1 / (np.count_nonzero(counts) * counts[decided])
        leads, regrets = [], []
        for step in self.steps:
            lead, classes = unseen_step(evidence.runs, unseen, combiner, step)
            leads.append(lead)
            regrets.append(regret_of(full, classes) * weights)
        self.unseen_lead = np.array(leads).reshape(len(self.steps), len(unseen))
        self.regret = np.array([*regrets, np.zeros(len(unseen))])
        exact = replay(self.plain, combiner, evidence.runs, unseen)
        self.rest = np.maximum(exact.costs, self.spent[-1] if len(self.spent) else 0.0)

    @property
    def cost(self) -> float:
        """Return the mean cost per image."""
        return self._loss_and_cost()[1]

    def fit(self, tolerance: float) -> tuple[float, Cascade]:
        """Return the mean cost per image and the cascade, after lowering the thresholds."""
        both = np.concatenate([self.lead, self.unseen_lead], axis=1)
        grid = np.quantile(both, np.linspace(1, 0, _LEVELS + 1)[1:], axis=1).T  # (steps, levels), falling
        grid = np.maximum(grid, 0)
        at = np.full(len(self.steps), -1)
        cost, used = self.cost, 0.0
        while True:
            best: tuple[float, int, float, float] | None = None
            for step in range(len(self.steps)):
                if at[step] + 1 >= _LEVELS:
                    continue
                before, self.thresholds[step] = self.thresholds[step], grid[step, at[step] + 1]
                loss, new = self._loss_and_cost()
                self.thresholds[step] = before
                if loss > tolerance + 1e-12:
                    continue
                share = loss / tolerance if tolerance > 0 else 0.0
                worth = (cost - new) / (max(share - used, 0.0) + 0.02)
                if best is None or worth > best[0]:
                    best = (worth, step, new, share)
            if best is None:
                break
            _, step, cost, used = best
            at[step] += 1
            self.thresholds[step] = grid[step, at[step]]
        steps = [
            Step(step.views, step.folds, float(limit))
            for step, limit in zip(self.steps, self.thresholds.tolist(), strict=True)
            if limit < _NEVER
        ]
        return cost, Cascade(tuple(steps), True, tolerance, self.metric.name, dict(self.plain.costs))

    def _exits(self, lead: Floats, thresholds: Floats) -> NDArray[np.int64]:
        """Return (n,) the step that decides; the number of steps if none does."""
        if not len(lead):
            return np.zeros(lead.shape[1] or len(self.rest), np.int64)
        passed = lead >= thresholds[:, None]
        return np.where(passed.any(axis=0), passed.argmax(axis=0), len(lead))

    def _cost(self, exits: NDArray[np.int64]) -> float:
        return float(np.where(exits < len(self.spent), np.append(self.spent, 0.0)[exits], self.rest).mean())

    def _loss_and_cost(self) -> tuple[float, float]:
        """Return the larger loss (of the score out of fold, and of the expected accuracy on unseen images), and the
        mean cost per image.
        """
        exits, rows = self._exits(self.lead, self.thresholds), np.arange(len(self.labels))
        expected, gone = 0.0, exits
        if self.regret.shape[1]:
            gone = self._exits(self.unseen_lead, self.thresholds)
            lost = self.regret[gone, np.arange(self.regret.shape[1])]
            expected = float(lost.sum() + np.sqrt(np.square(lost).sum()))  # one standard error more
        if self.metric.from_counts is None:
            score = self.metric(self.labels, np.stack(self.outputs)[exits, rows])
        else:
            full, found = self.decisions[-1], self.decisions[exits, rows]
            lucky = (found == self.labels) & (full != self.labels)
            counts = confusion_counts(self.labels, np.where(lucky, full, found), self.outputs[0].shape[1])
            score = float(self.metric.from_counts(counts))
        change = self.score - score
        lost_score = change if self.metric.greater_is_better else -change
        return max(expected, lost_score), self._cost(gone)
