"""Fit weights of the runs for each class, penalized towards weights shared by all classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.combination import Combination
from ensemble.learning.nested import held_out
from ensemble.learning.stack import Stack
from ensemble.learning.weights import describe_shares, simplex_weights, true_class
from ensemble.voting.base import FLOOR
from folds.metrics.classification import Metric

# L2 penalties towards the shared weights, strongest first: Σ log loss + strength/2 · Σ (log weight − log shared
# weight)². Below 10, the weights correct the class frequencies: the log loss decreases, but so does macro F1 on new
# people. Calibration and a class bias correct frequencies better.
STRENGTHS = (1000.0, 100.0, 30.0, 10.0)
# Fraction of equal weights that is mixed into the shared simplex weights: a weight of 0 has no logarithm.
EQUAL = 0.1
_STEPS = 200
# Tolerance of the loss: of the final weights, and of fits that only select a strength or a starting point.
_EXACT, _ON_THE_WAY = 1e-9, 1e-5


def per_class(stack: Stack, metric: Metric, seed: int = 0) -> Combination:
    """Return weights (runs, classes) of the arithmetic mean with the smallest log loss, close to shared weights.

    The penalty does not grow with the number of samples, so classes with few labels keep weights near the shared ones.
    The strength of `STRENGTHS` with the smallest log loss on held-out people is used; shared weights for all classes
    are one of the choices. The loss is not convex: the fit starts at the shared weights and continues from strength to
    strength.

    Raises
    ------
    EnsembleError : the predictions do not fit into memory.
    """
    stack.check_memory(2, "weights for each class")
    values = stack.probabilities.transpose(2, 0, 1).astype(np.float64)  # contiguous for each class
    present = None if stack.present is None else stack.present.astype(np.float64)
    losses = np.zeros(len(STRENGTHS) + 1)
    for test_rows, fit_rows in held_out(stack):
        fit_data, test_data = (
            (values[:, :, rows], None if present is None else present[:, rows], stack.labels[rows])
            for rows in (fit_rows, test_rows)
        )
        shared, log_ratios = _shared(stack.take(fit_rows)), np.zeros((stack.runs, stack.classes))
        losses[0] += _loss(log_ratios, shared, *test_data)[0]
        for i, strength in enumerate(STRENGTHS, start=1):
            log_ratios = _fit_penalized(log_ratios, shared, *fit_data, strength, _ON_THE_WAY)
            losses[i] += _loss(log_ratios, shared, *test_data)[0]
    chosen, shared = int(np.argmin(losses)), _shared(stack)
    log_ratios = np.zeros((stack.runs, stack.classes))
    for strength in STRENGTHS[:chosen]:
        log_ratios = _fit_penalized(
            log_ratios,
            shared,
            values,
            present,
            stack.labels,
            strength,
            _EXACT if strength == STRENGTHS[chosen - 1] else _ON_THE_WAY,
        )
    weights = _weights(log_ratios, shared)
    penalty = f"strength {STRENGTHS[chosen - 1]:g}" if chosen else "the same for all classes"
    return Combination(
        stack.names,
        weights=weights,
        summary=f"{penalty}; mean weights {describe_shares(stack.names, weights.mean(axis=1))}",
    )


def _shared(stack: Stack) -> NDArray[np.float64]:
    return (1 - EQUAL) * simplex_weights(true_class(stack), stack.present) + EQUAL / stack.runs


def _weights(log_ratios: NDArray[np.float64], shared: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (runs, classes) weights that sum to 1 over the runs, from log ratios to the shared weights."""
    weights = shared[:, None] * np.exp(log_ratios - log_ratios.max(axis=0))
    return weights / weights.sum(axis=0)


def _loss(
    log_ratios: NDArray[np.float64],
    shared: NDArray[np.float64],
    values: NDArray[np.float64],
    present: NDArray[np.float64] | None,
    labels: NDArray[np.int64],
) -> tuple[float, NDArray[np.float64]]:
    """Return Σ log loss of the pooled values (classes, runs, n), as `Combination.apply` pools, and its gradient."""
    weights, rows = _weights(log_ratios, shared), np.arange(len(labels))
    pooled = np.matmul(weights.T[:, None], values)[:, 0]  # (classes, n)
    presence = 1.0 if present is None else weights.T @ present
    pooled = np.maximum(pooled / presence, FLOOR)
    total, true = pooled.sum(axis=0), pooled[labels, rows]
    slope = np.repeat(1 / total[None], len(pooled), axis=0)
    slope[labels, rows] -= 1 / true
    slope /= presence
    numerator_gradient = np.matmul(values, slope[:, :, None])[:, :, 0].T
    denominator_gradient = (slope * pooled).sum(axis=1) if present is None else present @ (slope * pooled).T
    return float(np.log(total).sum() - np.log(true).sum()), weights * (numerator_gradient - denominator_gradient)


def _fit_penalized(
    log_ratios: NDArray[np.float64],
    shared: NDArray[np.float64],
    values: NDArray[np.float64],
    present: NDArray[np.float64] | None,
    labels: NDArray[np.int64],
    strength: float,
    tolerance: float = _EXACT,
) -> NDArray[np.float64]:
    from scipy.optimize import minimize

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        current = flat.reshape(log_ratios.shape)
        value, slope = _loss(current, shared, values, present, labels)
        return value + strength / 2 * float((current**2).sum()), (slope + strength * current).ravel()

    limits = {"maxiter": _STEPS, "gtol": 1e-3, "ftol": tolerance}
    return minimize(loss, log_ratios.ravel(), jac=True, method="L-BFGS-B", options=limits).x.reshape(log_ratios.shape)
