"""Repeat a split: several independent partitions of the same people, and a measure of their similarity."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from folds.config.command_settings import Settings
from folds.data.table import SampleTable
from folds.errors import EnsembleError, UsageError
from folds.metrics.task_names import MULTILABEL
from folds.splits.assignment import FoldAssignment
from folds.splits.columns import folds_of_column
from folds.splits.kfold import Columns, assigned, hold_out, people_for_folds, split_by_person
from folds.splits.label_search import spread_labels
from folds.splits.repair import balance
from folds.splits.sites import leave_out_sites, site_column
from folds.splits.strata import GroupCounts, columns_named, count_groups
from folds.utils.files import derive_seed

logger = logging.getLogger(__name__)

MAX_INDEPENDENT_INDEX = 0.1  # adjusted Rand index up to which two partitions count as independent
RESTARTS = 10
SAME_INDEX = 0.99  # adjusted Rand index above which two partitions count as equal
STEPS = 200  # search steps per restart; three times as many give no better and less independent partitions


def make_splits(
    table: SampleTable,
    settings: Settings,
    seed: int = 0,
) -> list[FoldAssignment]:
    """Return the assignments for the settings: the folds of a column, one fold for each site, one split into k folds,
    several independent ones, or one held-out part.

    The changes by repair, the similarity of repeats, and a warning about equal repeats are logged.
    """
    if settings.fold_column is not None:
        return [folds_of_column(table, settings.fold_column)]
    if settings.leave_out is not None:
        return [leave_out_sites(table, settings.leave_out)]
    spread = settings.stratify
    if settings.group_within is not None:
        site_column(table, settings.group_within)
        spread = tuple(dict.fromkeys((*spread, settings.group_within)))
    columns, repaired = columns_named(table, spread) if spread else None, settings.repair
    made = (
        repeated_splits(table, settings.k, settings.repeats, seed, columns, repaired)
        if settings.holdout is None
        else [hold_out(table, settings.holdout, seed, columns, repaired)]
    )
    if made[0].repair is not None:
        start = "iterative stratification of persons" if made[0].task == MULTILABEL else "those of scikit-learn"
        logger.info(f"folds: {start}, with repair: {made[0].repair_text}")
    if len(made) > 1:
        index = max_rand_index(made)
        logger.info(f"repeats: the adjusted Rand index of any two is at most {index:.2f} (0: independent, 1: equal)")
        for line in repeat_warnings(made, repaired):
            logger.warning(line)
    return [
        replace(each, stratify=settings.stratify, group_within=settings.group_within).with_codes_of(table)
        for each in made
    ]


def repeat_warnings(assignments: list[FoldAssignment], repaired: bool = True) -> list[str]:
    """Return a warning if two of the repeats are equal, or nearly; [] otherwise."""
    if len(assignments) < 2 or max_rand_index(assignments) <= SAME_INDEX:
        return []
    advice = "" if repaired else "; with repair they are independent"
    return [f"two of the repeats are equal or nearly equal{advice}"]


def repeated_splits(
    table: SampleTable,
    k: int,
    repeats: int,
    seed: int = 0,
    stratify: NDArray[np.str_] | Columns | None = None,
    repaired: bool = True,
) -> list[FoldAssignment]:
    """Return `repeats` assignments to k folds: the first is that of `split_by_person`, the others are independent.

    Other seeds alone do not give independent partitions: people with many or uneven samples determine the greedy
    assignment, and shuffling only breaks ties, so twenty seeds can give one partition. Here people are sorted by size,
    each k consecutive ones are assigned randomly to the k folds, and moves and swaps (`folds.splits.repair.balance`)
    then spread the classes. Of up to `RESTARTS` such restarts the first is used whose adjusted Rand index with all
    earlier repeats is at most `MAX_INDEPENDENT_INDEX`, else the one with the lowest index.

    Without `repaired`, the repeats are those of scikit-learn with consecutive seeds, for comparison; they can be equal.

    Raises
    ------
    UsageError : `repeats` is below 1.
    EnsembleError : there are too few people for another partition; see also `split_by_person`.
    """
    if repeats < 1:
        raise UsageError(f"`repeats` must be 1 or more, found {repeats}")
    found = [split_by_person(table, k, seed, stratify, repaired)]
    if not repaired:
        return found + [
            replace(split_by_person(table, k, seed + i, stratify, repaired), seed=seed, repeat=i)
            for i in range(1, repeats)
        ]
    people = people_for_folds(table, k, seed, stratify)
    _, first = np.unique(people.groups, return_index=True)
    folds = [found[0].fold[first]]
    for repeat in range(1, repeats):
        fold, index = _most_independent(people, folds, k, (seed, repeat))
        if index >= 1 - 1e-9:
            raise EnsembleError(
                f"expected {repeats} different partitions of {len(people)} people into {k} folds, found {repeat}",
                hint=f"try `repeats={repeat}`",
            )
        folds.append(fold)
        found.append(assigned(table, fold[people.groups], k, seed, repeat=repeat))
    return found


def _most_independent(
    people: GroupCounts, folds: list[NDArray[np.int64]], k: int, seed: tuple[int, int]
) -> tuple[NDArray[np.int64], float]:
    """Return a partition (people,) independent of all in `folds`, else the least similar; and its largest index."""
    from sklearn.metrics import adjusted_rand_score

    found, index = folds[0], 1.0
    for restart in range(RESTARTS):
        random = np.random.default_rng(derive_seed(*seed, restart, "repeat"))
        other = _spread(people, _deal(people, k, random), [1 / k] * k, random)
        largest = max(float(adjusted_rand_score(other, earlier)) for earlier in folds)
        if largest < index:
            found, index = other, largest
        if index <= MAX_INDEPENDENT_INDEX:
            break
    return found, index


def repeated_holdouts(
    table: SampleTable, share: float, count: int, seed: int = 0, repaired: bool = True
) -> list[FoldAssignment]:
    """Return `count` splits with about `share` of the samples held out: the first is that of `hold_out`, others random.

    The others start with random people held out; moves and swaps then spread the classes. Two of them can be equal if
    there are few people. Without `repaired` they are those of `hold_out` with consecutive seeds.

    Raises
    ------
    UsageError : `count` is below 1; see also `hold_out`.
    """
    if count < 1:
        raise UsageError(f"`count` must be 1 or more, found {count}")
    found = [hold_out(table, share, seed, repaired=repaired)]
    if not repaired:
        return found + [
            replace(hold_out(table, share, seed + i, repaired=False), seed=seed, repeat=i) for i in range(1, count)
        ]
    people = count_groups(table, None, max(2, min(round(1 / share), len(table))))
    shares = (share, 1 - share)
    for repeat in range(1, count):
        random = np.random.default_rng(derive_seed(seed, repeat, "holdout"))
        order = random.permutation(len(people))
        filled = np.cumsum(people.sizes[order])
        out = max(1, min(int(np.abs(filled - share * filled[-1]).argmin()) + 1, len(people) - 1))
        part = np.ones(len(people), np.int64)
        part[order[:out]] = 0
        part = _spread(people, part, shares, random)
        found.append(assigned(table, -part[people.groups], 1, seed, repeat=repeat))
    return found


def _spread(
    people: GroupCounts, fold: NDArray[np.int64], shares: Sequence[float], random: np.random.Generator
) -> NDArray[np.int64]:
    """Return (people,) folds that a search finds from `fold`, in few steps, so that they stay independent of others."""
    if people.overlapping:
        return spread_labels(people, [fold], shares, random, STEPS)
    return balance(people, fold, shares, random, STEPS)


def _deal(people: GroupCounts, k: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Return random (people,) folds: the k largest people go to one fold each, the next k likewise, …"""
    order = np.lexsort((random.random(len(people)), -people.sizes))
    rounds = -(-len(people) // k)
    dealt = random.random((rounds, k)).argsort(axis=1).ravel()[: len(people)]
    fold = np.empty(len(people), np.int64)
    fold[order] = dealt
    return fold


def max_rand_index(assignments: list[FoldAssignment]) -> float:
    """Return the largest adjusted Rand index of two assignments of one table, over people (Hubert and Arabie, 1985).

    1 means equal partitions, 0 the expected similarity of independent ones: 1 − index is the number of pairs of people
    who share a fold in exactly one of the two, divided by its expectation for random partitions with the same fold
    sizes.
    """
    from sklearn.metrics import adjusted_rand_score

    _, first = np.unique(assignments[0].persons, return_index=True)
    return max(
        float(adjusted_rand_score(one.fold[first], other.fold[first])) for one, other in combinations(assignments, 2)
    )
