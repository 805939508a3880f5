"""Tests of merging the logits of views, and of merge records."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from ensemble.tta.merge import Merge, MergeConfig, margins, merge_views
from folds.errors import EnsembleError, UsageError
from folds.utils.numeric import softmax

LOGITS = np.random.default_rng(0).normal(scale=3, size=(3, 40, 4)).astype(np.float32)


def test_arithmetic_and_geometric_means_match_their_definitions() -> None:
    logits = np.random.default_rng(0).normal(scale=3, size=(4, 200, 5))
    probabilities = softmax(logits)
    np.testing.assert_allclose(merge_views(logits, "mean"), probabilities.mean(0))
    product = probabilities.prod(0) ** (1 / 4)
    np.testing.assert_allclose(merge_views(logits, "geometric"), product / product.sum(1, keepdims=True))
    assert (merge_views(logits, "geometric").argmax(1) == logits.mean(0).argmax(1)).all()
    assert (merge_views(logits, "mean").argmax(1) != logits.mean(0).argmax(1)).any()


@pytest.mark.parametrize("how", ["mean", "geometric"])
def test_a_merge_of_extreme_logits_is_finite(how: str) -> None:
    merged = merge_views(np.array([[[1e4, -1e4, 0.0]], [[-1e4, 1e4, 0.0]]]), how)
    assert np.isfinite(merged).all()
    np.testing.assert_allclose(merged.sum(1), 1)


def test_weighted_merges_match_their_definitions() -> None:
    weights = np.array([0.5, 0.3, 0.2])
    probabilities = softmax(LOGITS)
    np.testing.assert_allclose(merge_views(LOGITS, "weighted", weights), np.einsum("v,vnc->nc", weights, probabilities))
    by_class = np.random.default_rng(1).uniform(0.1, 1, (3, 4))
    expected = np.einsum("vc,vnc->nc", by_class, probabilities)
    np.testing.assert_allclose(merge_views(LOGITS, "classwise", by_class), expected / expected.sum(1, keepdims=True))
    np.testing.assert_allclose(merge_views(LOGITS, "weighted", np.full(3, 1 / 3)), merge_views(LOGITS, "mean"))


def test_invalid_merge_options_are_rejected_with_close_matches() -> None:
    with pytest.raises(UsageError, match="did you mean geometric"):
        MergeConfig("geometrical").check()
    with pytest.raises(UsageError, match="expected 1 or more views per image"):
        MergeConfig(budget=0).check()


@pytest.mark.parametrize("weights", [{"none": (0.25,), "hflip": (0.75,)}, {"none": (0.25, 0.5), "hflip": (0.75, 0.5)}])
def test_a_merge_is_read_as_written(weights: dict[str, tuple[float, ...]]) -> None:
    merge = Merge("weighted" if len(weights["none"]) == 1 else "classwise", weights, threshold=0.125)
    assert Merge.from_json(json.loads(json.dumps(merge.to_dict())), 2) == merge


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"how": "exec"}, "'how' is 'exec'"),
        ({"weights": {}}, "one or more views"),
        ({"weights": {"none": "1"}}, "'weights' is"),
        ({"weights": {"none": [0.5, 0.5, 0.5]}}, "'weights' is"),
        ({"weights": {"none": 0.5, "hflip": [0.5, 0.5]}}, "equally many weights per view"),
        ({"weights": {"none": -0.5}}, "none below 0"),
        ({"weights": {"none": 0, "hflip": 0}}, "above 0, for each class"),
        ({"weights": {"none": [0.5, 0], "hflip": [0.5, 0.0]}}, "above 0, for each class"),
        ({"weights": {"none": 1e308, "hflip": 1e308}}, "above 0, for each class"),
        ({"weights": {"none": 10**400}}, "'weights' is"),
        ({"threshold": "low"}, "'threshold' is 'low'"),
    ],
)
def test_invalid_merge_records_are_rejected(change: dict[str, Any], message: str) -> None:
    with pytest.raises(EnsembleError, match="invalid merge of views") as error:
        Merge.from_json(Merge("weighted", {"none": (1.0,)}).to_dict() | change, 2)
    assert message in error.value.message


def test_margin_is_highest_minus_second_probability() -> None:
    np.testing.assert_allclose(margins(np.array([[0.2, 0.7, 0.1], [0.5, 0.5, 0.0]])), [0.5, 0])


def test_more_views_are_needed_only_below_the_threshold() -> None:
    plain = np.log(np.array([[0.9, 0.1], [0.55, 0.45]]))
    weights = {"none": (0.5,), "hflip": (0.5,)}
    assert Merge("mean", weights, threshold=0.5).needs_more_views(plain).tolist() == [False, True]
    assert Merge("mean", weights).needs_more_views(plain).tolist() == [True, True]
    assert Merge("mean", {"none": (1.0,)}).needs_more_views(plain).tolist() == [False, False]
