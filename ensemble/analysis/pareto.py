"""Pareto front of score and cost over subsets of the runs, by nested cross-validation (numpy only)."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.analysis.cost import Costs
from ensemble.analysis.subset_selection import SubsetCandidate, best_of, candidates, fit_on
from ensemble.learning.auto import fits_at_once
from ensemble.learning.combination import Combination, Fitter, combine
from ensemble.learning.stack import Stack
from folds.metrics.classification import Metric
from folds.metrics.intervals import Difference, Interval, difference_over_people, interval_over_people
from folds.utils.progress import Advance

SOFT = Fitter("soft", "mean of probabilities", lambda stack, metric, seed: Combination(stack.names), is_fitted=False)


@dataclass(frozen=True)
class Subset:
    """The best runs within a cost.

    Attributes
    ----------
    members : names of the runs, chosen on all samples.
    cost : cost per image.
    saved : saved share of the cost of all runs.
    score : nested score: each outer fold is predicted by runs that were chosen and fitted without it.
    difference : difference to all runs, paired over people; positive if the subset is better, for every metric. None
        for all runs.
    times_chosen : number of outer folds, out of `parts`, in which the same runs were chosen.
    """

    members: tuple[str, ...]
    cost: float
    saved: float
    score: Interval
    difference: Difference | None
    times_chosen: int
    parts: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``--json`` and blend.json."""
        record: dict[str, Any] = {
            "members": list(self.members),
            "cost": self.cost,
            "fewer": self.saved,
            "score": self.score.to_dict(),
        }
        if self.difference is None:
            return record | {"difference": None, "alike": None}
        return record | {
            "difference": self.difference.difference.to_dict() | {"chance": self.difference.p_value},
            "alike": [self.times_chosen, self.parts],
        }


@dataclass(frozen=True)
class Pareto:
    """The Pareto front of subsets of the runs, ordered by cost.

    Attributes
    ----------
    rows : the undominated subsets: no other subset is as cheap and as good, and better in one of the two.
    everyone : all runs.
    evaluated : all scored subsets without `everyone`, also dominated ones.
    """

    metric: Metric
    costs: Costs
    rows: tuple[Subset, ...]
    everyone: Subset
    evaluated: tuple[Subset, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``--json`` and blend.json."""
        rows = [row.to_dict() for row in self.rows]
        return {
            "metric": self.metric.name,
            "costs": self.costs.to_dict(),
            "rows": rows,
            "everyone": self.everyone.to_dict(),
        }


def pareto(
    stack: Stack,
    metric: Metric,
    costs: Costs,
    fitter: Fitter = SOFT,
    seed: int = 0,
    most: int = 12,
    progress: Advance = lambda done, of: None,
    by_part: Sequence[Fitter] | None = None,
) -> Pareto:
    """Return the best subset for each cost, with nested scores.

    The evaluated costs are those at which the best subset on all samples changes: at most `most` of them, denser at low
    costs. For each cost and each outer fold, the best subset within that cost is chosen by its pooled score on the
    other folds, `fitter` is fitted on its runs on the other folds, and the outer fold is predicted.

    Parameters
    ----------
    most : maximum number of costs.
    by_part : the fitter for each outer fold, in order, if methods were chosen per fold; `fitter` by default.

    Raises
    ------
    ValueError : there are fewer than two outer folds.
    """
    parts = np.unique(stack.outer_folds)
    if len(parts) < 2:
        raise ValueError(f"a nested score needs 2 or more outer folds, found {len(parts)}")
    pool_name = fitter.name if not fitter.is_fitted else "soft"
    progress(0, len(parts) + 1)
    front = _front(candidates(stack, metric, costs, pool_name), most)
    subsets = np.empty((len(front), len(stack), stack.classes), np.float32)
    everyone = np.empty((len(stack), stack.classes), np.float32)
    times_chosen = np.zeros(len(front), int)
    rows_of = [np.flatnonzero(stack.outer_folds == part) for part in parts]
    progress(1, len(parts) + 1)
    with ThreadPoolExecutor(fits_at_once(stack)) as pool:
        predicted = pool.map(
            lambda rows, one: _predict_fold(stack, rows, front, one, metric, costs, pool_name, seed),
            rows_of,
            by_part or [fitter] * len(parts),
        )
        for done, (rows, (chosen, of_subsets, of_all_runs)) in enumerate(zip(rows_of, predicted, strict=True), start=2):
            subsets[:, rows], everyone[rows] = of_subsets, of_all_runs
            times_chosen += [members == overall.members for members, overall in zip(chosen, front, strict=True)]
            progress(done, len(parts) + 1)
    of_all = _scored(stack, metric, costs, stack.names, everyone, None, len(parts), len(parts))
    evaluated = tuple(
        _scored(
            stack,
            metric,
            costs,
            tuple(stack.names[run] for run in one.members),
            subsets[level],
            everyone,
            int(times_chosen[level]),
            len(parts),
        )
        for level, one in enumerate(front)
        if len(one.members) < stack.runs
    )
    return Pareto(metric, costs, undominated([*evaluated, of_all], metric), of_all, evaluated)


def _predict_fold(
    stack: Stack,
    rows: NDArray[np.int64],
    front: Sequence[SubsetCandidate],
    fitter: Fitter,
    metric: Metric,
    costs: Costs,
    pool: str,
    seed: int,
) -> tuple[list[tuple[int, ...]], NDArray[np.float32], NDArray[np.float32]]:
    """Choose and fit on all samples except `rows` (m,), and predict `rows`.

    Returns
    -------
    The runs chosen at each cost of the front, their predictions (costs, m, classes), and those of all runs (m,
    classes).
    """
    outside = stack.take(np.setdiff1d(np.arange(len(stack)), rows, assume_unique=True))
    held_out, found = stack.take(rows), candidates(outside, metric, costs, pool)
    made: dict[tuple[int, ...], NDArray[np.float32]] = {}
    chosen = [best_of(found, level.cost).members for level in front]
    for members in chosen:
        if members not in made:
            made[members] = combine(held_out, fit_on(outside, members, fitter, metric, seed))
    everyone = made.get(tuple(range(stack.runs)))
    if everyone is None:
        everyone = combine(held_out, fitter.fit(outside, metric, seed))
    return chosen, np.stack([made[members] for members in chosen]), everyone


def undominated(rows: Sequence[Subset], metric: Metric) -> tuple[Subset, ...]:
    """Return the rows that no other row dominates, ordered by cost.

    A row dominates another if it is as cheap and as good, and better in one of the two.
    """
    sign = 1 if metric.greater_is_better else -1

    def beats(one: Subset, other: Subset) -> bool:
        better, cheaper = sign * (one.score.value - other.score.value), other.cost - one.cost
        return better >= 0 and cheaper >= 0 and (better > 0 or cheaper > 0)

    return tuple(
        sorted(
            (row for row in rows if not any(beats(other, row) for other in rows)),
            key=lambda row: (row.cost, row.members),
        )
    )


def _front(found: Sequence[SubsetCandidate], most: int) -> list[SubsetCandidate]:
    """Return the best candidate at each cost where it changes, thinned to at most `most`."""
    front: list[SubsetCandidate] = []
    for cost in sorted({one.cost for one in found}):
        best = best_of(found, cost)
        if not front or best.members != front[-1].members:
            front.append(best)
    if len(front) <= most:
        return front
    return [front[i] for i in sorted(set(np.geomspace(1, len(front), most).round().astype(int) - 1))]


def _scored(
    stack: Stack,
    metric: Metric,
    costs: Costs,
    members: tuple[str, ...],
    values: NDArray[np.float32],
    everyone: NDArray[np.float32] | None,
    times_chosen: int,
    parts: int,
) -> Subset:
    score = interval_over_people(metric, stack.labels, values, stack.persons)
    difference = None
    if everyone is not None:
        first, second = (everyone, values) if metric.greater_is_better else (values, everyone)
        difference = difference_over_people(metric, stack.labels, first, second, stack.persons)
    return Subset(members, costs.total(members), costs.saved(members), score, difference, times_chosen, parts)
