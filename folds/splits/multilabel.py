"""Split by person with several labels a sample, or a number: iterative stratification of whole people, repaired."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from folds.errors import EnsembleError, UsageError
from folds.splits.greedy import fill_empty
from folds.splits.repair import balance
from folds.splits.strata import GroupCounts
from folds.utils.numeric import factorize

MOST_BINS = 10  # of a number
# Weight of the mean deviation in the search: with that of one label, 0.5, the mean over many labels stays large.
MEAN_WEIGHT = 3.0


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
    fold = fill_empty(iterative_folds(people, k, seed), people.sizes, k)
    if repaired:
        random = np.random.default_rng([seed, len(people)])
        fold = balance(people, fold, [1 / k] * k, random, mean_weight=MEAN_WEIGHT)
    return fold[people.groups]


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
    with_label, without = (values == 1), known & (values == 0)
    counted = [with_label[:, i] for i in range(values.shape[1])]
    counted += [
        without[:, i]
        for i in range(values.shape[1])
        if not known[:, i].all() or without[:, i].sum() < with_label[:, i].sum()
    ]
    used = [rows for rows in counted if rows.any()] or [np.ones(len(groups), bool)]
    counts = np.stack([np.bincount(groups, rows) for rows in used], axis=1).astype(np.float64)
    return GroupCounts(groups, np.bincount(groups), counts, counts.shape[1])


def iterative_folds(people: GroupCounts, k: int, seed: int) -> NDArray[np.int64]:
    """Return (people,) folds by iterative stratification of whole people; a fold can be empty.

    Of the strata with people left, that with the fewest such people is next, and of these people the one with the most
    rows of it. The fold is the one that lacks the most rows of the stratum, then the most rows at all; equal ones by
    the seed.
    """
    counts, sizes = people.counts, people.sizes.astype(np.float64)
    order = np.random.default_rng(seed).permutation(len(people))  # of equal people
    preferred = np.random.default_rng([seed, k]).permutation(k)  # of equal folds
    lacking, room = np.tile(counts.sum(axis=0) / k, (k, 1)), np.full(k, sizes.sum() / k)
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


def quantile_bins(values: NDArray[np.floating], persons: NDArray, folds: int) -> NDArray[np.int64]:
    """Return (n,) the bin of each number, as strata for a split: quantiles, 2 to 10 of them, fewer with few people.

    Equal numbers are in one bin. Each bin has about one person a fold, or more.
    """
    people = len(factorize(persons)[0])
    bins = int(np.clip(people // folds, 2, MOST_BINS))
    edges = np.unique(np.quantile(values, np.arange(1, bins) / bins))
    return np.searchsorted(edges, values, side="right").astype(np.int64)
