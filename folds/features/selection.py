"""Choose the strength of the L2 penalty by inner folds over people, within the training part of a fold only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError
from folds.features.logistic import SELECTION_TOLERANCE, Fit, Floats, Rotation, fit_path
from folds.splits.greedy import fill_empty, stratified_group_kfold
from folds.splits.strata import count_strata
from folds.utils.numeric import factorize

# From "only the frequencies of the classes" to "hardly any penalty", for standardized features.
_PATIENCE = 3  # weaker strengths that are tried after the best one
STRENGTHS = tuple(float(value) for value in np.round(np.logspace(1, -5, 20), 12))


@dataclass(frozen=True)
class Selection:
    """The strengths to try, and the log loss of those that were tried, on people whom the fits had not seen.

    Attributes
    ----------
    inner_losses : mean over the weighted images of all inner folds, for the first strengths.
    folds : number of inner folds.
    """

    strengths: tuple[float, ...]
    inner_losses: tuple[float, ...]
    folds: int

    @property
    def best(self) -> float:
        """Return the strength with the lowest log loss; of equal ones the strongest."""
        return self.strengths[int(np.argmin(self.inner_losses))]

    @property
    def at_edge(self) -> bool:
        """Return whether the weakest of all strengths is the best: a still weaker one could be better."""
        return self.best == self.strengths[-1]

    def record(self) -> dict[str, Any]:
        """Return plain values for done.json."""
        return {"l2": self.best, "inner_folds": self.folds, "inner_log_loss": min(self.inner_losses)}


def inner_folds(persons: NDArray[Any], codes: NDArray[np.int64], k: int, seed: int) -> NDArray[np.int64]:
    """Return (n,) an inner fold for each row: no person is in two, and classes are spread evenly.

    Raises
    ------
    EnsembleError : there is one person only.
    """
    people = factorize(persons)[1]
    count = int(people.max()) + 1
    if count < 2:
        raise EnsembleError(
            "the L2 strength is chosen on other people than those of the fit, and this training part has one person",
            hint="`l2=0.01` sets it",
        )
    k = min(k, count)
    counts = count_strata(people, np.unique(codes, return_inverse=True)[1])
    sizes = counts.sum(1).astype(np.int64)
    fold = fill_empty(stratified_group_kfold(counts, sizes, k, seed % 2**32), sizes, k)
    return fold[people]


def select_strength(
    features: Floats,
    targets: NDArray[np.float64],
    rotation: Rotation,
    fold: NDArray[np.int64],
    strengths: Sequence[float] = STRENGTHS,
) -> Selection:
    """Return the log loss of each strength on the inner folds.

    Parameters
    ----------
    features, targets, rotation : of the training part (`folds.features.logistic.fit_path`).
    fold : (n,) inner fold of each row.
    """
    folds = np.unique(fold)
    held = [np.flatnonzero(fold == one) for one in folds]
    weight = sum(float(targets[rows].sum()) for rows in held)
    paths = []
    for one in folds:
        # All fits share one array of features: rows of weight 0 take no part.
        shares = np.where((fold != one)[:, None], targets, 0.0)
        paths.append(fit_path(features, shares / shares.sum(), rotation.variance, strengths, SELECTION_TOLERANCE))
    losses: list[float] = []
    for fits in zip(*paths, strict=True):
        losses.append(sum(_log_loss(fit, features[rows], targets[rows]) for fit, rows in zip(fits, held)) / weight)
        if len(losses) - int(np.argmin(losses)) > _PATIENCE:
            break
    return Selection(tuple(strengths), tuple(losses), len(folds))


def _log_loss(fit: Fit, features: Floats, targets: NDArray[np.float64]) -> float:
    """Return the weighted sum of the log loss of some rows."""
    outputs = fit.outputs(features)
    outputs -= outputs.max(1, keepdims=True)
    outputs -= np.log(np.exp(outputs).sum(1, keepdims=True))
    # A class that the inner training part lacks is improbable; its rows cost a bounded loss.
    return -float((targets * np.maximum(outputs, -30)).sum())
