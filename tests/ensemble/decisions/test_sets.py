"""Prediction sets: scores and quantiles by hand, and the coverage of new people."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.decisions.rows import uniform_of
from ensemble.decisions.sets import (
    ALL_IMAGES,
    ANY_IMAGE,
    EACH_CLASS,
    EVERYTHING,
    SCORES,
    fit_sets,
    hierarchical_quantile,
    people_for_sets,
    scores_of,
)
from tests.ensemble.decisions.decision_worlds import world


def test_scores_by_hand() -> None:
    values, half = np.array([[0.2, 0.5, 0.3]]), np.array([0.5])
    np.testing.assert_allclose(scores_of(values, half, "lac"), [[0.8, 0.5, 0.7]])
    np.testing.assert_allclose(scores_of(values, half, "aps"), [[0.9, 0.25, 0.65]])
    np.testing.assert_allclose(scores_of(values, half, "raps"), [[1.0, 0.25, 0.65]])


def test_with_one_image_a_person_the_quantile_is_that_of_split_conformal() -> None:
    random = np.random.default_rng(0)
    for n in (9, 10, 19, 57, 100):
        scores = random.random(n)
        for level in (0.5, 0.8, 0.9):
            rank = math.ceil(level * (n + 1) - 1e-9)
            assert hierarchical_quantile(scores, np.arange(n), level) == np.sort(scores)[rank - 1]


def test_the_quantile_of_people_with_several_images_by_hand() -> None:
    # Weights of the scores .1 .2 .3 .4: 1/2 each for two people with two images; a third person at infinity.
    scores, persons = np.array([0.1, 0.4, 0.2, 0.3]), np.array([0, 0, 1, 1])
    assert hierarchical_quantile(scores, persons, 0.5) == 0.3  # 1.5 of 3 are reached at the third score
    assert hierarchical_quantile(scores, persons, 2 / 3) == 0.4
    assert hierarchical_quantile(scores, persons, 0.7) == EVERYTHING


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 20)), min_size=1, max_size=40),
    st.sampled_from([0.3, 0.5, 0.8, 0.9]),
    st.randoms(use_true_random=False),
)
def test_the_quantile_is_the_smallest_score_with_enough_weight(
    rows: list[tuple[int, int]], level: float, shuffler: Any
) -> None:
    persons, scores = np.array([row[0] for row in rows]), np.array([row[1] / 20 for row in rows])
    people = np.unique(persons)
    share = {value: np.mean([np.mean(scores[persons == one] <= value) for one in people]) for value in scores.tolist()}
    enough = [value for value, part in share.items() if part * len(people) / (len(people) + 1) >= level - 1e-9]
    expected = min(enough, default=EVERYTHING)
    assert hierarchical_quantile(scores, persons, level) == expected
    order = list(range(len(rows)))
    shuffler.shuffle(order)
    assert hierarchical_quantile(scores[order], persons[order], level) == expected


@pytest.mark.parametrize(("level", "people"), [(0.9, 9), (0.8, 4), (0.95, 19), (0.5, 1)])
def test_the_smallest_number_of_people_for_a_set_that_is_not_everything(level: float, people: int) -> None:
    assert people_for_sets(level) == people
    scores = np.arange(people) / 100
    assert hierarchical_quantile(scores, np.arange(people), level) < EVERYTHING
    assert hierarchical_quantile(scores[1:], np.arange(people - 1), level) == EVERYTHING


def test_a_class_without_people_is_always_in_the_set() -> None:
    rows = world(40, classes=3)
    labels = np.minimum(rows.labels, 1)
    rule = fit_sets(rows.probabilities, labels, rows.persons, np.zeros(len(rows)), 0.8, EACH_CLASS)
    assert rule.limits[2] == EVERYTHING
    assert rule.contains(rows.probabilities, np.zeros(len(rows)))[:, 2].all()
    assert max(rule.limits[:2]) < EVERYTHING


def test_the_random_part_depends_on_the_id_alone_and_is_uniform() -> None:
    names = np.array([f"img{i}.jpg" for i in range(2000)])
    values = uniform_of(names)
    assert (uniform_of(names[::-1]) == values[::-1]).all()
    assert values.min() >= 0
    assert values.max() < 1
    assert abs(np.sort(values) - np.arange(2000) / 2000).max() < 0.04  # Kolmogorov's bound at 99%: .036


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("target", [ANY_IMAGE, ALL_IMAGES, EACH_CLASS])
def test_sets_cover_new_people_as_often_as_stated(score: str, target: str) -> None:
    test = world(1500, seed=999, effect=2.0, classes=3)
    uniform, covered = uniform_of(test.ids), []
    for seed in range(25):
        rows = world(60, seed, effect=2.0, classes=3)
        rule = fit_sets(rows.probabilities, rows.labels, rows.persons, uniform_of(rows.ids), 0.8, target, score)
        inside = rule.contains(test.probabilities, uniform)[np.arange(len(test)), test.labels]
        if target == ALL_IMAGES:
            inside = np.bincount(test.persons, ~inside) == 0
        covered.append(inside.mean())
    assert np.mean(covered) >= 0.8 - 0.035  # the draws and the new people each have a standard error of about .01
    assert np.mean(covered) <= 0.92
