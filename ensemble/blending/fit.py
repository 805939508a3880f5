"""A combination that is learnt from out-of-fold predictions, with everything that says whether to believe it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.split import AlignedSplit
from ensemble.alignment.truth import Truth
from ensemble.analysis.cost import Costs
from ensemble.analysis.subset_selection import within_budget
from ensemble.blending.request import AUTO, BlendConfig
from ensemble.learning.auto import Choice, choose
from ensemble.learning.combination import Combination, Fitter
from ensemble.learning.nested import (
    FEWEST,
    NestedResult,
    gain,
    nested_cv,
    outer_fold_ids,
    weight_instability,
)
from ensemble.learning.registry import BEST, FITTERS, SOFT
from ensemble.learning.stack import Stack, stack_of
from folds.errors import EnsembleError
from folds.metrics.classification import Metric
from folds.metrics.grouping import average_by_person
from folds.metrics.intervals import Difference, Interval, difference_over_people, interval_over_people
from folds.utils.progress import Advance


@dataclass(frozen=True)
class MethodScore:
    """What one method is worth: `claimed` is its score on the samples it was fitted on, `score` the nested one."""

    method: str
    title: str
    score: Interval
    in_sample: float
    optimism: float
    over_soft: Difference | None

    def to_dict(self) -> dict[str, Any]:
        """For --json and blend.json."""
        record = {
            "method": self.method,
            "title": self.title,
            "nested": self.score.to_dict(),
            "in_sample": self.in_sample,
            "optimism": self.optimism,
        }
        return record | {"over_soft": None if self.over_soft is None else difference_json(self.over_soft)}


@dataclass(frozen=True)
class FittedBlend:
    """A learnt combination.

    Attributes
    ----------
    method : as asked for; ``auto`` where it was chosen.
    stack : what it was learnt on.
    nested : its predictions, honest ones among them.
    lines : what it and others are worth: soft voting, the best single run (chosen inside the nest), all that were tried.
    chosen : the method that is applied.
    by_part : what was chosen without each part; () where nothing was.
    fitters : what was fitted without each part, before any limits: what is learnt again on fewer runs.
    moved : how far the weights move when other people are left out, 0 to 1.
    """

    method: str
    metric: Metric
    stack: Stack
    nested: NestedResult
    lines: Mapping[str, MethodScore]
    chosen: str
    best: str
    by_part: tuple[str, ...]
    weight_instability: float
    over_best_single: Difference | None
    fitters: tuple[Fitter, ...] = ()

    @property
    def combination(self) -> Combination:
        """Return what is applied to new samples."""
        return self.nested.combination

    def summary_lines(self) -> list[str]:
        """Return what a reader must know, in plain words."""
        line = self.lines[self.method]
        said = []
        if self.by_part:
            counted = sorted(set(self.by_part), key=lambda name: (-self.by_part.count(name), name))
            listed = ", ".join(f"{name} {times(self.by_part.count(name))}" for name in counted)
            said.append(f"chosen: {self.chosen}; without each part in turn: {listed}")
            if self.best != self.chosen:
                said.append(
                    f"{self.best} has the best score, but not by half a standard error of its difference to soft voting, so soft voting is taken"
                )
        if self.combination.summary:
            said.append(f"{self.chosen}: {self.combination.summary}")
        if self.nested.parts:
            much = f"{line.optimism:.3f} too good" if line.optimism >= 0.0005 else "not flattered"
            flattery = f"; on the people it learnt from {line.in_sample:.3f}, {much}"
            said.append(f"believe the nested score {line.score.value:.3f}: of people it has not learnt from{flattery}")
        if line.over_soft is not None:
            plain = (
                ""
                if line.over_soft.is_significant
                else "; as far as these people can tell, soft voting is as good, and learns nothing"
            )
            said.append(_compared("soft voting", line.over_soft, self.metric) + plain)
        if self.over_best_single is not None:
            said.append(
                _compared("the best single run (chosen inside the nest, too)", self.over_best_single, self.metric)
            )
        return said

    def to_dict(self) -> dict[str, Any]:
        """For --json and blend.json."""
        return {
            "chosen": self.chosen,
            "best_score": self.best,
            "chosen_without_each_part": list(self.by_part),
            "parts": len(np.unique(self.stack.outer_folds)),
            "methods": [line.to_dict() for line in self.lines.values()],
            "over_best_single": None if self.over_best_single is None else difference_json(self.over_best_single),
            "weights_move": self.weight_instability,
        }


def fit_split(
    split: AlignedSplit,
    truth: Truth,
    request: BlendConfig,
    costs: Costs,
    progress: Advance = lambda done, of: None,
    seed: int = 0,
) -> FittedBlend:
    """Learn a combination on the labelled samples of the out-of-fold split and score it honestly.

    Raises
    ------
    UsageError, EnsembleError : as `ensemble.learning.stack.stack_of`; no run fits within the limits; there are too few people.
    """
    metric, stack = request.scored, stack_of(split, truth, outer_fold_ids(truth.persons, truth.labels, split.fold))
    if len(np.unique(stack.outer_folds)) < FEWEST:
        raise EnsembleError(
            f"what is learnt is scored on people who are left out, and there are only {len(np.unique(stack.persons))}",
            hint="`method=soft`",
        )
    plain = request.fitters()
    limits = request.max_members is not None or request.budget is not None
    fitters = plain
    if limits:
        fitters = [within_budget(fitter, costs, request.max_members, request.budget) for fitter in plain]
    name = AUTO if request.name == AUTO else plain[0].name + (", limited" if limits else "")
    if name == AUTO:
        choice = choose(stack, fitters, metric, seed, progress)
    else:
        one = nested_cv(stack, fitters[0], metric, seed, progress)
        choice = Choice({name: one}, name, name, one, ())
    results, references = _compared_with(stack, metric, seed, choice.results, limits)
    if name == AUTO:
        results[AUTO] = choice.nested
    final, by_person = results[name], request.per_person
    lines = {one: _line(stack, metric, one, found, references[SOFT], by_person) for one, found in results.items()}
    over_best = None if final is references[BEST] else _gain(stack, metric, references[BEST], final, by_person)
    named = {fitter.name: fitter for fitter in plain}
    by_part = choice.by_part or (plain[0].name,) * len(np.unique(stack.outer_folds))
    return FittedBlend(
        name,
        metric,
        stack,
        final,
        lines,
        choice.chosen,
        choice.best,
        choice.by_part,
        weight_instability(final.parts),
        over_best,
        tuple(named[one] for one in by_part),
    )


def _compared_with(
    stack: Stack, metric: Metric, seed: int, tried: Mapping[str, NestedResult], limits: bool
) -> tuple[dict[str, NestedResult], dict[str, NestedResult]]:
    """Return all results, and of them soft voting and the best single run of all runs, which are neither limited nor calibrated."""
    references = {
        one: tried[one] if one in tried and not limits else nested_cv(stack, FITTERS[one], metric, seed)
        for one in (SOFT, BEST)
    }
    renamed = {f"{one}, all runs" if limits and one in tried else one: found for one, found in references.items()}
    return dict(tried) | renamed, references


def _line(
    stack: Stack, metric: Metric, name: str, one: NestedResult, soft: NestedResult, by_person: bool
) -> MethodScore:
    labels, persons = stack.labels, stack.persons
    honest: NDArray[np.floating[Any]] = one.out_of_sample
    claimed: NDArray[np.floating[Any]] = one.in_sample
    if by_person:
        labels, claimed, *_ = average_by_person(stack.labels, one.in_sample, stack.persons, stack.classes)
        labels, honest, persons, _ = average_by_person(stack.labels, one.out_of_sample, stack.persons, stack.classes)
    score, own = interval_over_people(metric, labels, honest, persons), metric(labels, claimed)
    flattery = own - score.value if metric.greater_is_better else score.value - own
    return MethodScore(
        name,
        one.fitter.title,
        score,
        own,
        flattery,
        None if one is soft else _gain(stack, metric, soft, one, by_person),
    )


def _gain(stack: Stack, metric: Metric, over: NestedResult, of: NestedResult, by_person: bool) -> Difference:
    if not by_person:
        return gain(stack, metric, over, of)
    labels, first, persons, _ = average_by_person(stack.labels, over.out_of_sample, stack.persons, stack.classes)
    second = average_by_person(stack.labels, of.out_of_sample, stack.persons, stack.classes)[1]
    return difference_over_people(metric, labels, first, second, persons)


def _compared(what: str, difference: Difference, metric: Metric) -> str:
    found = difference.difference
    if difference.is_significant:
        better = (found.value > 0) == metric.greater_is_better
        verdict = (
            "better, beyond what other people would change"
            if better
            else "worse, beyond what other people would change"
        )
    else:
        verdict = "not distinguishable from none"
    warning = f"; {found.warning}" if found.warning else ""
    less = "" if metric.greater_is_better else f" of {metric.title}, of which less is better"
    return f"against {what}: {found.signed_text()}{less}, {verdict}{warning}"


def times(count: int) -> str:
    """Return ``once``, ``twice``, ``3 times``."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def difference_json(difference: Difference) -> dict[str, Any]:
    """Return a difference as plain values."""
    return difference.difference.to_dict() | {
        "distinguishable": difference.is_significant,
        "chance": difference.p_value,
    }
