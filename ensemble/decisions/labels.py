"""Decide classes by thresholds or by costs, and fit thresholds to a stated aim; numpy only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.decisions.evidence import (
    below,
    highest_threshold,
    lowest_threshold,
    people_needed,
    sums_from_the_top,
)
from ensemble.decisions.rounder import QUADRATIC_KAPPA, fit_cuts, round_grades, rounder_metric
from ensemble.decisions.rows import LabeledRows, person_shares, weights_of
from ensemble.learning.class_bias import expected_bias
from folds.errors import UsageError
from folds.metrics.classification import METRICS

GIVEN, SENSITIVITY, SPECIFICITY, PRECISION = "given", "sensitivity", "specificity", "precision"
YOUDEN, F1, MACRO_F1, COSTS = "youden", "f1", "macro_f1", "costs"
ROUNDER = "rounder"  # an aim and a kind of rule
BOUNDED = (SENSITIVITY, SPECIFICITY, PRECISION)
# How an aim was reached by the fitted people: with a stated confidence for new people, only in these data, or not.
GUARANTEED, OBSERVED, UNREACHABLE, NO_PROMISE = "guaranteed", "observed", "unreachable", "none"
STATUSES = (GUARANTEED, OBSERVED, UNREACHABLE, NO_PROMISE)
# Kinds of rules.
THRESHOLDS, RATIO = "thresholds", "ratio"
MIN_THRESHOLD = 1e-9
ABSTAINED = -1
_FORMS = (
    "CLASS=VALUE, CLASS:sensitivity>=VALUE, CLASS:specificity>=…, CLASS:precision>=…, CLASS:youden, CLASS:f1, "
    "macro_f1 or rounder"
)


@dataclass(frozen=True)
class Aim:
    """What a threshold is for: a kind, the class, and the value to reach (or the given threshold).

    `metric` is what the cuts of grades maximize.
    """

    kind: str
    name: str = ""
    value: float = math.nan
    metric: str = ""

    def __str__(self) -> str:
        """Return the aim as it is typed."""
        if self.kind == GIVEN:
            return f"{self.name}={self.value:g}"
        if self.kind in BOUNDED:
            return f"{self.name}:{self.kind}>={self.value:g}"
        if self.kind == ROUNDER:
            return f"{ROUNDER}:{self.metric}"
        return f"{self.name}:{self.kind}" if self.name else self.kind


def parse_aims(texts: Sequence[str], classes: Sequence[str]) -> tuple[Aim, ...]:
    """Return the aims of ``--threshold``.

    Parameters
    ----------
    texts : ``CLASS=.3``, ``CLASS:sensitivity>=.95``, ``CLASS:youden``, ``CLASS:f1``, ``macro_f1``, ``rounder`` or
        ``rounder:METRIC``.
    classes : the classes, which may contain any character.

    Raises
    ------
    UsageError : another form, an unknown class, a value outside of 0 to 1, or two thresholds of one class.
    """
    aims = tuple(_parse(str(text).strip(), classes) for text in texts)
    names = [aim.name for aim in aims]
    whole = next((aim.kind for aim in aims if aim.kind in (MACRO_F1, ROUNDER)), None)
    if whole is not None and len(aims) > 1:
        raise UsageError(f"`threshold={whole}` sets the thresholds of all classes", hint="remove the other thresholds")
    twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
    if twice is not None:
        raise UsageError(f"`threshold` is given twice for the class '{twice}'", hint="give one of them")
    return aims


def _parse(text: str, classes: Sequence[str]) -> Aim:
    if text == MACRO_F1:
        return Aim(MACRO_F1)
    if text == ROUNDER or (text.startswith(f"{ROUNDER}:") and ROUNDER not in classes):
        name = text.partition(":")[2].strip() or QUADRATIC_KAPPA
        return Aim(ROUNDER, metric=rounder_metric(name).name)
    for name in sorted(classes, key=len, reverse=True):
        rest = text[len(name) :].strip()
        if not text.startswith(name) or rest[:1] not in ("=", ":"):
            continue
        if rest[0] == "=":
            return Aim(GIVEN, name, _number(text, rest[1:]))
        kind, sign, value = rest[1:].partition(">=" if ">=" in rest else "=")
        kind = kind.strip().lower()
        if kind in (YOUDEN, F1) and not sign:
            return Aim(kind, name)
        if kind in BOUNDED and sign:
            return Aim(kind, name, _number(text, value))
        raise UsageError(f"`threshold={text}`: expected {_FORMS}", hint=f"`threshold={name}:sensitivity>=.95`")
    raise UsageError(
        f"`threshold={text}`: expected {_FORMS}, with one of the classes {', '.join(classes[:20])}",
        hint=f"`threshold={classes[-1]}=0.3`",
    )


def _number(text: str, value: str) -> float:
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not 0 < found < 1:
        raise UsageError(f"`threshold={text}`: expected a number above 0 and below 1, found '{value.strip()}'")
    return found


@dataclass(frozen=True, eq=False)
class LabelRule:
    """A rule from probabilities to a class.

    Attributes
    ----------
    kind : ``thresholds``: an image gets a class with a threshold if its probability reaches it (of several, the class
        with the largest ratio of probability to threshold), otherwise the most probable class without a threshold;
        ``ratio``: the class with the largest ratio; ``costs``: the decision with the smallest expected cost;
        ``rounder``: the grade whose cuts the expected grade lies between.
    classes : the class of each column.
    thresholds : (classes,) above 0 and at most 1; nan for a class without a threshold, and for ``costs``.
    costs : (classes, classes) cost of each decision (column) by true class (row), with a further column if the cost of
        no answer is stated; None for thresholds.
    cuts : (classes − 1,) ascending expected grades from which on the next grade is decided; None for other kinds.
    """

    kind: str
    classes: tuple[str, ...]
    thresholds: NDArray[np.float64]
    costs: NDArray[np.float64] | None = None
    cuts: NDArray[np.float64] | None = None

    def decide(self, probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return (n,) class indices; `ABSTAINED` where no answer has the smallest expected cost."""
        if self.costs is not None:
            chosen = (probabilities @ self.costs).argmin(axis=1)
            return np.where(chosen < len(self.classes), chosen, ABSTAINED)
        if self.cuts is not None:
            return round_grades(probabilities, self.cuts)
        without = np.isnan(self.thresholds)
        ratio = probabilities / np.where(without, 1.0, self.thresholds)
        if self.kind == RATIO or without.all():
            return ratio.argmax(axis=1)
        reached = ~without & (probabilities >= self.thresholds)
        other = np.where(without, probabilities, -1).argmax(axis=1) if without.any() else ratio.argmax(axis=1)
        return np.where(reached.any(axis=1), np.where(reached, ratio, -1).argmax(axis=1), other)


def plain_rule(classes: tuple[str, ...]) -> LabelRule:
    """Return the rule of the most probable class."""
    return LabelRule(RATIO, classes, np.full(len(classes), np.nan))


def fit_labels(rows: LabeledRows, aims: Sequence[Aim], error: float) -> tuple[LabelRule, tuple[str, ...]]:
    """Return the rule with a threshold for each aim, and how each aim was reached (`STATUSES`).

    Parameters
    ----------
    error : the accepted probability, over the people in the data, that a guaranteed aim does not hold; 0 fits the aims
        to the observed values, without a guarantee.
    """
    thresholds = np.full(len(rows.classes), np.nan)
    if [aim.kind for aim in aims] == [ROUNDER]:
        if not rows.ordered:
            raise UsageError(
                f"`threshold=rounder` needs grades in order, and nothing says that {', '.join(rows.classes[:10])} are",
                hint="train with `task=ordinal`, which records the order, or give arrays with their columns in order",
            )
        cuts = fit_cuts(rows.probabilities, rows.labels, rounder_metric(aims[0].metric))
        return LabelRule(ROUNDER, rows.classes, thresholds, cuts=cuts), (NO_PROMISE,)
    if [aim.kind for aim in aims] == [MACRO_F1]:
        bias = expected_bias(rows.probabilities, rows.labels, METRICS[MACRO_F1])
        factors = np.exp(-(bias - bias.min()))
        return LabelRule(RATIO, rows.classes, factors / factors.sum()), (NO_PROMISE,)
    statuses = []
    for aim in aims:
        column = rows.classes.index(aim.name)
        value, status = (
            (aim.value, NO_PROMISE) if aim.kind == GIVEN else _FITS[aim.kind](rows, column, aim.value, error)
        )
        thresholds[column] = min(max(value, MIN_THRESHOLD), 1.0)
        statuses.append(status)
    return LabelRule(THRESHOLDS, rows.classes, thresholds), tuple(statuses)


def missing_evidence(rows: LabeledRows, aim: Aim, error: float) -> str:
    """Return why an aim could not be guaranteed, in words: the people there are, and the people it needs."""
    of_class = rows.labels == rows.classes.index(aim.name)
    has = len(np.unique(rows.persons[~of_class if aim.kind == SPECIFICITY else of_class]))
    whose = f"{'another class than ' if aim.kind == SPECIFICITY else ''}'{aim.name}'"
    needed = people_needed(1 - aim.value, error)
    text = f"{has:,} people with {whose} do not show {aim.kind} ≥ {aim.value:g} with {1 - error:.0%} confidence"
    if has < needed:
        return f"{text}: even without any mistake, {needed:,} people are needed"
    return f"{text}, at any threshold that was tested"


def _fit_sensitivity(rows: LabeledRows, column: int, target: float, error: float) -> tuple[float, str]:
    scores, of_class = rows.probabilities[:, column], rows.labels == column
    return _fit_reaching(rows, scores, of_class, target, error)


def _fit_specificity(rows: LabeledRows, column: int, target: float, error: float) -> tuple[float, str]:
    scores, others = 1 - rows.probabilities[:, column], rows.labels != column
    threshold, status = _fit_reaching(rows, scores, others, target, error)
    return 1 - threshold, status


def _fit_reaching(
    rows: LabeledRows, scores: NDArray[np.float64], among: NDArray[np.bool_], target: float, error: float
) -> tuple[float, str]:
    """Return the highest threshold that the share `target` of these rows reaches."""
    columns = scores[among], rows.persons[among], rows.draw[among]
    found = highest_threshold(*columns, 1 - target, error) if error > 0 else None
    status = GUARANTEED if found is not None else OBSERVED
    if found is None:
        found = highest_threshold(*columns, 1 - target, 0)
    return (0.5, UNREACHABLE) if found is None else (below(scores, found), status)


def _fit_precision(rows: LabeledRows, column: int, target: float, error: float) -> tuple[float, str]:
    """Return the lowest threshold from which on the share `target` of the rows has the class."""
    scores, wrong, draw = rows.probabilities[:, column], rows.labels != column, rows.draw
    found = lowest_threshold(scores, wrong, rows.persons, draw, 1 - target, error) if error > 0 else None
    if found is not None:
        return found, GUARANTEED
    found = lowest_threshold(scores, wrong, rows.persons, draw, 1 - target, 0)
    if found is not None:
        return found, OBSERVED
    values, whole, part = sums_from_the_top(scores, rows.weights, wrong * rows.weights)
    return below(scores, float(values[(part / whole).argmin()])), UNREACHABLE


def _fit_youden(rows: LabeledRows, column: int, target: float, error: float) -> tuple[float, str]:
    """Return the threshold with the largest sensitivity + specificity, each the mean over the people with such rows."""
    scores, of_class = rows.probabilities[:, column], rows.labels == column
    if of_class.all() or not of_class.any():
        return 0.5, UNREACHABLE
    weights = np.zeros(len(rows))
    for part in (of_class, ~of_class):
        own = weights_of(np.unique(rows.persons[part], return_inverse=True)[1])
        weights[part] = own / own.sum()
    values, hits, alarms = sums_from_the_top(scores, weights * of_class, weights * ~of_class)
    return below(scores, float(values[(hits - alarms).argmax()])), NO_PROMISE


def _fit_f1(rows: LabeledRows, column: int, target: float, error: float) -> tuple[float, str]:
    """Return the threshold with the largest expected F1 of a class, by its calibrated probabilities."""
    of_class = (rows.labels == column).astype(np.int64)
    if of_class.all() or not of_class.any():
        return 0.5, UNREACHABLE
    p = rows.probabilities[:, column]
    bias = expected_bias(np.stack([1 - p, p], axis=1), of_class, METRICS["f_beta"])
    return float(1 / (1 + np.exp(bias[1] - bias[0]))), NO_PROMISE


_FITS = {
    SENSITIVITY: _fit_sensitivity,
    SPECIFICITY: _fit_specificity,
    PRECISION: _fit_precision,
    YOUDEN: _fit_youden,
    F1: _fit_f1,
}


def class_shares(
    rows: LabeledRows, decided: NDArray[np.int64], column: int
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return sensitivity, specificity and precision of a class as (people,) shares, and 1 for each person with one.

    Each person counts 1: by the share of the person's images of the class that get it, of the other images that do not
    get it, and of the images that get the class and have it.
    """
    of_class, given = rows.labels == column, decided == column
    return {
        name: person_shares(what, among, rows.persons, rows.people)
        for name, what, among in (
            (SENSITIVITY, given, of_class),
            (SPECIFICITY, ~given, ~of_class),
            (PRECISION, of_class, given),
        )
    }
