"""What a study of several labels or of numbers is compared by: its metric and direction, its losses, its folds."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from folds.errors import UsageError
from folds.tuning.objective import check_same_task, with_objective
from folds.tuning.report import write_report
from folds.tuning.study import Study, as_started, make_study, open_study
from folds.tuning.trainable import _Course, _score
from folds.tuning.trials import FINISHED, STOPPED, Trial, write_trial

LABELS, NUMBERS = '"bce", "asymmetric", "focal:gamma=2"', '"huber", "l1", "mse", "gaussian"'
Make = Callable[..., Study]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.chdir(tmp_path)
    rows = [f"{i}.jpg,p{i},{i % 2},{i // 3},{20 + i},{60.5 - i},{'cat' if i % 2 else 'dog'}" for i in range(6)]
    Path("t.csv").write_text("\n".join(["path,person,hat,beard,age,weight,kind", *rows]) + "\n")

    def make(label: str, losses: str, metric: str | None = None) -> Study:
        text = f'data = "t.csv"\nlabel = "{label}"\narch = "test_resnet"\nk = 3\nepochs = 4\n'
        Path("space.toml").write_text(f"{text}[space]\nlr = [1e-4, 1e-3]\nloss = [{losses}]\n[tune]\ntrials = 8\n")
        return make_study({}, Path("space.toml"), metric=metric)

    return make


@pytest.mark.parametrize(
    ("label", "losses", "task", "metric", "best"),
    [
        ("hat,beard", LABELS, "multilabel", "roc_auc", 2),
        ("age,weight", NUMBERS, "regression", "mae", 1),
        ("kind", '"ce", "focal"', "classes", "macro_f1", 2),
    ],
)
def test_the_metric_and_its_direction_are_those_of_the_task(
    make: Make, label: str, losses: str, task: str, metric: str, best: int
) -> None:
    study = with_objective(make(label, losses))
    assert (study.task, study.options.metric, study.options.lower_is_better) == (task, metric, task == "regression")
    assert {one.recipe.loss for one in study.candidates} <= set(losses.replace('"', "").split(", "))
    for number, (state, score) in enumerate([(FINISHED, 0.6), (FINISHED, 0.2), (FINISHED, 0.9), (STOPPED, 0.1)]):
        values = study.candidates[number].values
        write_trial(study.trial_dir(number), Trial(number, values, state, score, {0: score}, 4, 4, 1.0))
    report = write_report(study)
    assert report.best is not None
    assert report.best_file is not None
    assert report.best.number == best
    assert report.to_dict()["metric"] == metric
    written = tomllib.loads(report.best_file.read_text())
    assert (written.get("task", "classes"), written["metric"]) == (task, metric)
    assert written["loss"] == study.candidates[best].values["loss"]


def test_a_metric_is_scored_in_every_epoch_or_refused(make: Make) -> None:
    study = with_objective(make("hat,beard", LABELS, "macro_f1"))
    assert {one.recipe.metric for one in study.candidates} == {study.options.metric} == {"macro_f1"}
    with pytest.raises(UsageError, match=r"metric=accuracy.? does not fit .?task=regression"):
        with_objective(make("age,weight", NUMBERS, "accuracy"))
    with pytest.raises(UsageError, match="huber"):
        with_objective(make("hat,beard", '"bce", "huber"'))


def test_a_study_continues_with_its_task_without_the_table(make: Make) -> None:
    study = with_objective(make("age,weight", NUMBERS))
    with open_study(study):
        pass
    Path("t.csv").unlink()
    again = with_objective(as_started(make("age,weight", NUMBERS)), resume=True)
    assert again == study
    with open_study(again, resume=True):
        pass
    check_same_task(again, ["regression"])
    with pytest.raises(UsageError, match=r"was started with .?task=classes.?, and its table has the task regression"):
        check_same_task(replace(again, task="classes"), ["regression"])


@pytest.mark.parametrize(
    ("task", "classes", "labels", "values", "metric", "score"),
    [
        ("multilabel", ("hat", "beard"), ["hat;?beard", "beard"], [[0.5, 0.9], [0.5, 0.25]], "log_loss", 1.5 * np.log(2)),
        ("regression", ("age",), ["3", "5"], [[4], [9]], "mae", 2.5),
        ("classes", ("cat", "dog"), ["cat", "dog"], [[0.9, 0.1], [0.8, 0.2]], "accuracy", 0.5),
    ],
)  # fmt: skip
def test_a_fold_is_scored_by_its_predictions(
    tmp_path: Path, task: str, classes: tuple[str, ...], labels: list[str], values: object, metric: str, score: float
) -> None:
    rows = [f"{i},{label},p{i},0" for i, label in enumerate(labels)]
    more = f"x,{labels[0]},q,1"
    (tmp_path / "folds.csv").write_text("\n".join(["id,label,person,fold", *rows, more]) + "\n")
    np.save(tmp_path / "oof.npy", np.array(values, np.float32))
    job = SimpleNamespace(folder=tmp_path, fold_dir=tmp_path, fold=0, classes=classes, class_attributes={})
    job.recipe = {"target": "label"} | ({} if task == "classes" else {"task": task})
    job.person_metric = None
    assert _score(job, metric) == pytest.approx(score)  # type: ignore[arg-type]


def test_an_epoch_without_a_score_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[tuple[float, float]] = []
    monkeypatch.setattr(_Course, "report", lambda self, *told: reported.append(told))
    job = SimpleNamespace(recipe={"epochs": 4}, fold=0, person_metric=None)
    course = _Course({"metric": "pearson", "longest": 8}, [job])  # type: ignore[list-item]
    for epoch, score in enumerate((float("nan"), 0.25, float("nan")), 1):
        course.epoch(0, {"epoch": epoch, "seconds": 1.0, "validation_pearson": score})
    assert reported == [(4.0, 0.25)]
    assert (course.mean, course.trained, course.seconds) == (0.25, {0: 3}, {0: 3.0})
