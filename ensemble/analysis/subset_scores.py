"""Scores of many subsets of the runs, by adding up pooled predictions run by run (numpy only)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.stack import Stack
from ensemble.voting.base import FLOOR
from folds.metrics.classification import Metric

# Pooling rules that decide for the class with the largest sum over the runs.
ADDITIVE = ("soft", "weighted", "geometric", "hard")
Floats = NDArray[np.float64]
_ROWS_AT_ONCE = 4096  # the sums of a block stay in the processor's cache
_NUMBERS_AT_ONCE = 1 << 23


@dataclass(frozen=True)
class SubsetScorer:
    """Scores of subsets of the runs; rows that no run of a subset predicts get the class frequencies.

    Attributes
    ----------
    terms : (runs, classes, n) float32 ≥ 0: weighted summand of each run; 0 where it has no prediction.
    weights : (runs, n) float32: weight of each run on each row; 0 where it has no prediction.
    labels : (n,) class indices.
    codes : (n,) the unit of each row; units can be resampled.
    units : number of units.
    logs : whether `terms` are logarithms.
    """

    terms: NDArray[np.float32]
    weights: NDArray[np.float32]
    labels: NDArray[np.int64]
    codes: NDArray[np.int64]
    units: int
    metric: Metric
    logs: bool = False

    @property
    def runs(self) -> int:
        """Return the number of runs."""
        return len(self.terms)

    @property
    def classes(self) -> int:
        """Return the number of classes."""
        return self.terms.shape[1]

    @cached_property
    def width(self) -> int:
        """Return the number of statistics per unit: hits and predictions per class, or the sums of per-row values."""
        if self.metric.row_sums is not None:
            return self.metric.row_sums(np.zeros(1, np.int64), np.full((1, self.classes), 1 / self.classes)).shape[1]
        return 2 * self.classes if self.metric.from_counts is not None else 1

    @cached_property
    def known(self) -> Floats:
        """Return (units, classes) the number of samples of each class in each unit."""
        keys = self.codes * self.classes + self.labels
        return np.bincount(keys, minlength=self.units * self.classes).reshape(self.units, self.classes).astype(float)

    @cached_property
    def reach(self) -> float:
        """Return the maximum by which one run can change the lead of a class."""
        return float(self.terms.max()) * (1 + 1e-6)

    @cached_property
    def guess(self) -> Floats:
        """Return (classes, 1) the values for rows that no run predicts."""
        share = np.bincount(self.labels, minlength=self.classes)[:, None] / len(self.labels)
        return np.log(np.maximum(share, FLOOR) / FLOOR) if self.logs else share

    def parts(self) -> Iterator[slice]:
        """Yield blocks of rows; a single block if the metric needs all rows at once."""
        n = len(self.labels)
        size = _ROWS_AT_ONCE if self.metric.is_additive else n
        for start in range(0, n, size):
            yield slice(start, min(start + size, n))

    def record(self, stats: Floats, total: Floats, weight: Floats, rows: slice | NDArray[np.int64]) -> None:
        """Add the statistics of a subset on `rows` (m of them) to `stats` (units, width).

        Parameters
        ----------
        total : (classes, m) the sum of the terms of its runs.
        weight : (m,) the sum of their weights.
        """
        uncovered = weight < 1e-9
        if uncovered.any():
            total, weight = np.where(uncovered, self.guess, total), np.where(uncovered, 1, weight)
        labels, codes = self.labels[rows], self.codes[rows]
        if self.metric.from_counts is not None:
            predicted = _largest(total)
            hit = predicted == labels
            keys = codes * self.width
            keys = np.concatenate([keys[hit] + labels[hit], keys + predicted + self.classes])
            stats += np.bincount(keys, minlength=self.units * self.width).reshape(self.units, self.width)
            return
        pooled = self._pooled(total, weight)
        if self.metric.per_row is not None:
            stats[:, 0] += np.bincount(codes, self.metric.per_row(labels, pooled), minlength=self.units)
        elif self.metric.row_sums is not None:
            for place, column in enumerate(self.metric.row_sums(labels, pooled).T):
                stats[:, place] += np.bincount(codes, column, minlength=self.units)
        else:
            stats[:, 0] += self.metric(labels, pooled)

    def _pooled(self, total: Floats, weight: Floats) -> NDArray[np.float32]:
        values = total / weight
        if self.logs:
            np.exp(values - values.max(axis=0), out=values)
        values /= np.maximum(values.sum(axis=0), FLOOR)
        return np.ascontiguousarray(values.T, dtype=np.float32)

    def scores(self, stats: Floats, draws: Floats | None = None) -> Floats:
        """Return (draws, subsets) scores of `stats` (units, subsets, width).

        Parameters
        ----------
        draws : (draws, units) how often each unit counts; once by default.
        """
        draws = np.ones((1, self.units)) if draws is None else draws
        if not self.metric.is_additive:
            return np.repeat(stats.sum(axis=0)[None, :, 0], len(draws), axis=0)
        known = draws @ self.known
        subsets = stats.shape[1]
        out = np.empty((len(draws), subsets))
        size = max(1, _NUMBERS_AT_ONCE // (len(draws) * 3 * self.classes))
        for start in range(0, subsets, size):
            block = stats[:, start : start + size]
            sums = (draws @ block.reshape(self.units, -1)).reshape(len(draws), block.shape[1], self.width)
            if self.metric.of_sums is not None:
                out[:, start : start + size] = self.metric.of_sums(sums)
                continue
            if self.metric.from_counts is None:
                out[:, start : start + size] = sums[..., 0] / np.maximum(known.sum(axis=1)[:, None], 1)
                continue
            counts = np.empty((*sums.shape[:2], 3, self.classes))
            counts[..., 0, :], counts[..., 1, :], counts[..., 2, :] = (
                sums[..., : self.classes],
                known[:, None],
                sums[..., self.classes :],
            )
            out[:, start : start + size] = self.metric.from_counts(counts)
        return out

    def empty(self) -> Floats:
        """Return (units, 1, width) the statistics of guessing by the class frequencies."""
        stats = np.zeros((self.units, 1, self.width))
        for part in self.parts():
            rows = len(self.labels[part])
            self.record(stats[:, 0], np.zeros((self.classes, rows)), np.zeros(rows), part)
        return stats

    def all_subsets(self) -> Floats:
        """Return (units, 2^runs, width) statistics of all subsets; run i is in a subset if its number has bit i."""
        stats = np.zeros((self.units, 2**self.runs, self.width))
        for part in self.parts():
            self._visit(stats, part, 0, 0, np.zeros(self.terms[0, :, part].shape), np.zeros(len(self.labels[part])))
        return stats

    def _visit(self, stats: Floats, part: slice, number: int, first: int, total: Floats, weight: Floats) -> None:
        """Record a subset and all its extensions by runs from `first` on; each sum needs one addition."""
        self.record(stats[:, number], total, weight, part)
        for run in range(first, self.runs):
            self._visit(
                stats,
                part,
                number | 1 << run,
                run + 1,
                total + self.terms[run, :, part],
                weight + self.weights[run, part],
            )

    def along(self, orders: NDArray[np.int64]) -> Floats:
        """Return (units, orders × runs, width) statistics after each run joins, for each order (orders, runs)."""
        stats = np.zeros((self.units, orders.size, self.width))
        for part in self.parts():
            terms, weights = np.ascontiguousarray(self.terms[:, :, part]), self.weights[:, part]
            for number, order in enumerate(orders):
                total, weight = np.zeros(terms.shape[1:]), np.zeros(terms.shape[2])
                for place, run in enumerate(order):
                    total += terms[run]
                    weight += weights[run]
                    self.record(stats[:, number * self.runs + place], total, weight, part)
        return stats

    def total_of(self, members: list[int]) -> tuple[Floats, Floats]:
        """Return the sum of the terms (classes, n) and of the weights (n,) of some runs."""
        total, weight = np.zeros(self.terms.shape[1:]), np.zeros(len(self.labels))
        for run in members:
            total += self.terms[run]
            weight += self.weights[run]
        return total, weight

    def changed(self, total: Floats, weight: Floats, others: list[int], leaving: bool = False) -> Floats:
        """Return (others,) scores of a subset (from `total_of`) after adding, or removing, each of `others` alone."""
        stats = np.zeros((self.units, len(others), self.width))
        change: Callable[..., Floats] = np.subtract if leaving else np.add
        for part in self.parts():
            rows: slice | NDArray[np.int64] = part
            if self.metric.from_counts is not None:
                rows, settled = self._open_rows(total[:, part], part)
                decided = np.zeros((self.units, self.width))
                self.record(decided, total[:, settled], weight[settled], settled)
                stats += decided[:, None]
            sums, weights = total[:, rows], weight[rows]
            for place, run in enumerate(others):
                self.record(
                    stats[:, place],
                    change(sums, self.terms[run][:, rows]),
                    change(weights, self.weights[run, rows]),
                    rows,
                )
        return self.scores(stats)[0]

    def _open_rows(self, total: Floats, part: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows of a block whose decision one run can change, and the rows where the lead is too large."""
        lead = np.partition(total, len(total) - 2, axis=0)[-2:]
        is_open = lead[1] - lead[0] <= self.reach
        return part.start + np.flatnonzero(is_open), part.start + np.flatnonzero(~is_open)


def game_of(
    stack: Stack,
    metric: Metric,
    pool: str = "soft",
    weights: Floats | None = None,
    codes: NDArray[np.int64] | None = None,
    units: int = 1,
) -> SubsetScorer:
    """Return the subset scorer of a stack.

    Parameters
    ----------
    pool : one of `ADDITIVE`. A tie of hard votes goes to the class with the higher mean probability.
    weights : (runs,) weights of the runs, ≥ 0; equal by default.
    codes, units : unit of each sample, and number of units; a single unit by default.

    Raises
    ------
    ValueError : the pool is not a sum over runs.
    """
    if pool not in ADDITIVE:
        raise ValueError(f"expected a pool that is a sum over runs ({', '.join(ADDITIVE)}), found {pool}")
    share = np.ones(stack.runs) if weights is None else np.asarray(weights, float)
    present = np.ones((stack.runs, len(stack))) if stack.present is None else stack.present.astype(float)
    row_weights = (share[:, None] * present).astype(np.float32)
    terms = np.empty((stack.runs, stack.classes, len(stack)), np.float32)
    for run in range(stack.runs):
        values = stack.probabilities[run]
        if pool == "geometric":
            values = np.log(np.maximum(values, FLOOR) / FLOOR)
        elif pool == "hard":
            votes = np.zeros_like(values)
            np.put_along_axis(votes, values.argmax(axis=1)[:, None], 1, axis=1)
            # The mean probabilities of all runs sum to less than one vote: they break ties only.
            values = votes + (values / (2 * stack.runs) if metric.from_counts is not None and weights is None else 0)
        terms[run] = values.T * row_weights[run]
    codes = np.zeros(len(stack), np.int64) if codes is None else codes
    return SubsetScorer(terms, row_weights, stack.labels, codes, units, metric, pool == "geometric")


def _largest(total: Floats) -> NDArray[np.int64]:
    """Return (m,) the class with the largest of the values (classes, m) ≥ 0, the lowest index in a tie.

    Five times as fast as argmax: the last bits of each value, below float32 precision, are replaced by the class index,
    so the maximum contains it.
    """
    mask = (1 << len(total).bit_length()) - 1
    tagged = np.bitwise_and(total.view(np.int64), ~mask)
    tagged |= mask - np.arange(len(total))[:, None]
    return mask - (tagged.view(np.float64).max(axis=0).view(np.int64) & mask)
