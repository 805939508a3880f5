from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from sklearn.calibration import calibration_curve

from folds.metrics.calibration import binned, calibration_error, classwise_calibration_error, reliability
from tests.folds.scored_people import CLASSES, Data, scored


@settings(max_examples=60)
@given(scored())
def test_the_error_is_that_of_going_through_the_bins_one_by_one(data: Data) -> None:
    labels, probabilities, _ = data
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    expected = 0.0
    for i in range(15):
        rows = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        expected += abs(confidence[rows].sum() - right[rows].sum()) / len(labels)
    bins = reliability(labels, probabilities)
    assert calibration_error(bins) == pytest.approx(expected, abs=1e-9)
    assert sum(one.count for one in bins) == len(labels)


@settings(max_examples=60)
@given(scored())
def test_the_classwise_error_is_the_mean_over_the_classes(data: Data) -> None:
    labels, probabilities, _ = data
    errors = [calibration_error(binned(probabilities[:, one], labels == one)) for one in range(CLASSES)]
    assert classwise_calibration_error(labels, probabilities) == pytest.approx(np.mean(errors))


def test_the_bins_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(500)
    right = rng.random(500) < confidence
    accuracy, confident = calibration_curve(right, confidence, n_bins=10)
    bins = binned(confidence, right, 10)
    assert [one.accuracy for one in bins] == pytest.approx(list(accuracy))
    assert [one.confidence for one in bins] == pytest.approx(list(confident))
    assert [(bins[0].low, bins[-1].high)] == [(0, 1)]


def test_equal_mass_bins_have_equal_counts_and_keep_ties() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(150) ** 0.1
    assert [one.count for one in binned(confidence, confidence > 0.9, equal_mass=True)] == [10] * 15
    tied = np.repeat([0.5, 0.9], [140, 10])
    bins = [one for one in binned(tied, tied > 0, equal_mass=True) if one.count]
    assert [one.count for one in bins] == [140, 10]
    assert calibration_error(bins) == pytest.approx((140 * 0.5 + 10 * 0.1) / 150)
    assert (
        sum(one.count for one in binned(np.array([0.0, 0.2, 1.0]), np.array([True, False, True]), equal_mass=True)) == 3
    )


def test_only_overconfident_predictions_have_an_error() -> None:
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(4), 40_000)
    labels = (rng.random(40_000)[:, None] > p.cumsum(1)).sum(1)
    boasting = p**3 / (p**3).sum(1, keepdims=True)
    assert calibration_error(reliability(labels, p)) < 0.02 < 0.15 < calibration_error(reliability(labels, boasting))
    assert classwise_calibration_error(labels, p) < 0.01 < 0.05 < classwise_calibration_error(labels, boasting)
    assert calibration_error(reliability(labels, p, equal_mass=True)) < 0.02
