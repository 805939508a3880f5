"""The solver of the logistic head against scikit-learn, and the choice of its strength over people."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from folds.errors import EnsembleError
from folds.features.logistic import fit_path, rotate
from folds.features.selection import STRENGTHS, inner_folds, select_strength
from folds.utils.numeric import softmax


def drawn(n: int, d: int, classes: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Standardized, correlated features that say something about the class, and the classes."""
    random = np.random.default_rng(n + d)
    hidden = random.normal(size=(n, 8))
    features = hidden @ random.normal(size=(8, d)) + 0.5 * random.normal(size=(n, d))
    labels = (hidden[:, :classes] + random.normal(size=(n, classes))).argmax(1)
    return ((features - features.mean(0)) / features.std(0)).astype(np.float32), labels


def shares(labels: NDArray[np.int64], classes: int, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    targets = np.zeros((len(labels), classes))
    targets[np.arange(len(labels)), labels] = weights / weights.sum()
    return targets


@pytest.mark.parametrize(("n", "d", "classes"), [(300, 20, 3), (120, 150, 4), (200, 10, 2)])
def test_the_optimum_is_that_of_scikit_learn(n: int, d: int, classes: int) -> None:
    features, labels = drawn(n, d, classes)
    weights = np.random.default_rng(0).uniform(0.5, 2, n)
    rotated, rotation = rotate(features, weights / weights.sum())
    for fit in fit_path(rotated, shares(labels, classes, weights), rotation.variance, [1.0, 0.1, 0.01]):
        # Of two classes scikit-learn has one column of weights, w; here they are w/2 and -w/2, half the penalty.
        c = (2 if classes == 2 else 1) / (fit.l2 * weights.sum())
        model = LogisticRegression(C=c, tol=1e-10, max_iter=10_000)
        model.fit(features.astype(np.float64), labels, sample_weight=weights)
        assert fit.converged
        np.testing.assert_allclose(softmax(fit.outputs(rotated)), model.predict_proba(features), atol=1e-4)
        if classes > 2:
            np.testing.assert_allclose(rotation.axes @ fit.weights, model.coef_.T, atol=1e-4)


def test_a_class_without_rows_stays_improbable() -> None:
    features, labels = drawn(100, 10, 2)
    rotated, rotation = rotate(features, np.full(100, 0.01))
    (fit,) = fit_path(rotated, shares(labels, 3, np.ones(100)), rotation.variance, [0.01])
    probabilities = softmax(fit.outputs(rotated))
    assert fit.converged
    assert 0 < probabilities[:, 2].mean() < 0.05


def test_no_person_is_in_two_inner_folds() -> None:
    random = np.random.default_rng(1)
    persons, codes = random.integers(40, size=300).astype(str), random.integers(3, size=300)
    fold = inner_folds(persons, codes, 5, seed=2**40)
    assert set(fold.tolist()) == set(range(5))
    assert all(len(set(fold[persons == one].tolist())) == 1 for one in set(persons.tolist()))
    with pytest.raises(EnsembleError, match="one person"):
        inner_folds(np.array(["a", "a"]), np.array([0, 1]), 5, 0)


def test_noise_is_chosen_strong_and_signal_weak() -> None:
    features, labels = drawn(400, 12, 3)
    noise = np.random.default_rng(3).normal(size=(400, 12)).astype(np.float32)
    people = np.arange(400) // 2
    fold = inner_folds(people, labels, 5, 0)
    chosen = []
    for one in (features, noise):
        rotated, rotation = rotate(one, np.full(400, 1 / 400))
        found = select_strength(rotated, shares(labels, 3, np.ones(400)), rotation, fold)
        assert found.best == STRENGTHS[int(np.argmin(found.inner_losses))]
        chosen.append(found.best)
    assert chosen[0] < 0.1 < chosen[1]
