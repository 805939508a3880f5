"""Probabilities of any logits, and who stands in two folds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax as reference

from folds.utils.numeric import groups_in_several_folds, softmax


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
