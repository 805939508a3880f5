"""Fit heads of several labels or of numbers on a share of the people, for learning curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError
from folds.features.logistic import Floats, fit_path, rotate
from folds.features.ridge import ridge_path, select_ridge
from folds.features.selection import inner_folds, select_strength
from folds.metrics.grouping import columns_by_person
from folds.metrics.task_names import MULTILABEL
from folds.utils.files import derive_seed
from folds.utils.numeric import factorize, sigmoid

_INNER_FOLDS = 3
_QUARTERS, _HALVES = 4, 2  # bins of the only number, and of each of several


def share_of_columns(
    people: NDArray[np.int64], values: NDArray[np.float64], task: str, share: float, seed: int
) -> NDArray[np.int64]:
    """Return the people of a share, drawn so that a smaller share is part of a larger one.

    A share has about the same sets of labels as all people, or the same quarters of a number (halves of several). Two
    people with each label, two without it, and two whose number is known, if there are, are in every share: a head
    needs them to be fitted and to choose its strength.

    Parameters
    ----------
    people : (n,) person of each row.
    values : (n, columns) labels or numbers, nan where one is not known.
    """
    names, codes = np.unique(people, return_inverse=True)
    own = columns_by_person(values, codes, len(names), task)[0]
    stratum = factorize(np.array(["".join(row) for row in _strata(own, task)]))[1]
    random = np.random.default_rng(seed)
    order = random.permutation(len(names))
    rank = np.empty(len(names))
    for one in np.unique(stratum):  # the first people of the order are like all people
        rows = order[stratum[order] == one]
        rank[rows] = (np.arange(len(rows)) + random.uniform()) / len(rows)
    by_rank = np.argsort(rank, kind="stable")
    kept = set(by_rank[: max(2, math.ceil(share * len(names)))].tolist())
    for column in own.T[:, by_rank]:
        needed = (column == 1, column == 0) if task == MULTILABEL else (~np.isnan(column),)
        for mask in needed:
            kept.update(by_rank[np.flatnonzero(mask)[:2]].tolist())
    return np.asarray(names[sorted(kept)], np.int64)


def _strata(values: NDArray[np.float64], task: str) -> NDArray[np.str_]:
    """Return (people, columns) the part of the stratum that each label or number tells; ``?`` if it is not known."""
    found = np.full(values.shape, "?", dtype="<U1")
    bins = _QUARTERS if values.shape[1] == 1 else _HALVES
    for i, column in enumerate(values.T):
        known = ~np.isnan(column)
        if task == MULTILABEL:
            codes = column[known].astype(np.int64)
        elif known.any():
            edges = np.unique(np.quantile(column[known], np.arange(1, bins) / bins))
            codes = np.searchsorted(edges, column[known], side="right")
        else:
            continue
        found[known, i] = codes.astype(str)
    return found


def check_known(values: NDArray[np.float64], names: Sequence[str], what: str) -> None:
    """Raise EnsembleError if a label or number (n, columns) is known of no image of a training part.

    Parameters
    ----------
    what : the training, in the error.
    """
    unknown = np.flatnonzero(np.isnan(values).all(axis=0))
    if len(unknown):
        raise EnsembleError(
            f"{what}: no image of the training part has a known '{names[int(unknown[0])]}'",
            hint="leave this column out, or give it to more people",
        )


def predict_columns(
    features: Floats,
    values: NDArray[np.float64],
    persons: NDArray[np.int64],
    held: Floats,
    task: str,
    seed: int,
) -> NDArray[np.float64]:
    """Return (m, columns) probabilities or numbers of other rows, by heads fitted to some rows.

    Each label has a logistic regression and each number a ridge regression on the rows where it is known, whose
    strength is chosen by inner folds over people.

    Parameters
    ----------
    features, values, persons : (n, d) standardized features, (n, columns) labels or numbers with nan, and (n,) people.
    held : (m, d) features of the other rows, in the same standardization.
    """
    fit = _label_fit(features, held) if task == MULTILABEL else _number_fit(features, held)
    found = np.empty((len(held), values.shape[1]))
    for column in range(values.shape[1]):
        known = np.flatnonzero(~np.isnan(values[:, column]))
        own = values[known, column]
        large = own > (0.5 if task == MULTILABEL else own.mean())
        fold = inner_folds(persons[known], large.astype(np.int64), _INNER_FOLDS, derive_seed(seed, column))
        found[:, column] = fit(known, own, fold)
    return found


_Fit = Callable[[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]], NDArray[np.float64]]


def _label_fit(features: Floats, held: Floats) -> _Fit:
    """Return a function (known rows, labels, inner folds of these) → (m,) probabilities of the held rows."""
    rotated, rotation = rotate(features, np.full(len(features), 1 / len(features)))
    axes = held @ rotation.axes

    def fit(known: NDArray[np.int64], own: NDArray[np.float64], fold: NDArray[np.int64]) -> NDArray[np.float64]:
        targets = np.stack([1 - own, own], axis=1) / len(own)
        best = select_strength(rotated[known], targets, rotation, fold).best
        last = list(fit_path(rotated[known], targets, rotation.variance, [100 * best, 10 * best, best]))[-1]
        outputs = last.outputs(axes)  # the softmax of two outputs is the sigmoid of their difference
        return np.asarray(sigmoid(outputs[:, 1] - outputs[:, 0]), np.float64)

    return fit


def _number_fit(features: Floats, held: Floats) -> _Fit:
    """Return a function (known rows, numbers, inner folds of these) → (m,) numbers of the held rows."""

    def fit(known: NDArray[np.int64], own: NDArray[np.float64], fold: NDArray[np.int64]) -> NDArray[np.float64]:
        center, scale = own.mean(), own.std() or 1.0  # strengths are for numbers in standard deviations
        standard, weights = (own - center) / scale, np.ones(len(own))
        best = select_ridge(features[known], standard, weights, fold).best
        fitted = ridge_path(features[known], standard, weights, [best])[0]
        return center + scale * fitted.predict(held)

    return fit
