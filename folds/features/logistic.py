"""Fit multinomial logistic regression with an L2 penalty, for a path of strengths, fast.

The loss is Σ_i Σ_c t_ic · −log p_ic + λ/2 · ‖W‖², where the targets t sum to 1 over all images and classes, and the
intercepts are not penalized. With n images of weight 1 it is scikit-learn's loss divided by C·n, so λ = 1 / (C·n); for
two classes, where scikit-learn has one column of weights, λ = 2 / (C·n).

The features are rotated into the axes of their covariance. There the Hessian at p = 1/K is diagonal but for the classes
(Böhning, 1992), which makes a good preconditioner: limited-memory BFGS (Liu and Nocedal, 1989) takes some ten to thirty
iterations instead of hundreds. The line search needs no products with the features: along a direction the outputs are a
straight line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_MEMORY = 10  # pairs of L-BFGS
_MAX_ITERATIONS = 500
_NULL = 1e-9  # relative variance of a direction that only rounding errors make
TOLERANCE = 1e-5  # norm of the preconditioned gradient
SELECTION_TOLERANCE = 3e-4  # where the fit only chooses a strength


@dataclass(frozen=True)
class Rotation:
    """The axes of the covariance of features.

    Attributes
    ----------
    axes : (features, rank) orthonormal columns.
    variance : (rank,) mean square of the features along each axis.
    """

    axes: Floats
    variance: NDArray[np.float64]


def rotate(features: Floats, weights: NDArray[np.float64]) -> tuple[Floats, Rotation]:
    """Return (n, rank) the features in the axes of their second moments, and the axes.

    Directions in which all features are 0 are left out: the penalty keeps their weights at 0.

    Parameters
    ----------
    features : (n, d) standardized features.
    weights : (n,) weight of each row; they sum to 1.
    """
    n, d = features.shape
    root = np.sqrt(weights).astype(np.float32)[:, None]
    weighted = features * root
    if d <= n:
        values, vectors = np.linalg.eigh((weighted.T @ weighted).astype(np.float64))
    else:
        values, left = np.linalg.eigh((weighted @ weighted.T).astype(np.float64))
    values, keep = np.maximum(values, 0), values > _NULL * max(float(values[-1]), 1e-30)
    if d > n:
        kept = weighted.T.astype(np.float64) @ left[:, keep]
        vectors, values, keep = kept / np.sqrt(values[keep]), values[keep], np.ones(int(keep.sum()), bool)
    axes = np.ascontiguousarray(vectors[:, keep], np.float32)
    return features @ axes, Rotation(axes, values[keep])


@dataclass(frozen=True)
class Fit:
    """A fitted model.

    Attributes
    ----------
    weights : (rank, classes) in the axes of the rotation.
    intercepts : (classes,).
    loss : mean cross-entropy of the training rows, without the penalty.
    iterations : number of iterations; converged: whether the tolerance was reached.
    """

    l2: float
    weights: NDArray[np.float64]
    intercepts: NDArray[np.float64]
    loss: float
    iterations: int
    converged: bool

    def outputs(self, features: Floats) -> NDArray[np.float64]:
        """Return (n, classes) logits of rotated features."""
        return (features @ self.weights.astype(np.float32)).astype(np.float64) + self.intercepts


def fit_path(
    features: Floats,
    targets: NDArray[np.float64],
    variance: NDArray[np.float64],
    strengths: Sequence[float],
    tolerance: float = TOLERANCE,
) -> Iterator[Fit]:
    """Yield the fit for each strength λ; each starts from the one before, so the strongest should be first.

    Parameters
    ----------
    features : (n, rank) rotated features.
    targets : (n, classes) shares of each row in each class; all together sum to 1.
    variance : (rank,) of the axes.
    """
    share = targets.sum(0)
    start = np.zeros((features.shape[1] + 1, targets.shape[1]))
    # A class without rows gets, and keeps, the frequency of half a row: its optimum would be minus infinity.
    start[-1] = np.log(np.maximum(share, 0.5 / len(targets)))
    start[-1] -= start[-1].mean()
    problem = _Problem(features, targets)
    for strength in strengths:
        start, loss, iterations, converged = _minimize(problem, variance, float(strength), start, tolerance)
        yield Fit(float(strength), start[:-1].copy(), start[-1].copy(), loss, iterations, converged)


class _Problem:
    """The features and targets of a fit, and buffers."""

    def __init__(self, features: Floats, targets: NDArray[np.float64]) -> None:
        self.features, self.targets = features, targets.astype(np.float32)
        self.rows = self.targets.sum(1, keepdims=True)
        self.absent = targets.sum(0) <= 0

    def outputs(self, weights: NDArray[np.float64]) -> Floats:
        out: Floats = self.features @ weights[:-1].astype(np.float32)
        out += weights[-1].astype(np.float32)
        return out

    def loss(self, outputs: Floats) -> tuple[float, Floats]:
        """Return the cross-entropy and (n, classes) its derivative by the outputs."""
        top = outputs.max(1, keepdims=True)
        shifted = outputs - top
        exponents = np.exp(shifted)
        total = exponents.sum(1, keepdims=True)
        losses = self.rows * np.log(total) - (self.targets * shifted).sum(1, keepdims=True)
        exponents *= self.rows / total
        exponents -= self.targets
        return float(losses.sum(dtype=np.float64)), exponents

    def gradient(self, residual: Floats) -> NDArray[np.float64]:
        out = np.empty((self.features.shape[1] + 1, residual.shape[1]))
        out[:-1] = self.features.T @ residual
        out[-1] = residual.sum(0, dtype=np.float64)
        out[-1][self.absent] = 0
        return out


def _minimize(
    problem: _Problem, variance: NDArray[np.float64], strength: float, start: NDArray[np.float64], tolerance: float
) -> tuple[NDArray[np.float64], float, int, bool]:
    """Return the weights, the loss without the penalty, the number of iterations, and whether it converged."""
    classes = start.shape[1]
    # One variable is the weight divided by its scale: then the Hessian is close to the identity.
    scale = 1 / np.sqrt(np.append(variance / classes + strength, 1 / classes))[:, None]
    penalty = np.append(np.full(len(variance), strength), 0.0)[:, None]
    weights, outputs = start, problem.outputs(start)
    loss, residual = problem.loss(outputs)
    gradient = (problem.gradient(residual) + penalty * weights) * scale
    pairs: list[tuple[NDArray[np.float64], NDArray[np.float64], float]] = []
    for iteration in range(_MAX_ITERATIONS):
        norm = float(np.sqrt((gradient * gradient).sum()))
        if norm <= tolerance:
            return weights, loss, iteration, True
        direction = _direction(gradient, pairs) * scale
        step, loss, residual, outputs = _search(problem, weights, direction, penalty, outputs, gradient, scale)
        if step == 0:
            if not pairs:  # the numbers are exhausted: rounding decides the last digits
                return weights, loss, iteration, norm <= 100 * tolerance
            pairs.clear()
            continue
        before, weights = gradient, weights + step * direction
        gradient = (problem.gradient(residual) + penalty * weights) * scale
        moved, turned = step * direction / scale, gradient - before
        curvature = float((moved * turned).sum())
        if curvature > 1e-12 * float((turned * turned).sum()):
            pairs = [*pairs[-_MEMORY + 1 :], (moved, turned, 1 / curvature)]
    return weights, loss, _MAX_ITERATIONS, False


def _direction(
    gradient: NDArray[np.float64], pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64], float]]
) -> NDArray[np.float64]:
    """Return the direction of L-BFGS, by its two loops."""
    direction, factors = -gradient, []
    for moved, turned, rho in reversed(pairs):
        factor = rho * float((moved * direction).sum())
        direction = direction - factor * turned
        factors.append(factor)
    if pairs:
        _, turned, rho = pairs[-1]
        direction = direction / (rho * float((turned * turned).sum()))
    for (moved, turned, rho), factor in zip(pairs, reversed(factors), strict=True):
        direction = direction + moved * (factor - rho * float((turned * direction).sum()))
    return direction


def _search(
    problem: _Problem,
    weights: NDArray[np.float64],
    direction: NDArray[np.float64],
    penalty: NDArray[np.float64],
    outputs: Floats,
    gradient: NDArray[np.float64],
    scale: NDArray[np.float64],
) -> tuple[float, float, Floats, Floats]:
    """Return a step, and the loss, its derivative and the outputs there; a step of 0 if none reduces the loss.

    The derivative along the direction must fall to less than half of its start (a strong condition of Wolfe).
    """
    along = problem.outputs(direction)
    linear, square = float((penalty * weights * direction).sum()), float((penalty * direction * direction).sum())
    slope0 = float((gradient * direction / scale).sum())
    loss0, residual0 = problem.loss(outputs)
    low, high, step = 0.0, np.inf, 1.0
    for _ in range(25):
        tried = outputs + np.float32(step) * along
        loss, residual = problem.loss(tried)
        slope = float((residual * along).sum(dtype=np.float64)) + linear + step * square
        change = loss - loss0 + step * linear + step * step * square / 2
        if change <= 1e-4 * step * slope0 + 1e-9 * abs(loss0) and abs(slope) <= 0.5 * abs(slope0):
            return step, loss, residual, tried
        if slope < 0 and change <= 1e-4 * step * slope0 + 1e-9 * abs(loss0):
            low = step
        else:
            high = step
        # The slope is nearly a straight line in the step.
        secant = step * slope0 / (slope0 - slope) if slope != slope0 else 2 * step
        step = (
            min(max(secant, 1.1 * low), 10 * max(low, step))
            if high == np.inf
            else min(max(secant, low + 0.1 * (high - low)), high - 0.1 * (high - low))
        )
    return 0.0, loss0, residual0, outputs
