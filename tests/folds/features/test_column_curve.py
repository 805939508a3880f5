"""Heads of several labels and numbers on shares of the people, and their learning curves."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score

from folds.config.recipe import Recipe
from folds.errors import EnsembleError
from folds.features import column_curve
from folds.features.column_curve import check_known, predict_columns, share_of_columns
from folds.features.learning_curve import NUMBER_HEADS, learning_curve
from folds.metrics.task_names import MULTILABEL, REGRESSION
from folds.predictions.label_columns import label_texts
from folds.runs.trained_curve import _curve
from folds.splits.assignment import FoldAssignment, save_folds
from folds.training.job import Job

NAN = np.nan
RANDOM = np.random.default_rng(0)
PEOPLE = np.repeat(np.arange(60), 2)
FEATURES = (RANDOM.normal(size=(120, 8)) + RANDOM.normal(size=(60, 8))[PEOPLE]).astype(np.float32)
SCORES = FEATURES @ RANDOM.normal(size=(8, 2)) + 0.5 * RANDOM.normal(size=(120, 2))
LABELS = np.where(RANDOM.random((120, 2)) < 0.2, NAN, SCORES > 0)
NUMBERS = np.where(RANDOM.random((120, 2)) < 0.2, NAN, 40 + 10 * SCORES)


@pytest.mark.parametrize("task", [MULTILABEL, REGRESSION])
def test_heads_are_those_of_scikit_learn_on_the_rows_that_are_known(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    strength = 0.02
    for name in ("select_strength", "select_ridge"):
        monkeypatch.setattr(column_curve, name, lambda *_: SimpleNamespace(best=strength))
    values, held = LABELS if task == MULTILABEL else NUMBERS, FEATURES[:30] + 1
    found = predict_columns(FEATURES, values, PEOPLE, held, task, 0)
    for column in range(2):
        own = ~np.isnan(values[:, column])
        x, y = FEATURES[own].astype(np.float64), values[own, column]
        if task == MULTILABEL:
            fitted = LogisticRegression(C=2 / (strength * len(y)), tol=1e-10, max_iter=1000).fit(x, y)
            expected = fitted.predict_proba(held)[:, 1]
        else:
            scale = y.std()
            fitted = Ridge(alpha=strength * len(y) / 2).fit(x, (y - y.mean()) / scale)
            expected = y.mean() + scale * fitted.predict(held)
        np.testing.assert_allclose(found[:, column], expected, rtol=2e-3)


def test_a_smaller_share_is_part_of_a_larger_one_and_like_all_people() -> None:
    whole = SCORES[::2] > 0
    values = np.repeat(whole, 2, axis=0).astype(np.float64)
    shares = [share_of_columns(PEOPLE, values, MULTILABEL, share, 3) for share in (0.25, 0.5)]
    assert [len(one) for one in shares] == [15, 30]
    assert set(shares[0]) < set(shares[1])
    for column in range(2):
        assert abs(whole[shares[1], column].mean() - whole[:, column].mean()) < 0.06
    numbers = share_of_columns(PEOPLE, np.repeat(SCORES[::2, :1], 2, axis=0), REGRESSION, 0.5, 3)
    quarter = np.searchsorted(np.quantile(SCORES[::2, 0], [0.25, 0.5, 0.75]), SCORES[::2, 0], side="right")
    assert np.bincount(quarter[numbers]).tolist() == pytest.approx([7.5] * 4, abs=1)


def test_two_people_with_and_without_each_label_are_in_every_share() -> None:
    values = np.zeros((120, 2))
    values[PEOPLE == 17, 0] = values[PEOPLE == 41, 0] = values[PEOPLE == 5, 0] = 1
    values[:, 1] = NAN
    values[PEOPLE == 30, 1], values[PEOPLE == 31, 1] = 1, 0
    kept = share_of_columns(PEOPLE, values, MULTILABEL, 0.05, 0)
    assert len({17, 41, 5} & set(kept.tolist())) == 2
    assert {30, 31} <= set(kept.tolist())
    known = share_of_columns(PEOPLE, np.where(values[:, 1:] >= 0, 7.0, NAN), REGRESSION, 0.05, 0)
    assert {30, 31} <= set(known.tolist())


def job_of(folder: Path, task: str, metric: str) -> tuple[Job, FoldAssignment]:
    values = LABELS if task == MULTILABEL else NUMBERS
    np.save(folder / "features.npy", FEATURES[:, None].astype(np.float16))
    texts, persons = label_texts(values, ["a", "b"], task), np.array([f"p{one}" for one in PEOPLE])
    assignment = FoldAssignment(np.array([f"i{row}" for row in range(120)]), texts, persons, PEOPLE % 3, 3, 0)
    save_folds(folder / "run" / "folds.csv", assignment)
    job = Job(
        *("run", 0, 3, str(folder / "run"), "", "", None, {}, vars(Recipe(features=True, task=task, metric=metric))),
        *({}, {}, ("a", "b"), {}, ""),
        features={"train": str(folder / "features.npy"), "test": None, "weights": ""},
    )
    return job, assignment


@pytest.mark.parametrize(("task", "metric"), [(MULTILABEL, "roc_auc"), (REGRESSION, "mae")])
def test_more_people_give_a_better_score(tmp_path: Path, task: str, metric: str) -> None:
    curve = learning_curve(job_of(tmp_path, task, metric)[0], shares=(0.15, 0.5, 1.0), draws=1)
    better = 1 if task == MULTILABEL else -1
    first, _, last = (better * point.score for point in curve.points)
    assert first < last
    assert [(point.people, point.images) for point in curve.points[1:]] == [(20, 40), (40, 80)]
    assert curve.doubled is not None
    assert all(better * one > last for one in curve.doubled)
    assert (curve.measured_with == NUMBER_HEADS) == (task == REGRESSION)
    # The mean error of a number with noise of 5 around it is 4.
    assert curve.points[-1].score == pytest.approx(0.96 if better > 0 else 4, abs=0.03 if better > 0 else 0.5)


def direct(task: str, truth: np.ndarray, values: np.ndarray) -> float:
    columns = [(truth[:, i][~np.isnan(truth[:, i])], values[:, i][~np.isnan(truth[:, i])]) for i in range(2)]
    if task == MULTILABEL:
        return float(np.mean([roc_auc_score(*pair) for pair in columns]))
    return float(np.mean([np.abs(one - other).mean() for one, other in columns]))


@pytest.mark.parametrize(("task", "metric"), [(MULTILABEL, "roc_auc"), (REGRESSION, "mae")])
@pytest.mark.parametrize("by_person", [False, True])
def test_the_curve_of_trained_models_has_the_scores_of_their_predictions(
    tmp_path: Path, task: str, metric: str, by_person: bool
) -> None:
    job, assignment = job_of(tmp_path, task, metric)
    truth = LABELS if task == MULTILABEL else NUMBERS
    parts, expected = {}, {}
    for share, skill in ((0.25, 0.3), (0.5, 0.6), (1.0, 0.9)):
        values = skill * SCORES + (1 - skill) * np.roll(SCORES, 7, axis=0)
        values = 1 / (1 + np.exp(-values)) if task == MULTILABEL else 40 + 10 * values
        parts[share] = [tmp_path / f"{share}.{fold}.npy" for fold in range(3)]
        for fold, path in enumerate(parts[share]):
            np.save(path, values[assignment.validation_index(fold)])
        pairs = truth.reshape(60, 2, 2)
        with np.errstate(invalid="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # people of whom a value is not known
            of_people = np.nanmax(pairs, axis=1) if task == MULTILABEL else np.nanmean(pairs, axis=1)
        expected[share] = (
            direct(task, of_people, values.reshape(60, 2, 2).mean(axis=1)) if by_person else direct(task, truth, values)
        )
    target = SimpleNamespace(encode_scored=np.asarray, task=task)
    about = {"assignment": assignment, "recipe": Recipe(metric=metric), "name": "run", "runs": tmp_path}
    learned = {share: [assignment.training_index(fold)[:40] for fold in range(3)] for share in (0.25, 0.5)}
    found = _curve(SimpleNamespace(**about, target=target), job, parts, learned, by_person)  # type: ignore[arg-type]
    assert {point.share: point.score for point in found.points} == pytest.approx(expected)
    assert found.doubled_interval is not None


def test_a_label_that_a_training_part_does_not_know_is_named() -> None:
    with pytest.raises(EnsembleError, match="curve, fold 1: no image of the training part has a known 'beard'"):
        check_known(np.array([[1.0, np.nan], [np.nan, np.nan]]), ("hat", "beard"), "curve, fold 1")
