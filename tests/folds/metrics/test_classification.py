from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from folds.metrics.classification import METRICS
from folds.metrics.confusion import accuracy, argmax_classes, confusion_counts, f1_per_class, macro_f1
from folds.metrics.row_scores import log_loss, roc_auc_per_class
from tests.folds.scored_people import CLASSES, Data, scored


def f1_of_sklearn(labels: np.ndarray, predicted: np.ndarray) -> float:
    return float(sklearn.metrics.f1_score(labels, predicted, labels=range(CLASSES), average="macro", zero_division=0))


@settings(max_examples=60)
@given(scored())
def test_class_scores_equal_scikit_learn_with_absent_classes(data: Data) -> None:
    labels, probabilities, _ = data
    predicted = probabilities.argmax(1)
    assert macro_f1(labels, predicted, CLASSES) == pytest.approx(f1_of_sklearn(labels, predicted), abs=1e-12)
    assert METRICS["macro_f1"](labels, probabilities) == pytest.approx(f1_of_sklearn(labels, predicted), abs=1e-12)
    per_class = sklearn.metrics.f1_score(labels, predicted, labels=range(CLASSES), average=None, zero_division=0)
    np.testing.assert_allclose(f1_per_class(labels, predicted, CLASSES), per_class, atol=1e-12)
    expected = sklearn.metrics.accuracy_score(labels, predicted)
    assert (
        accuracy(labels, predicted) == METRICS["accuracy"](labels, probabilities) == pytest.approx(expected, abs=1e-12)
    )


@settings(max_examples=60)
@given(scored())
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_balanced_accuracy_equals_scikit_learn(data: Data) -> None:
    labels, probabilities, _ = data
    expected = sklearn.metrics.balanced_accuracy_score(labels, probabilities.argmax(1))
    assert METRICS["balanced_accuracy"](labels, probabilities) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60)
@given(scored(), st.sampled_from([np.float32, np.float64]))
def test_log_loss_is_that_of_scikit_learn_in_both_precisions(data: Data, dtype: type) -> None:
    labels, probabilities, _ = data
    probabilities = probabilities.astype(dtype)
    expected = sklearn.metrics.log_loss(labels, probabilities, labels=range(CLASSES))
    assert log_loss(labels, probabilities) == pytest.approx(expected, rel=1e-5 if dtype is np.float32 else 1e-12)
    assert METRICS["log_loss"](labels, probabilities) == log_loss(labels, probabilities)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_loss_of_a_certain_mistake_equals_scikit_learn(dtype: type) -> None:
    labels, probabilities = np.array([0, 1]), np.array([[0, 1], [0, 1]], dtype)
    found = log_loss(labels, probabilities)
    assert found == pytest.approx(-np.log(np.finfo(dtype).eps) / 2, rel=1e-6)
    assert found == pytest.approx(sklearn.metrics.log_loss(labels, probabilities), rel=1e-6)


@settings(max_examples=60)
@given(scored(), st.sampled_from([np.float32, np.float64]))
@pytest.mark.filterwarnings("ignore:The y_prob values do not sum")
def test_the_brier_score_is_the_whole_sum_of_squares(data: Data, dtype: type) -> None:
    labels, probabilities, _ = data
    probabilities = probabilities.astype(dtype)
    expected = sklearn.metrics.brier_score_loss(
        labels, probabilities.astype(float), labels=range(CLASSES), scale_by_half=False
    )
    assert METRICS["brier"](labels, probabilities) == pytest.approx(
        expected, rel=1e-5 if dtype is np.float32 else 1e-12
    )


def test_brier_of_two_classes_is_twice_that_of_the_positive_one() -> None:
    labels, positive = np.array([0, 1, 1]), np.array([0.2, 0.7, 0.1])
    found = METRICS["brier"](labels, np.stack([1 - positive, positive], axis=1))
    assert found == pytest.approx(2 * sklearn.metrics.brier_score_loss(labels, positive, scale_by_half=True))


@settings(max_examples=60)
@given(scored())
@pytest.mark.filterwarnings("ignore")
def test_kappa_equals_scikit_learn_and_is_0_where_undefined(data: Data) -> None:
    labels, probabilities, _ = data
    predicted = probabilities.argmax(1)
    expected = sklearn.metrics.cohen_kappa_score(labels, predicted, labels=range(CLASSES))
    assert METRICS["kappa"](labels, probabilities) == pytest.approx(0.0 if np.isnan(expected) else expected, abs=1e-12)


@settings(max_examples=60)
@given(scored(), st.integers(1, 8))
def test_roc_auc_equals_scikit_learn_with_ties_and_absences(data: Data, steps: int) -> None:
    labels, probabilities, _ = data
    probabilities = np.round(probabilities * steps) / steps  # many are equal
    areas = roc_auc_per_class(labels, probabilities)
    for one in range(CLASSES):
        mine = labels == one
        if mine.all() or not mine.any():
            assert np.isnan(areas[one])
        else:
            assert areas[one] == pytest.approx(sklearn.metrics.roc_auc_score(mine, probabilities[:, one]), abs=1e-12)
    known = areas[~np.isnan(areas)]
    assert METRICS["roc_auc"](labels, probabilities) == pytest.approx(
        known.mean() if len(known) else np.nan, nan_ok=True
    )


def test_roc_auc_of_all_classes_is_one_against_the_rest() -> None:
    rng = np.random.default_rng(0)
    labels, probabilities = rng.permutation(np.arange(200) % CLASSES), rng.dirichlet(np.ones(CLASSES), 200)
    expected = sklearn.metrics.roc_auc_score(labels, probabilities, multi_class="ovr")
    assert METRICS["roc_auc"](labels, probabilities) == pytest.approx(expected, abs=1e-12)


def test_only_losses_are_better_when_smaller() -> None:
    assert {name for name, metric in METRICS.items() if not metric.greater_is_better} == {
        "log_loss",
        "brier",
        "grade_mae",
        "column_log_loss",
    }
    assert all(name == metric.name for name, metric in METRICS.items())


@settings(max_examples=60)
@given(scored(), st.sampled_from(list(METRICS)))
def test_a_score_lies_between_its_bounds(data: Data, name: str) -> None:
    value = METRICS[name](*data[:2])
    assert np.isnan(value) or METRICS[name].lower_bound <= value <= METRICS[name].upper_bound


def test_the_first_of_equal_classes_is_predicted() -> None:
    assert argmax_classes(np.array([[0.4, 0.4, 0.2], [0.1, 0.45, 0.45]])).tolist() == [0, 1]


def test_class_counts_are_hits_labels_and_predictions() -> None:
    labels, predicted = np.array([0, 0, 2, 2, 2]), np.array([0, 1, 2, 2, 0])
    assert confusion_counts(labels, predicted, 4).tolist() == [[1, 0, 2, 0], [2, 0, 3, 0], [2, 1, 2, 0]]


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.from_counts is not None])
def test_sums_over_classes_give_the_score_of_the_counts(name: str) -> None:
    metric, random = METRICS[name], np.random.default_rng(0)
    assert metric.from_counts is not None
    assert metric.class_sums is not None
    counts = random.integers(0, 9, (50, 3, 4))
    counts[:, 0] = np.minimum(counts[:, 0], counts[:, 1:].min(axis=1))
    counts[:10, 1, 2] = counts[:10, 0, 2] = counts[:5, 2, 2] = 0  # absent, and neither present nor predicted
    terms = metric.class_sums.terms(counts[:, 0], counts[:, 1], counts[:, 2])
    found = metric.class_sums.score([term.sum(axis=-1) for term in terms], 4)
    np.testing.assert_allclose(found, metric.from_counts(counts), atol=1e-12)


def test_only_metrics_of_counts_have_sums_over_classes() -> None:
    assert {name for name, one in METRICS.items() if one.class_sums} == {
        name for name, one in METRICS.items() if one.from_counts
    }
