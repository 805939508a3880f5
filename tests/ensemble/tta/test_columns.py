"""Views of several labels or numbers are merged by column, and their weights follow the loss of the task."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.tta.columns import column_weights
from ensemble.tta.merge import Merge, MergeConfig, merge_views
from ensemble.tta.weights import OOFViews, apply, fit, nested_view_scores
from folds.errors import EnsembleError
from folds.metrics.task_names import MULTILABEL, REGRESSION
from folds.utils.numeric import sigmoid

OUTPUTS = np.random.default_rng(0).normal(size=(3, 7, 2))


def test_labels_are_merged_without_normalizing_rows() -> None:
    chances = sigmoid(OUTPUTS)
    weights = np.array([0.5, 0.3, 0.2])
    np.testing.assert_allclose(merge_views(OUTPUTS, "mean", task=MULTILABEL), chances.mean(axis=0))
    np.testing.assert_allclose(
        merge_views(OUTPUTS, "weighted", weights, MULTILABEL), np.einsum("v,vnc->nc", weights, chances)
    )
    product, against = (np.exp(np.log(one).mean(axis=0)) for one in (chances, 1 - chances))
    np.testing.assert_allclose(merge_views(OUTPUTS, "geometric", task=MULTILABEL), product / (product + against))


def test_numbers_are_merged_as_they_are() -> None:
    np.testing.assert_allclose(merge_views(OUTPUTS, "median", task=REGRESSION), np.median(OUTPUTS, axis=0))
    merged = Merge("weighted", {"a": (3.0,), "b": (1.0,), "c": (0.0,)}).merged(OUTPUTS, REGRESSION)
    np.testing.assert_allclose(merged, 0.75 * OUTPUTS[0] + 0.25 * OUTPUTS[1])


@pytest.mark.parametrize(
    ("merge", "task"),
    [
        (Merge("classwise", {"none": (1.0, 1.0)}), MULTILABEL),
        (Merge("geometric", {"none": (1.0,)}), REGRESSION),
        (Merge("mean", {"none": (1.0,), "hflip": (1.0,)}, threshold=0.5), MULTILABEL),
    ],
)
def test_a_stored_merge_of_another_task_is_refused(merge: Merge, task: str) -> None:
    with pytest.raises(EnsembleError, match=f"is not for the task {task}"):
        merge.check_task(task)


def world(task: str, seed: int = 0) -> OOFViews:
    """Draw 20 people with five images: the first view is noisy, the second good, the third useless."""
    random = np.random.default_rng(seed)
    truth = random.normal(size=(100, 2)) * [1, 50]
    noise = np.array([1.0, 0.2, 8.0])[:, None, None] * random.normal(size=(3, 100, 2)) * [1, 50]
    labels = truth if task == REGRESSION else (truth > 0).astype(float)
    labels[:4, 0] = np.nan
    outputs = truth + noise if task == REGRESSION else 3 * (truth + noise) / [1, 50]
    persons = np.repeat(np.arange(20), 5)
    return OOFViews(("none", "good", "useless"), outputs, labels, persons, persons % 4, task)


@pytest.mark.parametrize("task", [MULTILABEL, REGRESSION])
def test_the_good_view_gets_the_most_weight(task: str) -> None:
    known = world(task)
    weights = fit(known, MergeConfig("weighted")).weights
    assert max(weights, key=lambda view: weights[view]) == "good"
    assert set(fit(known, MergeConfig("mean", budget=1)).weights) == {"good"}
    nested, _ = nested_view_scores(known, MergeConfig("auto"))
    sign = 1 if known.metric.greater_is_better else -1
    plain = known.metric(known.labels, apply(Merge("mean", {"none": (1.0,)}), known)[0])
    assert sign * known.metric(known.labels, nested) > sign * plain


def test_cells_without_a_label_have_no_effect() -> None:
    known = world(REGRESSION)
    values = known.logits.copy()
    values[:, :4, 0] = 1e6
    for how in ("weighted", "median"):
        expected, found = (
            column_weights(one, known.labels, REGRESSION, how, 2, steps=50, equal=0.5) for one in (known.logits, values)
        )
        np.testing.assert_array_equal(found, expected)


def test_the_unit_of_a_number_does_not_decide() -> None:
    known = world(REGRESSION)
    scale = np.array([1000.0, 0.01])
    first, second = (
        column_weights(known.logits * by, known.labels * by, REGRESSION, "weighted", 3, steps=50, equal=0.5)
        for by in (np.ones(2), scale)
    )
    np.testing.assert_allclose(first, second)
