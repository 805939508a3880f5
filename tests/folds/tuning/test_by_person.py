"""Trials of a table of which only persons are labeled are compared by person, from the first epoch to best.toml."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from folds.errors import EnsembleError
from folds.training.scores import validation_scores
from folds.tuning.objective import with_objective
from folds.tuning.report import write_report
from folds.tuning.search import _course
from folds.tuning.study import Study, as_started, make_study, open_study
from folds.tuning.trainable import _Course, _score
from folds.tuning.trials import FINISHED, Trial, write_trial

# Ann has the label of two images, one of which is predicted wrong, and is right by their mean; bob is wrong.
PERSONS, LABELS = ["ann", "ann", "bob", "cem"], [1, 1, 0, 0]
VALUES = np.array([[0.1, 0.9], [0.6, 0.4], [0.2, 0.8], [0.9, 0.1]], np.float32)
BY_IMAGE, BY_PERSON = 0.5, 2 / 3  # accuracy


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(tmp_path)
    rows = [f"{i}.jpg,p{i // 2},{'cat' if i // 2 % 2 else 'dog'}" for i in range(12)]
    Path("t.csv").write_text("\n".join(["path,person,label", *rows]) + "\n")
    text = 'data = "t.csv"\nlabel_of = "person"\narch = "test_resnet"\nk = 3\nepochs = 2\n'
    Path("space.toml").write_text(f"{text}[space]\nlr = [1e-4, 1e-3]\n[tune]\ntrials = 2\n")
    return with_objective(make_study({}, Path("space.toml"), metric="accuracy"))


def context(metric: str | None) -> Any:
    job = SimpleNamespace(person_metric=metric)
    target = SimpleNamespace(task="classes", has_columns=False, classes=("cat", "dog"))
    persons = None if metric is None else np.array(["x", *PERSONS])
    parts = {"labels": np.array([0, *LABELS]), "validation": np.arange(1, 5), "persons": persons}
    return SimpleNamespace(job=job, target=target, recipe=SimpleNamespace(metric="macro_f1"), **parts)


def test_an_epoch_is_scored_by_person_beside_its_other_scores() -> None:
    plain, scored = (validation_scores(context(metric), np.log(VALUES)) for metric in (None, "accuracy"))
    assert scored == plain | {"validation_accuracy_by_person": pytest.approx(BY_PERSON)}
    assert plain["validation_accuracy"] == BY_IMAGE


def test_a_trial_is_compared_by_the_score_of_people(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (study.by_person, study.objective) == (True, "accuracy by person")
    names = ["cat", "dog"]
    rows = [f"{i},{names[label]},{person},0" for i, (label, person) in enumerate(zip(LABELS, PERSONS, strict=True))]
    (tmp_path / "folds.csv").write_text("\n".join(["id,label,person,fold", *rows, "x,cat,y,1"]) + "\n")
    np.save(tmp_path / "oof.npy", VALUES)
    job: Any = SimpleNamespace(
        folder=tmp_path, fold_dir=tmp_path, fold=0, classes=("cat", "dog"), class_attributes={},
        recipe={"target": "label", "epochs": 2},
    )  # fmt: skip
    for metric, expected in ((None, BY_IMAGE), ("accuracy", BY_PERSON)):
        job.person_metric = metric
        assert _score(job, "accuracy") == pytest.approx(expected)
    reported: list[tuple[float, float]] = []
    monkeypatch.setattr(_Course, "report", lambda self, *values: reported.append(values))
    course = _Course({"metric": "accuracy", "longest": 2}, [job])
    epoch = {"seconds": 1.0, "validation_accuracy": 0.25, "validation_accuracy_by_person": 0.75}
    course.epoch(0, {"epoch": 1, **epoch})
    assert (reported, course.mean) == ([(1.0, 0.75)], 0.75)
    values = study.candidates[0].values
    write_trial(study.trial_dir(0), Trial(0, values, FINISHED, 0.75, {0: 0.75}, 2, 2, 1.0))
    history = study.trial_dir(0) / "fold0" / "history.csv"
    history.parent.mkdir()
    history.write_text("epoch,validation_accuracy,validation_accuracy_by_person\n1,.1,.4\n2,.2,.75\n")
    trial = study.ended()[0]
    assert _course(study, trial) == [(1.0, 0.4), (2.0, 0.75)]
    assert _course(replace(study, by_person=False), trial) == [(1.0, 0.1), (2.0, 0.2)]
    report = write_report(study)
    assert report.best_file is not None
    assert "# accuracy by person 0.7500 on fold 0" in report.best_file.read_text()
    assert report.to_dict()["by_person"] is True
    assert report.display_table().header[-3] == "accuracy by person"


def test_a_study_keeps_its_unit(study: Study, caplog: pytest.LogCaptureFixture) -> None:
    with open_study(study):
        pass
    record = study.folder / "tuning.json"
    assert json.loads(record.read_text())["unit"] == {"scored": "person"}
    assert as_started(study) == replace(study, found_folds=None)
    with open_study(study, resume=True):
        pass
    by_image = replace(study, by_person=False)  # what an earlier version makes of the same settings
    with pytest.raises(EnsembleError, match="different settings") as refused, open_study(by_image, resume=True):
        pass
    assert refused.value.details == ("[unit] scored: person → not set",)
    record.write_text(json.dumps({k: v for k, v in json.loads(record.read_text()).items() if k != "unit"}))
    with caplog.at_level(logging.WARNING):
        continued = as_started(as_started(study))
    assert continued.by_person is False
    (line,) = caplog.messages  # once, although a command asks twice
    assert "were compared by image, by an earlier version" in line
    with open_study(continued, resume=True):
        pass
    assert "unit" not in json.loads(record.read_text())
