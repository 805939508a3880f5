"""Fit ridge regression for a path of strengths, from one eigendecomposition.

The loss is Σ_i w_i·(y_i − x_i·β − b)² + λ/2 · ‖β‖² with weights w that sum to 1; the intercept b is not penalized. With
n rows of weight 1 it is scikit-learn's loss divided by n, so λ = 2·alpha / n.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from folds.features.logistic import Floats
from folds.features.selection import Selection

# From "only the mean" to "hardly any penalty", for standardized features and numbers.
STRENGTHS = tuple(float(value) for value in np.round(np.logspace(3, -5, 27), 12))


@dataclass(frozen=True)
class RidgeFit:
    """A fitted regression: float64 weights (features,), intercept, strength, and mean squared error of its rows."""

    l2: float
    weights: NDArray[np.float64]
    intercept: float
    loss: float

    def predict(self, features: Floats) -> NDArray[np.float64]:
        """Return (n,) the numbers of features (n, features)."""
        return features.astype(np.float64) @ self.weights + self.intercept


def ridge_path(
    features: Floats, values: NDArray[np.float64], weights: NDArray[np.float64], strengths: Sequence[float]
) -> list[RidgeFit]:
    """Return the fit for each strength λ.

    Parameters
    ----------
    features, values : (n, features) and (n,).
    weights : (n,) weight of each row; one of them is above 0.
    """
    used = np.flatnonzero(weights > 0)
    share = weights[used] / weights[used].sum()
    x, y = features[used].astype(np.float64), values[used]
    center, mean = share @ x, float(share @ y)
    root = np.sqrt(share)
    xs, ys = (x - center) * root[:, None], (y - mean) * root
    if xs.shape[1] <= xs.shape[0]:
        variance, axes = np.linalg.eigh(xs.T @ xs)
        along = axes.T @ (xs.T @ ys)
    else:  # the same, in the space of the rows
        variance, own = np.linalg.eigh(xs @ xs.T)
        axes, along = xs.T @ own, own.T @ ys
    variance = np.maximum(variance, 0)
    fits = []
    for strength in strengths:
        beta = axes @ (along / (variance + strength / 2))
        error = xs @ beta - ys
        fits.append(RidgeFit(float(strength), beta, mean - float(center @ beta), float(error @ error)))
    return fits


def select_ridge(
    features: Floats, values: NDArray[np.float64], weights: NDArray[np.float64], fold: NDArray[np.int64]
) -> Selection:
    """Return the mean squared error of each strength on inner folds.

    Parameters
    ----------
    fold : (n,) inner fold of each row; rows of weight 0 take no part.
    """
    losses = np.zeros(len(STRENGTHS))
    folds = [one for one in np.unique(fold) if weights[fold != one].any() and weights[fold == one].any()]
    for one in folds:
        fits = ridge_path(features, values, np.where(fold == one, 0.0, weights), STRENGTHS)
        held = np.flatnonzero((fold == one) & (weights > 0))
        outputs = features[held].astype(np.float64) @ np.stack([fit.weights for fit in fits], axis=1)
        errors = outputs + np.array([fit.intercept for fit in fits]) - values[held, None]
        losses += weights[held] @ errors**2
    total = sum(float(weights[fold == one].sum()) for one in folds)
    return Selection(STRENGTHS, tuple((losses / total).tolist()), len(folds))
