"""Fit a cascade to predictions of people whom no model has seen, and score it by nested cross-validation; numpy only.

Out of fold, an image has one unseen model per run, so what is lost by leaving out runs and views is measured there,
with labels. What is lost by leaving out fold models is measured on images that no model has seen (the test images),
without labels: by how much less probable the decisions of the cascade are than those of the full blend.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ensemble.cascade.combine import Combined, Combiner, Floats, check_combination, used_runs, votes_of
from ensemble.cascade.record import Cascade, Step
from ensemble.cascade.run import CascadeResult, Rows, RunModel, run_cascade
from ensemble.learning.combination import Combination
from ensemble.learning.nested import outer_fold_ids
from ensemble.tta.merge import Merge
from folds.errors import UsageError
from folds.metrics.classification import Metric, confusion_counts
from folds.metrics.intervals import Difference, Interval, difference_over_people, interval_over_people
from folds.utils.numeric import softmax

_LEVELS = 24  # thresholds that are tried for each step
_FOLDS = (1, 2, 3, 5, 8)  # numbers of fold models of the steps
_ALL_ORDERS = 3  # every order of up to this many runs is tried
_MANY_ROWS = 20_000  # fewer orders are tried beyond
_NEVER = np.inf


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

    def take(self, rows: Rows) -> Unseen:
        """Return the images at `rows`."""
        labels = None if self.labels is None else self.labels[rows]
        first, full = (tuple(one[:, rows] for one in values) for values in (self.first, self.full))
        return Unseen(first, full, self.persons[rows], labels)


@dataclass(frozen=True)
class Evidence:
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

    def take(self, rows: Rows, unseen: Rows | None) -> Evidence:
        """Return the out-of-fold images at `rows` and the unseen images at `unseen`."""
        some = None if self.unseen is None or unseen is None else self.unseen.take(unseen)
        return Evidence(
            self.runs,
            self.first[:, rows],
            self.full[:, rows],
            self.labels[rows],
            self.persons[rows],
            self.parts[rows],
            some,
        )


@dataclass(frozen=True)
class CascadeScore:
    """What a cascade costs and saves; every person is predicted by a cascade that was fitted without them.

    Attributes
    ----------
    full, cascade : nested out-of-fold score of the blend, and of the cascade, with one fold model per run.
    difference : cascade − full, paired over people.
    images : number of unseen images; 0 if there are none, and then the next values are unknown (None).
    passes, all_passes : forward passes per unseen image of the cascade and of the full blend.
    cost_share : share of the cost of the full blend.
    agreement : share of unseen images that the cascade and the full blend decide alike.
    expected_loss : loss of accuracy on them by the probabilities of the full blend, without labels.
    test : difference of the scores of unseen images with labels.
    greater_is_better : the direction of the metric.
    out_of_sample : (n, classes) the out-of-fold predictions of the full blend and of the cascade that are scored.
    unseen : (images, classes) the same of the unseen images, in their order; None without any.
    """

    full: Interval
    cascade: Interval
    difference: Difference
    images: int
    passes: float | None
    all_passes: int
    cost_share: float | None
    agreement: float | None
    expected_loss: float | None
    test: Difference | None
    greater_is_better: bool = True
    out_of_sample: tuple[Floats, Floats] = field(default=(np.zeros(0), np.zeros(0)), repr=False, compare=False)
    unseen: tuple[Floats, Floats] | None = field(default=None, repr=False, compare=False)

    @property
    def loss(self) -> float:
        """Return the larger loss: of the out-of-fold score, and of the expected accuracy on unseen images."""
        change = self.difference.difference.value
        return max(-change if self.greater_is_better else change, self.expected_loss or 0.0)

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        return {
            "full": self.full.to_dict(),
            "cascade": self.cascade.to_dict(),
            "difference": self.difference.to_dict(),
            "images": self.images,
            "passes": self.passes,
            "all_passes": self.all_passes,
            "cost_share": self.cost_share,
            "agreement": self.agreement,
            "expected_loss": self.expected_loss,
            "test": None if self.test is None else self.test.to_dict(),
        }


@dataclass(frozen=True)
class FittedCascade:
    """A cascade, fitted on all people, its nested score, and what a reader must know about it."""

    cascade: Cascade
    score: CascadeScore
    notes: tuple[str, ...] = ()


def fit_cascade(
    evidence: Evidence,
    combination: Combination,
    parts: Mapping[int, Combination],
    metric: Metric,
    *,
    tolerance: float | None,
    costs: Mapping[str, float],
    ranking: Sequence[str] = (),
) -> FittedCascade:
    """Return the cascade with the smallest cost that loses at most `tolerance`, and its nested score.

    Parameters
    ----------
    combination : fitted on all people; its runs are those of the evidence.
    parts : outer fold → the combination fitted without it.
    metric : metric of the tolerance; where it counts decisions, only those that become wrong count, so that lucky ones
        cannot pay for them.
    tolerance : largest loss of the score; None for exact skips only, which never change a decision.
    costs : run → cost of one forward pass.

    Raises
    ------
    UsageError : the combination compares images with each other, or there is only one pass per image.
    """
    check_combination(combination)
    if tolerance is not None and not 0 <= tolerance <= 1:
        raise UsageError(f"`cascade={tolerance:g}`: expected a loss of the score from 0 to 1, or exact")
    total = sum(one.folds * one.views for one in evidence.runs if one.name in used_runs(combination))
    if total < 2:
        raise UsageError("a cascade needs two or more forward passes per image", hint="predict without `cascade`")
    settings = (metric, costs, tuple(ranking))
    closest: FittedCascade | None = None
    # Thresholds that lose little where they were fitted may lose more of other people.
    for stricter in () if tolerance is None else dict.fromkeys((tolerance, tolerance / 2, 0.0)):
        found = FittedCascade(
            replace(_fit(evidence, combination, stricter, *settings), tolerance=tolerance),
            _nested(evidence, combination, parts, stricter, total, *settings),
        )
        if found.score.loss <= tolerance + 1e-9:
            return found
        closest = found if closest is None or found.score.loss < closest.score.loss else closest
    exact = FittedCascade(
        replace(_fit(evidence, combination, None, *settings), tolerance=tolerance),
        _nested(evidence, combination, parts, None, total, *settings),
    )
    if closest is None:
        return exact
    note = (
        f"no cascade loses at most {tolerance:g} {metric.title} of people it was not fitted to (the closest one loses "
        f"{closest.score.loss:.4f}): models are skipped only where they cannot change the decision"
    )
    return replace(exact, notes=(note,))


def _nested(
    evidence: Evidence,
    combination: Combination,
    parts: Mapping[int, Combination],
    tolerance: float | None,
    total: int,
    metric: Metric,
    costs: Mapping[str, float],
    ranking: tuple[str, ...],
) -> CascadeScore:
    """Return the score of cascades that were fitted without each outer fold in turn."""
    unseen, unseen_parts = evidence.unseen, None
    if unseen is not None:
        nobody = np.zeros(len(unseen), np.int64)
        unseen_parts = outer_fold_ids(unseen.persons, nobody, None, max(2, len(np.unique(evidence.parts))))
    shape = (len(evidence.labels), evidence.full.shape[2])
    full, out = np.zeros(shape), np.zeros(shape)
    found: list[tuple[Rows, CascadeResult, Floats]] = []
    for number, part in enumerate(np.unique(evidence.parts).tolist()):
        inside, rest = np.flatnonzero(evidence.parts == part), np.flatnonzero(evidence.parts != part)
        here = None if unseen_parts is None else np.flatnonzero(unseen_parts == number)
        others = None if unseen_parts is None else np.flatnonzero(unseen_parts != number)
        own = parts.get(part, combination)
        fitted = _fit(evidence.take(rest, others), own, tolerance, metric, costs, ranking)
        combiner = Combiner(own, ranking)
        full[inside], out[inside] = _out_of_fold(evidence.take(inside, None), fitted, combiner)
        if unseen is not None and here is not None and len(here):
            some = unseen.take(here)
            found.append((here, replay(fitted, combiner, evidence.runs, some), full_blend(some, combiner)))
    return _score(evidence, combination, full, out, found, metric, costs, total)


def _score(
    evidence: Evidence,
    combination: Combination,
    full: Floats,
    out: Floats,
    found: Sequence[tuple[Rows, CascadeResult, Floats]],
    metric: Metric,
    costs: Mapping[str, float],
    total: int,
) -> CascadeScore:
    labels, persons = evidence.labels, evidence.persons
    scores = [interval_over_people(metric, labels, values, persons) for values in (full, out)]
    change = difference_over_people(metric, labels, full, out, persons)
    if not found:
        up = metric.greater_is_better
        return CascadeScore(scores[0], scores[1], change, 0, None, total, None, None, None, None, up, (full, out))
    unseen = evidence.unseen
    assert unseen is not None  # noqa: S101 - `found` is of these
    rows = np.concatenate([some for some, _, _ in found])
    before = np.concatenate([values for _, _, values in found])
    after = np.concatenate([result.probabilities for _, result, _ in found])
    whole = sum(
        one.folds * one.views * costs.get(one.name, 1.0) for one in evidence.runs if one.name in used_runs(combination)
    )
    test = None
    if unseen.labels is not None and (unseen.labels >= 0).any():
        known = unseen.labels[rows] >= 0
        test = difference_over_people(
            metric, unseen.labels[rows][known], before[known], after[known], unseen.persons[rows][known]
        )
    return CascadeScore(
        scores[0],
        scores[1],
        change,
        len(rows),
        float(np.concatenate([result.passes for _, result, _ in found]).mean()),
        total,
        sum(float(result.costs.sum()) for _, result, _ in found) / (whole * len(rows)),
        float((before.argmax(1) == after.argmax(1)).mean()),
        float(_regret(before, after.argmax(1)).mean()),
        test,
        metric.greater_is_better,
        (full, out),
        (before[np.argsort(rows)], after[np.argsort(rows)]),
    )


def _fit(
    evidence: Evidence,
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


def _candidates(evidence: Evidence, combination: Combination, costs: Mapping[str, float]) -> Iterator[tuple[Step, ...]]:
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
        self, evidence: Evidence, combiner: Combiner, steps: tuple[Step, ...], metric: Metric, plain: Cascade
    ) -> None:
        self.steps, self.metric, self.plain = steps, metric, plain
        self.labels = evidence.labels
        found = [_combined(evidence, combiner, step.views) for step in steps]
        full = _combined(evidence, combiner, {one.name: one.views for one in evidence.runs})
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

    def _measure_unseen(self, evidence: Evidence, unseen: Unseen, combiner: Combiner, metric: Metric) -> None:
        """Set the lead, the regret and the remaining cost of unseen images."""
        full = full_blend(unseen, combiner)
        decided = full.argmax(axis=1)
        weights = np.full(len(unseen), 1 / len(unseen))
        if metric.macro_averaged:  # an image of a rare class counts more
            counts = np.bincount(decided, minlength=full.shape[1])
            weights = 1 / (np.count_nonzero(counts) * counts[decided])
        leads, regrets = [], []
        for step in self.steps:
            lead, classes = _unseen_step(evidence.runs, unseen, combiner, step)
            leads.append(lead)
            regrets.append(_regret(full, classes) * weights)
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


class _Recorded(Merge):
    """A merge of views whose result is known: the logits of the last view are its logarithm."""

    def merged(self, logits: NDArray[np.floating]) -> Floats:
        return softmax(logits[-1])


def replay(cascade: Cascade, combiner: Combiner, runs: Sequence[RunModel], unseen: Unseen) -> CascadeResult:
    """Return what a cascade does on images whose predictions by all models are known."""
    recorded = [
        RunModel(one.name, _Recorded(one.merge.how, one.merge.weights, one.merge.threshold), one.folds) for one in runs
    ]

    def ask(run: int, fold: int, start: int, stop: int, rows: Rows) -> NDArray[np.float32]:
        views = [unseen.first if view == 0 else unseen.full for view in range(start, stop)]
        values = np.stack([one[run][fold][rows] for one in views])
        return np.log(np.maximum(values, np.finfo(np.float32).tiny))

    return run_cascade(cascade, combiner, recorded, len(unseen), ask)


def _combined(evidence: Evidence, combiner: Combiner, views: Mapping[str, int]) -> Combined:
    """Return the combination of out-of-fold predictions in these views of the runs."""
    values = np.zeros(evidence.full.shape)
    present = np.zeros(len(evidence.runs), bool)
    for i, one in enumerate(evidence.runs):
        if one.name in views:
            present[i] = True
            values[i] = evidence.full[i] if views[one.name] >= one.views else evidence.first[i]
    return combiner(values, votes_of(values) if combiner.counts_votes else None, present)


def _out_of_fold(evidence: Evidence, cascade: Cascade, combiner: Combiner) -> tuple[Floats, Floats]:
    """Return (n, classes) the out-of-fold predictions of the full blend and of a cascade."""
    full = _combined(evidence, combiner, {one.name: one.views for one in evidence.runs}).probabilities
    out, open_rows = full.copy(), np.ones(len(full), bool)
    for step in cascade.steps:
        found = _combined(evidence, combiner, step.views)
        sure = open_rows & (found.lead >= step.threshold)
        out[sure] = found.probabilities[sure]
        open_rows &= ~sure
    return full, out


def _unseen_step(
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


def _regret(full: Floats, classes: NDArray[np.int64]) -> Floats:
    """Return (n,) how much less probable these classes are than those of the full blend, by its probabilities."""
    rows = np.arange(len(full))
    return np.asarray(full.max(axis=1) - full[rows, classes])
