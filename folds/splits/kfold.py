"""Split by person into k folds, or hold a part out: scikit-learn's StratifiedGroupKFold, repaired."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from folds.data.table import SampleTable
from folds.errors import EnsembleError, UsageError
from folds.splits.assignment import FoldAssignment, load_folds, read_folds, save_folds
from folds.splits.checks import check_folds, fold_counts, people_per_class
from folds.splits.greedy import fill_empty, stratified_group_kfold
from folds.splits.repair import balance, repair
from folds.splits.strata import GroupCounts, count_groups

__all__ = [
    "FoldAssignment",
    "check_folds",
    "fold_counts",
    "hold_out",
    "load_folds",
    "people_for_folds",
    "people_per_class",
    "read_folds",
    "save_folds",
    "split_by_person",
]
Columns = Sequence[NDArray[np.str_]]


def split_by_person(
    table: SampleTable,
    k: int,
    seed: int = 0,
    stratify: NDArray[np.str_] | Columns | None = None,
    repaired: bool = True,
    shuffle: bool = True,
) -> FoldAssignment:
    """Give every person a fold so that the classes are spread evenly.

    The assignment is that of ``sklearn.model_selection.StratifiedGroupKFold(k, shuffle=True, random_state=seed)``, save
    that no fold is left empty, and that it is improved where a fold lacks a class that it could have, or the balance is
    poor (`folds.splits.repair.repair` has the rule). It depends on the persons' names and samples, not on the order of
    the rows.

    Parameters
    ----------
    stratify : (n,) str, or several such columns: what to spread evenly instead of the labels
        (`folds.splits.strata.count_groups`).
    repaired : False leaves the assignment as scikit-learn makes it.
    shuffle : False takes people who are alike in the order of their names, as ``StratifiedGroupKFold(shuffle=False)``.

    Raises
    ------
    UsageError : k is below 2, or the seed is none that NumPy takes.
    EnsembleError : the table has no labels or persons, or fewer people than folds.
    """
    people = people_for_folds(table, k, seed, stratify)
    first = stratified_group_kfold(people.counts, people.sizes, k, seed if shuffle else None)
    fold, changes = fill_empty(first, people.sizes, k), None
    if repaired:
        fold, changes = repair(people, fold, [1 / k] * k, seed)
    return assigned(table, fold[people.groups], k, seed, repair=changes)


def assigned(table: SampleTable, fold: NDArray[np.int64], k: int, seed: int, **more: object) -> FoldAssignment:
    """The assignment of the rows of a labelled `table`; fold (n,)."""
    assert table.labels is not None  # noqa: S101 - people_of has seen to it
    assert table.persons is not None  # noqa: S101
    found = FoldAssignment(table.ids, table.labels, table.persons, fold, k, seed, table_sha=table.sha, **more)  # type: ignore[arg-type]
    return found.with_codes_of(table)


def people_for_folds(
    table: SampleTable, k: int, seed: int, stratify: NDArray[np.str_] | Columns | None = None
) -> GroupCounts:
    """The people of `table`, where k folds of them can be made; raises what `split_by_person` says."""
    if k < 2:
        raise UsageError(
            f"--k must be 2 or more, found {k}", hint="each fold is predicted by a model trained on the others"
        )
    _check_seed(seed)
    people = count_groups(table, [stratify] if isinstance(stratify, np.ndarray) else stratify, k)
    if k > len(people):
        raise EnsembleError(
            f"{k} folds need at least {k} people, {table.source} has {len(people)}",
            hint=f"try --k {min(5, len(people))}",
        )
    return people


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise UsageError(f"--seed must be 0 to {2**32 - 1}, found {seed}")


def hold_out(
    table: SampleTable,
    share: float,
    seed: int = 0,
    stratify: NDArray[np.str_] | Columns | None = None,
    repaired: bool = True,
) -> FoldAssignment:
    """One split by person: about `share` of the samples in fold 0, held out; the others in fold -1, only ever trained
    on.

    The rule that makes k folds, with two of unequal size; with `repaired`, moves and swaps bring the size within a
    twentieth of what was asked, where people allow, and the classes nearer to their shares.

    Raises
    ------
    UsageError : `share` is not between 0 and 1, or the seed is none that NumPy takes.
    EnsembleError : the table has no labels or persons, or one person only.
    """
    if not 0 < share < 1:
        raise UsageError(
            f"--holdout must be above 0 and below 1, found {share:g}",
            hint="--holdout .1 holds out a tenth of the images",
        )
    _check_seed(seed)
    # A joint value of p people can be on both sides if p · share is a person or more.
    people = count_groups(
        table, [stratify] if isinstance(stratify, np.ndarray) else stratify, max(2, min(round(1 / share), len(table)))
    )
    shares = (share, 1 - share)
    part = fill_empty(stratified_group_kfold(people.counts, people.sizes, shares, seed), people.sizes, 2)
    if repaired:
        part = balance(people, part, shares, np.random.default_rng([seed, len(people)]))
    return assigned(table, -part[people.groups], 1, seed)
