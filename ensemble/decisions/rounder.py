"""Turn expected grades into grades by cuts that maximize a metric: the rounder; numpy only.

Rows are sorted by their expected grade Σ p·g; k − 1 cuts between them give k grades. Quadratic kappa and the mean error
in grades are maximized exactly, over all cuts. Other metrics of decisions are improved one cut at a time, by an exact
search over all its positions, from several starts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from folds.errors import UsageError
from folds.metrics.classification import METRICS, Metric
from folds.metrics.custom import find_metric
from folds.metrics.grades import expected_grades

QUADRATIC_KAPPA, GRADE_ERROR = "quadratic_kappa", "grade_mae"
_ROUNDS = 50  # of Dinkelbach's method (it needs about five) and of a search over all cuts
_AT_ONCE = 1 << 20  # numbers of the tables of a search
_EPSILON = 1e-12

Floats = NDArray[np.float64]
Cost = NDArray[np.float64]  # (classes, classes): of a true grade (row) decided as another one (column)


def rounder_metric(name: str) -> Metric:
    """Return the metric that a rounder maximizes.

    Raises
    ------
    UsageError : it is unknown, or not a metric of decisions.
    """
    metric = METRICS[name] if name in METRICS else find_metric(name)
    if metric.from_counts is None and name not in (QUADRATIC_KAPPA, GRADE_ERROR):
        known = [one.name for one in METRICS.values() if one.from_counts is not None]
        raise UsageError(
            f"`threshold=rounder:{name}`: cuts maximize a metric of decisions, and {name} is not one",
            hint=f"one of {', '.join([QUADRATIC_KAPPA, GRADE_ERROR, *known])}",
        )
    return metric


def round_grades(probabilities: Floats, cuts: Floats) -> NDArray[np.int64]:
    """Return (n,) the grade of each row: the number of cuts (classes − 1, ascending) that it reaches."""
    return np.searchsorted(cuts, expected_grades(probabilities), side="right").astype(np.int64)


def fit_cuts(probabilities: Floats, labels: NDArray[np.int64], metric: Metric) -> Floats:
    """Return the (classes − 1) ascending cuts of the expected grade with the best score.

    A cut lies in the middle between two rows. A cut of 0 is reached by every row, one of the number of classes by none.

    Parameters
    ----------
    probabilities : (n, classes), columns in the order of the grades.
    labels : (n,).
    metric : see `rounder_metric`.
    """
    classes = probabilities.shape[1]
    expected = expected_grades(probabilities)
    order = np.argsort(expected, kind="stable")
    values, labels = expected[order], labels[order]
    if not len(values):
        return np.arange(classes - 1) + 0.5
    edges = np.concatenate([[0], np.flatnonzero(values[1:] - values[:-1] > _EPSILON) + 1, [len(values)]])
    sums = np.zeros((len(values) + 1, classes))  # the labels of the first rows
    np.cumsum(np.eye(classes)[labels], axis=0, out=sums[1:])
    table = sums[edges]  # (positions, classes)
    if metric.name == QUADRATIC_KAPPA:
        found = _best_kappa(table)
    elif metric.name == GRADE_ERROR:
        found = _cheapest(table, np.abs(np.subtract.outer(np.arange(classes), np.arange(classes))).astype(float))
    else:
        found = _best_counts(table, values, edges, metric)
    ends = edges[found]
    middle = [(values[end - 1] + values[end]) / 2 if 0 < end < len(values) else 0.0 for end in ends.tolist()]
    return np.where(ends == len(values), float(classes), np.array(middle))


def _cheapest(table: Floats, cost: Cost) -> NDArray[np.int64]:
    """Return (classes − 1,) positions of the cuts with the smallest total cost: exact, by dynamic programming.

    Parameters
    ----------
    table : (positions, classes) the labels of the rows before each position.
    """
    classes = cost.shape[0]
    totals = table @ cost  # (positions, classes): the cost of deciding all rows before a position as a grade
    best, choices = totals[:, 0], []
    for grade in range(1, classes):
        # The rows from a position m on get this grade: best[m] − totals[m] + totals[i], with the smallest m ≤ i.
        start = best - totals[:, grade]
        lowest = np.minimum.accumulate(start)
        is_new = np.concatenate([[True], start[1:] < lowest[:-1]])
        choices.append(np.maximum.accumulate(np.where(is_new, np.arange(len(start)), 0)))
        best = lowest + totals[:, grade]
    at, found = len(table) - 1, []
    for choice in reversed(choices):
        at = int(choice[at])
        found.append(at)
    return np.array(found[::-1], np.int64)


def _best_kappa(table: Floats) -> NDArray[np.int64]:
    """Return the positions of the cuts with the largest quadratic kappa.

    Kappa is 1 − S/E, where S is the squared error and E = Σ_r (p_r² − 2·mean(y)·p_r) + Σ y², up to the number of rows,
    that of independent decisions: both are sums over rows. So S − λ·E is minimized exactly, and Dinkelbach's method
    (1967) finds the smallest ratio λ in a few steps.
    """
    counts, classes = table[-1], table.shape[1]
    grades = np.arange(classes, dtype=np.float64)
    rows, mean, squares = counts.sum(), counts @ grades / counts.sum(), counts @ grades**2
    error = np.subtract.outer(grades, grades) ** 2
    # E of the exact marginals has (Σ y)(Σ p), which is mean(y) · Σ p for each row.
    chance = np.broadcast_to(grades**2 - 2 * mean * grades + squares / rows, (classes, classes))
    ratio, found = 1.0, np.zeros(classes - 1, np.int64)
    for round_ in range(_ROUNDS):
        candidate = _cheapest(table, error - ratio * chance)
        confusion = _confusion(table, candidate)
        expected = float((confusion * chance).sum())
        if expected <= 0:
            return candidate if round_ == 0 else found
        now = float((confusion * error).sum()) / expected
        if round_ and now >= ratio - _EPSILON:
            return found
        ratio, found = now, candidate
    return found


def _confusion(table: Floats, cuts: NDArray[np.int64]) -> Floats:
    """Return (true, decided) counts for positions of the cuts."""
    ends = np.concatenate([[0], cuts, [len(table) - 1]])
    return np.diff(table[ends], axis=0).T


def _best_counts(table: Floats, values: Floats, edges: NDArray[np.int64], metric: Metric) -> NDArray[np.int64]:
    """Return positions that no change of one cut improves, the best of several starts."""
    score = _score_of(metric)
    classes = table.shape[1]
    nearest = np.searchsorted(values, np.arange(classes - 1) + 0.5)  # of the rounded expected grade
    shares = np.cumsum(table[-1])[:-1]  # as many of each grade as there are labels
    starts = [np.searchsorted(edges, one).clip(0, len(edges) - 1) for one in (nearest, shares)]
    starts.append(_best_kappa(table))
    found = [_improved(table, np.asarray(start, np.int64), score) for start in starts]
    scores = [float(score(_confusion(table, one)[None])[0]) for one in found]
    return found[int(np.argmax(scores))]


def _score_of(metric: Metric) -> Callable[[Floats], Floats]:
    """Return confusion tables (m, true, decided) → (m,) scores, of which larger ones are better."""
    sign, from_counts = (1.0 if metric.greater_is_better else -1.0), metric.from_counts
    assert from_counts is not None  # noqa: S101 - checked by `rounder_metric`

    def score(tables: Floats) -> Floats:
        right = np.diagonal(tables, axis1=1, axis2=2)
        counts = np.stack([right, tables.sum(axis=2), tables.sum(axis=1)], axis=1)
        return np.asarray(sign * from_counts(counts), np.float64)

    return score


def _improved(table: Floats, cuts: NDArray[np.int64], score: Callable[[Floats], Floats]) -> NDArray[np.int64]:
    """Return positions after moving one cut at a time to its best position, until none moves."""
    cuts, classes = np.maximum.accumulate(cuts), table.shape[1]
    for _ in range(_ROUNDS):
        before = cuts.copy()
        for cut in range(classes - 1):
            low = cuts[cut - 1] if cut else 0
            high = cuts[cut + 1] if cut + 1 < classes - 1 else len(table) - 1
            current = float(score(_confusion(table, cuts)[None])[0])
            size = max(1, _AT_ONCE // classes**2)
            for start in range(low, high + 1, size):
                places = np.arange(start, min(start + size, high + 1))
                tables = np.broadcast_to(_confusion(table, cuts), (len(places), classes, classes)).copy()
                tables[:, :, cut] = table[places] - table[low]
                tables[:, :, cut + 1] = table[high] - table[places]
                scores = score(tables)
                best = int(np.argmax(scores))
                if scores[best] > current + _EPSILON:
                    cuts[cut], current = places[best], float(scores[best])
        if (cuts == before).all():
            return cuts
    return cuts
