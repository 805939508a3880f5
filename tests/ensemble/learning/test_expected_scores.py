"""The bias with the best expected score equals that of a grid and of a plain search over all rows and classes."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ensemble.learning.class_bias import MAX_BIAS
from ensemble.learning.expected_scores import ExpectedScores
from folds.metrics.classification import METRICS, Metric

COUNTED = [metric for metric in METRICS.values() if metric.from_counts is not None]


def search_of(p: NDArray[np.float64], metric: Metric) -> ExpectedScores:
    assert metric.class_sums is not None
    return ExpectedScores(p, metric.class_sums, MAX_BIAS, 1.0)


def expected_counts(p: NDArray[np.float64], bias: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, classes) if labels are drawn from `p`."""
    decided = (np.log(p) + bias).argmax(axis=1)
    classes = p.shape[1]
    hits = np.bincount(decided, p[np.arange(len(p)), decided], minlength=classes)
    return np.stack([hits, p.sum(axis=0), np.bincount(decided, minlength=classes)])


def plain_bias(p: NDArray[np.float64], metric: Metric, rounds: int) -> tuple[NDArray[np.float64], float]:
    """Every interval between two changes of a decision, each scored from all rows."""
    assert metric.from_counts is not None
    bias, score = np.zeros(p.shape[1]), -np.inf
    for _ in range(rounds):
        for c in range(len(bias)):
            others = np.log(p) + bias
            others[:, c] = -np.inf
            edges = np.sort(np.clip(others.max(axis=1) - np.log(p[:, c]), -MAX_BIAS, MAX_BIAS))
            edges = np.concatenate([[-MAX_BIAS], edges, [MAX_BIAS]])
            tried = [bias[c], *((edges[:-1] + edges[1:]) / 2)[np.diff(edges) > 1e-9]]
            scores = [float(metric.from_counts(expected_counts(p, one))) for one in with_(bias, c, tried)]
            best = int(np.argmax(scores))
            if scores[best] > scores[0] + 1e-9:
                bias[c] = tried[best]
            score = max(scores[0], scores[best])
    return bias, score


def with_(bias: NDArray[np.float64], c: int, values: list[float]) -> list[NDArray[np.float64]]:
    return [np.where(np.arange(len(bias)) == c, value, bias) for value in values]


@pytest.mark.parametrize("metric", COUNTED, ids=lambda metric: metric.name)
@pytest.mark.parametrize("classes", [2, 5])
def test_the_search_equals_a_plain_one(metric: Metric, classes: int) -> None:
    p = np.random.default_rng(classes).dirichlet(np.geomspace(0.3, 2, classes), 60)
    search, rounds = search_of(p, metric), 3
    for _ in range(rounds):
        for c in range(classes):
            score = search.improve(c)
    bias, expected = plain_bias(p, metric, rounds)
    assert score == pytest.approx(expected, abs=1e-9)
    assert search.bias == pytest.approx(bias, abs=1e-6)


@pytest.mark.parametrize("metric", COUNTED, ids=lambda metric: metric.name)
def test_the_bias_of_a_class_equals_the_best_of_a_grid(metric: Metric) -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(3), 40)
    assert metric.from_counts is not None
    search = search_of(p, metric)
    best = search.improve(1)
    grid = [np.array([0.0, b, 0.0]) for b in np.linspace(-MAX_BIAS, MAX_BIAS, 4001)]
    tried = max(float(metric.from_counts(expected_counts(p, bias))) for bias in grid)
    assert best == pytest.approx(tried)
    assert float(metric.from_counts(expected_counts(p, search.bias))) == pytest.approx(tried)


def test_equal_probabilities_are_decided_as_an_argmax_does() -> None:
    p = np.full((12, 4), 0.25)
    search = search_of(p, METRICS["accuracy"])
    assert search.best[0].tolist() == [0] * 12
    assert search.best[1].tolist() == [1] * 12
    search.improve(2)
    decided = (np.log(p) + search.bias).argmax(axis=1)
    assert search.best[0].tolist() == decided.tolist()


def test_the_two_best_classes_of_a_row_are_kept_up_to_date() -> None:
    p = np.random.default_rng(1).dirichlet(np.full(6, 0.4), 200)
    search = search_of(p, METRICS["macro_f1"])
    for _ in range(2):
        for c in range(6):
            search.improve(c)
            order = np.argsort(-(np.log(p) + search.bias), axis=1, kind="stable")
            assert search.best.T.tolist() == order[:, :2].tolist()
    assert search.bias.any()
