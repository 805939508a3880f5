"""Means of the runs' probabilities, class by class: arithmetic, geometric, power, median, trimmed, and the largest;
numpy only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ensemble.voting.base import FLOOR, TIE, TIE_MARGIN, VoteInput

Combined = tuple[NDArray[np.float64], int]
_ROUNDING = 1e-9  # of weights that are added up


def soft(ballots: VoteInput) -> Combined:
    """The (weighted) arithmetic mean of probabilities."""
    return _mean(ballots.weights, ballots.probabilities), 0


def geometric(ballots: VoteInput) -> Combined:
    """The (weighted) geometric mean of the runs' probabilities, in log space, scaled so that the largest is 1.

    Each run's own folds are averaged arithmetically before. Probabilities below `FLOOR` count as `FLOOR`.
    """
    logs = _mean(ballots.weights, np.log(np.maximum(ballots.probabilities, FLOOR)))
    return np.exp(logs - logs.max(axis=1, keepdims=True)), 0


def power_mean(ballots: VoteInput, exponent: float) -> Combined:
    """The (weighted) power mean (Σ w·p^P)^(1/P) for P = `exponent`; at 0, its limit, the geometric mean.

    Above 1 it leans to the runs that are sure of a class, below 1 to those that are sure against it. From 0 down
    probabilities below `FLOOR` count as `FLOOR`. Scaled so that the largest of a row is 1.
    """
    if abs(exponent) < 1e-6:
        return geometric(ballots)
    values = np.maximum(ballots.probabilities, 0.0 if exponent > 0 else FLOOR)
    present = (ballots.weights > 0)[:, :, None]
    # Powers of the ratio to the largest (or, from 0 down, of the smallest to each) lie in 0..1, and roots are taken of
    # logs:
    # nothing overflows, and of a row not all vanishes.
    if exponent > 0:
        end = np.where(present, values, 0).max(axis=0)
        ratio = values / np.where(end > 0, end, 1)
    else:
        end = np.where(present, values, np.inf).min(axis=0)
        ratio = end / values
    with np.errstate(divide="ignore"):
        logs = np.log(end) + np.log(_mean(ballots.weights, np.minimum(ratio, 1) ** abs(exponent))) / exponent
    return np.exp(logs - logs.max(axis=1, keepdims=True)), 0


def median(ballots: VoteInput) -> Combined:
    """The (weighted) median of each class: half the weight is below, half above; midway where two values are.

    Medians of a row need not sum to 1 and are scaled to; where all of them are 0 the mean decides.
    """
    ordered, weights = _ordered(ballots)
    below = np.cumsum(weights, axis=0)
    low = (below >= 0.5 - _ROUNDING).argmax(axis=0)
    high = (below > 0.5 + _ROUNDING).argmax(axis=0)
    middle = (np.take_along_axis(ordered, low[None], 0)[0] + np.take_along_axis(ordered, high[None], 0)[0]) / 2
    return _or_mean(middle, ballots), 0


def trimmed(ballots: VoteInput, trim: float) -> Combined:
    """The (weighted) mean of each class without the lowest and the highest `trim` of the weight.

    A run on the border counts with the part of its weight that is inside. So with equal weights and a whole number of
    runs cut at either end it is the usual trimmed mean, at 0 the mean, and towards .5 the median. Rows whose values
    are all 0 are decided by the mean.
    """
    ordered, weights = _ordered(ballots)
    above = np.cumsum(weights, axis=0)
    inside = np.maximum(np.minimum(above, 1 - trim) - np.maximum(above - weights, trim), 0)
    inside[weights == 0] = 0
    return _or_mean((inside * ordered).sum(axis=0) / (1 - 2 * trim), ballots), 0


def maximum(ballots: VoteInput) -> Combined:
    """The largest probability that any run with a weight gives to each class; how large the weight is plays no part."""
    return np.where((ballots.weights > 0)[:, :, None], ballots.probabilities, 0).max(axis=0), 0


def _mean(weights: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    # Run after run: the result does not depend on how many rows are in the block.
    total = weights[0][:, None] * values[0]
    for weight, value in zip(weights[1:], values[1:], strict=True):
        total += weight[:, None] * value
    return total


def _ordered(ballots: VoteInput) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(runs, m, classes) probabilities from low to high, and the weight of each."""
    order = np.argsort(ballots.probabilities, axis=0, kind="stable")
    weights = np.broadcast_to(ballots.weights[:, :, None], order.shape)
    return np.take_along_axis(ballots.probabilities, order, 0), np.take_along_axis(weights, order, 0)


def _or_mean(values: NDArray[np.float64], ballots: VoteInput) -> NDArray[np.float64]:
    nothing = np.flatnonzero(values.max(axis=1) <= 0)
    if len(nothing):
        values[nothing] = _mean(ballots.weights[:, nothing], ballots.probabilities[:, nothing])
    return values


def hard(ballots: VoteInput) -> tuple[NDArray[np.float64], int]:
    """The share of the vote of each class: a run's weight, divided equally among its fold models.

    A tie goes to the class with the higher mean probability; where there is none or it is equal too, to the class for
    which the highest-ranked run among the tied ones has voted. So that the largest value is the decision, the winner of
    a tie then gets `TIE_MARGIN` (about 1e-6) more, and the row is normalised again.
    """
    votes = ballots.votes
    assert votes is not None  # noqa: S101 - `counts_votes` asks for them
    shares = np.einsum("rm,rmc->mc", ballots.weights, votes)
    best = shares >= shares.max(axis=1, keepdims=True) - TIE
    tied = np.flatnonzero(best.sum(axis=1) > 1)
    if len(tied):
        winners = _settle(ballots, votes, best, tied)
        shares[tied, winners] = shares[tied].max(axis=1) + TIE_MARGIN
    return shares, len(tied)


def _settle(
    ballots: VoteInput, votes: NDArray[np.float64], best: NDArray[np.bool_], tied: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The class that wins each tied row."""
    open_ = best[tied]
    if not ballots.hard.all():
        with_probability = ballots.weights[:, tied] * ~ballots.hard[:, None]
        means = np.einsum("rm,rmc->mc", with_probability, ballots.probabilities[:, tied])
        means[~open_] = -1
        # Where no run present has probabilities, all means are 0 and nothing is decided.
        open_ = open_ & (means >= means.max(axis=1, keepdims=True) - 1e-12)
    for run in ballots.ranking:
        cast = np.where(open_, votes[run, tied], 0)
        narrowed = (
            (cast > 0) & (cast >= cast.max(axis=1, keepdims=True) - TIE) & (ballots.weights[run, tied] > 0)[:, None]
        )
        open_ = np.where(narrowed.any(axis=1, keepdims=True), narrowed, open_)
    return open_.argmax(axis=1)


def rank_column(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rank vote on one class: the samples in the order of their mean rank, with the values that such ranks have.

    A run's rank of a sample is its place among the samples that the run has, from 0 to 1, ties sharing the middle. The
    (weighted) mean of these places is then read off the mean of the runs' sorted columns (quantile normalisation, as
    Bolstad et al. 2003, doi 10.1093/bioinformatics/19.2.185). So runs of different sharpness count alike in the order,
    while a class keeps the level that the runs give it: bare ranks would make all classes equally frequent. One run
    alone keeps its values.

    Parameters
    ----------
    values, weights : (runs, n); weights sum to 1 over the runs, 0 where one is absent.

    Returns
    -------
    (n,) values, in time n·log(n) a run.
    """
    n = values.shape[1]
    grid = (np.arange(n) + 0.5) / n
    place, level = np.zeros(n), np.zeros(n)
    for mine, weight in zip(values, weights, strict=True):
        present = weight > 0
        if not present.any():
            continue
        ordered, ranks = _ranked(mine[present])
        own = (np.arange(len(ordered)) + 0.5) / len(ordered)
        place[present] += weight[present] * (ranks / len(ordered))
        level += weight.mean() * (ordered if len(ordered) == n else np.interp(grid, own, ordered))
    return np.interp(place, grid, level)


def rank_mean(ballots: VoteInput) -> tuple[NDArray[np.float64], int]:
    """The rank vote on each class; the ballots must hold all rows. Rows need not sum to 1, and may be all 0."""
    return np.stack(
        [rank_column(ballots.probabilities[:, :, c], ballots.weights) for c in range(ballots.probabilities.shape[2])],
        axis=1,
    ), 0


def _ranked(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(m,) sorted, and each value's rank from .5 up, the mean of the ranks where values are equal."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    ends = np.append(starts[1:], len(ordered))
    ranks = np.empty(len(ordered))
    ranks[order] = np.repeat((starts + ends) / 2, ends - starts)
    return ordered, ranks
