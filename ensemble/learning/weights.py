"""Weights of the runs, learnt: the best alone, greedy selection, the simplex, or one parameter."""

from __future__ import annotations

from collections.abc import Callable

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
# A share of the vote that is too small to be seen.
NONE = 1e-6
_EM_STEPS = 300


def best_single(stack: Stack, metric: Metric, seed: int = 0) -> Combination:
    """All weight on the run with the best score; the first in name among equals.

    Runs are compared on the samples that all predict, or, where these are fewer than half, each on its own.
    """
    there = np.ones((stack.runs, len(stack)), bool) if stack.present is None else stack.present
    by_all = there.all(axis=0)
    scores = np.full(stack.runs, -np.inf)
    for i in range(stack.runs):
        rows = np.flatnonzero(by_all if 2 * by_all.sum() >= len(stack) else there[i])
        score = metric(stack.labels[rows], stack.probabilities[i, rows]) if len(rows) else np.nan
        if not np.isnan(score):
            scores[i] = score if metric.greater_is_better else -score
    weights = np.zeros(stack.runs)
    weights[int(np.argmax(scores))] = 1
    return Combination(stack.names, weights=weights, summary=f"took {told(stack.names, weights)}")


def greedy(*, bags: int = 0, warm: int = 0) -> Callable[[Stack, Metric, int], Combination]:
    """Greedy selection with replacement (Caruana et al., ICML 2004) of the arithmetic mean, as a way to fit.

    Parameters
    ----------
    bags : selections, each from a random half of the runs, that are averaged (section 2.3); 0 for one from all.
    warm : the best so many runs, by score, that the selection starts with (section 2.2).
    """

    def fit(stack: Stack, metric: Metric, seed: int = 0) -> Combination:
        found = select(
            stack.probabilities,
            stack.labels,
            metric,
            steps=STEPS,
            present=stack.present,
            bags=bags,
            warm=min(warm, stack.runs),
            seed=seed,
        )
        weights = np.asarray(found.weights, float)
        return Combination(stack.names, weights=weights / weights.sum(), summary=f"took {told(stack.names, weights)}")

    return fit


def simplex(stack: Stack, metric: Metric, seed: int = 0) -> Combination:
    """Weights that minimise the log loss of the arithmetic mean, whatever the metric: a convex problem, so without
    luck.
    """
    weights = simplex_weights(true_class(stack), stack.present)
    return Combination(stack.names, weights=weights, summary=f"took {told(stack.names, weights)}")


def exponential(stack: Stack, metric: Metric, seed: int = 0) -> Combination:
    """Weights ∝ exp(−t · log loss of the run), with the one t ≥ 0 that minimises the log loss of the arithmetic mean.

    t 0 is the equal vote; as cleanlab weighs its models. The metric is not asked: it would be the luck of a few
    samples.
    """
    columns = np.maximum(true_class(stack), FLOOR)
    there = None if stack.present is None else stack.present.astype(np.float64)
    columns = columns if there is None else columns * there
    counts = np.full(stack.runs, len(stack)) if there is None else there.sum(axis=1)
    logs = -np.log(np.maximum(columns, FLOOR)) * (1 if there is None else there)
    losses = logs.sum(axis=1) / np.maximum(counts, 1)
    losses -= losses[counts > 0].min()

    def weights_of(t: float) -> NDArray[np.float64]:
        weights = np.maximum(np.exp(-t * losses), 1e-300) * (counts > 0)
        return weights / weights.sum()

    t = _bounded_minimum(
        lambda t: pool_loss(weights_of(t), columns, there), np.concatenate([[0.0], np.geomspace(0.05, 500, 33)])
    )
    weights = weights_of(t)
    return Combination(stack.names, weights=weights, summary=f"t {t:.3g}: {told(stack.names, weights)}")


def true_class(stack: Stack) -> NDArray[np.float64]:
    """(runs, n) each run's probability of the label; 0 where it is absent."""
    return stack.probabilities[:, np.arange(len(stack)), stack.labels].astype(np.float64)


def simplex_weights(
    columns: NDArray[np.float64], present: NDArray[np.bool_] | None = None, tolerance: float = 1e-5
) -> NDArray[np.float64]:
    """(runs,) weights ≥ 0 with sum 1 that minimise the mean −log of the arithmetic mean's probability of the label.

    Sequential quadratic programming, then steps of EM for a mixture's weights until the duality gap, by which the loss
    can
    at most be bettered, is below `tolerance` nats. Where runs are absent the mean is over those present; that is not
    convex, a step of EM goes uphill still (its denominators bounded by their tangents: Hunter & Lange, 2004).

    Parameters
    ----------
    columns : (runs, n) probabilities of the label, see `true_class`.
    present : (runs, n) whether the run predicts the sample; None where all do.
    """
    from scipy.optimize import minimize

    if (
        present is not None and not (seen := present.any(axis=1)).all()
    ):  # of a run that predicts nothing here nothing is known
        weights = np.zeros(len(columns))
        weights[seen] = simplex_weights(columns[seen], present[seen], tolerance)
        return weights
    runs, n = columns.shape
    columns = np.maximum(columns, FLOOR) if present is None else np.where(present, np.maximum(columns, FLOOR), 0)
    there = None if present is None else present.astype(np.float64)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = np.maximum(weights, 1e-12)
        slope = -(columns @ (1 / (weights @ columns))) / n
        if there is not None:
            slope += there @ (1 / (weights @ there)) / n
        return pool_loss(weights, columns, there), slope

    one = {"type": "eq", "fun": lambda weights: weights.sum() - 1, "jac": lambda weights: np.ones(runs)}
    found = minimize(
        loss,
        np.full(runs, 1 / runs),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * runs,
        constraints=one,
        options={"ftol": 1e-12},
    )
    weights = np.maximum(found.x, 1e-9) if np.isfinite(found.x).all() else np.ones(runs)  # a weight of 0 would stay 0
    for _ in range(_EM_STEPS):
        weights /= weights.sum()
        ratio = columns @ (1 / (weights @ columns)) / (n if there is None else there @ (1 / (weights @ there)))
        if ratio.max() - 1 < tolerance:
            break
        weights *= ratio
    weights[weights < NONE * weights.sum()] = 0
    return weights / weights.sum()


def pool_loss(weights: NDArray[np.float64], columns: NDArray[np.float64], there: NDArray[np.float64] | None) -> float:
    """Mean −log of the weighted arithmetic mean of `columns` (runs, n) over the runs that are `there`."""
    loss = -np.log(weights @ columns).mean()
    return float(loss + (np.log(weights.sum()) if there is None else np.log(weights @ there).mean()))


def _bounded_minimum(loss: Callable[[float], float], grid: NDArray[np.float64]) -> float:
    """Return where a function of one number is least: the best of a grid, refined between its neighbors."""
    from scipy.optimize import minimize_scalar

    values = np.array([loss(float(t)) for t in grid])
    best = int(np.argmin(values))
    low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, len(grid) - 1)])
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4 * (1e-3 + high)})
    return float(found.x if found.fun < values[best] else grid[best])


def told(names: tuple[str, ...], weights: NDArray[np.float64], most: int = 4) -> str:
    """``swin 60 %, resnet18 40 %``, the largest first."""
    shares = weights / weights.sum()
    order = [int(i) for i in np.argsort(-shares, kind="stable") if shares[i] > NONE]
    listed = ", ".join(f"{names[i]} {100 * shares[i]:.3g} %" for i in order[:most])
    return f"{listed} and {len(order) - most} more" if len(order) > most else listed
