"""A student learns the out-of-fold predictions of a blend, is a run like any other, and says whose student it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ensemble as en
from ensemble.blending.recipe import read_recipe
from ensemble.distillation.teacher import find_teacher
from folds.errors import EnsembleError, UsageError
from folds.models.checkpoint import load_checkpoint
from folds.predictions.predictions import read_predictions
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
