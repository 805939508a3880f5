"""Score all candidates of a step of greedy selection at once, for each kind of metric; numpy only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from folds.metrics.classification import Metric

# A row is skipped only if its decision is this far from a change, which is more than rounding errors.
SLACK = 1e-6
# Numbers of a block, which then fits into the cache of a core.
_AT_ONCE = 1 << 15


@dataclass(frozen=True)
class Decisions:
    """The members' probabilities and decisions, shared by all objectives.

    Attributes
    ----------
    by_member : (members, n · classes) the probabilities; rows of 0 where a member is absent.
    by_row : (n · classes, members) the same numbers.
    decided : (members, n) each member's own predicted class, −1 where it is absent.
    first, second : (members, n) its largest and second largest probability.
    lowest, highest : (n, classes) minimum and maximum over the members.
    """

    by_member: NDArray
    by_row: NDArray
    decided: NDArray[np.signedinteger]
    first: NDArray
    second: NDArray
    lowest: NDArray
    highest: NDArray

    @staticmethod
    def from_probabilities(probabilities: NDArray, present: NDArray[np.bool_] | None) -> Decisions:
        """Return the decisions for probabilities (members, n, classes) and presence (members, n)."""
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
            largest, runner_up, winner = (
                block[0].copy(),
                np.zeros_like(block[0]),
                np.zeros(block[0].shape, decided.dtype),
            )
            for c, value in enumerate(block[1:], 1):
                # Of equal values, the first one wins, as in an argmax.
                np.maximum(winner, np.multiply(value > largest, c, dtype=winner.dtype), out=winner)
                np.maximum(runner_up, np.minimum(largest, value), out=runner_up)
                np.maximum(largest, value, out=largest)
            decided[:, part], first[:, part], second[:, part] = winner.T, largest.T, runner_up.T
        if present is not None:
            decided[~present] = -1
        return Decisions(
            probabilities.reshape(members, -1), by_row.reshape(-1, members), decided, first, second, lowest, highest
        )


class CountsObjective:
    """A metric of true positives, support and predictions.

    The predicted class of a row has the largest running sum. With one more member, class b can overtake the predicted
    class t only if sum_b + (largest p_b of all members) ≥ sum_t + (smallest p_t of all members). All other pairs (row,
    b) are skipped. The margin of a row is its distance to the next such pair. An added member reduces it by at most
    (its largest p_b) − p_t, so most rows need no check. In the other rows, the sums of all members are compared in
    float64 like in an argmax, with one pass for each contending class.

    Parameters
    ----------
    labels : (n,) class indices.
    selected : (n,) bool, the rows that are scored.
    from_counts : (…, 3, classes) → (…).
    """

    def __init__(
        self,
        members: Decisions,
        labels: NDArray[np.int64],
        selected: NDArray[np.bool_],
        from_counts: Callable[[NDArray], NDArray],
    ) -> None:
        self.data, self.labels, self.from_counts = members, labels, from_counts
        self.members, self.n = members.decided.shape
        self.classes = members.lowest.shape[1]
        self.sums = np.zeros(self.n * self.classes)
        self.predicted = np.zeros(self.n, np.int64)
        self.uncovered = np.flatnonzero(selected)  # scored rows that no added member predicts
        self.margin = np.full(self.n, np.inf)  # margin of scored rows with a prediction
        self.true_positives, self.predictions = np.zeros((2, self.classes), np.int64)  # of the added members
        self.support = np.bincount(labels[selected], minlength=self.classes)
        self.rows = np.zeros(0, np.int64)  # rows where a member can change the prediction
        self.candidates = np.zeros((self.members, 3, self.classes), np.int64)
        # The key of a prediction is its class, plus `classes` if it is correct; each member has separate keys.
        self.keys = 2 * self.classes
        self.cells = self.classes * np.arange(self.n)
        self.offsets = self.keys * np.arange(self.members)

    def scores(self) -> NDArray[np.float64]:
        """Return (members,) the score after adding each member once."""
        key_counts = np.zeros(self.members * self.keys, np.int64)
        key_counts += self._count_contested()
        if len(self.uncovered):
            key_counts += self._count_first_predictions()
        incorrect, correct = key_counts.reshape(self.members, 2, self.classes).transpose(1, 0, 2)
        predicted, labels = self.predicted[self.rows], self.labels[self.rows]
        self.candidates[:, 0] = (
            correct + self.true_positives - np.bincount(predicted[predicted == labels], minlength=self.classes)
        )
        self.candidates[:, 1] = self.support
        self.candidates[:, 2] = correct + incorrect + self.predictions - np.bincount(predicted, minlength=self.classes)
        return np.asarray(self.from_counts(self.candidates), np.float64)

    def take(self, member: int) -> None:
        """Add a member; `scores` must have been called for this step."""
        data = self.data
        self.sums += data.by_member[member]
        self.true_positives, _, self.predictions = self.candidates[member].copy()
        own_probability = data.by_member[member].take(self.cells + self.predicted).astype(np.float64)
        self.margin += own_probability - np.where(
            data.decided[member] == self.predicted, data.second[member], data.first[member]
        )
        changed = self.rows
        if len(self.uncovered):
            covered = data.decided[member, self.uncovered] >= 0
            newly_covered, self.uncovered = self.uncovered[covered], self.uncovered[~covered]
            changed = np.concatenate([changed, newly_covered])
        self.margin[changed] = -np.inf
        self.predicted[changed] = self.sums.reshape(self.n, self.classes).take(changed, axis=0).argmax(axis=1)

    def _count_contested(self) -> NDArray[np.int64]:
        """Return (members · keys,) counts of the predictions after adding each member, on rows that can change."""
        rows = np.flatnonzero(self.margin <= 0)
        reach = self.sums.reshape(self.n, self.classes).take(rows, axis=0)
        predicted = self.predicted[rows]
        threshold = (
            self.sums.take(self.cells[rows] + predicted) + self.data.lowest.take(self.cells[rows] + predicted) - SLACK
        )
        reach += self.data.highest.take(rows, axis=0)
        # The currently predicted class is always among them.
        reachable = np.flatnonzero(reach >= threshold[:, None])
        row_index = reachable // self.classes
        size = np.bincount(row_index, minlength=len(rows))
        settled = np.flatnonzero(size == 1)
        others = reach.take(settled, axis=0)
        others[np.arange(len(settled)), predicted[settled]] = -np.inf
        self.margin[rows[settled]] = threshold[settled] - others.max(axis=1, initial=-np.inf)
        classes = reachable - row_index * self.classes
        pairs = rows[row_index] * self.classes + classes
        keys = classes + self.classes * (classes == self.labels[rows[row_index]])
        # Sorted by number of contenders, descending, so that the rows with a k-th contender are a slice.
        order = np.argsort((-size).astype(np.min_scalar_type(-self.classes)), kind="stable")
        order = order[: np.count_nonzero(size > 1)]
        starts, size = (np.cumsum(size) - size)[order], size[order]
        self.rows = rows[order]
        key_counts = np.zeros(self.members * self.keys, np.int64)
        if not len(order):
            return key_counts
        active = [int(np.searchsorted(-size, -k)) for k in range(int(size[0]))]
        ranked = [pairs[starts[:m] + k] for k, m in enumerate(active)]
        height = max(1, max(_AT_ONCE, len(key_counts)) // self.members)
        for start in range(0, len(order), height):
            part = slice(start, start + height)
            best = self._added(ranked[0][part])
            winner = np.zeros(best.shape, np.min_scalar_type(len(ranked)))
            for k, pair in enumerate(ranked[1:], 1):
                value = self._added(pair[part])
                m = len(value)
                if not m:
                    break
                # Classes are in order, so of equal values the first one wins, as in an argmax.
                better = (value > best[:m]).view(np.uint8)
                np.maximum(winner[:m], np.multiply(better, k, dtype=winner.dtype), out=winner[:m])
                np.maximum(best[:m], value, out=best[:m])
            decision = keys.take(starts[part, None] + winner)
            decision += self.offsets
            key_counts += np.bincount(decision.reshape(-1), minlength=len(key_counts))
        return key_counts

    def _added(self, index: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (len(index), members) the sums after adding each member once."""
        values = self.data.by_row.take(index, axis=0).astype(np.float64)
        values += self.sums.take(index)[:, None]
        return values

    def _count_first_predictions(self) -> NDArray[np.int64]:
        """Return (members · keys,) counts of each member's predictions on rows that no added member predicts."""
        key_counts = np.zeros(self.members * self.keys, np.int64)
        labels = self.labels[self.uncovered]
        for member, offset in enumerate(self.offsets):
            decided = self.data.decided[member, self.uncovered].astype(np.int64)
            keys = decided + self.classes * (decided == labels)
            key_counts[offset : offset + self.keys] = np.bincount(keys[decided >= 0], minlength=self.keys)
        return key_counts


# Number of probabilities in one product before the logarithm: each is at least 1e-10, so the product is a normal
# float64.
FACTORS = 16


# Rows whose sum for the true class can be smaller are computed separately, with the clipping of the log loss.
SMALL = 1e-10


class Objective(Protocol):
    """The score of a running sum of members."""

    def scores(self) -> NDArray[np.float64]:
        """Return (members,) the score of the combination after adding each member once."""

    def take(self, member: int) -> None:
        """Add a member, after `scores`."""


class LogLossObjective:
    """The mean −log p of the true class.

    Σ log(a + p) over rows is computed as Σ log Π(a + p) over groups of `FACTORS` rows: two operations for a number and
    one logarithm for a group. The relative rounding error is that of a sum of as many float64.

    Parameters
    ----------
    true : (members, n) float64, probability of the true class, 0 where a member is absent.
    totals : (members, n) float64, sum of each row's probabilities, 0 where a member is absent.
    complete : all members are present and all totals are within 1e-6 of 1: then log Σ totals is linear in them to
        1e-12.
    """

    def __init__(self, true: NDArray[np.float64], totals: NDArray[np.float64], classes: int, complete: bool) -> None:
        self.true, self.totals, self.classes, self.complete = true, totals, classes, complete
        self.n, self.n_added = true.shape[1], 0
        self.factors, self.lowest = _in_groups(true), true.min(axis=0)
        self.sums = np.ones(self.factors.shape[1:]).reshape(-1)
        self.sums[: self.n] = 0
        self.denominator = np.zeros(self.n)
        self.columns = totals.sum(axis=1) if complete else None
        self.divisors = None if complete else _in_groups(totals)

    def scores(self) -> NDArray[np.float64]:
        """Return (members,) the loss after adding each member once."""
        small = np.flatnonzero(self.sums[: self.n] + self.lowest < SMALL)
        sums = _with_ones(self.sums, small)
        logs = _log_products(self.factors, sums)
        numerators, denominators = (
            self.sums[small] + self.true[:, small],
            self.denominator[small] + self.totals[:, small],
        )
        if self.columns is not None:
            count, rest = self.n_added + 1, self.n - len(small)
            excess = self.denominator.sum() + self.columns - denominators.sum(axis=1) - rest * count
            denominator = rest * np.log(count) + excess / count
        else:
            assert self.divisors is not None  # noqa: S101
            padded = np.ones(len(self.sums))
            padded[: self.n] = self.denominator
            denominator = _log_products(self.divisors, _with_ones(padded, small)) - np.log1p(self.totals[:, small]).sum(
                axis=1
            )
        if len(small):
            logs -= np.log1p(self.true[:, small]).sum(axis=1)
            means = np.divide(
                numerators, denominators, out=np.full(numerators.shape, 1 / self.classes), where=denominators > 0
            )
            smallest = np.finfo(np.float64).eps
            logs += np.log(np.clip(means, smallest, 1 - smallest)).sum(axis=1)
        return (denominator - logs) / self.n

    def take(self, member: int) -> None:
        """Add a member."""
        self.sums[: self.n] += self.true[member]
        self.denominator += self.totals[member]
        self.n_added += 1


def _in_groups(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the values in groups: (members, n) → (members, FACTORS, ⌈n / FACTORS⌉), padded with 0."""
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
    """Return (members,) Σ log(sums + values), for values grouped by `_in_groups`."""
    added, products = np.empty(grouped.shape[1:]), np.empty((len(grouped), grouped.shape[2]))
    sums = sums.reshape(grouped.shape[1:])
    for member, values in enumerate(grouped):
        np.add(values, sums, out=added)
        np.multiply.reduce(added, axis=0, out=products[member])
    return np.asarray(np.log(products, out=products).sum(axis=1))


class GenericObjective:
    """Any metric, called for the combination with each member; the speed depends on the metric.

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
        """Return (members,) the score after adding each member once."""
        return np.array(
            [
                self.metric(self.labels, normalize_sums(self.sums + self._values_of(i)))
                for i in range(len(self.probabilities))
            ],
            np.float64,
        )

    def take(self, member: int) -> None:
        """Add a member."""
        self.sums += self._values_of(member)

    def _values_of(self, member: int) -> NDArray:
        values = self.probabilities[member]
        return values if self.rows is None else values[self.rows]


def normalize_sums(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n, classes) sums scaled in place so that rows sum to 1; rows without predictions become 1 / classes."""
    totals = sums.sum(axis=1, keepdims=True)
    empty = totals[:, 0] <= 0
    if empty.any():
        sums[empty], totals[empty] = 1, sums.shape[1]
    sums /= totals
    return sums
