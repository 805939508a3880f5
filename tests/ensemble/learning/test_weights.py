"""Fitted weights equal the optimum of an independent solver, for the loss of the applied combination."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar

from ensemble.learning.class_weights import per_class
from ensemble.learning.combination import Combination, combine
from ensemble.learning.stack import Stack
from ensemble.learning.weights import (
    best_single,
    describe_shares,
    exponential,
    greedy,
    simplex,
    simplex_weights,
    true_class,
)
from folds.metrics.classification import METRICS
from tests.ensemble.stacks import drawn, with_gaps

F1, LOSS = METRICS["macro_f1"], METRICS["log_loss"]


def loss_of(stack: Stack, weights: NDArray[np.float64]) -> float:
    values = combine(stack, Combination(stack.names, weights=weights))
    return float(-np.log(values[np.arange(len(stack)), stack.labels].astype(float)).mean())


def by_softmax(stack: Stack) -> float:
    """Return the smallest log loss found by another solver in another parametrization, computed with `combine`."""

    def loss(logits: NDArray[np.float64]) -> float:
        return loss_of(stack, np.exp(logits - logits.max()))

    starts = [np.zeros(stack.runs), np.arange(stack.runs) / 2]
    return min(
        minimize(loss, start, method="Nelder-Mead", options={"maxiter": 3000, "fatol": 1e-10, "xatol": 1e-6}).fun
        for start in starts
    )


@pytest.mark.parametrize("seed", range(3))
def test_simplex_equals_the_optimum_of_another_solver(seed: int) -> None:
    stack = drawn(seed, runs=3)
    weights = simplex(stack, F1).weights
    assert weights is not None
    assert weights.sum() == pytest.approx(1)
    assert loss_of(stack, weights) <= by_softmax(stack) + 1e-6


def test_the_duality_gap_bounds_the_possible_improvement() -> None:
    stack = drawn(1, runs=30, n=600)
    columns = true_class(stack)
    weights = simplex_weights(columns)
    gap = (columns @ (1 / (weights @ columns))).max() / len(stack) - 1
    assert gap < 1e-5
    assert 1 < (weights > 0).sum() < 30


def test_simplex_with_absent_runs_minimizes_the_applied_loss() -> None:
    stack = with_gaps(drawn(2, runs=3))
    weights = simplex(stack, F1).weights
    assert weights is not None
    assert loss_of(stack, weights) <= by_softmax(stack) + 1e-6


def test_exponential_weights_equal_the_optimum_of_a_solver() -> None:
    stack = drawn(3)
    losses = np.array([LOSS(stack.labels, values) for values in stack.probabilities])
    found = minimize_scalar(
        lambda t: loss_of(stack, np.exp(-t * (losses - losses.min()))), bounds=(0, 500), method="bounded"
    )
    weights = exponential(stack, F1).weights
    assert weights is not None
    assert loss_of(stack, weights) <= found.fun + 1e-6
    logs = np.log(weights)
    slope = (logs - logs.max()) / (losses - losses.min() + (losses == losses.min()))
    assert np.ptp(slope[losses > losses.min()]) < 1e-4 * abs(slope).max()


def test_exponential_weights_of_equal_runs_are_equal() -> None:
    stack = drawn(0, runs=1)
    same = replace(stack, names=("a", "b"), probabilities=np.repeat(stack.probabilities, 2, axis=0))
    assert exponential(same, F1).weights == pytest.approx([0.5, 0.5])


def test_best_run_has_the_best_score_for_both_metric_directions() -> None:
    stack = drawn(4)
    assert np.argmax(best_single(stack, F1).shares) == np.argmax(
        [F1(stack.labels, values) for values in stack.probabilities]
    )
    assert np.argmax(best_single(stack, LOSS).shares) == np.argmin(
        [LOSS(stack.labels, values) for values in stack.probabilities]
    )


def test_the_best_run_is_compared_on_samples_that_all_predict() -> None:
    stack = drawn(5, runs=2)
    right = stack.probabilities[0].argmax(axis=1) == stack.labels
    present = np.ones((2, len(stack)), bool)
    present[0] = right | (np.arange(len(stack)) % 2 > 0)  # absent where it would be wrong
    gappy = replace(stack, probabilities=stack.probabilities * present[:, :, None], present=present)
    rows = present[0]
    expected = np.argmax([F1(stack.labels[rows], values[rows]) for values in stack.probabilities])
    assert np.argmax(best_single(gappy, F1).shares) == expected


def test_a_run_with_a_nan_score_is_not_chosen() -> None:
    stack = drawn(6)

    def strange(labels: NDArray, values: NDArray) -> float:
        return float("nan") if np.array_equal(values, stack.probabilities[3]) else LOSS(labels, values)

    shares = best_single(
        stack, type("Strange", (), {"__call__": staticmethod(strange), "greater_is_better": False})()
    ).shares  # type: ignore[arg-type]
    assert shares[3] == 0


@pytest.mark.parametrize("metric", [F1, LOSS], ids=["macro_f1", "log_loss"])
def test_greedy_is_in_sample_no_worse_than_the_best_run(metric: object) -> None:
    stack = drawn(7)
    measure = F1 if metric is F1 else LOSS
    sign = 1 if measure.greater_is_better else -1
    best = max(sign * measure(stack.labels, values) for values in stack.probabilities)
    found = greedy()(stack, measure, 0)
    assert sign * measure(stack.labels, combine(stack, found)) >= best - 1e-6
    assert found.weights is not None
    assert found.weights.sum() == pytest.approx(1)
    assert found.summary.startswith("weights r")


def test_bags_differ_by_seed_alone_and_give_more_runs_a_share() -> None:
    stack = drawn(8, runs=8, n=150)
    first, again, other = (greedy(bags=5)(stack, F1, seed).shares for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (first > 0).sum() >= (greedy()(stack, F1, 0).shares > 0).sum()


def test_a_warm_start_includes_the_best_runs() -> None:
    stack = drawn(9, runs=6)
    scores = [F1(stack.labels, values) for values in stack.probabilities]
    assert greedy(warm=3)(stack, F1, 0).shares[int(np.argmax(scores))] > 0
    assert greedy(warm=50)(stack, F1, 0).weights is not None


def test_per_class_weights_lower_the_log_loss_of_shared_weights() -> None:
    stack = drawn(10, n=900, classes=5)
    values = stack.probabilities.copy()
    values[0] = np.eye(5)[stack.labels] * 0.4 + 0.12  # a weak run on its own,
    values[0, stack.labels > 0] = 0.2  # informative only for the first class
    stack = replace(stack, probabilities=values)
    found = per_class(stack, F1)
    assert found.weights is not None
    assert found.weights.shape == (4, 5)
    assert found.weights.sum(axis=0) == pytest.approx(np.ones(5))
    assert LOSS(stack.labels, combine(stack, found)) < LOSS(stack.labels, combine(stack, simplex(stack, F1)))


def test_per_class_weights_minimize_the_penalized_applied_loss() -> None:
    from ensemble.learning import class_weights

    stack = with_gaps(drawn(11, runs=3, n=120))
    shared = np.array([0.5, 0.3, 0.2])
    values, present = stack.probabilities.transpose(2, 0, 1).astype(float), stack.present.astype(float)  # type: ignore[union-attr]
    log_ratios = class_weights._fit_penalized(np.zeros((3, 4)), shared, values, present, stack.labels, 5.0)

    def loss(log_ratios: NDArray[np.float64]) -> float:
        p = combine(stack, Combination(stack.names, weights=class_weights._weights(log_ratios, shared)))[
            np.arange(len(stack)), stack.labels
        ]
        return float(-np.log(p.astype(float)).sum() + 2.5 * (log_ratios**2).sum())

    random = np.random.default_rng(0)
    assert all(loss(log_ratios + 0.03 * random.normal(size=log_ratios.shape)) > loss(log_ratios) for _ in range(30))
    assert loss(log_ratios) < loss(np.zeros((3, 4)))


def test_shares_are_described_in_descending_order() -> None:
    assert describe_shares(("a", "b", "c"), np.array([1.0, 0, 3])) == "c 75%, a 25%"
    assert describe_shares(tuple("abcdef"), np.ones(6)).endswith("and 2 more")
