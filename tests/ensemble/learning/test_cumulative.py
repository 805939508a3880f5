from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from ensemble.learning.cumulative import STRENGTH, NumberToGrades, fit_grades

RANDOM = np.random.default_rng(3)
X = RANDOM.normal(40, 12, 4000)
TRUE = NumberToGrades(0.3, (0.3 * 28, 0.3 * 40, 0.3 * 55))
GRADES = (RANDOM.random((4000, 1)) > np.cumsum(TRUE.probabilities(X), axis=1)).sum(axis=1)


def test_the_fit_finds_the_cuts_that_made_the_grades() -> None:
    found = fit_grades(X, GRADES, 4)
    np.testing.assert_allclose(found.points, [28, 40, 55], atol=1.0)
    assert found.slope == pytest.approx(0.3, abs=0.03)
    values = found.probabilities(X)
    np.testing.assert_allclose(values.sum(axis=1), 1)
    frequencies = np.bincount(GRADES, minlength=4) / len(GRADES)
    np.testing.assert_allclose(values.mean(axis=0), frequencies, atol=0.01)


def test_two_grades_are_a_logistic_regression() -> None:
    x, y = X[:300], (GRADES[:300] > 1).astype(int)
    scaled = (x - x.mean()) / x.std()

    def loss(params: np.ndarray) -> float:
        logits = params[0] * scaled + params[1]
        return float(np.logaddexp(0, logits).sum() - (y * logits).sum() + STRENGTH / 2 * params[0] ** 2)

    expected = minimize(loss, [1.0, 0.0], options={"gtol": 1e-8}).x
    found = fit_grades(x, y, 2)
    p = found.probabilities(x)[:, 1]
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-(expected[0] * scaled + expected[1]))), atol=1e-4)


def test_a_grade_that_nobody_has_and_perfect_numbers_stay_finite() -> None:
    found = fit_grades(X[:100], np.where(X[:100] > 40, 3, 0), 4)
    values = found.probabilities(np.array([0.0, 40.0, 80.0]))
    assert np.isfinite(values).all()
    assert list(found.cuts) == sorted(found.cuts)
    assert values[0].argmax() == 0
    assert values[2].argmax() == 3
    falling = fit_grades(-X, GRADES, 4)
    assert falling.slope < 0
    constant = fit_grades(np.ones(50), GRADES[:50], 4)
    assert np.isfinite(constant.probabilities(np.ones(2))).all()
