"""Split by person into k folds, or hold out a part: scikit-learn's StratifiedGroupKFold, repaired."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from folds.data.table import SampleTable
from folds.errors import EnsembleError, UsageError
from folds.splits.assignment import FoldAssignment, labels_of, load_folds, read_folds, save_folds
from folds.splits.checks import check_folds, fold_counts, people_per_class
from folds.splits.greedy import fill_empty, stratified_group_kfold
from folds.splits.multilabel import folds_of_labels
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
    """Return an assignment of people (groups) to k folds with the classes, labels or numbers spread evenly.

    The assignment is that of ``sklearn.model_selection.StratifiedGroupKFold(k, shuffle=True, random_state=seed)``, with
    two differences: no fold is empty, and the assignment is improved if a fold lacks a class that it could have or if
    the balance is poor (rule: `folds.splits.repair.repair`). It depends on the names and samples of the people, not on
    the order of the rows. Several labels are spread by iterative stratification (`folds.splits.multilabel`) instead.

    Parameters
    ----------
    stratify : (n,) str, or several such columns, to spread evenly instead of the labels
        (`folds.splits.strata.count_groups`).
    repaired : whether to improve the assignment of scikit-learn.
    shuffle : whether ties between people are broken randomly; False breaks them by name, as
        ``StratifiedGroupKFold(shuffle=False)``.

    Raises
    ------
    UsageError : `k` is below 2, or NumPy does not accept the seed.
    EnsembleError : the table has no labels or persons, or fewer people than folds.
    """
    people = people_for_folds(table, k, seed, stratify)
    if people.overlapping:
        fold, changes = folds_of_labels(people, [1 / k] * k, seed if shuffle else 0, repaired)
        return assigned(table, fold[people.groups], k, seed, repair=changes)
    first = stratified_group_kfold(people.counts, people.sizes, k, seed if shuffle else None)
    fold, changes = fill_empty(first, people.sizes, k), None
    if repaired:
        fold, changes = repair(people, fold, [1 / k] * k, seed)
    return assigned(table, fold[people.groups], k, seed, repair=changes)


def assigned(table: SampleTable, fold: NDArray[np.int64], k: int, seed: int, **more: object) -> FoldAssignment:
    """Return the assignment of the rows of a labeled `table` to `fold` (n,)."""
    assert table.labels is not None  # noqa: S101 - checked by count_groups
    assert table.persons is not None  # noqa: S101
    more = {**labels_of(table), **more}
    found = FoldAssignment(table.ids, table.labels, table.persons, fold, k, seed, table_sha=table.sha, **more)  # type: ignore[arg-type]
    return found.with_codes_of(table)


def people_for_folds(
    table: SampleTable, k: int, seed: int, stratify: NDArray[np.str_] | Columns | None = None
) -> GroupCounts:
    """Return the people of `table`; raise the errors of `split_by_person` if they cannot be split into k folds."""
    if k < 2:
        raise UsageError(
            f"`k` must be 2 or more, found {k}", hint="each fold is predicted by a model trained on the other folds"
        )
    _check_seed(seed)
    people = count_groups(table, [stratify] if isinstance(stratify, np.ndarray) else stratify, k)
    if k > len(people):
        raise EnsembleError(
            f"{k} folds need at least {k} people, {table.source} has {len(people)}",
            hint=f"try `k={min(5, len(people))}`",
        )
    return people


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise UsageError(f"`seed` must be from 0 to {2**32 - 1}, found {seed}")


def hold_out(
    table: SampleTable,
    share: float,
    seed: int = 0,
    stratify: NDArray[np.str_] | Columns | None = None,
    repaired: bool = True,
) -> FoldAssignment:
    """Return one split by person: about `share` of the samples in fold 0 (held out), the others in fold -1 (training).

    The rule is that of k folds, with two parts of unequal size. With `repaired`, moves and swaps of people bring the
    size within 5% of the requested size, if possible, and improve the balance of classes.

    Raises
    ------
    UsageError : `share` is not between 0 and 1, or NumPy does not accept the seed.
    EnsembleError : the table has no labels or persons, or only one person.
    """
    if not 0 < share < 1:
        raise UsageError(
            f"`holdout` must be above 0 and below 1, found {share:g}", hint="`holdout=.1` holds out 10% of the images"
        )
    _check_seed(seed)
    # A joint value of p people can be in both parts if p · share is at least one person.
    people = count_groups(
        table, [stratify] if isinstance(stratify, np.ndarray) else stratify, max(2, min(round(1 / share), len(table)))
    )
    shares = (share, 1 - share)
    if people.overlapping:
        part, _ = folds_of_labels(people, shares, seed, repaired)
        return assigned(table, -part[people.groups], 1, seed)
    part = fill_empty(stratified_group_kfold(people.counts, people.sizes, shares, seed), people.sizes, 2)
    if repaired:
        part = balance(people, part, shares, np.random.default_rng([seed, len(people)]))
    return assigned(table, -part[people.groups], 1, seed)
