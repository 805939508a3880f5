"""Stacking equals the penalized optimum of another solver and falls back to the geometric mean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from ensemble.learning import stacking as module
from ensemble.learning.combination import Combination, combine
from ensemble.learning.stack import Stack
from ensemble.learning.stacking import coefficients, fit, rotate_features, stacking
from folds.metrics.classification import METRICS
from tests.ensemble.stacks import drawn, with_gaps

LOSS = METRICS["log_loss"]


def vote(stack: Stack) -> NDArray[np.float32]:
    return combine(stack, Combination(stack.names, pool="geometric"))


def fitted_coefficients(stack: Stack, structure: str, strength: float) -> NDArray[np.float64]:
    """(runs × classes + 1, classes) what is added to the geometric vote."""
    logs = module._features(stack)
    found = rotate_features(logs, stack.runs, structure)
    base = logs.reshape(len(stack), stack.runs, -1).mean(axis=1)
    return coefficients(found, fit(found, base, stack.labels, strength, found.start))


def objective(stack: Stack, added: NDArray[np.float64], strength: float) -> float:
    logs = module._features(stack)
    logits = logs.reshape(len(stack), stack.runs, -1).mean(axis=1) + logs @ added[:-1] + added[-1]
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(stack)), stack.labels]
    return float(losses.sum() + strength / 2 * (stack.runs * (added[:-1] ** 2).sum() + (added[-1] ** 2).sum()))


@pytest.mark.parametrize("gaps", [False, True])
def test_each_structure_equals_the_optimum_of_another_solver(gaps: bool) -> None:
    stack = drawn(0, runs=2, n=90, classes=3)
    stack = with_gaps(stack) if gaps else stack
    for structure in module.STRUCTURES:
        places = np.ones((7, 3), bool)
        if structure == "own class":
            places[:-1] = np.tile(np.eye(3, dtype=bool), (2, 1))

        def loss(flat: NDArray[np.float64], places: NDArray[np.bool_] = places) -> float:
            added = np.zeros((7, 3))
            added[places] = flat
            return objective(stack, added, 2.0)

        found = fitted_coefficients(stack, structure, 2.0)
        assert not found[~places].any()
        other = minimize(loss, np.zeros(places.sum()), method="BFGS", options={"gtol": 1e-6})
        assert objective(stack, found, 2.0) <= other.fun + 1e-5
        assert found[places] == pytest.approx(other.x, abs=2e-3)


def test_without_base_logits_it_equals_scikit_learn() -> None:
    stack = drawn(1, runs=1, n=200, classes=3)
    logs = module._features(stack)
    found = rotate_features(logs, 1, "all classes")
    at = fit(found, np.zeros((200, 3)), stack.labels, 4.0, found.start)
    # The intercept is penalized like the other coefficients: a constant feature 1.
    other = LogisticRegression(C=1 / 4, fit_intercept=False, tol=1e-10, max_iter=5000)
    other.fit(np.hstack([logs, np.ones((200, 1))]), stack.labels)
    assert coefficients(found, at) == pytest.approx(other.coef_.T, abs=1e-3)


def test_a_strong_penalty_gives_the_geometric_mean() -> None:
    stack = with_gaps(drawn(2))
    for structure in module.STRUCTURES:
        assert np.abs(fitted_coefficients(stack, structure, 1e9)).max() < 1e-5


def test_duplicated_runs_do_not_change_stacking() -> None:
    stack = drawn(3, runs=2)
    twice = replace(stack, names=("a", "b", "c", "d"), probabilities=np.concatenate([stack.probabilities] * 2))
    once, doubled = (combine(s, stacking(s, LOSS)) for s in (stack, twice))
    assert doubled == pytest.approx(once, abs=1e-3)


def test_stacking_beats_the_geometric_mean_on_new_people() -> None:
    stack, fresh = drawn(4, n=600), drawn(4, n=600)
    random = np.random.default_rng(0)
    order = random.permutation(200)
    rows = np.flatnonzero(np.isin(stack.persons, order[:100])), np.flatnonzero(np.isin(stack.persons, order[100:]))
    fit_stack, fresh = stack.take(rows[0]), fresh.take(rows[1])
    assert LOSS(fresh.labels, combine(fresh, stacking(fit_stack, LOSS))) < LOSS(fresh.labels, vote(fresh)) - 0.1


def test_without_information_stacking_is_the_geometric_mean() -> None:
    stack = drawn(5)
    uniform = replace(stack, probabilities=np.full_like(stack.probabilities, 0.25), labels=np.arange(300) % 4)
    found = stacking(uniform, LOSS)
    assert combine(uniform, found) == pytest.approx(np.full((300, 4), 0.25), abs=0.02)
    alone = replace(stack, persons=np.zeros(300, np.int64), outer_folds=np.zeros(300, np.int64))
    found = stacking(alone, LOSS)
    assert found.summary == "geometric mean, nothing fitted"
    assert combine(alone, found) == pytest.approx(vote(alone), abs=1e-5)


def test_stacking_uses_all_classes_if_a_run_confuses_classes() -> None:
    stack = drawn(6, runs=2, n=900, classes=3)
    # One run predicts the next class: its predictions are informative for another class.
    values = stack.probabilities.copy()
    values[1] = np.roll(values[1], 1, axis=1)
    shifted = replace(stack, probabilities=values)
    found = stacking(shifted, LOSS)
    assert "all classes" in found.summary
    assert LOSS(stack.labels, combine(shifted, found)) < LOSS(stack.labels, vote(stack))


def test_sample_order_changes_stacking_only_within_tolerance() -> None:
    stack = drawn(7)
    order = np.random.default_rng(0).permutation(len(stack))
    first, second = stacking(stack, LOSS), stacking(stack.take(order), LOSS)
    assert first.summary == second.summary
    assert combine(stack, first) == pytest.approx(combine(stack, second), abs=1e-3)
