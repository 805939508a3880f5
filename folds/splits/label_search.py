"""Search for even folds of several labels: moves and swaps of whole people, with many restarts, in whole numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from folds.splits.repair import SIZE_TOLERANCE
from folds.splits.strata import GroupCounts

MEAN_WEIGHT = 10  # of the mean deviation of a share, of which the largest has 1
# Limits of the work, for any number of people.
MAX_WORK = 60_000_000  # changes looked at × strata, from all starts
MIN_STEPS = 100  # from each start
ALL_CHANGES = 6000  # a step looks at all moves and swaps if there are no more, otherwise at a sample
SAMPLED_CHANGES = 1500
MAX_TARGETS = 20  # missing strata that half of the sampled changes are for
PATIENCE = 60  # restarts in a row without improvement

_BITS = 20  # resolution of a share, fewer with very many samples
_SCALE = 4  # resolution of the size of a fold against the mean of all
_SIZE_WEIGHT = 20  # of samples beyond the tolerance, as a share of the fold, against that of a stratum
_MISSING_WEIGHT = 4  # of a missing stratum: more than all deviations together

Numbers = NDArray[np.int64]


def spread_labels(
    people: GroupCounts,
    starts: Sequence[Numbers],
    shares: Sequence[float],
    random: np.random.Generator,
    max_steps: int | None = None,
) -> Numbers:
    """Return the best assignment (people,) that searches find from each of `starts`, which leave no fold empty.

    A search minimizes missing strata first, then sizes beyond `SIZE_TOLERANCE`, then the largest deviation of a share
    plus `MEAN_WEIGHT` times the mean of all. Each step applies the best of all moves and swaps of people, or of a
    sample of them, until none is better; then it begins again at its best assignment after a few random changes. It
    ends after `PATIENCE` such restarts without improvement, or after its part of `MAX_WORK`, so that the time is
    bounded for any number of people. All numbers are whole: the result is the same on every machine.

    Parameters
    ----------
    starts : (people,) fold of each person.
    shares : (k,) target fraction of all samples for each fold.
    max_steps : largest number of steps from each start; with fewer the result is closer to it.
    """
    search = _Search(people, shares)
    found = []
    for start in starts:
        steps = max(MIN_STEPS, MAX_WORK // (search.work * len(starts)))
        found.append(search.run(start, random, steps if max_steps is None else min(steps, max_steps)))
    return min(found, key=lambda each: each[0])[1]


class _Search:
    """An assignment, its cost, and the changes that lower it.

    A column of `own` is a person, and the last one is empty: a move is a swap with it. The rows are, for each stratum,
    the samples of the stratum minus those that the person would have with the share of all people, times a power of 2;
    then the samples of each stratum that every fold should have; then the samples; then 1, the person.
    The rows of `held` are the same of each fold, so that a change of two folds adds and subtracts columns.
    """

    def __init__(self, people: GroupCounts, shares: Sequence[float]) -> None:
        counts, sizes = people.counts.T.astype(np.int64), people.sizes.astype(np.int64)
        self.people, self.k, self.width = len(people), len(shares), len(counts)
        samples, with_stratum = int(sizes.sum()), counts[: people.values]
        wanted = np.array(shares) * float(samples)
        self.least = np.ceil(wanted * (1 - SIZE_TOLERANCE)).astype(np.int64)
        self.most = np.floor(wanted * (1 + SIZE_TOLERANCE)).astype(np.int64)
        self.needed = np.minimum((with_stratum > 0).sum(axis=1), self.k)
        self.largest_own = with_stratum.max(axis=1)
        # One sample more than wanted in a fold of the mean size costs `_SCALE` << bits.
        self.scale = np.maximum(np.rint(_SCALE * wanted.mean() / wanted), 1).astype(np.int64)
        self.largest_weight = self.k * self.width  # the others are summed: their mean has 1
        bound = self.largest_weight * int(self.scale.max()) * samples
        bound *= _MISSING_WEIGHT * (int(self.needed.sum()) + 1) + self.k * _SIZE_WEIGHT + MEAN_WEIGHT
        bits = max(4, min(_BITS, 62 - bound.bit_length()))
        self.sample_weight = _SIZE_WEIGHT * self.largest_weight * _SCALE << bits
        self.missing_weight = _MISSING_WEIGHT * self.largest_weight * _SCALE * max(int(wanted.mean()), 1) << bits
        share = (counts.sum(axis=1) << bits) // samples
        ones = np.ones_like(sizes)
        own = np.concatenate([(counts << bits) - share[:, None] * sizes, with_stratum, [sizes, ones]])
        self.own = np.pad(own, ((0, 0), (0, 1)))
        changes = self.people * (self.people - 1) // 2 + self.people * self.k
        self.every = self._every() if changes <= ALL_CHANGES else None
        self.work = len(own) * (changes if self.every is not None else SAMPLED_CHANGES)

    def _every(self) -> tuple[Numbers, Numbers, Numbers]:
        """Return (leaves, joins, target) of all moves and swaps; `target` is that of the moves, which come first."""
        leaves, target = np.divmod(np.arange(self.people * self.k), self.k)
        one, other = np.triu_indices(self.people, 1)
        joins = np.concatenate([np.full(len(leaves), self.people), other])
        leaves = np.concatenate([leaves, one])
        self.difference = self.own[:, leaves] - self.own[:, joins]
        return leaves, joins, target

    def assign(self, fold: Numbers) -> None:
        """Set the fold of every person to `fold` (people,)."""
        self.fold = fold.copy()
        self.held = np.stack([self.own[:, :-1][:, fold == one].sum(axis=1) for one in range(self.k)], axis=1)

    def parts(self, held: Numbers, fold: Numbers) -> tuple[Numbers, Numbers]:
        """Return (m,) the largest deviation, and the sum of all with sizes, of columns (rows, m) in folds (m,)."""
        deviation, size = np.abs(held[: self.width]), held[-2]
        beyond = np.maximum(np.maximum(self.least[fold] - size, size - self.most[fold]), 0)
        scale = self.scale[fold]
        return deviation.max(axis=0) * scale, deviation.sum(axis=0) * scale * MEAN_WEIGHT + beyond * self.sample_weight

    def has(self, held: Numbers) -> NDArray[np.bool_]:
        return held[self.width : -2] > 0

    def cost(self) -> int:
        largest, rest = self.parts(self.held, np.arange(self.k))
        missing = np.maximum(self.needed - self.has(self.held).sum(axis=1), 0).sum()
        return int(self.largest_weight * largest.max() + rest.sum() + self.missing_weight * missing)

    def costs(self, change: Numbers, source: Numbers, target: Numbers) -> Numbers:
        """Return (m,) the cost after `change` (rows, m) goes from `source` to `target`; the maximum if impossible."""
        largest, rest = self.parts(self.held, np.arange(self.k))
        has = self.has(self.held)
        left, joined = self.held[:, source] - change, self.held[:, target] + change
        left_largest, left_rest = self.parts(left, source)
        joined_largest, joined_rest = self.parts(joined, target)
        untouched = _largest_of_others(largest, source, target)
        result = self.largest_weight * np.maximum(untouched, np.maximum(left_largest, joined_largest))
        result += left_rest + joined_rest + (rest.sum() - rest[source] - rest[target])
        # A change can only take away a stratum of which a fold has no more than a person.
        rare = np.flatnonzero(self.held[self.width : -2].min(axis=1) <= self.largest_own)
        if len(rare):
            at, before = self.width + rare, has[rare].astype(np.int8)
            present = (left[at] > 0).astype(np.int8) + (joined[at] > 0) - before[:, source] - before[:, target]
            present += before.sum(axis=1, keepdims=True, dtype=np.int8)
            result += self.missing_weight * np.maximum(self.needed[rare, None] - present, 0).sum(axis=0)
        impossible = (source == target) | (left[-1] < 1) | (joined[-1] < 1)
        result[impossible] = np.iinfo(np.int64).max
        return result

    def candidates(self, random: np.random.Generator) -> tuple[Numbers, ...]:
        """Return (leaves, joins, source, target, change) of all moves and swaps, or of a sample."""
        if self.every is not None:
            leaves, joins, moves = self.every
            target = np.concatenate([moves, self.fold[joins[len(moves) :]]])
            return leaves, joins, self.fold[leaves], target, self.difference
        leaves, joins = random.integers(self.people, size=(2, SAMPLED_CHANGES))
        target = self.fold[joins]
        has = self.has(self.held)
        lacking = np.argwhere(~has & (self.needed > has.sum(axis=1))[:, None])
        each = SAMPLED_CHANGES // 2 // MAX_TARGETS
        for i, (name, fold) in enumerate(random.permutation(lacking)[:MAX_TARGETS].tolist()):
            part = slice(i * each, (i + 1) * each)
            leaves[part] = random.choice(np.flatnonzero(self.own[self.width + name, :-1]), each)
            joins[part], target[part] = random.choice(np.flatnonzero(self.fold == fold), each), fold
        joins[random.integers(4, size=SAMPLED_CHANGES) == 0] = self.people
        return leaves, joins, self.fold[leaves], target, self.own[:, leaves] - self.own[:, joins]

    def exchange(self, leaves: int, joins: int, source: int, target: int) -> None:
        """Move person `leaves` from fold `source` to `target`, and `joins` (possibly the empty column) back."""
        change = self.own[:, leaves] - self.own[:, joins]
        self.held[:, source] -= change
        self.held[:, target] += change
        self.fold[leaves] = target
        if joins < self.people:
            self.fold[joins] = source

    def run(self, start: Numbers, random: np.random.Generator, steps: int) -> tuple[int, Numbers]:
        """Return the cost and the best assignment (people,) found from `start`."""
        self.left, without_gain = steps, 0
        self.assign(start)
        best_cost, best = self.descend(random), self.fold.copy()
        while self.left > 0 and without_gain < PATIENCE:
            self.assign(best)
            self.perturb(random)
            cost = self.descend(random)
            without_gain += 1
            if cost < best_cost:
                best_cost, best, without_gain = cost, self.fold.copy(), 0
        return best_cost, best

    def descend(self, random: np.random.Generator) -> int:
        """Apply the best change until none lowers the cost; return the cost."""
        cost, misses = self.cost(), 0
        while self.left > 0 and misses < (3 if self.every is None else 1):
            self.left -= 1
            leaves, joins, source, target, change = self.candidates(random)
            costs = self.costs(change, source, target)
            at = int(costs.argmin())
            if costs[at] >= cost:
                misses += 1
                continue
            self.exchange(int(leaves[at]), int(joins[at]), int(source[at]), int(target[at]))
            cost, misses = int(costs[at]), 0
        return cost

    def perturb(self, random: np.random.Generator) -> None:
        """Apply two or three random changes that leave no fold empty."""
        for _ in range(int(random.integers(2, 4))):
            one, other = (int(i) for i in random.integers(self.people, size=2))
            source, target = int(self.fold[one]), int(self.fold[other])
            if source == target:
                target = (source + int(random.integers(1, self.k))) % self.k
                other = self.people
                if self.held[-1, source] < 2:
                    continue
            self.exchange(one, other, source, target)


def _largest_of_others(values: Numbers, one: Numbers, other: Numbers) -> Numbers:
    """Return (m,) the largest of `values` (k,), all 0 or more, but those at `one` and `other` (m,); 0 without any."""
    found = np.zeros_like(one)
    for at in np.argsort(-values, kind="stable")[2::-1].tolist():  # one of the three largest is left
        found = np.where((one != at) & (other != at), values[at], found)
    return found
