"""Ridge regression on features: scikit-learn's solution, unknown rows, the choice of its strength, and units."""

import numpy as np
import pytest
import torch

from folds.features.column_heads import in_unit_of_table
from folds.features.ridge import STRENGTHS, ridge_path, select_ridge
from folds.models.number_head import Units

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("columns", [5, 40])
def test_fits_are_those_of_scikit_learn(columns: int) -> None:
    from sklearn.linear_model import Ridge

    features = RNG.normal(size=(20, columns)).astype(np.float32)
    values, weights = RNG.normal(size=20), RNG.choice([0.0, 1.0, 2.0], size=20)
    for fit in ridge_path(features, values, weights, [0.3, 2.0]):
        expected = Ridge(alpha=fit.l2 * weights.sum() / 2).fit(features.astype(float), values, weights)
        np.testing.assert_allclose(fit.weights, expected.coef_, atol=1e-6)
        assert fit.intercept == pytest.approx(expected.intercept_, abs=1e-6)
        errors = (fit.predict(features) - values) ** 2
        assert fit.loss == pytest.approx((weights * errors).sum() / weights.sum())


def test_rows_of_weight_0_take_no_part() -> None:
    features, values = RNG.normal(size=(12, 3)).astype(np.float32), RNG.normal(size=12)
    weights = np.repeat([1.0, 0.0], [9, 3])
    other, changed = features.copy(), values.copy()
    other[9:], changed[9:] = 1e6, -1e6
    one, two = (ridge_path(x, y, weights, [0.1])[0] for x, y in ((features, values), (other, changed)))
    assert np.array_equal(one.weights, two.weights)
    fold = np.arange(12) % 3
    found = [select_ridge(x, y, weights, fold).inner_losses for x, y in ((features, values), (other, changed))]
    assert found[0] == found[1]


def test_noise_needs_a_stronger_penalty_than_a_signal() -> None:
    features = RNG.normal(size=(60, 30)).astype(np.float32)
    signal, noise = features[:, 0].astype(float), RNG.normal(size=60)
    fold = np.arange(60) % 5
    weak, strong = (select_ridge(features, values, np.ones(60), fold).best for values in (signal, noise))
    assert weak < 0.1 < strong <= max(STRENGTHS)


def test_a_head_of_standard_deviations_becomes_one_of_the_unit() -> None:
    head, features = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2)), torch.randn(5, 4)
    before = head(features).detach()
    in_unit_of_table(head, Units(np.array([40, 7], np.float32), np.array([10, 0.5], np.float32)))
    expected = torch.tensor([40.0, 7.0]) + torch.tensor([10.0, 0.5]) * before
    torch.testing.assert_close(head(features).detach(), expected)
