"""A combination that is learnt from out-of-fold predictions, with everything that says whether to believe it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ensemble.auto import Choice, choose
from ensemble.combination import Combination
from ensemble.cost import Costs
from ensemble.evaluation import FEWEST, Nested, Progress, gain, is_real, nested, nests_of, stability
from ensemble.fitters import BEST, FITTERS, SOFT
from ensemble.request import AUTO, Request
from ensemble.runs import Split
from ensemble.scoring import Truth
from ensemble.stack import Stack, stack_of
from ensemble.subsets import limited
from folds.errors import EnsembleError
from folds.intervals import Difference, Interval, interval_over_people
from folds.scores import Metric


@dataclass(frozen=True)
class Line:
    """What one method is worth: `claimed` is its score on the samples it was fitted on, `score` the nested one."""

    method: str
    title: str
    score: Interval
    claimed: float
    optimism: float
    over_soft: Difference | None

    def as_json(self) -> dict[str, Any]:
        """For --json and blend.json."""
        record = {
            "method": self.method,
            "title": self.title,
            "nested": interval_json(self.score),
            "in_sample": self.claimed,
            "optimism": self.optimism,
        }
        return record | {"over_soft": None if self.over_soft is None else difference_json(self.over_soft)}


@dataclass(frozen=True)
class Fitted:
    """A learnt combination.

    Attributes
    ----------
    method : as asked for; ``auto`` where it was chosen.
    stack : what it was learnt on.
    nested : its predictions, honest ones among them.
    lines : what it and others are worth: soft voting, the best single run (chosen inside the nest), all that were tried.
    chosen : the method that is applied.
    by_part : what was chosen without each part; () where nothing was.
    moved : how far the weights move when other people are left out, 0 to 1.
    """

    method: str
    metric: Metric
    stack: Stack
    nested: Nested
    lines: Mapping[str, Line]
    chosen: str
    best: str
    by_part: tuple[str, ...]
    moved: float
    over_best_single: Difference

    @property
    def combination(self) -> Combination:
        """What is applied to new samples."""
        return self.nested.combination

    def sentences(self) -> list[str]:
        """What a reader must know, in plain words."""
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
        if self.combination.said:
            said.append(f"{self.chosen}: {self.combination.said}")
        if self.nested.parts:
            flattery = (
                f"; on the people it learnt from {line.claimed:.3f}, {abs(line.optimism):.3f} {'too good' if line.optimism >= 0 else 'too bad'}"
            )
            said.append(f"believe the nested score {line.score.score:.3f}: of people it has not learnt from{flattery}")
        if self.chosen != SOFT and line.over_soft is not None:
            plain = "" if is_real(line.over_soft) else "; as far as these people can tell, --method soft is as good, and learns nothing"
            said.append(_compared("soft voting", line.over_soft, self.metric) + plain)
        if self.chosen != BEST:
            said.append(_compared("the best single run (chosen inside the nest, too)", self.over_best_single, self.metric))
        return said

    def as_json(self) -> dict[str, Any]:
        """For --json and blend.json."""
        return {
            "chosen": self.chosen,
            "best_score": self.best,
            "chosen_without_each_part": list(self.by_part),
            "parts": len(np.unique(self.stack.nests)),
            "methods": [line.as_json() for line in self.lines.values()],
            "over_best_single": difference_json(self.over_best_single),
            "weights_move": self.moved,
        }


def fit_split(split: Split, truth: Truth, request: Request, costs: Costs, progress: Progress = lambda done, of: None, seed: int = 0) -> Fitted:
    """Learn a combination on the labelled samples of the out-of-fold split and score it honestly.

    Raises
    ------
    UsageError, EnsembleError : as `ensemble.stack.stack_of`; no run fits within the limits; there are too few people.
    """
    metric, stack = request.scored, stack_of(split, truth, nests_of(truth.persons, truth.labels, split.fold))
    if len(np.unique(stack.nests)) < FEWEST:
        raise EnsembleError(
            f"what is learnt is scored on people who are left out, and there are only {len(np.unique(stack.persons))}", hint="--method soft"
        )
    fitters = request.fitters()
    limits = request.max_members is not None or request.budget is not None
    if limits:
        fitters = [limited(fitter, costs, request.max_members, request.budget) for fitter in fitters]
    if request.name == AUTO:
        choice = choose(stack, fitters, metric, seed, progress)
    else:
        one = nested(stack, replace(fitters[0], name=request.name), metric, seed, progress)
        choice = Choice({request.name: one}, request.name, request.name, one, ())
    results = dict(choice.results)
    # What it is compared with is of all runs, whatever the limits.
    references = {name: results[name] if name in results and not limits else nested(stack, FITTERS[name], metric, seed) for name in (SOFT, BEST)}
    results |= {f"{name}, all runs" if limits else name: one for name, one in references.items()}
    if request.name == AUTO:
        results[AUTO] = choice.nested
    lines = {name: _line(stack, metric, name, one, references[SOFT]) for name, one in results.items()}
    final = results[request.name]
    over_best = gain(stack, metric, references[BEST], final)
    return Fitted(request.name, metric, stack, final, lines, choice.chosen, choice.best, choice.by_part, stability(final.parts), over_best)


def _line(stack: Stack, metric: Metric, name: str, one: Nested, soft: Nested) -> Line:
    score = interval_over_people(metric, stack.labels, one.honest, stack.persons)
    compared = None if one is soft else gain(stack, metric, soft, one)
    return Line(name, one.fitter.title, score, metric(stack.labels, one.claimed), one.optimism(stack.labels, metric), compared)


def _compared(what: str, difference: Difference, metric: Metric) -> str:
    found = difference.difference
    if is_real(difference):
        better = (found.score > 0) == metric.greater_is_better
        verdict = "better, beyond what other people would change" if better else "worse, beyond what other people would change"
    else:
        verdict = "not distinguishable from none"
    warning = f"; {found.warning}" if found.warning else ""
    return f"against {what}: {found.score:+.3f} ({found.low:+.3f} to {found.high:+.3f}), {verdict}{warning}"


def times(count: int) -> str:
    """``once``, ``twice``, ``3 times``."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def interval_json(interval: Interval) -> dict[str, float]:
    """An interval as plain values."""
    return {"score": interval.score, "low": interval.low, "high": interval.high}


def difference_json(difference: Difference) -> dict[str, Any]:
    """A difference as plain values."""
    return interval_json(difference.difference) | {"distinguishable": is_real(difference), "chance": difference.chance}
