"""Count the samples of each person in each stratum: the matrix (people, strata) for splitting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from folds.data.table import SampleTable
from folds.errors import EnsembleError, unknown_name
from folds.metrics.task_names import MULTILABEL
from folds.splits.label_strata import label_strata, number_bins
from folds.utils.numeric import factorize

Counts = NDArray[np.float64]
MOST_JOINT = 200  # strata of a label and a value of another column


@dataclass(frozen=True, eq=False)
class GroupCounts:
    """Counts of samples by person, sorted by name, so that splits do not depend on the order of the rows.

    Attributes
    ----------
    groups : (n,) person of each sample, 0 … people-1.
    sizes : (people,) samples.
    counts : (people, strata) samples of each stratum, whole numbers.
    values : number of strata that are values of single columns, which every fold should have; they come first, and the
        others are joint values.
    overlapping : whether a sample can be in several of the first strata, as of several labels.
    """

    groups: NDArray[np.int64]
    sizes: NDArray[np.int64]
    counts: Counts
    values: int
    overlapping: bool = False

    def __len__(self) -> int:
        return len(self.sizes)


def count_groups(table: SampleTable, columns: Sequence[NDArray[np.str_]] | None = None, folds: int = 2) -> GroupCounts:
    """Return the counts of the people of `table` in the columns that are to be spread evenly.

    With one column the strata are its values. With several columns they are the values of each column, and the joint
    values (female of hospital A) of at least `folds` people. Joint values alone are too fine: a value of two people
    cannot be spread over five folds, and its single values would then be spread at random. With single values alone,
    all women of one fold could come from one hospital.

    Several labels are strata that overlap, and the joint ones are each label with each value of the other columns.
    Numbers are spread by their quantiles, each column by itself.

    Parameters
    ----------
    columns : arrays (n,) of str; None for the labels. `SampleTable.labels` itself stands for all labels or numbers.

    Raises
    ------
    EnsembleError : the table has no labels or persons, or only one person.
    """
    if table.labels is None or table.persons is None:
        missing = "labels" if table.labels is None else "persons"
        raise EnsembleError(f"{table.source} has no {missing}, which a split by person needs")
    names, groups = table.factorized_persons
    if len(names) == 1:
        raise EnsembleError(
            f"expected at least 2 people, but all {len(table):,} samples of {table.source} are of one person, "
            f"'{names[0]}'",
            hint="is `person` the right column? `person_regex='(.+)'` makes every image its own person",
        )
    spread = [table.labels] if columns is None else list(columns)
    if table.has_columns and any(column is table.labels for column in spread):
        others = [column for column in spread if column is not table.labels]
        if table.task == MULTILABEL:
            return _count_labels(table, groups, others, folds)
        spread = [*number_bins(table.label_values(), table.persons, folds), *others]
    strata = [factorize(column)[1] for column in spread]
    # If no value has as many samples as there are folds, values cannot be spread: only the number of samples is.
    strata = [codes if np.bincount(codes).max() >= folds else np.zeros_like(codes) for codes in strata]
    blocks = [count_strata(groups, codes) for codes in strata]
    values = sum(block.shape[1] for block in blocks)
    joint = _joint_counts(groups, strata, folds)
    counts = np.concatenate([*blocks, *joint], axis=1)
    return GroupCounts(groups, np.bincount(groups), counts, values)


def _count_labels(
    table: SampleTable, groups: NDArray[np.int64], others: Sequence[NDArray[np.str_]], folds: int
) -> GroupCounts:
    """Return the counts of several labels, of the values of other columns, and of each label with each value."""
    labels = label_strata(table.label_values())
    codes = [factorize(column)[1] for column in others]
    values = [column == one for column in codes for one in range(int(column.max()) + 1)]
    counts = count_rows(groups, [*labels, *values])
    joint = count_rows(groups, [label & value for label in labels for value in values])
    people = (joint > 0).sum(axis=0)
    # The rarest that every fold can have: frequent ones are even anyhow, and each costs time.
    kept = np.flatnonzero(people >= folds)
    kept = np.sort(kept[np.argsort(people[kept], kind="stable")][:MOST_JOINT])
    sizes = np.bincount(groups)
    return GroupCounts(groups, sizes, np.concatenate([counts, joint[:, kept]], axis=1), counts.shape[1], True)


def count_rows(groups: NDArray[np.int64], strata: Sequence[NDArray[np.bool_]]) -> Counts:
    """Return (people, strata) samples, from the person (n,) of each sample and the rows (n,) of each stratum."""
    people = int(groups.max()) + 1
    counts = np.zeros((people, len(strata)))
    for at, rows in enumerate(strata):
        counts[:, at] = np.bincount(groups[rows], minlength=people)
    return counts


def columns_named(table: SampleTable, names: Sequence[str]) -> list[NDArray[np.str_]]:
    """Return the labels and the named columns of `table` as arrays (n,) of str, for `count_groups`.

    Raises
    ------
    UsageError : there is no such column; similar names are suggested.
    """
    known = {**({} if table.labels is None else {"label": table.labels}), **table.attributes}
    wanted = list(dict.fromkeys(["label", *names] if "label" in known else names))
    for name in wanted:
        if name not in known:
            raise unknown_name("column", name, list(known), hint=f"columns for `stratify`: {', '.join(known)}")
    return [known[name] for name in wanted]


def count_strata(groups: NDArray[np.int64], codes: NDArray[np.int64]) -> Counts:
    """Return (people, strata) samples, from the person (n,) and the stratum (n,) of each sample, both from 0."""
    people, strata = int(groups.max()) + 1, int(codes.max()) + 1
    return np.bincount(groups * strata + codes, minlength=people * strata).reshape(people, strata).astype(np.float64)


def _joint_counts(groups: NDArray[np.int64], strata: Sequence[NDArray[np.int64]], min_people: int) -> list[Counts]:
    """Return [(people, joint strata)] for joint values of at least `min_people` people; [] if they add nothing."""
    joint = np.zeros(len(groups), np.int64)
    for codes in strata:
        joint = np.unique(joint * (int(codes.max()) + 1) + codes, return_inverse=True)[1]
    if int(joint.max()) <= max(int(codes.max()) for codes in strata):
        return []
    owners = np.unique(np.stack([joint, groups]), axis=1)[0]
    kept = np.flatnonzero(np.bincount(owners) >= min_people)
    if not len(kept):
        return []
    rows = np.isin(joint, kept)
    counts = np.zeros((int(groups.max()) + 1, len(kept)))
    np.add.at(counts, (groups[rows], np.searchsorted(kept, joint[rows])), 1)
    return [counts]
