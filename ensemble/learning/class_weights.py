"""Weights of the runs for each class, held to weights that all classes share as far as held-out people ask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.combination import Combination
from ensemble.learning.nested import held_out
from ensemble.learning.stack import Stack
from ensemble.learning.weights import simplex_weights, told, true_class
from ensemble.voting.base import FLOOR
from folds.metrics.classification import Metric

# How hard log weights are held to the shared ones, from the strongest: Σ log loss + strength/2 · Σ (log weight − log
# shared weight)².
# Below 10 they turn into a correction of how frequent the classes are: log loss falls, and so does macro F1 on new
# people; calibration and a
# class bias do that better.
STRENGTHS = (1000.0, 100.0, 30.0, 10.0)
# The shared weights are of the simplex, and so much of equal ones: a weight of 0 has no logarithm to be held to.
EQUAL = 0.1
_STEPS = 200
# Of the loss: of the weights that are given, and where it is only to be seen which strength is better, or where to
# begin.
_EXACT, _ON_THE_WAY = 1e-9, 1e-5


def per_class(stack: Stack, metric: Metric, seed: int = 0) -> Combination:
    """Weights (runs, classes) of the arithmetic mean with the least log loss, held to shared ones.

    The penalty does not grow with the samples, so a class moves as far as its labels carry it, and one without hardly.
    The strength is the one of `STRENGTHS` with the least log loss on held-out people; no weights of its own for any
    class
    are among the choices. Not convex: it begins at the shared weights and goes down from one strength to the next.

    Raises
    ------
    EnsembleError : it does not fit into memory.
    """
    stack.check_memory(2, "weights for each class")
    values = stack.probabilities.transpose(2, 0, 1).astype(np.float64)  # a class's are one block
    there = None if stack.present is None else stack.present.astype(np.float64)
    losses = np.zeros(len(STRENGTHS) + 1)
    for inside, outside in held_out(stack):
        learnt, scored = (
            (values[:, :, rows], None if there is None else there[:, rows], stack.labels[rows])
            for rows in (outside, inside)
        )
        shared, at = _shared(stack.take(outside)), np.zeros((stack.runs, stack.classes))
        losses[0] += _loss(at, shared, *scored)[0]
        for i, strength in enumerate(STRENGTHS, start=1):
            at = _fitted(at, shared, *learnt, strength, _ON_THE_WAY)
            losses[i] += _loss(at, shared, *scored)[0]
    chosen, shared = int(np.argmin(losses)), _shared(stack)
    at = np.zeros((stack.runs, stack.classes))
    for strength in STRENGTHS[:chosen]:
        at = _fitted(
            at,
            shared,
            values,
            there,
            stack.labels,
            strength,
            _EXACT if strength == STRENGTHS[chosen - 1] else _ON_THE_WAY,
        )
    weights = _weights(at, shared)
    how = f"strength {STRENGTHS[chosen - 1]:g}" if chosen else "the same for all classes"
    return Combination(
        stack.names, weights=weights, summary=f"{how}; on the mean {told(stack.names, weights.mean(axis=1))}"
    )


def _shared(stack: Stack) -> NDArray[np.float64]:
    return (1 - EQUAL) * simplex_weights(true_class(stack), stack.present) + EQUAL / stack.runs


def _weights(at: NDArray[np.float64], shared: NDArray[np.float64]) -> NDArray[np.float64]:
    """(runs, classes) that sum to 1 over the runs, of their logarithms' distance to the shared ones."""
    weights = shared[:, None] * np.exp(at - at.max(axis=0))
    return weights / weights.sum(axis=0)


def _loss(
    at: NDArray[np.float64],
    shared: NDArray[np.float64],
    values: NDArray[np.float64],
    there: NDArray[np.float64] | None,
    labels: NDArray[np.int64],
) -> tuple[float, NDArray[np.float64]]:
    """Σ log loss of the pool that `Combination.apply` makes of values (classes, runs, n), and its slope (runs,
    classes).
    """
    weights, rows = _weights(at, shared), np.arange(len(labels))
    pooled = np.matmul(weights.T[:, None], values)[:, 0]  # (classes, n)
    present = 1.0 if there is None else weights.T @ there
    pooled = np.maximum(pooled / present, FLOOR)
    total, true = pooled.sum(axis=0), pooled[labels, rows]
    slope = np.repeat(1 / total[None], len(pooled), axis=0)
    slope[labels, rows] -= 1 / true
    slope /= present
    up = np.matmul(values, slope[:, :, None])[:, :, 0].T
    down = (slope * pooled).sum(axis=1) if there is None else there @ (slope * pooled).T
    return float(np.log(total).sum() - np.log(true).sum()), weights * (up - down)


def _fitted(
    at: NDArray[np.float64],
    shared: NDArray[np.float64],
    values: NDArray[np.float64],
    there: NDArray[np.float64] | None,
    labels: NDArray[np.int64],
    strength: float,
    tolerance: float = _EXACT,
) -> NDArray[np.float64]:
    from scipy.optimize import minimize

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        now = flat.reshape(at.shape)
        value, slope = _loss(now, shared, values, there, labels)
        return value + strength / 2 * float((now**2).sum()), (slope + strength * now).ravel()

    limits = {"maxiter": _STEPS, "gtol": 1e-3, "ftol": tolerance}
    return minimize(loss, at.ravel(), jac=True, method="L-BFGS-B", options=limits).x.reshape(at.shape)
