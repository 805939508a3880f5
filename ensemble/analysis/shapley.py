"""Shapley values of runs: each run's share of the combined score (numpy only)."""

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

# Up to this number of runs, all subsets are scored. With more, the orders in which runs join are sampled.
EXACT = 10
# People are put into _BAGS random bags, which are resampled _DRAWS times: this gives standard errors to within 8%.
_BAGS = 128
_DRAWS = 200
_SUBSETS_TO_DRAW = 5000
_NUMBERS_AT_ONCE = 1 << 24
_LEVEL_95 = 1.959964


@dataclass(frozen=True)
class ShapleyResult:
    """Shapley values: the gain of all runs over guessing, divided among the runs.

    The share of a run is what it adds to the runs before it, averaged over all orders in which the runs can join
    (Shapley, 1953).

    Attributes
    ----------
    empty, full : the score of guessing by the class frequencies, and the score of all runs.
    runs : one interval per run, positive if it helps, for every metric; the values sum to the difference of full and
        empty.
    exact : whether all subsets were scored.
    standard_error : standard error due to sampling orders, included in the intervals; 0 if exact.
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
    """Return the Shapley values of the runs in a pool; exact up to `exact` runs (fewer with hundreds of classes).

    With more runs, orders are sampled. One sample is all cyclic shifts of a random order, so that each run is once at
    each position and effects of the position cancel. Its pair is the reversed orders, whose errors have the opposite
    sign. At least two pairs are used. The intervals are ±1.96 standard errors, from a bootstrap over people and, if
    orders are sampled, the spread over the pairs.

    Parameters
    ----------
    pool : one of `ensemble.analysis.subset_scores.ADDITIVE`.
    weights : (runs,) weights of the runs; equal by default.

    Raises
    ------
    ValueError : the pool is not a sum over runs, or the metric does not follow from sums over rows.
    """
    if not metric.is_additive:
        raise ValueError(f"{metric.name} needs all rows at once: its Shapley values are not computed")
    people, codes, units = _bags(stack, seed)
    game = game_of(stack, metric, pool, weights, codes, units)
    draws = np.ones((_DRAWS + 1, units))  # the sample itself, then resampled people
    draws[1:] = np.random.default_rng(derive_seed(seed, "people")).multinomial(units, np.full(units, 1 / units), _DRAWS)
    empty = game.scores(game.empty(), draws)
    at_once = _NUMBERS_AT_ONCE // (units * game.width)  # subsets
    is_exact = stack.runs <= exact and 2**stack.runs <= max(4 * at_once, 16)
    if is_exact:
        values = game.scores(game.all_subsets(), draws)
        shares, full, error = _exact(values, stack.runs), float(values[0, -1]), 0.0
    else:
        shares, full, error = _sampled(game, empty, draws, at_once, seed, progress)
    if not metric.greater_is_better:
        shares = -shares
    half = _LEVEL_95 * np.sqrt(shares[1:].var(axis=0, ddof=1) + error**2)
    runs = tuple(
        Interval(float(s), float(s - h), float(s + h), people=people) for s, h in zip(shares[0], half, strict=True)
    )
    return ShapleyResult(float(empty[0, 0]), full, runs, is_exact, error)


def _bags(stack: Stack, seed: int) -> tuple[int, NDArray[np.int64], int]:
    """Return the number of people, the bag of each row (n,) and the number of bags: one per person, at most `_BAGS`."""
    people, codes = np.unique(stack.persons, return_inverse=True)
    if len(people) <= _BAGS:
        return len(people), codes, len(people)
    return len(people), np.random.default_rng(derive_seed(seed, "bags")).permutation(len(people))[codes] % _BAGS, _BAGS


def _sampled(
    game: SubsetScorer, empty: Floats, draws: Floats, at_once: int, seed: int, progress: Advance
) -> tuple[Floats, float, float]:
    """Return Shapley values (draws, runs) from sampled orders, the score of all runs, and the sampling error."""
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
    # One standard error for all runs: that of a single run would be imprecise with so few pairs.
    return both.mean(axis=0), full, math.sqrt(both[:, 0].var(axis=0, ddof=1).mean() / pairs)


def _orders(runs: int, pairs: int, seed: int) -> Iterator[NDArray[np.int64]]:
    rng = np.random.default_rng(derive_seed(seed, "orders"))
    for _ in range(pairs):
        one = rng.permutation(runs)
        square = np.stack([np.roll(one, shift) for shift in range(runs)])
        yield square
        yield np.ascontiguousarray(square[:, ::-1])


def _marginals(values: Floats, empty: Floats, orders: NDArray[np.int64]) -> Floats:
    """Return (draws, runs) the gain of each run over the runs before it, averaged over the orders."""
    along = values.reshape(len(values), *orders.shape)
    before = np.concatenate([np.broadcast_to(empty[:, :, None], (*along.shape[:2], 1)), along[:, :, :-1]], axis=2)
    shares = np.zeros((len(values), orders.shape[1]))
    for number, order in enumerate(orders):
        shares[:, order] += along[:, number] - before[:, number]
    return shares / len(orders)


def _exact(values: Floats, runs: int) -> Floats:
    """Return (draws, runs) Shapley values of the scores (draws, 2^runs) of all subsets.

    Differences are taken before sums, so that a run that changes no score has a share of exactly 0.
    """
    numbers = np.arange(2**runs)
    size = np.array([int(number).bit_count() for number in numbers])
    joining = np.array([math.factorial(i) * math.factorial(runs - 1 - i) / math.factorial(runs) for i in range(runs)])
    shares = np.empty((len(values), runs))
    for run in range(runs):
        without = numbers[numbers >> run & 1 == 0]
        shares[:, run] = (values[:, without | 1 << run] - values[:, without]) @ joining[size[without]]
    return shares
