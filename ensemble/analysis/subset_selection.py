"""Select runs within a maximum number or cost, inside the nested cross-validation (numpy only)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ensemble.analysis.cost import Costs
from ensemble.analysis.subset_scores import ADDITIVE, Floats, SubsetScorer, game_of
from ensemble.learning.combination import Calibration, Combination, Fitter
from ensemble.learning.stack import Stack
from folds.errors import UsageError
from folds.metrics.classification import METRICS, Metric

# Up to this number of runs, all subsets are scored. With more, runs are added or removed one by one.
ALL_SUBSETS = 8
_EQUAL = 1e-12
_SLOW_ROWS = 2_000_000  # subsets × samples


@dataclass(frozen=True)
class SubsetCandidate:
    """A subset of the runs: ascending run indices, score of the pooled prediction (greater is better) and cost."""

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
    """Return candidate subsets within the limits, scored in-sample (on the stack itself) by a plain pooling rule.

    Up to `ALL_SUBSETS` runs, all subsets are scored. With more: each run alone, the subsets that forward selection
    visits and, with `backward`, those that backward elimination from all runs visits. If costs differ, both searches
    are repeated with the gain per cost as the criterion. Log loss replaces a metric that is computed neither from
    counts nor per row if scoring would take minutes.

    Parameters
    ----------
    pool : pooling rule; soft voting replaces one that is not a sum over runs.
    """
    metric = _fast_metric(metric, stack)
    game = game_of(stack, metric, pool if pool in ADDITIVE else "soft")
    price = np.array([costs.of[name].total for name in stack.names])
    max_runs = stack.runs if max_members is None else max_members
    limit = np.inf if budget is None else budget * (1 + _EQUAL)

    def allowed(members: Sequence[int]) -> bool:
        return 0 < len(members) <= max_runs and float(price[list(members)].sum()) <= limit

    sign = 1.0 if metric.greater_is_better else -1.0
    scored = _all_subsets(game, sign) if stack.runs <= ALL_SUBSETS else _walks(game, sign, price, allowed, backward)
    found = {members: score for members, score in scored if allowed(members)}
    return [SubsetCandidate(members, score, float(price[list(members)].sum())) for members, score in found.items()]


Scored = Iterator[tuple[tuple[int, ...], float]]


def _all_subsets(game: SubsetScorer, sign: float) -> Scored:
    for number, score in enumerate(sign * game.scores(game.all_subsets())[0]):
        yield tuple(run for run in range(game.runs) if number >> run & 1), float(score)


def _walks(
    game: SubsetScorer, sign: float, price: Floats, allowed: Callable[[Sequence[int]], bool], backward: bool
) -> Scored:
    """Yield the subsets that forward selection and, with `backward`, backward elimination visit.

    The criterion is the gain and, if costs differ, in a second search the gain per cost.
    """
    empty = sign * float(game.scores(game.empty())[0, 0])
    for rate in [np.ones(game.runs), price] if np.ptp(price) > 0 else [np.ones(game.runs)]:
        yield from _forward(game, sign, empty, rate, allowed)
        if backward:
            yield from _backward(game, sign, rate)


def best_of(found: Sequence[SubsetCandidate], budget: float | None = None) -> SubsetCandidate:
    """Return the best candidate within a cost. Ties go to the cheaper, then the smaller, then the first by index."""
    within = [one for one in found if budget is None or one.cost <= budget * (1 + _EQUAL)]
    top = max(one.score for one in within)
    return min(
        (one for one in within if one.score >= top - _EQUAL), key=lambda one: (one.cost, len(one.members), one.members)
    )


def within_budget(fitter: Fitter, costs: Costs, max_members: int | None = None, budget: float | None = None) -> Fitter:
    """Return a fitter that uses only the best runs within the limits and gives the others weight 0.

    The subset is chosen by its pooled score on the samples used for fitting; then `fitter` is fitted on these runs
    alone. In `ensemble.learning.nested.nested_cv` neither the choice nor the fit uses the people that are scored.

    Parameters
    ----------
    max_members : maximum number of runs.
    budget : maximum total cost, in the unit of `costs`.

    Raises
    ------
    UsageError : no run is within the limits.
    """
    if max_members is not None and max_members < 1:
        raise UsageError(f"`max_members={max_members}`: expected 1 or more", hint="leave it out to use all members")
    cheapest = min(costs.of, key=lambda run: costs.of[run].total)
    least = costs.of[cheapest].total
    if budget is not None and budget < least:
        raise UsageError(
            f"`budget={budget:g}`: the cheapest run, {cheapest}, needs {least:g} {costs.unit} per image",
            hint=f"`budget={least:g}` or more",
        )

    fit = partial(_fit_within, fitter, costs, max_members, budget)
    words = [f"at most {max_members} runs"] if max_members is not None else []
    words += [f"at most {budget:g} {costs.unit}"] if budget is not None else []
    return replace(fitter, title=", ".join([fitter.title, *words]), fit=fit, is_fitted=True)


def _fit_within(
    fitter: Fitter,
    costs: Costs,
    max_members: int | None,
    budget: float | None,
    stack: Stack,
    metric: Metric,
    seed: int = 0,
) -> Combination:
    found = candidates(stack, metric, costs, _plain_pool(fitter), max_members, budget, backward=False)
    return fit_on(stack, best_of(found).members, fitter, metric, seed)


def fit_on(stack: Stack, members: Sequence[int], fitter: Fitter, metric: Metric, seed: int) -> Combination:
    """Fit on some of the runs; return a combination of all runs in which the others have weight 0."""
    if len(members) == stack.runs:
        return fitter.fit(stack, metric, seed)
    chosen = stack.select_runs(list(members))
    if chosen.present is not None:
        covered = np.flatnonzero(chosen.present.any(axis=0))
        chosen = chosen if len(covered) == len(chosen) else chosen.take(covered)
    return widened(fitter.fit(chosen, metric, seed), stack.names)


def widened(combination: Combination, names: Sequence[str]) -> Combination:
    """Return the same combination for more runs; the added runs have weight 0."""
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


def _fast_metric(metric: Metric, stack: Stack) -> Metric:
    """Return the metric for scoring candidates: log loss if `metric` is slow and there are many subsets."""
    if metric.is_additive:
        return metric
    subsets = 2**stack.runs if stack.runs <= ALL_SUBSETS else stack.runs**2
    return metric if subsets * len(stack) <= _SLOW_ROWS else METRICS["log_loss"]


def _plain_pool(fitter: Fitter) -> str:
    """Return the pooling rule that scores subsets: that of a plain fitter, otherwise soft voting."""
    return fitter.name if not fitter.is_fitted and fitter.name in ADDITIVE else "soft"


def _forward(
    game: SubsetScorer, sign: float, empty: float, rate: Floats, allowed: Callable[[Sequence[int]], bool]
) -> Scored:
    inside: list[int] = []
    now, (total, weight) = empty, game.total_of([])
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
        total, weight = game.total_of(inside)  # recomputed, so that no rounding error of removed runs remains
        scores = sign * game.changed(total, weight, inside, leaving=True)
        best = _smallest_loss(now - scores, rate[inside])
        now = float(scores[best])
        del inside[best]
        yield tuple(inside), now


def _preferred(gain: NDArray[np.float64], rate: Floats) -> int:
    """Return the index of the largest gain per cost; a loss counts more if the run costs more."""
    return int(np.argmax(np.where(gain > 0, gain / rate, gain * rate)))


def _smallest_loss(loss: NDArray[np.float64], rate: Floats) -> int:
    """Return the index of the smallest loss per saved cost; a gain counts more if the run costs more."""
    return int(np.argmin(np.where(loss > 0, loss / rate, loss * rate)))
