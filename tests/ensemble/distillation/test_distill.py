"""A student learns the out-of-fold predictions of a blend, is a run like any other, and says whose student it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ensemble as en
from ensemble.blending.recipe import read_recipe
from ensemble.distillation.teacher import find_teacher
from ensemble.prediction.costs import costs
from folds.errors import EnsembleError, UsageError
from folds.models.checkpoint import load_checkpoint
from folds.predictions.predictions import Predictions, read_predictions
from tests.conftest import Called, Logged, call_here, call_process, made_once

STUDENT = "fin-student-test_resnet"
SMALL = ["--epochs", "1", "--img-size", "32", "--no-pretrained"]


@pytest.fixture(scope="session")
def _distilled(tmp_path_factory: pytest.TempPathFactory, _grid: tuple[Path, Called]) -> Path:
    def make(folder: Path) -> None:
        shutil.copytree(_grid[0], folder / "grid")
        words = ["blend", "test_resnet", "test_vit", "--method", "greedy", "-o", "fin"]
        assert call_here(words, folder / "grid") == 0
        done = call_process(["distill", "fin", "--arch", "test_resnet", *SMALL], folder / "grid")
        assert done.code == 0, done.err
        (folder / "grid/said.txt").write_text(done.err + done.out)

    return made_once(tmp_path_factory, "distilled", make) / "grid"


@pytest.fixture
def distilled(_distilled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(_distilled, tmp_path / "grid")
    monkeypatch.chdir(tmp_path / "grid")
    return tmp_path / "grid"


def test_the_student_records_its_teacher(distilled: Path) -> None:
    run, identity = en.load_run(STUDENT), read_recipe(Path("runs/blends/fin/blend.toml")).identity
    resolved = run.config["resolved"]
    assert (resolved["teacher"], resolved["teacher_identity"]) == ("blends/fin", identity)
    assert load_checkpoint(run.checkpoints[1]).recipe["teacher_identity"] == identity
    assert run.oof.metadata.teacher == "blends/fin"


def test_it_has_the_folds_of_the_blend_and_its_nested_predictions(distilled: Path) -> None:
    run, teacher = en.load_run(STUDENT), find_teacher("fin")
    assert run.folds.sha == en.load_run("test_resnet").folds.sha
    assert teacher.nested
    assert teacher.oof == Path("runs/blends/fin/oof.npy")
    learned, table = np.load("runs/fin-student-test_resnet/soft.npy"), en.read_table("people").train
    blended = read_predictions(teacher.oof)
    position = {name: row for row, name in enumerate(blended.ids.tolist())}
    columns = [blended.classes.index(name) for name in table.classes]
    expected = blended.probabilities[[position[name] for name in table.ids.tolist()]][:, columns]
    np.testing.assert_allclose(learned, expected, atol=1e-6)


def test_its_score_is_marked_and_a_blend_with_it_is_doubted(distilled: Path, logged: Logged) -> None:
    said = Path("said.txt").read_text()
    assert "its out-of-fold score is optimistic" in said
    assert f"{STUDENT} (optimistic)" in said
    assert en.load_run(STUDENT).summary().selected_on_validation
    flags = en.list_runs().set_index("run").loc[STUDENT, "flags"]
    assert flags == "optimistic, student of blends/fin"
    made = en.blend([STUDENT, "test_vit"], method="soft")
    assert any("have seen the people it is scored on" in line for line in logged.warnings)
    assert len(made.oof) == 210


def test_it_blends_and_predicts_like_any_run(distilled: Path, call: Callable[..., Called]) -> None:
    found = en.predict(STUDENT, "people/eval", verify=True)
    assert found.difference is not None
    assert found.difference <= 1e-6
    assert call("blend", STUDENT, "test_vit", "--method", "soft", "-o", "second").code == 0
    assert read_predictions(Path("runs/blends/second/oof.npy")).metadata.teacher == "blends/fin"
    assert call("runs", "show", STUDENT).code == 0


def test_a_renamed_blend_stays_its_teacher(distilled: Path, call: Callable[..., Called]) -> None:
    assert "its teacher" in call("runs", "show", "blends/fin").out
    assert call("runs", "rename", "blends/fin", "first").code == 0
    config = en.load_run(STUDENT).config
    assert (config["soft_labels"], config["resolved"]["teacher"]) == ("runs/blends/first/oof.npy", "blends/first")
    said = call("kfold", "--resume", STUDENT)
    assert said.code == 0
    assert "all folds are trained already" in said.err
    listed = en.list_runs().set_index("run").loc[STUDENT, "flags"]
    assert "retrained since" not in listed


def test_python_trains_nothing_again_and_a_run_can_teach(distilled: Path) -> None:
    before = Path(f"checkpoints/{STUDENT}/fold0.pt").stat().st_mtime_ns
    small = {"epochs": 1, "img_size": 32, "pretrained": False, "progress": False}
    runs = en.distill("fin", arch="test_resnet", **small)
    assert list(runs) == [STUDENT]
    assert Path(f"checkpoints/{STUDENT}/fold0.pt").stat().st_mtime_ns == before
    made = en.distill("test_vit", arch="test_resnet", fold=0, name="small", soft_weight=1.0, **small)
    assert made["small"].config["soft_weight"] == 1.0
    assert made["small"].config["resolved"]["teacher"] == "test_vit"
    assert made["small"].trained == (0,)


def test_what_cannot_teach_is_refused(distilled: Path, call: Callable[..., Called]) -> None:
    with pytest.raises(EnsembleError, match="did you mean"):
        find_teacher("finn")
    with pytest.raises(UsageError, match="are those of the blend"):
        en.distill("fin", soft_labels="x.npy")
    Path("runs/blends/fin/oof.npy").unlink()
    with pytest.raises(EnsembleError, match="does not exist: a student learns out-of-fold"):
        find_teacher("blends/fin")
    assert call("distill", "elsewhere/fin", "--arch", "test_resnet").code == 2
    shutil.rmtree("runs/test_resnet")
    shutil.rmtree("runs/test_vit")
    Path("runs/blends/fin/oof.npy").touch()
    with pytest.raises(EnsembleError):
        find_teacher("fin")


def test_costs_find_the_student_and_doubt_its_score(distilled: Path) -> None:
    rows = {row.name: row for row in costs("fin", cascade="exact", measure=False).rows}
    assert rows["student"].what == STUDENT
    assert "optimistic: it learned the predictions of blends/fin, whose models have seen" in rows["student"].warning
    assert rows["student"].to_dict()["warning"] == rows["student"].warning
    assert "not this blend as it is now" not in rows["student"].warning
    assert rows["full blend"].warning == ""
    (Path("runs") / f"{STUDENT}.oof.json").write_text(
        (Path("runs") / f"{STUDENT}.oof.json").read_text().replace("blends/fin", "test_vit")
    )
    of_run = {row.name: row for row in costs("test_vit", cascade="exact", measure=False).rows}
    assert of_run["student"].what == STUDENT
    assert {row.name: row for row in costs("fin", cascade="exact", measure=False).rows}["student"].missing


def test_rules_of_a_student_say_that_its_predictions_are_optimistic(distilled: Path, logged: Logged) -> None:
    for what in (STUDENT, en.load_run(STUDENT)):
        report = en.decide(what, sets=0.6)
        assert report.decision.source.basis == "student"
        assert any("optimistic: a model learned the predictions" in text for text in report.warnings)
    predicted = en.predict(STUDENT, "people/eval", sets=0.6)
    assert any("out-of-fold predictions that are optimistic" in line for line in logged.warnings)
    assert "nothing is guaranteed for other people" in predicted.display_table().text(300)
    assert en.decide("test_vit", sets=0.6).decision.source.basis == "cross-fitted"
    in_memory = en.blend([STUDENT, "test_vit"], method="soft")
    assert en.decide(in_memory, sets=0.6).decision.source.basis == "student"


def test_an_exported_student_states_that_its_score_is_optimistic(distilled: Path, tmp_path: Path) -> None:
    made = en.export(STUDENT, tmp_path / "model", sets=0.6)
    said = "optimistic: it learned the predictions of blends/fin"
    assert said in made.record.score["warning"]
    assert "optimistic: it learned the predictions of blends/fin" in (tmp_path / "model/README.md").read_text()
    assert said in made.display_table().text(300)
    loaded = en.load(made)
    assert said in loaded.display_table().text(300)
    assert loaded.score is not None
    assert said in loaded.score.warning
    assert loaded.decision is not None
    assert loaded.decision.source.basis == "student"
    assert "optimistic" not in str(en.export("test_vit", tmp_path / "other").record.score)


def test_rules_of_a_selected_model_say_so(distilled: Path) -> None:
    done = Path("runs/test_vit/fold1/done.json")
    done.write_text(json.dumps(json.loads(done.read_text()) | {"optimistic": True}))
    for what in ("test_vit", "fin", en.blend(["test_resnet", "test_vit"], method="soft")):
        report = en.decide(what, sets=0.6)
        assert report.decision.source.basis == "selected"
        assert any("a model was selected by its score on these people" in text for text in report.warnings)
    made = en.export("test_vit", "model")
    assert "something about the models of test_vit was selected" in made.record.score["warning"]
    assert en.decide("test_resnet", sets=0.6).decision.source.basis == "cross-fitted"


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_a_student_reads_the_table_as_the_task_of_its_teacher(tmp_path: Path, task: str) -> None:
    """Ages in whole numbers could be classes, so a student is told what they are for its teacher."""
    runs = tmp_path / "runs"
    (runs / "t").mkdir(parents=True)
    (runs / "t/config.toml").write_text(f'data = "t.csv"\nlabel = "age"\ntask = "{task}"\nloss = "bce"\n[resolved]\n')
    made = Predictions.from_array([[0.5], [0.2]], ids=["a", "b"], classes=["age"], run="t", task=task)
    path = made.save(runs / "t.oof.npy")
    teacher = find_teacher("t", tmp_path)
    expected = {"data": "t.csv", "label": "age", "task": task, "folds": runs / "t/folds.csv", "soft_labels": path}
    assert teacher.settings({}) == expected
    assert teacher.settings({"k": 3, "task": None})["task"] == task
