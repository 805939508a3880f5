"""Compute the standard error of a score from leave-one-out scores, and the ends of its interval; numpy only."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from folds.metrics.columns import ColumnScore
from folds.metrics.distributions import at_least_beta_quantile, t_quantile

LEVEL = 0.95


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


def degrees_of_freedom(leave_one_out: NDArray[np.float64], few: bool) -> int:
    """Return the degrees of freedom of the standard error from (units,) leave-one-out scores: the number of units minus
    one.

    In a mean over classes, the few people of a rare class cause most of the variance, so the error is estimated as from
    few people. The effective number follows from their influence (Satterthwaite, 1946).

    Parameters
    ----------
    few : whether few people may cause most of the variance.
    """
    max_dof = max(len(leave_one_out) - 1, 1)
    if not few:
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


def clip_to_clopper_pearson(
    score: float,
    low: float,
    high: float,
    people: float,
    level: float,
    bounds: tuple[float, float],
    is_share: bool,
    of_decisions: bool,
) -> tuple[float, float]:
    """Return the ends of an interval, limited by those of Clopper and Pearson for `people` people.

    The upper limit of the width is the interval of people who are each entirely right or entirely wrong. The lower
    limit is the interval without any mistake.

    Parameters
    ----------
    bounds : the range of the score.
    is_share : whether the upper limit applies: to means of values between the bounds (not to kappa).
    of_decisions : whether the lower limit applies: to metrics from counts.
    """
    lower, upper = bounds
    scale, tail = upper - lower, (1 - level) / 2
    share = (score - lower) / scale
    if not 0 < share < 1 or math.isinf(scale):
        return low, high
    if is_share:
        right, wrong = people * share, people * (1 - share)
        low = min(score, scale * at_least_beta_quantile((low / scale), tail, right, wrong + 1))
        high = max(score, scale * (1 - at_least_beta_quantile(1 - high / scale, tail, wrong, right + 1)))
    if of_decisions:
        without_mistake = tail ** (1 / people)
        low, high = min(low, lower + scale * without_mistake), max(high, upper - scale * without_mistake)
    return low, high


def column_interval(
    column: ColumnScore, score: float, error: float, dof: int, people: float, level: float, limited: bool = True
) -> tuple[float, float]:
    """Return the ends of the interval of a score of several labels or numbers with its standard error.

    A score between bounds is treated as one of classes. An error without an upper bound, and the distance of R² from 1,
    are skewed to the right: their interval is computed on the logarithmic scale.

    Parameters
    ----------
    dof : degrees of freedom of the error.
    people : effective number of people.
    limited : whether the limits of `clip_to_clopper_pearson` apply.
    """
    lower, upper = bounds = column.lower_bound, column.upper_bound
    if math.isnan(score):
        return math.nan, math.nan
    if math.isinf(upper - lower):
        sign, start = (1.0, lower) if math.isinf(upper) else (-1.0, upper)
        size = sign * (score - start)
        factor = math.exp(min(t_quantile(level, dof) * error / size, 500.0)) if size > 0 else 1.0
        low, high = sorted((start + sign * size / factor, start + sign * size * factor))
        return low, high
    low, high = (float(end) for end in t_interval(score, np.asarray(error), dof, np.asarray(people), level, *bounds))
    if error == 0 or not limited:
        return low, high
    return clip_to_clopper_pearson(score, low, high, people, level, bounds, column.is_share, column.of_decisions)
