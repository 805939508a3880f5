"""Fit a combination to out-of-fold predictions and score it by nested cross-validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.alignment.split import AlignedSplit
from ensemble.alignment.truth import GroundTruth
from ensemble.analysis.cost import Costs
from ensemble.analysis.subset_selection import within_budget
from ensemble.blending.nested_units import NestedUnits, nested_units
from ensemble.blending.request import AUTO, BlendConfig
from ensemble.learning.auto import Choice, choose
from ensemble.learning.columns.registry import fitters_of
from ensemble.learning.columns.stack import column_stack_of
from ensemble.learning.combination import Combination, Fitter
from ensemble.learning.further_columns import parse_columns
from ensemble.learning.nested import (
    MIN_FOLDS,
    NestedResult,
    nested_cv,
    outer_fold_ids,
    weight_instability,
)
from ensemble.learning.registry import BEST, SOFT
from ensemble.learning.stack import Stack, stack_of
from folds.errors import EnsembleError
from folds.metrics.classification import Metric
from folds.metrics.intervals import Difference, Interval, difference_over_people, interval_over_people
from folds.utils.progress import Advance


@dataclass(frozen=True)
class MethodScore:
    """The scores of one method.

    Attributes
    ----------
    score : nested score, with its 95% CI over people.
    in_sample : score on the samples used for fitting.
    optimism : how much better the in-sample score is than the nested one, positive for every metric.
    over_soft : difference to soft voting; None for soft voting itself.
    """

    method: str
    title: str
    score: Interval
    in_sample: float
    optimism: float
    over_soft: Difference | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``--json`` and blend.json."""
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
    """A fitted combination.

    Attributes
    ----------
    method : the requested method; ``auto`` if it was chosen.
    stack : the samples used for fitting.
    nested : in-sample and out-of-sample predictions.
    lines : scores of this method, of soft voting, of the best single run (chosen nested) and of all methods tried.
    chosen : the applied method.
    best : the method with the best nested score.
    by_part : the method chosen without each outer fold; () if there was no choice.
    weight_instability : mean change of the weights when another outer fold is left out, 0 to 1.
    over_best_single : difference to the best single run; None if this is the method itself.
    fitters : the fitter used without each outer fold, before any limits; fitted again on fewer runs.
    plain : what is used if the best method is about as good.
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
    plain: str = "soft voting"

    @property
    def combination(self) -> Combination:
        """Return the combination for new samples."""
        return self.nested.combination

    def summary_lines(self) -> list[str]:
        """Return the summary: choice, combination, nested score, and comparisons."""
        line = self.lines[self.method]
        lines = []
        if self.by_part:
            counted = sorted(set(self.by_part), key=lambda name: (-self.by_part.count(name), name))
            listed = ", ".join(f"{name} {times(self.by_part.count(name))}" for name in counted)
            lines.append(f"chosen: {self.chosen}; with each outer fold left out in turn: {listed}")
            if self.best != self.chosen:
                lines.append(
                    f"{self.best} has the best nested score, but leads {self.plain} by less than half a standard error "
                    f"of the difference, so {self.plain} is used"
                )
        if self.combination.summary:
            lines.append(f"{self.chosen}: {self.combination.summary}")
        if self.nested.parts:
            lines.append(
                f"nested {self.metric.title} {line.score.value:.3f} (people not used for fitting); "
                f"in-sample {line.in_sample:.3f}; optimism {line.optimism:+.3f}"
            )
        if line.over_soft is not None:
            plain = "" if line.over_soft.is_significant else "; soft voting needs no fitting"
            lines.append(_compared("soft voting", line.over_soft, self.metric) + plain)
        if self.over_best_single is not None:
            lines.append(_compared("the best single run (chosen nested as well)", self.over_best_single, self.metric))
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``--json`` and blend.json."""
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
    truth: GroundTruth,
    request: BlendConfig,
    costs: Costs,
    progress: Advance = lambda done, of: None,
    seed: int = 0,
    images: AlignedSplit | None = None,
) -> FittedBlend:
    """Fit a combination to the labeled samples of the out-of-fold split and score it by nested cross-validation.

    Parameters
    ----------
    images : of a split of people, the split of their images, for a rule of `pool` that is fitted.

    Raises
    ------
    UsageError, EnsembleError : as `ensemble.learning.stack.stack_of`; no run is within the limits; there are too few
        people.
    """
    outer_folds = outer_fold_ids(truth.persons, truth.labels, split.fold)
    metric = request.scored
    images = images if request.fits_pool else None
    if split.has_columns:
        stack: Stack = column_stack_of(split, truth, outer_folds, images)
    else:
        stack = stack_of(split, truth, outer_folds, images, parse_columns(request.extra))
    if len(np.unique(stack.outer_folds)) < MIN_FOLDS:
        raise EnsembleError(
            f"nested cross-validation needs {MIN_FOLDS} or more outer folds, found {len(np.unique(stack.outer_folds))} "
            f"with {len(np.unique(stack.persons))} people",
            hint="`method=soft`",
        )
    plain = request.fitters(split.task)
    limits = request.max_members is not None or request.budget is not None
    fitters = plain
    if limits:
        fitters = [within_budget(fitter, costs, request.max_members, request.budget) for fitter in plain]
    chosen_pool = request.name != AUTO and len(fitters) > 1  # the first rule is the mean
    name = AUTO if request.name == AUTO or chosen_pool else plain[0].name + (", limited" if limits else "")
    if name == AUTO:
        default = plain[0].name if request.fits_pool else SOFT
        choice = choose(stack, fitters, metric, seed, progress, default)
    else:
        one = nested_cv(stack, fitters[0], metric, seed, progress)
        choice = Choice({name: one}, name, name, one, ())
    results, references = _compared_with(stack, metric, seed, choice.results, limits, split.task)
    if name == AUTO:
        results[AUTO] = choice.nested
    final, units = results[name], nested_units(stack, split, truth, outer_folds, request.per_person)
    lines = {one: _line(units, metric, one, found, references[SOFT]) for one, found in results.items()}
    over_best = None if final is references[BEST] else _gain(units, metric, references[BEST], final)
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
        *(["the mean of the images"] if chosen_pool else []),
    )


def _compared_with(
    stack: Stack, metric: Metric, seed: int, tried: Mapping[str, NestedResult], limits: bool, task: str
) -> tuple[dict[str, NestedResult], dict[str, NestedResult]]:
    """Return all results, and the references: soft voting and the best single run, without limits or calibration."""
    references = {
        one: tried[one] if one in tried and not limits else nested_cv(stack, fitters_of(task)[one], metric, seed)
        for one in (SOFT, BEST)
    }
    renamed = {f"{one}, all runs" if limits and one in tried else one: found for one, found in references.items()}
    return dict(tried) | renamed, references


def _line(units: NestedUnits, metric: Metric, name: str, one: NestedResult, soft: NestedResult) -> MethodScore:
    scored = units.both(one)
    outside, inside = scored.predictions
    score = interval_over_people(metric, scored.labels, outside, scored.persons)
    in_sample = metric(scored.labels, inside)
    optimism = in_sample - score.value if metric.greater_is_better else score.value - in_sample
    return MethodScore(
        name,
        one.fitter.title,
        score,
        in_sample,
        optimism,
        None if one is soft else _gain(units, metric, soft, one),
    )


def _gain(units: NestedUnits, metric: Metric, over: NestedResult, of: NestedResult) -> Difference:
    scored = units.out_of_sample(over, of)
    first, second = scored.predictions
    return difference_over_people(metric, scored.labels, first, second, scored.persons)


def _compared(what: str, difference: Difference, metric: Metric) -> str:
    found = difference.difference
    verdict = "not significant"
    if difference.is_significant:
        better = (found.value > 0) == metric.greater_is_better
        verdict = f"significantly {'better' if better else 'worse'}"
    warning = f"; {found.warning}" if found.warning else ""
    direction = "" if metric.greater_is_better else " (lower is better)"
    return f"compared with {what}: {found.signed_text()} {metric.title}{direction}, {verdict}{warning}"


def times(count: int) -> str:
    """Return ``once``, ``twice``, ``3 times``."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def difference_json(difference: Difference) -> dict[str, Any]:
    """Return a difference as plain values."""
    return difference.difference.to_dict() | {
        "distinguishable": difference.is_significant,
        "chance": difference.p_value,
    }
