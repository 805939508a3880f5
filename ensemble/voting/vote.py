"""Votes of runs by any method, read in blocks of rows and combined in float64; numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ensemble.alignment.split import AlignedSplit, RunPredictions
from ensemble.voting.base import Options, PoolingRule, Vote, VoteInput, normalised
from ensemble.voting.blocks import rank_order, row_blocks, vote_inputs
from ensemble.voting.by_attribute import join_marginals, marginal_splits
from ensemble.voting.pooling import geometric, hard, maximum, median, power_mean, rank_mean, soft, trimmed
from folds.errors import UsageError, unknown_name
from folds.utils.memmap import allocate_result, blocks, release_pages

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
_WHOLE_COLUMNS = 1 << 24  # numbers of whole columns held at once: 128 MiB
_STREAMED_AT_ONCE = 1 << 17  # numbers: a block and its sums stay in the processor's cache


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
    _check_probabilities(method, how, runs)
    share = _share_of(runs, weights)
    if options.by == "attribute":
        return _by_attribute(split, method, weights, ranking, options)
    if how.combine is soft:
        return Vote(_mean(split, runs, share))
    ranks = rank_order([run.name for run in runs], ranking or (), [run.name for run in split.runs])
    return (_by_columns if how.needs_all_rows else _by_blocks)(split, runs, share, how, ranks)


def _check_probabilities(method: str, how: PoolingRule, runs: Sequence[RunPredictions]) -> None:
    without = [run.name for run in runs if run.hard]
    if without and not how.counts_votes:
        raise UsageError(
            f"`method={method}` needs probabilities, and {', '.join(without)} has hard labels only",
            hint="`method=hard`, or leave it out with `runs`",
        )


def _share_of(runs: Sequence[RunPredictions], weights: Mapping[str, float] | None) -> NDArray[np.float64]:
    """Return (runs,) the weight of each run, not scaled."""
    share = np.array([1.0 if weights is None else weights.get(run.name, 0.0) for run in runs])
    if not np.isfinite(share).all() or (share < 0).any():
        raise UsageError(
            f"weights must be finite numbers from 0 up, found {', '.join(map(str, share))}",
            hint="weights are scaled to sum to 1",
        )
    return share


def _scaled(split: AlignedSplit, share: NDArray[np.float64], present: NDArray, start: int) -> NDArray[np.float64]:
    """Return (runs, m) the weights of the runs that are `present` (runs, m) on rows from `start` on, scaled to sum to
    1.
    """
    weights = share[:, None] * present
    total = weights.sum(axis=0)
    if not (total > 0).all():
        raise _uncovered_error(split, start + int(np.argmin(total > 0)))
    return weights / total


def _uncovered_error(split: AlignedSplit, row: int) -> ValueError:
    return ValueError(f"no run with a weight predicts the sample '{split.rows.ids[row]}'")


def _mean(split: AlignedSplit, runs: Sequence[RunPredictions], share: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return (n, classes) the arithmetic mean, added up where the files lie."""
    mean = mean_of_runs(runs, share, len(split))
    uncovered = np.concatenate([np.isnan(block[:, 0]) for block in blocks(mean)])
    if uncovered.any():
        raise _uncovered_error(split, int(np.argmax(uncovered)))
    return mean


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
    active = [(run, weight) for run, weight in zip(runs, share.tolist(), strict=True) if weight > 0]
    if len({weight for _, weight in active}) == 1:
        active = [(run, 1.0) for run, _ in active]
    classes = runs[0].classes
    combined = allocate_result((rows, classes))
    sums, scaled = np.empty((2, min(rows, max(16, _STREAMED_AT_ONCE // classes)), classes), accumulate)
    for part in row_blocks(rows, classes, numbers=_STREAMED_AT_ONCE):
        size = part.stop - part.start
        total = _weighted_sum(active, part, sums[:size], scaled[:size])
        combined[part] = normalised(total)
        release_pages(combined)
    return combined


def _weighted_sum(
    active: Sequence[tuple[RunPredictions, float]], part: slice, total: NDArray, scaled: NDArray
) -> NDArray[np.floating]:
    """Return the weighted mean of the rows `part`, in `total` (m, classes); `scaled` is as large and is written
    over.
    """
    total[:] = 0
    everywhere, somewhere = 0.0, np.zeros(len(total))  # the weights of the runs that have all rows, and of the others
    for run, weight in active:
        stored = run.raw_block(part.start, part.stop)
        block = run.probabilities(part.start, part.stop) if stored is None else stored
        weighted = block if weight == 1 else np.multiply(block, weight, out=scaled, casting="unsafe")
        np.add(total, weighted, out=total, casting="unsafe")
        if stored is not None:
            release_pages(stored)
        present = run.present(part.start, part.stop)
        if present is None:
            everywhere += weight
        else:
            somewhere += weight * present
    if somewhere.any():
        with np.errstate(invalid="ignore"):
            total /= (everywhere + somewhere)[:, None]
    else:
        total /= everywhere if everywhere else np.nan
    return total


def _by_blocks(
    split: AlignedSplit,
    runs: Sequence[RunPredictions],
    share: NDArray[np.float64],
    how: PoolingRule,
    ranks: NDArray[np.int64],
) -> Vote:
    """Combine row by row, whatever the other rows are."""
    n, classes = len(split), len(split.classes)
    combined, ties = allocate_result((n, classes)), 0
    for part, said in vote_inputs(runs, n, classes, how.counts_votes, ranks):
        said = replace(said, weights=_scaled(split, share, said.weights, part.start))
        values, tied = how.combine(said)
        if not how.counts_votes:
            alone = np.flatnonzero((said.weights > 0).sum(axis=0) == 1)
            values[alone] = said.probabilities[said.weights[:, alone].argmax(axis=0), alone]
        ties += tied
        combined[part] = normalised(values)
        release_pages(combined)
    return Vote(combined, ties)


def _by_columns(
    split: AlignedSplit,
    runs: Sequence[RunPredictions],
    share: NDArray[np.float64],
    how: PoolingRule,
    ranks: NDArray[np.int64],
) -> Vote:
    """Combine by a method that compares all samples: whole columns, of as many classes at once as fit (at least one:
    runs × n × 8 bytes).

    Rows that are 0 in every class are decided by the mean.
    """
    n, classes = len(split), len(split.classes)
    combined, hard = allocate_result((n, classes)), np.array([run.hard for run in runs])
    weights = _scaled(split, share, np.stack([run.models(0, n) > 0 for run in runs]), 0)
    width = min(classes, max(1, _WHOLE_COLUMNS // (len(runs) * n)))
    for first in range(0, classes, width):
        columns = slice(first, min(first + width, classes))
        stacked = np.empty((len(runs), n, columns.stop - columns.start))
        for i, run in enumerate(runs):
            for part in row_blocks(n, classes):
                stacked[i, part] = run.probabilities(part.start, part.stop)[:, columns]
        combined[:, columns] = how.combine(VoteInput(stacked, None, weights, hard, ranks))[0]
    for part in row_blocks(n, classes):
        values = combined[part].astype(np.float64)
        nothing = np.flatnonzero(values.max(axis=1) <= 0)
        for i, run in enumerate(runs) if len(nothing) else ():
            mine = run.probabilities(part.start, part.stop)
            values[nothing] += weights[i, part.start + nothing, None] * mine[nothing]
        combined[part] = normalised(values)
        release_pages(combined)
    return Vote(combined)


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
