"""Pool the runs' predictions: arithmetic, geometric, power, trimmed and rank means, median, maximum, majority vote."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ensemble.voting.base import FLOOR, TIE, TIE_MARGIN, VoteInput

Combined = tuple[NDArray[np.float64], int]
_ROUNDING = 1e-9  # of sums of weights


def soft(inputs: VoteInput) -> Combined:
    """Return the (weighted) arithmetic mean of probabilities."""
    return weighted_mean(inputs.weights, inputs.probabilities), 0


def geometric(inputs: VoteInput) -> Combined:
    """Return the (weighted) geometric mean of the runs' probabilities, scaled so that the largest of a row is 1.

    The folds of a run are averaged arithmetically before. Probabilities below `FLOOR` count as `FLOOR`.
    """
    logs = weighted_mean(inputs.weights, np.log(np.maximum(inputs.probabilities, FLOOR)))
    return np.exp(logs - logs.max(axis=1, keepdims=True)), 0


def power_mean(inputs: VoteInput, exponent: float) -> Combined:
    """Return the (weighted) power mean (Σ w·p^P)^(1/P) for P = `exponent`; for 0 its limit, the geometric mean.

    An exponent above 1 gives runs with high probabilities for a class more influence, one below 1 runs with low
    probabilities. For exponents ≤ 0, probabilities below `FLOOR` count as `FLOOR`. The largest value of a row is 1.
    """
    if abs(exponent) < 1e-6:
        return geometric(inputs)
    values = np.maximum(inputs.probabilities, 0.0 if exponent > 0 else FLOOR)
    present = (inputs.weights > 0)[:, :, None]
    # Powers of the ratio of each value to the largest (for exponents ≤ 0, of the smallest to each value) are in 0..1,
    # and roots are computed from logs: nothing overflows, and no row becomes 0.
    if exponent > 0:
        end = np.where(present, values, 0).max(axis=0)
        ratio = values / np.where(end > 0, end, 1)
    else:
        end = np.where(present, values, np.inf).min(axis=0)
        ratio = end / values
    with np.errstate(divide="ignore"):
        logs = np.log(end) + np.log(weighted_mean(inputs.weights, np.minimum(ratio, 1) ** abs(exponent))) / exponent
    return np.exp(logs - logs.max(axis=1, keepdims=True)), 0


def median(inputs: VoteInput) -> Combined:
    """Return the (weighted) median of each class: half the weight is below, half above; the mean of two middle values.

    The medians of a row need not sum to 1. In rows where all medians are 0, the mean is returned.
    """
    return _or_mean(weighted_median(inputs), inputs), 0


def weighted_median(inputs: VoteInput) -> NDArray[np.float64]:
    """Return (m, columns) the (weighted) median of each column."""
    ordered, weights = _ordered(inputs)
    below = np.cumsum(weights, axis=0)
    low = (below >= 0.5 - _ROUNDING).argmax(axis=0)
    high = (below > 0.5 + _ROUNDING).argmax(axis=0)
    middle: NDArray[np.float64] = np.take_along_axis(ordered, low[None], 0)[0]
    return (middle + np.take_along_axis(ordered, high[None], 0)[0]) / 2


def trimmed(inputs: VoteInput, trim: float) -> Combined:
    """Return the (weighted) mean of each class without the lowest and the highest `trim` of the weight.

    A run at the border counts with the part of its weight that is inside. With equal weights and a whole number of runs
    removed at each end, this is the usual trimmed mean; for 0 the mean, close to .5 the median. In rows where all
    values are 0, the mean is returned.
    """
    return _or_mean(weighted_trimmed(inputs, trim), inputs), 0


def weighted_trimmed(inputs: VoteInput, trim: float) -> NDArray[np.float64]:
    """Return (m, columns) the (weighted) mean without the lowest and the highest `trim` of the weight."""
    ordered, weights = _ordered(inputs)
    above = np.cumsum(weights, axis=0)
    inside = np.maximum(np.minimum(above, 1 - trim) - np.maximum(above - weights, trim), 0)
    inside[weights == 0] = 0
    return (inside * ordered).sum(axis=0) / (1 - 2 * trim)


def maximum(inputs: VoteInput) -> Combined:
    """Return the largest probability of each class over the runs with a weight above 0; its size has no effect."""
    return np.where((inputs.weights > 0)[:, :, None], inputs.probabilities, 0).max(axis=0), 0


def weighted_mean(weights: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (m, columns) Σ over runs of weights (runs, m) · values (runs, m, columns)."""
    # One run after another, so that the result does not depend on the number of rows in the block.
    total = weights[0][:, None] * values[0]
    for weight, value in zip(weights[1:], values[1:], strict=True):
        total += weight[:, None] * value
    return total


def _ordered(inputs: VoteInput) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (runs, m, classes) the probabilities in ascending order over the runs, and the weight of each."""
    order = np.argsort(inputs.probabilities, axis=0, kind="stable")
    weights = np.broadcast_to(inputs.weights[:, :, None], order.shape)
    return np.take_along_axis(inputs.probabilities, order, 0), np.take_along_axis(weights, order, 0)


def _or_mean(values: NDArray[np.float64], inputs: VoteInput) -> NDArray[np.float64]:
    empty = np.flatnonzero(values.max(axis=1) <= 0)
    if len(empty):
        values[empty] = weighted_mean(inputs.weights[:, empty], inputs.probabilities[:, empty])
    return values


def hard(inputs: VoteInput) -> tuple[NDArray[np.float64], int]:
    """Return the share of votes of each class, and the number of ties.

    The weight of a run is divided equally among its fold models. A tie goes to the tied class with the highest mean
    probability. If no run has probabilities, or the means are equal too, it goes to the tied class that the
    highest-ranked run has voted for. The winner of a tie gets `TIE_MARGIN` (about 1e-6) more, so that it is the largest
    value.
    """
    votes = inputs.votes
    assert votes is not None  # noqa: S101 - `counts_votes` requests them
    shares = np.einsum("rm,rmc->mc", inputs.weights, votes)
    best = shares >= shares.max(axis=1, keepdims=True) - TIE
    tied = np.flatnonzero(best.sum(axis=1) > 1)
    if len(tied):
        winners = _settle(inputs, votes, best, tied)
        shares[tied, winners] = shares[tied].max(axis=1) + TIE_MARGIN
    return shares, len(tied)


def grades(inputs: VoteInput) -> tuple[NDArray[np.float64], int]:
    """Return for ordered classes the depth of each, whose largest is the median of the votes, and the number of ties.

    The depth of a grade is the smaller of the shares of votes for it or a lower one, and for it or a higher one. It is
    largest at the weighted median, and the whole where all agree. If half of the votes are on either side of a gap, the
    grades from the one to the other are tied; a tie is decided as in `hard`.
    """
    votes = inputs.votes
    assert votes is not None  # noqa: S101 - `counts_votes` requests them
    shares = np.einsum("rm,rmc->mc", inputs.weights, votes)
    up = np.cumsum(shares, axis=1)
    depth = np.minimum(up, up[:, -1:] - up + shares)
    best = depth >= depth.max(axis=1, keepdims=True) - TIE
    tied = np.flatnonzero(best.sum(axis=1) > 1)
    if len(tied):
        winners = _settle(inputs, votes, best, tied)
        depth[tied, winners] = depth[tied].max(axis=1) + TIE_MARGIN
    return depth, len(tied)


def _settle(
    inputs: VoteInput, votes: NDArray[np.float64], best: NDArray[np.bool_], tied: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return (ties,) the class that wins each tied row."""
    candidates = best[tied]
    if not inputs.hard.all():
        with_probability = inputs.weights[:, tied] * ~inputs.hard[:, None]
        means = np.einsum("rm,rmc->mc", with_probability, inputs.probabilities[:, tied])
        means[~candidates] = -1
        # If no run on a row has probabilities, all means are 0 and the tie remains.
        candidates = candidates & (means >= means.max(axis=1, keepdims=True) - 1e-12)
    for run in inputs.ranking:
        votes_of_run = np.where(candidates, votes[run, tied], 0)
        narrowed = (
            (votes_of_run > 0)
            & (votes_of_run >= votes_of_run.max(axis=1, keepdims=True) - TIE)
            & (inputs.weights[run, tied] > 0)[:, None]
        )
        candidates = np.where(narrowed.any(axis=1, keepdims=True), narrowed, candidates)
    return candidates.argmax(axis=1)


def rank_column(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rank mean of one class: samples ordered by mean rank, with the mean quantiles of the runs as values.

    The rank of a sample is its position among the run's samples, from 0 to 1; ties share the mean. The (weighted) mean
    rank is then mapped to a value by the mean of the runs' sorted columns (quantile normalization, Bolstad et al. 2003,
    doi 10.1093/bioinformatics/19.2.185). So runs of different sharpness have the same influence on the order, and a
    class keeps its mean probability; plain ranks would make all classes equally frequent. A single run keeps its
    values. Time: n·log(n) for each run.

    Parameters
    ----------
    values, weights : (runs, n); weights sum to 1 over the runs, 0 where a run is absent.

    Returns
    -------
    (n,) values.
    """
    n = values.shape[1]
    grid = (np.arange(n) + 0.5) / n
    place, level = np.zeros(n), np.zeros(n)
    for own_values, weight in zip(values, weights, strict=True):
        present = weight > 0
        if not present.any():
            continue
        ordered, ranks = _ranked(own_values[present])
        own_grid = (np.arange(len(ordered)) + 0.5) / len(ordered)
        place[present] += weight[present] * (ranks / len(ordered))
        level += weight.mean() * (ordered if len(ordered) == n else np.interp(grid, own_grid, ordered))
    return np.interp(place, grid, level)


def rank_mean(inputs: VoteInput) -> tuple[NDArray[np.float64], int]:
    """Return the rank mean of each class; `inputs` must hold all rows. Rows need not sum to 1, and may be all 0."""
    return np.stack(
        [rank_column(inputs.probabilities[:, :, c], inputs.weights) for c in range(inputs.probabilities.shape[2])],
        axis=1,
    ), 0


def _ranked(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (m,) the sorted values, and the rank of each value, starting at .5; equal values share the mean rank."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    ends = np.append(starts[1:], len(ordered))
    ranks = np.empty(len(ordered))
    ranks[order] = np.repeat((starts + ends) / 2, ends - starts)
    return ordered, ranks
