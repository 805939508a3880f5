"""What each member would make of a score that is made of counts, for greedy selection; numpy only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from folds.metrics.classification import Metric

# A row is left alone only if it is short of a change by this much more than rounding can make up.
SLACK = 1e-6
# Numbers handled at once, so that they stay in a core's cache.
_AT_ONCE = 1 << 15


@dataclass(frozen=True)
class Decisions:
    """What members say on rows, for all courses on them.

    Attributes
    ----------
    by_member : (members, n · classes) the probabilities; rows of 0 where a member is absent.
    by_row : (n · classes, members) the same numbers.
    decided : (members, n) each member's own decision, −1 where it is absent.
    first, second : (members, n) its largest probability and the one after it.
    lowest, highest : (n, classes) over the members.
    """

    by_member: NDArray
    by_row: NDArray
    decided: NDArray[np.signedinteger]
    first: NDArray
    second: NDArray
    lowest: NDArray
    highest: NDArray

    @staticmethod
    def of(probabilities: NDArray, present: NDArray[np.bool_] | None) -> Decisions:
        """From (members, n, classes) and (members, n); in blocks of rows that stay in a core's cache."""
        members, n, classes = probabilities.shape
        dtype = probabilities.dtype
        by_row = np.empty((n, classes, members), dtype)
        decided = np.empty((members, n), np.min_scalar_type(-classes))
        first, second = np.empty((2, members, n), dtype)
        lowest, highest = np.empty((2, n, classes), dtype)
        size = max(1, 4 * _AT_ONCE // (members * classes))
        for start in range(0, n, size):
            part = slice(start, start + size)
            block = np.ascontiguousarray(probabilities[:, part].transpose(2, 1, 0))
            by_row[part] = block.transpose(1, 0, 2)
            lowest[part], highest[part] = block.min(axis=2).T, block.max(axis=2).T
            one, two, which = block[0].copy(), np.zeros_like(block[0]), np.zeros(block[0].shape, decided.dtype)
            for c, value in enumerate(block[1:], 1):
                # The first of equals stays, as in an argmax.
                np.maximum(which, np.multiply(value > one, c, dtype=which.dtype), out=which)
                np.maximum(two, np.minimum(one, value), out=two)
                np.maximum(one, value, out=one)
            decided[:, part], first[:, part], second[:, part] = which.T, one.T, two.T
        if present is not None:
            decided[~present] = -1
        return Decisions(
            probabilities.reshape(members, -1), by_row.reshape(-1, members), decided, first, second, lowest, highest
        )


class CountsCourse:
    """A metric of hits, labels and predictions.

    The decision of a row is the largest running sum. Class b can overtake the decision t by one more member only if
    sum_b + (largest p_b of all members) ≥ sum_t + (smallest p_t of all members). All other pairs (row, b) are left
    alone.
    By how much a row is short of such a pair is its lead; a member that is taken shortens it by (its largest p_b) − p_t
    at
    most, so most rows need not be looked at. In the others every member's sums are compared in float64 as an argmax
    would, one pass a contender.

    Parameters
    ----------
    labels : (n,).
    selected : (n,) bool, the rows that count.
    of_counts : (…, 3, classes) → (…).
    """

    def __init__(
        self,
        members: Decisions,
        labels: NDArray[np.int64],
        selected: NDArray[np.bool_],
        of_counts: Callable[[NDArray], NDArray],
    ) -> None:
        self.of, self.labels, self.of_counts = members, labels, of_counts
        self.members, self.n = members.decided.shape
        self.classes = members.lowest.shape[1]
        self.sums = np.zeros(self.n * self.classes)
        self.top = np.zeros(self.n, np.int64)
        self.open = np.flatnonzero(selected)  # rows that no member taken predicts
        self.lead = np.full(self.n, np.inf)  # of rows that count and are predicted: what no member can make up
        self.hits, self.predictions = np.zeros((2, self.classes), np.int64)  # of the members taken
        self.truth = np.bincount(labels[selected], minlength=self.classes)
        self.rows = np.zeros(0, np.int64)  # those in which some member may change the decision
        self.candidates = np.zeros((self.members, 3, self.classes), np.int64)
        # A decision's key is its class, plus `classes` if it is right; each member has its own keys.
        self.keys = 2 * self.classes
        self.cells = self.classes * np.arange(self.n)
        self.offsets = self.keys * np.arange(self.members)

    def scores(self) -> NDArray[np.float64]:
        """(members,) the score with one more of each member."""
        tally = np.zeros(self.members * self.keys, np.int64)
        tally += self._contests()
        if len(self.open):
            tally += self._firsts()
        wrong, right = tally.reshape(self.members, 2, self.classes).transpose(1, 0, 2)
        top, labels = self.top[self.rows], self.labels[self.rows]
        self.candidates[:, 0] = right + self.hits - np.bincount(top[top == labels], minlength=self.classes)
        self.candidates[:, 1] = self.truth
        self.candidates[:, 2] = right + wrong + self.predictions - np.bincount(top, minlength=self.classes)
        return np.asarray(self.of_counts(self.candidates), np.float64)

    def take(self, member: int) -> None:
        """Add a member, of the step that `scores` was asked for."""
        of = self.of
        self.sums += of.by_member[member]
        self.hits, _, self.predictions = self.candidates[member].copy()
        own = of.by_member[member].take(self.cells + self.top).astype(np.float64)
        self.lead += own - np.where(of.decided[member] == self.top, of.second[member], of.first[member])
        changed = self.rows
        if len(self.open):
            covered = of.decided[member, self.open] >= 0
            new, self.open = self.open[covered], self.open[~covered]
            changed = np.concatenate([changed, new])
        self.lead[changed] = -np.inf
        self.top[changed] = self.sums.reshape(self.n, self.classes).take(changed, axis=0).argmax(axis=1)

    def _contests(self) -> NDArray[np.int64]:
        """(members · keys,) how often each member with the others comes to each decision, on the rows that may change
        (`rows`).
        """
        rows = np.flatnonzero(self.lead <= 0)
        reach = self.sums.reshape(self.n, self.classes).take(rows, axis=0)
        top = self.top[rows]
        held = self.sums.take(self.cells[rows] + top) + self.of.lowest.take(self.cells[rows] + top) - SLACK
        reach += self.of.highest.take(rows, axis=0)
        # The decision itself is always among them.
        found = np.flatnonzero(reach >= held[:, None])
        of = found // self.classes
        size = np.bincount(of, minlength=len(rows))
        settled = np.flatnonzero(size == 1)
        others = reach.take(settled, axis=0)
        others[np.arange(len(settled)), top[settled]] = -np.inf
        self.lead[rows[settled]] = held[settled] - others.max(axis=1, initial=-np.inf)
        classes = found - of * self.classes
        pairs = rows[of] * self.classes + classes
        keys = classes + self.classes * (classes == self.labels[rows[of]])
        # Rows with many contenders first, so that those with a k-th one are a slice.
        order = np.argsort((-size).astype(np.min_scalar_type(-self.classes)), kind="stable")
        order = order[: np.count_nonzero(size > 1)]
        starts, size = (np.cumsum(size) - size)[order], size[order]
        self.rows = rows[order]
        tally = np.zeros(self.members * self.keys, np.int64)
        if not len(order):
            return tally
        many = [int(np.searchsorted(-size, -k)) for k in range(int(size[0]))]
        ranked = [pairs[starts[:m] + k] for k, m in enumerate(many)]
        height = max(1, max(_AT_ONCE, len(tally)) // self.members)
        for start in range(0, len(order), height):
            part = slice(start, start + height)
            best = self._added(ranked[0][part])
            which = np.zeros(best.shape, np.min_scalar_type(len(ranked)))
            for k, pair in enumerate(ranked[1:], 1):
                value = self._added(pair[part])
                m = len(value)
                if not m:
                    break
                # Classes come in order, so the first of equals stays, as in an argmax.
                better = (value > best[:m]).view(np.uint8)
                np.maximum(which[:m], np.multiply(better, k, dtype=which.dtype), out=which[:m])
                np.maximum(best[:m], value, out=best[:m])
            decision = keys.take(starts[part, None] + which)
            decision += self.offsets
            tally += np.bincount(decision.reshape(-1), minlength=len(tally))
        return tally

    def _added(self, index: NDArray[np.int64]) -> NDArray[np.float64]:
        """(len(index), members) the sums with one more of each member."""
        values = self.of.by_row.take(index, axis=0).astype(np.float64)
        values += self.sums.take(index)[:, None]
        return values

    def _firsts(self) -> NDArray[np.int64]:
        """(members · keys,) what each member decides on the rows that it would be the first to predict."""
        tally = np.zeros(self.members * self.keys, np.int64)
        labels = self.labels[self.open]
        for member, offset in enumerate(self.offsets):
            decided = self.of.decided[member, self.open].astype(np.int64)
            keys = decided + self.classes * (decided == labels)
            tally[offset : offset + self.keys] = np.bincount(keys[decided >= 0], minlength=self.keys)
        return tally


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
            below = _log_products(self.divisors, _with_ones(padded, small)) - np.log1p(self.totals[:, small]).sum(
                axis=1
            )
        if len(small):
            logs -= np.log1p(self.true[:, small]).sum(axis=1)
            means = np.divide(
                numerators, denominators, out=np.full(numerators.shape, 1 / self.classes), where=denominators > 0
            )
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

    def __init__(
        self, probabilities: NDArray, labels: NDArray[np.int64], metric: Metric, rows: NDArray[np.int64] | None
    ) -> None:
        self.probabilities, self.metric, self.rows = probabilities, metric, rows
        self.labels = labels if rows is None else labels[rows]
        self.sums = np.zeros((len(self.labels), probabilities.shape[2]))

    def scores(self) -> NDArray[np.float64]:
        """(members,) the score with one more of each member."""
        return np.array(
            [self.metric(self.labels, normalised(self.sums + self._of(i))) for i in range(len(self.probabilities))],
            np.float64,
        )

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
