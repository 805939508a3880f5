"""Compute intervals over sites (hospitals, cameras): of the score at new sites, and of what is lost there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError
from folds.metrics.classification import Metric
from folds.metrics.confusion import Probabilities, argmax_classes, confusion_counts
from folds.metrics.distributions import t_quantile, t_two_sided
from folds.metrics.intervals import (
    LEVEL,
    Difference,
    Interval,
    check_level,
    difference_over_people,
    interval_over_people,
    jackknife_standard_error,
    t_interval,
)
from folds.metrics.standard_errors import column_interval
from folds.utils.numeric import factorize

FEW_SITES = 5  # below, the interval is so wide that it decides little


@dataclass(frozen=True)
class SiteScore:
    """The score of the rows of one site.

    Attributes
    ----------
    first, second : scores of two models on these rows, such as trained with and without the site.
    """

    site: str
    rows: int
    people: int
    first: float
    second: float


def interval_over_sites(
    metric: Metric,
    labels: NDArray,
    probabilities: Probabilities,
    sites: NDArray,
    persons: NDArray,
    *,
    level: float = LEVEL,
) -> Interval:
    """Return the score of all rows with its interval over sites and people: what rows of new sites would score.

    The jackknife leaves out each site in turn, and with it its people, so that both vary. Student's t has as many
    degrees of freedom as there are sites, minus one: few sites give a wide interval. It is never narrower than that
    over people of these sites (`interval_over_people`), because a few sites can be alike by chance. `Interval.people`
    is the number of sites.

    Parameters
    ----------
    labels : (n,) class indices; of several labels or numbers (n, columns) float64, nan where one is not known.
    probabilities : (n, classes) or (n, columns), each row by a model that has not seen its site.
    sites, persons : (n,) any values; equal values are one site or person.

    Raises
    ------
    UsageError : `level` is not above 0 and below 1.
    """
    check_level(level)
    codes, count = _codes(sites)
    people = interval_over_people(metric, labels, probabilities, persons, level=level)
    error, undefined = _standard_error(metric, labels, [probabilities], codes, count)
    dof = max(count - 1, 1)
    if np.ndim(labels) == 2 and metric.columns is not None:
        low, high = column_interval(metric.columns, people.value, float(error), dof, count, level, limited=False)
    else:
        bounds = metric.lower_bound, metric.upper_bound
        low, high = (float(end) for end in t_interval(people.value, error, dof, count, level, *bounds))
    low, high = _wider(low, high, people)
    if count == 1 or undefined:
        low = high = math.nan
    warning = _undefined_warning(undefined) or sites_warning(count)
    return Interval(people.value, low, high, level, count, warning, float(error))


def difference_over_sites(
    metric: Metric,
    labels: NDArray,
    first: Probabilities,
    second: Probabilities,
    sites: NDArray,
    persons: NDArray,
    *,
    level: float = LEVEL,
) -> Difference:
    """Return the difference of two scores, second − first, with its interval over sites and people, paired.

    The rules are those of `interval_over_sites`: the same site is left out of both scores.

    Parameters
    ----------
    first, second : (n, classes) of the same rows.
    """
    check_level(level)
    codes, count = _codes(sites)
    found = difference_over_people(metric, labels, first, second, persons, level=level)
    change, dof = found.difference, max(count - 1, 1)
    found_error, undefined = _standard_error(metric, labels, [first, second], codes, count)
    error = float(found_error)
    half = t_quantile(level, dof) * error
    low, high = _wider(change.value - half, change.value + half, change)
    smallest = 2.0 ** (1 - min(count, 1000))  # of a sign test if all sites differ in the same direction
    by_site = max(smallest, 1 - t_two_sided(abs(change.value) / error, dof)) if error > 0 else smallest
    p_value = 1.0 if change.value == 0 or count == 1 or undefined else max(found.p_value, by_site)
    if count == 1 or undefined:
        low = high = math.nan
    warning = _undefined_warning(undefined) or sites_warning(count)
    interval = Interval(change.value, low, high, level, count, warning, error)
    return Difference(found.first, found.second, interval, p_value)


def score_sites(
    metric: Metric, labels: NDArray, first: Probabilities, second: Probabilities, sites: NDArray, persons: NDArray
) -> tuple[SiteScore, ...]:
    """Return the scores of each site, in the order of their names; nan where the metric is not defined.

    A mean over classes (macro F1) is that over the classes which the site has.
    """
    names, codes = factorize(sites)
    found = []
    for at, name in enumerate(names):
        rows = np.flatnonzero(codes == at)
        scores = [_score_present(metric, labels[rows], np.asarray(values)[rows]) for values in (first, second)]
        found.append(SiteScore(str(name), len(rows), len(np.unique(persons[rows])), *scores))
    return tuple(found)


def sites_warning(count: int) -> str:
    """Return why an interval over `count` sites says little; "" if there are enough."""
    if count == 1:
        return "only one site: no confidence interval over sites can be computed"
    return f"only {count} sites: the interval is wide, and decides little" if count < FEW_SITES else ""


def _undefined_warning(undefined: int) -> str:
    """Return why there is no interval if the score is undefined without some sites; "" if there are none."""
    if not undefined:
        return ""
    sites = "a site" if undefined == 1 else f"each of {undefined} sites"
    return f"without {sites} the score is not defined: no confidence interval over sites can be computed"


def _codes(sites: NDArray) -> tuple[NDArray[np.int64], int]:
    names, codes = factorize(sites)
    return codes, len(names)


def _standard_error(
    metric: Metric, labels: NDArray, values: list[Probabilities], codes: NDArray[np.int64], count: int
) -> tuple[NDArray[np.float64], int]:
    """Return the jackknife standard error over sites of a score, or of the difference of two, and for how many sites
    the score of the other ones is not defined.
    """

    def score(rows: NDArray[np.bool_]) -> float:
        scores = [_score(metric, labels[rows], np.asarray(one)[rows]) for one in values]
        return scores[-1] - (scores[0] if len(scores) > 1 else 0.0)

    if count == 1:
        return np.zeros(()), 0
    left = np.array([score(codes != one) for one in range(count)])
    whole = score(np.ones(len(codes), bool))
    undefined = 0 if math.isnan(whole) else int(np.isnan(left).sum())
    return jackknife_standard_error(left, whole), undefined


def _score_present(metric: Metric, labels: NDArray, probabilities: Probabilities) -> float:
    if metric.from_counts is None or not metric.macro_averaged or np.ndim(labels) == 2:
        return _score(metric, labels, probabilities)
    counts = confusion_counts(labels, argmax_classes(probabilities), probabilities.shape[1])
    return float(metric.from_counts(counts[:, counts[1] > 0]))


def _score(metric: Metric, labels: NDArray, probabilities: Probabilities) -> float:
    """Return a score; nan if these rows cannot be scored, e.g. because a function needs all classes."""
    try:
        return float(metric(labels, probabilities))
    except EnsembleError:
        return math.nan


def _wider(low: float, high: float, people: Interval) -> tuple[float, float]:
    """Return the ends, moved outward to those over people where these lie farther out."""
    if math.isnan(people.low):
        return low, high
    return min(low, people.low), max(high, people.high)
