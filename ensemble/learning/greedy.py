"""Fit weights by greedy selection with replacement; numpy only.

Caruana, Niculescu-Mizil, Crew & Ksikes, "Ensemble selection from libraries of models" (ICML 2004): each step adds the
member that gives the running mean the best score; the weight of a member is the share of its steps. The selection is
exact: each step adds the same member as scoring all candidates from scratch. The rules for ties and for the end are
those of AutoGluon's `EnsembleSelection`, so both select the same members. It is fast because candidates are scored
together (see `ensemble.learning.greedy_objectives`).

Memory in addition to the probabilities: at most 48 · members · n bytes for log loss; for a metric of counts, the size
of the probabilities plus 9 · members · n and 40 · n · classes bytes; 24 · n · classes bytes for other metrics. A bag
copies the probabilities of its members. Time is linear in n, members and steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.greedy_objectives import (
    CountsObjective,
    Decisions,
    GenericObjective,
    LogLossObjective,
    Objective,
    normalize_sums,
)
from folds.errors import EnsembleError, UsageError
from folds.metrics.classification import METRICS, Metric
from folds.metrics.confusion import argmax_classes

# Scores are compared after rounding to this many decimals; smaller differences do not justify another member.
DECIMALS = 6
# If the error of the first step is smaller, errors are not rounded: six decimals could not distinguish candidates.
MIN_ROUNDED_ERROR = 1e-4
# Scores with a smaller relative difference are equal up to rounding.
_EQUAL = 1e-12
# Numbers of a block of probabilities.
_AT_ONCE = 1 << 19


@dataclass(frozen=True)
class Selection:
    """The result of a greedy selection.

    Attributes
    ----------
    weights : (members,) share of the kept steps that added each member, sum 1; with bags, the mean over the bags.
    order : member added at each kept step; with bags, the steps of all bags in order.
    trajectory : score after each step, kept or not; with bags, score of the mean weights after each bag.
    """

    weights: NDArray[np.float64]
    order: tuple[int, ...]
    trajectory: tuple[float, ...]


def select(
    probabilities: NDArray,
    labels: NDArray[np.integer],
    metric: Metric,
    *,
    steps: int = 100,
    present: NDArray[np.bool_] | None = None,
    bags: int = 0,
    bag_share: float = 0.5,
    warm: int = 0,
    patience: int | None = None,
    seed: int = 0,
    rows: NDArray | None = None,
) -> Selection:
    """Return the greedy selection on one set of rows; parameters as in `Prepared.select` and `Prepared`."""
    prepared = Prepared(probabilities, labels, present)
    return prepared.select(
        metric, steps=steps, bags=bags, bag_share=bag_share, warm=warm, patience=patience, seed=seed, rows=rows
    )


class Prepared:
    """Members on labeled rows, with cached arrays for several selections.

    Parameters
    ----------
    probabilities : (members, n, classes) float32 or float64; rows sum to 1, and to 0 where a member is absent.
    labels : (n,) class indices.
    present : (members, n) whether a member predicts a row; None if all members predict all rows.

    Raises
    ------
    EnsembleError : shapes that do not match, labels out of range, or values that are not probabilities.
    """

    def __init__(
        self, probabilities: NDArray, labels: NDArray[np.integer], present: NDArray[np.bool_] | None = None
    ) -> None:
        values = np.ascontiguousarray(probabilities)
        if values.ndim != 3 or 0 in values.shape or values.dtype not in (np.float32, np.float64):
            raise EnsembleError(
                "expected probabilities (members, n, classes) of float32 or float64, "
                f"found {values.shape} of {values.dtype}"
            )
        self.probabilities, self.labels = values, np.asarray(labels).astype(np.int64)
        self.members, self.n, self.classes = values.shape
        if self.labels.shape != (self.n,):
            raise EnsembleError(f"expected a label for each of {self.n:,} rows, found labels {self.labels.shape}")
        if self.labels.min() < 0 or self.labels.max() >= self.classes:
            raise EnsembleError(
                f"expected labels from 0 to {self.classes - 1}, found {self.labels.min()} to {self.labels.max()}"
            )
        if present is not None and np.shape(present) != (self.members, self.n):
            raise EnsembleError(f"expected `present` ({self.members}, {self.n}), found {np.shape(present)}")
        complete = present is None or bool(np.all(present))
        self.present = None if complete else np.asarray(present, bool)

    def select(
        self,
        metric: Metric,
        *,
        steps: int = 100,
        bags: int = 0,
        bag_share: float = 0.5,
        warm: int = 0,
        patience: int | None = None,
        seed: int = 0,
        rows: NDArray | None = None,
    ) -> Selection:
        """Return the weights of the members with the best combined score.

        The steps up to the first best score are kept. Ties (equal to 1e-12 in the first step, to six decimals later) go
        to a member that is already selected, then to a random one, drawn from `numpy.random.RandomState(seed)`.

        Parameters
        ----------
        steps : number of steps; a member can be added several times.
        bags : number of averaged selections, each from a random share of the members (Caruana et al., 2004, section
            2.3); 0 for one selection from all members.
        bag_share : share of the members in a bag; a bag has at least one.
        warm : number of best single members to start with, best first (sorted initialization, section 2.2); they count
            as steps.
        patience : stop after this many steps without a new best score; None to try all steps. The steps until then are
            the same, but a later best score can be missed.
        rows : indices or mask of the rows to fit on; None for all.

        Raises
        ------
        UsageError : a parameter is out of range.
        EnsembleError : no rows, repeated rows, or a metric that is NaN for every candidate.
        """
        _check(steps, bags, bag_share, warm, patience)
        index = self._index(rows)
        if bags == 0:
            order, trajectory = self._select_steps(metric, index, steps, warm, patience, np.random.RandomState(seed))
            return Selection(_shares(order, self.members), tuple(order), tuple(trajectory))
        random = np.random.default_rng(seed)
        size = max(1, round(bag_share * self.members))
        weights, order_of_bags, scores = np.zeros(self.members), list[int](), list[float]()
        for bag in range(1, bags + 1):
            chosen = np.sort(random.choice(self.members, size, replace=False))
            bag_random = np.random.RandomState(random.integers(2**32, dtype=np.uint64))
            order, _ = self.take_members(chosen)._select_steps(metric, index, steps, warm, patience, bag_random)
            order_of_bags += [int(chosen[i]) for i in order]
            weights[chosen] += _shares(order, size)
            scores.append(self.score(metric, weights / bag, rows))
        return Selection(weights / weights.sum(), tuple(order_of_bags), tuple(scores))

    def score(self, metric: Metric, weights: NDArray[np.float64], rows: NDArray | None = None) -> float:
        """Return the score of a weighted mean; on rows where a member is absent, the others share its weight.

        On rows without a present member of positive weight, a metric of counts gets no predicted class; other metrics
        get equal probabilities.
        """
        index = self._index(rows)
        chosen = slice(None) if index is None else index
        labels = self.labels[chosen]
        sums = np.zeros((len(labels), self.classes))
        for member in np.flatnonzero(weights):
            sums += weights[member] * self.probabilities[member][chosen].astype(np.float64)
        if metric.from_counts is None:
            return float(metric(labels, normalize_sums(sums)))
        predicted = np.where(sums.any(axis=1), argmax_classes(sums), -1)
        return float(metric.from_counts(_counts(labels, predicted, self.classes)))

    def take_members(self, members: NDArray[np.int64]) -> Prepared:
        """Return a copy with these members only."""
        return Prepared(
            self.probabilities[members], self.labels, None if self.present is None else self.present[members]
        )

    def _index(self, rows: NDArray | None) -> NDArray[np.int64] | None:
        """Return the row indices in ascending order; None for all rows."""
        if rows is None:
            return None
        rows = np.asarray(rows)
        if rows.dtype == bool and rows.shape != (self.n,):
            raise EnsembleError(f"expected a mask of {self.n:,} rows, found {rows.shape}")
        index = np.flatnonzero(rows) if rows.dtype == bool else np.sort(rows.astype(np.int64))
        if not len(index) or index[0] < 0 or index[-1] >= self.n or (np.diff(index) == 0).any():
            raise EnsembleError(
                f"expected one or more different rows from 0 to {self.n - 1} to fit on, found {len(index)}"
            )
        return None if len(index) == self.n else index

    def _select_steps(
        self,
        metric: Metric,
        rows: NDArray[np.int64] | None,
        steps: int,
        warm: int,
        patience: int | None,
        random: np.random.RandomState,
    ) -> tuple[list[int], list[float]]:
        """Return the members added up to the first best score, and the score after each step."""
        objective = self._objective(metric, rows)
        order: list[int] = []
        scores: list[float] = []
        errors: list[float] = []
        ranking: Sequence[int] = ()
        rounded, best = False, 0
        for step in range(steps):
            found = objective.scores()
            error = 1 - found if metric.greater_is_better else found
            if step == 0 and warm:
                ranking = _rank_members(error)[:warm]
            if rounded:
                error = error.round(DECIMALS)
            if np.isnan(error).all():
                raise EnsembleError(
                    f"{metric.title} of every candidate is NaN",
                    hint="choose another `metric`; this one is undefined for people of one class only"
                    if metric.ranking is not None or metric.rank_based
                    else "choose another `metric`",
                )
            member = ranking[step] if step < len(ranking) else _draw_best(error, order, random)
            if step == 0:
                rounded = abs(error[member]) > MIN_ROUNDED_ERROR
            order.append(member)
            scores.append(float(found[member]))
            errors.append(float(error[member].round(DECIMALS) if rounded else error[member]))
            if not errors[best] <= errors[step]:
                best = step
            if self.members == 1 or (patience is not None and step - best >= patience):
                break
            objective.take(member)
        return order[: best + 1], scores

    def _objective(self, metric: Metric, rows: NDArray[np.int64] | None) -> Objective:
        if metric.from_counts is not None:
            selected = np.ones(self.n, bool)
            if rows is not None:
                selected = np.zeros(self.n, bool)
                selected[rows] = True
            return CountsObjective(self._decisions, self.labels, selected, metric.from_counts)
        if metric.per_row is not None and metric.per_row is METRICS["log_loss"].per_row:
            true, totals, complete = self._true_class
            chosen = slice(None) if rows is None else rows
            return LogLossObjective(true[:, chosen], totals[:, chosen], self.classes, complete)
        return GenericObjective(self.probabilities, self.labels, metric, rows)

    @cached_property
    def _true_class(self) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
        """Return (members, n) probability of the true class, (members, n) sums, and whether all sums are near 1."""
        true = self.probabilities[:, np.arange(self.n), self.labels].astype(np.float64)
        totals = np.empty((self.members, self.n))
        ones = np.ones(self.classes)
        size = max(1, _AT_ONCE // (self.members * self.classes))
        for start in range(0, self.n, size):
            part = slice(start, start + size)
            totals[:, part] = self.probabilities[:, part].astype(np.float64) @ ones
        if not np.isfinite(totals).all() or true.min() < 0:
            raise self._no_probabilities()
        return true, totals, bool(np.abs(totals - 1).max() < 1e-6)

    @cached_property
    def _decisions(self) -> Decisions:
        decisions = Decisions.from_probabilities(self.probabilities, self.present)
        if not np.isfinite(decisions.highest).all() or not decisions.lowest.min() >= 0:
            raise self._no_probabilities()
        return decisions

    def _no_probabilities(self) -> EnsembleError:
        invalid = next(
            i for i, values in enumerate(self.probabilities) if not (np.isfinite(values).all() and values.min() >= 0)
        )
        return EnsembleError(f"expected probabilities, found negative or non-finite values in member {invalid}")


def _check(steps: int, bags: int, bag_share: float, warm: int, patience: int | None) -> None:
    """Raise UsageError for a parameter out of range."""
    for name, value, minimum in (
        ("steps", steps, 1),
        ("bags", bags, 0),
        ("warm", warm, 0),
        ("patience", 1 if patience is None else patience, 1),
    ):
        if value < minimum:
            raise UsageError(f"`{name}` must be at least {minimum}, found {value}")
    if not 0 < bag_share <= 1:
        raise UsageError(f"`bag_share` must be above 0 and at most 1, found {bag_share}")


def _rank_members(error: NDArray[np.float64]) -> list[int]:
    """Return the members from the smallest to the largest error; equal ones (to 1e-12), then NaN, by their index."""
    error = np.where(np.isnan(error), np.inf, error)
    order = np.argsort(error, kind="stable")
    ordered = error[order]
    larger = ordered[1:] > ordered[:-1] + _EQUAL * np.abs(ordered[:-1])
    return order[np.lexsort((order, np.concatenate([[0], np.cumsum(larger)])))].tolist()


def _draw_best(errors: NDArray[np.float64], selected: Sequence[int], random: np.random.RandomState) -> int:
    """Return a random member among the best; members that are already selected take precedence."""
    values = errors.tolist()  # faster than array operations on a few numbers, and drawn once a step
    minimum = min(value for value in values if not math.isnan(value))
    limit = _EQUAL * abs(minimum)
    best = [i for i, value in enumerate(values) if abs(value - minimum) <= limit]
    return int(random.choice([i for i in best if i in selected] or best))


def _shares(order: Sequence[int], members: int) -> NDArray[np.float64]:
    return np.bincount(order, minlength=members) / len(order)


def _counts(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return (3, classes) as `folds.metrics.confusion.confusion_counts` does; predictions may be −1 (none)."""
    true_positives = np.bincount(labels[predicted == labels], minlength=classes)
    return np.stack(
        [
            true_positives,
            np.bincount(labels, minlength=classes),
            np.bincount(predicted[predicted >= 0], minlength=classes),
        ]
    )
