"""A fitted combination applied to any split, read in blocks of rows; numpy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ensemble.alignment.split import AlignedSplit
from ensemble.learning.combination import Combination
from ensemble.voting.base import Vote, VoteInput
from ensemble.voting.vote import METHODS, vote
from folds.errors import UsageError

_NUMBERS_AT_ONCE = 1 << 20


def apply_combination(split: AlignedSplit, combination: Combination, ranking: Sequence[str] | None = None) -> Vote:
    """What a combination says on the samples of a split.

    A run of the combination that the split lacks, or that lacks a row, leaves its word to the others, as `Combination.apply` says.

    Parameters
    ----------
    ranking : run names, best first, for ties of hard votes.

    Raises
    ------
    UsageError : the split has a run that the combination does not know, or a run has hard labels only.
    """
    there = {run.name: run for run in split.runs}
    strange = sorted(set(there) - set(combination.runs))
    if strange:
        raise UsageError(
            f"{', '.join(strange)} was not there when the weights were learnt",
            hint=f"--run {','.join(combination.runs)}",
        )
    method = METHODS[combination.pool]
    hard = [run.name for run in split.runs if run.hard]
    if hard and not method.counts_votes:
        raise UsageError(
            f"{', '.join(hard)} has hard labels only, and what was learnt needs probabilities",
            hint="leave it out with --run",
        )
    weights = dict.fromkeys(combination.runs, 1.0)
    if combination.weights is not None and combination.weights.ndim == 1:
        weights = dict(zip(combination.runs, combination.weights.tolist(), strict=True))
    plain = (
        combination.before is None
        and combination.after is None
        and combination.stacked is None
        and combination.bias is None
    )
    if plain and (combination.weights is None or combination.weights.ndim == 1):
        heard = [name for name, weight in weights.items() if weight > 0]
        kept = split.select_runs(heard)
        if kept is not None and len(kept) == len(split):  # nobody is left to those without a weight
            return vote(split, combination.pool, weights, ranking, combination.options)
    if method.needs_all_rows:
        raise UsageError(
            f"{combination.pool} voting compares all samples and takes neither calibration nor samples without a run that has a weight"
        )
    runs = [there.get(name) for name in combination.runs]
    order = [*(ranking or ()), *combination.runs]
    ranks = np.array(sorted(range(len(runs)), key=lambda i: order.index(combination.runs[i])), dtype=np.int64)
    is_hard = np.array([run is not None and run.hard for run in runs])
    counts = combination.stacked is None and method.counts_votes
    n, classes = len(split), len(split.classes)
    out, ties = np.empty((n, classes), np.float32), 0
    size = max(16, _NUMBERS_AT_ONCE // (len(runs) * classes))
    for start in range(0, n, size):
        stop = min(start + size, n)
        values, votes = np.zeros((len(runs), stop - start, classes)), np.zeros((len(runs), stop - start, classes))
        present = np.zeros((len(runs), stop - start))
        for i, run in enumerate(runs):
            if run is None:
                continue
            present[i] = run.models(start, stop) > 0
            if not run.hard:
                values[i] = run.probabilities(start, stop)
            if counts:
                votes[i] = run.votes(start, stop)
        block, tied = combination.apply(VoteInput(values, votes if counts else None, present, is_hard, ranks))
        out[start:stop] = block
        ties += tied
    return Vote(out, ties)
