"""Scores of several labels and of numbers: those of scikit-learn on the known cells, and exact without each person."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sk

from folds.errors import UsageError
from folds.metrics.classification import COLUMN_METRICS, METRICS, Metric
from folds.metrics.grouping import average_by_person, people_with_label
from folds.metrics.intervals import difference_over_people, interval_over_people
from folds.metrics.numbers import concordance_index
from folds.metrics.per_class import column_intervals, label_scores
from folds.metrics.positive import in_order_of_metric
from folds.metrics.report import score_predictions
from folds.metrics.resampling import leave_one_group_out
from folds.metrics.scored_rows import ScoredRows
from folds.metrics.sites import interval_over_sites, score_sites
from folds.metrics.task_names import ALL_TASKS, MULTILABEL, REGRESSION
from folds.metrics.tasks import default_metric, metric_for_task, metrics_of_task

Data = tuple[NDArray, NDArray, NDArray]
NOT_EXACT = ("sensitivity_at", "specificity_at", "median_ae")  # linearized at a quantile


def several_labels(seed: int, n: int = 40, unknown: float = 0.2) -> Data:
    """Labels of 4 columns, one of them rare, probabilities with equal values, and persons."""
    random = np.random.default_rng(seed)
    labels = (random.random((n, 4)) < [0.5, 0.2, 0.9, 0.05]).astype(float)
    values = np.clip(0.3 * labels + 0.7 * random.random((n, 4)), 0, 1).round(2)
    labels[random.random((n, 4)) < unknown] = np.nan
    return labels, values, random.integers(0, max(2, n // 3), n)


def several_numbers(seed: int, n: int = 40, unknown: float = 0.2) -> Data:
    random = np.random.default_rng(seed)
    labels = random.normal([50, 170], [10, 2], (n, 2)).round(0)
    values = labels + random.normal(1, 5, (n, 2)).round(0)
    labels[random.random((n, 2)) < unknown] = np.nan
    return labels, values, random.integers(0, max(2, n // 3), n)


DATA = {MULTILABEL: several_labels, REGRESSION: several_numbers}
EVERY = [(task, name) for task in DATA for name in metrics_of_task(task)]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([pair for pair in EVERY if pair[1] not in NOT_EXACT]), st.integers(0, 10**6), st.integers(2, 40))
def test_a_score_without_each_person_is_that_of_the_others(pair: tuple[str, str], seed: int, n: int) -> None:
    labels, values, persons = DATA[pair[0]](seed, n)
    metric, codes = metric_for_task(pair[1], pair[0]), np.unique(persons, return_inverse=True)[1]
    found = leave_one_group_out(metric, labels, values, codes, int(codes.max()) + 1)
    for one, score in enumerate(found):
        rest = codes != one
        assert score == pytest.approx(metric(labels[rest], values[rest]), abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("name", NOT_EXACT)
def test_a_score_at_a_quantile_is_linearized(name: str) -> None:
    task = REGRESSION if name == "median_ae" else MULTILABEL
    labels, values, _ = DATA[task](0, 3000)
    metric = metric_for_task(name, task)
    found = interval_over_people(metric, labels, values, np.arange(3000))
    drawn = np.random.default_rng(0).integers(0, 3000, (200, 3000))
    assert found.standard_error == pytest.approx(np.std([metric(labels[i], values[i]) for i in drawn]), rel=0.3)


def by_label(score: object, labels: NDArray, values: NDArray) -> float:
    found = []
    for truth, value in zip(labels.T, values.T, strict=True):
        known = ~np.isnan(truth)
        found.append(score(truth[known], value[known]))  # type: ignore[operator]
    return float(np.mean(found))


def test_scores_of_labels_are_means_of_scikit_learns() -> None:
    labels, values, _ = several_labels(1, 300)
    expected = {
        "roc_auc": sk.roc_auc_score,
        "average_precision": sk.average_precision_score,
        "log_loss": sk.log_loss,
        "column_log_loss": sk.log_loss,
        "brier": sk.brier_score_loss,
        "macro_f1": lambda y, p: sk.f1_score(y, p > 0.5),
        "f_beta:beta=2": lambda y, p: sk.fbeta_score(y, p > 0.5, beta=2),
        "accuracy": lambda y, p: sk.accuracy_score(y, p > 0.5),
        "balanced_accuracy": lambda y, p: sk.balanced_accuracy_score(y, p > 0.5),
        "kappa": lambda y, p: sk.cohen_kappa_score(y, p > 0.5),
        "mcc": lambda y, p: sk.matthews_corrcoef(y, p > 0.5),
        "youden": lambda y, p: sk.balanced_accuracy_score(y, p > 0.5, adjusted=True),
        "pauc:tpr=.5:scaled=1": lambda y, p: sk.roc_auc_score(1 - y, -p, max_fpr=0.5),
    }
    for name, score in expected.items():
        assert metric_for_task(name, MULTILABEL)(labels, values) == pytest.approx(by_label(score, labels, values)), name
    whole, values, _ = several_labels(1, 300, unknown=0)
    for name, score in {
        "macro_f1": lambda y, p: sk.f1_score(y, p > 0.5, average="macro"),
        "micro_f1": lambda y, p: sk.f1_score(y, p > 0.5, average="micro"),
        "subset_accuracy": lambda y, p: sk.accuracy_score(y, p > 0.5),
        "roc_auc_micro": lambda y, p: sk.roc_auc_score(y, p, average="micro"),
    }.items():
        assert metric_for_task(name, MULTILABEL)(whole, values) == pytest.approx(score(whole, values)), name


def test_scores_of_numbers_are_those_of_scikit_learn() -> None:
    labels, values, _ = several_numbers(2, 200)
    expected = {
        "mae": sk.mean_absolute_error,
        "mse": sk.mean_squared_error,
        "rmse": sk.root_mean_squared_error,
        "r2": sk.r2_score,
        "median_ae": sk.median_absolute_error,
        "pearson": lambda y, p: np.corrcoef(y, p)[0, 1],
        "concordance": lambda y, p: 2 * np.cov(y, p, ddof=0)[0, 1] / (y.var() + p.var() + (y.mean() - p.mean()) ** 2),
        "within:error=3": lambda y, p: np.mean(np.abs(y - p) <= 3),
    }
    for name, score in expected.items():
        assert metric_for_task(name, REGRESSION)(labels, values) == pytest.approx(by_label(score, labels, values)), name


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 25))
def test_the_concordance_index_counts_pairs(seed: int, n: int) -> None:
    random = np.random.default_rng(seed)
    truth, values = random.integers(0, 6, n).astype(float), random.integers(0, 6, n)
    pairs = [(truth[i] - truth[j], values[i] - values[j]) for i, j in itertools.combinations(range(n), 2)]
    found = [0.5 * (1 + np.sign(a * b)) for a, b in pairs if a]
    assert concordance_index(truth, values) == pytest.approx(np.mean(found) if found else np.nan, nan_ok=True)


def test_a_column_that_says_nothing_is_left_out() -> None:
    labels, values, _ = several_labels(3, 60)
    more = np.column_stack([labels, np.zeros(60), np.full(60, np.nan)])
    wide = np.column_stack([values, values[:, :2]])
    assert METRICS["roc_auc"](more, wide) == METRICS["roc_auc"](labels, values)
    assert METRICS["log_loss"](more[:, [0, 5]], wide[:, [0, 5]]) == METRICS["log_loss"](labels[:, :1], values[:, :1])
    numbers, predicted, _ = several_numbers(3, 60)
    more, wide = np.column_stack([numbers, np.full(60, 7.1)]), np.column_stack([predicted, predicted[:, 0]])
    for name in ("r2", "pearson", "concordance", "c_index"):
        assert COLUMN_METRICS[name](more, wide) == pytest.approx(COLUMN_METRICS[name](numbers, predicted))
        assert np.isnan(COLUMN_METRICS[name](more[:, 2:], wide[:, 2:]))


@pytest.mark.parametrize(("task", "name"), EVERY)
def test_intervals_hold_the_score_and_equal_predictions_do_not_differ(task: str, name: str) -> None:
    labels, values, persons = DATA[task](4, 120)
    metric = metric_for_task(name, task)
    found = interval_over_people(metric, labels, values, persons)
    assert found.low < found.value < found.high
    same = difference_over_people(metric, labels, values, values, persons)
    assert same.difference.low == same.difference.high == 0
    assert same.p_value == 1
    other = difference_over_people(metric, labels, values, values[::-1], persons)
    assert other.difference.value == pytest.approx(metric(labels, values[::-1]) - found.value)
    assert pickle.loads(pickle.dumps(metric)) is metric


def test_rows_without_a_known_label_are_nobody() -> None:
    labels, values, persons = several_labels(5, 60)
    more = np.vstack([labels, np.full((9, 4), np.nan)])
    wide, people = np.vstack([values, values[:9]]), np.append(persons, 100 + np.arange(9))
    for metric in (METRICS["roc_auc"], METRICS["accuracy"]):
        expected = interval_over_people(metric, labels, values, persons)
        assert interval_over_people(metric, more, wide, people) == expected
        shared = ScoredRows(more, people, 4)
        assert interval_over_people(metric, more, wide, people, rows=shared) == expected
    nobody = interval_over_people(METRICS["roc_auc"], labels * np.nan, values, persons)
    assert np.isnan([nobody.value, nobody.low, nobody.high]).all()
    assert nobody.warning == "no label is known"


def test_a_function_gets_the_matrices() -> None:
    labels, values, persons = several_numbers(6, 60, unknown=0)

    def cost(labels: NDArray, values: NDArray) -> float:
        assert labels.shape == values.shape
        return float(np.abs(labels - values).mean())

    metric = metric_for_task(cost, REGRESSION)
    found = interval_over_people(metric, labels, values, persons)
    exact = interval_over_people(COLUMN_METRICS["mae"], labels, values, persons)
    assert found.value == pytest.approx(exact.value)
    assert found.standard_error == pytest.approx(exact.standard_error, rel=0.2)


def test_metrics_know_their_tasks() -> None:
    assert [default_metric(task) for task in ALL_TASKS] == ["macro_f1"] * 3 + ["roc_auc", "mae"]
    assert metric_for_task(None, REGRESSION) is COLUMN_METRICS["mae"]
    assert metric_for_task("within:error=2.5", REGRESSION).title == "share within 2.5"
    for name, task in (
        ("mae", MULTILABEL),
        ("macro_f1", REGRESSION),
        ("top_k", MULTILABEL),
        ("subset_accuracy", "binary"),
    ):
        with pytest.raises(UsageError, match=f"metric={name}.*does not fit task={task}") as raised:
            metric_for_task(name, task)
        assert f"{default_metric(task)}" in str(raised.value.hint)
    with pytest.raises(UsageError, match="unknown task"):
        default_metric("regresion")


@pytest.mark.parametrize("metric", [COLUMN_METRICS["mae"], COLUMN_METRICS["micro_f1"]])
def test_a_metric_of_columns_refuses_classes(metric: Metric) -> None:
    labels, values = np.array([0, 1, 1]), np.full((3, 2), 0.5)
    for call in (lambda: metric(labels, values), lambda: interval_over_people(metric, labels, values, labels)):
        with pytest.raises(UsageError, match="not exclusive classes"):
            call()
    with pytest.raises(UsageError, match="scores exclusive classes, not several labels"):
        METRICS["quadratic_kappa"](np.eye(3), np.eye(3))


def test_two_labels_are_no_positive_class() -> None:
    labels, values, _ = several_labels(7)
    same, (kept,) = in_order_of_metric(METRICS["average_precision"], labels[:, :2], [values[:, :2]], ["yes", "no"])
    assert same is not None
    np.testing.assert_array_equal(kept, values[:, :2])


def test_a_person_has_the_labels_of_any_image_and_the_mean_number() -> None:
    nan = np.nan
    persons, values = np.array(["b", "a", "b", "a"]), np.arange(8.0).reshape(4, 2) / 10
    labels = np.array([[0, nan], [1, nan], [nan, 1], [0, nan]])
    found, means, names, several = average_by_person(labels, values, persons, 2, MULTILABEL)
    np.testing.assert_array_equal(found, [[1, nan], [0, 1]])
    assert means == pytest.approx(np.array([[0.4, 0.5], [0.2, 0.3]]))
    assert (names.tolist(), several) == (["a", "b"], 1)
    assert average_by_person(labels, values, persons, 2, REGRESSION)[0][0, 0] == 0.5
    numbers = np.array([[0.1, 5], [3, nan], [0.1, 7], [nan, nan]])
    found, _, _, several = average_by_person(numbers, values, persons, 2, REGRESSION)
    np.testing.assert_array_equal(found, [[3, nan], [0.1, 6]])
    assert several == 1
    assert people_with_label(labels, persons).tolist() == [1, 1]


def test_reports_and_sites_take_columns() -> None:
    for task, data in DATA.items():
        labels, values, persons = data(8, 90)
        metric = metric_for_task(None, task)
        report = score_predictions(labels, values, persons, metric, task=task)
        assert report.interval == interval_over_people(metric, labels, values, persons)
        assert ("accuracy" in report.to_dict()) == (task == MULTILABEL)
        grouped = score_predictions(labels, values, persons, metric, per_person=True, task=task)
        assert grouped.rows == len(set(persons.tolist()))
        sites = persons % 6
        over = interval_over_sites(metric, labels, values, sites, persons)
        assert over.low <= report.interval.low < report.interval.high <= over.high
        assert len(score_sites(metric, labels, values, values, sites, persons)) == 6


@pytest.mark.parametrize(
    ("name", "people", "said"),
    [
        ("macro_f1", 1, "a label has only one person: 95% CIs of macro F1 covered the true value in only about 88%"),
        ("macro_f1", 0, "a label has no sample"),
        ("macro_f1", 5, ""),
        ("roc_auc", 1, ""),
        ("pauc", 2, "a label has only two people"),
        ("specificity_at", 4, "of a label about 0.2 people decide where the threshold lies"),
        ("specificity_at:sensitivity=0.8", 4, ""),
    ],
)
def test_intervals_that_cover_less_say_so(name: str, people: int, said: str) -> None:
    labels, values, _ = several_labels(9, 120, unknown=0)
    labels[:, 3] = np.arange(120) < people
    found = interval_over_people(metric_for_task(name, MULTILABEL), labels, values, np.arange(120))
    assert found.warning.startswith(said) if said else found.warning == ""


@pytest.mark.parametrize(
    ("name", "people", "said"),
    [
        ("roc_auc", 1, "a label has only one person: 95% CIs of ROC-AUC covered the true value in only about 40%"),
        ("average_precision", 1, "a label has only one person"),
        ("balanced_accuracy", 3, "a label has only three people"),
        ("balanced_accuracy", 4, ""),
        ("pauc", 8, "a label has only 8 people"),
        ("specificity_at:sensitivity=0.8", 4, "about 0.8 people decide where the threshold lies"),
        ("accuracy", 1, ""),
    ],
)
def test_one_label_is_warned_of_as_two_classes_are(name: str, people: int, said: str) -> None:
    labels, values, _ = several_labels(9, 120, unknown=0)
    labels[:, 3] = np.arange(120) < people
    metric = metric_for_task(name, MULTILABEL)
    found = interval_over_people(metric, labels[:, [3]], values[:, [3]], np.arange(120))
    assert found.warning.startswith(said) if said else found.warning == ""
    alone = score_predictions(labels[:, [3]], values[:, [3]], np.arange(120), name, task=MULTILABEL).interval
    assert alone.warning == found.warning


def test_scores_of_all_cells_know_how_few_people_have_any_label() -> None:
    labels, values, persons = np.zeros((40, 4)), np.random.default_rng(0).random((40, 4)), np.arange(40)
    labels[0] = 1
    micro = interval_over_people(metric_for_task("roc_auc_micro", MULTILABEL), labels, values, persons)
    assert micro.warning.startswith("a label has only one person")
    # The effective number of people is that of those with a label: one of one person says next to nothing.
    f1 = interval_over_people(metric_for_task("micro_f1", MULTILABEL), labels[:, :1], values[:, :1], persons)
    macro = interval_over_people(metric_for_task("macro_f1", MULTILABEL), labels[:, :1], values[:, :1], persons)
    assert (f1.low, f1.high) == (macro.low, macro.high)


def test_few_people_may_hide_large_errors() -> None:
    labels, values, _ = several_numbers(9, 90)
    assert (
        "where a few have much larger errors"
        in interval_over_people(COLUMN_METRICS["mse"], labels[:30], values[:30], np.arange(30)).warning
    )
    for name, n in (("mse", 90), ("mae", 30)):
        assert interval_over_people(COLUMN_METRICS[name], labels[:n], values[:n], np.arange(n)).warning == ""


def test_each_label_has_its_own_scores() -> None:
    labels, values, persons = several_labels(10, 80)
    found = label_scores(labels, values, persons, ["a", "b", "c", "d"])
    assert [one.name for one in found] == ["a", "b", "c", "d"]
    for at, one in enumerate(found):
        known = ~np.isnan(labels[:, at])
        truth, decided = labels[known, at], values[known, at] > 0.5
        assert one.rows == truth.sum()
        assert one.people == len(set(persons[known][truth == 1].tolist()))
        assert one.f1.value == pytest.approx(sk.f1_score(truth, decided, zero_division=0))
        assert one.precision == pytest.approx(sk.precision_score(truth, decided, zero_division=0))
        assert one.recall == pytest.approx(sk.recall_score(truth, decided, zero_division=0))
        if 0 < truth.sum() < len(truth):
            assert one.roc_auc == pytest.approx(sk.roc_auc_score(truth, values[known, at]))
    alone = column_intervals(METRICS["roc_auc"], labels, values, persons)
    assert alone[1] == interval_over_people(METRICS["roc_auc"], labels[:, [1]], values[:, [1]], persons)
