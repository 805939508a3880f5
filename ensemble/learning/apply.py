"""Apply a fitted combination to a split, in blocks of rows; numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ensemble.alignment.split import AlignedSplit
from ensemble.learning.columns.apply import apply_columns
from ensemble.learning.columns.combination import ColumnCombination
from ensemble.learning.combination import Combination
from ensemble.voting.base import PoolingRule, Vote
from ensemble.voting.blocks import rank_order, vote_inputs
from ensemble.voting.vote import METHODS, vote
from folds.errors import UsageError


def apply_combination(split: AlignedSplit, combination: Combination, ranking: Sequence[str] | None = None) -> Vote:
    """Return the predictions of a combination on a split.

    If the split lacks a run of the combination, or a run lacks a row, the other runs share its weight (see
    `Combination.apply`). A combination for people needs a split of people (`ensemble.pooling.people.split_by_person`).

    Parameters
    ----------
    ranking : run names, best first, for ties of hard votes.

    Raises
    ------
    UsageError : the split has a run that is not in the combination, or a run has hard labels only.
    EnsembleError : the samples lack a column that the combination uses.
    """
    method = METHODS[combination.pool]
    _check_runs(split, combination, method)
    if isinstance(combination, ColumnCombination):
        return apply_columns(split, combination, ranking)
    plain_vote = _as_plain_vote(split, combination, ranking)
    if plain_vote is not None:
        return plain_vote
    if method.needs_all_rows:
        raise UsageError(
            f"{combination.pool} voting compares all samples; "
            "it supports neither calibration nor samples without a run with a weight above 0"
        )
    runs_by_name = {run.name: run for run in split.runs}
    runs, ranking_indices = (
        [runs_by_name.get(name) for name in combination.runs],
        rank_order(combination.runs, ranking or (), combination.runs),
    )
    counts_votes = combination.stacked is None and method.counts_votes
    n, classes = len(split), len(split.classes)
    out, ties = np.empty((n, classes), np.float32), 0
    offset = None
    if combination.extra is not None:
        offset = combination.extra.logits(split.rows.attributes, n, split.name)
        combination.extra.warn_of_unknown(split.rows.attributes, split.name)
    for part, inputs in vote_inputs(runs, n, classes, counts_votes, ranking_indices):
        out[part], tied = combination.apply(inputs if offset is None else replace(inputs, offset=offset[part]))
        ties += tied
    return Vote(out, ties)


def _check_runs(split: AlignedSplit, combination: Combination, method: PoolingRule) -> None:
    """Raise UsageError if the split has a run that is not in the combination, or hard labels that cannot be used."""
    unknown = sorted({run.name for run in split.runs} - set(combination.runs))
    if unknown:
        raise UsageError(
            f"expected the runs of the fitted combination, also found {', '.join(unknown)}",
            hint=f"`runs={','.join(combination.runs)}`",
        )
    hard = [run.name for run in split.runs if run.hard]
    if hard and not method.counts_votes:
        raise UsageError(
            f"the fitted combination needs probabilities, found only hard labels in {', '.join(hard)}",
            hint="exclude these runs with `runs`",
        )


def _as_plain_vote(split: AlignedSplit, combination: Combination, ranking: Sequence[str] | None) -> Vote | None:
    """Return the result as a weighted vote, which streams files; None if the combination has more steps than that."""
    fitted_steps = (combination.before, combination.after, combination.stacked, combination.bias)
    if any(step is not None for step in fitted_steps) or (
        combination.weights is not None and combination.weights.ndim != 1
    ):
        return None
    weights = dict.fromkeys(combination.runs, 1.0)
    if combination.weights is not None:
        weights = dict(zip(combination.runs, combination.weights.tolist(), strict=True))
    covered = split.select_runs([name for name, weight in weights.items() if weight > 0])
    if covered is None or len(covered) < len(
        split
    ):  # rows with only zero-weight runs: `Combination.apply` uses these runs
        return None
    return vote(split, combination.pool, weights, ranking, combination.options)
