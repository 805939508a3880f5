"""Define the scores of predicted numbers: errors, agreement and order; numpy only.

Of several numbers a score is the mean over them. An error is in the unit of the number, so that of numbers with
different units mixes them; `r2`, `pearson`, `concordance`, `c_index` and `within` have none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from folds.metrics.columns import Codes, ColumnScore, Floats, OrderScore, ratio
from folds.metrics.label_scores import mean_of_sums
from folds.metrics.task_names import REGRESSION

_CONSTANT = 1e-12  # share of the sum of squares below which a variance is rounding


def _of_errors(value: Callable[[Floats], NDArray], truth: Floats, values: NDArray) -> Floats:
    found = value(np.abs(np.asarray(values, np.float64) - truth))
    return np.stack([np.ones(len(found)), found], axis=1)


def _root_of_mean(sums: Floats) -> Floats:
    return np.sqrt(np.maximum(mean_of_sums(sums), 0))


def _moments(truth: Floats, values: NDArray) -> Floats:
    """Return (k, 7): 1, the label, the prediction, their squares, their product and the squared error, around the mean
    label.
    """
    center = truth.mean() if len(truth) else 0.0
    t, p = truth - center, np.asarray(values, np.float64) - center
    return np.stack([np.ones(len(t)), t, p, t * t, p * p, t * p, np.square(t - p)], axis=1)


def _spread(rows: Floats, total: Floats, squares: Floats) -> Floats:
    """Return (…) the sum of squares around the mean; 0 where it is only rounding."""
    found = squares - ratio(np.square(total), rows)
    return np.where(found > _CONSTANT * np.maximum(squares, 0), found, 0.0)


def _r2_of(sums: Floats) -> Floats:
    rows, label, _, squares, _, _, errors = np.moveaxis(sums, -1, 0)
    return 1 - ratio(np.maximum(errors, 0), _spread(rows, label, squares), np.nan)


def _correlated(sums: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    rows, label, value, squares, value_squares, products, _ = np.moveaxis(sums, -1, 0)
    joint = products - ratio(label * value, rows)
    shift = ratio(np.square(label - value), rows)
    return joint, _spread(rows, label, squares), _spread(rows, value, value_squares), shift


def _pearson_of(sums: Floats) -> Floats:
    joint, of_labels, of_values, _ = _correlated(sums)
    found = np.clip(ratio(joint, np.sqrt(of_labels * of_values)), -1, 1)
    return np.where(of_labels > 0, found, np.nan)


def _concordance_of(sums: Floats) -> Floats:
    joint, of_labels, of_values, shift = _correlated(sums)
    found = np.clip(ratio(2 * joint, of_labels + of_values + shift), -1, 1)
    return np.where(of_labels > 0, found, np.nan)


def median_error(truth: Floats, values: NDArray) -> float:
    """Return the median absolute error; nan without a cell."""
    return float(np.median(np.abs(np.asarray(values, np.float64) - truth))) if len(truth) else float("nan")


def median_error_without_each(truth: Floats, values: NDArray, codes: Codes, units: int) -> Floats:
    """Return (units,) the linearized `median_error` without the cells of each unit.

    A median moves in jumps as units are left out, and a jackknife of it does not converge (Miller, 1974). The share of
    errors below the median of all cells is therefore left-one-out, and its change translated by the slope of the
    quantiles, over one standard error of the share to each side (Woodruff, 1952).
    """
    errors = np.abs(np.asarray(values, np.float64) - truth)
    if not len(errors):
        return np.full(units, np.nan)
    ordered, median = np.sort(errors), float(np.median(errors))
    below = (errors < median) + 0.5 * (errors == median)
    left = len(errors) - np.bincount(codes, minlength=units)
    share = ratio(below.sum() - np.bincount(codes, below, units), left, np.nan)
    change = share - below.mean()
    known = np.where(np.isnan(change), 0.0, change)
    moved = float(np.sqrt(max(units - 1, 0) / units * np.square(known - known.mean()).sum()))
    moved = min(max(moved, 0.5 / np.sqrt(len(errors))), 0.5)
    low, high = (float(np.quantile(ordered, end)) for end in (0.5 - moved, 0.5 + moved))
    return np.asarray(median - (high - low) / (2 * moved) * change)


def concordant_pairs(truth: Floats, values: NDArray, codes: Codes) -> tuple[Floats, Floats]:
    """Return (k,) the number of pairs of each cell with others of its group that have one order in labels and
    predictions, and (k,) the number of pairs with different labels; equal predictions count one half.

    Merging sorted halves counts them: time grows as k·log²(k).

    Parameters
    ----------
    codes : (k,) the group of each cell.
    """
    k = len(truth)
    if not k:
        return np.zeros(0), np.zeros(0)
    rank = np.unique(values, return_inverse=True)[1].astype(np.int64)
    groups = int(codes.max()) + 1
    order = np.lexsort((-rank, truth, codes))
    # Cells of an earlier group lie before all others and have greater values: no pair of two groups has one order.
    ranked = np.unique((rank + (groups - 1 - codes) * (int(rank.max()) + 1))[order], return_inverse=True)[1]
    counted, place = np.zeros(k), np.arange(k)
    width = 1
    while width < k:
        block, is_left = place // (2 * width), place // width % 2 == 0
        # Of equal values the right half comes first: neither lies above the other.
        ascending = np.argsort((block * k + ranked) * 2 + is_left)
        left = is_left[ascending]
        lefts = np.cumsum(left) - block * width  # in the block, up to here
        rights = place - block * 2 * width + 1 - lefts
        in_block = np.bincount(block[~is_left], minlength=int(block[-1]) + 1)[block]
        counted[ascending] += np.where(left, in_block - rights, lefts)
        width *= 2
    concordant = np.empty(k)
    concordant[order] = counted
    same_group = _equal(codes[:, None])
    same_label = _equal(np.stack([codes, truth], axis=1))
    same_value, same_both = _equal(np.stack([codes, rank], axis=1)), _equal(np.stack([codes, truth, rank], axis=1))
    return concordant + 0.5 * (same_value - same_both), (same_group - same_label).astype(np.float64)


def _equal(rows: NDArray) -> NDArray[np.int64]:
    """Return (k,) how many rows of (k, m) are equal to each one, itself included."""
    order = np.lexsort(rows.T[::-1])
    ordered = rows[order]
    new = np.concatenate([[True], (ordered[1:] != ordered[:-1]).any(axis=1)]) if len(rows) else np.zeros(0, bool)
    starts = np.flatnonzero(new)
    counts = np.diff(np.append(starts, len(rows)))
    found = np.empty(len(rows), np.int64)
    found[order] = np.repeat(counts, counts)
    return found


def concordance_index(truth: Floats, values: NDArray) -> float:
    """Return the share of the pairs with different labels whose predictions have one order; nan without a pair.

    Equal predictions count one half (Harrell et al., 1982, without censoring).
    """
    concordant, pairs = concordant_pairs(truth, values, np.zeros(len(truth), np.int64))
    return float(ratio(concordant.sum(), pairs.sum(), np.nan))


def concordance_index_without_each(truth: Floats, values: NDArray, codes: Codes, units: int) -> Floats:
    """Return (units,) `concordance_index` without the cells of each unit, exactly.

    Leaving out a unit removes the pairs of its cells with all others. Pairs within the unit are then removed twice, so
    they are added once.
    """
    everyone = concordant_pairs(truth, values, np.zeros(len(truth), np.int64))
    within = concordant_pairs(truth, values, codes)
    left = [
        one.sum() / 2 - np.bincount(codes, one, units) + np.bincount(codes, own, units) / 2
        for one, own in zip(everyone, within, strict=True)
    ]
    return ratio(left[0], np.round(left[1]), np.nan)


def _error(value: Callable[[Floats], NDArray], of_sums: Callable[[Floats], Floats] = mean_of_sums) -> ColumnScore:
    return ColumnScore(
        REGRESSION, cell_sums=partial(_of_errors, value), of_sums=of_sums, upper_bound=np.inf, keeps_unit=True
    )


def _same(errors: Floats) -> Floats:
    return errors


def _is_within(error: float, errors: Floats) -> NDArray[np.bool_]:
    return errors <= error


def within(error: float) -> ColumnScore:
    """Return the share of predictions that are at most `error` from the number."""
    found = partial(_of_errors, partial(_is_within, error))
    return ColumnScore(REGRESSION, cell_sums=found, of_sums=mean_of_sums, is_share=True, of_decisions=True)


MAE = _error(_same)
MSE = _error(np.square)
RMSE = _error(np.square, _root_of_mean)
MEDIAN_AE = ColumnScore(
    REGRESSION,
    order=OrderScore(median_error, median_error_without_each),
    upper_bound=np.inf,
    keeps_unit=True,
)
R2 = ColumnScore(REGRESSION, cell_sums=_moments, of_sums=_r2_of, lower_bound=-np.inf)
PEARSON = ColumnScore(REGRESSION, cell_sums=_moments, of_sums=_pearson_of, lower_bound=-1.0)
CONCORDANCE = ColumnScore(REGRESSION, cell_sums=_moments, of_sums=_concordance_of, lower_bound=-1.0)
C_INDEX = ColumnScore(REGRESSION, order=OrderScore(concordance_index, concordance_index_without_each))
