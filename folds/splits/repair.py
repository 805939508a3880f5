"""Moves and swaps of whole people that give every fold the classes it lacks, and a better balance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.splits.strata import Counts, GroupCounts

# When it is worth looking (a share of a fold's samples), and worth changing anything (a part of that deviation).
DEVIATION_TO_TRY = 0.01
MIN_GAIN = 0.1
# How far a fold's samples may be from what it should have, where they were not farther off before.
SIZE_TOLERANCE = 0.05
# The work, whatever the number of people: candidates a step, steps, beginnings, absent classes that a step aims at.
MAX_CANDIDATES = 1500
MAX_STEPS = 600
RESTARTS = 40
PATIENCE = 12  # beginnings in a row that found nothing better
MAX_TARGETS = 20

Candidates = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Quality:
    """How well people are spread over folds.

    Attributes
    ----------
    absent : pairs of a fold and a class that it lacks though people enough have it: a class of p people can be in
        min(p, folds) folds, each fewer counts one.
    worst : the largest \\|share of a class in a fold's samples − its share in all samples\\| over folds and classes.
    mean : the mean of the same.
    size : the largest \\|samples of a fold / the samples it should have − 1\\|.
    """

    missing_classes: int
    max_deviation: float
    mean: float
    size: float

    def to_dict(self) -> dict[str, float]:
        """Return the values under their names on disk."""
        return {"absent": self.missing_classes, "worst": self.max_deviation, "mean": self.mean, "size": self.size}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Quality:
        """Return the quality that `to_dict` has written; raise KeyError where a value is missing."""
        return cls(record["absent"], record["worst"], record["mean"], record["size"])


@dataclass(frozen=True)
class Repair:
    """What a repair changed: people who moved alone, people who changed places, and the quality before and after."""

    moved: int
    swapped: int
    before: Quality
    after: Quality

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for folds.json and ``--json``."""
        return {
            "moved": self.moved,
            "swapped": self.swapped,
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Repair:
        """Return the repair that `to_dict` has written; raise KeyError or TypeError where it is damaged."""
        before, after = (Quality.from_dict(record[part]) for part in ("before", "after"))
        return cls(record["moved"], record["swapped"], before, after)

    def __str__(self) -> str:
        absent = f"classes absent from a fold: {self.before.missing_classes} → {self.after.missing_classes}"
        deviation = f"largest deviation of a class share {share_text(self.before.max_deviation)} → {share_text(self.after.max_deviation)}"
        return f"{self.moved:,} {'person' if self.moved == 1 else 'people'} moved, {self.swapped:,} swapped; {absent}; {deviation}"


def share_text(share: float) -> str:
    """``.046``"""
    return f"{share:.3f}".removeprefix("0")


def quality(people: GroupCounts, fold: NDArray[np.int64], shares: Sequence[float]) -> Quality:
    """The `Quality` of `fold` (people,), where the folds should have `shares` (k,) of all samples."""
    return _LocalSearch(people, fold, shares).quality()


def repair(
    people: GroupCounts, fold: NDArray[np.int64], shares: Sequence[float], seed: int
) -> tuple[NDArray[np.int64], Repair | None]:
    """Improve an assignment by moving and swapping whole people.

    First come the classes that folds lack, then the deviation of class shares. The result is never worse than `fold` in
    `absent` or `worst` (`Quality`), and in `mean` only where a class could not be won otherwise; its folds are at most
    `SIZE_TOLERANCE` off in samples, or as much as before where that was more. It is left alone where nothing is absent
    and `worst` is below `DEVIATION_TO_TRY`, and where no class could be won nor `worst` be lowered by the part
    `LEAST_GAIN` of itself. With two or three people a fold, a class can stay absent because winning it would cost balance.

    Parameters
    ----------
    fold : (people,) where each person is; no fold is empty.
    shares : (k,) the part of all samples that each fold should have.

    Returns
    -------
    (people,) folds, and what was changed or None.
    """
    search = _LocalSearch(people, fold, shares)
    before = search.quality()
    if not before.missing_classes and before.max_deviation < DEVIATION_TO_TRY:
        return fold, None
    found = search.run(np.random.default_rng([seed, len(people)]), max(SIZE_TOLERANCE, before.size), before)
    after = quality(people, found, shares)
    if after.missing_classes == before.missing_classes and after.max_deviation > (1 - MIN_GAIN) * before.max_deviation:
        return fold, None
    return found, Repair(*_changes(fold, found, len(shares)), before, after)


def balance(
    people: GroupCounts,
    fold: NDArray[np.int64],
    shares: Sequence[float],
    random: np.random.Generator,
    steps: int = MAX_STEPS,
) -> NDArray[np.int64]:
    """The best assignment (people,) that a search finds from `fold`, which may be a bad one: nothing of it needs to stay.

    First come the classes that folds lack, then sizes within `SIZE_TOLERANCE`, then the deviation of class shares. Fewer
    `steps` stay nearer to where the search begins.
    """
    return _LocalSearch(people, fold, shares).run(random, SIZE_TOLERANCE, None, steps)


def _changes(before: NDArray[np.int64], after: NDArray[np.int64], k: int) -> tuple[int, int]:
    """(moved, swapped) people: who changed a → b is swapped as far as others changed b → a."""
    flow = np.bincount(before * k + after, minlength=k * k).reshape(k, k)
    np.fill_diagonal(flow, 0)
    swapped = int(np.minimum(flow, flow.T).sum())
    return int(flow.sum()) - swapped, swapped


class _LocalSearch:
    """Steepest descent over moves and swaps, begun again from the best so far with a few random ones.

    All moves and swaps are looked at, or a sample of them where people are many, half of it aimed at what is absent. The
    state is who is where, and what each fold holds of every stratum, of samples and of people (whole numbers: no error
    piles up). The work is bounded, and the result follows from the arguments alone.
    """

    def __init__(self, people: GroupCounts, fold: NDArray[np.int64], shares: Sequence[float]) -> None:
        counts, samples = people.counts, float(people.sizes.sum())
        self.people, self.width, self.classes, self.k = len(people), counts.shape[1], people.values, len(shares)
        # The last row is nobody: a move is a swap with nobody.
        self.own = np.zeros((self.people + 1, self.width + 2))
        self.own[:-1] = np.column_stack([counts, people.sizes, np.ones(self.people)])
        self.wanted = np.array(shares) * samples
        self.overall = counts.sum(axis=0) / samples
        self.needed = np.minimum((counts[:, : self.classes] > 0).sum(axis=0), self.k)
        # [a, b, f]: whether a change between folds a and b touches fold f.
        every = np.arange(self.k)
        self.touched = (every[:, None, None] == every) | (every[None, :, None] == every)
        self.exhaustive = self.people * (self.people + self.k) <= 4 * MAX_CANDIDATES
        self.place(fold)

    def place(self, fold: NDArray[np.int64]) -> None:
        self.fold = fold.copy()
        self.held = np.eye(self.k)[:, fold] @ self.own[:-1]

    def quality(self) -> Quality:
        deviation, size = self._deviation(self.held), np.abs(self.held[:, self.width] / self.wanted - 1)
        absent = np.maximum(self.needed - self._has(self.held).sum(axis=0), 0).sum()
        return Quality(int(absent), float(deviation.max()), float(deviation.mean()), float(size.max()))

    def run(
        self, random: np.random.Generator, size_limit: float, floor: Quality | None, most: int = MAX_STEPS
    ) -> NDArray[np.int64]:
        """The best assignment found; with a `floor` none whose worst deviation is worse than there."""
        start = self.quality()
        self.scale, self.size_limit, self.floor = start, size_limit + 1e-9, floor
        best, best_cost = self.fold.copy(), self._cost_now()
        kept, kept_key = best, self._key(start)
        steps = fruitless = 0
        for beginning in range(RESTARTS):
            if fruitless == PATIENCE or steps == most:
                break
            if beginning:
                self.place(best)
                self._perturb(random)
            cost, misses = self._cost_now(), 0
            while steps < most and misses < (1 if self.exhaustive else 3):
                steps += 1
                candidates = self._candidates(random)
                costs = self._costs(*candidates)
                at = int(costs.argmin()) if len(costs) else -1
                if at < 0 or costs[at] >= cost - 1e-9:
                    misses += 1
                    continue
                self._apply(candidates, at)
                cost, misses = float(costs[at]), 0
                now = self.quality()
                if (floor is None or now.max_deviation <= floor.max_deviation) and self._key(now) < kept_key:
                    kept, kept_key = self.fold.copy(), self._key(now)
            fruitless += 1
            if cost < best_cost - 1e-9:
                best, best_cost, fruitless = self.fold.copy(), cost, 0
        return kept

    def _key(self, now: Quality) -> tuple[float, ...]:
        beyond = 0.0 if self.floor is None else max(now.mean - self.floor.mean, 0)
        return now.missing_classes, max(now.size - self.size_limit, 0), beyond, now.max_deviation

    def _cost_now(self) -> float:
        now = self.quality()
        return float(self._cost(now.missing_classes, now.max_deviation, now.mean, now.size))

    def _cost(self, absent: Any, worst: Any, mean: Any, size: Any) -> Any:
        """One number to descend: absent classes above all, then both deviations as parts of those at the start."""
        worst, mean = worst / max(self.scale.max_deviation, 1e-12), mean / max(self.scale.mean, 1e-12)
        cost = 10 * absent + 40 * np.maximum(size - self.size_limit, 0) + worst + mean / 2
        if self.floor is not None:  # what must not get worse costs extra, so that the search turns back
            cost = cost + 4 * (np.maximum(worst - 1, 0) + np.maximum(mean - 1, 0))
        return cost

    def _has(self, held: Counts) -> NDArray[np.int8]:
        return (held[..., : self.classes] > 0).astype(np.int8)

    def _deviation(self, held: Counts) -> Counts:
        return np.abs(held[..., : self.width] / np.maximum(held[..., self.width, None], 1) - self.overall)

    def _costs(
        self, leaves: NDArray[np.int64], joins: NDArray[np.int64], source: NDArray[np.int64], target: NDArray[np.int64]
    ) -> Counts:
        """(m,) the cost after each candidate: `leaves` goes from fold `source` to `target`, `joins` the other way."""
        change = self.own[leaves] - self.own[joins]
        after = [(source, self.held[source] - change), (target, self.held[target] + change)]
        deviation, size = self._deviation(self.held), np.abs(self.held[:, self.width] / self.wanted - 1)
        has = self._has(self.held)
        sums, present = deviation.sum(axis=1), has.sum(axis=0)
        worst, off = (
            np.where(self.touched, 0.0, values).max(axis=2)[source, target] for values in (deviation.max(axis=1), size)
        )
        total, presence = np.full(len(leaves), sums.sum()), np.tile(present, (len(leaves), 1))
        for fold, held in after:
            changed = self._deviation(held)
            worst = np.maximum(worst, changed.max(axis=1))
            off = np.maximum(off, np.abs(held[:, self.width] / self.wanted[fold] - 1))
            total += changed.sum(axis=1) - sums[fold]
            presence += self._has(held) - has[fold]
        absent = np.maximum(self.needed - presence, 0).sum(axis=1)
        cost = self._cost(absent, worst, total / deviation.size, off)
        return np.where(np.minimum(after[0][1][:, -1], after[1][1][:, -1]) < 1, np.inf, cost)

    def _candidates(self, random: np.random.Generator) -> Candidates:
        """(leaves, joins, source, target) of all moves and swaps, or of a sample."""
        if self.exhaustive:
            leaves, target = np.divmod(np.arange(self.people * self.k), self.k)
            one, other = np.triu_indices(self.people, 1)
            joins = np.concatenate([np.full(len(leaves), self.people), other])
            leaves, target = np.concatenate([leaves, one]), np.concatenate([target, self.fold[other]])
        else:
            leaves, joins, target = self._sampled(random)
        source = self.fold[leaves]
        real = np.flatnonzero(source != target)
        return leaves[real], joins[real], source[real], target[real]

    def _sampled(self, random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        leaves, joins = random.integers(self.people, size=(2, MAX_CANDIDATES))
        target = self.fold[joins]
        has = self._has(self.held)
        lacking = np.argwhere((has == 0) & (self.needed > has.sum(axis=0)))
        each = MAX_CANDIDATES // 2 // MAX_TARGETS
        for i, (fold, name) in enumerate(random.permutation(lacking)[:MAX_TARGETS].tolist()):
            part = slice(i * each, (i + 1) * each)
            leaves[part] = random.choice(np.flatnonzero(self.own[:-1, name]), each)
            joins[part], target[part] = random.choice(np.flatnonzero(self.fold == fold), each), fold
        joins[random.random(MAX_CANDIDATES) < 0.25] = self.people
        return leaves, joins, target

    def _apply(self, candidates: Candidates, at: int) -> None:
        leaves, joins, source, target = (int(part[at]) for part in candidates)
        change = self.own[leaves] - self.own[joins]
        self.held[source] -= change
        self.held[target] += change
        self.fold[leaves] = target
        if joins < self.people:
            self.fold[joins] = source

    def _perturb(self, random: np.random.Generator) -> None:
        for _ in range(int(random.integers(2, 5))):
            candidates = self._candidates(random)
            costs = self._costs(*candidates)
            possible = np.flatnonzero(np.isfinite(costs))
            if len(possible):
                self._apply(candidates, int(random.choice(possible)))
