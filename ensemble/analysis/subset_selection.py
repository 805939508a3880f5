"""Which runs a combination may do without: subsets within a number of members or a cost, chosen inside the nest; numpy only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ensemble.analysis.cost import Costs
from ensemble.analysis.subset_scores import ADDITIVE, Floats, SubsetScorer, game_of
from ensemble.learning.combination import Calibration, Combination, Fitter
from ensemble.learning.stack import Stack
from folds.errors import UsageError
from folds.metrics.classification import METRICS, Metric

# All subsets up to so many runs; beyond, runs are added or left out one by one.
ALL_SUBSETS = 8
_EQUAL = 1e-12
_SLOW_ROWS = 2_000_000  # subsets × samples


@dataclass(frozen=True)
class SubsetCandidate:
    """A subset of the runs: their indices in ascending order, the score of its pool (greater is better), its cost."""

    members: tuple[int, ...]
    score: float
    cost: float


def candidates(
    stack: Stack,
    metric: Metric,
    costs: Costs,
    pool: str = "soft",
    max_members: int | None = None,
    budget: float | None = None,
    backward: bool = True,
) -> list[SubsetCandidate]:
    """Subsets within the limits that are worth a look, scored by a plain pool on the stack itself (which flatters them).

    All of them up to `ALL_SUBSETS` runs. With more: each run alone, and what forward selection passes through; with `backward`, what
    backward elimination from all passes through as well. Where costs differ, both also go by gain for the cost.
    Where the metric is neither made of counts nor of a value a row, and scoring would take minutes, log loss stands for it.

    Parameters
    ----------
    pool : counts as soft where it is no sum over runs.
    """
    metric = _quick(metric, stack)
    game = game_of(stack, metric, pool if pool in ADDITIVE else "soft")
    price = np.array([costs.of[name].total for name in stack.names])
    most = stack.runs if max_members is None else max_members
    limit = np.inf if budget is None else budget * (1 + _EQUAL)

    def allowed(members: Sequence[int]) -> bool:
        return 0 < len(members) <= most and float(price[list(members)].sum()) <= limit

    sign = 1.0 if metric.greater_is_better else -1.0
    looked_at = _all_subsets(game, sign) if stack.runs <= ALL_SUBSETS else _walks(game, sign, price, allowed, backward)
    found = {members: score for members, score in looked_at if allowed(members)}
    return [SubsetCandidate(members, score, float(price[list(members)].sum())) for members, score in found.items()]


Scored = Iterator[tuple[tuple[int, ...], float]]


def _all_subsets(game: SubsetScorer, sign: float) -> Scored:
    for number, score in enumerate(sign * game.scores(game.all_subsets())[0]):
        yield tuple(run for run in range(game.runs) if number >> run & 1), float(score)


def _walks(
    game: SubsetScorer, sign: float, price: Floats, allowed: Callable[[Sequence[int]], bool], backward: bool
) -> Scored:
    """Yield what forward selection and, with `backward`, elimination pass through: by gain and, where costs differ, by gain for the cost."""
    empty = sign * float(game.scores(game.empty())[0, 0])
    for rate in [np.ones(game.runs), price] if np.ptp(price) > 0 else [np.ones(game.runs)]:
        yield from _forward(game, sign, empty, rate, allowed)
        if backward:
            yield from _backward(game, sign, rate)


def best_of(found: Sequence[SubsetCandidate], budget: float | None = None) -> SubsetCandidate:
    """Return the best candidate within a cost; the cheaper, then the smaller, then the first by index, of those that are equally good."""
    within = [one for one in found if budget is None or one.cost <= budget * (1 + _EQUAL)]
    top = max(one.score for one in within)
    return min(
        (one for one in within if one.score >= top - _EQUAL), key=lambda one: (one.cost, len(one.members), one.members)
    )


def within_budget(fitter: Fitter, costs: Costs, max_members: int | None = None, budget: float | None = None) -> Fitter:
    """Return a fitter of the best runs within limits: others have weight 0.

    The subset is chosen by the plain pool's score on what it is fitted on, then `fitter` learns on these runs alone. So in
    `ensemble.learning.nested.nested` neither choice nor fit has seen the people that are scored.

    Parameters
    ----------
    max_members : how many runs at most.
    budget : what they may cost together, in the unit of `costs`.

    Raises
    ------
    UsageError : no run is within the limits.
    """
    if max_members is not None and max_members < 1:
        raise UsageError(f"`max_members={max_members}`: expected 1 or more", hint="leave it out to use all members")
    cheapest = min(costs.of, key=lambda run: costs.of[run].total)
    if budget is not None and budget < costs.of[cheapest].total:
        raise UsageError(
            f"`budget={budget:g}`: the cheapest run, {cheapest}, costs {costs.of[cheapest].total:g} {costs.unit} an image",
            hint=f"`budget={costs.of[cheapest].total:g}` or more",
        )

    def fit(stack: Stack, metric: Metric, seed: int) -> Combination:
        pool = _plain_pool(fitter)
        found = candidates(stack, metric, costs, pool, max_members, budget, backward=False)
        return fit_on(stack, best_of(found).members, fitter, metric, seed)

    words = [f"at most {max_members} runs"] if max_members is not None else []
    words += [f"at most {budget:g} {costs.unit}"] if budget is not None else []
    return replace(fitter, title=", ".join([fitter.title, *words]), fit=fit, is_fitted=True)


def fit_on(stack: Stack, members: Sequence[int], fitter: Fitter, metric: Metric, seed: int) -> Combination:
    """Return what a fitter makes of some runs, as a combination of all in which the others have weight 0."""
    if len(members) == stack.runs:
        return fitter.fit(stack, metric, seed)
    chosen = stack.select_runs(list(members))
    if chosen.present is not None:
        covered = np.flatnonzero(chosen.present.any(axis=0))
        chosen = chosen if len(covered) == len(chosen) else chosen.take(covered)
    return widened(fitter.fit(chosen, metric, seed), stack.names)


def widened(combination: Combination, names: Sequence[str]) -> Combination:
    """Return the same combination for more runs, of which the others have weight 0."""
    at = [list(names).index(name) for name in combination.runs]
    n = len(names)
    weights, before, stacked = combination.weights, combination.before, combination.stacked
    pool = combination.pool
    if stacked is not None:
        classes = stacked.shape[1]
        wide = np.zeros((n, classes, classes))
        wide[at] = stacked[:-1].reshape(len(at), classes, classes)
        stacked = np.concatenate([wide.reshape(n * classes, classes), stacked[-1:]])
    else:
        pool = "weighted" if pool == "soft" else pool
        narrow = np.ones(len(at)) if weights is None else weights
        weights = np.zeros((n, *narrow.shape[1:]))
        weights[at] = narrow
    if before is not None:
        heat = np.ones((n, 1, 1))
        heat[at] = before.temperature
        offset = None if before.offset is None else np.zeros((n, 1, before.offset.shape[-1]))
        if offset is not None:
            offset[at] = before.offset
        before = Calibration(heat, offset)
    return replace(combination, runs=tuple(names), pool=pool, weights=weights, before=before, stacked=stacked)


def _quick(metric: Metric, stack: Stack) -> Metric:
    """Return what candidates are scored by: log loss for a metric that takes milliseconds a subset, where there are many."""
    if metric.from_counts is not None or metric.per_row is not None:
        return metric
    subsets = 2**stack.runs if stack.runs <= ALL_SUBSETS else stack.runs**2
    return metric if subsets * len(stack) <= _SLOW_ROWS else METRICS["log_loss"]


def _plain_pool(fitter: Fitter) -> str:
    """Return what subsets are scored by: the pool itself where the fitter is one, otherwise the mean of probabilities."""
    return fitter.name if not fitter.is_fitted and fitter.name in ADDITIVE else "soft"


def _forward(
    game: SubsetScorer, sign: float, nobody: float, rate: Floats, allowed: Callable[[Sequence[int]], bool]
) -> Scored:
    inside: list[int] = []
    now, (total, weight) = nobody, game.total_of([])
    while others := [run for run in range(game.runs) if run not in inside and allowed((*inside, run))]:
        scores = sign * game.changed(total, weight, others)
        if not inside:  # each run alone
            yield from (((run,), float(score)) for run, score in zip(others, scores, strict=True))
        best = _preferred(scores - now, rate[others])
        now = float(scores[best])
        inside = sorted([*inside, others[best]])
        total += game.terms[others[best]]
        weight += game.weights[others[best]]
        yield tuple(inside), now


def _backward(game: SubsetScorer, sign: float, rate: Floats) -> Scored:
    inside = list(range(game.runs))
    now = sign * float(game.scores(game.along(np.arange(game.runs)[None]))[0, -1])
    yield tuple(inside), now
    while len(inside) > 1:
        total, weight = game.total_of(inside)  # anew: nothing is left of a run that is out
        scores = sign * game.changed(total, weight, inside, leaving=True)
        best = _least_lost(now - scores, rate[inside])
        now = float(scores[best])
        del inside[best]
        yield tuple(inside), now


def _preferred(gain: NDArray[np.float64], rate: Floats) -> int:
    """Return the largest gain for the cost; a loss is worse the more it costs."""
    return int(np.argmax(np.where(gain > 0, gain / rate, gain * rate)))


def _least_lost(loss: NDArray[np.float64], rate: Floats) -> int:
    """Return the least loss for the cost that is saved; no loss is better the more it saves."""
    return int(np.argmin(np.where(loss > 0, loss / rate, loss * rate)))
