"""Shapley values of runs: how the score that all of them reach together divides among them; numpy only."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.analysis.subset_scores import Floats, SubsetScorer, game_of
from ensemble.learning.stack import Stack
from folds.metrics.classification import Metric
from folds.metrics.intervals import Interval
from folds.utils.files import derive_seed
from folds.utils.progress import Advance

# All subsets up to so many runs; beyond, orders in which they join are drawn.
EXACT = 10
# People are put into so many bags at random, and bags are drawn so often: a standard error is then known to 8 %.
_BAGS = 128
_DRAWS = 200
_SUBSETS_TO_DRAW = 5000
_NUMBERS_AT_ONCE = 1 << 24
_LEVEL_95 = 1.959964


@dataclass(frozen=True)
class ShapleyResult:
    """Shapley values: how the score that all runs reach together, above guessing, divides among them.

    A run's share is what it adds to those before it, averaged over all orders in which the runs can join (Shapley, 1953).

    Attributes
    ----------
    nobody, everybody : the score of guessing by the class frequencies, and of all runs.
    runs : one interval a run, positive where it helps, whichever way the metric goes; they sum to the difference of the two.
    exact : whether all subsets were looked at.
    error : standard error that comes of drawing orders, 0 where it is exact; the intervals contain it.
    """

    empty: float
    full: float
    runs: tuple[Interval, ...]
    exact: bool
    standard_error: float


def shapley(
    stack: Stack,
    metric: Metric,
    pool: str = "soft",
    weights: Floats | None = None,
    seed: int = 0,
    exact: int = EXACT,
    progress: Advance = lambda done, of: None,
) -> ShapleyResult:
    """Shapley values of the runs in a pool; exact up to `exact` runs (fewer where there are hundreds of classes).

    With more, orders are drawn: all cyclic shifts of a random one, in which each run is once at each place, so that what
    depends on the place alone cancels, and the reverse of each, whose errors go the other way. At least two such pairs.
    The intervals are ±1.96 standard errors: a bootstrap over people, and the spread over the pairs where orders are drawn.

    Parameters
    ----------
    pool : one of `ensemble.analysis.subset_scores.ADDITIVE`.
    weights : (runs,) of the runs; equal without it.

    Raises
    ------
    ValueError : the pool is no sum over runs, or the metric is neither made of counts nor of a value a row.
    """
    if metric.from_counts is None and metric.per_row is None:
        raise ValueError(f"{metric.name} needs all rows at once: shares of it are not computed")
    people, codes, units = _bags(stack, seed)
    game = game_of(stack, metric, pool, weights, codes, units)
    draws = np.ones((_DRAWS + 1, units))  # the sample itself, then people drawn again
    draws[1:] = np.random.default_rng(derive_seed(seed, "people")).multinomial(units, np.full(units, 1 / units), _DRAWS)
    empty = game.scores(game.empty(), draws)
    at_once = _NUMBERS_AT_ONCE // (units * game.width)  # subsets
    is_exact = stack.runs <= exact and 2**stack.runs <= max(4 * at_once, 16)
    if is_exact:
        values = game.scores(game.all_subsets(), draws)
        shares, full, error = _exact(values, stack.runs), float(values[0, -1]), 0.0
    else:
        shares, full, error = _drawn(game, empty, draws, at_once, seed, progress)
    if not metric.greater_is_better:
        shares = -shares
    half = _LEVEL_95 * np.sqrt(shares[1:].var(axis=0, ddof=1) + error**2)
    runs = tuple(
        Interval(float(s), float(s - h), float(s + h), people=people) for s, h in zip(shares[0], half, strict=True)
    )
    return ShapleyResult(float(empty[0, 0]), full, runs, is_exact, error)


def _bags(stack: Stack, seed: int) -> tuple[int, NDArray[np.int64], int]:
    """Return how many people there are, the bag of each row (n,), and how many bags: one a person, or `_BAGS` of many."""
    people, codes = np.unique(stack.persons, return_inverse=True)
    if len(people) <= _BAGS:
        return len(people), codes, len(people)
    return len(people), np.random.default_rng(derive_seed(seed, "bags")).permutation(len(people))[codes] % _BAGS, _BAGS


def _drawn(
    game: SubsetScorer, empty: Floats, draws: Floats, at_once: int, seed: int, progress: Advance
) -> tuple[Floats, float, float]:
    """Return Shapley values (draws, runs) of drawn orders, the score of all runs, and the standard error that drawing adds."""
    pairs = min(8, max(2, _SUBSETS_TO_DRAW // (2 * game.runs**2)))
    each, full = [], 0.0
    size = max(1, at_once // game.runs)
    for done, orders in enumerate(_orders(game.runs, pairs, seed)):
        progress(done, 2 * pairs)
        blocks = [game.scores(game.along(orders[at : at + size]), draws) for at in range(0, len(orders), size)]
        values = np.concatenate(blocks, axis=1)
        full = float(values[0, game.runs - 1])
        each.append(_marginals(values, empty, orders))
    progress(2 * pairs, 2 * pairs)
    both = (np.array(each[::2]) + np.array(each[1::2])) / 2
    # One error for all runs: a run's own, of so few pairs, would be known badly.
    return both.mean(axis=0), full, math.sqrt(both[:, 0].var(axis=0, ddof=1).mean() / pairs)


def _orders(runs: int, pairs: int, seed: int) -> Iterator[NDArray[np.int64]]:
    rng = np.random.default_rng(derive_seed(seed, "orders"))
    for _ in range(pairs):
        one = rng.permutation(runs)
        square = np.stack([np.roll(one, shift) for shift in range(runs)])
        yield square
        yield np.ascontiguousarray(square[:, ::-1])


def _marginals(values: Floats, empty: Floats, orders: NDArray[np.int64]) -> Floats:
    """Return (draws, runs) what each run adds to those before it, averaged over the orders."""
    along = values.reshape(len(values), *orders.shape)
    before = np.concatenate([np.broadcast_to(empty[:, :, None], (*along.shape[:2], 1)), along[:, :, :-1]], axis=2)
    shares = np.zeros((len(values), orders.shape[1]))
    for number, order in enumerate(orders):
        shares[:, order] += along[:, number] - before[:, number]
    return shares / len(orders)


def _exact(values: Floats, runs: int) -> Floats:
    """Return (draws, runs) Shapley values of the scores (draws, 2^runs) of all subsets.

    Differences come first: of a run that changes no score they are 0, and so is its share, to the bit.
    """
    numbers = np.arange(2**runs)
    size = np.array([int(number).bit_count() for number in numbers])
    joining = np.array([math.factorial(i) * math.factorial(runs - 1 - i) / math.factorial(runs) for i in range(runs)])
    shares = np.empty((len(values), runs))
    for run in range(runs):
        without = numbers[numbers >> run & 1 == 0]
        shares[:, run] = (values[:, without | 1 << run] - values[:, without]) @ joining[size[without]]
    return shares
