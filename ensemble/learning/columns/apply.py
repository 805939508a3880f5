"""Apply a combination of labels or numbers to a split, in blocks of rows; numpy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ensemble.alignment.split import AlignedSplit
from ensemble.learning.columns.combination import ColumnCombination
from ensemble.voting.base import Vote
from ensemble.voting.blocks import rank_order
from ensemble.voting.label_columns import column_inputs
from ensemble.voting.vote import METHODS
from folds.utils.memmap import allocate_result


def apply_columns(split: AlignedSplit, combination: ColumnCombination, ranking: Sequence[str] | None = None) -> Vote:
    """Return the predictions of a combination on a split.

    If the split lacks a run of the combination, or a run lacks a row, the other runs share its weight (see
    `ColumnCombination.apply`).

    Parameters
    ----------
    ranking : run names, best first, for ties of hard votes.

    Raises
    ------
    EnsembleError : the split has other columns than the combination; another order of them does not matter.
    """
    combination = combination.in_order(split.classes)
    runs_by_name = {run.name: run for run in split.runs}
    runs = [runs_by_name.get(name) for name in combination.runs]
    order = rank_order(combination.runs, ranking or (), combination.runs)
    rule = METHODS["soft" if combination.each or combination.linear is not None else combination.pool]
    if any(METHODS[one.pool].needs_all_rows for one in combination.each):
        rule = METHODS["rank"]
    out, ties = allocate_result((len(split), len(split.classes))), 0
    for part, inputs in column_inputs(runs, len(split), len(split.classes), rule, order):
        values, tied = combination.apply(inputs)
        out[part] = values.astype(np.float32)
        ties += tied
    return Vote(out, ties)
