"""Scores of many subsets of the runs: a pool that is a sum over runs is added up run by run, not voted anew; numpy only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.stack import Stack
from ensemble.voting.base import FLOOR
from folds.metrics.classification import Metric

# Pools whose decision is the largest of a sum over the runs.
ADDITIVE = ("soft", "weighted", "geometric", "hard")
Floats = NDArray[np.float64]
_ROWS_AT_ONCE = 4096  # the sums of a block stay in the processor's cache
_NUMBERS_AT_ONCE = 1 << 23


@dataclass(frozen=True)
class SubsetScorer:
    """What every subset of the runs is worth; where none of a subset predicts a row, the class frequencies stand for it.

    Attributes
    ----------
    terms : (runs, classes, n) float32 ≥ 0: what a run adds to the sum, times its weight; 0 where it is absent.
    weights : (runs, n) float32: what a run's word is worth on a row; 0 where it is absent.
    labels : (n,) class indices.
    codes : (n,) the unit of each row; scores can be made of units drawn again.
    units : how many.
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
        """Return how many runs."""
        return len(self.terms)

    @property
    def classes(self) -> int:
        """Return how many classes."""
        return self.terms.shape[1]

    @cached_property
    def width(self) -> int:
        """Return how many numbers a unit is reduced to: hits and predictions of each class, or a sum of row values."""
        return 2 * self.classes if self.metric.from_counts is not None else 1

    @cached_property
    def known(self) -> Floats:
        """Return (units, classes) how many samples of each class a unit has."""
        keys = self.codes * self.classes + self.labels
        return np.bincount(keys, minlength=self.units * self.classes).reshape(self.units, self.classes).astype(float)

    @cached_property
    def reach(self) -> float:
        """By how much one run can change the lead of a class at most."""
        return float(self.terms.max()) * (1 + 1e-6)

    @cached_property
    def guess(self) -> Floats:
        """Return (classes, 1) what stands for a row that nobody predicts."""
        share = np.bincount(self.labels, minlength=self.classes)[:, None] / len(self.labels)
        return np.log(np.maximum(share, FLOOR) / FLOOR) if self.logs else share

    def parts(self) -> Iterator[slice]:
        """Blocks of rows; all at once where the metric needs them together."""
        n = len(self.labels)
        size = _ROWS_AT_ONCE if self.metric.from_counts is not None or self.metric.per_row is not None else n
        for start in range(0, n, size):
            yield slice(start, min(start + size, n))

    def record(self, stats: Floats, total: Floats, weight: Floats, rows: slice | NDArray[np.int64]) -> None:
        """Add to `stats` (units, width) what a subset is worth on `rows`, m of them.

        Parameters
        ----------
        total : (classes, m) the sum of the terms of its runs.
        weight : (m,) the sum of their weights.
        """
        silent = weight < 1e-9
        if silent.any():
            total, weight = np.where(silent, self.guess, total), np.where(silent, 1, weight)
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
        draws : (draws, units) how often each unit counts; once where it is None.
        """
        draws = np.ones((1, self.units)) if draws is None else draws
        if self.metric.from_counts is None and self.metric.per_row is None:
            return np.repeat(stats.sum(axis=0)[None, :, 0], len(draws), axis=0)
        known = draws @ self.known
        subsets = stats.shape[1]
        out = np.empty((len(draws), subsets))
        size = max(1, _NUMBERS_AT_ONCE // (len(draws) * 3 * self.classes))
        for start in range(0, subsets, size):
            block = stats[:, start : start + size]
            sums = (draws @ block.reshape(self.units, -1)).reshape(len(draws), block.shape[1], self.width)
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
        """Return (units, 1, width) what guessing by the class frequencies is worth."""
        stats = np.zeros((self.units, 1, self.width))
        for part in self.parts():
            rows = len(self.labels[part])
            self.record(stats[:, 0], np.zeros((self.classes, rows)), np.zeros(rows), part)
        return stats

    def all_subsets(self) -> Floats:
        """Return (units, 2^runs, width); run i is in a subset whose number has bit i."""
        stats = np.zeros((self.units, 2**self.runs, self.width))
        for part in self.parts():
            self._visit(stats, part, 0, 0, np.zeros(self.terms[0, :, part].shape), np.zeros(len(self.labels[part])))
        return stats

    def _visit(self, stats: Floats, part: slice, number: int, first: int, total: Floats, weight: Floats) -> None:
        """A subset, and all that have further runs from `first` on: each sum is one addition away from another."""
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
        """Return (units, orders × runs, width): as the runs join in each order (orders, runs), after each has."""
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
        """Return (classes, n) the sum of the terms of some runs, and (n,) of their weights."""
        total, weight = np.zeros(self.terms.shape[1:]), np.zeros(len(self.labels))
        for run in members:
            total += self.terms[run]
            weight += self.weights[run]
        return total, weight

    def changed(self, total: Floats, weight: Floats, others: list[int], leaving: bool = False) -> Floats:
        """Return (others,) scores of a subset, given by `total_of`, when each of `others` alone joins it, or leaves it."""
        stats = np.zeros((self.units, len(others), self.width))
        change: Callable[..., Floats] = np.subtract if leaving else np.add
        for part in self.parts():
            rows: slice | NDArray[np.int64] = part
            if self.metric.from_counts is not None:
                rows, settled = self._open_rows(total[:, part], part)
                decided = np.zeros((self.units, self.width))
                self.record(decided, total[:, settled], weight[settled], settled)
                stats += decided[:, None]
            sums, heard = total[:, rows], weight[rows]
            for place, run in enumerate(others):
                self.record(
                    stats[:, place],
                    change(sums, self.terms[run][:, rows]),
                    change(heard, self.weights[run, rows]),
                    rows,
                )
        return self.scores(stats)[0]

    def _open_rows(self, total: Floats, part: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows of a block whose decision one run can change, and the others: the lead of the first class is what no run can add."""
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
    """Return the game of a stack.

    Parameters
    ----------
    pool : one of `ADDITIVE`. A tie of hard votes goes to the class with the higher mean probability.
    weights : (runs,) of the runs, ≥ 0; equal without it.
    codes, units : the unit of each sample, and how many there are; one without them.

    Raises
    ------
    ValueError : the pool is no sum over runs.
    """
    if pool not in ADDITIVE:
        raise ValueError(f"the pool {pool} is no sum over runs, expected one of {', '.join(ADDITIVE)}")
    share = np.ones(stack.runs) if weights is None else np.asarray(weights, float)
    there = np.ones((stack.runs, len(stack))) if stack.present is None else stack.present.astype(float)
    heard = (share[:, None] * there).astype(np.float32)
    terms = np.empty((stack.runs, stack.classes, len(stack)), np.float32)
    for run in range(stack.runs):
        values = stack.probabilities[run]
        if pool == "geometric":
            values = np.log(np.maximum(values, FLOOR) / FLOOR)
        elif pool == "hard":
            votes = np.zeros_like(values)
            np.put_along_axis(votes, values.argmax(axis=1)[:, None], 1, axis=1)
            # The mean probabilities of all runs together move no majority.
            values = votes + (values / (2 * stack.runs) if metric.from_counts is not None and weights is None else 0)
        terms[run] = values.T * heard[run]
    codes = np.zeros(len(stack), np.int64) if codes is None else codes
    return SubsetScorer(terms, heard, stack.labels, codes, units, metric, pool == "geometric")


def _largest(total: Floats) -> NDArray[np.int64]:
    """Return (classes, m) ≥ 0 → (m,) the class with the largest value, the lowest index among equals; five times as fast as argmax.

    The last bits of each value, below what a float32 can tell, are replaced by the class, so that the maximum names it.
    """
    mask = (1 << len(total).bit_length()) - 1
    tagged = np.bitwise_and(total.view(np.int64), ~mask)
    tagged |= mask - np.arange(len(total))[:, None]
    return mask - (tagged.view(np.float64).max(axis=0).view(np.int64) & mask)
