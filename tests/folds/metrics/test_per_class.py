from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings

from folds.metrics.classification import METRICS
from folds.metrics.intervals import interval_over_people
from folds.metrics.per_class import attribute_scores, class_scores
from tests.folds.scored_people import CLASSES, Data, people_data, scored

NAMES = [f"c{i}" for i in range(CLASSES)]


@settings(max_examples=60, deadline=None)
@given(scored())
@pytest.mark.filterwarnings("ignore")
def test_the_scores_of_a_class_are_those_of_scikit_learn(data: Data) -> None:
    labels, probabilities, persons = data
    found = class_scores(labels, probabilities, persons, NAMES)
    precision, recall, f1, rows = sklearn.metrics.precision_recall_fscore_support(
        labels, probabilities.argmax(1), labels=range(CLASSES), zero_division=0
    )
    assert [one.name for one in found] == NAMES
    for i, one in enumerate(found):
        assert (one.precision, one.recall, one.f1.value, one.rows) == pytest.approx(
            (precision[i], recall[i], f1[i], rows[i])
        )
        assert one.people == len(set(persons[labels == i].tolist()))
        assert 0 <= one.f1.low <= one.f1.value + 1e-12
        assert one.f1.value - 1e-12 <= one.f1.high <= 1
        if 0 < rows[i] < len(labels):
            assert one.roc_auc == pytest.approx(sklearn.metrics.roc_auc_score(labels == i, probabilities[:, i]))
        else:
            assert one.roc_auc is None


def test_the_interval_of_a_class_is_the_jackknife_over_people() -> None:
    labels, probabilities, persons = people_data()
    found = class_scores(labels, probabilities, persons, NAMES[:4])
    for i, one in enumerate(found):
        kept = [persons != name for name in range(30)]
        without = np.array(
            [sklearn.metrics.f1_score(labels[rows] == i, probabilities[rows].argmax(1) == i) for rows in kept]
        )
        half = scipy.stats.t.ppf(0.975, 29) * np.sqrt(29 / 30 * np.sum((without - without.mean()) ** 2))
        score = one.f1.value
        ends = scipy.special.expit(scipy.special.logit(score) + half / (score * (1 - score)) * np.array([-1, 1]))
        assert (one.f1.low, one.f1.high) == pytest.approx(tuple(ends))


def test_a_class_with_fewer_than_two_people_has_interval_0_to_1() -> None:
    labels, persons = np.array([0, 0, 0, 1, 1]), np.array([0, 1, 2, 2, 2])
    found = class_scores(labels, np.eye(3)[[0, 1, 0, 1, 0]], persons, ["a", "b", "c"])
    assert [(one.people, one.f1.low, one.f1.high) for one in found[1:]] == [(1, 0, 1), (0, 0, 1)]
    assert found[0].f1.low > 0


def test_an_attribute_is_scored_by_marginal_and_predicted_class() -> None:
    rng = np.random.default_rng(0)
    meaning = {
        "0": {"mask": "on", "age": "young"},
        "1": {"mask": "on", "age": "old"},
        "2": {"mask": "off", "age": "young"},
        "3": {"mask": "off", "age": "old"},
    }
    labels, persons = rng.integers(0, 4, 200), np.arange(200) // 4
    probabilities = rng.dirichlet(np.ones(4), 200) + 0.4 * np.eye(4)[labels]
    probabilities /= probabilities.sum(1, keepdims=True)
    mask, age = attribute_scores(labels, probabilities, persons, list(meaning), meaning)
    assert (mask.name, age.name, [one.name for one in age.values]) == ("mask", "age", ["young", "old"])
    summed = probabilities[:, [0, 1]].sum(1)[:, None] * [1, 0] + probabilities[:, [2, 3]].sum(1)[:, None] * [0, 1]
    assert mask.accuracy == interval_over_people(METRICS["accuracy"], labels // 2, summed, persons)
    assert mask.macro_f1 == interval_over_people(METRICS["macro_f1"], labels // 2, summed, persons)
    assert mask.accuracy.value == np.mean(summed.argmax(1) == labels // 2)
    assert mask.of_class.value == np.mean(probabilities.argmax(1) // 2 == labels // 2)
    assert mask.accuracy.value != mask.of_class.value
    assert age.of_class.value == np.mean(probabilities.argmax(1) % 2 == labels % 2)
    assert age.values[1].rows == np.sum(labels % 2 == 1)


def test_an_attribute_that_a_class_has_no_value_of_is_left_out() -> None:
    labels, probabilities, persons = people_data(classes=2)
    meaning = {"a": {"mask": "on", "age": "old"}, "b": {"mask": "off"}}
    assert [one.name for one in attribute_scores(labels, probabilities, persons, ["a", "b"], meaning)] == ["mask"]
    assert attribute_scores(labels, probabilities, persons, ["a", "b"], {}) == ()
