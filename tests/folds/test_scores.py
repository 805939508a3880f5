from __future__ import annotations

import tracemalloc
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm

from folds import scores
from folds.scores import (
    METRICS,
    Metric,
    accuracy,
    argmax_classes,
    average_by_person,
    class_counts,
    difference_over_people,
    f1_per_class,
    interval_over_people,
    log_loss,
    macro_f1,
)

CLASSES = 5


@st.composite
def scored(draw: st.DrawFn) -> tuple[NDArray, NDArray, NDArray]:
    """Labels, probabilities and persons; some classes neither occur nor are predicted."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 40))
    present = draw(st.lists(st.integers(0, CLASSES - 1), min_size=1, unique=True))
    labels = rng.choice(present, n)
    probabilities = rng.dirichlet(np.full(CLASSES, 0.3), n)
    # Only columns of classes that may be predicted are kept up.
    probabilities[:, ~np.isin(np.arange(CLASSES), draw(st.lists(st.integers(0, CLASSES - 1), min_size=1, unique=True)))] *= 1e-3
    return labels, probabilities / probabilities.sum(1, keepdims=True), rng.integers(0, max(1, n // 3), n)


def f1_of_sklearn(labels: NDArray, predicted: NDArray) -> float:
    return float(sklearn.metrics.f1_score(labels, predicted, labels=range(CLASSES), average="macro", zero_division=0))


@settings(max_examples=60)
@given(scored())
def test_scores_of_classes_are_those_of_scikit_learn_also_for_absent_classes(data: tuple[NDArray, NDArray, NDArray]) -> None:
    labels, probabilities, _ = data
    predicted = probabilities.argmax(1)
    assert macro_f1(labels, predicted, CLASSES) == pytest.approx(f1_of_sklearn(labels, predicted), abs=1e-12)
    assert METRICS["macro_f1"](labels, probabilities) == pytest.approx(f1_of_sklearn(labels, predicted), abs=1e-12)
    per_class = sklearn.metrics.f1_score(labels, predicted, labels=range(CLASSES), average=None, zero_division=0)
    np.testing.assert_allclose(f1_per_class(labels, predicted, CLASSES), per_class, atol=1e-12)
    expected = sklearn.metrics.accuracy_score(labels, predicted)
    assert accuracy(labels, predicted) == METRICS["accuracy"](labels, probabilities) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60)
@given(scored())
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_balanced_accuracy_is_that_of_scikit_learn_over_the_classes_that_occur(data: tuple[NDArray, NDArray, NDArray]) -> None:
    labels, probabilities, _ = data
    expected = sklearn.metrics.balanced_accuracy_score(labels, probabilities.argmax(1))
    assert METRICS["balanced_accuracy"](labels, probabilities) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60)
@given(scored(), st.sampled_from([np.float32, np.float64]))
def test_log_loss_is_that_of_scikit_learn_in_both_precisions(data: tuple[NDArray, NDArray, NDArray], dtype: type) -> None:
    labels, probabilities, _ = data
    probabilities = probabilities.astype(dtype)
    expected = sklearn.metrics.log_loss(labels, probabilities, labels=range(CLASSES))
    assert log_loss(labels, probabilities) == pytest.approx(expected, rel=1e-5 if dtype is np.float32 else 1e-12)
    assert METRICS["log_loss"](labels, probabilities) == log_loss(labels, probabilities)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_certain_mistake_costs_what_it_costs_in_scikit_learn_and_not_infinity(dtype: type) -> None:
    labels, probabilities = np.array([0, 1]), np.array([[0, 1], [0, 1]], dtype)
    found = log_loss(labels, probabilities)
    assert found == pytest.approx(-np.log(np.finfo(dtype).eps) / 2, rel=1e-6)
    assert found == pytest.approx(sklearn.metrics.log_loss(labels, probabilities), rel=1e-6)


def test_only_log_loss_is_better_when_smaller() -> None:
    assert {name for name, metric in METRICS.items() if not metric.greater_is_better} == {"log_loss"}
    assert all(name == metric.name for name, metric in METRICS.items())


def test_the_first_of_equal_classes_is_predicted() -> None:
    assert argmax_classes(np.array([[0.4, 0.4, 0.2], [0.1, 0.45, 0.45]])).tolist() == [0, 1]


def test_class_counts_are_hits_labels_and_predictions() -> None:
    labels, predicted = np.array([0, 0, 2, 2, 2]), np.array([0, 1, 2, 2, 0])
    assert class_counts(labels, predicted, 4).tolist() == [[1, 0, 2, 0], [2, 0, 3, 0], [2, 1, 2, 0]]


def people_data(people: int = 30, classes: int = 4, seed: int = 3) -> tuple[NDArray, NDArray, NDArray]:
    """Persons with one to four images each, in no order; a model that is right more often than not."""
    rng = np.random.default_rng(seed)
    persons = rng.permutation(np.repeat(np.arange(people), rng.integers(1, 5, people)))
    labels = rng.integers(0, classes, len(persons))
    probabilities = rng.dirichlet(np.ones(classes), len(persons)) + 0.5 * np.eye(classes)[labels]
    return labels, probabilities / probabilities.sum(1, keepdims=True), persons


def score_of_sklearn(name: str, labels: NDArray, probabilities: NDArray) -> float:
    predicted, classes = probabilities.argmax(1), range(probabilities.shape[1])
    return {
        "macro_f1": lambda: sklearn.metrics.f1_score(labels, predicted, labels=classes, average="macro", zero_division=0),
        "accuracy": lambda: sklearn.metrics.accuracy_score(labels, predicted),
        "balanced_accuracy": lambda: sklearn.metrics.recall_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0),
        "log_loss": lambda: sklearn.metrics.log_loss(labels, probabilities, labels=classes),
    }[name]()


@pytest.mark.parametrize("name", METRICS)
def test_the_interval_is_that_of_a_bootstrap_that_takes_each_drawn_person_with_all_rows(name: str) -> None:
    labels, probabilities, persons = people_data()
    people, resamples, level = 30, 150, 0.9
    found = interval_over_people(METRICS[name], labels, probabilities, persons, resamples=resamples, seed=7, level=level)
    picks = np.random.default_rng(7).integers(0, people, size=(resamples, people))
    drawn = []
    for pick in picks:
        rows = np.concatenate([np.flatnonzero(persons == person) for person in pick])
        drawn.append(score_of_sklearn(name, labels[rows], probabilities[rows]))
    score = score_of_sklearn(name, labels, probabilities)
    tails = np.array([0.05, 0.95])
    if name == "macro_f1":  # Efron and Tibshirani (1993), equation 14.10 without acceleration
        tails = norm.cdf(2 * norm.ppf(np.mean(np.array(drawn) < score)) + norm.ppf(tails))
    assert (found.low, found.high) == pytest.approx(np.quantile(drawn, tails), abs=1e-9)
    assert found.score == pytest.approx(score)
    assert (found.people, found.level) == (people, level)


def test_images_that_are_right_or_wrong_together_make_the_interval_wider() -> None:
    rng = np.random.default_rng(0)
    persons = np.repeat(np.arange(100), 8)
    labels = np.zeros(800, int)
    right = np.repeat(rng.random(100) < 0.7, 8)
    probabilities = np.where(right[:, None], [0.9, 0.1], [0.1, 0.9])
    by_person = interval_over_people(METRICS["accuracy"], labels, probabilities, persons)
    by_image = interval_over_people(METRICS["accuracy"], labels, probabilities, np.arange(800))
    # Eight copies of one answer are one answer: √8 times as wide.
    assert (by_person.high - by_person.low) / (by_image.high - by_image.low) == pytest.approx(np.sqrt(8), rel=0.15)


def test_the_interval_of_accuracy_agrees_with_theory() -> None:
    rng = np.random.default_rng(1)
    right = rng.random(1000) < 0.8
    probabilities = np.where(right[:, None], [0.9, 0.1], [0.1, 0.9])
    found = interval_over_people(METRICS["accuracy"], np.zeros(1000, int), probabilities, np.arange(1000))
    spread = 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / 1000)
    assert (found.low, found.high) == pytest.approx((right.mean() - spread, right.mean() + spread), abs=0.1 * spread)


@pytest.mark.parametrize("name", ["accuracy", "log_loss"])
def test_very_many_people_get_the_interval_that_theory_gives_them(name: str) -> None:
    labels, probabilities, persons = people_data(people=scores.BAGS + 2000)
    found = interval_over_people(METRICS[name], labels, probabilities, persons, resamples=1000)
    loss = probabilities.argmax(1) == labels if name == "accuracy" else -np.log(probabilities[np.arange(len(labels)), labels])
    # The mean over images is a ratio of sums over people: linearised (Cochran, Sampling techniques, section 6.3).
    residuals = np.bincount(persons, loss - loss.mean())
    spread = 1.96 * np.sqrt(np.sum(residuals**2)) / len(labels)
    assert found.people == scores.BAGS + 2000
    assert found.high - found.low == pytest.approx(2 * spread, rel=0.1)
    assert (found.high + found.low) / 2 == pytest.approx(found.score, abs=0.2 * spread)


@settings(max_examples=25, deadline=None)
@given(scored(), st.sampled_from(list(METRICS)))
def test_an_interval_is_ordered_finite_and_the_same_whatever_persons_and_rows_are_called(data: tuple[NDArray, NDArray, NDArray], name: str) -> None:
    labels, probabilities, persons = data
    first = interval_over_people(METRICS[name], labels, probabilities, persons, resamples=50)
    assert np.isfinite([first.low, first.high]).all()
    assert first.low <= first.high
    named = np.array([f"person-{person:03d}" for person in persons])
    order = np.random.default_rng(0).permutation(len(labels))
    again = interval_over_people(METRICS[name], labels[order], probabilities[order], named[order], resamples=50)
    assert (again.low, again.high, again.people) == (pytest.approx(first.low), pytest.approx(first.high), len(set(persons.tolist())))


@pytest.mark.parametrize("name", METRICS)
def test_the_interval_holds_the_score_it_is_about(name: str) -> None:
    for seed in range(10):
        found = interval_over_people(METRICS[name], *people_data(seed=seed), resamples=300)
        assert found.low < found.score < found.high


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    data = people_data()
    metric = METRICS["log_loss"]
    assert interval_over_people(metric, *data, resamples=200) == interval_over_people(metric, *data, resamples=200)
    assert interval_over_people(metric, *data, resamples=200).low != interval_over_people(metric, *data, resamples=200, seed=1).low


def test_a_higher_level_makes_the_interval_wider() -> None:
    data = people_data()
    narrow, wide = (interval_over_people(METRICS["accuracy"], *data, level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize("name", METRICS)
def test_one_person_alone_has_no_spread(name: str) -> None:
    labels, probabilities, _ = people_data()
    found = interval_over_people(METRICS[name], labels, probabilities, np.zeros(len(labels)), resamples=20)
    assert (found.low, found.high) == (pytest.approx(found.score), pytest.approx(found.score))
    assert found.people == 1


def test_resamples_drawn_in_several_blocks_are_all_there() -> None:
    # 3,000 people do not fit into one block: rows left at their uninitialised values would lie far outside.
    labels, probabilities, persons = people_data(people=3000)
    sizes: list[int] = []

    def spied(counts: NDArray) -> NDArray:
        value = METRICS["accuracy"].of_counts
        assert value is not None
        if counts.ndim == 3:
            sizes.append(len(counts))
        return value(counts)

    metric: Metric = replace(METRICS["accuracy"], of_counts=spied)
    found = interval_over_people(metric, labels, probabilities, persons, resamples=1500, level=1.0)
    assert sum(sizes) == 1500
    assert len(sizes) > 1
    assert abs(found.low - found.score) < 0.1
    assert abs(found.high - found.score) < 0.1


def test_fifty_thousand_people_need_less_than_a_block_of_memory_a_resample() -> None:
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(0, 2, 50_000), rng.dirichlet(np.ones(2), 50_000)
    tracemalloc.start()
    try:
        interval_over_people(METRICS["accuracy"], labels, probabilities, np.arange(50_000), resamples=1000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # All the weights at once would be 1000 × 50,000 × 8 bytes = 400 MB.
    assert peak < 200e6


@settings(max_examples=60)
@given(scored())
def test_a_person_is_the_mean_of_the_rows_and_the_most_frequent_label(data: tuple[NDArray, NDArray, NDArray]) -> None:
    labels, probabilities, codes = data
    persons = np.array([f"p{code}" for code in codes])
    found_labels, found, names, mixed = average_by_person(labels, probabilities, persons, CLASSES)
    assert names.tolist() == sorted(set(persons.tolist()))
    several = 0
    for i, name in enumerate(names):
        rows = persons == name
        np.testing.assert_allclose(found[i], probabilities[rows].mean(0), atol=1e-12)
        counts = Counter(labels[rows].tolist())
        assert found_labels[i] == min(label for label in counts if counts[label] == max(counts.values()))
        several += len(counts) > 1
    assert mixed == several


@pytest.mark.parametrize("name", METRICS)
def test_a_paired_difference_draws_the_same_people_for_both(name: str) -> None:
    labels, first, persons = people_data()
    second = np.roll(first, 1, axis=0) * 0.5 + first * 0.5
    found = difference_over_people(METRICS[name], labels, first, second, persons, resamples=150, seed=7, level=0.9)
    drawn = []
    for pick in np.random.default_rng(7).integers(0, 30, size=(150, 30)):
        rows = np.concatenate([np.flatnonzero(persons == person) for person in pick])
        drawn.append(score_of_sklearn(name, labels[rows], second[rows]) - score_of_sklearn(name, labels[rows], first[rows]))
    assert (found.difference.low, found.difference.high) == pytest.approx(np.quantile(drawn, [0.05, 0.95]), abs=1e-9)
    assert (found.first, found.second) == pytest.approx((score_of_sklearn(name, labels, first), score_of_sklearn(name, labels, second)))
    assert found.difference.score == pytest.approx(found.second - found.first)
    beyond = min(np.sum(np.array(drawn) <= 0), np.sum(np.array(drawn) >= 0))
    assert found.chance == pytest.approx(min(1, 2 * (beyond + 1) / 151))


def test_a_score_differs_from_itself_by_nothing_and_the_other_way_round_by_the_negative() -> None:
    labels, first, persons = people_data()
    same = difference_over_people(METRICS["macro_f1"], labels, first, first, persons, resamples=50)
    assert (same.difference.score, same.difference.low, same.difference.high, same.chance) == (0, 0, 0, 1)
    second = np.roll(first, 1, axis=0)
    there, back = (difference_over_people(METRICS["macro_f1"], labels, a, b, persons, resamples=200) for a, b in ((first, second), (second, first)))
    assert (there.difference.low, there.chance) == pytest.approx((-back.difference.high, back.chance))


def test_the_paired_interval_is_narrower_than_one_that_forgets_the_pairs() -> None:
    rng = np.random.default_rng(0)
    labels, persons = np.zeros(600, int), np.repeat(np.arange(200), 3)
    hard = np.repeat(rng.random(200), 3)  # what is hard is hard for both
    first, second = (np.where((rng.random(600) * 0.2 + hard * 0.8 < right)[:, None], [0.9, 0.1], [0.1, 0.9]) for right in (0.7, 0.74))
    paired = difference_over_people(METRICS["accuracy"], labels, first, second, persons).difference
    alone = [interval_over_people(METRICS["accuracy"], labels, values, persons) for values in (first, second)]
    assert paired.high - paired.low < 0.5 * float(np.hypot(*(one.high - one.low for one in alone)))


@pytest.mark.parametrize(("gain", "share"), [(0.0, (0.0, 0.12)), (0.25, (0.95, 1.0))])
def test_models_that_differ_by_luck_alone_seldom_seem_to_differ_and_one_that_is_better_does(gain: float, share: tuple[float, float]) -> None:
    labels, persons = np.tile(np.arange(3), 200), np.repeat(np.arange(150), 4)
    seen = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        first, second = (np.eye(3)[np.where(rng.random(600) < right, labels, rng.integers(0, 3, 600))] for right in (0.4, 0.4 + gain))
        found = difference_over_people(METRICS["macro_f1"], labels, first, second, persons, resamples=200, seed=seed)
        seen.append(not found.difference.low <= 0 <= found.difference.high)
        assert not found.difference.low <= 0 <= found.difference.high or found.chance > 0.04
    assert share[0] <= np.mean(seen) <= share[1]
