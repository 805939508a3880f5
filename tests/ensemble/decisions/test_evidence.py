"""Tests on people: exact p-values, and thresholds that keep a limit for new people."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import roc_curve

from ensemble.decisions.evidence import (
    GRID,
    highest_threshold,
    lowest_threshold,
    one_row_each,
    p_value,
    people_needed,
    sums_from_the_top,
)


@pytest.mark.parametrize(("wrong", "people", "limit"), [(0, 45, 0.05), (3, 60, 0.1), (10, 20, 0.5), (0, 1, 0.3)])
def test_p_values_are_binomial_tails(wrong: int, people: int, limit: float) -> None:
    assert p_value(wrong, people, limit) == pytest.approx(binom.cdf(wrong, people, limit), abs=1e-9)


def test_without_people_or_with_only_mistakes_nothing_is_shown() -> None:
    assert p_value(0, 0, 0.1) == p_value(4, 4, 0.1) == 1.0


@pytest.mark.parametrize(("limit", "people"), [(0.05, 45), (0.1, 22), (0.5, 4)])
def test_the_people_needed_are_just_enough(limit: float, people: int) -> None:
    assert people_needed(limit, 0.1) == people
    assert p_value(0, people, limit) <= 0.1 < p_value(0, people - 1, limit)


def test_one_row_of_each_person_is_drawn() -> None:
    persons, draw = np.array([0, 0, 1, 2, 2, 2]), np.array([0.9, 0.1, 0.5, 0.7, 0.6, 0.8])
    assert one_row_each(np.arange(6), persons, draw).tolist() == [1, 2, 4]
    assert one_row_each(np.array([0, 3, 5]), persons, draw).tolist() == [0, 3]


def test_sums_from_the_top_are_the_roc_curve_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    y, scores = random.random(200) < 0.4, random.integers(0, 50, 200) / 50
    values, hits, alarms = sums_from_the_top(scores, y.astype(float), (~y).astype(float))
    false_rate, true_rate, thresholds = roc_curve(y, scores, drop_intermediate=False)
    np.testing.assert_allclose(hits / y.sum(), true_rate[1:])
    np.testing.assert_allclose(alarms / (~y).sum(), false_rate[1:])
    np.testing.assert_allclose(values, thresholds[1:])


def test_the_highest_threshold_by_hand() -> None:
    # 30 people with one image each: with 95% kept, one may be below; binomially none may at 10%: .9^30 = .042.
    scores, persons, draw = np.linspace(0.2, 0.8, 30), np.arange(30), np.linspace(0, 1, 30)
    assert highest_threshold(scores, persons, draw, 0.05, 0.0) == scores[1]
    assert highest_threshold(scores, persons, draw, 0.1, 0.1) == scores[0]
    assert highest_threshold(scores, persons, draw, 0.05, 0.1) is None  # 45 people are needed
    assert highest_threshold(np.zeros(0), np.zeros(0, np.int64), np.zeros(0), 0.1, 0.1) is None


def test_people_count_equally_whatever_their_images() -> None:
    # One person with 9 low images, nine people with one high image each: a tenth of the people is below .5.
    scores = np.concatenate([np.full(9, 0.1), np.full(9, 0.9)])
    persons = np.concatenate([np.zeros(9, np.int64), np.arange(1, 10)])
    assert highest_threshold(scores, persons, np.zeros(18), 0.1, 0.0) == 0.9
    assert highest_threshold(scores, persons, np.zeros(18), 0.09, 0.0) == 0.1


def test_the_lowest_observed_threshold_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    wrong = np.array([False, False, True, False, False])
    found = lowest_threshold(scores, wrong, np.arange(5), np.zeros(5), 0.2, 0.0)
    assert found == pytest.approx(0.25)  # all five are used, a fifth of them wrong
    found = lowest_threshold(scores, wrong, np.arange(5), np.zeros(5), 0.1, 0.0)
    assert found == pytest.approx(0.75)  # between .8 and the next lower .7
    assert lowest_threshold(scores, np.ones(5, bool), np.arange(5), np.zeros(5), 0.1, 0.0) is None


def test_equal_scores_are_used_together() -> None:
    scores, wrong = np.array([0.9, 0.5, 0.5]), np.array([False, False, True])
    found = lowest_threshold(scores, wrong, np.arange(3), np.zeros(3), 0.2, 0.0)
    assert found == pytest.approx(0.7)


def test_a_guaranteed_threshold_is_one_of_the_grid() -> None:
    random = np.random.default_rng(1)
    scores = random.random(2000)
    wrong = random.random(2000) < (1 - scores) / 2
    found = lowest_threshold(scores, wrong, np.arange(2000), random.random(2000), 0.1, 0.1)
    assert found in GRID.tolist()
    assert 0.65 <= found <= 0.9  # the share of wrong ones above t is (1 − t)/4: .1 at t = .6


def test_few_people_show_nothing() -> None:
    scores, wrong = np.full(20, 0.99), np.zeros(20, bool)
    assert lowest_threshold(scores, wrong, np.arange(20), np.linspace(0, 1, 20), 0.1, 0.1) is None


def test_guaranteed_thresholds_hold_in_most_draws_and_observed_ones_do_not() -> None:
    """P(wrong above t) = (1 − t)/4 here, so the limit .1 needs t ≥ .6."""
    missed = {0.1: 0, 0.0: 0}
    for seed in range(100):
        random = np.random.default_rng(seed)
        person = random.random(300)
        scores = np.repeat(person, 3)
        persons, draw = np.repeat(np.arange(300), 3), random.random(900)
        wrong = np.repeat(random.random(300) < (1 - person) / 2, 3)
        for error in missed:
            found = lowest_threshold(scores, wrong, persons, draw, 0.1, error)
            missed[error] += found is not None and found < 0.6 - 1e-9
    assert missed[0.1] <= 10
    assert missed[0.0] >= 30
