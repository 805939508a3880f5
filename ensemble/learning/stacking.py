"""Fit stacking: multinomial logistic regression on the runs' log probabilities, regularized to the geometric mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.combination import Combination, features
from ensemble.learning.nested import held_out
from ensemble.learning.stack import Stack
from folds.metrics.classification import Metric

STRUCTURES = ("own class", "all classes")
# L2 penalties towards the geometric mean, strongest first: Σ log loss + strength/2 · (runs · Σ Δ² + Σ intercept²).
STRENGTHS = (1000.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03)
# The path stops at a strength whose log loss per sample exceeds the best one so far by more than this.
_WORSE = 0.01
# Mean curvature p(1 − p) of the log loss for one logit; it affects only the speed.
_CURVATURE = 0.05
_STEPS = 200
# Tolerance of the loss for fits that only select a strength or a starting point.
_ROUGH_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Rotated:
    """The features, rotated so that their Gram matrix is diagonal, which makes fits fast at any strength.

    Attributes
    ----------
    values : (blocks, n, size) features of each class in the basis of the eigenvectors of their Gram matrix; one block
        if all classes have the same features. The intercept is a feature with the value √runs.
    vectors : (blocks, features + 1, size) eigenvectors.
    eigenvalues : (blocks, size).
    runs, classes : numbers of runs and classes.
    """

    values: NDArray[np.float64]
    vectors: NDArray[np.float64]
    eigenvalues: NDArray[np.float64]
    runs: int
    classes: int

    @property
    def start(self) -> NDArray[np.float64]:
        """Return (size, classes) zero coefficients."""
        return np.zeros((self.values.shape[2], self.classes))

    def logits(self, coefs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n, classes) the contribution of coefficients (size, classes) to the logits."""
        if len(self.values) == 1:
            return self.values[0] @ coefs
        return np.matmul(self.values, coefs.T[:, :, None])[:, :, 0].T

    def gradient(self, residuals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (size, classes) the products of the features with residuals (n, classes)."""
        if len(self.values) == 1:
            return self.values[0].T @ residuals
        return np.matmul(residuals.T[:, None, :], self.values)[:, 0].T


def stacking(stack: Stack, metric: Metric, seed: int = 0) -> Combination:
    """Return a combination with logits Σ over runs of coefficients · log p + intercept.

    First, the logit of each class depends on the same class of every run. Then, if there are at least as many samples
    as coefficients (runs · classes²), a second fit on top of the first uses all classes. Each of the two strengths is
    the one with the smallest log loss on held-out people. Infinite strength, which is the geometric mean for the first
    fit, is one of the choices.

    Raises
    ------
    EnsembleError : the predictions do not fit into memory.
    """
    stack.check_memory(4, "stacking")
    logs = _features(stack)
    parts = held_out(stack)
    vote = logs.reshape(len(stack), stack.runs, -1).mean(axis=1)
    bases, base = [vote] * len(parts), vote
    stacked = np.zeros((stack.runs * stack.classes + 1, stack.classes))
    stacked[:-1] = np.tile(np.eye(stack.classes) / stack.runs, (stack.runs, 1))
    notes = []
    for structure in STRUCTURES:
        if not parts or (structure == "all classes" and len(stack) < stack.runs * stack.classes**2):
            break
        rotation = rotate_features(logs, stack.runs, structure)
        chosen, bases = _path(rotation, bases, stack.labels, parts)
        coefs = rotation.start
        for strength in STRENGTHS[:chosen]:
            coefs = fit(
                rotation,
                base,
                stack.labels,
                strength,
                coefs,
                tolerance=1e-10 if strength == STRENGTHS[chosen - 1] else _ROUGH_TOLERANCE,
            )
        base = base + rotation.logits(coefs)
        stacked += coefficients(rotation, coefs)
        notes += [f"{structure}, strength {STRENGTHS[chosen - 1]:g}"] if chosen else []
    return Combination(
        stack.names, pool="geometric", stacked=stacked, summary="; ".join(notes) or "geometric mean, nothing fitted"
    )


def rotate_features(logs: NDArray[np.float64], runs: int, structure: str) -> Rotated:
    """Return the features (n, runs × classes) of one of `STRUCTURES`, rotated."""
    n, classes = len(logs), logs.shape[1] // runs
    blocks = logs[None] if structure == "all classes" else logs.reshape(n, runs, classes).transpose(2, 0, 1)
    blocks = np.concatenate([blocks, np.full((len(blocks), n, 1), runs**0.5)], axis=2)
    eigenvalues, vectors = np.linalg.eigh(np.matmul(blocks.transpose(0, 2, 1), blocks))
    return Rotated(np.matmul(blocks, vectors), vectors, np.maximum(eigenvalues, 0), runs, classes)


def fit(
    rotation: Rotated,
    base: NDArray[np.float64],
    labels: NDArray[np.int64],
    strength: float,
    coefs: NDArray[np.float64],
    fit_mask: NDArray[np.bool_] | None = None,
    tolerance: float = 1e-10,
) -> NDArray[np.float64]:
    """Return (size, classes) coefficients that minimize Σ log loss + strength/2 · (runs · Σ Δ² + Σ intercept²); L-BFGS.

    Parameters
    ----------
    base : (n, classes) logits to which the features' contribution is added.
    coefs : starting point.
    fit_mask : (n,) the rows to fit on; None for all.
    tolerance : the fit stops when a step lowers the loss by less than this fraction.
    """
    from scipy.optimize import minimize

    rows = np.arange(len(labels))
    penalty = strength * rotation.runs
    # Scaled by these, the curvature is about equal in every direction.
    scale = 1 / np.sqrt(_CURVATURE * rotation.eigenvalues + penalty)
    scale = scale.T if len(scale) > 1 else scale[0][:, None]

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        current = flat.reshape(coefs.shape) * scale
        logits = base + rotation.logits(current)
        logits -= logits.max(axis=1, keepdims=True)
        true = logits[rows, labels]
        residuals = np.exp(logits, out=logits)
        total = residuals.sum(axis=1)
        losses = np.log(total) - true
        residuals /= total[:, None]
        residuals[rows, labels] -= 1
        if fit_mask is not None:
            losses, residuals = losses[fit_mask], residuals * fit_mask[:, None]
        gradient = rotation.gradient(residuals) + penalty * current
        return float(losses.sum() + penalty / 2 * (current**2).sum()), (gradient * scale).ravel()

    solver_options = {"maxiter": _STEPS, "ftol": tolerance, "gtol": 1e-6, "maxcor": 15}
    return (
        minimize(loss, (coefs / scale).ravel(), jac=True, method="L-BFGS-B", options=solver_options).x.reshape(
            coefs.shape
        )
        * scale
    )


def coefficients(rotation: Rotated, coefs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (runs × classes + 1, classes) the contribution of coefficients to `Combination.stacked`."""
    classes, runs = rotation.classes, rotation.runs
    stacked = np.zeros((runs * classes + 1, classes))
    if len(rotation.vectors) == 1 and classes > 1:
        stacked[:] = rotation.vectors[0] @ coefs
        stacked[-1] *= runs**0.5
    else:
        own = np.matmul(rotation.vectors, coefs.T[:, :, None])[:, :, 0]  # (classes, runs + 1)
        for c in range(classes):
            stacked[c:-1:classes, c] = own[c, :-1]
        stacked[-1] = own[:, -1] * runs**0.5
    return stacked


def _path(
    rotation: Rotated,
    bases: list[NDArray[np.float64]],
    labels: NDArray[np.int64],
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64]]],
) -> tuple[int, list[NDArray[np.float64]]]:
    """Return the number of strengths to use, by log loss on held-out people, and the logits without each part."""
    current = [rotation.start for _ in parts]
    best, lowest, logits = (
        0,
        sum(_total_loss(base[test_rows], labels[test_rows]) for base, (test_rows, _) in zip(bases, parts)),
        bases,
    )
    for step, strength in enumerate(STRENGTHS, start=1):
        for i, (test_rows, _) in enumerate(parts):
            fit_mask = np.ones(len(labels), bool)
            fit_mask[test_rows] = False
            current[i] = fit(rotation, bases[i], labels, strength, current[i], fit_mask, tolerance=_ROUGH_TOLERANCE)
        shifted = [base + rotation.logits(coefs) for base, coefs in zip(bases, current)]
        loss = sum(_total_loss(values[test_rows], labels[test_rows]) for values, (test_rows, _) in zip(shifted, parts))
        if loss < lowest:
            best, lowest, logits = step, loss, shifted
        elif loss > lowest + _WORSE * len(labels):
            break
    return best, logits


def _total_loss(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    top = logits.max(axis=1)
    return float(
        (np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top - logits[np.arange(len(labels)), labels]).sum()
    )


def _features(stack: Stack) -> NDArray[np.float64]:
    """Return (n, runs × classes) log p as in `Combination.apply`."""
    return np.concatenate([features(ballots.probabilities, ballots.weights > 0) for _, ballots in stack.ballots()])
