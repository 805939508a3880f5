import pytest
import scipy.stats

from folds.metrics.distributions import t_quantile, t_two_sided


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 20, 21, 142, 4095])
def test_student_s_t_is_that_of_scipy(freedom: int) -> None:
    for level in (0.5, 0.9, 0.95, 0.999):
        assert t_quantile(level, freedom) == pytest.approx(scipy.stats.t.ppf((1 + level) / 2, freedom), rel=1e-8)
    for t in (0.0, 0.3, 2.0, 8.0):
        assert t_two_sided(t, freedom) == pytest.approx(1 - 2 * scipy.stats.t.sf(t, freedom), abs=1e-12)
