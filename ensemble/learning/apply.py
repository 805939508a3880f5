"""A fitted combination applied to any split, read in blocks of rows; numpy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ensemble.alignment.split import AlignedSplit
from ensemble.learning.combination import Combination
from ensemble.voting.base import PoolingRule, Vote
from ensemble.voting.blocks import rank_order, vote_inputs
from ensemble.voting.vote import METHODS, vote
from folds.errors import UsageError


def apply_combination(split: AlignedSplit, combination: Combination, ranking: Sequence[str] | None = None) -> Vote:
    """What a combination says on the samples of a split.

    A run of the combination that the split lacks, or that lacks a row, leaves its word to the others, as
    `Combination.apply` says.

    Parameters
    ----------
    ranking : run names, best first, for ties of hard votes.

    Raises
    ------
    UsageError : the split has a run that the combination does not know, or a run has hard labels only.
    """
    method = METHODS[combination.pool]
    _check_runs(split, combination, method)
    as_vote = _as_plain_vote(split, combination, ranking)
    if as_vote is not None:
        return as_vote
    if method.needs_all_rows:
        raise UsageError(
            f"{combination.pool} voting compares all samples and takes neither calibration nor samples without a run "
            "that has a weight"
        )
    there = {run.name: run for run in split.runs}
    runs, ranks = (
        [there.get(name) for name in combination.runs],
        rank_order(combination.runs, ranking or (), combination.runs),
    )
    counts_votes = combination.stacked is None and method.counts_votes
    n, classes = len(split), len(split.classes)
    out, ties = np.empty((n, classes), np.float32), 0
    for part, said in vote_inputs(runs, n, classes, counts_votes, ranks):
        out[part], tied = combination.apply(said)
        ties += tied
    return Vote(out, ties)


def _check_runs(split: AlignedSplit, combination: Combination, method: PoolingRule) -> None:
    """Raise UsageError where the split has a run that the combination does not know, or one of hard labels that it
    cannot use.
    """
    strange = sorted({run.name for run in split.runs} - set(combination.runs))
    if strange:
        raise UsageError(
            f"{', '.join(strange)} was not there when the weights were learnt",
            hint=f"`runs={','.join(combination.runs)}`",
        )
    hard = [run.name for run in split.runs if run.hard]
    if hard and not method.counts_votes:
        raise UsageError(
            f"{', '.join(hard)} has hard labels only, and what was learnt needs probabilities",
            hint="leave it out with `runs`",
        )


def _as_plain_vote(split: AlignedSplit, combination: Combination, ranking: Sequence[str] | None) -> Vote | None:
    """Return the combination as a vote with weights, which streams files; None where it is more than that."""
    learnt = (combination.before, combination.after, combination.stacked, combination.bias)
    if any(one is not None for one in learnt) or (combination.weights is not None and combination.weights.ndim != 1):
        return None
    weights = dict.fromkeys(combination.runs, 1.0)
    if combination.weights is not None:
        weights = dict(zip(combination.runs, combination.weights.tolist(), strict=True))
    kept = split.select_runs([name for name, weight in weights.items() if weight > 0])
    if kept is None or len(kept) < len(
        split
    ):  # some rows have runs without a weight alone, which `Combination.apply` lets speak
        return None
    return vote(split, combination.pool, weights, ranking, combination.options)
