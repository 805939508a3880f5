"""Turn logits into probabilities and names into codes, and find groups that stand in several folds; numpy only."""

from __future__ import annotations

from typing import Any

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


def factorize(values: NDArray[Any]) -> tuple[list[Any], NDArray[np.int64]]:
    """Return ``np.unique(values, return_inverse=True)`` without sorting: a dict or a count is several times as fast.

    Parameters
    ----------
    values : (n,) names or numbers.

    Returns
    -------
    The distinct values in ascending order, and (n,) the position of each value among them. The codes do not depend on
    the order of the rows: the jackknife of very many people groups them by code, so that equal rows must get equal codes.
    """
    if values.dtype.kind in "iu" and len(values) and values.min() >= 0 and int(values.max()) <= 4 * len(values):
        occurs = np.bincount(values) > 0
        return np.flatnonzero(occurs).tolist(), (np.cumsum(occurs) - 1)[values]
    names = values.tolist()
    distinct = sorted(set(names))
    code = {name: i for i, name in enumerate(distinct)}
    return distinct, np.fromiter(map(code.__getitem__, names), np.int64, len(names))
