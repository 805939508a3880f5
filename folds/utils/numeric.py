"""Convert logits to probabilities and names to codes, and find groups with rows in several folds; numpy only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

_COMPARED = 1 << 14  # neighbors at a time: texts that are not sorted are found soon


def softmax(logits: NDArray[np.floating], out: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Return probabilities along the last axis, in float64, stable for any finite logits.

    Parameters
    ----------
    out : array for the result, float64 of the same shape; may be `logits` itself, which saves a copy of large blocks.
    """
    values = np.asarray(logits, dtype=np.float64)
    values = np.subtract(values, values.max(axis=-1, keepdims=True), out=out)
    np.exp(values, out=values)
    values /= values.sum(axis=-1, keepdims=True)
    return values


def sigmoid(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(−z)) of each value, in float64, stable for any finite logits."""
    values = np.asarray(logits, dtype=np.float64)
    small = np.exp(-np.abs(values))
    return np.where(values >= 0, 1.0, small) / (1 + small)


def groups_in_several_folds(groups: NDArray[np.integer], fold: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the groups (people) with rows in two or more folds, ascending; every check for such people uses this
    function.

    Parameters
    ----------
    groups : (n,) a number from 0 for each row.
    fold : (n,) from 0; rows with an unknown fold (below 0) are ignored.
    """
    known = fold >= 0
    groups, fold = groups[known], fold[known]
    if not len(groups):
        return np.zeros(0, np.int64)
    one_of = np.zeros(int(groups.max()) + 1, fold.dtype)
    one_of[groups] = fold
    return np.unique(groups[one_of[groups] != fold]).astype(np.int64)


def factorize(values: NDArray[Any] | Sequence[Any]) -> tuple[list[Any], NDArray[np.int64]]:
    """Return ``np.unique(values, return_inverse=True)`` without sorting all values: a dict or a count is several times
    as fast.

    An array is processed in parts, because its texts as Python strings take up to a hundred bytes each.

    Parameters
    ----------
    values : (n,) names or numbers, an array or a sequence.

    Returns
    -------
    The distinct values in ascending order, and (n,) the position of each value among them. The codes do not depend on
    the order of the rows: the jackknife of more than 4096 people groups them by code, so equal data must get equal
    codes.
    """
    if isinstance(values, np.ndarray) and _is_dense(values):
        occurs = np.bincount(values) > 0
        return np.flatnonzero(occurs).tolist(), (np.cumsum(occurs) - 1)[values]
    if isinstance(values, np.ndarray) and values.dtype.kind == "U" and len(values):
        # Rows of one person mostly follow each other: only the first of equal neighbors is looked up.
        first = np.concatenate([[True], values[1:] != values[:-1]])
        if 2 * np.count_nonzero(first) <= len(values):
            distinct, codes = _by_dict(values[first])
            return distinct, codes[np.cumsum(first) - 1]
    if isinstance(values, list) and len(values) > _COMPARED and 2 * len(set(map(id, values[:_COMPARED]))) <= _COMPARED:
        return _by_address(values)
    return _by_dict(values)


def _by_address(values: list[Any]) -> tuple[list[Any], NDArray[np.int64]]:
    """Return what `factorize` does for objects most of which occur often, as the cells of a table: a dict of the
    objects instead of all values, which lie in memory as chance has it.
    """
    address = np.fromiter(map(id, values), np.int64, len(values))
    changes = np.concatenate([[True], address[1:] != address[:-1]])
    starts = np.flatnonzero(changes)
    address = address[starts]
    order = np.argsort(address, kind="stable")
    first = np.concatenate([[True], np.diff(address[order]) != 0])
    distinct, codes = _by_dict([values[i] for i in starts[order[first]].tolist()])
    codes = codes[np.cumsum(first) - 1]
    address[order] = codes  # now of each start
    return distinct, address if len(starts) == len(values) else address[np.cumsum(changes) - 1]


def _by_dict(values: NDArray[Any] | Sequence[Any]) -> tuple[list[Any], NDArray[np.int64]]:
    """Return what `factorize` does, by a dict of all values."""
    seen: defaultdict[Any, int] = defaultdict(count().__next__)  # numbers in the order of appearance
    codes = np.empty(len(values), np.int64)
    for start in range(0, len(values), 1 << 16):
        part = values[start : start + (1 << 16)]
        names = part.tolist() if isinstance(part, np.ndarray) else part
        codes[start : start + len(names)] = np.fromiter(map(seen.__getitem__, names), np.int64, len(names))
    distinct = sorted(seen)
    position = np.empty(len(distinct), np.int64)
    position[[seen[name] for name in distinct]] = np.arange(len(distinct))
    return distinct, position[codes]


def connected_components(n: int, first: NDArray[np.integer], second: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return (n,) the component of each node, numbered from 0 in the order of their first nodes.

    Parameters
    ----------
    first, second : (edges,) the two nodes of each edge, from 0 to n - 1.
    """
    parent = list(range(n))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        a, b = root(one), root(other)
        parent[max(a, b)] = min(a, b)
    return np.unique([root(node) for node in range(n)], return_inverse=True)[1].astype(np.int64)


def are_distinct(texts: NDArray[np.str_]) -> bool:
    """Return whether no text of (n,) is repeated; of sorted texts this needs no string of each."""
    for start in range(0, len(texts) - 1, _COMPARED):
        part = texts[start : start + _COMPARED + 1]
        if not (part[1:] > part[:-1]).all():
            return len(set(texts.tolist())) == len(texts)
    return True


def _is_dense(values: NDArray[Any]) -> bool:
    """Return whether values (n,) are whole numbers from 0 that are small enough to be counted."""
    integers = values.dtype.kind in "iu" and len(values) > 0
    return bool(integers and values.min() >= 0 and int(values.max()) <= 4 * len(values))


def distinct_numbers(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the sorted distinct values of (n,) int64. The hash table of `np.unique` takes ten times as long (NumPy
    2.4).
    """
    ascending = np.sort(values)
    return ascending[np.concatenate([[True], ascending[1:] != ascending[:-1]])] if len(ascending) else ascending
