"""Prediction with models of all people: of a run, and of a blend in place of its folds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ensemble as en
from ensemble.learning.combination import Combination
from ensemble.prediction.source import PredictionSource, _named_positive, load_source
from folds.errors import EnsembleError, UsageError
from folds.predictions.predictions import read_predictions
from tests.conftest import GRID, Called, call_here, call_process, made_once

TEST = "people/eval"


@pytest.fixture(scope="session")
def _refits(tmp_path_factory: pytest.TempPathFactory, _grid: tuple[Path, Called]) -> Path:
    """The grid with a model of all people of each run, and a blend with weights."""

    def make(folder: Path) -> None:
        shutil.copytree(_grid[0], folder / "grid")
        done = call_process([*GRID, "--fold", "all"], folder / "grid")
        assert done.code == 0, done.err
        words = ["blend", "test_resnet", "test_vit", "--method", "greedy", "-o", "fin"]
        assert call_here(words, folder / "grid") == 0
        words = ["blend", "test_resnet", "test_vit", "--method", "soft", "-o", "both"]  # greedy may take one
        assert call_here(words, folder / "grid") == 0

    return made_once(tmp_path_factory, "refits", make) / "grid"


@pytest.fixture
def refits(_refits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(_refits, tmp_path / "grid")
    monkeypatch.chdir(tmp_path / "grid")
    return tmp_path / "grid"


def test_its_test_images_get_the_predictions_of_the_training(refits: Path) -> None:
    found = en.predict("test_resnet", TEST, fold="all", verify=True)
    assert found.difference is not None
    assert found.difference <= 1e-6
    assert found.source.kind == "refit"
    assert found.source.name == "test_resnet.all"
    alone = en.predict("checkpoints/test_resnet/all.pt", TEST)
    np.testing.assert_array_equal(alone.probabilities, found.probabilities)
    folds_mean = en.predict("test_resnet", TEST)
    assert np.abs(folds_mean.probabilities - found.probabilities).max() > 1e-3


def test_a_blend_predicts_with_the_models_of_all_people(refits: Path) -> None:
    found = en.predict("fin", TEST, refit=True)
    assert [model.path.name for model in found.source.models] == ["all.pt"] * len(found.source.models)
    names = [run.name for run in found.source.runs]
    each = {name: en.predict(name, TEST, fold="all").probabilities for name in names}
    assert len(found) == 42
    assert not np.allclose(found.probabilities, en.predict("fin", TEST).probabilities)
    low = np.min([each[name] for name in names], axis=0)
    high = np.max([each[name] for name in names], axis=0)
    assert (found.probabilities >= low - 1e-6).all()
    assert (found.probabilities <= high + 1e-6).all()


def test_a_cascade_is_not_fitted_to_other_models(refits: Path, tmp_path: Path) -> None:
    for what, options in (("fin", {"refit": True}), ("fin.all", {})):
        with pytest.raises(UsageError, match="predicts with models of all people"):
            en.predict(what, "no-such-folder", cascade=0.1, progress=False, **options)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="predicts with models of all people"):
            en.export(what, tmp_path / "model", cascade=0.1, **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="makes one pass per image"):
        en.predict("test_resnet", "no-such-folder", fold="all", cascade="exact", progress=False)
    full, exact = en.predict("both", TEST, refit=True), en.predict("both", TEST, refit=True, cascade="exact")
    assert exact.labels.tolist() == full.labels.tolist()


def test_the_nested_score_is_called_that_of_the_procedure(refits: Path) -> None:
    found = en.predict("fin", TEST, refit=True)
    record = found.to_dict()
    nested = read_predictions(Path("runs/blends/fin/oof.npy")).score()
    assert record["refit"] is True
    assert record["procedure"]["macro_f1"]["score"] == pytest.approx(nested.value)
    text = found.display_table().text(300)
    assert f"the score of the procedure is its nested out-of-fold macro_f1 {nested.text()}" in text


def test_trained_images_are_not_scored(refits: Path) -> None:
    run = en.load_run("test_resnet")
    table = Path("table.csv")
    data = en.read_table("people").train
    lines = [f"{name},{path},{label}" for name, path, label in zip(data.ids, data.paths or (), data.labels)]
    table.write_text("\n".join(["id,path,label", *lines[:20]]) + "\n")
    found = en.predict("test_resnet", table, fold="all")
    assert (found.trained_on, found.score) == (20, None)
    assert "no score is given" in found.display_table().text(300)
    scored = en.predict("test_resnet", table)
    assert scored.trained_on == 20
    assert scored.score is not None
    assert "a score is optimistic" in scored.display_table().text(300)
    assert run.refit is not None


def test_its_own_name_names_it(refits: Path) -> None:
    for name in ("test_resnet.all", "fin.all"):
        source = load_source(name)
        assert (source.name, source.refit) == (name, True)
    with pytest.raises(EnsembleError, match=r"found 'nobody\.all'"):
        load_source("nobody.all")


def test_folds_can_be_selected(refits: Path) -> None:
    both = en.predict("test_resnet", TEST, fold=[0, 2]).probabilities
    each = [en.predict("test_resnet", TEST, fold=fold).probabilities for fold in (0, 2)]
    np.testing.assert_allclose(both, np.mean(each, axis=0), atol=1e-6)
    with pytest.raises(UsageError, match="has no fold7"):
        load_source("test_resnet", fold=[7])


def test_selections_that_say_nothing_are_refused(refits: Path) -> None:
    for what, arguments in (
        ("checkpoints/test_resnet/fold0.pt", {"fold": [0]}),
        ("fin", {"fold": "all"}),
        ("test_resnet", {"fold": [0], "refit": True}),
        ("test_resnet", {"fold": "some"}),
    ):
        with pytest.raises(UsageError):
            load_source(what, **arguments)  # type: ignore[arg-type]


def test_a_model_of_other_folds_than_the_blend_is_refused(refits: Path) -> None:
    recipe = Path("runs/blends/fin/blend.toml")
    sha = json.loads(Path("runs/test_resnet/fold0/done.json").read_text())["checkpoint_sha"]
    assert sha in recipe.read_text()
    recipe.write_text(recipe.read_text().replace(sha, "0" * 64))
    with pytest.raises(EnsembleError, match="does not follow from the folds that the blend was made of"):
        load_source("fin", refit=True)
    Path("checkpoints/test_vit/all.pt").unlink()
    with pytest.raises(EnsembleError, match="has no model of all people"):
        load_source("test_vit", fold="all")


def test_the_command_names_its_file(refits: Path, call: Callable[..., Called]) -> None:
    said = call("predict", "fin", TEST, "--refit")
    assert said.code == 0
    assert Path("runs/predict/fin.all-eval.npy").is_file()
    assert "score of the procedure" in said.out
    assert call("predict", "test_resnet", TEST, "--fold", "all", "--verify").code == 0
    assert Path("runs/predict/test_resnet.all-eval.npy").is_file()
    assert call("predict", "fin", TEST, "--refit", "--verify", "--force").code == 1


def test_an_export_of_models_of_all_people_stays_one(refits: Path, tmp_path: Path) -> None:
    for name, folder, said in (
        ("test_resnet", "one", "The model was trained on all people."),
        ("fin", "blend", "Each run has one model, trained on all people."),
    ):
        chosen = {"refit": True} if name == "fin" else {"fold": "all"}
        made = en.export(name, tmp_path / folder, **chosen)
        source = load_source(tmp_path / folder)
        assert (source.kind, source.refit, made.to_dict()["refit"]) == ("model", True, True)
        card = (tmp_path / folder / "README.md").read_text()
        assert said in card
        assert "these models themselves were never tested on other people" in card
        assert "mean of the models of the folds" not in card
        found = en.predict(tmp_path / folder, TEST)
        text = found.display_table().text(300)
        expected = f"{made.record.score['score']:.3f}"
        nested = "nested " if name == "fin" else ""
        assert f"the score of the procedure is its {nested}out-of-fold macro_f1 {expected}" in text
        assert found.to_dict()["refit"] is True
        again = en.export(tmp_path / folder, tmp_path / f"{folder} again")
        assert (again.record.refit, again.record.kind) == (True, made.record.kind)
    folds = en.export("test_resnet", tmp_path / "folds")
    assert load_source(folds.path).refit is False
    assert "The prediction of a run is the mean of the models of its folds." in (folds.path / "README.md").read_text()


def test_a_blend_without_a_fit_is_not_called_nested(refits: Path, call: Callable[..., Called]) -> None:
    assert call("blend", "test_resnet", "test_vit", "--method", "soft", "-o", "plain").code == 0
    text = en.predict("plain", TEST, refit=True).display_table().text(300)
    assert "the score of the procedure is its out-of-fold macro_f1" in text


def test_a_positive_class_that_was_named_for_a_blend_is_that_of_its_predictions(tmp_path: Path) -> None:
    record = tmp_path / "blend.json"
    record.write_text('{"options": {"positive": "benign"}}')
    positive = _named_positive(record)
    source = PredictionSource(
        "b", "blend", ("malignant", "benign"), "label", Combination(("r",)), (), positive=positive
    )
    assert source.task == "binary"
    record.write_text('{"options": {}}')
    assert replace(source, positive=_named_positive(record)).task == "classes"
