"""Arrays of numbers: softmax, codes of names, groups that folds tear apart; numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def softmax(logits: NDArray[np.floating], out: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Return probabilities along the last axis, in float64, stable for any finite logits.

    Parameters
    ----------
    out : where to put them, float64 of the same shape; may be `logits` itself, which saves a copy of large blocks.
    """
    values = np.asarray(logits, dtype=np.float64)
    values = np.subtract(values, values.max(axis=-1, keepdims=True), out=out)
    np.exp(values, out=values)
    values /= values.sum(axis=-1, keepdims=True)
    return values


def groups_in_several_folds(groups: NDArray[np.integer], fold: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the groups (people) that have rows in two folds or more, ascending; this decides what "in several folds" means.

    Parameters
    ----------
    groups : (n,) a number from 0 up for each row.
    fold : (n,) from 0 up; rows whose fold is not known (below 0) tear nobody apart.
    """
    known = fold >= 0
    groups, fold = groups[known], fold[known]
    if not len(groups):
        return np.zeros(0, np.int64)
    one_of = np.zeros(int(groups.max()) + 1, fold.dtype)
    one_of[groups] = fold
    return np.unique(groups[one_of[groups] != fold]).astype(np.int64)


def factorize(values: NDArray[np.str_]) -> tuple[list[str], NDArray[np.int64]]:
    """``np.unique(values, return_inverse=True)`` for (n,) str, without sorting n strings: a set and a dict are several times as quick."""
    names = values.tolist()
    distinct = sorted(set(names))
    code = {name: i for i, name in enumerate(distinct)}
    return distinct, np.fromiter(map(code.__getitem__, names), np.int64, len(names))


def group_codes(persons: NDArray) -> NDArray[np.int64]:
    """(n,) names → (n,) numbers in the order of the names.

    Very many people are put into groups by number, so every score of the same rows numbers them alike, whatever their order.
    """
    if persons.dtype.kind in "iu" and len(persons) and persons.min() >= 0 and int(persons.max()) <= 4 * len(persons):
        there = np.bincount(persons) > 0  # numbers already, so to count is quicker than to sort
        return (np.cumsum(there) - 1)[persons]
    names = persons.tolist()
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    return np.array([numbers[name] for name in names], dtype=np.int64)
