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
from folds.metrics.classification import Labels, Metric, Probabilities, argmax_classes
from folds.metrics.distributions import at_least_beta_quantile, t_quantile, t_two_sided
from folds.metrics.grouping import people_with_class
from folds.metrics.resampling import bootstrap_scores, jackknife_groups, leave_one_group_out
from folds.metrics.scored_rows import ScoredRows

LEVEL = 0.95
# Lower limit of the degrees of freedom if mistakes are rare. A class of few people can lead to fewer.
_MIN_DOF = 8
# Coverage of 95% CIs in simulations, in percent, by the number of people in the rarest class (docs/benchmarks.md).
_EMPIRICAL_COVERAGE = {
    "macro_f1": {0: 50, 1: 90},
    "balanced_accuracy": {0: 90, 1: 90, 2: 90},
    "roc_auc": {0: 90, 1: 90, 2: 90},
    "youden": {0: 90, 1: 90, 2: 90},  # balanced accuracy on another scale
    "f_beta": {0: 50, 1: 90},  # macro F1 with another weight of recall
}
# The same of scores of two classes.
_EMPIRICAL_COVERAGE_OF_TWO: dict[str, dict[int, int]] = {
    "average_precision": {1: 65, 2: 90},
    "pauc": {1: 20, 2: 85},
    "mcc": {1: 80, 2: 65},
    "column_log_loss": {1: 20, 2: 45},
    "f_beta": {},
}
# Fewest people beyond the threshold of a score at a quantile for which the coverage is near the nominal one.
_MIN_BEYOND = 3


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
    labels: Labels,
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
    labels : (n,) class indices.
    probabilities : (n, classes).
    persons : (n,) any values; equal values are one person.
    predicted : (n,) `argmax_classes` of the probabilities, if the caller has computed it already.
    rows : the same labels and persons, if other predictions of them are scored as well.

    Raises
    ------
    UsageError : `level` is not above 0 and below 1.
    """
    check_level(level)
    if metric.function is not None:
        return _bootstrap_interval(metric, metric(labels, probabilities), labels, probabilities, persons, level)
    rows = ScoredRows(labels, persons, np.shape(probabilities)[1]) if rows is None else rows
    people = rows.people
    score, leave_one_out = _jackknife(metric, rows, probabilities, predicted)
    effective, effective_squares = rows.effective_size(metric.macro_averaged, metric.of_positive)
    min_dof = int(np.clip(effective_squares - 1, 1, _MIN_DOF))
    error, dof = jackknife_standard_error(leave_one_out, score), max(degrees_of_freedom(leave_one_out, metric), min_dof)
    bounds = metric.lower_bound, metric.upper_bound
    low, high = (float(end) for end in t_interval(score, error, dof, np.asarray(effective), level, *bounds))
    constant = bool(error == 0 and low == high)
    warning = coverage_warning(metric, rows, constant)
    if people == 1:
        low = high = math.nan
    elif (at_quantile := _bounds_at_quantile(metric, rows, probabilities, dof, level)) is not None:
        low, high = at_quantile
    elif error != 0:
        low, high = _clip_to_clopper_pearson(metric, score, low, high, effective, level)
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
    if metric.from_counts is None:
        codes, units, _ = rows.groups
        score = metric(rows.labels, probabilities)
        return score, leave_one_group_out(metric, rows.labels, probabilities, codes, units)
    # The argmax takes most of the time.
    counts = rows.confusion_counts(argmax_classes(probabilities) if predicted is None else predicted)
    total = counts.sum(axis=0)
    return float(metric.from_counts(total)), metric.from_counts(total - counts)


def _bootstrap_interval(
    metric: Metric, score: float, labels: Labels, probabilities: Probabilities, persons: NDArray, level: float
) -> Interval:
    """Return the interval of a user's function, from its scores on resampled people."""
    assert metric.function is not None  # noqa: S101 - checked by the caller
    codes, units, people = jackknife_groups(persons)
    drawn, warning = bootstrap_scores(metric.function, labels, [probabilities], codes, units)
    low, high = (float(value) for value in np.quantile(drawn[:, 0], [(1 - level) / 2, (1 + level) / 2]))
    low, high = (low, high) if people > 1 else (math.nan, math.nan)
    error = float(drawn[:, 0].std())
    rows = ScoredRows(labels, persons, np.shape(probabilities)[1])
    coverage = coverage_warning(metric, rows, _is_constant(drawn[:, 0], drawn))
    return Interval(score, low, high, level, people, _join(coverage, warning), error)


def interval_over_images(
    metric: Metric, labels: Labels, probabilities: Probabilities, *, level: float = 0.95
) -> Interval:
    """Return `interval_over_people` with each image as its own person, for comparison: too narrow if people have
    several images.
    """
    return interval_over_people(metric, labels, probabilities, np.arange(len(labels)), level=level)


def difference_over_people(
    metric: Metric,
    labels: Labels,
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
    labels : (n,) class indices.
    first, second : (n, classes) of the same rows.
    persons : (n,) any values; equal values are one person.

    Raises
    ------
    UsageError : `level` is not above 0 and below 1.
    """
    check_level(level)
    rows = ScoredRows(labels, persons, np.shape(first)[1])
    codes, units, people = rows.groups
    if metric.function is not None:
        scores = metric(labels, first), metric(labels, second)
    else:
        left = [_jackknife(metric, rows, values) for values in (first, second)]
        scores = left[0][0], left[1][0]
    score = scores[1] - scores[0]
    if metric.function is not None:
        drawn, bootstrap_warning = bootstrap_scores(metric.function, labels, [first, second], codes, units)
        change = drawn[:, 1] - drawn[:, 0]
        low, high = (float(value) for value in np.quantile(change, [(1 - level) / 2, (1 + level) / 2]))
        p_value = _bootstrap_p_value(score, change, units)
        error, constant = float(change.std()), score != 0 and _is_constant(change, drawn)
    else:
        leave_one_out = left[1][1] - left[0][1]
        jackknife_error, bootstrap_warning = jackknife_standard_error(leave_one_out, score), ""
        dof = degrees_of_freedom(leave_one_out, metric)
        low, high = (float(end) for end in t_interval(score, jackknife_error, dof, units, level))
        error = float(jackknife_error)
        p_value, constant = _p_value(score, error, dof, units), error == 0 and score != 0
    low, high = (low, high) if people > 1 else (math.nan, math.nan)
    warning = _join(coverage_warning(metric, rows, constant), bootstrap_warning)
    return Difference(*scores, Interval(score, low, high, level, people, warning, error), p_value)


def jackknife_standard_error(
    leave_one_out: NDArray[np.float64], score: float | NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return (…) the standard error of a score from (units, …) leave-one-out scores (Efron and Stein, 1981, equation
    1.2).

    An undefined leave-one-out score (nan) counts as unchanged; the result is 0 for one unit.
    """
    units = len(leave_one_out)
    known = np.where(np.isnan(leave_one_out), score, leave_one_out)
    return np.sqrt((units - 1) / units * np.square(known - known.mean(axis=0)).sum(axis=0))


def degrees_of_freedom(leave_one_out: NDArray[np.float64], metric: Metric) -> int:
    """Return the degrees of freedom of the standard error from (units,) leave-one-out scores: the number of units minus
    one.

    In a mean over classes, the few people of a rare class cause most of the variance, so the error is estimated as from
    few people. The effective number follows from their influence (Satterthwaite, 1946).
    """
    max_dof = max(len(leave_one_out) - 1, 1)
    if not metric.macro_averaged:
        return max_dof
    squares = np.square(leave_one_out - np.nanmean(leave_one_out)) if not np.isnan(leave_one_out).all() else np.zeros(1)
    total, surplus = np.nansum(squares), np.nansum(squares**2) - np.nansum(squares) ** 2 / len(leave_one_out)
    return int(np.clip(2 * total**2 / surplus, 1, max_dof)) if surplus > 0 else max_dof


def t_interval(
    score: float | NDArray[np.float64],
    error: NDArray[np.float64],
    dof: int,
    people: int | NDArray[np.int64] | NDArray[np.float64],
    level: float = LEVEL,
    lower_bound: float = -math.inf,
    upper_bound: float = math.inf,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (…) the ends of the interval of a score with its standard error, by Student's t.

    For a score between `lower_bound` and `upper_bound` the interval is computed on the logit scale, because its
    distribution is skewed near the bounds. At a bound, where all people or none are without a mistake, the other end is
    that of Clopper and Pearson (1934) for this number of people.

    Parameters
    ----------
    dof : degrees of freedom of the error.
    people : (…) the number of people, or groups of them, behind the score.
    """
    score, people = np.asarray(score, float), np.asarray(people)
    half = t_quantile(level, dof) * error
    if math.isinf(upper_bound - lower_bound):
        return np.maximum(score - half, lower_bound), np.minimum(score + half, upper_bound)
    share = np.clip((score - lower_bound) / (upper_bound - lower_bound), 0, 1)
    inside = (share > 0) & (share < 1)
    safe_share = np.where(inside, share, 0.5)
    # The odds are multiplied and divided by this factor, limited so that a wide interval does not overflow.
    factor = np.exp(np.minimum(half / (upper_bound - lower_bound) / (safe_share * (1 - safe_share)), 500))
    exact = np.where(people > 0, ((1 - level) / 2) ** (1 / np.maximum(people, 1)), 0)
    low = np.where(inside, safe_share / (safe_share + (1 - safe_share) * factor), np.where(share == 1, exact, 0))
    high = np.where(inside, safe_share / (safe_share + (1 - safe_share) / factor), np.where(share == 1, 1, 1 - exact))
    known = np.where(np.isnan(score), np.nan, upper_bound - lower_bound)
    return lower_bound + known * low, lower_bound + known * high


def _clip_to_clopper_pearson(
    metric: Metric, score: float, low: float, high: float, people: float, level: float
) -> tuple[float, float]:
    """Return the ends of an interval, limited by those of Clopper and Pearson for `people` people.

    The upper limit of the width is the interval of people who are each entirely right or entirely wrong; it applies to
    means of values between the bounds (not to kappa). The lower limit is the interval without any mistake; it applies
    to metrics from counts.
    """
    scale, tail = metric.upper_bound - metric.lower_bound, (1 - level) / 2
    share = (score - metric.lower_bound) / scale
    if not 0 < share < 1 or math.isinf(scale):
        return low, high
    if metric.lower_bound == 0:
        right, wrong = people * share, people * (1 - share)
        low = min(score, scale * at_least_beta_quantile((low / scale), tail, right, wrong + 1))
        high = max(score, scale * (1 - at_least_beta_quantile(1 - high / scale, tail, wrong, right + 1)))
    if metric.from_counts is not None:
        without_mistake = tail ** (1 / people)
        low, high = (
            min(low, metric.lower_bound + scale * without_mistake),
            max(high, metric.upper_bound - scale * without_mistake),
        )
    return low, high


def coverage_warning(metric: Metric, rows: ScoredRows, constant: bool) -> str:
    """Return why an interval of `metric` may have a lower coverage than its level; empty if no reason is known.

    Parameters
    ----------
    constant : whether the score is the same for every left-out person.
    """
    if rows.people == 1:
        return "only one person: no confidence interval can be computed"
    if constant:
        same = f"all {rows.people:,} people have the same score"
        return f"{same}: their variation is unknown, and the interval is too narrow"
    if metric.at_quantile is not None and rows.classes == 2:
        deciding, share = metric.at_quantile
        beyond = share * float(people_with_class(rows.labels, rows.persons, 2)[deciding])
        if 0 < beyond < _MIN_BEYOND:
            return (
                f"about {beyond:.1f} people decide where the threshold lies: 95% CIs of {metric.title} covered the "
                f"true value in only about {87 if beyond >= 0.4 else 70}% of simulations"
            )
    rarest = rows.fewest_people
    known = _EMPIRICAL_COVERAGE.get(metric.family, {})
    if rows.classes == 2:
        known = _EMPIRICAL_COVERAGE_OF_TWO.get(metric.family, known)
    percent = known.get(rarest)
    if percent is None:
        return ""
    found = ("no sample", "only one person", "only two people")[rarest]
    return (
        f"a class has {found}: 95% CIs of {metric.title} covered the true value in only about {percent}% of simulations"
    )


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
