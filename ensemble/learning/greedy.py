"""Weights by greedy selection with replacement; numpy only.

Caruana, Niculescu-Mizil, Crew & Ksikes, "Ensemble selection from libraries of models" (ICML 2004): step by step the
member that makes the running mean's score best is added once more; a member's weight is how often it was taken. It is
exact: every step takes what scoring every candidate anew would take, and the rules of ties and of where it stops are
those of AutoGluon's `EnsembleSelection`, so that both take the same members. The speed comes from scoring candidates
together (see `greedy_kernels`).

Memory, beside the probabilities: at most 48 · members · n bytes for log loss; as much as the probabilities, 9 · members
· n
and 40 · n · classes for a metric of counts; 24 · n · classes for any other. A bag copies the probabilities of its
members.
Time is linear in n, members and steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.greedy_objectives import AnyCourse, CountsCourse, Course, Decisions, LogLossCourse, normalised
from folds.errors import EnsembleError, UsageError
from folds.metrics.classification import METRICS, Metric, argmax_classes

# Scores are compared at so many decimals: what is nearer is no reason for another member.
DECIMALS = 6
# An error below this in the first step is left as it is: six decimals would not tell candidates apart.
TINY = 1e-4
# Scores nearer than this share of them are equal up to rounding.
_EQUAL = 1e-12
# Rows of probabilities looked through at once, in numbers.
_AT_ONCE = 1 << 19


@dataclass(frozen=True)
class Selection:
    """What was taken.

    Attributes
    ----------
    weights : (members,) sum to 1: how often each was taken / steps kept; with bags the mean of theirs.
    order : the member taken at each step kept; with bags one bag after the other.
    trajectory : the score after each step tried; with bags that of the mean of the weights after each bag.
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
    """Greedy selection on one set of rows; see `Prepared.select` for the parameters, and `Prepared` for the arrays."""
    prepared = Prepared(probabilities, labels, present)
    return prepared.select(
        metric, steps=steps, bags=bags, bag_share=bag_share, warm=warm, patience=patience, seed=seed, rows=rows
    )


class Prepared:
    """Members on labelled rows, and what is worked out of them once.

    Parameters
    ----------
    probabilities : (members, n, classes) float32 or float64; rows sum to 1, and to 0 where a member is absent.
    labels : (n,) class indices.
    present : (members, n); all are present without it.

    Raises
    ------
    EnsembleError : shapes that do not fit, labels that are no class, values that are no probabilities.
    """

    def __init__(
        self, probabilities: NDArray, labels: NDArray[np.integer], present: NDArray[np.bool_] | None = None
    ) -> None:
        values = np.ascontiguousarray(probabilities)
        if values.ndim != 3 or 0 in values.shape or values.dtype not in (np.float32, np.float64):
            raise EnsembleError(
                f"expected probabilities (members, n, classes) of float32 or float64, found {values.shape} of "
                f"{values.dtype}"
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
        whole = present is None or bool(np.all(present))
        self.present = None if whole else np.asarray(present, bool)

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
        """Weights of the members that score best together.

        The steps up to the first best score are kept. Among candidates that are equal (to 1e-12 in the first step, to
        six
        decimals after it) those already taken come first, then a random one: the draws are those of
        `numpy.random.RandomState(seed)`.

        Parameters
        ----------
        steps : members to take, the same one as often as it helps.
        bags : so many selections, each among a random share of the members, averaged (Caruana et al., 2004, section
            2.3);
            0 for one selection among all.
        bag_share : the share of the members in a bag; at least one.
        warm : begin with the so many best single members, best first (sorted initialisation, section 2.2); they count
            as steps.
        patience : stop after so many steps without a new best. The steps are those of the full course, up to there;
            what
            may be missed is a best that comes after a longer pause. All steps are tried without it.
        rows : indices or a mask of the rows to fit on; all without it.

        Raises
        ------
        UsageError : a number that is out of its range.
        EnsembleError : no rows, rows that repeat, or a metric that gives no number.
        """
        _check(steps, bags, bag_share, warm, patience)
        index = self._index(rows)
        if bags == 0:
            order, trajectory = self._walk(metric, index, steps, warm, patience, np.random.RandomState(seed))
            return Selection(_shares(order, self.members), tuple(order), tuple(trajectory))
        random = np.random.default_rng(seed)
        size = max(1, round(bag_share * self.members))
        weights, taken, scores = np.zeros(self.members), list[int](), list[float]()
        for bag in range(1, bags + 1):
            chosen = np.sort(random.choice(self.members, size, replace=False))
            drawn = np.random.RandomState(random.integers(2**32, dtype=np.uint64))
            order, _ = self.only(chosen)._walk(metric, index, steps, warm, patience, drawn)
            taken += [int(chosen[i]) for i in order]
            weights[chosen] += _shares(order, size)
            scores.append(self.score(metric, weights / bag, rows))
        return Selection(weights / weights.sum(), tuple(taken), tuple(scores))

    def score(self, metric: Metric, weights: NDArray[np.float64], rows: NDArray | None = None) -> float:
        """The score of a weighted mean; a member absent on a row leaves its weight to the others.

        A row whose members with a weight are all absent is predicted to be no class by a metric of counts; for others
        each
        class has the same probability there.
        """
        index = self._index(rows)
        chosen = slice(None) if index is None else index
        labels = self.labels[chosen]
        sums = np.zeros((len(labels), self.classes))
        for member in np.flatnonzero(weights):
            sums += weights[member] * self.probabilities[member][chosen].astype(np.float64)
        if metric.from_counts is None:
            return float(metric(labels, normalised(sums)))
        decided = np.where(sums.any(axis=1), argmax_classes(sums), -1)
        return float(metric.from_counts(_counts(labels, decided, self.classes)))

    def only(self, members: NDArray[np.int64]) -> Prepared:
        """Some of the members, copied."""
        return Prepared(
            self.probabilities[members], self.labels, None if self.present is None else self.present[members]
        )

    def _index(self, rows: NDArray | None) -> NDArray[np.int64] | None:
        """The rows in order; None for all."""
        if rows is None:
            return None
        rows = np.asarray(rows)
        if rows.dtype == bool and rows.shape != (self.n,):
            raise EnsembleError(f"expected a mask of {self.n:,} rows, found {rows.shape}")
        index = np.flatnonzero(rows) if rows.dtype == bool else np.sort(rows.astype(np.int64))
        if not len(index) or index[0] < 0 or index[-1] >= self.n or (np.diff(index) == 0).any():
            raise EnsembleError(
                f"expected different rows from 0 to {self.n - 1} to fit on, at least one; found {len(index)}"
            )
        return None if len(index) == self.n else index

    def _walk(
        self,
        metric: Metric,
        rows: NDArray[np.int64] | None,
        steps: int,
        warm: int,
        patience: int | None,
        random: np.random.RandomState,
    ) -> tuple[list[int], list[float]]:
        """The members taken up to the first best score, and the score after each step tried."""
        course = self._course(metric, rows)
        order: list[int] = []
        scores: list[float] = []
        errors: list[float] = []
        ranking: Sequence[int] = ()
        rounded, best = False, 0
        for step in range(steps):
            found = course.scores()
            error = 1 - found if metric.greater_is_better else found
            if step == 0 and warm:
                ranking = np.argsort(np.where(np.isnan(error), np.inf, error), kind="stable")[:warm].tolist()
            if rounded:
                error = error.round(DECIMALS)
            if np.isnan(error).all():
                raise EnsembleError(f"{metric.title} of every candidate is no number", hint="choose another `metric`")
            member = ranking[step] if step < len(ranking) else _draw(error, order, random)
            if step == 0:
                rounded = abs(error[member]) > TINY
            order.append(member)
            scores.append(float(found[member]))
            errors.append(float(error[member].round(DECIMALS) if rounded else error[member]))
            if not errors[best] <= errors[step]:
                best = step
            if self.members == 1 or (patience is not None and step - best >= patience):
                break
            course.take(member)
        return order[: best + 1], scores

    def _course(self, metric: Metric, rows: NDArray[np.int64] | None) -> Course:
        if metric.from_counts is not None:
            selected = np.ones(self.n, bool)
            if rows is not None:
                selected = np.zeros(self.n, bool)
                selected[rows] = True
            return CountsCourse(self._decisions, self.labels, selected, metric.from_counts)
        if metric.per_row is not None and metric.per_row is METRICS["log_loss"].per_row:
            true, totals, whole = self._true_class
            chosen = slice(None) if rows is None else rows
            return LogLossCourse(true[:, chosen], totals[:, chosen], self.classes, whole)
        return AnyCourse(self.probabilities, self.labels, metric, rows)

    @cached_property
    def _true_class(self) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
        """(members, n) the true class's probability, (members, n) the sum over classes, and whether all sums are near
        1.
        """
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
        decisions = Decisions.of(self.probabilities, self.present)
        if not np.isfinite(decisions.highest).all() or not decisions.lowest.min() >= 0:
            raise self._no_probabilities()
        return decisions

    def _no_probabilities(self) -> EnsembleError:
        bad = next(
            i for i, values in enumerate(self.probabilities) if not (np.isfinite(values).all() and values.min() >= 0)
        )
        return EnsembleError(f"expected probabilities, found values below 0 or no number in member {bad}")


def _check(steps: int, bags: int, bag_share: float, warm: int, patience: int | None) -> None:
    """Raise UsageError for a number out of its range."""
    for name, value, least in (
        ("steps", steps, 1),
        ("bags", bags, 0),
        ("warm", warm, 0),
        ("patience", 1 if patience is None else patience, 1),
    ):
        if value < least:
            raise UsageError(f"{name} must be at least {least}, not {value}")
    if not 0 < bag_share <= 1:
        raise UsageError(f"bag_share must be above 0 and at most 1, not {bag_share}")


def _draw(errors: NDArray[np.float64], taken: Sequence[int], random: np.random.RandomState) -> int:
    """A member among the best, those already taken first."""
    least = np.nanmin(errors)
    best = np.flatnonzero(np.abs(errors - least) <= _EQUAL * abs(least)).tolist()
    return int(random.choice([i for i in best if i in taken] or best))


def _shares(order: Sequence[int], members: int) -> NDArray[np.float64]:
    return np.bincount(order, minlength=members) / len(order)


def _counts(labels: NDArray[np.int64], decided: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """(3, classes) as `folds.metrics.classification.class_counts`, where a decision may be −1."""
    hits = np.bincount(labels[decided == labels], minlength=classes)
    return np.stack(
        [hits, np.bincount(labels, minlength=classes), np.bincount(decided[decided >= 0], minlength=classes)]
    )
