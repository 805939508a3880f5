"""What each member would make of a running combination's score, for greedy selection; numpy only.

A course holds the sum of the members taken so far. `scores` tells the score with each member added, `take` adds one. All
sums are float64. Three courses: log loss needs only the true class's column; a metric of counts only the rows whose
decision some member can still change; any other metric is called on the whole matrix, once a member.

A member absent on a row leaves the row to the others: the combination is the mean over those of the members taken that
are present. A row that none of them predicts holds 1 / classes everywhere, and counts as predicted to be no class at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from folds.scores import Metric

# Probabilities multiplied before a logarithm is taken of them: at least 1e-10 each, so the product is a normal float64.
FACTORS = 16
# Rows whose sum for the true class may come out below this are taken one by one, clipped as the log loss clips them.
SMALL = 1e-10
# A row is asleep only if it stays below its decision by this much more than rounding can make up.
SLACK = 1e-6
# Numbers handled at once, so that they stay in a core's cache.
_AT_ONCE = 1 << 15
_NEVER = np.iinfo(np.int32).max


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


class CountsCourse:
    """A metric of hits, labels and predictions.

    The decision of a row is the largest running sum. Class b can overtake the decision t by one more member only if
    sum_b + (largest p_b of all members) ≥ sum_t + (smallest p_t of all members). All other pairs (row, b) are left alone,
    and a row without such a pair sleeps for as many steps as its lead lasts at least. For the rest, every member's sums
    are compared in float64 as an argmax would, one pass a contender.

    Parameters
    ----------
    probabilities : (members, n, classes) C-contiguous.
    by_row : (n · classes, members) the same numbers.
    decided : (members, n) each member's own decision, −1 where it is absent.
    lowest, highest : (n, classes) over the members.
    labels : (n,).
    selected : (n,) bool, the rows that count.
    """

    def __init__(
        self,
        probabilities: NDArray,
        by_row: NDArray,
        decided: NDArray[np.integer],
        lowest: NDArray,
        highest: NDArray,
        labels: NDArray[np.int64],
        selected: NDArray[np.bool_],
        of_counts: Callable[[NDArray], NDArray],
    ) -> None:
        self.members, self.n, self.classes = probabilities.shape
        self.flat, self.by_row = probabilities.reshape(self.members, -1), by_row
        self.decided, self.lowest, self.highest, self.labels, self.of_counts = decided, lowest, highest, labels, of_counts
        self.sums = np.zeros(self.n * self.classes)
        self.top = np.zeros(self.n, np.int64)
        self.open = np.flatnonzero(selected)  # rows that no member taken predicts
        self.wake = np.full(self.n, _NEVER, np.int32)
        self.hits, self.predictions = np.zeros((2, self.classes), np.int64)  # of the members taken
        self.truth = np.bincount(labels[selected], minlength=self.classes)
        self.step = 0
        self.peak = highest.max(axis=1)
        self.rows = np.zeros(0, np.int64)  # those in which some member may change the decision
        self.candidates = np.zeros((self.members, 3, self.classes), np.int64)
        # A decision's key is its class, plus `classes` if it is right; each member has its own keys.
        self.keys = 2 * self.classes
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
        self.sums += self.flat[member]
        self.hits, _, self.predictions = self.candidates[member].copy()
        changed = self.rows
        if len(self.open):
            covered = self.decided[member, self.open] >= 0
            new, self.open = self.open[covered], self.open[~covered]
            changed = np.concatenate([changed, new])
            self.wake[new] = 0
        self.top[changed] = self.sums.reshape(self.n, self.classes).take(changed, axis=0).argmax(axis=1)
        self.step += 1

    def _contests(self) -> NDArray[np.int64]:
        """(members · keys,) how often each member with the others comes to each decision, on the rows that may change (`rows`)."""
        rows = np.flatnonzero(self.wake <= self.step)
        reach = self.sums.reshape(self.n, self.classes).take(rows, axis=0)
        top = self.top[rows]
        smallest = self.lowest[rows, top]
        lead = reach[np.arange(len(rows)), top] + smallest - SLACK
        reach += self.highest.take(rows, axis=0)
        # The decision itself is always among them.
        found = np.flatnonzero(reach >= lead[:, None])
        of = found // self.classes
        size = np.bincount(of, minlength=len(rows))
        self._put_to_sleep(rows, top, lead, reach, smallest, np.flatnonzero(size == 1))
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

    def _put_to_sleep(self, rows: NDArray, top: NDArray, lead: NDArray, reach: NDArray, smallest: NDArray, settled: NDArray[np.int64]) -> None:
        """Say when the `settled` of `rows` have to be looked at again: a step narrows a lead by `width` at most."""
        near = reach.take(settled, axis=0)
        near[np.arange(len(settled)), top[settled]] = -np.inf
        width = np.maximum(self.peak[rows[settled]] - smallest[settled], 1e-9)
        steps = (lead[settled] - near.max(axis=1)) / width
        self.wake[rows[settled]] = self.step + np.maximum(np.ceil(np.minimum(steps, 1e9)), 1).astype(np.int32)

    def _added(self, index: NDArray[np.int64]) -> NDArray[np.float64]:
        """(len(index), members) the sums with one more of each member."""
        values = self.by_row.take(index, axis=0).astype(np.float64)
        values += self.sums.take(index)[:, None]
        return values

    def _firsts(self) -> NDArray[np.int64]:
        """(members · keys,) what each member decides on the rows that it would be the first to predict."""
        tally = np.zeros(self.members * self.keys, np.int64)
        labels = self.labels[self.open]
        for member, offset in enumerate(self.offsets):
            decided = self.decided[member, self.open].astype(np.int64)
            keys = decided + self.classes * (decided == labels)
            tally[offset : offset + self.keys] = np.bincount(keys[decided >= 0], minlength=self.keys)
        return tally


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
