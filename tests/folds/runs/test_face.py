"""`kfold` of the face: trained runs from keywords, from a script, interrupted and gone on with."""

from __future__ import annotations

import inspect
import json
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import ensemble
import folds
from folds.errors import EnsembleError, FoldsFailed, UsageError
from folds.predictions.predictions import Predictions
from folds.runs.results import Runs
from tests.conftest import environment_of
from tests.processes import Forked

SMALL: dict[str, Any] = {"k": 2, "epochs": 1, "img_size": 32, "pretrained": False, "batch_size": 16, "progress": False}


@pytest.fixture(scope="module")
def trained(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Runs]:
    """Two tiny models on two folds, in a folder that is not the current one."""
    root = tmp_path_factory.mktemp("face")
    return root, folds.kfold(folds.read_table(drawn), arch=["test_resnet", "test_vit"], root=root, **SMALL)


def test_run_has_predictions_history_settings_and_checkpoints(trained: tuple[Path, Runs]) -> None:
    root, runs = trained
    assert list(runs) == ["test_resnet", "test_vit"]
    run = runs["test_resnet"]
    assert len(run.oof) == 210
    assert run.oof.fold is not None
    assert sorted(set(run.oof.fold.tolist())) == [0, 1]
    assert run.score("accuracy") == run.oof.score("accuracy")
    assert run.test is not None
    assert run.test.probabilities.sum(axis=1) == pytest.approx(np.ones(len(run.test)), abs=1e-5)
    assert list(run.history["fold"]) == [0, 1]
    assert run.config["epochs"] == 1
    assert [path.relative_to(root).as_posix() for path in run.checkpoints.values()] == [
        "checkpoints/test_resnet/fold0.pt",
        "checkpoints/test_resnet/fold1.pt",
    ]
    assert all(path.exists() for path in (*run.files, *run.checkpoints.values()))
    assert run.folds.ids.tolist() == run.oof.ids.tolist()


def test_a_learning_curve_is_trained_on_nested_shares_and_resumed(trained: tuple[Path, Runs], drawn: Path) -> None:
    root, _ = trained
    folder = root / "runs/test_resnet/learning_curve"
    before = (root / "runs/test_resnet.oof.npy").read_bytes()

    def curve() -> pd.DataFrame:
        return folds.kfold(drawn, arch="test_resnet", root=root, learning_curve=True, **SMALL)[
            "test_resnet"
        ].learning_curve

    found = curve()
    assert found["share"].tolist() == [0.25, 0.5, 1]
    assert found["people"].iloc[-1] == 15
    assert found["people"].is_monotonic_increasing
    assert found["score"].iloc[-1] == pytest.approx(
        folds.load_run("test_resnet", root=root).score("macro_f1").value, abs=1e-5
    )
    assert (found["low"] <= found["score"]).all()
    assignment = folds.load_run("test_resnet", root=root).folds
    for fold in range(2):
        few, half = (set(pd.read_csv(folder / f"share{one}/dropped{fold}.csv")["id"]) for one in ("0.25", "0.5"))
        assert half < few
        assert set(assignment.ids[assignment.validation_index(fold)].tolist()) <= half
        learned = ~np.isin(assignment.ids, sorted(few))
        assert set(assignment.labels[learned].tolist()) == set(
            assignment.labels[assignment.training_index(fold)].tolist()
        )
        assert len(np.load(folder / f"share0.25/fold{fold}/oof.npy")) == len(assignment.validation_index(fold))
    assert not list(folder.glob("*/*.pt"))
    assert (root / "runs/test_resnet.oof.npy").read_bytes() == before
    removed, kept = folder / "share0.5/fold1", folder / "share0.5/fold0/done.json"
    values, time_of_kept = (removed / "oof.npy").read_bytes(), kept.stat().st_mtime_ns
    (removed / "done.json").unlink()
    assert curve().equals(found)
    assert (removed / "oof.npy").read_bytes() == values
    assert kept.stat().st_mtime_ns == time_of_kept
    with pytest.raises(UsageError, match="needs all folds of other, and fold 1 is not trained"):
        folds.kfold(drawn, arch="test_resnet", root=root, learning_curve=True, name="other", fold=0, **SMALL)
    with pytest.raises(UsageError, match="with soft_labels all models know all people"):
        folds.kfold(
            drawn,
            arch="test_resnet",
            root=root,
            learning_curve=True,
            name="s",
            soft_labels=root / "runs/test_resnet.oof.npy",
            **SMALL,
        )


def test_the_same_call_trains_nothing_again(trained: tuple[Path, Runs], drawn: Path) -> None:
    root, runs = trained
    before = {path: path.stat().st_mtime_ns for path in root.glob("checkpoints/*/*.pt")}
    again = folds.kfold(drawn, arch="test_resnet,test_vit", root=root, **SMALL)
    assert {path: path.stat().st_mtime_ns for path in root.glob("checkpoints/*/*.pt")} == before
    assert again.to_dict() == runs.to_dict()
    with pytest.raises(EnsembleError, match="exists"):
        folds.kfold(drawn, arch="test_resnet", root=root, resume=False, **SMALL)
    with pytest.raises(EnsembleError, match="was started with"):
        folds.kfold(drawn, arch="test_resnet", root=root, lr=0.01, **SMALL)


def test_what_python_returns_is_what_json_says(
    trained: tuple[Path, Runs], drawn: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, runs = trained
    monkeypatch.chdir(root)
    options = ["--k", 2, "--epochs", 1, "--img-size", 32, "--no-pretrained", "--batch-size", 16]
    called = call("--json", "kfold", "--data", drawn, "--arch", "test_resnet,test_vit", *options, "--resume")
    assert called.code == 0, called.err
    assert json.loads(called.out) == json.loads(json.dumps(runs.to_dict()))


def test_runs_are_found_again(trained: tuple[Path, Runs]) -> None:
    root, runs = trained
    assert folds.load_run("test_vit", root=root).to_dict() == runs["test_vit"].to_dict()
    with pytest.raises(EnsembleError, match="did you mean test_vit"):
        folds.load_run("test_vi", root=root)
    with pytest.raises(KeyError, match="did you mean test_vit"):
        runs["test_vi"]
    listed = folds.list_runs(root=root)
    assert sorted(listed["run"]) == ["test_resnet", "test_vit"]
    assert list(listed.columns) == list(folds.list_runs(root=root / "nothing").columns)
    assert listed.set_index("run").loc["test_vit", "macro_f1"] == pytest.approx(runs["test_vit"].score().value)
    assert list(runs.frame()["run"]) == list(runs)


def test_results_show_themselves_in_few_lines(trained: tuple[Path, Runs]) -> None:
    root, runs = trained
    turned = ensemble.tta(runs["test_vit"], views="hflip", progress=False)
    blend = ensemble.blend(runs, method="greedy", progress=False)
    both = ensemble.blend({"plain": runs["test_vit"], "views": turned}, progress=False)
    assert dict(both.weights) == {"plain": 0.5, "views": 0.5}
    assert both.oof is not None
    mean = (runs["test_vit"].oof.probabilities + turned.oof.probabilities) / 2
    assert both.oof.probabilities == pytest.approx(mean, abs=1e-6)
    with pytest.raises(UsageError, match="found 'test_vit' twice"):
        ensemble.blend([runs["test_vit"], turned])
    listed = ensemble.tta(runs["test_vit"], views=["hflip"], progress=False)
    assert listed.frame().equals(turned.frame())
    found = [runs, runs["test_vit"], runs["test_vit"].oof, turned, blend, runs["test_vit"].folds]
    for one in found:
        assert len(repr(one).splitlines()) <= 20
        assert "<table>" in (shown := one._repr_html_())
        assert len(shown) < 100_000
        assert ("<svg" in shown) == (any(one is drawn for drawn in (runs, turned, blend))), "one epoch is no curve"
        json.dumps(one.to_dict())
    assert turned.root == root
    assert turned.gain is not None
    assert set(turned.frame()["view"]) == {"none", "hflip", "merged"}
    assert turned.oof.ids.tolist() == runs["test_vit"].oof.ids.tolist()


def test_files_of_runs_are_blended_as_by_the_command(trained: tuple[Path, Runs]) -> None:
    root, runs = trained
    made = ensemble.blend(runs, progress=False)
    assert made.oof is not None
    assert made.test is not None
    mean = np.mean([run.oof.probabilities for run in runs.values()], axis=0)
    assert made.oof.probabilities == pytest.approx(mean, abs=1e-6)
    assert made.save("both", root=root) == root / "runs/blends/both"


def test_a_table_without_files_is_kept_where_workers_can_read_it(drawn: Path, tmp_path: Path) -> None:
    """A DataFrame, a split that was made before, one fold: the folds are those of the split."""
    frame = folds.read_table(drawn).train.frame().drop(columns="gender")
    made = folds.split(frame, k=3)
    small = SMALL | {"k": None}
    runs = folds.kfold(frame, folds=made, fold=1, arch="test_resnet", root=tmp_path, **small)
    run = runs["test_resnet"]
    assert run.trained == (1,)
    assert sorted(run.oof.ids.tolist()) == sorted(made.ids[made.validation_index(1)].tolist())
    column = frame.assign(part=made.fold)
    again = folds.kfold(column, folds="part", fold=1, arch="test_resnet", root=tmp_path, name="other", **small)
    assert again["other"].folds.sha == made.sha


def test_settings_are_keywords_in_any_spelling() -> None:
    names = inspect.signature(folds.kfold).parameters
    assert {"data", "folds", "root", "progress", "arch", "epochs", "lr", "batch_size", "person"} <= names.keys()
    assert not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in names.values())
    for change, said in (
        ({"epoch": 3}, "did you mean epochs"),
        ({"epochs": 0}, "epochs must be 1 or more, found 0"),
        ({"k": 1}, "k must be 2 or more, found 1"),
        ({"holdout": 0.2, "repeats": 2}, "contradict"),
        ({"backend": "cloud"}, "unknown"),
        ({"sweep": {"lr": [1e-3, 1e-4]}, "lr": 1.0}, "contradict"),
        ({"k": 3, "holdout": 0.2}, "holdout and k contradict"),
        ({"arch": 3}, "arch = 3: expected a name or a list of names"),
        ({"epochs": "many"}, "epochs = 'many': expected a whole number"),
        ({"name": "../x"}, "name must be a name of letters, digits, .*, found '../x'"),
        ({"name": "my run"}, "name must be a name of letters"),
        ({"fold": "0"}, "fold must be a fold or a list of folds"),
        ({"jobs": "x"}, "jobs must be a whole number, 1 or more"),
        ({"devices": 3}, "devices must be text"),
        ({"sweep": {"lr": 3}}, "sweep must be a mapping setting → list of values, found {'lr': 3}"),
        ({"sweep": ["lr"]}, "sweep must be a mapping"),
        ({"folds": 3}, "folds must be a split, a file of folds, or a column"),
        ({"data": 3}, "expected a path, a DataFrame or the result of read_table, found 3"),
    ):
        with pytest.raises(UsageError, match=said):
            folds.kfold(**change)


def test_the_environment_and_a_file_beside_do_not_decide(
    trained: tuple[Path, Runs], drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = trained
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENSEMBLE_EPOCHS", "7")
    (tmp_path / "ensemble.toml").write_text("epochs = 8\n")
    assert folds.kfold(drawn, arch="test_resnet", root=root, **SMALL)["test_resnet"].config["epochs"] == 1
    with pytest.raises(EnsembleError, match="was started with"):
        folds.kfold(drawn, arch="test_resnet", root=root, config="ensemble.toml", **(SMALL | {"epochs": None}))


SCRIPT = """
import ensemble as en
runs = en.kfold({data!r}, arch="test_resnet", k=2, epochs={epochs}, img_size=32, pretrained=False, root="here", progress=False, save_every=0.01)
print("trained", runs["test_resnet"].trained)
"""


def test_script_needs_no_main_guard_and_resumes_after_interrupt(drawn: Path, tmp_path: Path) -> None:
    """Ctrl-C while it trains: what is saved is kept, and the same script goes on to the same result."""
    (tmp_path / "script.py").write_text(SCRIPT.format(data=str(drawn), epochs=8))
    process = Forked(tmp_path / "script.py", [], tmp_path, environment_of())
    state = tmp_path / "here/runs/test_resnet/fold0/state.pt"
    while not state.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    cut = process.wait(60)
    assert cut.code != 0
    assert "KeyboardInterrupt" in cut.err
    assert not list(tmp_path.glob("here/runs/*.tmp"))
    done = Forked(tmp_path / "script.py", [], tmp_path, environment_of()).wait()
    assert done.code == 0, done.err
    assert done.out == "trained (0, 1)\n"
    assert not list(tmp_path.glob("runs"))


def test_failed_folds_are_an_error_after_the_rest_is_saved(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(FoldsFailed, match="2 of 2 folds failed") as raised:
        folds.kfold(drawn, arch="test_resnet", root=tmp_path, **(SMALL | {"lr": 1e30, "clip": 0.0}))
    assert raised.value.details
    assert raised.value.hint


def test_predictions_of_a_run_can_be_compared_as_arrays(trained: tuple[Path, Runs]) -> None:
    _, runs = trained
    a, b = (run.oof for run in runs.values())
    assert isinstance(a, Predictions)
    found = folds.compare(a.labels, a.probabilities, b.probabilities, groups=a.persons, classes=a.classes)
    assert found.first == a.score().value
    assert isinstance(a.frame(), pd.DataFrame)
