"""Contributions of runs to a combination: single score, leave-one-out difference and Shapley value (numpy only)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.analysis.diversity import Diversity, diversity
from ensemble.analysis.shapley import ShapleyResult, shapley
from ensemble.analysis.subset_scores import ADDITIVE, Floats
from ensemble.learning.combination import Combination
from ensemble.learning.nested import NestedResult, nested_cv
from ensemble.learning.stack import Stack
from ensemble.voting.vote import METHODS
from folds.metrics.classification import Metric
from folds.metrics.intervals import Difference, Interval, difference_over_people, interval_over_people
from folds.utils.progress import Advance


@dataclass(frozen=True)
class RunContribution:
    """One run of a combination.

    Attributes
    ----------
    score : score of the run alone, on the rows it predicts.
    weight : its share of the vote, 0 to 1.
    leave_one_out : score with the run minus score without it; positive if the run helps.
    share : its Shapley value; None if the pooling rule or the metric does not allow one.
    most_similar : the run with the most similar errors, and the correlation of the errors.
    """

    name: str
    score: Interval
    weight: float
    leave_one_out: Difference
    share: Interval | None
    most_similar: tuple[str, float] | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``--json`` and blend.json."""
        gained = self.leave_one_out.difference
        return {
            "run": self.name,
            "score": self.score.to_dict(),
            "weight": self.weight,
            "without": gained.to_dict() | {"chance": self.leave_one_out.p_value},
            "shapley": None if self.share is None else self.share.to_dict(),
            "closest": None
            if self.most_similar is None
            else {"run": self.most_similar[0], "correlation": self.most_similar[1]},
        }


@dataclass(frozen=True)
class Contributions:
    """Contributions of all runs.

    Attributes
    ----------
    members : one entry per run, in the order of the stack.
    refitted : whether the combination was fitted again without each run.
    """

    metric: Metric
    members: tuple[RunContribution, ...]
    shares: ShapleyResult | None
    diversity: Diversity
    refitted: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``--json`` and blend.json."""
        shares = self.shares
        return {
            "metric": self.metric.name,
            "members": [member.to_dict() for member in self.members],
            "refitted": self.refitted,
            "shapley": None
            if shares is None
            else {
                "nobody": shares.empty,
                "everybody": shares.full,
                "exact": shares.exact,
                "sampling_error": shares.standard_error,
            },
            "diversity": self.diversity.to_dict(),
        }


def estimate_contributions(
    stack: Stack,
    fitted: NestedResult,
    metric: Metric,
    refit: bool = False,
    seed: int = 0,
    progress: Advance = lambda done, of: None,
) -> Contributions:
    """Return the contribution of each run to a fitted (or plain) combination.

    Shapley values refer to the unweighted pooling rule of `fitted`, or to soft voting if that rule is not a sum over
    runs: they describe the run, not the fitted weights.

    Parameters
    ----------
    fitted : a result of `ensemble.learning.nested.nested_cv`.
    refit : whether to fit again without each run. Otherwise the weight of the run goes to the others.
    """
    pool = (
        fitted.combination.pool
        if fitted.combination.pool in ADDITIVE and fitted.combination.stacked is None
        else "soft"
    )
    shares = None
    if metric.is_additive:
        shares = shapley(stack, metric, pool, seed=seed, progress=progress)
    alike = diversity(stack)
    without = leave_one_out(stack, fitted, metric, refit, seed)
    weights = fitted.combination.shares
    each: Sequence[Interval | None] = [None] * stack.runs if shares is None else shares.runs
    members = tuple(
        RunContribution(
            name,
            alone(stack, run, metric),
            float(weights[run]),
            without[run],
            None if shares is None else shares.runs[run],
            alike.most_similar(run),
        )
        for run, (name, share) in enumerate(zip(stack.names, each, strict=True))
    )
    return Contributions(metric, members, shares, alike, refit and fitted.fitter.is_fitted)


def leave_one_out(
    stack: Stack, fitted: NestedResult, metric: Metric, refit: bool = False, seed: int = 0
) -> list[Difference]:
    """Return, for each run, the paired difference of the out-of-sample score with and without it.

    A positive difference means that the run helps, for every metric: `Difference.first` is the score without the run if
    greater is better, and `Difference.second` if less is better. Rows that no other run predicts get the class
    frequencies of the rows used for fitting.

    Parameters
    ----------
    refit : whether to fit again without the run (runs × outer folds fits). Otherwise its weight goes to the others.
    """
    found = []
    for run in range(stack.runs):
        again = refit and fitted.fitter.is_fitted
        first, second = (
            _refitted(stack, fitted, metric, run, seed) if again else _dropped(stack, fitted, run),
            fitted.out_of_sample,
        )
        if not metric.greater_is_better:
            first, second = second, first
        found.append(difference_over_people(metric, stack.labels, first, second, stack.persons))
    return found


def alone(stack: Stack, run: int, metric: Metric) -> Interval:
    """Return the score of a run alone, on the rows that it predicts."""
    rows = slice(None) if stack.present is None else np.flatnonzero(stack.present[run])
    return interval_over_people(metric, stack.labels[rows], stack.probabilities[run, rows], stack.persons[rows])


def _guess(labels: NDArray[Any], classes: int) -> Floats:
    """Return (classes,) the frequencies of the classes; the means of the known labels or numbers, 0 without any."""
    if labels.ndim == 2:
        known = ~np.isnan(labels)
        return np.where(known, labels, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.bincount(labels, minlength=classes) / max(len(labels), 1)


def _dropped(stack: Stack, fitted: NestedResult, run: int) -> NDArray[np.float32]:
    """Return out-of-sample predictions (n, classes) with the weight of a run given to the others."""
    if not fitted.parts:
        return combine_without(stack, fitted.combination, run, _guess(stack.labels, stack.classes))
    out = np.empty_like(fitted.out_of_sample)
    for part, combination in zip(np.unique(stack.outer_folds), fitted.parts, strict=True):
        inside = np.flatnonzero(stack.outer_folds == part)
        guess = _guess(stack.labels[stack.outer_folds != part], stack.classes)
        out[inside] = combine_without(stack.take(inside), combination, run, guess)
    return out


def combine_without(stack: Stack, combination: Combination, run: int, guess: Floats) -> NDArray[np.float32]:
    """Return predictions (n, classes) without a run; rows that no other run predicts get `guess` (classes,)."""
    out = np.empty((len(stack), stack.classes), np.float32)
    pool = METHODS[combination.pool]
    for part, ballots in stack.ballots(combination.stacked is None and pool.counts_votes, pool.needs_all_rows):
        for values in (ballots.probabilities, ballots.weights, ballots.votes):
            if values is not None:
                values[run] = 0
        covered = ballots.weights.sum(axis=0) > 0
        with np.errstate(invalid="ignore", divide="ignore"):
            values = combination.apply(ballots)[0]
        out[part] = np.where(covered[:, None], values, guess)
    return out


def _refitted(stack: Stack, fitted: NestedResult, metric: Metric, run: int, seed: int) -> NDArray[np.float32]:
    """Return out-of-sample predictions (n, classes) of a combination that is fitted without a run."""
    out = np.tile(_guess(stack.labels, stack.classes).astype(np.float32), (len(stack), 1))
    others = [other for other in range(stack.runs) if other != run]
    if not others:
        return out
    rest = stack.select_runs(others)
    covered = np.arange(len(stack)) if rest.present is None else np.flatnonzero(rest.present.any(axis=0))
    rest = rest if len(covered) == len(stack) else rest.take(covered)
    out[covered] = nested_cv(rest, fitted.fitter, metric, seed).out_of_sample
    return out
