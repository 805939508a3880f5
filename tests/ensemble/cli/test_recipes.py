"""The recipes of the four teams, as they are shipped, on a small drawn table in the competition's layout."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ensemble as en
import folds
from ensemble.prediction.result import PredictedImages
from folds.execution import local as manager
from folds.models.checkpoint import load_checkpoint
from folds.predictions.files import read_sidecar
from folds.predictions.label_columns import label_matrix
from folds.predictions.predictions import read_predictions
from folds.utils.csv_table import read_csv
from tests.conftest import ROOT, Called
from tests.folds.runs.test_execute import InProcess

Call = Callable[..., Called]
QUICK = ("--arch", "test_resnet", "--no-pretrained", "--img-size", "32", "--epochs", "1")


@pytest.fixture(autouse=True)
def _in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    # What a recipe trains is asked here, not in which process.
    monkeypatch.setattr(manager, "Worker", InProcess)


def test_there_is_a_recipe_for_each_team() -> None:
    assert {path.name for path in (ROOT / "recipes").glob("team*.toml")} == {f"team{n}.toml" for n in (1, 2, 3, 4)}


@pytest.mark.parametrize(
    ("team", "k", "runs"),
    [(1, (), ["test_resnet"]), (2, ("--k", 3), ["test_resnet"]), (4, ("--k", 3), ["test_resnet"])],
)
def test_a_recipe_trains(
    call: Call,
    drawn: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    team: int,
    k: tuple[object, ...],
    runs: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = ROOT / f"recipes/team{team}.toml"
    called = call("kfold", "-q", "-c", recipe, "--data", drawn, *QUICK, *k)
    assert called.code == 0, called.err
    assert sorted(path.name for path in Path("runs").glob("*.oof.npy")) == [f"{run}.oof.npy" for run in runs]
    recorded = tomllib.loads(Path(f"runs/{runs[0]}/config.toml").read_text())
    for key, value in tomllib.loads(recipe.read_text()).items():
        if key not in ("arch", "epochs", "img_size", "k"):
            assert recorded[key] == value, key


def test_the_separate_models_of_team_3_are_joined_by_the_blend(
    call: Call, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    called = call("kfold", "-q", "-c", ROOT / "recipes/team3.toml", "--data", drawn, *QUICK, "--k", 3)
    assert called.code == 0, called.err
    targets = {
        path.name: sidecar.target
        for path in Path("runs").glob("*.oof.npy")
        if (sidecar := read_sidecar(path)) is not None
    }
    assert targets == {"mask.oof.npy": "mask", "gender.oof.npy": "gender", "age.oof.npy": "age"}
    settings = {name: tomllib.loads(Path(f"runs/{name}/config.toml").read_text()) for name in ("mask", "gender", "age")}
    assert [settings[name]["loss"] for name in settings] == ["ce", "ce", "ce:smoothing=.1+focal"]
    assert (Path("runs/age/trained.csv").exists(), Path("runs/mask/trained.csv").exists()) == (True, False)
    blended = call("blend", *sorted(Path("runs").glob("*.npy")))
    assert blended.code == 0, blended.err
    assert "joined by" in blended.out
    assert "to the 18 classes" in blended.out


@pytest.fixture(scope="module")
def labeled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with people whose images have several labels, a grade and an age."""
    return folds.make_people(
        tmp_path_factory.mktemp("labeled") / "people",
        people=20,
        test_people=4,
        images=3,
        seed=1,
        size=(24, 32),
        missing=0.1,
    )


def _trained(call: Call, task: str, labeled: Path, *more: object) -> None:
    """Train the recipe of a task in small, on the people of the current folder that it names."""
    Path("people").symlink_to(labeled)
    recipe = ROOT / f"recipes/{task}.toml"
    called = call("kfold", "-q", "-c", recipe, *QUICK, "--k", 2, "--batch-size", 64, *more)
    assert called.code == 0, called.err


def _predicted_as_trained(run: str, labeled: Path) -> PredictedImages:
    """Return what the checkpoints of a run predict for the test images, which the training has published."""
    new = en.predict(run, labeled / "test.csv", progress=False)
    trained = np.mean([np.load(f"runs/{run}.fold{fold}.test.npy") for fold in range(2)], axis=0)
    published = read_predictions(Path(f"runs/{run}.fold0.test.npy"))
    rows = [new.ids.tolist().index(one) for one in published.ids.tolist()]
    np.testing.assert_allclose(new.probabilities[rows], trained, rtol=1e-5, atol=1e-5)
    return new


def test_the_recipe_of_grades_goes_the_whole_road(
    call: Call, labeled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names, grades = ["plain", "soft", "corn", "cumulative"], ("0", "1", "2", "3", "4")
    _trained(call, "ordinal", labeled)
    sidecars = {name: read_sidecar(Path(f"runs/{name}.oof.npy")) for name in names}
    assert {(one.task, one.classes) for one in sidecars.values() if one is not None} == {("ordinal", grades)}
    heads = {name: load_checkpoint(Path(f"checkpoints/{name}/fold0.pt")).architecture.head for name in names}
    assert heads == {"plain": "linear", "soft": "linear", "corn": "corn", "cumulative": "cumulative"}
    new = _predicted_as_trained("cumulative", labeled)
    assert (new.predictions.metadata.task, new.classes) == ("ordinal", grades)
    exported = en.load(en.export("corn", tmp_path / "model", threshold="rounder").path)
    assert exported.decision is not None
    assert exported.decision.labels is not None
    assert exported.decision.labels.kind == "rounder"
    votes = en.blend(names, method="hard", metric="quadratic_kappa")
    assert (votes.method, votes.classes) == ("grades", grades)
    votes.save("votes")
    assert "quadratic kappa of argmax" in en.decide("votes", threshold="rounder").scores
    again = call("kfold", "-q", "-c", "runs/corn/config.toml", "--resume")
    assert again.code == 0, again.err


def test_the_recipe_of_a_decision_goes_the_whole_road(
    call: Call, labeled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _trained(call, "binary", labeled, "--data", "people/truth.csv")  # all cells are known
    new = _predicted_as_trained("focal", labeled)
    assert (new.predictions.metadata.task, new.predictions.metadata.positive) == ("binary", "1")
    blended = en.blend(["plain", "focal"], method="greedy", metric="average_precision")
    assert set(blended.total) == {"oof", "test"}
    blended.save("votes")
    exported = en.load(en.export("votes", tmp_path / "model").path)
    assert exported.task == "binary"


def test_the_recipe_of_several_labels_goes_the_whole_road(
    call: Call, labeled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names, labels = ["bce", "asymmetric", "focal"], ("hat", "glasses", "beard", "scarf")
    _trained(call, "multilabel", labeled)
    sidecar = read_sidecar(Path("runs/bce.oof.npy"))
    assert sidecar is not None
    assert (sidecar.task, sidecar.classes, sidecar.kind) == ("multilabel", labels, "probability")
    truth = label_matrix(sidecar.rows.labels, labels, "multilabel")
    table = read_csv(labeled / "train.csv")
    row = {one: at for at, one in enumerate(table.column("id"))}
    cells = np.array([[table.column(label)[row[one]] for label in labels] for one in sidecar.rows.ids.tolist()])
    assert (np.isnan(truth) == (cells == "")).all()  # what the table does not know
    assert (truth[cells != ""] == cells[cells != ""].astype(float)).all()
    _predicted_as_trained("asymmetric", labeled)
    blended = en.blend(names, method="per-class")
    assert set(blended.total) == {"oof", "test"}
    blended.save("votes")
    new = en.predict("votes", labeled / "test.csv", progress=False)
    exported = en.load(en.export("votes", tmp_path / "model").path)
    images = [labeled / path for path in read_csv(labeled / "test.csv").column("path")[:3]]
    np.testing.assert_allclose(exported.predict_proba(images), new.probabilities[:3], atol=1e-5)
    assert en.decide("bce", threshold="f1").scores


def test_the_recipe_of_a_number_goes_the_whole_road(
    call: Call, labeled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _trained(call, "regression", labeled)
    sidecar = read_sidecar(Path("runs/gaussian.oof.npy"))
    assert sidecar is not None
    assert (sidecar.task, sidecar.classes, sidecar.kind) == ("regression", ("age",), "number")
    new = _predicted_as_trained("gaussian", labeled)
    assert 10 < new.probabilities.mean() < 90  # in years
    blended = en.blend(["huber", "squared", "gaussian"], method="nnls")
    assert set(blended.total) == {"oof", "test"}
    blended.save("votes")
    exported = en.load(en.export("votes", tmp_path / "model").path)
    assert exported.task == "regression"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--loss", "corn"], "--loss corn is a loss of grades, whose order it uses"),
        (["--loss", "ce:ordinal=1"], "is a loss of grades"),
        (["--class-order", "a,b"], "--class-order is for grades"),
        (["--task", "ordinal", "--target", "mask+age"], "is for one order of classes"),
        (
            ["--task", "ordinal", "--target", "age", "--loss", "corn", "--freeze", "all", "--head", "linear"],
            "not a head on frozen features",
        ),
        (["--task", "ordinal", "--target", "age", "--loss", "corn", "--head", "cosine"], "has a head of its own"),
        (
            ["--task", "ordinal", "--target", "age", "--loss", "ce:ordinal=2", "--freeze", "all"],
            "--head logistic is fitted with ce or wce",
        ),
        (["--task", "ordinal", "--target", "mask"], "do not say their order"),
        (["--task", "ordinal", "--target", "mask", "--class-order", "wear,incorrect"], "lacks 'normal'"),
    ],
)
def test_what_makes_no_sense_for_grades_is_refused(
    call: Call, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    called = call("kfold", "--data", drawn, *QUICK, *words)
    assert called.code == 2, called.err
    assert message in called.err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[run]]\ntarget = "age"\nk = 3', "[[run]] 1: 'k' is not a setting of one run"),
        ("[[run]]\nepoch = 3", "did you mean epochs"),
        ("run = 3", "'run' must be tables"),
        ('[[run]]\nname = "a"\n[[run]]\nname = "a"', "[[run]] 2: there is a run 'a' already"),
        ('[[run]]\ntarget = "agee"', "did you mean age"),
        (
            '[[run]]\narch = ["test_resnet", "test_vit"]',
            "[[run]] 1: expected one architecture, found test_resnet, test_vit",
        ),
    ],
)
def test_runs_of_a_file_that_cannot_be_are_refused(
    call: Call, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.toml").write_text(text)
    called = call("kfold", "-c", "c.toml", "--data", drawn, "--no-pretrained", "--img-size", "32")
    assert called.code in (1, 2)
    assert message in called.err
    assert not Path("runs").exists()


def test_each_run_of_a_file_overrides_the_common_settings(
    call: Call, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ensemble.toml").write_text(
        'arch = "test_resnet"\nepochs = 1\nimg_size = "32"\npretrained = false\n[[run]]\n[[run]]\nname = "b"\nloss = "focal"\n'
    )
    called = call("kfold", "-q", "--data", drawn, "--holdout", ".3", "--name", "x")
    assert called.code == 0, called.err
    settings = {path.parent.name: tomllib.loads(path.read_text()) for path in Path("runs").glob("*/config.toml")}
    assert {name: recorded["loss"] for name, recorded in settings.items()} == {"x-test_resnet": "ce", "x-b": "focal"}
    again = call("kfold", "-q", "-c", "runs/x-b/config.toml", "--resume")
    assert "sweep" not in again.err


def test_a_preview_is_drawn_and_nothing_is_trained(
    call: Call, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("kfold", "-q", "--data", drawn, *QUICK, "--preview")
    assert call(*words, "sheet.png").out.strip() == "sheet.png"
    assert Path("sheet.png").read_bytes().startswith(b"\x89PNG")
    assert not Path("runs").exists()
    assert "sheet.png exists" in call(*words, "sheet.png").err
    assert "expected a .png file" in call(*words, "sheet.jpg").err
