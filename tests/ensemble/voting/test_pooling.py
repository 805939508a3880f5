"""Every mean equals an independent formula, with weights and with absent runs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ensemble.voting.base import FLOOR, Options
from ensemble.voting.vote import vote
from folds.errors import UsageError
from tests.ensemble.small_runs import draw, probability_run, split_of

drawn = given(
    n=st.integers(1, 6),
    classes=st.integers(2, 5),
    seed=st.integers(0, 10**6),
    weights=st.lists(st.integers(0, 4), min_size=1, max_size=6).filter(any),
)


def voted(
    values: list[NDArray], method: str, weights: list[float] | None = None, **options: float
) -> NDArray[np.float32]:
    runs = [probability_run(f"r{i}", each) for i, each in enumerate(values)]
    given_weights = None if weights is None else {f"r{i}": weight for i, weight in enumerate(weights)}
    return vote(split_of(*runs, n=len(values[0])), method, given_weights, options=Options(**options)).probabilities  # type: ignore[arg-type]


def scaled(values: NDArray) -> NDArray:
    return values / values.sum(1, keepdims=True)


@pytest.mark.parametrize("exponent", [-300.0, -1.0, 0.5, 1.0, 2.0, 3.0, 700.0])
@settings(max_examples=15, deadline=None)
@drawn
def test_the_power_mean_is_the_root_of_the_mean_of_powers(
    exponent: float, n: int, classes: int, seed: int, weights: list[int]
) -> None:
    values = [draw(n, classes, seed + i) for i in range(len(weights))]
    share = np.array(weights, np.longdouble) / sum(weights)  # its range holds .1 ** 700
    expected = sum(w * v.astype(np.longdouble) ** exponent for w, v in zip(share, values)) ** (
        1 / np.longdouble(exponent)
    )
    np.testing.assert_allclose(voted(values, "power", list(weights), power=exponent), scaled(expected), atol=1e-6)


def test_the_power_mean_passes_through_the_other_means() -> None:
    values = [np.random.default_rng(i).dirichlet(np.ones(4), 30) for i in range(3)]
    np.testing.assert_allclose(voted(values, "power", power=1), voted(values, "soft"), atol=1e-7)
    assert np.array_equal(voted(values, "power", power=0), voted(values, "geometric"))
    np.testing.assert_allclose(voted(values, "power", power=-1e-4), voted(values, "geometric"), atol=1e-4)
    np.testing.assert_allclose(voted(values, "power", power=1e4), voted(values, "max"), atol=1e-3)
    np.testing.assert_allclose(voted(values, "power"), scaled(np.sqrt(np.mean(np.square(values), axis=0))), atol=1e-6)


@pytest.mark.parametrize("exponent", [-1e9, -2.0, -1e-7, 1e-5, 2.0, 1e9])
def test_power_mean_is_finite_for_probabilities_0_and_1(exponent: float) -> None:
    values = [np.eye(3), np.eye(3)[::-1].copy(), np.full((3, 3), 1 / 3)]
    result = voted(values, "power", power=exponent)
    assert np.isfinite(result).all()
    np.testing.assert_allclose(result.sum(1), 1, atol=1e-6)


@settings(max_examples=60, deadline=None)
@drawn
def test_the_median_has_half_the_weight_on_either_side(n: int, classes: int, seed: int, weights: list[int]) -> None:
    values = [draw(n, classes, seed + i) for i in range(len(weights))]
    # Whole weights: the weighted median is the median of that many copies.
    copies = np.repeat(np.stack(values), weights, axis=0)
    np.testing.assert_allclose(voted(values, "median", list(weights)), scaled(np.median(copies, axis=0)), atol=1e-6)


@pytest.mark.parametrize("trim", [0.0, 0.1, 0.25, 0.4])
@settings(max_examples=15, deadline=None)
@drawn
def test_trimmed_mean_removes_the_ends(trim: float, n: int, classes: int, seed: int, weights: list[int]) -> None:
    values = [draw(n, classes, seed + i) for i in range(len(weights))]
    # In copies of a twentieth of a weight, whole copies are cut at either end.
    copies = np.sort(np.repeat(np.stack(values), np.array(weights) * 20, axis=0), axis=0)
    cut = round(trim * len(copies))
    np.testing.assert_allclose(
        voted(values, "trimmed", list(weights), trim=trim),
        scaled(copies[cut : len(copies) - cut].mean(axis=0)),
        atol=1e-6,
    )


def test_trimmed_mean_equals_scipy_and_ends_in_mean_and_median() -> None:
    from scipy.stats import trim_mean

    values = [np.random.default_rng(i).dirichlet(np.ones(4), 30) for i in range(10)]
    np.testing.assert_allclose(voted(values, "trimmed"), scaled(trim_mean(np.stack(values), 0.2, axis=0)), atol=1e-6)
    np.testing.assert_allclose(voted(values, "trimmed", trim=0), voted(values, "soft"), atol=1e-7)
    np.testing.assert_allclose(voted(values, "trimmed", trim=0.4999), voted(values, "median"), atol=1e-6)


@settings(max_examples=25, deadline=None)
@drawn
def test_max_is_over_runs_with_a_weight_above_0(n: int, classes: int, seed: int, weights: list[int]) -> None:
    values = [draw(n, classes, seed + i) for i in range(len(weights))]
    heard = [each for each, weight in zip(values, weights) if weight]
    np.testing.assert_allclose(voted(values, "max", list(weights)), scaled(np.max(heard, axis=0)), atol=1e-6)


@settings(max_examples=25, deadline=None)
@drawn
def test_the_geometric_mean_is_the_weighted_root_of_the_product(
    n: int, classes: int, seed: int, weights: list[int]
) -> None:
    values = [draw(n, classes, seed + i) for i in range(len(weights))]
    expected = np.prod(
        [np.maximum(each, FLOOR) ** (weight / sum(weights)) for each, weight in zip(values, weights)], axis=0
    )
    np.testing.assert_allclose(voted(values, "geometric", list(weights)), scaled(expected), atol=1e-6)


@pytest.mark.parametrize("method", ["median", "trimmed"])
def test_rows_that_become_0_get_the_mean(method: str) -> None:
    values = [np.array([[1.0, 0, 0, 0, 0]]), *(np.roll(np.array([[1.0, 0, 0, 0, 0]]), i, 1) for i in (1, 2, 3, 4))]
    np.testing.assert_allclose(voted(values, method), [[0.2] * 5], atol=1e-7)
    np.testing.assert_allclose(
        voted(values, method, [0.4, 0.15, 0.15, 0.15, 0.15], trim=0.45), [[0.4, 0.15, 0.15, 0.15, 0.15]], atol=1e-6
    )


@pytest.mark.parametrize("method", ["geometric", "power", "median", "trimmed", "max"])
def test_an_absent_run_has_no_influence_on_a_row(method: str) -> None:
    a, b, c = (np.random.default_rng(i).dirichlet(np.ones(3), 4) for i in range(3))
    here = [
        probability_run("a", a),
        probability_run("b", b, rows=np.array([0, -1, 2, -1])),
        probability_run("c", c, rows=np.array([0, 1, 2, -1])),
    ]
    result = vote(split_of(*here, n=4), method, {"a": 0.5, "b": 0.3, "c": 0.2}).probabilities
    np.testing.assert_allclose(result[[0, 2]], voted([a, b, c], method, [0.5, 0.3, 0.2])[[0, 2]], atol=1e-7)
    np.testing.assert_allclose(result[1], voted([a, c], method, [0.5, 0.2])[1], atol=1e-7)
    np.testing.assert_allclose(result[3], a[3], atol=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"power": np.nan}, "power=nan: expected a finite number"),
        ({"power": np.inf}, "power=inf: expected a finite number"),
        ({"trim": 0.5}, "trim=0.5: expected a share from 0 to below .5"),
        ({"trim": -0.1}, "trim=-0.1: expected"),
        ({"trim": np.nan}, "trim=nan: expected"),
        ({"by": "mask"}, "by=mask: expected class or attribute"),
    ],
)
def test_invalid_options_are_an_error(options: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Options(**options)  # type: ignore[arg-type]
