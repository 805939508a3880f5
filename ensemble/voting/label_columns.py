"""Pool predictions with a column for each label or number; numpy only.

A label is a decision of two classes, 1 − p and p, so every rule for probabilities holds for each label by itself.
Numbers have a mean, a median and a trimmed mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.split import AlignedSplit, RunPredictions
from ensemble.voting.base import Options, PoolingRule, Vote, VoteInput
from ensemble.voting.blocks import rank_order, row_blocks
from ensemble.voting.pooling import weighted_mean, weighted_median, weighted_trimmed
from folds.metrics.task_names import MULTILABEL, REGRESSION
from folds.utils.memmap import allocate_result

# Methods of voting, without fitting, for each task with a column for each label or number.
VOTES: Mapping[str, tuple[str, ...]] = {
    MULTILABEL: ("soft", "hard", "weighted", "geometric", "power", "median", "trimmed", "max", "rank"),
    REGRESSION: ("soft", "weighted", "median", "trimmed"),
}


def one_label(inputs: VoteInput, column: int) -> VoteInput:
    """Return the inputs of one label as those of two classes, (runs, m, 2): without and with the label."""
    present = (inputs.weights > 0).astype(np.float64)
    values = inputs.probabilities[:, :, column]
    votes = None
    if inputs.votes is not None:
        yes = inputs.votes[:, :, column]
        votes = np.stack([present - yes, yes], axis=2)
    return replace(inputs, probabilities=np.stack([present - values, values * present], axis=2), votes=votes)


def pool_labels(inputs: VoteInput, rule: PoolingRule) -> tuple[NDArray[np.float64], int]:
    """Return (m, labels) the pooled probability of each label, and the number of ties.

    Parameters
    ----------
    inputs : weights sum to 1 over the runs that are present.
    """
    _, rows, columns = inputs.probabilities.shape
    pooled, ties = np.empty((rows, columns)), 0
    for column in range(columns):
        two = one_label(inputs, column)
        values, tied = rule.combine(two)
        values = np.maximum(values, 0)
        total = values.sum(axis=1)
        empty = np.flatnonzero(total <= 0)  # ranks can be 0 in both classes: these rows get the mean
        if len(empty):
            values[empty] = weighted_mean(two.weights[:, empty], two.probabilities[:, empty])
            total[empty] = values[empty].sum(axis=1)
        pooled[:, column] = values[:, 1] / total
        ties += tied
    return pooled, ties


def pool_numbers(inputs: VoteInput, method: str, options: Options) -> NDArray[np.float64]:
    """Return (m, numbers) the pooled numbers; weights of `inputs` sum to 1 over the runs that are present."""
    if method == "median":
        return weighted_median(inputs)
    if method == "trimmed":
        return weighted_trimmed(inputs, options.trim)
    return weighted_mean(inputs.weights, inputs.probabilities)


def pool_columns(
    inputs: VoteInput, method: str, rule: PoolingRule, options: Options, task: str
) -> tuple[NDArray[np.float64], int]:
    """Return (m, columns) the pooled predictions of a task, and the number of ties."""
    return (pool_numbers(inputs, method, options), 0) if task == REGRESSION else pool_labels(inputs, rule)


def column_inputs(
    runs: Sequence[RunPredictions | None],
    rows: int,
    columns: int,
    rule: PoolingRule,
    ranking: NDArray[np.int64],
) -> Iterator[tuple[slice, VoteInput]]:
    """Yield blocks of rows (one block if the rule compares all rows) and the runs' predictions.

    `VoteInput.weights` is 1 where a run is present, 0 elsewhere.

    Parameters
    ----------
    runs : None for a run that is absent on all rows.
    ranking : (runs,) run indices, best first.
    """
    hard = np.zeros(len(runs), bool)
    for part in row_blocks(rows, len(runs) * columns, min_rows=rows if rule.needs_all_rows else 16):
        size = part.stop - part.start
        values, present = np.zeros((len(runs), size, columns)), np.zeros((len(runs), size))
        votes = np.zeros(values.shape) if rule.counts_votes else None
        for i, run in enumerate(runs):
            if run is None:
                continue
            present[i] = run.models(part.start, part.stop) > 0
            values[i] = run.probabilities(part.start, part.stop)
            if votes is not None:
                votes[i] = run.votes(part.start, part.stop)
        yield part, VoteInput(values, votes, present, hard, ranking)


def vote_columns(
    split: AlignedSplit,
    method: str,
    rule: PoolingRule,
    runs: Sequence[RunPredictions],
    run_weights: NDArray[np.float64],
    ranking: Sequence[str],
    options: Options,
) -> Vote:
    """Return the vote of runs with a column for each label or number; where a run is absent, the others share its
    weight.

    Parameters
    ----------
    run_weights : (runs,) ≥ 0.

    Raises
    ------
    ValueError : a row has no run with a weight above 0.
    """
    names = [run.name for run in runs]
    order = rank_order(names, ranking, [run.name for run in split.runs])
    out, ties = allocate_result((len(split), len(split.classes))), 0
    for part, inputs in column_inputs(runs, len(split), len(split.classes), rule, order):
        weights = run_weights[:, None] * inputs.weights
        total = weights.sum(axis=0)
        if not (total > 0).all():
            row = part.start + int(np.argmin(total > 0))
            raise ValueError(f"no run with a weight above 0 predicts the sample '{split.rows.ids[row]}'")
        out[part], tied = pool_columns(replace(inputs, weights=weights / total), method, rule, options, split.task)
        ties += tied
    return Vote(out, ties)
