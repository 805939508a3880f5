"""Confidence intervals over people of a score and of the difference of two: the jackknife, the bootstrap for a user's
function.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.metrics.classification import Labels, Metric, Probabilities, argmax_classes, confusion_counts
from folds.metrics.distributions import at_least_beta_quantile, t_quantile, t_two_sided
from folds.metrics.grouping import people_with_class
from folds.metrics.resampling import bootstrap_scores, jackknife_groups, leave_one_group_out

LEVEL = 0.95
# Degrees of freedom that few mistakes alone do not fall below; a class that few people have may.
_MIN_DOF = 8
# How many of 100 intervals at 95 % held the truth, by the people in the rarest class (docs/benchmarks.md).
_EMPIRICAL_COVERAGE = {
    "macro_f1": {0: 50, 1: 90},
    "balanced_accuracy": {0: 90, 1: 90, 2: 90},
    "roc_auc": {0: 90, 1: 90, 2: 90},
}


@dataclass(frozen=True)
class Interval:
    """A score and the range that holds it for other people from the same population, with probability `level`.

    Attributes
    ----------
    people : of whom the score is.
    warning : why it may hold it less often, empty where nothing speaks for that.
    standard_error : of the score; None where none was computed.
    """

    value: float
    low: float
    high: float
    level: float = LEVEL
    people: int = 0
    warning: str = ""
    standard_error: float | None = None

    @classmethod
    def from_dict(cls, record: Mapping[str, float | None]) -> Interval:
        """Return the interval whose ``score``, ``low`` and ``high`` `to_dict` has written."""
        score, low, high = (math.nan if (value := record[name]) is None else value for name in ("score", "low", "high"))
        return cls(score, low, high)

    def to_dict(self) -> dict[str, float | None]:
        """Return score and range as plain values; JSON has no nan, so what is undefined is null."""
        ends = {"score": self.value, "low": self.low, "high": self.high}
        return {name: value if math.isfinite(value) else None for name, value in ends.items()}

    def contains(self, value: float) -> bool:
        """Return whether `value` lies in the range, its ends included."""
        return self.low <= value <= self.high

    def ci_text(self, signed: bool = False, decimals: int = 3) -> str:
        """Return the range alone, ``[0.592, 0.749]``; with signs where it is one of a difference."""
        form = f"{'+' if signed else ''}.{decimals}f"
        return f"[{self.low:{form}}, {self.high:{form}}]"

    def text(self) -> str:
        """Return ``0.676 [0.592, 0.749]``."""
        return f"{self.value:.3f} {self.ci_text()}"

    def signed_text(self, decimals: int = 3) -> str:
        """Return ``+0.012 [-0.003, +0.027]``, for a difference."""
        return f"{self.value:+.{decimals}f} {self.ci_text(signed=True, decimals=decimals)}"

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        """Return the text for a notebook; the tooltip says what the range is, and what speaks against it."""
        return _html(self.text(), self)


@dataclass(frozen=True)
class Difference:
    """Two scores on the same rows, and what the second has more than the first.

    Attributes
    ----------
    difference : second − first, with its interval over people.
    p_value : the probability that people of whom both are equally good show as much (two-sided); above 1 − level the
        interval holds 0.
    """

    first: float
    second: float
    difference: Interval
    p_value: float

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Difference:
        """Return the difference that `to_dict` has written."""
        change = Interval(record["difference"], record["low"], record["high"])
        return cls(record["first"], record["second"], change, record["chance"])

    def to_dict(self) -> dict[str, float]:
        """Return plain values under their names in the ledger and in ``--json``."""
        change = self.difference
        ends = {"difference": change.value, "low": change.low, "high": change.high}
        return {"first": self.first, "second": self.second, **ends, "chance": self.p_value}

    @property
    def is_significant(self) -> bool:
        """Return whether the interval leaves out 0, and so few people would not lean so by chance."""
        return self.is_significant_among(1)

    def is_significant_among(self, comparisons: int) -> bool:
        """Return whether it is significant as one of several comparisons looked at together (Bonferroni)."""
        change = self.difference
        return not change.contains(0) and self.p_value * comparisons <= 1 - change.level + 1e-9

    def verdict(self, among: int = 1) -> str:
        """Return ``yes``, or ``no`` with the reason: whether it is significant, for a table and for ``--json``.

        Parameters
        ----------
        among : comparisons that are looked at together: the more there are, the likelier one stands out by chance.
        """
        change = self.difference
        if change.low == change.high == 0:
            return "no: no sample is decided otherwise"
        if self.is_significant_among(among):
            return "yes"
        return f"no: one of {among} may seem so by chance" if among > 1 and not change.contains(0) else "no"

    def text(self, among: int = 1) -> str:
        """Return ``+0.012 [+0.003, +0.021], significant``."""
        corrected = f" among {among} comparisons" if among > 1 else ""
        word = "significant" if self.is_significant_among(among) else "not significant"
        return f"{self.difference.signed_text()}, {word}{corrected}"

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        """Return the text for a notebook, as `Interval` has it."""
        return _html(self.text(), self.difference)


def _html(text: str, interval: Interval) -> str:
    """Return `text` with the meaning of `interval` as its tooltip."""
    people = f" over {interval.people:,} people" if interval.people else ""
    warning = f"; {interval.warning}" if interval.warning else ""
    return f'<span title="{escape(f"{interval.level:.0%} CI{people}{warning}")}">{escape(text)}</span>'


def interval_over_people(
    metric: Metric,
    labels: Labels,
    probabilities: Probabilities,
    persons: NDArray,
    *,
    level: float = LEVEL,
    predicted: Labels | None = None,
) -> Interval:
    """Return the interval of a score over people, not images: images of one person are right or wrong together.

    By the jackknife: the score with each person left out in turn says how much people matter, Student's t makes an
    interval of that (Tukey, 1958), on the scale of the logit where the score has bounds. It reaches no farther than
    that of
    Clopper and Pearson (1934) for people each of whom is all right or all wrong, the most that people can differ; and
    not less
    far than were there no mistake at all. Of the rules measured it holds
    nearest to what it promises (``benchmarks/intervals.py``), draws nothing, and takes milliseconds. A user's function,
    of which nothing is known, is computed on people drawn with replacement instead.

    Parameters
    ----------
    labels : (n,) class indices.
    probabilities : (n, classes).
    persons : (n,) any values; equal values are one person.
    predicted : (n,) the largest of each row, where the caller has looked for it already.
    """
    if metric.from_counts is not None:  # to look for the largest takes most of the time
        predicted = argmax_classes(probabilities) if predicted is None else predicted
        score = float(metric.from_counts(confusion_counts(labels, predicted, np.shape(probabilities)[1])))
    else:
        score = metric(labels, probabilities)
    if metric.function is not None:
        return _bootstrap_interval(metric, score, labels, probabilities, persons, level)
    codes, units, people = jackknife_groups(persons)
    without = leave_one_group_out(metric, labels, probabilities, codes, units, predicted)
    effective, at_least = _effective_sample_size(metric, labels, codes, units)
    error, dof = jackknife_standard_error(without, score), max(degrees_of_freedom(without, metric), at_least)
    bounds = metric.lower_bound, metric.upper_bound
    low, high = (float(end) for end in t_interval(score, error, dof, np.asarray(effective), level, *bounds))
    alike = bool(error == 0 and low == high)
    warning = coverage_warning(metric, labels, persons, np.shape(probabilities)[1], alike)
    if error != 0:
        low, high = _clip_to_clopper_pearson(metric, score, low, high, effective, level)
    return Interval(score, low, high, level, people, warning, float(error))


def _bootstrap_interval(
    metric: Metric, score: float, labels: Labels, probabilities: Probabilities, persons: NDArray, level: float
) -> Interval:
    """Return the interval of a user's function, from its scores of people drawn with replacement."""
    assert metric.function is not None  # noqa: S101 - the caller has looked
    codes, units, people = jackknife_groups(persons)
    drawn, warning = bootstrap_scores(metric.function, labels, [probabilities], codes, units)
    low, high = (float(value) for value in np.quantile(drawn[:, 0], [(1 - level) / 2, (1 + level) / 2]))
    error = float(drawn[:, 0].std())
    alike = coverage_warning(metric, labels, persons, np.shape(probabilities)[1], _alike(drawn[:, 0], drawn))
    return Interval(score, low, high, level, people, _both(alike, warning), error)


def interval_over_images(
    metric: Metric, labels: Labels, probabilities: Probabilities, *, level: float = 0.95
) -> Interval:
    """Return as `interval_over_people`, each image taken for a person of its own: too narrow where people have several,
    to be shown beside.
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

    What is hard is hard for both, so the difference is known better than either score. It says whether other people
    would
    show the difference, not whether other seeds of training would.

    Parameters
    ----------
    labels : (n,) class indices.
    first, second : (n, classes) of the same rows.
    persons : (n,) any values; equal values are one person.
    """
    scores = metric(labels, first), metric(labels, second)
    score = scores[1] - scores[0]
    codes, units, people = jackknife_groups(persons)
    if metric.function is not None:
        drawn, few = bootstrap_scores(metric.function, labels, [first, second], codes, units)
        change = drawn[:, 1] - drawn[:, 0]
        low, high = (float(value) for value in np.quantile(change, [(1 - level) / 2, (1 + level) / 2]))
        p_value = _bootstrap_p_value(score, change, units)
        error, alike = float(change.std()), score != 0 and _alike(change, drawn)
    else:
        without = leave_one_group_out(metric, labels, second, codes, units) - leave_one_group_out(
            metric, labels, first, codes, units
        )
        spread, dof, few = jackknife_standard_error(without, score), degrees_of_freedom(without, metric), ""
        low, high = (float(end) for end in t_interval(score, spread, dof, units, level))
        error = float(spread)
        p_value, alike = _p_value(score, error, dof, units), error == 0 and score != 0
    warning = _both(coverage_warning(metric, labels, persons, np.shape(first)[1], alike), few)
    return Difference(*scores, Interval(score, low, high, level, people, warning, error), p_value)


def jackknife_standard_error(without: NDArray[np.float64], score: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (…) the standard error of a score from (units, …) the scores with each unit left out (Efron and Stein,
    1981, equation 1.2).

    What cannot be scored without a unit (nan) counts as unchanged; 0 for one unit.
    """
    units = len(without)
    known = np.where(np.isnan(without), score, without)
    return np.sqrt((units - 1) / units * np.square(known - known.mean(axis=0)).sum(axis=0))


def degrees_of_freedom(without: NDArray[np.float64], metric: Metric) -> int:
    """Return the degrees of dof of the standard error from (units,) the scores with each unit left out: one less than
    there are units.

    Of a mean over classes the few people of a rare class make most of the spread, so that it is known as badly as from
    few
    people; how few is seen from their influence (Satterthwaite, 1946).
    """
    most = max(len(without) - 1, 1)
    if not metric.macro_averaged:
        return most
    squares = np.square(without - np.nanmean(without)) if not np.isnan(without).all() else np.zeros(1)
    total, surplus = np.nansum(squares), np.nansum(squares**2) - np.nansum(squares) ** 2 / len(without)
    return int(np.clip(2 * total**2 / surplus, 1, most)) if surplus > 0 else most


def t_interval(
    score: float | NDArray[np.float64],
    error: NDArray[np.float64],
    dof: int,
    seen: int | NDArray[np.int64] | NDArray[np.float64],
    level: float = LEVEL,
    least: float = -math.inf,
    most: float = math.inf,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (…) the ends of the interval of a score with its standard error, by Student's t.

    Of a score between `least` and `most` it is made on the scale of the logit: near its bounds the spread is lopsided.
    At a bound all people are without a mistake, or none is: the other end is that of Clopper and Pearson (1934) for so
    many.

    Parameters
    ----------
    dof : degrees of dof of the error.
    seen : (…) how many people, or groups of them, the score is of.
    """
    score, seen = np.asarray(score, float), np.asarray(seen)
    half = t_quantile(level, dof) * error
    if math.isinf(most - least):
        return np.maximum(score - half, least), np.minimum(score + half, most)
    share = np.clip((score - least) / (most - least), 0, 1)
    inside = (share > 0) & (share < 1)
    kept = np.where(inside, share, 0.5)
    # Odds times and divided by the same factor; a wide interval must not overflow.
    factor = np.exp(np.minimum(half / (most - least) / (kept * (1 - kept)), 500))
    exact = np.where(seen > 0, ((1 - level) / 2) ** (1 / np.maximum(seen, 1)), 0)
    low = np.where(inside, kept / (kept + (1 - kept) * factor), np.where(share == 1, exact, 0))
    high = np.where(inside, kept / (kept + (1 - kept) / factor), np.where(share == 1, 1, 1 - exact))
    known = np.where(np.isnan(score), np.nan, most - least)
    return least + known * low, least + known * high


def _effective_sample_size(metric: Metric, labels: Labels, codes: NDArray[np.int64], units: int) -> tuple[float, int]:
    """Return how many people of equal weight know as much (Kish, 1965), and the degrees of dof that so many leave, at
    most `_MIN_DOF`.

    A row counts as much as another, in a mean over classes as much as its class is rare.
    """
    weights = np.bincount(codes, 1 / np.bincount(labels)[labels] if metric.macro_averaged else None, units)
    squares = np.square(weights)
    return float(weights.sum() ** 2 / squares.sum()), int(
        np.clip(squares.sum() ** 2 / np.square(squares).sum() - 1, 1, _MIN_DOF)
    )


def _clip_to_clopper_pearson(
    metric: Metric, score: float, low: float, high: float, people: float, level: float
) -> tuple[float, float]:
    """Return the ends of an interval, neither wilder than `people` who are all right or all wrong can show, nor nearer
    than theirs without a mistake.

    The first of what is a mean of values between its bounds (not of kappa), the second of what counts right and wrong.
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


def coverage_warning(metric: Metric, labels: Labels, persons: NDArray, classes: int, alike: bool) -> str:
    """Why an interval of `metric` may hold the truth less often than it promises; empty where nothing speaks for that.

    Parameters
    ----------
    alike : whether the score is the same whoever is left out.
    """
    people = len(np.unique(persons))
    if people == 1:
        return "one person says nothing of others: there is no interval"
    if alike:
        return f"all {people:,} people score alike, so how much people differ is not known: the interval is too narrow"
    rarest = int(people_with_class(labels, persons, classes).min())
    held = _EMPIRICAL_COVERAGE.get(metric.name, {}).get(rarest)
    if held is None:
        return ""
    have = ("no sample", "one person", "two people")[rarest]
    return f"a class has {have}: of 95 % intervals of {metric.title} about {held} in 100 were seen to hold the truth"


def _p_value(score: float, error: float, dof: int, units: int) -> float:
    """Return the two-sided p-value of a difference with this standard error, by Student's t."""
    if score == 0 or units == 1:
        return 1.0
    least = _smallest_p_value(units)
    return max(least, 1 - t_two_sided(abs(score) / error, dof)) if error > 0 else least


def _bootstrap_p_value(score: float, change: NDArray[np.float64], units: int) -> float:
    """Return the two-sided p-value from (resamples,) differences of people drawn with replacement."""
    if score == 0:
        return 1.0
    # One is added to both: what was never seen in so many draws may still be.
    beyond = min(int(np.sum(change <= 0)), int(np.sum(change >= 0)))
    return max(_smallest_p_value(units), min(1.0, 2 * (beyond + 1) / (len(change) + 1)))


def _smallest_p_value(units: int) -> float:
    """Return how often all of so few people lean to one side by luck alone; 1 for one."""
    return 2.0 ** (1 - min(units, 1000))


def _both(first: str, second: str) -> str:
    return "; ".join(said for said in (first, second) if said)


def _alike(values: NDArray[np.float64], drawn: NDArray[np.float64]) -> bool:
    """Return whether the scores of all draws, or their differences, are the same but for rounding."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(drawn).max())
