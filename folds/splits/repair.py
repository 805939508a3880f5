"""Repair a split: move and swap whole people so that folds get the classes they lack, and a better balance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.splits.strata import Counts, GroupCounts

# Smallest deviation that starts a search (a share of the samples of a fold), and smallest relative gain to accept.
DEVIATION_TO_TRY = 0.01
MIN_GAIN = 0.1
# Largest relative error of the size of a fold, unless it was larger before.
SIZE_TOLERANCE = 0.05
# Limits of the work, for any number of people: candidates per step, steps, restarts, missing classes targeted per step.
MAX_CANDIDATES = 1500
MAX_STEPS = 600
RESTARTS = 40
PATIENCE = 12  # restarts in a row without improvement
MAX_TARGETS = 20

Candidates = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Quality:
    """Balance of people over folds.

    Attributes
    ----------
    missing_classes : sum over classes of min(p, folds) − the number of folds with the class, where p people have it and
        the difference is positive.
    max_deviation : largest \\|share of a class in the samples of a fold − its share in all samples\\| over folds and
        classes.
    mean : mean of the same.
    size : largest \\|samples of a fold / its target number of samples − 1\\|.
    """

    missing_classes: int
    max_deviation: float
    mean: float
    size: float

    def to_dict(self) -> dict[str, float]:
        """Return the values by their names on disk."""
        return {"absent": self.missing_classes, "worst": self.max_deviation, "mean": self.mean, "size": self.size}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Quality:
        """Return the quality from the values of `to_dict`; raise KeyError if one is missing."""
        return cls(record["absent"], record["worst"], record["mean"], record["size"])


@dataclass(frozen=True)
class Repair:
    """Changes of a repair: numbers of moved and of swapped people, and the quality before and after."""

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
        """Return the repair from the values of `to_dict`; raise KeyError or TypeError if they are damaged."""
        before, after = (Quality.from_dict(record[part]) for part in ("before", "after"))
        return cls(record["moved"], record["swapped"], before, after)

    def __str__(self) -> str:
        return self.text("class", "classes")

    def text(self, one: str, many: str) -> str:
        """Return the changes in a line; `one` and `many` are what is spread: ``class`` and ``classes``."""
        missing = f"{many} absent from a fold: {self.before.missing_classes} → {self.after.missing_classes}"
        deviation = (
            f"largest deviation of a {one} share {share_text(self.before.max_deviation)} → "
            f"{share_text(self.after.max_deviation)}"
        )
        return (
            f"{self.moved:,} {'person' if self.moved == 1 else 'people'} moved, {self.swapped:,} swapped; {missing}; "
            f"{deviation}"
        )


def share_text(share: float) -> str:
    """Return ``.046``."""
    return f"{share:.3f}".removeprefix("0")


def quality(people: GroupCounts, fold: NDArray[np.int64], shares: Sequence[float]) -> Quality:
    """Return the `Quality` of `fold` (people,), with `shares` (k,) the target fraction of samples of each fold."""
    return _Assignment(people, fold, shares).quality()


def repair(
    people: GroupCounts, fold: NDArray[np.int64], shares: Sequence[float], seed: int
) -> tuple[NDArray[np.int64], Repair | None]:
    """Return an assignment that is improved by moving and swapping people, and the changes.

    Missing classes have priority over the deviation of class shares. The result is never worse than `fold` in
    `missing_classes` or `max_deviation` (`Quality`), and worse in `mean` only if a fold gains a missing class by it.
    The size of each fold is within `SIZE_TOLERANCE` of its target, or within the error before if that was larger.
    `fold` is returned unchanged if no class is missing and the largest deviation is below `DEVIATION_TO_TRY`, or if the
    search neither gives a fold a missing class nor lowers that deviation by the fraction `MIN_GAIN`. With two or three
    people per fold, a class can remain missing because adding it would cost balance.

    Parameters
    ----------
    fold : (people,) fold of each person; no fold is empty.
    shares : (k,) target fraction of all samples for each fold.

    Returns
    -------
    (people,) folds, and the changes, or None if there are none.
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
    """Return the best assignment (people,) that a search finds from `fold`, which may be arbitrarily unbalanced.

    The search minimizes missing classes first, then sizes beyond `SIZE_TOLERANCE`, then the deviation of class shares.
    With fewer `steps` the result is closer to `fold`.
    """
    return _LocalSearch(_Assignment(people, fold, shares), SIZE_TOLERANCE, None).run(random, steps)


def changed(
    people: GroupCounts, before: NDArray[np.int64], after: NDArray[np.int64], shares: Sequence[float]
) -> Repair | None:
    """Return the changes from one assignment (people,) to another; None if they are equal."""
    if (before == after).all():
        return None
    return Repair(
        *_changes(before, after, len(shares)), quality(people, before, shares), quality(people, after, shares)
    )


def _changes(before: NDArray[np.int64], after: NDArray[np.int64], k: int) -> tuple[int, int]:
    """Return (moved, swapped) people; changes a → b count as swaps up to the number of changes b → a."""
    flow = np.bincount(before * k + after, minlength=k * k).reshape(k, k)
    np.fill_diagonal(flow, 0)
    swapped = int(np.minimum(flow, flow.T).sum())
    return int(flow.sum()) - swapped, swapped


class _Assignment:
    """The fold of each person, and the counts of strata, samples and people in each fold.

    The counts are whole numbers, so no rounding errors accumulate. A move or a swap changes two rows of `held`.

    Attributes
    ----------
    fold : (people,) fold of each person.
    own : (people + 1, strata + 2) samples of each stratum, samples, people. The last row is zero: a move is an exchange
        with this empty row.
    held : (k, strata + 2) the same counts of each fold.
    wanted : (k,) target number of samples of each fold.
    overall : (strata,) share of each stratum in all samples.
    needed : (classes,) largest possible number of folds with each class.
    """

    def __init__(self, people: GroupCounts, fold: NDArray[np.int64], shares: Sequence[float]) -> None:
        counts, samples = people.counts, float(people.sizes.sum())
        self.people, self.width, self.classes, self.k = len(people), counts.shape[1], people.values, len(shares)
        self.own = np.zeros((self.people + 1, self.width + 2))
        self.own[:-1] = np.column_stack([counts, people.sizes, np.ones(self.people)])
        self.wanted = np.array(shares) * samples
        self.overall = counts.sum(axis=0) / samples
        self.needed = np.minimum((counts[:, : self.classes] > 0).sum(axis=0), self.k)
        self.assign(fold)

    def assign(self, fold: NDArray[np.int64]) -> None:
        """Set the fold of every person to `fold` (people,)."""
        self.fold = fold.copy()
        self.held = np.eye(self.k)[:, fold] @ self.own[:-1]

    def quality(self) -> Quality:
        """Return the quality of the present assignment."""
        deviation, size = self.deviation(self.held), self.size_error(self.held, self.wanted)
        missing = np.maximum(self.needed - self.has(self.held).sum(axis=0), 0).sum()
        return Quality(int(missing), float(deviation.max()), float(deviation.mean()), float(size.max()))

    def has(self, held: Counts) -> NDArray[np.int8]:
        """Return (…, classes): 1 if a fold with the counts `held` (…, strata + 2) has the class, else 0."""
        return (held[..., : self.classes] > 0).astype(np.int8)

    def deviation(self, held: Counts) -> Counts:
        """Return (…, strata) the absolute difference of the share of a stratum in a fold and in all samples."""
        return np.abs(held[..., : self.width] / np.maximum(held[..., self.width, None], 1) - self.overall)

    def size_error(self, held: Counts, wanted: Counts) -> Counts:
        """Return (…) the absolute relative error of the number of samples of a fold against its target `wanted`."""
        return np.abs(held[..., self.width] / wanted - 1)

    def exchange(self, leaves: int, joins: int, source: int, target: int) -> None:
        """Move person `leaves` from fold `source` to `target`, and `joins` (possibly the empty row) back."""
        change = self.own[leaves] - self.own[joins]
        self.held[source] -= change
        self.held[target] += change
        self.fold[leaves] = target
        if joins < self.people:
            self.fold[joins] = source


class _LocalSearch:
    """Steepest descent over moves and swaps, restarted from the best assignment after a few random changes.

    Each step evaluates all moves and swaps, or with many people a sample, half of it targeted at missing classes. The
    work is bounded, and the result is deterministic for given arguments.

    Parameters
    ----------
    size_limit : largest allowed relative error of the size of a fold (`Quality.size`).
    floor : quality whose largest deviation no result may exceed; None for no limit.
    """

    def __init__(self, assignment: _Assignment, size_limit: float, floor: Quality | None) -> None:
        self.now = assignment
        self.scale, self.size_limit, self.floor = assignment.quality(), size_limit + 1e-9, floor
        # [a, b, f]: whether a change between folds a and b touches fold f.
        every = np.arange(assignment.k)
        self.touched = (every[:, None, None] == every) | (every[None, :, None] == every)
        self.exhaustive = assignment.people * (assignment.people + assignment.k) <= 4 * MAX_CANDIDATES

    def run(self, random: np.random.Generator, max_steps: int = MAX_STEPS) -> NDArray[np.int64]:
        """Return the best assignment (people,) found in at most `max_steps` steps."""
        best, best_cost = self.now.fold.copy(), self._cost_now()
        self.kept, self.kept_key = best, self._key(self.now.quality())
        self.steps = without_gain = 0
        for restart in range(RESTARTS):
            if without_gain == PATIENCE or self.steps == max_steps:
                break
            if restart:
                self.now.assign(best)
                self._perturb(random)
            cost = self._descend(random, max_steps)
            without_gain += 1
            if cost < best_cost - 1e-9:
                best, best_cost, without_gain = self.now.fold.copy(), cost, 0
        return self.kept

    def _descend(self, random: np.random.Generator, max_steps: int) -> float:
        """Apply the best change until none lowers the cost; return the cost. Store the best assignment by `_key`."""
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
        """Return the sort key of an assignment: missing classes, then sizes, then deviations; lower is better."""
        beyond = 0.0 if self.floor is None else max(now.mean - self.floor.mean, 0)
        return now.missing_classes, max(now.size - self.size_limit, 0), beyond, now.max_deviation

    def _cost_now(self) -> float:
        now = self.now.quality()
        return float(self._cost(now.missing_classes, now.max_deviation, now.mean, now.size))

    def _cost(self, missing: Any, max_deviation: Any, mean: Any, size: Any) -> Any:
        """Return the cost to minimize: mainly missing classes, then both deviations relative to those at the start."""
        largest, mean = max_deviation / max(self.scale.max_deviation, 1e-12), mean / max(self.scale.mean, 1e-12)
        cost = 10 * missing + 40 * np.maximum(size - self.size_limit, 0) + largest + mean / 2
        if self.floor is not None:  # a penalty for deviations above those at the start, which results must not exceed
            cost = cost + 4 * (np.maximum(largest - 1, 0) + np.maximum(mean - 1, 0))
        return cost

    def _costs(
        self, leaves: NDArray[np.int64], joins: NDArray[np.int64], source: NDArray[np.int64], target: NDArray[np.int64]
    ) -> Counts:
        """Return (m,) the cost after each candidate moves `leaves` from `source` to `target`, and `joins` back."""
        now = self.now
        change = now.own[leaves] - now.own[joins]
        after = [(source, now.held[source] - change), (target, now.held[target] + change)]
        deviation, size, has = now.deviation(now.held), now.size_error(now.held, now.wanted), now.has(now.held)
        sums, present = deviation.sum(axis=1), has.sum(axis=0)
        max_deviation, size_error = (
            np.where(self.touched, 0.0, values).max(axis=2)[source, target] for values in (deviation.max(axis=1), size)
        )
        total, presence = np.full(len(leaves), sums.sum()), np.tile(present, (len(leaves), 1))
        for fold, held in after:
            changed = now.deviation(held)
            max_deviation = np.maximum(max_deviation, changed.max(axis=1))
            size_error = np.maximum(size_error, now.size_error(held, now.wanted[fold]))
            total += changed.sum(axis=1) - sums[fold]
            presence += now.has(held) - has[fold]
        missing = np.maximum(now.needed - presence, 0).sum(axis=1)
        cost = self._cost(missing, max_deviation, total / deviation.size, size_error)
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
        """Return (leaves, joins, target) of a random sample, half of it targeted at classes missing from folds."""
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
        """Apply two to four random changes that leave no fold empty."""
        for _ in range(int(random.integers(2, 5))):
            candidates = self._candidates(random)
            costs = self._costs(*candidates)
            possible = np.flatnonzero(np.isfinite(costs))
            if len(possible):
                self._apply(candidates, int(random.choice(possible)))
