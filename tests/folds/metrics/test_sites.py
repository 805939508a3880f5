"""Intervals over sites hold for new sites, where those over people do not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from folds.errors import EnsembleError
from folds.metrics.classification import METRICS, Metric
from folds.metrics.distributions import t_quantile
from folds.metrics.intervals import interval_over_people
from folds.metrics.sites import difference_over_sites, interval_over_sites, score_sites

ACCURACY = METRICS["accuracy"]


def world(seed: int, sites: int, people: int = 20, spread: float = 0.5) -> tuple[np.ndarray, ...]:
    """Labels, probabilities, sites and persons: sites differ in how easy they are."""
    rng = np.random.default_rng(seed)
    site = np.repeat(np.arange(sites), people)
    ease = rng.normal(0, spread, sites)[site] + rng.normal(0, 0.7, len(site))
    person, site, ease = (np.repeat(one, 2) for one in (np.arange(len(site)), site, ease))
    labels = rng.integers(0, 3, sites * people)[person]
    logits = rng.normal(0, 1, (len(labels), 3))
    logits[np.arange(len(labels)), labels] += 1.2 + ease
    exp = np.exp(logits)
    return labels, exp / exp.sum(axis=1, keepdims=True), site, person


def test_the_interval_over_sites_covers_new_sites_and_that_over_people_does_not() -> None:
    labels, values, *_ = world(0, 3000, people=5)
    truth, hits = ACCURACY(labels, values), np.zeros(2)
    for seed in range(120):
        labels, values, sites, people = world(seed + 1, 6)
        hits += interval_over_sites(ACCURACY, labels, values, sites, people).contains(truth)
        hits[1] += interval_over_people(ACCURACY, labels, values, people).contains(truth)
        hits[1] -= interval_over_sites(ACCURACY, labels, values, sites, people).contains(truth)
    assert hits[0] >= 0.9 * 120
    assert hits[1] < 0.8 * 120


def test_the_standard_error_is_the_jackknife_with_sites_minus_one_degrees_of_freedom() -> None:
    labels, values, sites, people = world(3, 5)
    found = interval_over_sites(ACCURACY, labels, values, sites, people)
    right = values.argmax(1) == labels
    left = np.array([right[sites != one].mean() for one in range(5)])
    error = math.sqrt(4 / 5 * np.square(left - left.mean()).sum())
    assert found.standard_error == pytest.approx(error)
    share = right.mean()
    factor = math.exp(t_quantile(0.95, 4) * error / (share * (1 - share)))
    assert found.high == pytest.approx(share / (share + (1 - share) / factor))
    assert found.people == 5


def test_it_is_never_narrower_than_over_people() -> None:
    for seed in range(20):
        labels, values, sites, people = world(seed, 8, spread=0.0)
        over_sites = interval_over_sites(ACCURACY, labels, values, sites, people)
        over_people = interval_over_people(ACCURACY, labels, values, people)
        assert over_sites.low <= over_people.low
        assert over_sites.high >= over_people.high


def test_few_sites_are_said_and_one_has_no_interval() -> None:
    labels, values, sites, people = world(1, 3)
    found = interval_over_sites(ACCURACY, labels, values, sites, people)
    assert "only 3 sites" in found.warning
    one = sites == 0
    alone = interval_over_sites(ACCURACY, labels[one], values[one], sites[one], people[one])
    assert math.isnan(alone.low)
    assert "only one site" in alone.warning
    change = difference_over_sites(ACCURACY, labels[one], values[one], values[one][:, ::-1], sites[one], people[one])
    assert (change.p_value, math.isnan(change.difference.low)) == (1.0, True)


def test_the_paired_difference_is_the_gap_and_equal_models_have_none() -> None:
    labels, values, sites, people = world(2, 8)
    better = values.copy()
    better[np.arange(len(labels)), labels] += 0.3
    found = difference_over_sites(ACCURACY, labels, better, values, sites, people)
    assert found.difference.value == pytest.approx(ACCURACY(labels, values) - ACCURACY(labels, better))
    assert found.difference.high < 0
    assert found.is_significant
    assert difference_over_sites(ACCURACY, labels, values, values, sites, people).p_value == 1.0


def test_the_score_of_a_site_is_over_its_classes_and_a_failing_function_is_unknown() -> None:
    labels, values, sites, people = world(4, 2)
    labels[sites == 0] = 1
    values[sites == 0] = [0.1, 0.8, 0.1]
    first, second = score_sites(METRICS["macro_f1"], labels, values, values, sites, people)
    assert (first.site, first.rows, first.people, first.first) == ("0", 40, 20, 1.0)  # and not 1/3
    assert 0 < second.second < 1

    def needs_all(labels: np.ndarray, values: np.ndarray) -> float:
        if len(np.unique(labels)) < 3:
            raise EnsembleError("a class is missing")
        return 1.0

    own = Metric("own", "own", function=needs_all)
    assert math.isnan(score_sites(own, labels, values, values, sites, people)[0].first)


def test_a_score_that_is_not_defined_without_a_site_has_no_interval() -> None:
    sites, people = np.repeat(np.arange(6), 20), np.arange(120)
    labels = ((sites == 2) & (people % 2 == 0)).astype(int)  # all positive people are of one site
    p = np.clip(np.random.default_rng(0).normal(0.3 + 0.3 * labels, 0.15), 0.01, 0.99)
    values = np.stack([1 - p, p], axis=1)
    metric = METRICS["average_precision"]
    found = interval_over_sites(metric, labels, values, sites, people)
    assert found.value == pytest.approx(metric(labels, values))
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert "without a site the score is not defined" in found.warning
    change = difference_over_sites(metric, labels, values, values[::-1], sites, people)
    assert math.isnan(change.difference.low)
    assert change.p_value == 1
