"""What each run of a combination is worth: without it, and as its share of what all of them reach together; numpy only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.coalitions import ADDITIVE, Floats, game_of
from ensemble.combination import Combination
from ensemble.diversity import Diversity, diversity
from ensemble.evaluation import Nested, Progress, nested
from ensemble.stack import Stack
from ensemble.voting import METHODS
from folds.files import derive_seed
from folds.scores import Difference, Interval, Metric, difference_over_people, interval_over_people

# All subsets up to so many runs; beyond, orders in which they join are drawn.
EXACT = 10
# People are put into so many bags at random, and bags are drawn so often: a standard error is then known to 7 %.
_BAGS = 256
_DRAWS = 200
_SUBSETS_TO_DRAW = 5000
_LEVEL_95 = 1.959964


@dataclass(frozen=True)
class Shares:
    """Shapley values: how the score that all runs reach together, above guessing, divides among them.

    A run's share is what it adds to those before it, averaged over all orders in which the runs can join (Shapley, 1953).

    Attributes
    ----------
    nobody, everybody : the score of guessing by the class frequencies, and of all runs.
    runs : one interval a run, positive where it helps, whichever way the metric goes; they sum to the difference of the two.
    exact : whether all subsets were looked at.
    error : standard error that comes of drawing orders, 0 where it is exact; the intervals contain it.
    """

    nobody: float
    everybody: float
    runs: tuple[Interval, ...]
    exact: bool
    error: float


@dataclass(frozen=True)
class MemberWorth:
    """One run of a combination.

    Attributes
    ----------
    score : of the run alone, on the rows that it has.
    weight : its share of the vote, 0 to 1.
    without : what the combination has more than the same without it; positive where the run helps.
    share : its Shapley value; None where the pool or the metric does not allow it.
    closest : the run whose errors are most like its own, and their correlation.
    """

    name: str
    score: Interval
    weight: float
    without: Difference
    share: Interval | None
    closest: tuple[str, float] | None

    def as_json(self) -> dict[str, Any]:
        """For --json and records."""
        gained = self.without.difference
        return {
            "run": self.name,
            "score": _interval(self.score),
            "weight": self.weight,
            "without": _interval(gained) | {"chance": self.without.chance},
            "shapley": None if self.share is None else _interval(self.share),
            "closest": None if self.closest is None else {"run": self.closest[0], "correlation": self.closest[1]},
        }


@dataclass(frozen=True)
class Worth:
    """What each run is worth: `members` in the order of the stack.

    `refitted` : whether what is fitted was fitted again without each run.
    """

    metric: Metric
    members: tuple[MemberWorth, ...]
    shares: Shares | None
    diversity: Diversity
    refitted: bool = False

    def as_json(self) -> dict[str, Any]:
        """For --json and records."""
        shares = self.shares
        return {
            "metric": self.metric.name,
            "members": [member.as_json() for member in self.members],
            "refitted": self.refitted,
            "shapley": None
            if shares is None
            else {"nobody": shares.nobody, "everybody": shares.everybody, "exact": shares.exact, "sampling_error": shares.error},
            "diversity": self.diversity.as_json(),
        }


def worth(stack: Stack, fitted: Nested, metric: Metric, refit: bool = False, seed: int = 0, progress: Progress = lambda done, of: None) -> Worth:
    """What each run of a fitted (or plain) combination is worth.

    Shares are of the plain pool of `fitted`, or of the soft one where that is no sum over runs: what a run brings, whatever is fitted.

    Parameters
    ----------
    fitted : as `ensemble.evaluation.nested` gives it.
    refit : fit again without each run, instead of leaving its weight to the others.
    """
    pool = fitted.combination.pool if fitted.combination.pool in ADDITIVE and fitted.combination.stacked is None else "soft"
    shares = None
    if metric.of_counts is not None or metric.of_rows is not None:
        shares = shapley(stack, metric, pool, seed=seed, progress=progress)
    alike = diversity(stack)
    without = leave_one_out(stack, fitted, metric, refit, seed)
    weights = fitted.combination.shares
    each: Sequence[Interval | None] = [None] * stack.runs if shares is None else shares.runs
    members = tuple(
        MemberWorth(
            name, _alone(stack, run, metric), float(weights[run]), without[run], None if shares is None else shares.runs[run], alike.closest(run)
        )
        for run, (name, share) in enumerate(zip(stack.names, each, strict=True))
    )
    return Worth(metric, members, shares, alike, refit and fitted.fitter.learns)


def leave_one_out(stack: Stack, fitted: Nested, metric: Metric, refit: bool = False, seed: int = 0) -> list[Difference]:
    """For each run, what the honest predictions of a combination have more than the same without it, paired over people.

    Positive where the run helps, whichever way the metric goes: where less is better, `Difference.second` is the score without it, and
    `Difference.first` otherwise. Rows that no other run predicts are guessed by the class frequencies of what was fitted on.

    Parameters
    ----------
    refit : fit again without the run (as many fits as there are runs × parts); otherwise its weight goes to the others.
    """
    found = []
    for run in range(stack.runs):
        again = refit and fitted.fitter.learns
        first, second = _refitted(stack, fitted, metric, run, seed) if again else _dropped(stack, fitted, run), fitted.honest
        if not metric.greater_is_better:
            first, second = second, first
        found.append(difference_over_people(metric, stack.labels, first, second, stack.persons))
    return found


def shapley(
    stack: Stack,
    metric: Metric,
    pool: str = "soft",
    weights: Floats | None = None,
    seed: int = 0,
    exact: int = EXACT,
    progress: Progress = lambda done, of: None,
) -> Shares:
    """Shapley values of the runs in a pool; exact up to `exact` runs.

    With more, orders are drawn: all cyclic shifts of a random one, in which each run is once at each place, so that what
    depends on the place alone cancels, and the reverse of each, whose errors go the other way. At least two such pairs.
    The intervals are ±1.96 standard errors: a bootstrap over people, and the spread over the pairs where orders are drawn.

    Parameters
    ----------
    pool : one of `ensemble.coalitions.ADDITIVE`.
    weights : (runs,) of the runs; equal without it.

    Raises
    ------
    ValueError : the pool is no sum over runs, or the metric is neither made of counts nor of a value a row.
    """
    if metric.of_counts is None and metric.of_rows is None:
        raise ValueError(f"{metric.name} needs all rows at once: shares of it are not computed")
    people, codes = np.unique(stack.persons, return_inverse=True)
    units = len(people)
    if units > _BAGS:
        codes, units = np.random.default_rng(derive_seed(seed, "bags")).permutation(units)[codes] % _BAGS, _BAGS
    game = game_of(stack, metric, pool, weights, codes, units)
    draws = np.ones((_DRAWS + 1, units))  # the sample itself, then people drawn again
    draws[1:] = np.random.default_rng(derive_seed(seed, "people")).multinomial(units, np.full(units, 1 / units), _DRAWS)
    nobody = game.scores(game.nobody(), draws)
    if stack.runs <= exact:
        values = game.scores(game.all_subsets(), draws)
        shares, everybody, error = values @ _weights_of_subsets(stack.runs), values[0, -1], 0.0
    else:
        pairs = min(8, max(2, _SUBSETS_TO_DRAW // (2 * stack.runs**2)))
        each, everybody = [], 0.0
        for done, orders in enumerate(_orders(stack.runs, pairs, seed)):
            progress(done, 2 * pairs)
            values = game.scores(game.along(orders), draws)
            everybody = float(values[0, stack.runs - 1])
            each.append(_marginals(values, nobody, orders))
        progress(2 * pairs, 2 * pairs)
        both = (np.array(each[::2]) + np.array(each[1::2])) / 2
        shares = both.mean(axis=0)
        # One error for all runs: a run's own, of so few pairs, would be known badly.
        error = math.sqrt(both[:, 0].var(axis=0, ddof=1).mean() / pairs)
    if not metric.greater_is_better:
        shares = -shares
    half = _LEVEL_95 * np.sqrt(shares[1:].var(axis=0, ddof=1) + error**2)
    runs = tuple(Interval(float(s), float(s - h), float(s + h), people=len(people)) for s, h in zip(shares[0], half, strict=True))
    return Shares(float(nobody[0, 0]), float(everybody), runs, stack.runs <= exact, error)


def _orders(runs: int, pairs: int, seed: int) -> Iterator[NDArray[np.int64]]:
    rng = np.random.default_rng(derive_seed(seed, "orders"))
    for _ in range(pairs):
        one = rng.permutation(runs)
        square = np.stack([np.roll(one, shift) for shift in range(runs)])
        yield square
        yield np.ascontiguousarray(square[:, ::-1])


def _marginals(values: Floats, nobody: Floats, orders: NDArray[np.int64]) -> Floats:
    """(draws, runs) what each run adds to those before it, averaged over the orders."""
    along = values.reshape(len(values), *orders.shape)
    before = np.concatenate([np.broadcast_to(nobody[:, :, None], (*along.shape[:2], 1)), along[:, :, :-1]], axis=2)
    shares = np.zeros((len(values), orders.shape[1]))
    for number, order in enumerate(orders):
        shares[:, order] += along[:, number] - before[:, number]
    return shares / len(orders)


def _weights_of_subsets(runs: int) -> Floats:
    """(2^runs, runs): what the score of each subset counts in each run's Shapley value."""
    numbers = np.arange(2**runs)
    inside = (numbers[:, None] >> np.arange(runs)) & 1
    size = inside.sum(axis=1)
    factorials = np.array([math.factorial(i) for i in range(runs + 1)], float)
    joining = factorials[np.maximum(size - 1, 0)] * factorials[runs - size] / factorials[runs]
    staying = factorials[size] * factorials[np.maximum(runs - size - 1, 0)] / factorials[runs]
    return np.where(inside == 1, joining[:, None], -staying[:, None])


def _alone(stack: Stack, run: int, metric: Metric) -> Interval:
    there = slice(None) if stack.present is None else np.flatnonzero(stack.present[run])
    return interval_over_people(metric, stack.labels[there], stack.probabilities[run, there], stack.persons[there])


def _guess(labels: NDArray[np.int64], classes: int) -> Floats:
    return np.bincount(labels, minlength=classes) / max(len(labels), 1)


def _dropped(stack: Stack, fitted: Nested, run: int) -> NDArray[np.float32]:
    """(n, classes) honest predictions with the weight of a run left to the others."""
    if not fitted.parts:
        return combine_without(stack, fitted.combination, run, _guess(stack.labels, stack.classes))
    out = np.empty_like(fitted.honest)
    for part, combination in zip(np.unique(stack.nests), fitted.parts, strict=True):
        inside = np.flatnonzero(stack.nests == part)
        guess = _guess(stack.labels[stack.nests != part], stack.classes)
        out[inside] = combine_without(stack.take(inside), combination, run, guess)
    return out


def combine_without(stack: Stack, combination: Combination, run: int, guess: Floats) -> NDArray[np.float32]:
    """(n, classes) a combination in which a run is absent everywhere; `guess` (classes,) on rows that no other predicts."""
    out = np.empty((len(stack), stack.classes), np.float32)
    pool = METHODS[combination.pool]
    for part, ballots in stack.ballots(combination.stacked is None and pool.counts_votes, pool.whole):
        for values in (ballots.probabilities, ballots.weights, ballots.votes):
            if values is not None:
                values[run] = 0
        heard = ballots.weights.sum(axis=0) > 0
        with np.errstate(invalid="ignore", divide="ignore"):
            values = combination.apply(ballots)[0]
        out[part] = np.where(heard[:, None], values, guess)
    return out


def _refitted(stack: Stack, fitted: Nested, metric: Metric, run: int, seed: int) -> NDArray[np.float32]:
    """(n, classes) honest predictions of what is fitted without a run."""
    out = np.tile(_guess(stack.labels, stack.classes).astype(np.float32), (len(stack), 1))
    others = [other for other in range(stack.runs) if other != run]
    if not others:
        return out
    rest = stack.only(others)
    covered = np.arange(len(stack)) if rest.present is None else np.flatnonzero(rest.present.any(axis=0))
    rest = rest if len(covered) == len(stack) else rest.take(covered)
    out[covered] = nested(rest, fitted.fitter, metric, seed).honest
    return out


def _interval(one: Interval) -> dict[str, float]:
    return {"score": one.score, "low": one.low, "high": one.high}
