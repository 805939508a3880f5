"""Abstention: the risk–coverage curve by hand and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from ensemble.decisions.abstention import area, area_interval, confidence_of, curve, fit_abstention, risk_coverage
from ensemble.decisions.rows import weights_of
from folds.metrics.intervals import jackknife_standard_error
from tests.ensemble.decisions.decision_worlds import world


def test_the_curve_and_its_area_by_hand() -> None:
    confidence = np.array([0.9, 0.8, 0.7, 0.6])
    wrong = np.array([False, True, False, True])
    values, coverage, risk = risk_coverage(confidence, wrong, np.arange(4))
    assert values.tolist() == [0.9, 0.8, 0.7, 0.6]
    np.testing.assert_allclose(coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(risk, [0, 1 / 2, 1 / 3, 1 / 2])
    assert area(coverage, risk) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_people_count_equally_in_the_curve() -> None:
    # A person with three wrong images and one with one right image: the risk is a half, not three quarters.
    _, coverage, risk = risk_coverage(np.full(4, 0.9), np.array([True, True, True, False]), np.array([0, 0, 0, 1]))
    assert (coverage.tolist(), risk.tolist()) == ([1.0], [0.5])


def test_the_risk_is_one_minus_the_precision_of_scikit_learn() -> None:
    rows = world(50, skill=1.0)
    confidence = np.round(rows.probabilities.max(axis=1), 2)
    wrong = rows.probabilities.argmax(axis=1) != rows.labels
    values, _, risk = risk_coverage(confidence, wrong, rows.persons)
    precision, _, thresholds = precision_recall_curve(~wrong, confidence, sample_weight=weights_of(rows.persons))
    np.testing.assert_allclose(values[::-1], thresholds)
    np.testing.assert_allclose(1 - risk[::-1], precision[:-1], atol=1e-12)


def test_points_of_the_curve_answer_at_most_their_coverage() -> None:
    rows = world(60, skill=1.0)
    confidence, wrong = rows.probabilities.max(axis=1), rows.probabilities.argmax(axis=1) != rows.labels
    points = curve(confidence, wrong, rows.persons, (1.0, 0.5))
    assert points[0].coverage == pytest.approx(1)
    assert 0.45 < points[1].coverage <= 0.5 + 1e-9
    shares = [wrong[(rows.persons == one) & (confidence >= points[1].threshold)] for one in range(60)]
    assert points[1].risk.value == pytest.approx(np.mean([one.mean() for one in shares if len(one)]))
    assert points[1].risk.low < points[1].risk.value < points[1].risk.high


def test_equal_confidences_give_one_point() -> None:
    points = curve(np.full(6, 0.8), np.zeros(6, bool), np.arange(6))
    assert [point.coverage for point in points] == [1.0]


def test_the_area_has_an_interval_over_people() -> None:
    rows = world(60, skill=1.0)
    found = area_interval(
        rows.probabilities.max(axis=1), rows.probabilities.argmax(axis=1) != rows.labels, rows.persons
    )
    assert 0 < found.low < found.value < found.high < 1


@pytest.mark.parametrize("people", [2, 10, 300])
def test_the_error_of_the_area_leaves_out_whole_groups(people: int) -> None:
    random = np.random.default_rng(people)
    persons = np.sort(np.concatenate([np.arange(people), random.integers(0, people, 3 * people)]))
    confidence, wrong = np.round(random.random(len(persons)), 2), random.random(len(persons)) < 0.3
    groups = min(people, 200)
    group = (np.random.default_rng(0).permutation(people) % groups)[persons]
    left_out = []
    for one in range(groups):
        rows = group != one
        remaining = np.unique(persons[rows], return_inverse=True)[1]
        left_out.append(area(*risk_coverage(confidence[rows], wrong[rows], remaining)[1:]))
    found = area_interval(confidence, wrong, persons)
    expected = jackknife_standard_error(np.array(left_out), found.value)
    assert found.standard_error == pytest.approx(float(expected), rel=1e-9)


def test_the_confidence_is_that_of_the_decided_class() -> None:
    values = np.array([[0.7, 0.3], [0.6, 0.4]])
    assert confidence_of(values, np.array([1, -1])).tolist() == [0.3, 0.6]


def test_a_lower_error_answers_less_and_an_impossible_one_nothing() -> None:
    rows = world(400, skill=2.0)
    decided = rows.probabilities.argmax(axis=1)
    wrong, answered = decided != rows.labels, np.ones(len(rows), bool)
    confidence = rows.probabilities.max(axis=1)
    found = [fit_abstention(confidence, wrong, answered, rows.persons, rows.draw, limit, 0.1) for limit in (0.15, 0.1)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0] < found[1]
    assert fit_abstention(confidence, wrong, answered, rows.persons, rows.draw, 1e-4, 0.1) is None
