"""Score against cost: the best subsets of the runs, each scored on people who had no say in its choice; numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.analysis.cost import Costs
from ensemble.analysis.subset_selection import SubsetCandidate, best_of, candidates, fit_on
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
    members : their names; chosen on everybody.
    cost : what they cost an image.
    fewer : share of the cost of all runs that is saved.
    score : nested: in each part, of the runs that were chosen and fitted without it.
    difference : to all runs, paired over people; positive where the subset is better, whichever way the metric goes. None for all runs.
    alike : in how many of the parts the same runs were chosen; `parts` in all.
    """

    members: tuple[str, ...]
    cost: float
    saved: float
    score: Interval
    difference: Difference | None
    times_chosen: int
    parts: int

    def to_dict(self) -> dict[str, Any]:
        """For --json and records."""
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
    """Subsets of the runs, cheap ones first.

    Attributes
    ----------
    rows : those that none is both cheaper (or as cheap) and better than.
    everyone : all runs.
    looked_at : all subsets that were scored, without `everyone`; rows and more.
    """

    metric: Metric
    costs: Costs
    rows: tuple[Subset, ...]
    everyone: Subset
    evaluated: tuple[Subset, ...]

    def to_dict(self) -> dict[str, Any]:
        """For --json and records."""
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
    """Return the best score for each cost.

    The costs to look at are those at which, on everybody, another subset becomes the best; at most `most` of them, closer
    together where they are low. For each, and each part of the stack, the best subset within that cost is chosen by the plain
    pool's score without the part, `fitter` learns on its runs without the part, and the part is predicted.

    Parameters
    ----------
    by_part : what learns without each part, in order, where it was chosen without it; `fitter` without it.

    Raises
    ------
    ValueError : there are fewer than two parts.
    """
    parts = np.unique(stack.outer_folds)
    if len(parts) < 2:
        raise ValueError("a nested score needs at least two parts")
    pool = fitter.name if not fitter.is_fitted else "soft"
    progress(0, len(parts) + 1)
    front = _front(candidates(stack, metric, costs, pool), most)
    subsets = np.empty((len(front), len(stack), stack.classes), np.float32)
    everyone = np.empty((len(stack), stack.classes), np.float32)
    times_chosen = np.zeros(len(front), int)
    for done, part in enumerate(parts):
        progress(done + 1, len(parts) + 1)
        learner = fitter if by_part is None else by_part[done]
        rows = np.flatnonzero(stack.outer_folds == part)
        chosen, subsets[:, rows], everyone[rows] = _without_part(stack, rows, front, learner, metric, costs, pool, seed)
        times_chosen += [members == whole.members for members, whole in zip(chosen, front, strict=True)]
    progress(len(parts) + 1, len(parts) + 1)
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


def _without_part(
    stack: Stack,
    rows: NDArray[np.int64],
    front: Sequence[SubsetCandidate],
    fitter: Fitter,
    metric: Metric,
    costs: Costs,
    pool: str,
    seed: int,
) -> tuple[list[tuple[int, ...]], NDArray[np.float32], NDArray[np.float32]]:
    """Choose and fit on all samples but `rows` (m,), and predict those.

    Returns
    -------
    The runs chosen at each cost of the front, what they predict (costs, m, classes), and what all runs predict (m, classes).
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
    """Return rows that none is at least as cheap and as good as, and one of the two more so; cheap ones first."""
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
    """Return the best candidate at each cost at which it changes, thinned to `most`."""
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
    alike: int,
    parts: int,
) -> Subset:
    score = interval_over_people(metric, stack.labels, values, stack.persons)
    difference = None
    if everyone is not None:
        first, second = (everyone, values) if metric.greater_is_better else (values, everyone)
        difference = difference_over_people(metric, stack.labels, first, second, stack.persons)
    return Subset(members, costs.total(members), costs.saved(members), score, difference, alike, parts)
