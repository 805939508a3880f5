"""Repair a split: move and swap whole people so that folds get the classes they lack, and a better balance."""

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
# The work, whatever the number of people: candidates a step, steps, restarts, absent classes that a step aims at.
MAX_CANDIDATES = 1500
MAX_STEPS = 600
RESTARTS = 40
PATIENCE = 12  # restarts in a row that found nothing better
MAX_TARGETS = 20

Candidates = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Quality:
    """How well people are spread over folds.

    Attributes
    ----------
    missing_classes : pairs of a fold and a class that it lacks though people enough have it: a class of p people can be
        in
        min(p, folds) folds, each fewer counts one.
    max_deviation : the largest \\|share of a class in a fold's samples − its share in all samples\\| over folds and
        classes.
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
        deviation = (
            f"largest deviation of a class share {share_text(self.before.max_deviation)} → "
            f"{share_text(self.after.max_deviation)}"
        )
        return (
            f"{self.moved:,} {'person' if self.moved == 1 else 'people'} moved, {self.swapped:,} swapped; {absent}; "
            f"{deviation}"
        )


def share_text(share: float) -> str:
    """Return ``.046``."""
    return f"{share:.3f}".removeprefix("0")


def quality(people: GroupCounts, fold: NDArray[np.int64], shares: Sequence[float]) -> Quality:
    """Return the `Quality` of `fold` (people,), where the folds should have `shares` (k,) of all samples."""
    return _Assignment(people, fold, shares).quality()


def repair(
    people: GroupCounts, fold: NDArray[np.int64], shares: Sequence[float], seed: int
) -> tuple[NDArray[np.int64], Repair | None]:
    """Improve an assignment by moving and swapping whole people.

    First come the classes that folds lack, then the deviation of class shares. The result is never worse than `fold` in
    `missing_classes` or `max_deviation` (`Quality`), and in `mean` only where a class could not be won otherwise; its
    folds are at most
    `SIZE_TOLERANCE` off in samples, or as much as before where that was more. It is left alone where nothing is absent
    and the largest deviation is below `DEVIATION_TO_TRY`, and where no class could be won nor that deviation be lowered
    by the
    part `MIN_GAIN` of itself. With two or three people a fold, a class can stay absent because winning it would cost
    balance.

    Parameters
    ----------
    fold : (people,) where each person is; no fold is empty.
    shares : (k,) the part of all samples that each fold should have.

    Returns
    -------
    (people,) folds, and what was changed or None.
    """
    assignment = _Assignment(people, fold, shares)
    before = assignment.quality()
    if not before.missing_classes and before.max_deviation < DEVIATION_TO_TRY:
        return fold, None
    search = _LocalSearch(assignment, max(SIZE_TOLERANCE, before.size), before)
    found = search.run(np.random.default_rng([seed, len(people)]))
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
    """Return the best assignment (people,) that a search finds from `fold`, which may be a bad one: nothing of it needs
    to stay.

    First come the classes that folds lack, then sizes within `SIZE_TOLERANCE`, then the deviation of class shares.
    Fewer
    `steps` stay nearer to where the search begins.
    """
    return _LocalSearch(_Assignment(people, fold, shares), SIZE_TOLERANCE, None).run(random, steps)


def _changes(before: NDArray[np.int64], after: NDArray[np.int64], k: int) -> tuple[int, int]:
    """Return (moved, swapped) people: who changed a → b is swapped as far as others changed b → a."""
    flow = np.bincount(before * k + after, minlength=k * k).reshape(k, k)
    np.fill_diagonal(flow, 0)
    swapped = int(np.minimum(flow, flow.T).sum())
    return int(flow.sum()) - swapped, swapped


class _Assignment:
    """Who is in which fold, and what each fold holds of every stratum, of samples and of people.

    Whole numbers, so that no error piles up. Moving a person or exchanging two changes two rows of `held`.

    Attributes
    ----------
    fold : (people,) where each person is.
    own : (people + 1, strata + 2) samples of each stratum, samples, people. The last row is nobody: a move is an
        exchange with nobody.
    held : (k, strata + 2) the same of each fold.
    wanted : (k,) the samples that each fold should have.
    overall : (strata,) share of each stratum in all samples.
    needed : (classes,) in how many folds each class can be.
    """

    def __init__(self, people: GroupCounts, fold: NDArray[np.int64], shares: Sequence[float]) -> None:
        counts, samples = people.counts, float(people.sizes.sum())
        self.people, self.width, self.classes, self.k = len(people), counts.shape[1], people.values, len(shares)
        self.own = np.zeros((self.people + 1, self.width + 2))
        self.own[:-1] = np.column_stack([counts, people.sizes, np.ones(self.people)])
        self.wanted = np.array(shares) * samples
        self.overall = counts.sum(axis=0) / samples
        self.needed = np.minimum((counts[:, : self.classes] > 0).sum(axis=0), self.k)
        self.place(fold)

    def place(self, fold: NDArray[np.int64]) -> None:
        """Put everybody where `fold` (people,) says."""
        self.fold = fold.copy()
        self.held = np.eye(self.k)[:, fold] @ self.own[:-1]

    def quality(self) -> Quality:
        """Return how well people are spread now."""
        deviation, size = self.deviation(self.held), self.size_error(self.held, self.wanted)
        absent = np.maximum(self.needed - self.has(self.held).sum(axis=0), 0).sum()
        return Quality(int(absent), float(deviation.max()), float(deviation.mean()), float(size.max()))

    def has(self, held: Counts) -> NDArray[np.int8]:
        """Return (…, classes) 1 where a fold that holds `held` (…, strata + 2) has the class."""
        return (held[..., : self.classes] > 0).astype(np.int8)

    def deviation(self, held: Counts) -> Counts:
        """Return (…, strata) how far the share of a stratum in a fold is from its share in all samples."""
        return np.abs(held[..., : self.width] / np.maximum(held[..., self.width, None], 1) - self.overall)

    def size_error(self, held: Counts, wanted: Counts) -> Counts:
        """Return (…) how far the samples of a fold are from those it should have, as a part of these."""
        return np.abs(held[..., self.width] / wanted - 1)

    def exchange(self, leaves: int, joins: int, source: int, target: int) -> None:
        """Send `leaves` from fold `source` to `target`, and `joins`, who may be nobody, the other way."""
        change = self.own[leaves] - self.own[joins]
        self.held[source] -= change
        self.held[target] += change
        self.fold[leaves] = target
        if joins < self.people:
            self.fold[joins] = source


class _LocalSearch:
    """Steepest descent over moves and swaps, begun again from the best so far with a few random ones.

    All moves and swaps are looked at, or a sample of them where people are many, half of it aimed at what is absent.
    The
    work is bounded, and the result follows from the arguments alone.

    Parameters
    ----------
    size_limit : how far the samples of a fold may be from what it should have (`Quality.size`).
    floor : with it no result is worse in its largest deviation.
    """

    def __init__(self, assignment: _Assignment, size_limit: float, floor: Quality | None) -> None:
        self.now = assignment
        self.scale, self.size_limit, self.floor = assignment.quality(), size_limit + 1e-9, floor
        # [a, b, f]: whether a change between folds a and b touches fold f.
        every = np.arange(assignment.k)
        self.touched = (every[:, None, None] == every) | (every[None, :, None] == every)
        self.exhaustive = assignment.people * (assignment.people + assignment.k) <= 4 * MAX_CANDIDATES

    def run(self, random: np.random.Generator, max_steps: int = MAX_STEPS) -> NDArray[np.int64]:
        """Return the best assignment (people,) found in at most so many steps."""
        best, best_cost = self.now.fold.copy(), self._cost_now()
        self.kept, self.kept_key = best, self._key(self.now.quality())
        self.steps = fruitless = 0
        for restart in range(RESTARTS):
            if fruitless == PATIENCE or self.steps == max_steps:
                break
            if restart:
                self.now.place(best)
                self._perturb(random)
            cost = self._descend(random, max_steps)
            fruitless += 1
            if cost < best_cost - 1e-9:
                best, best_cost, fruitless = self.now.fold.copy(), cost, 0
        return self.kept

    def _descend(self, random: np.random.Generator, max_steps: int) -> float:
        """Take the best change while there is one; return the cost reached, and remember what was best by `_key` on the
        way.
        """
        cost, misses = self._cost_now(), 0
        while self.steps < max_steps and misses < (1 if self.exhaustive else 3):
            self.steps += 1
            candidates = self._candidates(random)
            costs = self._costs(*candidates)
            at = int(costs.argmin()) if len(costs) else -1
            if at < 0 or costs[at] >= cost - 1e-9:
                misses += 1
                continue
            self._apply(candidates, at)
            cost, misses = float(costs[at]), 0
            now = self.now.quality()
            allowed = self.floor is None or now.max_deviation <= self.floor.max_deviation
            if allowed and self._key(now) < self.kept_key:
                self.kept, self.kept_key = self.now.fold.copy(), self._key(now)
        return cost

    def _key(self, now: Quality) -> tuple[float, ...]:
        """Return what assignments are compared by: absent classes, then sizes, then deviations."""
        beyond = 0.0 if self.floor is None else max(now.mean - self.floor.mean, 0)
        return now.missing_classes, max(now.size - self.size_limit, 0), beyond, now.max_deviation

    def _cost_now(self) -> float:
        now = self.now.quality()
        return float(self._cost(now.missing_classes, now.max_deviation, now.mean, now.size))

    def _cost(self, absent: Any, worst: Any, mean: Any, size: Any) -> Any:
        """Return one number to descend: absent classes above all, then both deviations as parts of those at the
        start.
        """
        worst, mean = worst / max(self.scale.max_deviation, 1e-12), mean / max(self.scale.mean, 1e-12)
        cost = 10 * absent + 40 * np.maximum(size - self.size_limit, 0) + worst + mean / 2
        if self.floor is not None:  # what must not get worse costs extra, so that the search turns back
            cost = cost + 4 * (np.maximum(worst - 1, 0) + np.maximum(mean - 1, 0))
        return cost

    def _costs(
        self, leaves: NDArray[np.int64], joins: NDArray[np.int64], source: NDArray[np.int64], target: NDArray[np.int64]
    ) -> Counts:
        """Return (m,) the cost after each candidate: `leaves` goes from fold `source` to `target`, `joins` the other
        way.
        """
        now = self.now
        change = now.own[leaves] - now.own[joins]
        after = [(source, now.held[source] - change), (target, now.held[target] + change)]
        deviation, size, has = now.deviation(now.held), now.size_error(now.held, now.wanted), now.has(now.held)
        sums, present = deviation.sum(axis=1), has.sum(axis=0)
        worst, off = (
            np.where(self.touched, 0.0, values).max(axis=2)[source, target] for values in (deviation.max(axis=1), size)
        )
        total, presence = np.full(len(leaves), sums.sum()), np.tile(present, (len(leaves), 1))
        for fold, held in after:
            changed = now.deviation(held)
            worst = np.maximum(worst, changed.max(axis=1))
            off = np.maximum(off, now.size_error(held, now.wanted[fold]))
            total += changed.sum(axis=1) - sums[fold]
            presence += now.has(held) - has[fold]
        absent = np.maximum(now.needed - presence, 0).sum(axis=1)
        cost = self._cost(absent, worst, total / deviation.size, off)
        empties_a_fold = np.minimum(after[0][1][:, -1], after[1][1][:, -1]) < 1
        return np.where(empties_a_fold, np.inf, cost)

    def _candidates(self, random: np.random.Generator) -> Candidates:
        """Return (leaves, joins, source, target) of all moves and swaps, or of a sample."""
        now = self.now
        if self.exhaustive:
            leaves, target = np.divmod(np.arange(now.people * now.k), now.k)
            one, other = np.triu_indices(now.people, 1)
            joins = np.concatenate([np.full(len(leaves), now.people), other])
            leaves, target = np.concatenate([leaves, one]), np.concatenate([target, now.fold[other]])
        else:
            leaves, joins, target = self._sample(random)
        source = now.fold[leaves]
        real = np.flatnonzero(source != target)
        return leaves[real], joins[real], source[real], target[real]

    def _sample(self, random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return (leaves, joins, target) of a sample, half of it aimed at classes that are absent from folds."""
        now = self.now
        leaves, joins = random.integers(now.people, size=(2, MAX_CANDIDATES))
        target = now.fold[joins]
        has = now.has(now.held)
        lacking = np.argwhere((has == 0) & (now.needed > has.sum(axis=0)))
        each = MAX_CANDIDATES // 2 // MAX_TARGETS
        for i, (fold, name) in enumerate(random.permutation(lacking)[:MAX_TARGETS].tolist()):
            part = slice(i * each, (i + 1) * each)
            leaves[part] = random.choice(np.flatnonzero(now.own[:-1, name]), each)
            joins[part], target[part] = random.choice(np.flatnonzero(now.fold == fold), each), fold
        joins[random.random(MAX_CANDIDATES) < 0.25] = now.people
        return leaves, joins, target

    def _apply(self, candidates: Candidates, at: int) -> None:
        leaves, joins, source, target = (int(part[at]) for part in candidates)
        self.now.exchange(leaves, joins, source, target)

    def _perturb(self, random: np.random.Generator) -> None:
        """Make two to four random changes that leave no fold empty."""
        for _ in range(int(random.integers(2, 5))):
            candidates = self._candidates(random)
            costs = self._costs(*candidates)
            possible = np.flatnonzero(np.isfinite(costs))
            if len(possible):
                self._apply(candidates, int(random.choice(possible)))
