"""Scores of the order of rows, of one class against the others, and without each unit of people; numpy only.

Every function takes `mine` (n,) bool, whether a row is of the class, and `values` (n,), its value for it; those without
each unit also take `codes` (n,) int, the unit of each row, and the number of units. Equal values are one threshold.
A score is nan if no row, or every row, is of the class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from folds.metrics.columns import ratio

Bools = NDArray[np.bool_]
Codes = NDArray[np.int64]
Floats = NDArray[np.float64]
# Units with at most this number of rows share tables of sums in `average_precision_without_each`.
_SMALL = 16
_ROUNDING = 1e-9  # of products such as (1 − 0.9) · 10


@dataclass(frozen=True)
class RankScore:
    """A score of one class against the others by the order of its values.

    Attributes
    ----------
    score : (mine, values) → the score.
    without_each : (mine, values, codes, units) → (units,) the score of all rows except those of each unit.
    pooled : whether the columns of all classes are one ranking (micro average).
    bounds : (mine, values, codes, units, t, level) → the ends of the interval at t standard errors, for a score at a
        quantile, whose distribution is skewed; None: they follow from `without_each`.
    """

    score: Callable[[Bools, NDArray], float]
    without_each: Callable[[Bools, NDArray, Codes, int], Floats]
    pooled: bool = False
    bounds: Callable[[Bools, NDArray, Codes, int, float, float], tuple[float, float]] | None = None

    def bounds_of_positive(
        self,
        labels: NDArray[np.integer],
        probabilities: NDArray[np.floating],
        codes: Codes,
        units: int,
        t: float,
        level: float,
    ) -> tuple[float, float] | None:
        """Return `bounds` of the second of two classes; None if there are more, or the score has no bounds or value."""
        if self.bounds is None or np.shape(probabilities)[1] != 2:
            return None
        mine, values = self._columns(labels, probabilities)[0]
        return self.bounds(mine, values, codes, units, t, level) if 0 < mine.sum() < len(mine) else None

    def of_classes(self, labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> Floats:
        """Return (columns,) the score of each class; with two classes that of the second alone."""
        return np.array([self.score(mine, values) for mine, values in self._columns(labels, probabilities)])

    def of_classes_without_each(
        self, labels: NDArray[np.integer], probabilities: NDArray[np.floating], codes: Codes, units: int
    ) -> Floats:
        """Return (units, columns) the same without the rows of each unit."""
        if self.pooled:
            codes = np.repeat(codes, np.shape(probabilities)[1])
        columns = self._columns(labels, probabilities)
        return np.stack([self.without_each(mine, values, codes, units) for mine, values in columns], axis=1)

    def _columns(self, labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> list[tuple[Bools, NDArray]]:
        values = np.asarray(probabilities)
        classes = values.shape[1]
        if self.pooled:
            return [((np.asarray(labels)[:, None] == np.arange(classes)).ravel(), values.ravel())]
        used = [1] if classes == 2 else range(classes)
        return [(np.asarray(labels) == one, np.ascontiguousarray(values[:, one])) for one in used]


def mean_ranks(values: NDArray, groups: Codes) -> Floats:
    """Return (n,) the rank of each value within its group, from 1; equal values share their mean rank."""
    if not len(values):
        return np.zeros(0)
    order = np.lexsort((values, groups))
    value, group = values[order], groups[order]
    new_group = np.concatenate([[True], group[1:] != group[:-1]])
    new = np.concatenate([[True], (value[1:] != value[:-1]) | new_group[1:]])
    start = np.flatnonzero(new)
    count = np.diff(np.append(start, len(values)))
    first_of_group = np.maximum.accumulate(np.where(new_group, np.arange(len(values)), 0))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(start + (count + 1) / 2, count) - first_of_group
    return ranks


def area(mine: Bools, values: NDArray) -> float:
    """Return the probability that a row of the class has a higher value than another one; equal values count one
    half (Mann and Whitney, 1947).
    """
    positives, negatives = int(mine.sum()), int((~mine).sum())
    if not positives or not negatives:
        return float("nan")
    _, position, count = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[position]
    return float((ranks[mine].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def area_without_each(mine: Bools, values: NDArray, codes: Codes, units: int) -> Floats:
    """Return (units,) `area` without the rows of each unit.

    Leaving out a unit removes the pairs of its rows with all other rows. Pairs within the unit are then removed twice,
    so they are added once.
    """
    # Wins of a row of the class: rows of other classes below it. Losses of another row: rows of the class above it.
    ranks = mean_ranks(values, np.zeros_like(codes))
    wins = ranks[mine] - mean_ranks(values[mine], np.zeros_like(codes[mine]))
    losses = mine.sum() - (ranks[~mine] - mean_ranks(values[~mine], np.zeros_like(codes[~mine])))
    positives, negatives = np.bincount(codes[mine], minlength=units), np.bincount(codes[~mine], minlength=units)
    within = np.bincount(codes[mine], mean_ranks(values, codes)[mine], units) - positives * (positives + 1) / 2
    left = wins.sum() - np.bincount(codes[mine], wins, units) - np.bincount(codes[~mine], losses, units) + within
    pairs = (mine.sum() - positives) * ((~mine).sum() - negatives)
    return np.divide(left, pairs, out=np.full(units, np.nan), where=pairs > 0)


def average_precision(mine: Bools, values: NDArray) -> float:
    """Return the mean over rows of the class of the precision at the threshold of each: the step-wise area under the
    precision–recall curve, without interpolation, ``average_precision_score`` of scikit-learn.
    """
    positives = int(mine.sum())
    if not positives or positives == len(mine):
        return float("nan")
    order = np.argsort(-values, kind="stable")
    ordered, hits = values[order], np.cumsum(mine[order])
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    return float((np.diff(hits[ends], prepend=0) * (hits[ends] / (ends + 1))).sum() / positives)


def average_precision_without_each(mine: Bools, values: NDArray, codes: Codes, units: int) -> Floats:
    """Return (units,) `average_precision` without the rows of each unit.

    Without a unit, the precision at a threshold is (hits − a) / (rows − b) with the a of b rows of the unit that lie
    above it. Between two of its rows both are constant, so sums over the thresholds between them are differences of
    running sums, of which units with few rows need only few different ones.
    """
    n, positives = len(mine), int(mine.sum())
    removed = np.bincount(codes[mine], minlength=units)
    if not positives or positives == n:
        return np.full(units, np.nan)
    order = np.argsort(-values, kind="stable")
    ordered, is_mine, unit = values[order], mine[order], codes[order]
    firsts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    tie = np.repeat(np.arange(len(firsts)), np.diff(np.append(firsts, n)))
    last = np.append(firsts[1:], n)[tie] - 1
    hits = np.cumsum(is_mine)
    at = np.flatnonzero(is_mine)
    reached, rows = hits[last[at]].astype(float), last[at] + 1.0  # (positives,) at the threshold of each
    begin: Codes = (hits - is_mine)[firsts][tie]  # (n,) the first row of the class at whose threshold a row counts

    by_unit = np.argsort(unit, kind="stable")
    unit, begin, tie, is_mine = unit[by_unit], begin[by_unit], tie[by_unit], is_mine[by_unit]
    sizes = np.bincount(unit, minlength=units)
    first_row = np.cumsum(sizes) - sizes
    above = np.arange(n) - first_row[unit] + 1  # b after each row of the unit
    running = np.concatenate([[0], np.cumsum(is_mine)])
    above_mine = running[1:] - running[first_row[unit]]  # a
    until = np.where(np.append(unit[1:] == unit[:-1], False), np.append(begin[1:], 0), positives)

    # Its own rows of the class do not count: a and b at their thresholds are those after all equal rows of the unit.
    new = np.concatenate([[True], (unit[1:] != unit[:-1]) | (tie[1:] != tie[:-1])])
    ends = np.append(np.flatnonzero(new)[1:], n) - 1
    end = ends[np.cumsum(new) - 1]
    index = np.searchsorted(at, by_unit[is_mine])  # its place among the rows of the class
    own = ratio(reached[index] - above_mine[end][is_mine], rows[index] - above[end][is_mine])
    total = -np.bincount(unit[is_mine], own, units)

    plain = np.concatenate([[0.0], np.cumsum(reached / rows)])
    total += plain[np.where(sizes > 0, begin[np.minimum(first_row, n - 1)], positives)]
    small = (sizes[unit] <= _SMALL) & (until > begin)
    key = above * (_SMALL + 1) + above_mine
    for one in np.unique(key[small]).tolist():
        b, a = divmod(one, _SMALL + 1)
        sums = np.concatenate([[0.0], np.cumsum(ratio(reached - a, rows - b))])
        chosen = np.flatnonzero(small & (key == one))
        total += np.bincount(unit[chosen], sums[until[chosen]] - sums[begin[chosen]], units)
    for one in np.flatnonzero(sizes > _SMALL).tolist():
        own_rows = slice(first_row[one], first_row[one] + sizes[one])
        b = np.bincount(begin[own_rows], minlength=positives + 1).cumsum()[:positives]
        a = np.bincount(begin[own_rows][is_mine[own_rows]], minlength=positives + 1).cumsum()[:positives]
        start = int(begin[first_row[one]])
        total[one] += ratio(reached - a, rows - b)[start:].sum()
    left = positives - removed
    defined = (left > 0) & (left < n - sizes)
    return np.divide(total, left, out=np.full(units, np.nan), where=defined)


def partial_area(mine: Bools, values: NDArray, tpr: float) -> float:
    """Return the area between the ROC curve and the axis of false positive rates' end above a true positive rate:
    ∫ (1 − FPR) dTPR from `tpr` to 1; from 0 to 1 − `tpr`, (1 − `tpr`)²/2 for a random order.

    It is the area under the curve of the specificity against the false negative rate up to 1 − `tpr`; within equal
    values the curve is straight, as in ``roc_auc_score`` of scikit-learn.
    """
    high, low = np.sort(values[mine]), np.sort(values[~mine])
    if not len(high) or not len(low):
        return float("nan")
    quota = (1 - tpr) * len(high)
    cut = high[_cut_index(quota, len(high))]
    missed, until = np.searchsorted(high, cut), np.searchsorted(high, cut, "right")
    left, right = np.searchsorted(low, high[:missed]), np.searchsorted(low, high[:missed], "right")
    below, equal = np.searchsorted(low, cut), np.searchsorted(low, cut, "right") - np.searchsorted(low, cut)
    rest = quota - missed
    found = ((left + right) / 2).sum() + rest * below + equal * rest**2 / (2 * (until - missed))
    return float(found / (len(high) * len(low)))


def partial_area_without_each(mine: Bools, values: NDArray, codes: Codes, units: int, tpr: float) -> Floats:
    """Return (units,) `partial_area` without the rows of each unit, exactly, in the way of `area_without_each`."""
    high, low, of_high, of_low = values[mine], values[~mine], codes[mine], codes[~mine]
    own_high, own_low = np.bincount(of_high, minlength=units), np.bincount(of_low, minlength=units)
    left_high, left_low = len(high) - own_high, len(low) - own_low
    defined = (left_high > 0) & (left_low > 0)
    if not defined.any():
        return np.full(units, np.nan)
    quota = (1 - tpr) * left_high
    cut = _kth_without(high, of_high, _cut_index(quota, np.maximum(left_high, 1)) + 1, units)
    ranked, others = np.sort(high), np.sort(low)
    wins = (np.searchsorted(others, ranked) + np.searchsorted(others, ranked, "right")) / 2
    sums = np.concatenate([[0.0], np.cumsum(wins)])
    is_missed, is_rejected = high < cut[of_high], low < cut[of_low]
    all_missed = np.searchsorted(ranked, cut)
    found = sums[all_missed]
    own_wins = (np.searchsorted(others, high) + np.searchsorted(others, high, "right")) / 2
    found = found - np.bincount(of_high, np.where(is_missed, own_wins, 0), units)
    middle = (np.searchsorted(ranked, low) + np.searchsorted(ranked, low, "right")) / 2
    found -= np.bincount(of_low, np.where(is_rejected, all_missed[of_low] - middle, 0), units)
    within = mean_ranks(values, codes)[mine] - mean_ranks(high, of_high)
    found += np.bincount(of_high, np.where(is_missed, within, 0), units)
    missed = all_missed - np.bincount(of_high[is_missed], minlength=units)
    below = np.searchsorted(others, cut) - np.bincount(of_low[is_rejected], minlength=units)
    equal_high = np.searchsorted(ranked, cut, "right") - all_missed
    equal_high = equal_high - np.bincount(of_high[high == cut[of_high]], minlength=units)
    equal_low = np.searchsorted(others, cut, "right") - np.searchsorted(others, cut)
    equal_low = equal_low - np.bincount(of_low[low == cut[of_low]], minlength=units)
    rest = quota - missed
    found += rest * below + equal_low * rest**2 / (2 * np.maximum(equal_high, 1))
    return np.divide(found, left_high * left_low, out=np.full(units, np.nan), where=defined)


def sensitivity_at(mine: Bools, values: NDArray, specificity: float) -> float:
    """Return the highest share of the rows of the class above a threshold that at least the share `specificity` of the
    other rows does not exceed.
    """
    high, low = values[mine], np.sort(values[~mine])
    if not len(high) or not len(low):
        return float("nan")
    return _share_above(np.sort(high), low, _allowed(specificity, len(low)))


def sensitivity_at_without_each(mine: Bools, values: NDArray, codes: Codes, units: int, specificity: float) -> Floats:
    """Return (units,) the linearized `sensitivity_at` without the rows of each unit.

    The threshold is a quantile of the other rows, which moves in jumps as units are left out: a jackknife of it does
    not converge (Miller, 1974). The sensitivity is therefore left-one-out at the threshold of all rows, and the change
    of the specificity there is translated by the slope of the ROC curve, over one standard error to each side.
    """
    if not mine.any() or mine.all():
        return np.full(units, np.nan)
    high, low, allowed, hit, change, error = _at_threshold(mine, values, codes, units, specificity)
    step = max(1, round(error * len(low)))
    fewer, more = max(allowed - step, 0), min(allowed + step, len(low))
    slope = 0.0
    if more > fewer:
        rise = _share_above(high, low, more) - _share_above(high, low, fewer)
        slope = rise * len(low) / (more - fewer)
    return hit + slope * change


def sensitivity_at_bounds(
    mine: Bools, values: NDArray, codes: Codes, units: int, t: float, level: float, specificity: float
) -> tuple[float, float]:
    """Return the ends of the interval of `sensitivity_at` at t standard errors, the quantile of `level`.

    The specificity is moved by t of its standard errors to each side, as in an interval of a quantile (Woodruff, 1952),
    and the resulting change is joined to that of the sensitivity at the threshold, as the root of the sum of squares.
    """
    high, low, allowed, hit, _, error = _at_threshold(mine, values, codes, units, specificity)
    found, people = _share_above(high, low, allowed), len(np.unique(codes[mine]))
    lowest, highest = _on_logit_scale(found, t * _jackknife_error(hit), people, level)
    if 0 < specificity < 1:
        ends = _on_logit_scale(specificity, t * error, people, level)
        fewer, more = (int(np.clip(round((1 - end) * len(low)), 0, len(low))) for end in reversed(ends))
    else:
        fewer, more = allowed, allowed
    below, above = _share_above(high, low, min(fewer, allowed)), _share_above(high, low, max(more, allowed))
    return (
        max(0.0, found - float(np.hypot(found - below, found - lowest))),
        min(1.0, found + float(np.hypot(above - found, highest - found))),
    )


def _on_logit_scale(share: float, half: float, people: int, level: float) -> tuple[float, float]:
    """Return the ends of the interval of a share; of 0 and 1 those of people without a mistake (Clopper and Pearson,
    1934).
    """
    if not 0 < share < 1:
        end = ((1 - level) / 2) ** (1 / people)
        return (end, 1.0) if share else (0.0, 1 - end)
    factor = float(np.exp(min(half / (share * (1 - share)), 500.0)))
    return share / (share + (1 - share) * factor), share / (share + (1 - share) / factor)


def _at_threshold(
    mine: Bools, values: NDArray, codes: Codes, units: int, specificity: float
) -> tuple[NDArray, NDArray, int, Floats, Floats, float]:
    """Return what an interval at a specificity needs.

    The sorted values of the class and of the others; the number of the latter that may exceed the threshold; without
    each unit the share of the class above the threshold (units,) and the change of the specificity there (units,); and
    the standard error of the specificity over people, at least that of independent rows.
    """
    high, low = np.sort(values[mine]), np.sort(values[~mine])
    allowed = _allowed(specificity, len(low))
    of_high, of_low = codes[mine], codes[~mine]
    left_high = len(high) - np.bincount(of_high, minlength=units)
    left_low = len(low) - np.bincount(of_low, minlength=units)
    threshold = low[len(low) - 1 - allowed] if allowed < len(low) else -np.inf
    above_high, above_low = values[mine] > threshold, values[~mine] > threshold
    hit = ratio(above_high.sum() - np.bincount(of_high[above_high], minlength=units), left_high)
    hit = np.where(left_high > 0, hit, above_high.mean())
    rate = ratio(above_low.sum() - np.bincount(of_low[above_low], minlength=units), left_low)
    change = np.where(left_low > 0, above_low.mean() - rate, 0.0)
    independent = float(np.sqrt(specificity * (1 - specificity) / len(low)))
    return high, low, allowed, hit, change, max(_jackknife_error(change), independent)


def _jackknife_error(without_each: Floats) -> float:
    units = len(without_each)
    return float(np.sqrt((units - 1) / units * np.square(without_each - without_each.mean()).sum()))


def specificity_at(mine: Bools, values: NDArray, sensitivity: float) -> float:
    """Return the highest share of the other rows below a threshold that at least the share `sensitivity` of the rows of
    the class reaches.
    """
    return sensitivity_at(~mine, -values, sensitivity)


def specificity_at_without_each(mine: Bools, values: NDArray, codes: Codes, units: int, sensitivity: float) -> Floats:
    """Return (units,) the linearized `specificity_at`, see `sensitivity_at_without_each`."""
    return sensitivity_at_without_each(~mine, -values, codes, units, sensitivity)


AREA_MICRO = RankScore(area, area_without_each, pooled=True)
AVERAGE_PRECISION = RankScore(average_precision, average_precision_without_each)


def partial_area_above(tpr: float, scaled: bool) -> RankScore:
    """Return the partial area above a true positive rate; `scaled` to 0.5 for a random order and 1 for a perfect one
    (McClish, 1989).
    """
    return RankScore(partial(_scaled, tpr, scaled), partial(_scaled_without_each, tpr, scaled))


def _scaled(tpr: float, scaled: bool, mine: Bools, values: NDArray) -> float:
    return float(_rescaled(partial_area(mine, values, tpr), tpr, scaled))


def _scaled_without_each(tpr: float, scaled: bool, mine: Bools, values: NDArray, codes: Codes, units: int) -> Floats:
    return np.asarray(_rescaled(partial_area_without_each(mine, values, codes, units, tpr), tpr, scaled))


def _rescaled(found: float | Floats, tpr: float, scaled: bool) -> float | Floats:
    width = 1 - tpr
    return (1 + (found - width**2 / 2) / (width - width**2 / 2)) / 2 if scaled else found


def at_specificity(specificity: float) -> RankScore:
    """Return the sensitivity at a specificity."""
    return RankScore(
        partial(sensitivity_at, specificity=specificity),
        partial(sensitivity_at_without_each, specificity=specificity),
        bounds=partial(sensitivity_at_bounds, specificity=specificity),
    )


def at_sensitivity(sensitivity: float) -> RankScore:
    """Return the specificity at a sensitivity."""
    return RankScore(
        partial(specificity_at, sensitivity=sensitivity),
        partial(specificity_at_without_each, sensitivity=sensitivity),
        bounds=partial(_specificity_at_bounds, sensitivity),
    )


def _specificity_at_bounds(
    sensitivity: float, mine: Bools, values: NDArray, codes: Codes, units: int, t: float, level: float
) -> tuple[float, float]:
    return sensitivity_at_bounds(~mine, -values, codes, units, t, level, sensitivity)


def _allowed(share: float, rows: int) -> int:
    """Return how many of the rows may be on the wrong side."""
    return int(np.floor((1 - share) * rows + _ROUNDING))


def _share_above(high: NDArray, low: NDArray, allowed: int) -> float:
    """Return the share of `high` above all of `low` but `allowed` of them; both are sorted."""
    if allowed >= len(low):
        return 1.0
    return float(1 - np.searchsorted(high, low[len(low) - 1 - allowed], "right") / len(high))


def _cut_index(quota: float | NDArray[np.floating], rows: int | NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place of the row in which a quota of rows ends, from 0."""
    return np.clip(np.ceil(quota).astype(np.int64) - 1, 0, np.asarray(rows) - 1)


def _kth_without(values: NDArray, codes: Codes, k: NDArray[np.int64], units: int) -> NDArray:
    """Return (units,) the k-th smallest value, from 1, of the rows outside of each unit; the largest if there are
    fewer.
    """
    order = np.argsort(values, kind="stable")
    unit = codes[order]
    by_unit = np.argsort(unit, kind="stable")
    sizes = np.bincount(unit, minlength=units)
    within = np.arange(len(unit)) - (np.cumsum(sizes) - sizes)[unit[by_unit]]
    strangers = by_unit - within  # rows of other units before each row of a unit
    before = np.bincount(unit[by_unit][strangers < k[unit[by_unit]]], minlength=units)
    return values[order][np.minimum(k - 1 + before, len(values) - 1)]
