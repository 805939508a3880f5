"""Logits to probabilities; numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probabilities along the last axis, in float64, stable for any finite logits."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = np.exp(shifted - shifted.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


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
