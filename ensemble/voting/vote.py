"""Votes of runs by any method, read in blocks of rows and combined in float64; numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ensemble.alignment.split import AlignedSplit, RunPredictions
from ensemble.voting.base import Options, PoolingRule, Vote, VoteInput, normalised
from ensemble.voting.by_attribute import join_marginals, marginal_splits
from ensemble.voting.pooling import geometric, hard, maximum, median, power_mean, rank_mean, soft, trimmed
from folds.errors import UsageError, unknown_name
from folds.utils.memmap import allocate_result, blocks, release_pages

_STREAMED_AT_ONCE = 1 << 17  # a block and its sums stay in the processor's cache


def mean_of_runs(
    runs: Sequence[RunPredictions], share: NDArray[np.float64], rows: int, accumulate: DTypeLike = np.float64
) -> NDArray[np.float32]:
    """The weighted mean of the runs' probabilities over the runs that are present on each row, normalised.

    Blocks of the maps are added where they lie, without a copy, so it is bound by memory. Runs are summed in the order
    given and divided once: with equal weights, of float32 files whose rows sum to 1, it is to the bit the mean in
    float64, rounded to float32.

    Parameters
    ----------
    share : (runs,) weights ≥ 0.
    accumulate : the type in which it is summed; float32 takes half the time and can differ in the last bits.

    Returns
    -------
    (rows, classes) float32; rows that no run with a weight has are NaN.
    """
    heard = [(run, weight) for run, weight in zip(runs, share.tolist(), strict=True) if weight > 0]
    if len({weight for _, weight in heard}) == 1:
        heard = [(run, 1.0) for run, _ in heard]
    classes = runs[0].classes
    size = min(rows, max(16, _STREAMED_AT_ONCE // classes))
    combined = allocate_result((rows, classes))
    sums, weighted = np.empty((2, size, classes), accumulate)
    for start in range(0, rows, size):
        stop = min(start + size, rows)
        total, scaled = sums[: stop - start], weighted[: stop - start]
        total[:] = 0
        whole, partial = 0.0, np.zeros(stop - start)
        for run, weight in heard:
            stored = run.raw_block(start, stop)
            block = run.probabilities(start, stop) if stored is None else stored
            np.add(
                total,
                block if weight == 1 else np.multiply(block, weight, out=scaled, casting="unsafe"),
                out=total,
                casting="unsafe",
            )
            if stored is not None:
                release_pages(stored)
            present = run.present(start, stop)
            if present is None:
                whole += weight
            else:
                partial += weight * present
        if partial.any():
            with np.errstate(invalid="ignore"):
                total /= (whole + partial)[:, None]
        else:
            total /= whole if whole else np.nan
        combined[start:stop] = normalised(total)
        release_pages(combined)
    return combined


__all__ = ["METHODS", "Options", "PoolingRule", "Vote", "VoteInput", "method_of", "vote"]

DEFAULTS = Options()
METHODS: dict[str, PoolingRule] = {
    "soft": PoolingRule(soft, "mean of probabilities"),
    "hard": PoolingRule(hard, "majority of votes", counts_votes=True),
    "weighted": PoolingRule(soft, "weighted mean of probabilities"),
    "geometric": PoolingRule(geometric, "geometric mean of probabilities"),
    "power": PoolingRule(partial(power_mean, exponent=DEFAULTS.power), "power mean of probabilities"),
    "median": PoolingRule(median, "median of probabilities"),
    "trimmed": PoolingRule(partial(trimmed, trim=DEFAULTS.trim), "trimmed mean of probabilities"),
    "max": PoolingRule(maximum, "largest probability", supports_weights=False),
    "rank": PoolingRule(rank_mean, "mean rank among the samples", needs_all_rows=True),
}
_NUMBERS_AT_ONCE = 1 << 20
_WHOLE_COLUMNS = 1 << 24  # numbers of whole columns held at once: 128 MiB


def method_of(name: str, options: Options = DEFAULTS) -> PoolingRule:
    """The method of that name, told its options; an unknown one is an error that offers the nearest."""
    if name not in METHODS:
        raise unknown_name("method", name, list(METHODS))
    if name == "power":
        return replace(METHODS[name], combine=partial(power_mean, exponent=options.power))
    if name == "trimmed":
        return replace(METHODS[name], combine=partial(trimmed, trim=options.trim))
    return METHODS[name]


def vote(
    split: AlignedSplit,
    method: str = "soft",
    weights: Mapping[str, float] | None = None,
    ranking: Sequence[str] | None = None,
    options: Options = DEFAULTS,
) -> Vote:
    """Combine the runs of a split; a run that is absent on a row leaves its weight to the others.

    The runs are summed in the order of their names, so the result is the same to the bit in whatever order files come.
    A row that one run alone has (with a weight) is that run's, whatever the mean; ranks are of all rows.

    Parameters
    ----------
    weights : run → weight ≥ 0, scaled to sum to 1; a run that is not named has none. Equal weights without it.
    ranking : run names, best first, for ties of hard votes; runs it lacks come last. The split's order without it.
    options : the exponent, the share that is trimmed; and whether attributes are voted on by themselves. Then the class
        is the one with the largest product of what its attributes' values have; in rows where every product is 0
        (medians can do that) the vote by class decides.

    Raises
    ------
    UsageError : an unknown method, one that needs probabilities where a run has hard labels only, an impossible weight,
        attributes that are not known.
    ValueError : a row has no run with a weight (see `Split.only`).
    """
    how = method_of(method, options)
    runs = sorted(split.runs, key=lambda run: run.name)
    without = [run.name for run in runs if run.hard]
    if without and not how.counts_votes:
        raise UsageError(
            f"--method {method} needs probabilities, and {', '.join(without)} has hard labels only",
            hint="--method hard, or leave it out with --run",
        )
    share = np.array([1.0 if weights is None else weights.get(run.name, 0.0) for run in runs])
    if not np.isfinite(share).all() or (share < 0).any():
        raise UsageError(
            f"weights must be finite numbers from 0 up, found {', '.join(map(str, share))}",
            hint="weights are scaled to sum to 1",
        )
    if options.by == "attribute":
        return _by_attribute(split, method, weights, ranking, options)
    order = [*(ranking or ()), *(run.name for run in split.runs)]
    ranks = np.array(sorted(range(len(runs)), key=lambda i: order.index(runs[i].name)), dtype=np.int64)
    is_hard = np.array([run.hard for run in runs])
    if how.needs_all_rows:
        return Vote(_whole(split, runs, share, how, is_hard, ranks))
    n, classes = len(split), len(split.classes)
    if how.combine is soft:
        mean = mean_of_runs(runs, share, n)
        unheard = np.concatenate([np.isnan(block[:, 0]) for block in blocks(mean)])
        if unheard.any():
            raise _uncovered_error(split, int(np.argmax(unheard)))
        return Vote(mean)
    combined = allocate_result((n, classes))
    ties = 0
    size = max(16, _NUMBERS_AT_ONCE // (len(runs) * classes))
    stacked = np.zeros((len(runs), min(size, n), classes))
    for start in range(0, n, size):
        stop = min(start + size, n)
        block_weights = _weights(split, runs, share, start, stop)
        for i, run in enumerate(runs):
            if not is_hard[i]:
                stacked[i, : stop - start] = run.probabilities(start, stop)
        block = stacked[:, : stop - start]
        votes = np.stack([run.votes(start, stop) for run in runs]) if how.counts_votes else None
        values, tied = how.combine(VoteInput(block, votes, block_weights, is_hard, ranks))
        if not how.counts_votes:
            alone = np.flatnonzero((block_weights > 0).sum(axis=0) == 1)
            values[alone] = block[block_weights[:, alone].argmax(axis=0), alone]
        ties += tied
        combined[start:stop] = normalised(values)
        release_pages(combined)
    return Vote(combined, ties)


def _weights(
    split: AlignedSplit, runs: Sequence[RunPredictions], share: NDArray[np.float64], start: int, stop: int
) -> NDArray[np.float64]:
    """(runs, stop − start) the weights of the runs that are present, scaled to sum to 1."""
    weights = share[:, None] * np.stack([run.models(start, stop) > 0 for run in runs])
    total = weights.sum(axis=0)
    if not (total > 0).all():
        raise _uncovered_error(split, start + int(np.argmin(total > 0)))
    return weights / total


def _uncovered_error(split: AlignedSplit, row: int) -> ValueError:
    return ValueError(f"no run with a weight predicts the sample '{split.rows.ids[row]}'")


def _whole(
    split: AlignedSplit,
    runs: Sequence[RunPredictions],
    share: NDArray[np.float64],
    how: PoolingRule,
    hard: NDArray[np.bool_],
    ranks: NDArray[np.int64],
) -> NDArray[np.float32]:
    """A method that compares all samples: whole columns, of as many classes at once as fit (of one at least: runs × n × 8 bytes).

    Rows that are 0 in every class are decided by the mean.
    """
    n, classes = len(split), len(split.classes)
    combined = allocate_result((n, classes))
    weights = _weights(split, runs, share, 0, n)
    width = min(classes, max(1, _WHOLE_COLUMNS // (len(runs) * n)))
    rows = max(16, _NUMBERS_AT_ONCE // classes)
    for first in range(0, classes, width):
        columns = slice(first, min(first + width, classes))
        stacked = np.empty((len(runs), n, columns.stop - columns.start))
        for i, run in enumerate(runs):
            for start in range(0, n, rows):
                stacked[i, start : start + rows] = run.probabilities(start, min(start + rows, n))[:, columns]
        combined[:, columns] = how.combine(VoteInput(stacked, None, weights, hard, ranks))[0]
    for start in range(0, n, rows):
        stop = min(start + rows, n)
        values = combined[start:stop].astype(np.float64)
        nothing = np.flatnonzero(values.max(axis=1) <= 0)
        for i, run in enumerate(runs) if len(nothing) else ():
            values[nothing] += weights[i, start + nothing, None] * run.probabilities(start, stop)[nothing]
        combined[start:stop] = normalised(values)
        release_pages(combined)
    return combined


def _by_attribute(
    split: AlignedSplit,
    method: str,
    weights: Mapping[str, float] | None,
    ranking: Sequence[str] | None,
    options: Options,
) -> Vote:
    apart = replace(options, by="class")
    parts = marginal_splits(split)
    votes = {attribute: vote(inside, method, weights, ranking, apart) for attribute, (inside, _) in parts.items()}
    joined = join_marginals(
        {name: result.probabilities for name, result in votes.items()},
        {name: grouping for name, (_, grouping) in parts.items()},
    )
    undecided = np.flatnonzero(joined.max(axis=1) == 0)
    if len(undecided):
        # Ranks are of all rows, so all are voted on, whatever is asked of them.
        joined[undecided] = vote(split, method, weights, ranking, apart).probabilities[undecided]
    return Vote(joined, sum(result.ties for result in votes.values()), len(undecided))
