"""Combine the runs of a split by any method, in blocks of rows and float64; numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ensemble.alignment.split import AlignedSplit, RunPredictions
from ensemble.voting.base import Options, PoolingRule, Vote, VoteInput, is_normalized, normalize_rows
from ensemble.voting.blocks import rank_order, row_blocks, vote_inputs
from ensemble.voting.by_attribute import join_marginals, marginal_splits
from ensemble.voting.label_columns import vote_columns
from ensemble.voting.pooling import geometric, grades, hard, maximum, median, power_mean, rank_mean, soft, trimmed
from folds.errors import UsageError, unknown_name
from folds.metrics.task_names import ORDINAL
from folds.utils.memmap import allocate_result, blocks, release_pages
from folds.utils.parallel import cpu_count

DEFAULTS = Options()
METHODS: dict[str, PoolingRule] = {
    "soft": PoolingRule(soft, "mean of probabilities"),
    "hard": PoolingRule(hard, "majority of votes", counts_votes=True),
    "grades": PoolingRule(grades, "median of the grades voted for", counts_votes=True),
    "weighted": PoolingRule(soft, "weighted mean of probabilities"),
    "geometric": PoolingRule(geometric, "geometric mean of probabilities"),
    "power": PoolingRule(partial(power_mean, exponent=DEFAULTS.power), "power mean of probabilities"),
    "median": PoolingRule(median, "median of probabilities"),
    "trimmed": PoolingRule(partial(trimmed, trim=DEFAULTS.trim), "trimmed mean of probabilities"),
    "max": PoolingRule(maximum, "largest probability", supports_weights=False),
    "rank": PoolingRule(rank_mean, "mean rank among the samples", needs_all_rows=True),
}
_WHOLE_COLUMNS = 1 << 24  # numbers of complete columns in memory: 128 MiB
_WORTH_THREADS = 1 << 24  # numbers to sum with several threads: below, they take a hundredth of a second
_STREAMED_AT_ONCE = 1 << 17  # numbers of a block; it fits into the CPU cache together with its sums


HARD, GRADES = "hard", "grades"


def method_for(method: str, task: str) -> str:
    """Return the method of a vote on a task: votes on grades are pooled by their median, not by the majority."""
    return GRADES if method == HARD and task == ORDINAL else method


def method_of(name: str, options: Options = DEFAULTS) -> PoolingRule:
    """Return the method with this name and these options.

    Raises
    ------
    UsageError : the name is unknown; the message suggests the closest names.
    """
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
    """Return the combined prediction of the runs of a split; where a run is absent, the others share its weight.

    Runs are summed in the order of their names, so the result is bit-identical for any order of the files. A row that
    only one run (with a weight above 0) has keeps that run's prediction, except for ranks, which compare all rows.

    Parameters
    ----------
    weights : run → weight ≥ 0, scaled to sum to 1; runs without an entry get 0. None for equal weights.
    ranking : run names, best first, for ties of hard votes; other runs come last. None for the order of the split.
    options : exponent of the power mean, share of the trimmed mean, and whether to vote by attribute. In a vote by
        attribute, the class with the largest product of its values' probabilities wins; in rows where every product is
        0 (possible for medians), the vote by class decides.

    Raises
    ------
    UsageError : an unknown method, a method that needs probabilities for a run with hard labels only, an invalid
        weight, or unknown attributes.
    ValueError : a row has no run with a weight above 0 (see `AlignedSplit.select_runs`).
    """
    rule = method_of(method, options)
    runs = sorted(split.runs, key=lambda run: run.name)
    _check_probabilities(method, rule, runs)
    run_weights = _check_weights(runs, weights)
    if split.has_columns:
        return vote_columns(split, method, rule, runs, run_weights, ranking or (), options)
    if options.by == "attribute":
        return _by_attribute(split, method, weights, ranking, options)
    if rule.combine is soft:
        return Vote(_mean(split, runs, run_weights))
    ranking_indices = rank_order([run.name for run in runs], ranking or (), [run.name for run in split.runs])
    return (_by_columns if rule.needs_all_rows else _by_blocks)(split, runs, run_weights, rule, ranking_indices)


def _check_probabilities(method: str, rule: PoolingRule, runs: Sequence[RunPredictions]) -> None:
    without = [run.name for run in runs if run.hard]
    if without and not rule.counts_votes:
        raise UsageError(
            f"`method={method}` needs probabilities, found only hard labels in {', '.join(without)}",
            hint="use `method=hard`, or exclude these runs with `runs`",
        )


def _check_weights(runs: Sequence[RunPredictions], weights: Mapping[str, float] | None) -> NDArray[np.float64]:
    """Return (runs,) the weight of each run, not scaled; raise UsageError for an invalid weight."""
    run_weights = np.array([1.0 if weights is None else weights.get(run.name, 0.0) for run in runs])
    if not np.isfinite(run_weights).all() or (run_weights < 0).any():
        raise UsageError(
            f"`weights` must be finite numbers ≥ 0, found {', '.join(map(str, run_weights))}",
            hint="weights are scaled to sum to 1",
        )
    return run_weights


def _scaled(split: AlignedSplit, run_weights: NDArray[np.float64], present: NDArray, start: int) -> NDArray[np.float64]:
    """Return (runs, m) the weights where runs are `present` (runs, m), scaled to sum to 1; `start` is the first row."""
    weights = run_weights[:, None] * present
    total = weights.sum(axis=0)
    if not (total > 0).all():
        raise _uncovered_error(split, start + int(np.argmin(total > 0)))
    return weights / total


def _uncovered_error(split: AlignedSplit, row: int) -> ValueError:
    return ValueError(f"no run with a weight above 0 predicts the sample '{split.rows.ids[row]}'")


def _mean(split: AlignedSplit, runs: Sequence[RunPredictions], run_weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return (n, classes) the arithmetic mean, summed directly from the memory maps."""
    mean = mean_of_runs(runs, run_weights, len(split))
    uncovered = np.concatenate([np.isnan(block[:, 0]) for block in blocks(mean)])
    if uncovered.any():
        raise _uncovered_error(split, int(np.argmax(uncovered)))
    return mean


def vote_of_run(split: AlignedSplit) -> Vote:
    """Return the vote of the only run of a split: its probabilities, or the shares of its hard labels.

    The probabilities are those that `vote` returns; where a file has just these numbers, they are a read-only view.
    """
    (run,) = split.runs
    if run.hard:
        return vote(split, "hard")
    stored = run.raw_block(0, len(split))
    if split.has_columns:
        return vote(split) if stored is None or stored.dtype != np.float32 else Vote(stored)
    if stored is None or stored.dtype != np.float32 or not all(map(is_normalized, blocks(stored, _STREAMED_AT_ONCE))):
        return vote(split)
    return Vote(stored)


def mean_of_runs(
    runs: Sequence[RunPredictions], run_weights: NDArray[np.float64], rows: int, accumulate: DTypeLike = np.float64
) -> NDArray[np.float32]:
    """Return the weighted mean of the runs' probabilities over the runs that are present on each row, normalized.

    Blocks of the memory maps are added without a copy, so the speed is limited by memory. Runs are summed in the given
    order and divided once: with equal weights and float32 files whose rows sum to 1, the result is bit-identical to the
    mean in float64, rounded to float32.

    Parameters
    ----------
    run_weights : (runs,) weights ≥ 0.
    accumulate : dtype of the sums; float32 takes half the time and can differ in the last bits.

    Returns
    -------
    (rows, classes) float32; rows without a run with a weight above 0 are NaN.
    """
    active = [(run, weight) for run, weight in zip(runs, run_weights.tolist(), strict=True) if weight > 0]
    if len({weight for _, weight in active}) == 1:
        active = [(run, 1.0) for run, _ in active]
    classes = runs[0].classes
    combined = allocate_result((rows, classes))

    def fill(parts: Sequence[slice]) -> None:
        sums, scratch = np.empty((2, min(rows, max(16, _STREAMED_AT_ONCE // classes)), classes), accumulate)
        for part in parts:
            size = part.stop - part.start
            total = _weighted_sum(active, part, sums[:size], scratch[:size])
            combined[part] = normalize_rows(total)
            release_pages(combined)

    parts = list(row_blocks(rows, classes, max_numbers=_STREAMED_AT_ONCE))
    threads = min(cpu_count(), 4) if len(active) * rows * classes >= _WORTH_THREADS else 1
    if threads == 1:
        fill(parts)
    else:  # each row is summed by one thread, so the result does not depend on their number
        size = -(-len(parts) // threads)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, (parts[first : first + size] for first in range(0, len(parts), size))))
    return combined


def _weighted_sum(
    active: Sequence[tuple[RunPredictions, float]], part: slice, total: NDArray, scratch: NDArray
) -> NDArray[np.floating]:
    """Return the weighted mean of the rows `part` in `total` (m, classes); `scratch` has the same shape."""
    complete, incomplete = 0.0, np.zeros(len(total))  # weights of the runs with all rows, and of the other runs
    for added, (run, weight) in enumerate(active):
        stored = run.raw_block(part.start, part.stop)
        block = run.probabilities(part.start, part.stop) if stored is None else stored
        weighted = block if weight == 1 else np.multiply(block, weight, out=scratch, casting="unsafe")
        np.add(total if added else 0.0, weighted, out=total, casting="unsafe")
        if stored is not None:
            release_pages(stored)
        present = run.present(part.start, part.stop)
        if present is None:
            complete += weight
        else:
            incomplete += weight * present
    if incomplete.any():
        with np.errstate(invalid="ignore"):
            total /= (complete + incomplete)[:, None]
    elif complete != 1:
        total /= complete if complete else np.nan
    return total


def _by_blocks(
    split: AlignedSplit,
    runs: Sequence[RunPredictions],
    run_weights: NDArray[np.float64],
    rule: PoolingRule,
    ranking_indices: NDArray[np.int64],
) -> Vote:
    """Return the vote of a method that treats rows independently."""
    n, classes = len(split), len(split.classes)
    combined, ties = allocate_result((n, classes)), 0
    for part, inputs in vote_inputs(runs, n, classes, rule.counts_votes, ranking_indices):
        inputs = replace(inputs, weights=_scaled(split, run_weights, inputs.weights, part.start))
        values, tied = rule.combine(inputs)
        if not rule.counts_votes:
            alone = np.flatnonzero((inputs.weights > 0).sum(axis=0) == 1)
            values[alone] = inputs.probabilities[inputs.weights[:, alone].argmax(axis=0), alone]
        ties += tied
        combined[part] = normalize_rows(values)
        release_pages(combined)
    return Vote(combined, ties)


def _by_columns(
    split: AlignedSplit,
    runs: Sequence[RunPredictions],
    run_weights: NDArray[np.float64],
    rule: PoolingRule,
    ranking_indices: NDArray[np.int64],
) -> Vote:
    """Return the vote of a method that compares all samples.

    Complete columns of several classes are in memory at once (at least one class: runs × n × 8 bytes). Rows that are 0
    in every class get the mean.
    """
    n, classes = len(split), len(split.classes)
    combined, hard = allocate_result((n, classes)), np.array([run.hard for run in runs])
    weights = _scaled(split, run_weights, np.stack([run.models(0, n) > 0 for run in runs]), 0)
    width = min(classes, max(1, _WHOLE_COLUMNS // (len(runs) * n)))
    for first in range(0, classes, width):
        columns = slice(first, min(first + width, classes))
        stacked = np.empty((len(runs), n, columns.stop - columns.start))
        for i, run in enumerate(runs):
            for part in row_blocks(n, classes):
                stacked[i, part] = run.probabilities(part.start, part.stop)[:, columns]
        combined[:, columns] = rule.combine(VoteInput(stacked, None, weights, hard, ranking_indices))[0]
    for part in row_blocks(n, classes):
        values = combined[part].astype(np.float64)
        empty = np.flatnonzero(values.max(axis=1) <= 0)
        for i, run in enumerate(runs) if len(empty) else ():
            values_of_run = run.probabilities(part.start, part.stop)
            values[empty] += weights[i, part.start + empty, None] * values_of_run[empty]
        combined[part] = normalize_rows(values)
        release_pages(combined)
    return Vote(combined)


def _by_attribute(
    split: AlignedSplit,
    method: str,
    weights: Mapping[str, float] | None,
    ranking: Sequence[str] | None,
    options: Options,
) -> Vote:
    by_class = replace(options, by="class")
    parts = marginal_splits(split)
    votes = {
        attribute: vote(marginal, method, weights, ranking, by_class) for attribute, (marginal, _) in parts.items()
    }
    joined = join_marginals(
        {name: result.probabilities for name, result in votes.items()},
        {name: grouping for name, (_, grouping) in parts.items()},
    )
    undecided = np.flatnonzero(joined.max(axis=1) == 0)
    if len(undecided):
        # Ranks compare all rows, so the vote includes all rows.
        joined[undecided] = vote(split, method, weights, ranking, by_class).probabilities[undecided]
    return Vote(joined, sum(result.ties for result in votes.values()), len(undecided))
