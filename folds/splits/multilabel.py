"""Split by person with several labels a sample, or a number: iterative stratification of whole people, repaired."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from folds.errors import EnsembleError, UsageError
from folds.splits.greedy import fill_empty
from folds.splits.label_search import spread_labels
from folds.splits.label_strata import label_strata, quantile_bins
from folds.splits.repair import Repair, changed
from folds.splits.strata import GroupCounts, count_rows
from folds.utils.numeric import factorize

__all__ = ["count_labels", "folds_of_labels", "iterative_folds", "quantile_bins", "split_labels_by_person"]


def split_labels_by_person(
    labels: ArrayLike, persons: NDArray, k: int, seed: int = 0, repaired: bool = True
) -> NDArray[np.int64]:
    """Return (n,) the fold of each row, so that every label is spread evenly over folds of whole people.

    People are assigned label by label, that with the fewest people left first, to the fold that lacks the most of it
    (iterative stratification: Sechidis et al., 2011, with people in place of samples). Moves and swaps of people then
    bring each label into every fold that it can be in, and its share in each fold close to its share in all rows. The
    result depends on the names and rows of the people, not on the order of the rows.

    Parameters
    ----------
    labels : (n, labels) 0 or 1, nan where the label of a row is not known.
    persons : (n,) any values; equal values are one person.
    k : number of folds, 2 or more.
    seed : breaks ties.
    repaired : whether to move and swap people after the iterative stratification.

    Raises
    ------
    UsageError : a value is not 0, 1 or nan, or the shapes do not fit.
    EnsembleError : fewer people than folds.
    """
    people = count_labels(labels, persons)
    if k > len(people):
        raise EnsembleError(f"{k} folds need at least {k} people, found {len(people)}", hint=f"`k={len(people)}`")
    return folds_of_labels(people, [1 / k] * k, seed, repaired)[0][people.groups]


def folds_of_labels(
    people: GroupCounts, shares: Sequence[float], seed: int, repaired: bool = True
) -> tuple[NDArray[np.int64], Repair | None]:
    """Return (people,) folds for strata that overlap, and the changes by moves and swaps, or None if there are none.

    Parameters
    ----------
    shares : target fraction of all samples for each fold.
    """
    starts = [
        fill_empty(iterative_folds(people, len(shares), one, shares), people.sizes, len(shares))
        for one in ((seed, seed + 2**32) if repaired else (seed,))  # the second is no seed that anyone can give
    ]
    if not repaired:
        return starts[0], None
    fold = spread_labels(people, starts, shares, np.random.default_rng([seed, len(people)]))
    return fold, changed(people, starts[0], fold, shares)


def count_labels(labels: ArrayLike, persons: NDArray) -> GroupCounts:
    """Return the counts of the people in the strata of several labels.

    The strata are the rows with each label, and the rows known to be without it, unless that is the larger part of a
    label which all rows have: its share follows from the other one. Strata overlap, unlike those of one label.

    Raises
    ------
    UsageError : as `split_labels_by_person`.
    """
    try:
        values = np.asarray(labels, dtype=np.float64)
    except (TypeError, ValueError):
        raise UsageError("`y` with several columns must hold 0, 1 or nan, found text") from None
    if values.ndim != 2 or values.shape[1] == 0 or len(values) != len(persons):
        raise UsageError(
            f"`y` must have a row for each of the {len(persons):,} persons and a column for each label, found "
            f"the shape {values.shape}"
        )
    known = ~np.isnan(values)
    wrong = np.argwhere(known & (values != 0) & (values != 1))
    if len(wrong):
        row, column = wrong[0].tolist()
        raise UsageError(
            f"`y` with several columns must hold 0, 1 or nan, found {values[row, column]:g} in row {row}, column "
            f"{column}",
            hint="a column of classes becomes one column for each class: pandas.get_dummies",
        )
    groups = factorize(persons)[1]
    counts = count_rows(groups, label_strata(values))
    return GroupCounts(groups, np.bincount(groups), counts, counts.shape[1], overlapping=True)


def iterative_folds(people: GroupCounts, k: int, seed: int, shares: Sequence[float] | None = None) -> NDArray[np.int64]:
    """Return (people,) folds by iterative stratification of whole people; a fold can be empty.

    Of the strata with people left, that with the fewest such people is next, and of these people the one with the most
    rows of it. The fold is the one that lacks the most rows of the stratum, then the most rows at all; equal ones by
    the seed. Folds are of equal size, or as the fractions `shares` say.
    """
    counts, sizes = people.counts, people.sizes.astype(np.float64)
    order = np.random.default_rng(seed).permutation(len(people))  # of equal people
    preferred = np.random.default_rng([seed, k]).permutation(k)  # of equal folds
    lacking, room = np.tile(counts.sum(axis=0) / k, (k, 1)), np.full(k, sizes.sum() / k)
    if shares is not None and len(set(shares)) > 1:
        lacking, room = np.outer(shares, counts.sum(axis=0)), np.array(shares) * sizes.sum()
    fold = np.full(len(people), -1, np.int64)
    left = (counts > 0).sum(axis=0)

    def assign(person: int, stratum: int | None) -> None:
        wanted = room if stratum is None else lacking[:, stratum]
        best = np.lexsort((preferred, -room, -wanted))[0]
        fold[person] = best
        lacking[best] -= counts[person]
        room[best] -= sizes[person]
        left[counts[person] > 0] -= 1

    while left.any():
        stratum = int(np.where(left > 0, left, np.iinfo(np.int64).max).argmin())
        open_people = np.flatnonzero((fold < 0) & (counts[:, stratum] > 0))
        ranked = open_people[np.lexsort((order[open_people], -sizes[open_people], -counts[open_people, stratum]))]
        for person in ranked.tolist():
            assign(person, stratum)
    for person in sorted(np.flatnonzero(fold < 0).tolist(), key=lambda one: (-sizes[one], order[one])):
        assign(person, None)
    return fold
