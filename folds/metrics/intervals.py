"""The range in which a score, or the difference of two, lies for other people from the same population."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from folds.metrics import distributions as student
from folds.metrics.classification import Labels, Metric, Probabilities, argmax_classes, confusion_counts
from folds.metrics.grouping import people_with_class
from folds.metrics.resampling import bootstrap_scores, jackknife_groups, leave_one_group_out

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
    warning : why it may hold it less often, empty where nothing speaks for that.
    error : the standard error of the score; None where none was computed.
    """

    value: float
    low: float
    high: float
    level: float = 0.95
    people: int = 0
    warning: str = ""
    standard_error: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        """Score and range as plain values; JSON has no nan, so what is undefined is null."""
        ends = {"score": self.value, "low": self.low, "high": self.high}
        return {name: value if math.isfinite(value) else None for name, value in ends.items()}


@dataclass(frozen=True)
class Difference:
    """Two scores on the same rows, and what the second has more than the first.

    Attributes
    ----------
    difference : second − first, with its interval over people.
    chance : how likely people of whom both are equally good would show as much (two-sided); above 1 − level the interval holds 0.
    """

    first: float
    second: float
    difference: Interval
    p_value: float


def interval_over_people(
    metric: Metric,
    labels: Labels,
    probabilities: Probabilities,
    persons: NDArray,
    *,
    level: float = 0.95,
    predicted: Labels | None = None,
) -> Interval:
    """The interval of a score over people, not images: images of one person are right or wrong together.

    By the jackknife: the score with each person left out in turn says how much people matter, Student's t makes an
    interval of that (Tukey, 1958), on the scale of the logit where the score has bounds. It reaches no farther than that of
    Clopper and Pearson (1934) for people each of whom is all right or all wrong, the most that people can differ; and not less
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
    codes, units, people = jackknife_groups(persons)
    if metric.function is not None:
        drawn, warning = bootstrap_scores(metric.function, labels, [probabilities], codes, units)
        low, high = (float(value) for value in np.quantile(drawn[:, 0], [(1 - level) / 2, (1 + level) / 2]))
        error = np.asarray(drawn[:, 0].std())
        warning = _both(
            coverage_warning(metric, labels, persons, np.shape(probabilities)[1], _alike(drawn[:, 0], drawn)), warning
        )
    else:
        without = leave_one_group_out(metric, labels, probabilities, codes, units, predicted)
        weighed, at_least = _effective_sample_size(metric, labels, codes, units)
        error, freedom = jackknife_standard_error(without, score), max(degrees_of_freedom(without, metric), at_least)
        ends = [
            float(end)
            for end in t_interval(
                score, error, freedom, np.asarray(weighed), level, metric.lower_bound, metric.upper_bound
            )
        ]
        warning = coverage_warning(
            metric, labels, persons, np.shape(probabilities)[1], bool(error == 0 and ends[0] == ends[1])
        )
        low, high = (
            (ends[0], ends[1])
            if error == 0
            else _clip_to_clopper_pearson(metric, score, ends[0], ends[1], weighed, level)
        )
    return Interval(score, low, high, level, people, warning, float(error))


def interval_over_images(
    metric: Metric, labels: Labels, probabilities: Probabilities, *, level: float = 0.95
) -> Interval:
    """As `interval_over_people`, each image taken for a person of its own: too narrow where people have several, to be shown beside."""
    return interval_over_people(metric, labels, probabilities, np.arange(len(labels)), level=level)


def difference_over_people(
    metric: Metric,
    labels: Labels,
    first: Probabilities,
    second: Probabilities,
    persons: NDArray,
    *,
    level: float = 0.95,
) -> Difference:
    """The difference of two scores with its interval, paired: the same person is left out of both.

    What is hard is hard for both, so the difference is known better than either score. It says whether other people would
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
        drawn, warning = bootstrap_scores(metric.function, labels, [first, second], codes, units)
        change = drawn[:, 1] - drawn[:, 0]
        low, high = (float(value) for value in np.quantile(change, [(1 - level) / 2, (1 + level) / 2]))
        # One is added to both: what was never seen in so many draws may still be.
        beyond = min(int(np.sum(change <= 0)), int(np.sum(change >= 0)))
        chance = 1.0 if score == 0 else max(_smallest_p_value(units), min(1.0, 2 * (beyond + 1) / (len(change) + 1)))
        error = np.asarray(change.std())
        warning = _both(
            coverage_warning(metric, labels, persons, np.shape(first)[1], score != 0 and _alike(change, drawn)), warning
        )
    else:
        without = leave_one_group_out(metric, labels, second, codes, units) - leave_one_group_out(
            metric, labels, first, codes, units
        )
        error, freedom = jackknife_standard_error(without, score), degrees_of_freedom(without, metric)
        low, high = (float(end) for end in t_interval(score, error, freedom, units, level))
        warning = coverage_warning(metric, labels, persons, np.shape(first)[1], bool(error == 0 and score != 0))
        chance = _p_value(score, float(error), freedom, units)
    return Difference(*scores, Interval(score, low, high, level, people, warning, float(error)), chance)


def jackknife_standard_error(without: NDArray[np.float64], score: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """(…) the standard error of a score from (units, …) the scores with each unit left out (Efron and Stein, 1981, equation 1.2).

    What cannot be scored without a unit (nan) counts as unchanged; 0 for one unit.
    """
    units = len(without)
    known = np.where(np.isnan(without), score, without)
    return np.sqrt((units - 1) / units * np.square(known - known.mean(axis=0)).sum(axis=0))


def degrees_of_freedom(without: NDArray[np.float64], metric: Metric) -> int:
    """The degrees of freedom of the standard error from (units,) the scores with each unit left out: one less than there are units.

    Of a mean over classes the few people of a rare class make most of the spread, so that it is known as badly as from few
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
    freedom: int,
    seen: int | NDArray[np.int64] | NDArray[np.float64],
    level: float = 0.95,
    least: float = -math.inf,
    most: float = math.inf,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(…) the ends of the interval of a score with its standard error, by Student's t.

    Of a score between `least` and `most` it is made on the scale of the logit: near its bounds the spread is lopsided.
    At a bound all people are without a mistake, or none is: the other end is that of Clopper and Pearson (1934) for so many.

    Parameters
    ----------
    freedom : degrees of freedom of the error.
    seen : (…) how many people, or groups of them, the score is of.
    """
    score, seen = np.asarray(score, float), np.asarray(seen)
    half = student.t_quantile(level, freedom) * error
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
    """How many people of equal weight know as much (Kish, 1965), and the degrees of freedom that so many leave, at most `_FREEDOM`.

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
    """The ends of an interval, neither wilder than `people` who are all right or all wrong can show, nor nearer than theirs without a mistake.

    The first of what is a mean of values between its bounds (not of kappa), the second of what counts right and wrong.
    """
    scale, tail = metric.upper_bound - metric.lower_bound, (1 - level) / 2
    share = (score - metric.lower_bound) / scale
    if not 0 < share < 1 or math.isinf(scale):
        return low, high
    if metric.lower_bound == 0:
        right, wrong = people * share, people * (1 - share)
        low = min(score, scale * _at_least((low / scale), tail, right, wrong + 1))
        high = max(score, scale * (1 - _at_least(1 - high / scale, tail, wrong, right + 1)))
    if metric.from_counts is not None:
        without_mistake = tail ** (1 / people)
        low, high = (
            min(low, metric.lower_bound + scale * without_mistake),
            max(high, metric.upper_bound - scale * without_mistake),
        )
    return low, high


def _at_least(value: float, tail: float, a: float, b: float) -> float:
    """`value`, or the quantile `tail` of the beta distribution where that is higher."""
    if _beta_below(value, a, b) >= tail:
        return value
    low, high = value, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _beta_below(middle, a, b) < tail else (low, middle)
    return low


def _beta_below(x: float, a: float, b: float) -> float:
    """P(X ≤ x) for the beta distribution, by its continued fraction (DLMF, 8.17.22): SciPy's takes a quarter of a second to import."""
    if not 0 < x < 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # the other side converges at once
        return 1 - _beta_below(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    value = 1.0
    for m in range(int(20 + 4 * math.sqrt(max(a, b))), 0, -1):  # from the end
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m - 1) * (a + b + m - 1) * x / ((a + 2 * m - 2) * (a + 2 * m - 1))
        value = 1 + odd / (1 + even / value)
    return front / value


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


def _p_value(score: float, error: float, freedom: int, units: int) -> float:
    if score == 0 or units == 1:
        return 1.0
    least = _smallest_p_value(units)
    return max(least, 1 - student.t_two_sided(abs(score) / error, freedom)) if error > 0 else least


def _smallest_p_value(units: int) -> float:
    """How often all of so few people lean to one side by luck alone; 1 for one."""
    return 2.0 ** (1 - min(units, 1000))


def _both(first: str, second: str) -> str:
    return "; ".join(said for said in (first, second) if said)


def _alike(values: NDArray[np.float64], drawn: NDArray[np.float64]) -> bool:
    """Whether the scores of all draws, or their differences, are the same but for rounding."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(drawn).max())


LEVEL = 0.95


def significance_text(low: float, high: float, chance: float, among: int = 1) -> str:
    """Whether a difference with this interval is distinguishable from noise: ``yes``, or ``no`` and why (see `Comparison.verdict`)."""
    if low == high == 0:
        return "no: no sample is decided otherwise"
    if low <= 0 <= high:
        return "no"
    return "yes" if chance * among <= 1 - LEVEL + 1e-9 else f"no: one of {among} may seem so by chance"
