"""Fit weights of the runs: best single run, greedy selection, simplex, or one parameter."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.combination import Combination
from ensemble.learning.greedy import select
from ensemble.learning.stack import Stack
from ensemble.voting.base import FLOOR
from folds.metrics.classification import Metric

STEPS = 100
BAGS = 20
WARM = 5
# Smaller shares of the weight count as 0.
MIN_SHARE = 1e-6
_EM_STEPS = 300


def best_single(stack: Stack, metric: Metric, seed: int = 0) -> Combination:
    """Return all weight on the run with the best score; among equal scores, on the first run by name.

    Runs are compared on the samples that all runs predict. If these are fewer than half, each run is scored on its own
    samples.
    """
    present_rows = np.ones((stack.runs, len(stack)), bool) if stack.present is None else stack.present
    by_all = present_rows.all(axis=0)
    scores = np.full(stack.runs, -np.inf)
    for i in range(stack.runs):
        rows = np.flatnonzero(by_all if 2 * by_all.sum() >= len(stack) else present_rows[i])
        score = metric(stack.labels[rows], stack.probabilities[i, rows]) if len(rows) else np.nan
        if not np.isnan(score):
            scores[i] = score if metric.greater_is_better else -score
    weights = np.zeros(stack.runs)
    weights[int(np.argmax(scores))] = 1
    return Combination(stack.names, weights=weights, summary=f"weights {describe_shares(stack.names, weights)}")


def greedy(*, bags: int = 0, warm: int = 0) -> Callable[[Stack, Metric, int], Combination]:
    """Return a fit by greedy selection with replacement for the arithmetic mean (Caruana et al., ICML 2004).

    Parameters
    ----------
    bags : number of averaged selections, each from a random half of the runs (section 2.3); 0 for one from all runs.
    warm : number of best single runs that the selection starts with (section 2.2).
    """
    return partial(_greedy, bags, warm)  # not a closure, which could not be pickled


def _greedy(bags: int, warm: int, stack: Stack, metric: Metric, seed: int = 0) -> Combination:
    result = select(
        stack.probabilities,
        stack.labels,
        metric,
        steps=STEPS,
        present=stack.present,
        bags=bags,
        warm=min(warm, stack.runs),
        seed=seed,
    )
    weights = np.asarray(result.weights, float)
    return Combination(
        stack.names, weights=weights / weights.sum(), summary=f"weights {describe_shares(stack.names, weights)}"
    )


def simplex(stack: Stack, metric: Metric, seed: int = 0) -> Combination:
    """Return weights that minimize the log loss of the arithmetic mean, for any metric; the problem is convex."""
    weights = simplex_weights(true_class(stack), stack.present)
    return Combination(stack.names, weights=weights, summary=f"weights {describe_shares(stack.names, weights)}")


def exponential(stack: Stack, metric: Metric, seed: int = 0) -> Combination:
    """Return weights ∝ exp(−t · log loss of the run), with the t ≥ 0 that minimizes the log loss of the pool.

    t = 0 gives equal weights. cleanlab weights its models in the same way. The metric is not used: with few samples,
    its optimum would be mostly noise.
    """
    columns = np.maximum(true_class(stack), FLOOR)
    present_rows = None if stack.present is None else stack.present.astype(np.float64)
    columns = columns if present_rows is None else columns * present_rows
    counts = np.full(stack.runs, len(stack)) if present_rows is None else present_rows.sum(axis=1)
    logs = -np.log(np.maximum(columns, FLOOR)) * (1 if present_rows is None else present_rows)
    losses = logs.sum(axis=1) / np.maximum(counts, 1)
    losses -= losses[counts > 0].min()

    def weights_of(scale: float) -> NDArray[np.float64]:
        weights = np.maximum(np.exp(-scale * losses), 1e-300) * (counts > 0)
        return weights / weights.sum()

    scale = _bounded_minimum(
        lambda scale: pool_loss(weights_of(scale), columns, present_rows),
        np.concatenate([[0.0], np.geomspace(0.05, 500, 33)]),
    )
    weights = weights_of(scale)
    return Combination(
        stack.names, weights=weights, summary=f"t = {scale:.3g}; weights {describe_shares(stack.names, weights)}"
    )


def true_class(stack: Stack) -> NDArray[np.float64]:
    """Return (runs, n) each run's probability of the label; 0 where it is absent."""
    return stack.probabilities[:, np.arange(len(stack)), stack.labels].astype(np.float64)


def simplex_weights(
    columns: NDArray[np.float64], present: NDArray[np.bool_] | None = None, tolerance: float = 1e-5
) -> NDArray[np.float64]:
    """Return (runs,) weights ≥ 0 with sum 1 that minimize the mean −log of the pooled probability of the label.

    Sequential quadratic programming, then EM steps for mixture weights until the duality gap, an upper bound on the
    possible improvement, is below `tolerance` nats. With absent runs, the mean is over the present runs. That problem
    is not convex, but EM steps still improve the loss (denominators bounded by their tangents: Hunter & Lange, 2004).

    Parameters
    ----------
    columns : (runs, n) probabilities of the label, see `true_class`.
    present : (runs, n) whether the run predicts the sample; None if all runs predict all samples.
    """
    from scipy.optimize import minimize

    # A run without any prediction gets weight 0.
    if present is not None and not (seen := present.any(axis=1)).all():
        weights = np.zeros(len(columns))
        weights[seen] = simplex_weights(columns[seen], present[seen], tolerance)
        return weights
    runs, n = columns.shape
    columns = np.maximum(columns, FLOOR) if present is None else np.where(present, np.maximum(columns, FLOOR), 0)
    present_rows = None if present is None else present.astype(np.float64)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = np.maximum(weights, 1e-12)
        slope = -(columns @ (1 / (weights @ columns))) / n
        if present_rows is not None:
            slope += present_rows @ (1 / (weights @ present_rows)) / n
        return pool_loss(weights, columns, present_rows), slope

    one = {"type": "eq", "fun": lambda weights: weights.sum() - 1, "jac": lambda weights: np.ones(runs)}
    result = minimize(
        loss,
        np.full(runs, 1 / runs),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * runs,
        constraints=one,
        options={"ftol": 1e-12},
    )
    # EM keeps a weight of 0 at 0, so weights start above 0.
    weights = np.maximum(result.x, 1e-9) if np.isfinite(result.x).all() else np.ones(runs)
    for _ in range(_EM_STEPS):
        weights /= weights.sum()
        ratio = (
            columns
            @ (1 / (weights @ columns))
            / (n if present_rows is None else present_rows @ (1 / (weights @ present_rows)))
        )
        if ratio.max() - 1 < tolerance:
            break
        weights *= ratio
    weights[weights < MIN_SHARE * weights.sum()] = 0
    return weights / weights.sum()


def pool_loss(
    weights: NDArray[np.float64], columns: NDArray[np.float64], present_rows: NDArray[np.float64] | None
) -> float:
    """Return the mean −log of the weighted mean of `columns` (runs, n) over the runs in `present_rows` (runs, n)."""
    loss = -np.log(weights @ columns).mean()
    return float(loss + (np.log(weights.sum()) if present_rows is None else np.log(weights @ present_rows).mean()))


def _bounded_minimum(loss: Callable[[float], float], grid: NDArray[np.float64]) -> float:
    """Return the minimum point of a function of one number: the best point of a grid, refined between its neighbors."""
    from scipy.optimize import minimize_scalar

    values = np.array([loss(float(scale)) for scale in grid])
    best = int(np.argmin(values))
    low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, len(grid) - 1)])
    result = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4 * (1e-3 + high)})
    return float(result.x if result.fun < values[best] else grid[best])


def describe_shares(names: tuple[str, ...], weights: NDArray[np.float64], limit: int = 4) -> str:
    """Return the shares of the weight as ``swin 60%, resnet18 40%``, largest first."""
    shares = weights / weights.sum()
    order = [int(i) for i in np.argsort(-shares, kind="stable") if shares[i] > MIN_SHARE]
    listed = ", ".join(f"{names[i]} {100 * shares[i]:.3g}%" for i in order[:limit])
    return f"{listed} and {len(order) - limit} more" if len(order) > limit else listed
