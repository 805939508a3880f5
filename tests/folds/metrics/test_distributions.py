from __future__ import annotations

import pytest
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from folds.metrics.distributions import at_least_beta_quantile, beta_cdf, t_quantile, t_two_sided

parameters = st.floats(0.05, 500)


@pytest.mark.parametrize("dof", [1, 2, 3, 4, 5, 20, 21, 142, 4095])
def test_student_s_t_is_that_of_scipy(dof: int) -> None:
    for level in (0.5, 0.9, 0.95, 0.999):
        assert t_quantile(level, dof) == pytest.approx(scipy.stats.t.ppf((1 + level) / 2, dof), rel=1e-8)
        assert t_quantile(level, dof) == pytest.approx(scipy.special.stdtrit(dof, (1 + level) / 2), rel=1e-8)
    for t in (0.0, 0.3, 2.0, 8.0):
        assert t_two_sided(t, dof) == pytest.approx(1 - 2 * scipy.stats.t.sf(t, dof), abs=1e-12)


@given(parameters, parameters, st.floats(0, 1))
def test_the_beta_distribution_is_that_of_scipy(a: float, b: float, x: float) -> None:
    assert beta_cdf(x, a, b) == pytest.approx(scipy.special.betainc(a, b, x), abs=1e-9)


@given(parameters, parameters, st.floats(0, 1), st.sampled_from([0.005, 0.025, 0.05]))
def test_a_value_below_the_beta_quantile_becomes_it(a: float, b: float, x: float, tail: float) -> None:
    expected = max(x, scipy.special.betaincinv(a, b, tail))
    assert at_least_beta_quantile(x, tail, a, b) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(("right", "wrong"), [(24, 1), (24.67, 0.33), (0.2, 9.8), (4000, 96), (60, 60)])
def test_the_clopper_pearson_limit_is_a_beta_quantile(right: float, wrong: float) -> None:
    assert at_least_beta_quantile(0.0, 0.025, right, wrong + 1) == pytest.approx(
        scipy.stats.beta.ppf(0.025, right, wrong + 1), abs=1e-9
    )
    assert at_least_beta_quantile(0.9999, 0.025, right, wrong + 1) == 0.9999
