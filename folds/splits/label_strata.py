"""Make strata for a split of several labels, which overlap, and of numbers, which are their quantiles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from folds.utils.numeric import factorize

MOST_BINS = 10  # of a number


def label_strata(values: NDArray[np.float64]) -> list[NDArray[np.bool_]]:
    """Return arrays (n,) of the rows with each label, and of those known to be without it.

    Rows without a label are no stratum of their own if they are the larger part of a label which all rows have: their
    share follows from the other one.

    Parameters
    ----------
    values : (n, labels) 0 or 1, nan where a label is not known.
    """
    known, with_label, without = ~np.isnan(values), values == 1, values == 0
    strata = [with_label[:, i] for i in range(values.shape[1])]
    strata += [
        without[:, i]
        for i in range(values.shape[1])
        if not known[:, i].all() or without[:, i].sum() < with_label[:, i].sum()
    ]
    return [rows for rows in strata if rows.any()] or [np.ones(len(values), bool)]


def quantile_bins(values: NDArray[np.floating], persons: NDArray, folds: int) -> NDArray[np.int64]:
    """Return (n,) the bin of each number, as strata for a split: quantiles, 2 to 10 of them, fewer with few people.

    Equal numbers are in one bin. Each bin has about one person a fold, or more.
    """
    people = len(factorize(persons)[0])
    bins = int(np.clip(people // folds, 2, MOST_BINS))
    edges = np.unique(np.quantile(values, np.arange(1, bins) / bins))
    return np.searchsorted(edges, values, side="right").astype(np.int64)


def number_bins(values: NDArray[np.float64], persons: NDArray, folds: int) -> list[NDArray[np.str_]]:
    """Return arrays (n,) of str: for each column of numbers the bin of each row, "" if its number is not known."""
    columns = []
    for column in values.T:
        known = ~np.isnan(column)
        bins = np.full(len(column), "", dtype="<U2")
        if known.any():
            bins[known] = quantile_bins(column[known], persons[known], folds).astype(str)
        columns.append(bins)
    return columns
