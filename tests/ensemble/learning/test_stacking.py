"""Stacking equals the penalized optimum of another solver and falls back to the geometric mean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from ensemble.learning import stacking as module
from ensemble.learning.combination import Combination, combine, features
from ensemble.learning.logistic import ALL, OWN, Part, Path, PathCache, log_loss
from ensemble.learning.stack import Stack
from ensemble.learning.stacking import stacking
from folds.metrics.classification import METRICS
from tests.ensemble.stacks import drawn, with_gaps

LOSS = METRICS["log_loss"]


def vote(stack: Stack) -> NDArray[np.float32]:
    return combine(stack, Combination(stack.names, pool="geometric"))


def log_features(stack: Stack) -> NDArray[np.float64]:
    """(n, runs × classes)"""
    present = np.ones(stack.probabilities.shape[:2], bool) if stack.present is None else stack.present
    return features(stack.probabilities.astype(np.float64), present)


def geometric(stack: Stack, structure: str) -> NDArray[np.float64]:
    """The coefficients of the geometric mean."""
    coefs = np.full((stack.classes, stack.runs + 1), 1 / stack.runs)
    coefs[:, -1] = 0
    return coefs if structure == OWN else module._all_classes(coefs)


def fitted_coefficients(stack: Stack, structure: str, strength: float) -> NDArray[np.float64]:
    """(runs × classes + 1, classes) what is added to the geometric vote."""
    base = geometric(stack, structure)
    # Two parts, so that sums over parts are tested as well.
    parts = [module._part(stack, rows) for rows in np.array_split(np.arange(len(stack)), 2)]
    added = Path(base, (strength,)).final(1, parts) - base
    added = (added if structure == ALL else module._all_classes(added)).T.copy()
    added[-1] *= stack.runs**0.5
    return added


def objective(stack: Stack, added: NDArray[np.float64], strength: float) -> float:
    logs = log_features(stack)
    logits = logs.reshape(len(stack), stack.runs, -1).mean(axis=1) + logs @ added[:-1] + added[-1]
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(stack)), stack.labels]
    return float(losses.sum() + strength / 2 * (stack.runs * (added[:-1] ** 2).sum() + (added[-1] ** 2).sum()))


@pytest.mark.parametrize("gaps", [False, True])
def test_each_structure_equals_the_optimum_of_another_solver(gaps: bool) -> None:
    stack = drawn(0, runs=2, n=90, classes=3)
    stack = with_gaps(stack) if gaps else stack
    for structure in (OWN, ALL):
        places = np.ones((7, 3), bool)
        if structure == OWN:
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
    part = module._part(stack, np.arange(len(stack)))
    found = Path(np.zeros((3, 4)), (4.0,)).final(1, [part])
    logs = log_features(stack)
    # The intercept is penalized like the other coefficients: a constant feature 1.
    other = LogisticRegression(C=1 / 4, fit_intercept=False, tol=1e-10, max_iter=5000)
    other.fit(np.hstack([logs, np.ones((200, 1))]), stack.labels)
    assert found == pytest.approx(other.coef_, abs=1e-3)


def test_a_strong_penalty_gives_the_geometric_mean() -> None:
    stack = with_gaps(drawn(2))
    for structure in (OWN, ALL):
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


def plain_stacking(stack: Stack) -> NDArray[np.float64]:
    """(n, classes) stacking by scikit-learn's way to write it down: one matrix, one solver, nothing shared."""
    logs, labels, runs, classes = log_features(stack), stack.labels, stack.runs, stack.classes
    wide = np.hstack([logs, np.full((len(logs), 1), runs**0.5)])
    own = np.vstack([np.tile(np.eye(classes, dtype=bool), (runs, 1)), np.ones((1, classes), bool)])

    def total(logits: NDArray[np.float64], rows: NDArray[np.int64]) -> float:
        return float((np.logaddexp.reduce(logits[rows], axis=1) - logits[rows, labels[rows]]).sum())

    def fit(base: NDArray, rows: NDArray, places: NDArray, strength: float) -> NDArray:
        def loss(flat: NDArray) -> tuple[float, NDArray]:
            coefs = np.zeros(places.shape)
            coefs[places] = flat
            logits = base + wide @ coefs
            residuals = np.exp(logits - np.logaddexp.reduce(logits, axis=1)[:, None])
            residuals[np.arange(len(labels)), labels] -= 1
            slope = wide[rows].T @ residuals[rows] + strength * runs * coefs
            return total(logits, rows) + strength * runs / 2 * float((coefs**2).sum()), slope[places]

        found = minimize(
            loss, np.zeros(places.sum()), jac=True, method="L-BFGS-B", options={"ftol": 1e-12, "gtol": 1e-7}
        )
        coefs = np.zeros(places.shape)
        coefs[places] = found.x
        return base + wide @ coefs

    mean = logs.reshape(len(logs), runs, -1).mean(axis=1)
    parts = [np.flatnonzero(stack.outer_folds == part) for part in np.unique(stack.outer_folds)]
    rest = [np.setdiff1d(np.arange(len(logs)), rows) for rows in parts]
    bases, base = [mean] * len(parts), mean
    for places in (own, np.ones_like(own)):
        fits = [bases] + [
            [fit(start, rows, places, strength) for start, rows in zip(bases, rest)] for strength in module.STRENGTHS
        ]
        chosen = int(np.argmin([sum(map(total, each, parts)) for each in fits]))
        if chosen:
            bases, base = fits[chosen], fit(base, np.arange(len(logs)), places, module.STRENGTHS[chosen - 1])
    return np.exp(base - np.logaddexp.reduce(base, axis=1)[:, None])


@pytest.mark.parametrize("gaps", [False, True])
def test_stacking_equals_a_plain_reference(gaps: bool) -> None:
    stack = drawn(8, runs=2, n=240, classes=3)
    values = stack.probabilities.copy()
    values[1, :, :] = np.roll(values[1], 1, axis=1)
    stack = replace(stack, probabilities=values)
    stack = with_gaps(stack) if gaps else stack
    found = stacking(stack, LOSS)
    assert OWN in found.summary
    assert ALL in found.summary
    assert combine(stack, found) == pytest.approx(plain_stacking(stack), abs=2e-3)


def test_a_path_gives_the_same_fit_whoever_asks_for_it_first() -> None:
    stack = drawn(9, n=120)
    parts = [module._part(stack, rows) for rows in np.array_split(np.arange(120), 3)]
    base = geometric(stack, OWN)
    first, second = Path(base, (10.0, 1.0, 0.1)), Path(base, (10.0, 1.0, 0.1))
    at_once = [first.at(step, parts) for step in (1, 2, 3)]
    apart = []
    for step in (1, 2, 3):
        apart.append(second.at(step, parts))
        second.final(step, parts)
        second.release()
    for one, other in zip(at_once, apart):
        np.testing.assert_array_equal(one, other)
    assert log_loss(parts, at_once[2]) < log_loss(parts, at_once[0]) < log_loss(parts, base)


def test_the_path_cache_shares_equal_samples_and_is_limited() -> None:
    stack, other = drawn(10, n=60), drawn(11, n=60)
    rows, base = np.arange(60), geometric(stack, OWN)
    part, again, another = module._part(stack, rows), module._part(stack, rows), module._part(other, rows)
    cache = PathCache(max_numbers=2 * Path(base, (1.0,)).numbers)
    path = cache.path([part], base, (1.0,))
    assert cache.path([again], base, (1.0,)) is path
    assert cache.path([another], base, (1.0,)) is not path
    assert cache.path([part], base + 1, (1.0,)) is not path
    assert cache.path([part], base, (1.0,)) is not path  # the least recently used one was forgotten
    assert Part.of(part.features, (part.labels + 1) % 4).digest != part.digest
