from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sk

from folds.errors import UsageError
from folds.metrics.classification import METRICS, Metric, built_in_metric
from folds.metrics.intervals import difference_over_people, interval_over_people
from folds.metrics.resampling import leave_one_group_out


def metric_of(name: str) -> Metric:
    found = built_in_metric(name)
    assert found is not None
    return found


@st.composite
def decisions(draw: st.DrawFn) -> tuple[NDArray, NDArray, NDArray]:
    """Labels, probabilities (n, 2) and persons, some with most of the rows; values are often equal."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(2, 60))
    labels = (random.random(n) < draw(st.sampled_from([0.1, 0.5, 0.9]))).astype(int)
    values = np.clip(random.normal(0.4 + 0.2 * labels, 0.2), 0, 1)
    values = values.round(draw(st.sampled_from([1, 2, 9])))
    persons = np.minimum(random.integers(0, n, n), draw(st.integers(0, n)))
    return labels, np.stack([1 - values, values], axis=1), persons


SCORES = ("average_precision", "pauc", "pauc:tpr=.5:scaled=1", "roc_auc_micro", "probabilistic_f1", "f_beta:beta=2")


@settings(max_examples=60, deadline=None)
@given(decisions(), st.sampled_from(SCORES))
def test_a_score_without_each_person_is_the_score_of_the_other_rows(
    data: tuple[NDArray, NDArray, NDArray], name: str
) -> None:
    labels, values, persons = data
    codes = np.unique(persons, return_inverse=True)[1]
    found = leave_one_group_out(metric_of(name), labels, values, codes, int(codes.max()) + 1)
    for one in range(len(found)):
        rest = codes != one
        if rest.any():
            assert found[one] == pytest.approx(metric_of(name)(labels[rest], values[rest]), abs=1e-9, nan_ok=True)


@settings(max_examples=20, deadline=None)
@given(decisions())
def test_scores_of_the_positive_class_are_those_of_scikit_learn(data: tuple[NDArray, NDArray, NDArray]) -> None:
    labels, values, _ = data
    score, predicted = values[:, 1], values.argmax(axis=1)
    assert metric_of("f_beta:beta=2")(labels, values) == pytest.approx(
        sk.fbeta_score(labels, predicted, beta=2, zero_division=0)
    )
    assert METRICS["mcc"](labels, values) == pytest.approx(sk.matthews_corrcoef(labels, predicted), abs=1e-9)
    if len(set(labels.tolist())) < 2:
        assert np.isnan(METRICS["average_precision"](labels, values))
        assert np.isnan(METRICS["pauc"](labels, values))
        return
    assert METRICS["average_precision"](labels, values) == pytest.approx(sk.average_precision_score(labels, score))
    assert METRICS["youden"](labels, values) == pytest.approx(
        sk.balanced_accuracy_score(labels, predicted, adjusted=True), abs=1e-12
    )
    rates, hits, _ = sk.roc_curve(labels, score, drop_intermediate=False)
    for share in (0.0, 0.3, 0.9, 0.95, 1.0):
        at_specificity = metric_of(f"sensitivity_at:specificity={share}")(labels, values)
        assert at_specificity == pytest.approx(hits[1 - rates >= share - 1e-9].max())
        at_sensitivity = metric_of(f"specificity_at:sensitivity={share}")(labels, values)
        assert at_sensitivity == pytest.approx((1 - rates)[hits >= share - 1e-9].max())


@settings(max_examples=40, deadline=None)
@given(decisions(), st.sampled_from([0.0, 0.5, 0.8, 0.9]))
def test_the_partial_area_is_that_of_the_isic_2024_challenge(
    data: tuple[NDArray, NDArray, NDArray], tpr: float
) -> None:
    labels, values, _ = data
    if len(set(labels.tolist())) < 2:
        return
    scaled = sk.roc_auc_score(1 - labels, -values[:, 1], max_fpr=1 - tpr)
    width = 1 - tpr
    official = 0.5 * width**2 + (width - 0.5 * width**2) / (1.0 - 0.5) * (scaled - 0.5)
    if tpr == 0:  # the program of the challenge scales nothing then
        official, scaled = scaled, None
    assert metric_of(f"pauc:tpr={tpr}")(labels, values) == pytest.approx(official)
    if scaled is not None:
        assert metric_of(f"pauc:tpr={tpr}:scaled=1")(labels, values) == pytest.approx(scaled)


def test_scores_of_several_classes_are_means_over_the_classes_that_occur() -> None:
    random = np.random.default_rng(0)
    labels = random.choice([0, 1, 2], 90)
    values = random.dirichlet(np.ones(4), 90)
    one_hot = np.eye(4)[labels]
    expected = np.mean([sk.average_precision_score(one_hot[:, i], values[:, i]) for i in range(3)])
    assert METRICS["average_precision"](labels, values) == pytest.approx(expected)
    assert METRICS["roc_auc_micro"](labels, values) == pytest.approx(sk.roc_auc_score(one_hot, values, average="micro"))
    predicted = values.argmax(axis=1)
    assert METRICS["quadratic_kappa"](labels, values) == pytest.approx(
        sk.cohen_kappa_score(labels, predicted, weights="quadratic")
    )
    assert METRICS["grade_mae"](labels, values) == pytest.approx(sk.mean_absolute_error(labels, predicted))
    assert METRICS["top_k"](labels, values) == pytest.approx(
        sk.top_k_accuracy_score(labels, values, k=3, labels=range(4))
    )
    columns = [sk.log_loss(one_hot[:, i], values[:, i], labels=[0, 1]) for i in range(4)]
    assert METRICS["column_log_loss"](labels, values) == pytest.approx(np.mean(columns))


def official_pf1(labels: NDArray, predictions: NDArray) -> float:
    """The probabilistic F1 of the RSNA breast cancer challenge, as its organizers published it."""
    positives = true = false = 0.0
    for label, value in zip(labels, predictions, strict=True):
        if label:
            positives += 1
            true += value
        else:
            false += value
    precision, recall = true / (true + false), true / positives
    return 2 * precision * recall / (precision + recall) if precision > 0 and recall > 0 else 0.0


def test_probabilistic_f1_is_the_official_one() -> None:
    random = np.random.default_rng(1)
    labels, p = random.integers(0, 2, 50), random.random(50)
    found = METRICS["probabilistic_f1"](labels, np.stack([1 - p, p], axis=1))
    assert found == pytest.approx(official_pf1(labels, p))


def test_top_k_needs_more_classes_than_k() -> None:
    with pytest.raises(UsageError, match="top-3 accuracy of 3 classes is always 1"):
        METRICS["top_k"](np.array([0, 1]), np.full((2, 3), 1 / 3))


def world(seed: int, people: int, positive: float) -> tuple[NDArray, NDArray, NDArray]:
    random = np.random.default_rng(seed)
    persons = np.repeat(np.arange(people), random.integers(1, 6, people))
    labels = (random.random(people) < positive)[persons].astype(int)
    z = 1.8 * labels + 0.7 * random.normal(size=people)[persons] + 0.7 * random.normal(size=len(persons))
    values = 1 / (1 + np.exp(-z))
    return labels, np.stack([1 - values, values], axis=1), persons


@pytest.mark.parametrize("name", ["sensitivity_at:specificity=.8", "specificity_at:sensitivity=.8"])
def test_intervals_at_a_threshold_hold_the_truth_of_other_people(name: str) -> None:
    metric = metric_of(name)
    truth = metric(*world(10**6, 20_000, 0.3)[:2])
    found = [interval_over_people(metric, *world(seed, 120, 0.3)) for seed in range(100)]
    assert 0.88 <= np.mean([one.contains(truth) for one in found]) <= 0.99
    errors = [one.standard_error for one in found if one.standard_error is not None]
    assert np.mean(errors) == pytest.approx(np.std([one.value for one in found]), rel=0.25)


def test_few_people_beyond_a_threshold_are_warned_of() -> None:
    labels, values, persons = world(0, 60, 0.5)
    assert (
        "decide where the threshold lies"
        in interval_over_people(METRICS["specificity_at"], labels, values, persons).warning
    )
    few = metric_of("specificity_at:sensitivity=.5")
    assert interval_over_people(few, labels, values, persons).warning == ""


@pytest.mark.parametrize("name", ["sensitivity_at", "specificity_at", "average_precision", "pauc"])
def test_equal_predictions_do_not_differ(name: str) -> None:
    labels, values, persons = world(1, 80, 0.4)
    found = difference_over_people(METRICS[name], labels, values, values, persons)
    assert found.difference.value == found.difference.low == found.difference.high == 0


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_the_end_of_a_share_without_a_mistake_follows_the_level(level: float) -> None:
    labels = np.repeat([0, 1], 40)
    values = np.stack([1 - labels, labels], axis=1) * 0.8 + 0.1
    found = interval_over_people(metric_of("sensitivity_at"), labels, values, np.arange(80), level=level)
    assert found.high == 1
    assert found.low == pytest.approx(((1 - level) / 2) ** (1 / 40))
