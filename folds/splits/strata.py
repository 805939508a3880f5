"""Count who has how many samples of what: the matrix (people, strata) that splitting works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from folds.data.table import SampleTable
from folds.errors import EnsembleError, unknown_name
from folds.utils.numeric import factorize

Counts = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GroupCounts:
    """The people of a table, ordered by name, so that nothing that follows depends on the order of its rows.

    Attributes
    ----------
    groups : (n,) the person of each sample, 0 … people-1.
    sizes : (people,) samples.
    counts : (people, strata) samples of each stratum, whole numbers.
    values : the first so many strata are values of single columns, which every fold should have; the others are joint.
    """

    groups: NDArray[np.int64]
    sizes: NDArray[np.int64]
    counts: Counts
    values: int

    def __len__(self) -> int:
        return len(self.sizes)


def count_groups(table: SampleTable, columns: Sequence[NDArray[np.str_]] | None = None, folds: int = 2) -> GroupCounts:
    """Count what each person of `table` has of the columns that are to be spread evenly.

    With one column the strata are its values. With several they are the values of each, and besides these the joint
    values (female of hospital A) that at least `folds` people have. Joint values alone are soon too fine: what only two
    people have cannot be spread over five folds, and where it goes would be left to chance, with the values it is made
    of. Single values alone would let all women of one fold come from one hospital.

    Parameters
    ----------
    columns : arrays (n,) of str; None for the labels.

    Raises
    ------
    EnsembleError : the table has no labels or persons, or one person only.
    """
    if table.labels is None or table.persons is None:
        missing = "labels" if table.labels is None else "persons"
        raise EnsembleError(f"{table.source} has no {missing}: it cannot be split by person")
    names, groups = table.person_codes
    if len(names) == 1:
        raise EnsembleError(
            f"all {len(table):,} samples of {table.source} are of one person, '{names[0]}': they cannot be split",
            hint="is --person the right column? --person-regex '(.+)' makes every image its own person",
        )
    strata = [factorize(column)[1] for column in ([table.labels] if columns is None else columns)]
    # Of what has fewer samples than there are folds, there is nothing to spread but the number.
    strata = [codes if np.bincount(codes).max() >= folds else np.zeros_like(codes) for codes in strata]
    blocks = [count_strata(groups, codes) for codes in strata]
    values = sum(block.shape[1] for block in blocks)
    joint = _joint_counts(groups, strata, folds)
    counts = np.concatenate([*blocks, *joint], axis=1)
    return GroupCounts(groups, np.bincount(groups), counts, values)


def columns_named(table: SampleTable, names: Sequence[str]) -> list[NDArray[np.str_]]:
    """The labels, which always count, and the columns of `table` that are named: arrays (n,) of str for `count_groups`.

    Raises
    ------
    UsageError : there is no such column; the nearest are offered.
    """
    known = {**({} if table.labels is None else {"label": table.labels}), **table.attributes}
    wanted = list(dict.fromkeys(["label", *names] if "label" in known else names))
    for name in wanted:
        if name not in known:
            raise unknown_name("column", name, list(known), hint=f"--stratify takes: {', '.join(known)}")
    return [known[name] for name in wanted]


def count_strata(groups: NDArray[np.int64], codes: NDArray[np.int64]) -> Counts:
    """(people, strata) samples, from the person (n,) and the stratum (n,) of each sample, both from 0."""
    people, strata = int(groups.max()) + 1, int(codes.max()) + 1
    return np.bincount(groups * strata + codes, minlength=people * strata).reshape(people, strata).astype(np.float64)


def _joint_counts(groups: NDArray[np.int64], strata: Sequence[NDArray[np.int64]], least: int) -> list[Counts]:
    """[(people, joint strata)] of the joint values that `least` people have; [] where a single column says as much."""
    joint = np.zeros(len(groups), np.int64)
    for codes in strata:
        joint = np.unique(joint * (int(codes.max()) + 1) + codes, return_inverse=True)[1]
    if int(joint.max()) <= max(int(codes.max()) for codes in strata):
        return []
    owners = np.unique(np.stack([joint, groups]), axis=1)[0]
    kept = np.flatnonzero(np.bincount(owners) >= least)
    if not len(kept):
        return []
    rows = np.isin(joint, kept)
    counts = np.zeros((int(groups.max()) + 1, len(kept)))
    np.add.at(counts, (groups[rows], np.searchsorted(kept, joint[rows])), 1)
    return [counts]
