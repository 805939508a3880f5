"""Compute confidence intervals over people, of a score and of a difference: by the jackknife, or the bootstrap for a
user's function.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.errors import UsageError
from folds.metrics.classification import Metric
from folds.metrics.confusion import Labels, Probabilities, argmax_classes
from folds.metrics.coverage import coverage_warning
from folds.metrics.distributions import t_quantile, t_two_sided
from folds.metrics.resampling import bootstrap_scores, leave_one_group_out
from folds.metrics.scored_rows import ScoredRows
from folds.metrics.standard_errors import LEVEL as LEVEL
from folds.metrics.standard_errors import (
    clip_to_clopper_pearson,
    column_interval,
    degrees_of_freedom,
)
from folds.metrics.standard_errors import jackknife_standard_error as jackknife_standard_error
from folds.metrics.standard_errors import t_interval as t_interval

# Lower limit of the degrees of freedom if mistakes are rare. A class of few people can lead to fewer.
_MIN_DOF = 8
_ROUNDING = 1e-12  # of a difference, as a share of the scores


@dataclass(frozen=True)
class Interval:
    """A score with its confidence interval over people.

    Attributes
    ----------
    level : confidence level.
    people : number of people behind the score.
    low, high : the ends of the interval; nan with a single person, from whom no interval can be computed.
    warning : why the coverage may be lower than `level`; empty if no reason is known.
    standard_error : of the score; None if it was not computed.
    """

    value: float
    low: float
    high: float
    level: float = LEVEL
    people: int = 0
    warning: str = ""
    standard_error: float | None = None

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Interval:
        """Return the interval with the ``score``, ``low``, ``high`` and ``warning`` written by `to_dict`."""
        score, low, high = (math.nan if (value := record[name]) is None else value for name in ("score", "low", "high"))
        return cls(score, low, high, warning=str(record.get("warning") or ""))

    def to_dict(self) -> dict[str, Any]:
        """Return score, interval and a warning, if there is one, as plain values; nan becomes None, since JSON has no
        nan.
        """
        ends = {"score": self.value, "low": self.low, "high": self.high}
        record: dict[str, Any] = {name: value if math.isfinite(value) else None for name, value in ends.items()}
        return record | ({"warning": self.warning} if self.warning else {})

    def contains(self, value: float) -> bool:
        """Return whether `value` lies in the interval, its ends included."""
        return self.low <= value <= self.high

    def ci_text(self, signed: bool = False, decimals: int = 3) -> str:
        """Return the interval alone, ``[0.592, 0.749]``; with signs for a difference; ``[unknown]`` without bounds."""
        if math.isnan(self.low) or math.isnan(self.high):
            return "[unknown]"
        form = f"{'+' if signed else ''}.{decimals}f"
        return f"[{self.low:{form}}, {self.high:{form}}]"

    def text(self) -> str:
        """Return ``0.676 [0.592, 0.749]``."""
        return f"{self.value:.3f} {self.ci_text()}"

    def signed_text(self, decimals: int = 3) -> str:
        """Return ``+0.012 [-0.003, +0.027]``, for a difference."""
        return f"{self.value:+.{decimals}f} {self.ci_text(signed=True, decimals=decimals)}"

    def __str__(self) -> str:
        """Return the text and the warning, if there is one: ``0.638 [unknown] (only one person: …)``."""
        return _with_warning(self.text(), self)

    def _repr_html_(self) -> str:
        """Return HTML for a notebook, with the warning; the tooltip has the level and the number of people."""
        return _html(self.text(), self)


@dataclass(frozen=True)
class Difference:
    """The paired difference of two scores on the same rows.

    Attributes
    ----------
    difference : second − first, with its interval over people.
    p_value : two-sided p-value under the hypothesis that both are equally good; above 1 − level the interval contains
        0.
    """

    first: float
    second: float
    difference: Interval
    p_value: float

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Difference:
        """Return the difference written by `to_dict`."""
        change = Interval.from_dict({**record, "score": record["difference"]})
        return cls(record["first"], record["second"], change, record["chance"])

    def to_dict(self) -> dict[str, Any]:
        """Return plain values under their names in the ledger and in ``--json``; nan becomes None."""
        change = self.difference.to_dict()
        record = {"first": self.first, "second": self.second, "difference": change.pop("score")}
        return record | {"low": change["low"], "high": change["high"], "chance": self.p_value, **change}

    @property
    def is_significant(self) -> bool:
        """Return whether the interval excludes 0 and the p-value is at most 1 − level."""
        return self.is_significant_among(1)

    def is_significant_among(self, comparisons: int) -> bool:
        """Return whether the difference is significant as one of several comparisons (Bonferroni); False without
        bounds.
        """
        return self._excludes_0() and self.p_value * comparisons <= 1 - self.difference.level + 1e-9

    def _excludes_0(self) -> bool:
        return self.difference.low > 0 or self.difference.high < 0  # False for nan

    def verdict(self, among: int = 1) -> str:
        """Return ``yes``, or ``no`` with the reason: whether the difference is significant, for a table and for
        ``--json``.

        Parameters
        ----------
        among : number of comparisons made together, for the Bonferroni correction.
        """
        change = self.difference
        if change.low == change.high == 0:
            return "no: no sample is decided otherwise"
        if self.is_significant_among(among):
            return "yes"
        return f"no: not significant among {among} comparisons" if among > 1 and self._excludes_0() else "no"

    def text(self, among: int = 1) -> str:
        """Return ``+0.012 [+0.003, +0.021], significant``."""
        corrected = f" among {among} comparisons" if among > 1 else ""
        word = "significant" if self.is_significant_among(among) else "not significant"
        return f"{self.difference.signed_text()}, {word}{corrected}"

    def __str__(self) -> str:
        """Return the text and the warning of the interval, if there is one."""
        return _with_warning(self.text(), self.difference)

    def _repr_html_(self) -> str:
        """Return HTML for a notebook, as `Interval` does."""
        return _html(self.text(), self.difference)


def _with_warning(text: str, interval: Interval) -> str:
    return f"{text} ({interval.warning})" if interval.warning else text


def _html(text: str, interval: Interval) -> str:
    """Return `text` and the warning of `interval`, with a description of it as the tooltip."""
    from html import escape  # here, because only notebooks need its table of 2,200 names

    people = f" over {interval.people:,} people" if interval.people else ""
    tooltip = escape(f"{interval.level * 100:g}% CI{people}")
    return f'<span title="{tooltip}">{escape(_with_warning(text, interval))}</span>'


def check_level(level: float) -> None:
    """Raise UsageError unless `level` is a confidence level: above 0 and below 1."""
    if not isinstance(level, Real) or not 0 < level < 1:
        raise UsageError(f"`level` must be above 0 and below 1, found {level!r}", hint="`level=0.95` is a 95% CI")


def interval_over_people(
    metric: Metric,
    labels: NDArray,
    probabilities: Probabilities,
    persons: NDArray,
    *,
    level: float = LEVEL,
    predicted: Labels | None = None,
    rows: ScoredRows | None = None,
) -> Interval:
    """Return the confidence interval of a score over people, not images, because the images of one person are not
    independent.

    The jackknife leaves out each person in turn to estimate the standard error, and Student's t gives the interval
    (Tukey, 1958), on the logit scale if the score is bounded. The interval is at most as wide as that of Clopper and
    Pearson (1934) for people who are each entirely right or entirely wrong, the largest possible variation between
    people, and at least as wide as that without any mistake. Among the rules measured in ``benchmarks/intervals.py``,
    its coverage is closest to the nominal one; it is deterministic and takes milliseconds. A user's function, whose
    properties are unknown, is computed on resampled people instead (bootstrap).

    Parameters
    ----------
    labels : (n,) class indices; of several labels or numbers (n, columns) float64, nan where one is not known.
    probabilities : (n, classes) or (n, columns).
    persons : (n,) any values; equal values are one person.
    predicted : (n,) `argmax_classes` of the probabilities, if the caller has computed it already.
    rows : the same labels and persons, if other predictions of them are scored as well.

    Raises
    ------
    UsageError : `level` is not above 0 and below 1, or the metric has no meaning for such labels.
    """
    check_level(level)
    rows = ScoredRows(labels, persons, np.shape(probabilities)[1]) if rows is None else rows
    if rows.has_columns:
        return _interval_of_columns(metric, rows, rows.take(probabilities), level)
    if metric.function is not None:
        return _bootstrap_interval(metric, rows, probabilities, level)
    people = rows.people
    score, leave_one_out = _jackknife(metric, rows, probabilities, predicted)
    effective, effective_squares = rows.effective_size(metric.macro_averaged, metric.of_positive)
    min_dof = int(np.clip(effective_squares - 1, 1, _MIN_DOF))
    error, dof = (
        jackknife_standard_error(leave_one_out, score),
        max(degrees_of_freedom(leave_one_out, few=metric.macro_averaged), min_dof),
    )
    bounds = metric.lower_bound, metric.upper_bound
    low, high = (float(end) for end in t_interval(score, error, dof, np.asarray(effective), level, *bounds))
    constant = bool(error == 0 and low == high)
    warning = coverage_warning(metric, rows, constant)
    if people == 1:
        low = high = math.nan
    elif (at_quantile := _bounds_at_quantile(metric, rows, probabilities, dof, level)) is not None:
        low, high = at_quantile
    elif error != 0:
        is_share, of_decisions = metric.lower_bound == 0, metric.from_counts is not None
        low, high = clip_to_clopper_pearson(score, low, high, effective, level, bounds, is_share, of_decisions)
    return Interval(score, low, high, level, people, warning, float(error))


def _bounds_at_quantile(
    metric: Metric, rows: ScoredRows, probabilities: Probabilities, dof: float, level: float
) -> tuple[float, float] | None:
    """Return the ends of the interval of a score at a quantile of the rows; None for other scores."""
    if metric.ranking is None:
        return None
    codes, units, _ = rows.groups
    return metric.ranking.bounds_of_positive(rows.labels, probabilities, codes, units, t_quantile(level, dof), level)


def _jackknife(
    metric: Metric, rows: ScoredRows, probabilities: Probabilities, predicted: Labels | None = None
) -> tuple[float, NDArray[np.float64]]:
    """Return the score of all rows, and (units,) those of all rows except each unit's."""
    if metric.from_counts is None or rows.has_columns:
        codes, units, _ = rows.groups
        score = metric(rows.labels, probabilities)
        return score, leave_one_group_out(metric, rows.labels, probabilities, codes, units)
    # The argmax takes most of the time.
    counts = rows.confusion_counts(argmax_classes(probabilities) if predicted is None else predicted)
    total = counts.sum(axis=0)
    return float(metric.from_counts(total)), metric.from_counts(total - counts)


def _interval_of_columns(metric: Metric, rows: ScoredRows, values: Probabilities, level: float) -> Interval:
    """Return the interval of a score of several labels or numbers.

    Parameters
    ----------
    values : (m, columns) of the rows of `rows`.
    """
    people = rows.people
    if not people:
        return Interval(math.nan, math.nan, math.nan, level, 0, "no label is known")
    if metric.function is not None:
        return _bootstrap_interval(metric, rows, values, level)
    column = metric.column_score()
    score, leave_one_out = _jackknife(metric, rows, values)
    effective, effective_squares = rows.column_size(column.weights)
    min_dof = int(np.clip(effective_squares - 1, 1, _MIN_DOF))
    error = jackknife_standard_error(leave_one_out, score)
    dof = max(degrees_of_freedom(leave_one_out, few=True), min_dof)
    low, high = column_interval(column, score, float(error), dof, effective, level)
    constant = bool(error == 0 and not math.isnan(score) and low == high)
    if people == 1:
        low = high = math.nan
    return Interval(score, low, high, level, people, coverage_warning(metric, rows, constant), float(error))


def _bootstrap_interval(metric: Metric, rows: ScoredRows, probabilities: Probabilities, level: float) -> Interval:
    """Return the interval of a user's function, from its scores on resampled people."""
    assert metric.function is not None  # noqa: S101 - checked by the caller
    codes, units, people = rows.groups
    score = metric(rows.labels, probabilities)
    drawn, warning = bootstrap_scores(metric.function, rows.labels, [probabilities], codes, units)
    low, high = (float(value) for value in np.quantile(drawn[:, 0], [(1 - level) / 2, (1 + level) / 2]))
    low, high = (low, high) if people > 1 else (math.nan, math.nan)
    error = float(drawn[:, 0].std())
    coverage = coverage_warning(metric, rows, _is_constant(drawn[:, 0], drawn))
    return Interval(score, low, high, level, people, _join(coverage, warning), error)


def interval_over_images(
    metric: Metric, labels: NDArray, probabilities: Probabilities, *, level: float = 0.95
) -> Interval:
    """Return `interval_over_people` with each image as its own person, for comparison: too narrow if people have
    several images.
    """
    return interval_over_people(metric, labels, probabilities, np.arange(len(labels)), level=level)


def difference_over_people(
    metric: Metric,
    labels: NDArray,
    first: Probabilities,
    second: Probabilities,
    persons: NDArray,
    *,
    level: float = LEVEL,
) -> Difference:
    """Return the difference of two scores with its interval, paired: the same person is left out of both.

    Samples tend to be difficult for both, so the difference has a smaller standard error than either score. The
    interval covers the choice of people, not that of the training seed.

    Parameters
    ----------
    labels : (n,) class indices; of several labels or numbers (n, columns) float64, nan where one is not known.
    first, second : (n, classes) or (n, columns) of the same rows.
    persons : (n,) any values; equal values are one person.

    Raises
    ------
    UsageError : `level` is not above 0 and below 1, or the metric has no meaning for such labels.
    """
    check_level(level)
    rows = ScoredRows(labels, persons, np.shape(first)[1])
    codes, units, people = rows.groups
    if rows.has_columns:
        labels, first, second = rows.labels, rows.take(first), rows.take(second)
        if not people:
            unknown = Interval(math.nan, math.nan, math.nan, level, 0, "no label is known")
            return Difference(math.nan, math.nan, unknown, 1.0)
    if metric.function is not None:
        scores = metric(labels, first), metric(labels, second)
    else:
        left = [_jackknife(metric, rows, values) for values in (first, second)]
        scores = left[0][0], left[1][0]
    score = scores[1] - scores[0]
    # Sums in another order can differ by rounding, as of predictions that are only scaled.
    rounding = _ROUNDING * max(map(abs, scores)) if rows.has_columns else 0.0
    score = 0.0 if abs(score) < rounding else score
    if metric.function is not None:
        drawn, bootstrap_warning = bootstrap_scores(metric.function, labels, [first, second], codes, units)
        change = drawn[:, 1] - drawn[:, 0]
        low, high = (float(value) for value in np.quantile(change, [(1 - level) / 2, (1 + level) / 2]))
        p_value = _bootstrap_p_value(score, change, units)
        error, constant = float(change.std()), score != 0 and _is_constant(change, drawn)
    else:
        leave_one_out = left[1][1] - left[0][1]
        leave_one_out = np.where(np.abs(leave_one_out) < rounding, 0.0, leave_one_out)
        jackknife_error, bootstrap_warning = jackknife_standard_error(leave_one_out, score), ""
        dof = degrees_of_freedom(leave_one_out, few=rows.has_columns or metric.macro_averaged)
        low, high = (float(end) for end in t_interval(score, jackknife_error, dof, units, level))
        error = float(jackknife_error)
        p_value, constant = _p_value(score, error, dof, units), error == 0 and score != 0
    low, high = (low, high) if people > 1 else (math.nan, math.nan)
    warning = _join(coverage_warning(metric, rows, constant, of_difference=True), bootstrap_warning)
    return Difference(*scores, Interval(score, low, high, level, people, warning, error), p_value)


def _p_value(score: float, error: float, dof: int, units: int) -> float:
    """Return the two-sided p-value of a difference with this standard error, by Student's t."""
    if score == 0 or units == 1:
        return 1.0
    minimum = _smallest_p_value(units)
    return max(minimum, 1 - t_two_sided(abs(score) / error, dof)) if error > 0 else minimum


def _bootstrap_p_value(score: float, change: NDArray[np.float64], units: int) -> float:
    """Return the two-sided p-value from (resamples,) differences of resampled people."""
    if score == 0:
        return 1.0
    # One is added to both counts, because a finite number of resamples cannot give a p-value of 0.
    beyond = min(int(np.sum(change <= 0)), int(np.sum(change >= 0)))
    return max(_smallest_p_value(units), min(1.0, 2 * (beyond + 1) / (len(change) + 1)))


def _smallest_p_value(units: int) -> float:
    """Return the p-value of a sign test if all units differ in the same direction; 1 for one unit."""
    return 2.0 ** (1 - min(units, 1000))


def _join(first: str, second: str) -> str:
    return "; ".join(text for text in (first, second) if text)


def _is_constant(values: NDArray[np.float64], drawn: NDArray[np.float64]) -> bool:
    """Return whether all resampled scores, or their differences, are equal up to rounding."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(drawn).max())
