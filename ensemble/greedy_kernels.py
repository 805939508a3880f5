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
# Sums of a true class below this are taken one by one, clipped as the log loss clips them.
SMALL = 1e-10
# A row is asleep only if it stays below its decision by this much more than rounding can make up.
SLACK = 1e-6
# Numbers handled at once, so that they stay in a core's cache.
_AT_ONCE = 1 << 17
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
        self.factors = _in_groups(true)
        self.sums = np.ones(self.factors.shape[1:]).reshape(-1)
        self.sums[: self.n] = 0
        self.below = np.zeros(self.n)
        self.columns = totals.sum(axis=1) if whole else None
        self.divisors = None if whole else _in_groups(totals)

    def scores(self) -> NDArray[np.float64]:
        """(members,) the loss with one more of each member."""
        small = np.flatnonzero(self.sums < SMALL)
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
    and a row without such a pair sleeps for as many steps as its lead lasts at least. What the members do to the rest is
    one comparison a member and pair; all counts then follow from one matrix product, whose numbers are whole and exact
    in float32.

    Parameters
    ----------
    probabilities : (members, n, classes) C-contiguous.
    decided : (members, n) each member's own decision, −1 where it is absent.
    lowest, highest : (n, classes) over the members.
    labels : (n,).
    selected : (n,) bool, the rows that count.
    """

    def __init__(
        self,
        probabilities: NDArray,
        decided: NDArray[np.integer],
        lowest: NDArray,
        highest: NDArray,
        labels: NDArray[np.int64],
        selected: NDArray[np.bool_],
        of_counts: Callable[[NDArray], NDArray],
    ) -> None:
        self.members, self.n, self.classes = probabilities.shape
        self.flat = probabilities.reshape(self.members, -1)
        self.decided, self.lowest, self.highest, self.labels, self.of_counts = decided, lowest, highest, labels, of_counts
        self.sums = np.zeros(self.n * self.classes)
        self.top = np.full(self.n, -1)
        self.open = np.flatnonzero(selected)  # rows that no member taken predicts
        self.wake = np.full(self.n, _NEVER, np.int32)
        self.counts = np.zeros((3, self.classes), np.int64)
        self.counts[1] = np.bincount(labels[selected], minlength=self.classes)
        self.step = 0
        self.rows = np.zeros(0, np.int64)  # awake, with a class that can overtake
        self.candidates = np.zeros((self.members, 3, self.classes), np.int64)

    def scores(self) -> NDArray[np.float64]:
        """(members,) the score with one more of each member."""
        rows, contenders = self._awake()
        self.rows = rows
        fixed = self.counts.copy()
        _count(fixed, self.top[rows], self.labels[rows], -1)
        counts = np.broadcast_to(fixed, self.candidates.shape).copy()
        size = contenders.sum(axis=1)
        # Rows with many classes in the running first, so that those with a k-th are a slice.
        order = np.argsort(-size, kind="stable")
        rows, contenders, size = rows[order], contenders[order], size[order]
        start = 0
        while start < len(rows):
            stop = start + max(1, _AT_ONCE // (self.members * int(size[start])))
            self._contest(counts, rows[start:stop], contenders[start:stop], size[start:stop])
            start = stop
        if len(self.open):
            self._alone(counts)
        self.candidates = counts
        return np.asarray(self.of_counts(counts), np.float64)

    def take(self, member: int) -> None:
        """Add a member; `scores` has been asked for the same step."""
        self.sums += self.flat[member]
        self.counts = self.candidates[member]
        changed = self.rows
        if len(self.open):
            covered = self.decided[member, self.open] >= 0
            new, self.open = self.open[covered], self.open[~covered]
            changed = np.concatenate([changed, new])
            self.wake[new] = 0
        self.top[changed] = self.sums.reshape(self.n, self.classes)[changed].argmax(axis=1)
        self.step += 1

    def _awake(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Rows in which some member changes the decision or may, and (rows, classes) the decision and what may overtake it."""
        rows = np.flatnonzero(self.wake <= self.step)
        here, top = np.arange(len(rows)), self.top[rows]
        sums, highest = self.sums.reshape(self.n, self.classes)[rows], self.highest[rows]
        smallest = self.lowest[rows, top]
        reach = sums + highest
        lead = sums[here, top] + smallest - SLACK
        reach[here, top] = -np.inf
        contenders = reach >= lead[:, None]
        live = contenders.any(axis=1)
        asleep = np.flatnonzero(~live)
        if len(asleep):
            # A step brings a class nearer to the decision by `width` at most.
            width = np.maximum(highest[asleep].max(axis=1) - smallest[asleep], 1e-9)
            steps = (lead[asleep] - reach[asleep].max(axis=1)) / width
            self.wake[rows[asleep]] = self.step + np.maximum(np.ceil(np.minimum(steps, 1e9)), 1).astype(np.int32)
        contenders[here, top] = True
        return rows[live], contenders[live]

    def _contest(self, counts: NDArray[np.int64], rows: NDArray[np.int64], contenders: NDArray[np.bool_], size: NDArray[np.int64]) -> None:
        """Add to counts (members, 3, classes) what the rows become with each member; rows with more contenders come first."""
        of, classes = np.nonzero(contenders)
        starts = np.cumsum(size) - size
        first = classes[starts]
        base = np.zeros((3, self.classes), np.int64)
        _count(base, first, self.labels[rows], 1)
        counts += base
        best = self._added(rows * self.classes + first)
        if size[0] == 2:
            win = self._added(rows * self.classes + classes[starts + 1]) > best
            wins, second = [win], [classes[starts + 1]]
        else:
            which = np.zeros(best.shape, np.int8)
            second = []
            for k in range(1, int(size[0])):
                many = int(np.searchsorted(-size, -k))  # rows with more than k
                second.append(classes[starts[:many] + k])
                value = self._added(rows[:many] * self.classes + second[-1])
                # Classes come in order, so the first of equals stays, as in an argmax.
                better = value > best[:, :many]
                np.copyto(best[:, :many], value, where=better)
                np.copyto(which[:, :many], np.int8(k), where=better)
            wins = [which[:, : len(names)] == k for k, names in enumerate(second, 1)]
        won = np.concatenate(wins, axis=1).astype(np.float32)
        rank = np.concatenate([np.arange(len(names)) for names in second])
        new, old, labels, here = np.concatenate(second), first[rank], self.labels[rows[rank]], np.arange(len(rank))
        moves = np.zeros((len(rank), 2 * self.classes), np.float32)
        moves[here, new] = new == labels
        moves[here, old] -= old == labels
        moves[here, self.classes + new] = 1
        moves[here, self.classes + old] = -1
        change = (won @ moves).astype(np.int64)
        counts[:, 0] += change[:, : self.classes]
        counts[:, 2] += change[:, self.classes :]

    def _added(self, index: NDArray[np.int64]) -> NDArray[np.float64]:
        """(members, len(index)) the sums with one more of each member."""
        return np.add(self.flat.take(index, axis=1), self.sums[index], dtype=np.float64)

    def _alone(self, counts: NDArray[np.int64]) -> None:
        """Add what each member decides on the rows that it would be the first to predict."""
        labels = self.labels[self.open]
        for member in range(self.members):
            decided = self.decided[member, self.open]
            there = decided >= 0
            _count(counts[member], decided[there], labels[there], 1)


def _count(counts: NDArray[np.int64], decided: NDArray, labels: NDArray[np.int64], sign: int) -> None:
    """Add to the hits and predictions of counts (3, classes)."""
    classes = counts.shape[1]
    counts[0] += sign * np.bincount(labels[decided == labels], minlength=classes)
    counts[2] += sign * np.bincount(decided, minlength=classes)


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
