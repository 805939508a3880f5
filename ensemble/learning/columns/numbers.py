"""Fit combinations of runs that predict numbers: least squares with weights of at least 0, and a linear model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.columns.combination import ColumnCombination
from ensemble.learning.columns.stack import ColumnStack
from ensemble.learning.combination import Combination
from ensemble.learning.nested import held_out
from ensemble.learning.stack import Stack
from ensemble.learning.weights import describe_shares
from folds.metrics.classification import Metric

Floats = NDArray[np.float64]
# L2 penalties towards the mean of the runs, strongest first, times the variance of the true numbers.
STRENGTHS = (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1)


def nnls_numbers(stack: Stack, metric: Metric, seed: int = 0) -> Combination:
    """Return coefficients ≥ 0 of each number with the smallest squared error; their sum is free, so they also scale."""
    return _fit_each(stack, _nnls, "coefficients")


def simplex_numbers(stack: Stack, metric: Metric, seed: int = 0) -> Combination:
    """Return weights ≥ 0 with sum 1 of each number with the smallest squared error of the weighted mean."""
    return _fit_each(stack, _simplex, "weights")


def stacking_numbers(stack: Stack, metric: Metric, seed: int = 0) -> Combination:
    """Return a linear model of each number: coefficients and an intercept, penalized towards the mean of the runs.

    Σ squared errors + strength · variance · Σ (coefficient − 1/runs)². The strength of `STRENGTHS` with the smallest
    squared error on held-out people is used; the mean of the runs with an intercept of 0 is one of the choices.
    """
    columns = _columns(stack)
    linear, intercept = np.zeros((stack.runs, columns.classes)), np.zeros(columns.classes)
    chosen = []
    for column in range(columns.classes):
        strength = _strength(columns, column)
        chosen.append("the mean" if strength is None else f"strength {strength:g}")
        linear[:, column], intercept[column] = ridge(*_known(columns, column), strength)
    summary = ", ".join(
        f"{name}: {text}" if columns.classes > 1 else text
        for name, text in list(zip(columns.columns, chosen, strict=True))[:4]
    )
    return ColumnCombination(
        stack.names, summary=summary, task=columns.task, columns=columns.columns, linear=linear, intercept=intercept
    )


def _columns(stack: Stack) -> ColumnStack:
    assert isinstance(stack, ColumnStack)  # noqa: S101 - the methods of columns are fitted to columns
    return stack


def _fit_each(stack: Stack, fit: Callable[[Floats, Floats], Floats], what: str) -> ColumnCombination:
    columns = _columns(stack)
    linear = np.full((stack.runs, columns.classes), 1 / stack.runs)
    for column in range(columns.classes):
        values, truth = _known(columns, column)
        if len(truth):
            linear[:, column] = fit(values, truth)
    mean = linear.mean(axis=1)
    summary = f"{what} {describe_shares(stack.names, mean)}" if mean.sum() > 0 else f"{what} 0"
    if what == "coefficients":
        summary += f", sum {linear.sum(axis=0).mean():.3g}"
    return ColumnCombination(stack.names, summary=summary, task=columns.task, columns=columns.columns, linear=linear)


def _known(stack: ColumnStack, column: int) -> tuple[Floats, Floats]:
    """Return (runs, m) the runs' numbers where the true one is known, and (m,) these."""
    rows = stack.known_rows(column)
    return stack.filled(column)[:, rows], stack.labels[rows, column]


def _nnls(values: Floats, truth: Floats) -> Floats:
    return _least_squares(values.T, truth)


def _simplex(values: Floats, truth: Floats) -> Floats:
    """Return the weights: those of least squares on the errors of the runs with a further row of ones for a 1.

    With weights that sum to 1, the error of the mean is the mean of the errors E. For weights s·w with Σ w = 1, the sum
    s²·|Ew|² + (s − 1)² is smallest at s = 1 / (1 + |Ew|²), where it grows with |Ew|²: so w minimizes |Ew|² exactly.
    """
    errors = (values - truth).T
    scale = float(np.sqrt(np.square(errors).mean())) or 1.0
    rows = np.vstack([errors / (scale * np.sqrt(len(truth))), np.ones(errors.shape[1])])
    target = np.zeros(len(rows))
    target[-1] = 1
    weights = _least_squares(rows, target)
    return weights / weights.sum() if weights.sum() > 0 else np.full(len(values), 1 / len(values))


def _least_squares(matrix: Floats, target: Floats) -> Floats:
    """Return x ≥ 0 with the smallest |matrix·x − target|, by Lawson and Hanson's active set (1974)."""
    from scipy.optimize import nnls

    # The triangle of the QR decomposition has the same solution in as many rows as there are runs.
    if len(matrix) > matrix.shape[1] + 1:
        triangle: Floats = np.asarray(np.linalg.qr(np.column_stack([matrix, target]), mode="r"))
        matrix, target = triangle[:, :-1], triangle[:, -1]
    return np.asarray(nnls(matrix, target)[0], np.float64)


def _strength(stack: ColumnStack, column: int) -> float | None:
    """Return the strength with the smallest squared error on held-out people; None for the mean of the runs."""
    choices: tuple[float | None, ...] = (None, *STRENGTHS)
    losses = np.zeros(len(choices))
    for test_rows, fit_rows in held_out(stack):
        values, truth = _known(stack.take(test_rows), column)
        fitted = _known(stack.take(fit_rows), column)
        if not len(truth) or not len(fitted[1]):
            continue
        for i, choice in enumerate(choices):
            coefficients, intercept = ridge(*fitted, choice)
            losses[i] += np.square(coefficients @ values + intercept - truth).sum()
    return choices[int(np.argmin(losses))]


def ridge(values: Floats, truth: Floats, strength: float | None, start: Floats | None = None) -> tuple[Floats, float]:
    """Return coefficients and intercept, penalized towards a start; the start itself for None.

    Parameters
    ----------
    values : (inputs, m).
    truth : (m,) the true numbers.
    strength : of the penalty, times the variance of the true numbers.
    start : (inputs,) coefficients; None for the mean of the inputs.
    """
    runs = len(values)
    mean = np.full(runs, 1 / runs) if start is None else start
    if strength is None or not len(truth):
        return mean, 0.0
    centers, center = values.mean(axis=1), truth.mean()
    inside, rest = values - centers[:, None], truth - center
    penalty = strength * (float(rest.var()) or 1.0)
    gram = inside @ inside.T + penalty * np.eye(runs)
    coefficients = np.linalg.solve(gram, inside @ rest + penalty * mean)
    return coefficients, float(center - coefficients @ centers)
