"""What each member would make of a running combination's score, for greedy selection; numpy only.

A course holds the sum of the members taken so far. `scores` tells the score with each member added, `take` adds one. All
sums are float64. Three courses: log loss needs only the true class's column; a metric of counts only the rows whose
decision some member can still change; any other metric is called on the whole matrix, once a member.

A member absent on a row leaves the row to the others: the combination is the mean over those of the members taken that
are present. A row that none of them predicts holds 1 / classes everywhere, and counts as predicted to be no class at all.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from folds.metrics.classification import Metric

# Probabilities multiplied before a logarithm is taken of them: at least 1e-10 each, so the product is a normal float64.
FACTORS = 16
# Rows whose sum for the true class may come out below this are taken one by one, clipped as the log loss clips them.
SMALL = 1e-10


class Course(Protocol):
    """A running combination."""

    def scores(self) -> NDArray[np.float64]:
        """(members,) the score of the combination with one more of each member."""

    def take(self, member: int) -> None:
        """Add a member, after `scores`."""


class LogLossCourse:
    """Mean −log p of the true class.

    Σ log(a + p) over rows is Σ log Π(a + p) over groups of `FACTORS` rows: two operations a number, and a logarithm
    a group. Its relative rounding is that of a sum of as many float64.

    Parameters
    ----------
    true : (members, n) float64, the true class's probability, 0 where a member is absent.
    totals : (members, n) float64, each row's sum of probabilities, 0 where a member is absent.
    whole : all members are present and all totals within 1e-6 of 1: then log Σ totals is linear in them to 1e-12.
    """

    def __init__(self, true: NDArray[np.float64], totals: NDArray[np.float64], classes: int, whole: bool) -> None:
        self.true, self.totals, self.classes, self.whole = true, totals, classes, whole
        self.n, self.taken = true.shape[1], 0
        self.factors, self.lowest = _in_groups(true), true.min(axis=0)
        self.sums = np.ones(self.factors.shape[1:]).reshape(-1)
        self.sums[: self.n] = 0
        self.below = np.zeros(self.n)
        self.columns = totals.sum(axis=1) if whole else None
        self.divisors = None if whole else _in_groups(totals)

    def scores(self) -> NDArray[np.float64]:
        """(members,) the loss with one more of each member."""
        small = np.flatnonzero(self.sums[: self.n] + self.lowest < SMALL)
        sums = _with_ones(self.sums, small)
        logs = _log_products(self.factors, sums)
        numerators, denominators = self.sums[small] + self.true[:, small], self.below[small] + self.totals[:, small]
        if self.columns is not None:
            count, rest = self.taken + 1, self.n - len(small)
            excess = self.below.sum() + self.columns - denominators.sum(axis=1) - rest * count
            below = rest * np.log(count) + excess / count
        else:
            assert self.divisors is not None  # noqa: S101
            padded = np.ones(len(self.sums))
            padded[: self.n] = self.below
            below = _log_products(self.divisors, _with_ones(padded, small)) - np.log1p(self.totals[:, small]).sum(axis=1)
        if len(small):
            logs -= np.log1p(self.true[:, small]).sum(axis=1)
            means = np.divide(numerators, denominators, out=np.full(numerators.shape, 1 / self.classes), where=denominators > 0)
            smallest = np.finfo(np.float64).eps
            logs += np.log(np.clip(means, smallest, 1 - smallest)).sum(axis=1)
        return (below - logs) / self.n

    def take(self, member: int) -> None:
        """Add a member."""
        self.sums[: self.n] += self.true[member]
        self.below += self.totals[member]
        self.taken += 1


def _in_groups(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(members, n) → (members, FACTORS, ⌈n / FACTORS⌉), filled up with 0."""
    members, n = values.shape
    width = -(-n // FACTORS)
    grouped = np.zeros((members, FACTORS * width))
    grouped[:, :n] = values
    return grouped.reshape(members, FACTORS, width)


def _with_ones(values: NDArray[np.float64], index: NDArray[np.int64]) -> NDArray[np.float64]:
    if not len(index):
        return values
    changed = values.copy()
    changed[index] = 1
    return changed


def _log_products(grouped: NDArray[np.float64], sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """(members,) Σ log(sums + values), of what `_in_groups` gives."""
    added, products = np.empty(grouped.shape[1:]), np.empty((len(grouped), grouped.shape[2]))
    sums = sums.reshape(grouped.shape[1:])
    for member, values in enumerate(grouped):
        np.add(values, sums, out=added)
        np.multiply.reduce(added, axis=0, out=products[member])
    return np.asarray(np.log(products, out=products).sum(axis=1))


class AnyCourse:
    """Any metric, called on the combination with each member: as slow as the metric is.

    Parameters
    ----------
    probabilities : (members, n, classes), 0 where a member is absent.
    """

    def __init__(self, probabilities: NDArray, labels: NDArray[np.int64], metric: Metric, rows: NDArray[np.int64] | None) -> None:
        self.probabilities, self.metric, self.rows = probabilities, metric, rows
        self.labels = labels if rows is None else labels[rows]
        self.sums = np.zeros((len(self.labels), probabilities.shape[2]))

    def scores(self) -> NDArray[np.float64]:
        """(members,) the score with one more of each member."""
        return np.array([self.metric(self.labels, normalised(self.sums + self._of(i))) for i in range(len(self.probabilities))], np.float64)

    def take(self, member: int) -> None:
        """Add a member."""
        self.sums += self._of(member)

    def _of(self, member: int) -> NDArray:
        values = self.probabilities[member]
        return values if self.rows is None else values[self.rows]


def normalised(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, classes) sums → rows that sum to 1; 1 / classes where there is nothing. Works in place."""
    totals = sums.sum(axis=1, keepdims=True)
    empty = totals[:, 0] <= 0
    if empty.any():
        sums[empty], totals[empty] = 1, sums.shape[1]
    sums /= totals
    return sums
