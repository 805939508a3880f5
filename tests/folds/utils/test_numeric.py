"""Probabilities of any logits, and who stands in two folds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from scipy.special import softmax as reference

from folds.utils.numeric import are_distinct, factorize, groups_in_several_folds, softmax


@pytest.mark.parametrize("shape", [(5, 3), (2, 5, 3), (0, 3), (4,)])
def test_softmax_is_that_of_scipy_in_a_new_array_and_in_place(shape: tuple[int, ...]) -> None:
    logits = 50 * np.random.default_rng(0).normal(size=shape)
    expected = reference(logits, axis=-1) if logits.size else logits
    before = logits.copy()
    apart = softmax(logits)
    assert apart == pytest.approx(expected, abs=1e-15)
    assert np.array_equal(logits, before)
    assert softmax(logits, out=logits) is logits
    assert np.array_equal(logits, apart)


def test_softmax_is_finite_for_any_finite_logits() -> None:
    assert softmax(np.array([[1e38, -1e38, 0]], np.float32)).tolist() == [[1, 0, 0]]


def test_groups_with_rows_in_two_folds_are_found() -> None:
    groups, fold = np.array([3, 0, 3, 1, 1, 0, 7]), np.array([0, 1, 2, 1, 0, 1, 2])
    assert groups_in_several_folds(groups, fold).tolist() == [1, 3]
    assert groups_in_several_folds(groups, np.zeros(7, int)).tolist() == []


def test_a_row_of_unknown_fold_tears_nobody_apart() -> None:
    assert groups_in_several_folds(np.array([0, 0, 1]), np.array([-1, 2, -1])).tolist() == []
    assert groups_in_several_folds(np.array([0, 0]), np.array([-1, -1])).tolist() == []
    assert groups_in_several_folds(np.zeros(0, int), np.zeros(0, int)).tolist() == []


@given(st.lists(st.integers(-3, 40)) | st.lists(st.text("ab1é", max_size=3), min_size=1))
def test_factorize_is_unique_with_its_inverse(values: list[int] | list[str]) -> None:
    array = np.array(values, int) if not values or isinstance(values[0], int) else np.array(values)
    distinct, codes = factorize(array)
    expected, inverse = np.unique(array, return_inverse=True)
    assert distinct == expected.tolist()
    assert codes.tolist() == inverse.tolist()


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(-1, 3))))
def test_a_group_in_two_folds_is_found(rows: list[tuple[int, int]]) -> None:
    groups, fold = np.array(rows, int).reshape(-1, 2).T
    expected = [
        one for one in sorted(set(groups.tolist())) if len(set(fold[(groups == one) & (fold >= 0)].tolist())) > 1
    ]
    assert groups_in_several_folds(groups, fold).tolist() == expected


@given(arrays(np.float64, array_shapes(min_dims=1, max_dims=3, max_side=4), elements=st.floats(-1e4, 1e4)))
def test_softmax_is_that_of_scipy_and_sums_to_one(logits: NDArray) -> None:
    found = softmax(logits)
    np.testing.assert_allclose(found, reference(logits, axis=-1), atol=1e-12)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-12)


def test_softmax_is_stable_and_computes_in_double_precision() -> None:
    extreme = np.array([[3e38, -3e38, 0], [-3e38, -3e38, -3e38]], np.float32)
    found = softmax(extreme)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3]])
    np.testing.assert_allclose(softmax(np.array([1000.0, 1001.0])), softmax(np.array([0.0, 1.0])))


def test_softmax_leaves_its_input_as_it_was() -> None:
    logits = np.array([[1.0, 2.0]])
    softmax(logits)
    assert logits.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("order", ["neighbors", "shuffled"])
@pytest.mark.parametrize("form", [list, np.array])
def test_factorize_of_many_repeated_texts_is_that_of_unique(order: str, form: type) -> None:
    names = [f"person{i}" for i in range(3000)]
    cells = [names[i // 7] for i in range(7 * len(names))]
    if order == "shuffled":
        cells = [cells[i] for i in np.random.default_rng(0).permutation(len(cells))]
    cells[5] = "".join(["person", "7"])  # an equal text that is another object
    distinct, codes = factorize(form(cells))
    expected, inverse = np.unique(np.array(cells), return_inverse=True)
    assert distinct == expected.tolist()
    assert np.array_equal(codes, inverse)


def test_texts_are_distinct_in_any_order() -> None:
    ids = np.array([f"{i:06d}" for i in range(40_000)])
    assert are_distinct(ids)
    assert are_distinct(ids[::-1])
    assert not are_distinct(np.append(ids, ids[0]))
    assert not are_distinct(np.insert(ids, 20_000, ids[20_000]))
