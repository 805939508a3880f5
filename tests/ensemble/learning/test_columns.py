from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from ensemble.learning.columns.combination import ColumnCombination
from ensemble.learning.columns.greedy import select_columns
from ensemble.learning.columns.labels import of_one_label
from ensemble.learning.columns.registry import AUTO, COLUMN_FITTERS, check_method, column_candidates, methods_of
from ensemble.learning.columns.stack import ColumnStack, strata_of
from ensemble.learning.combination import combine
from ensemble.learning.nested import nested_cv, outer_fold_ids
from ensemble.learning.registry import FITTERS
from folds.errors import EnsembleError, UsageError
from folds.metrics.tasks import metric_for_task
from tests.ensemble.label_worlds import label_stack, number_stack

LABELED = label_stack(people=60, unknown=0.1)
NUMBERS = number_stack(people=60)
AUC, MAE = metric_for_task(None, "multilabel"), metric_for_task(None, "regression")
ALL = [
    (stack, name)
    for stack in (LABELED, NUMBERS)
    for name, fitter in COLUMN_FITTERS[stack.task].items()
    if fitter.is_fitted
]


@pytest.mark.parametrize(("stack", "name"), ALL, ids=[f"{stack.task}-{name}" for stack, name in ALL])
def test_no_person_is_predicted_by_a_fit_on_them(stack: ColumnStack, name: str) -> None:
    """Other labels of a part change nothing in the predictions of that part, and the fits are the same again."""
    metric, fitter = (AUC, MAE)[stack.task == "regression"], COLUMN_FITTERS[stack.task][name]
    found = nested_cv(stack, fitter, metric)
    rows = np.flatnonzero(stack.outer_folds == 2)
    labels = stack.labels.copy()
    labels[rows] = 1 - labels[rows] if stack.task == "multilabel" else labels[rows] + 100
    other = nested_cv(replace(stack, labels=labels), fitter, metric)
    np.testing.assert_array_equal(found.out_of_sample[rows], other.out_of_sample[rows])
    record = found.combination.as_record()
    again = ColumnCombination.of_record(record, stack.columns, "blend.toml")
    np.testing.assert_allclose(combine(stack, again), found.in_sample, rtol=1e-5, atol=1e-5)
    assert again.as_record() == record
    assert found.combination.shares.sum() == pytest.approx(1)


@pytest.mark.parametrize("metric", ["log_loss", "macro_f1"])
def test_greedy_selection_adds_the_best_run_each_time(metric: str) -> None:
    score = metric_for_task(metric, "multilabel")
    sign = 1 if score.greater_is_better else -1
    counts = select_columns(LABELED, score, steps=4)
    best: list[int] = []
    reached = []
    for _ in range(4):  # brute force, from scratch
        options = [
            (round(sign * score(LABELED.labels, LABELED.probabilities[[*best, run]].mean(0)), 6), run in best, -run)
            for run in range(LABELED.runs)
        ]
        value, _, run = max(options)
        best.append(-run)
        reached.append(value)
    kept = best[: int(np.argmax(reached)) + 1]
    assert counts.tolist() == np.bincount(kept, minlength=LABELED.runs).tolist()


def test_shared_weights_minimize_the_loss_of_all_cells() -> None:
    loss = metric_for_task("log_loss", "multilabel")
    weights = COLUMN_FITTERS["multilabel"]["simplex"].fit(LABELED, AUC, 0).weights
    assert weights is not None
    cells = LABELED.of_cells()
    known = ~np.isnan(LABELED.labels)
    assert len(cells) == known.sum()
    assert cells.labels.mean() == pytest.approx(LABELED.labels[known].mean())

    def total(shares: np.ndarray) -> float:
        p = np.tensordot(shares, LABELED.probabilities.astype(float), 1)
        return float(-np.log(np.where(LABELED.labels == 1, p, 1 - p))[known].mean())

    steps = np.arange(11) / 10
    grid = [np.array([a, b, 1 - a - b]) for a, b in itertools.product(steps, steps) if a + b <= 1]
    assert total(weights) <= min(map(total, grid)) + 1e-6
    assert loss(LABELED.labels, np.tensordot(weights, LABELED.probabilities, 1)) > 0


def test_the_fits_of_a_label_are_those_of_two_classes() -> None:
    for name in ("stacking", "bias"):
        found = COLUMN_FITTERS["multilabel"][name].fit(LABELED, metric_for_task("macro_f1", "multilabel"), 0)
        assert isinstance(found, ColumnCombination)
        one = LABELED.of_label(1)
        alone = FITTERS[name].fit(one, of_one_label(metric_for_task("macro_f1", "multilabel")), 0)
        rows = LABELED.known_rows(1)
        np.testing.assert_allclose(combine(LABELED, found)[rows, 1], combine(one, alone)[:, 1], atol=1e-6)
    assert of_one_label(metric_for_task("micro_f1", "multilabel")).name == "f_beta"


def test_a_label_that_hardly_anybody_has_is_not_fitted() -> None:
    labels = LABELED.labels.copy()
    labels[:, 2] = 0
    labels[0, 2] = 1
    found = COLUMN_FITTERS["multilabel"]["stacking"].fit(replace(LABELED, labels=labels), AUC, 0)
    mean = LABELED.probabilities[:, :, 2].mean(axis=0)
    np.testing.assert_allclose(combine(LABELED, found)[:, 2], mean, rtol=1e-5)
    assert "nothing fitted for beard" in found.summary


def test_weights_of_each_label_follow_its_best_run() -> None:
    """Run 0 knows only the first label, run 1 only the second: shared weights cannot say so."""
    stack = label_stack(people=400, skills=(1.5, 1.5))
    values = stack.probabilities.copy()
    values[1, :, 0] = values[0, :, 1] = 0.4
    stack = replace(stack, probabilities=values)
    found = COLUMN_FITTERS["multilabel"]["per-class"].fit(stack, AUC, 0)
    assert isinstance(found, ColumnCombination)
    first, second = found.each[0].weights, found.each[1].weights
    assert first is not None
    assert second is not None
    assert first[0] > 0.9
    assert second[1] > 0.9


def test_least_squares_is_that_of_scipy() -> None:
    from scipy.optimize import minimize, nnls

    x, y = NUMBERS.probabilities[:, :, 0].T.astype(float), NUMBERS.labels[:, 0]
    found = COLUMN_FITTERS["regression"]["nnls"].fit(NUMBERS, MAE, 0)
    assert isinstance(found, ColumnCombination)
    assert found.linear is not None
    np.testing.assert_allclose(found.linear[:, 0], nnls(x, y)[0], rtol=1e-6)
    weights = COLUMN_FITTERS["regression"]["simplex"].fit(NUMBERS, MAE, 0)
    assert isinstance(weights, ColumnCombination)
    assert weights.linear is not None
    expected = minimize(
        lambda w: np.square(x @ w - y).mean(), [1 / 3] * 3, bounds=[(0, 1)] * 3, method="SLSQP",
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1}, options={"ftol": 1e-12},
    ).x  # fmt: skip
    np.testing.assert_allclose(weights.linear[:, 0], expected, atol=1e-4)
    assert weights.linear.sum() == pytest.approx(1)


def test_the_linear_model_is_ridge_towards_the_mean() -> None:
    from sklearn.linear_model import Ridge

    from ensemble.learning.columns.numbers import ridge

    x, y = NUMBERS.probabilities[:, :, 0].astype(float), NUMBERS.labels[:, 0]
    coefficients, intercept = ridge(x, y, 3.0)
    rest = y - x.mean(axis=0)  # what the mean leaves, with ordinary ridge
    expected = Ridge(alpha=3.0 * y.var()).fit(x.T, rest)
    np.testing.assert_allclose(coefficients, expected.coef_ + 1 / 3, rtol=1e-6)
    assert intercept == pytest.approx(expected.intercept_)
    assert ridge(x, y, None)[0].tolist() == [1 / 3] * 3


def test_numbers_have_coefficients_of_their_own() -> None:
    from scipy.optimize import nnls

    stack = number_stack(people=80, columns=2)
    found = COLUMN_FITTERS["regression"]["nnls"].fit(stack, MAE, 0)
    assert isinstance(found, ColumnCombination)
    assert found.linear is not None
    for column in range(2):
        x, y = stack.probabilities[:, :, column].T.astype(float), stack.labels[:, column]
        np.testing.assert_allclose(found.linear[:, column], nnls(x, y)[0], rtol=1e-6)
    assert not np.allclose(found.linear[:, 0], found.linear[:, 1])


def test_an_absent_run_counts_as_the_mean_of_the_others() -> None:
    present = np.ones((3, len(NUMBERS)), bool)
    present[2, ::3] = False
    values = np.where(present[:, :, None], NUMBERS.probabilities, 0)
    stack = replace(NUMBERS, probabilities=values.astype(np.float32), present=present)
    linear = np.array([[0.5], [0.3], [0.2]])
    found = ColumnCombination(stack.names, task="regression", columns=stack.columns, linear=linear)
    x = stack.probabilities[:, 0, 0].astype(float)
    assert combine(stack, found)[0, 0] == pytest.approx(0.5 * x[0] + 0.3 * x[1] + 0.2 * (x[0] + x[1]) / 2, rel=1e-6)


def test_methods_are_those_of_the_task() -> None:
    assert "nnls" in methods_of("regression")
    assert "hard" not in methods_of("regression")
    assert "grades" not in methods_of("multilabel")
    assert AUTO in methods_of("multilabel")
    with pytest.raises(UsageError, match="method=hard does not combine predictions of the task regression"):
        check_method("hard", "regression")
    ranked = {one.name for one in column_candidates("multilabel", AUC)}
    decided = {one.name for one in column_candidates("multilabel", metric_for_task("macro_f1", "multilabel"))}
    assert "bias" in decided - ranked
    assert "soft+after:temperature" in ranked - decided


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"pool": "grades"}, "'pool'"),
        ({"weights": [1.0, -1.0, 1.0]}, "'weights' must be ≥ 0"),
        ({"weights": [1.0]}, "'weights' must be 3 numbers"),
        ({"columns": ["hat"]}, "'columns' must be the classes of the blend"),
        ({"linear": [[1.0]]}, "'linear' is for regression"),
        ({"each": [{}]}, "'each' must have one combination for each of 3 labels"),
        ({"each": [{"pool": "soft"}, {"pool": "soft"}, {"pool": "nothing"}]}, "label 'beard'"),
        ({"each": [{"pool": "hard"}] * 3}, "label 'hat': 'pool' must be one of soft"),
        ({"each": [{"pool": "soft", "extra": {}}] * 3}, "label 'hat': 'extra' is for classes"),
        ({"intercept": [0.0, 0.0, 0.0]}, "'intercept' needs 'linear'"),
        ({"weights": [float("nan"), 1.0, 1.0]}, "weights"),
    ],
)
def test_records_of_strangers_are_refused(changed: dict[str, object], message: str) -> None:
    record = ColumnCombination(LABELED.names, task="multilabel", columns=LABELED.columns).as_record() | changed
    with pytest.raises(EnsembleError, match=message):
        ColumnCombination.of_record(record, LABELED.columns, "blend.toml")


def test_outer_folds_keep_people_whole_and_spread_rare_labels() -> None:
    labels, persons = LABELED.labels, LABELED.persons
    parts = outer_fold_ids(persons, labels, None)
    assert all(len(set(parts[persons == one])) == 1 for one in range(60))
    with_rare = [np.nansum(labels[parts == part, 2]) for part in range(5)]
    assert min(with_rare) > 0
    assert max(with_rare) <= 6 * min(with_rare)
    ages = outer_fold_ids(NUMBERS.persons, NUMBERS.labels, None)
    means = [NUMBERS.labels[ages == part].mean() for part in range(5)]
    assert np.ptp(means) < 10
    assert strata_of(np.array([[np.nan, np.nan], [0, 0], [1, 0]])).tolist() == [-1, 0, 2]
