from __future__ import annotations

import inspect
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble.cli.commands.kfold import kfold
from folds.config.lookup import key_of
from folds.execution import local as manager
from folds.execution import placement as devices
from tests.conftest import GRID, Called, environment_of
from tests.folds.runs.test_execute import InProcess, wait_for
from tests.processes import Forked

Call = Callable[..., Called]
QUICK = ["--arch", "test_resnet", "--k", "3", "--epochs", "1", "--img-size", "32", "--no-pretrained"]


def test_the_output_names_data_folds_score_and_next_command(grid_output: Called) -> None:
    assert grid_output.code == 0, grid_output.err
    assert grid_output.err.splitlines()[0] == "data: people"
    assert "210 images of 30 people, 18 classes, 3 folds by person; test: 42 images" in grid_output.err
    assert grid_output.err.rstrip().splitlines()[-1] == "next: ensemble report test_resnet test_vit --open"
    assert "to combine them: ensemble blend runs/*.npy --method soft" in grid_output.err.splitlines()
    lines = grid_output.out.splitlines()
    assert lines[0].split("  ")[0] == "run"
    assert "OOF macro F1" in lines[0]
    assert [line.split()[0] for line in lines[2:]] == ["test_resnet", "test_vit"]


def test_a_finished_run_is_shown_again_with_unchanged_files(grid: Path, call: Call, grid_output: Called) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path("runs").glob("*.*") if not path.name.startswith(".")}
    again = call(*GRID, "--resume")
    assert again.code == 0
    assert "all folds are trained already" in again.err
    assert again.out == grid_output.out
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_json_is_one_object_with_the_pooled_score(grid: Path, call: Call) -> None:
    record = json.loads(call(*GRID, "--resume", "--json").out)
    assert [run["run"] for run in record["runs"]] == ["test_resnet", "test_vit"]
    assert record["runs"][0]["oof"]["rows"] == 210
    assert record["runs"][0]["oof"]["macro_f1"]["low"] <= record["runs"][0]["oof"]["macro_f1"]["score"]


def test_a_run_that_exists_is_refused_with_exit_1(grid: Path, call: Call) -> None:
    called = call(*GRID)
    assert called.code == 1
    assert "the run runs/test_resnet exists" in called.err
    assert "--resume" in called.err


def test_scores_per_person_count_people(grid: Path, call: Call) -> None:
    record = json.loads(call(*GRID, "--resume", "--per", "person", "--json").out)
    assert record["runs"][0]["oof"]["rows"] == 30


def test_the_recorded_settings_can_be_given_again(grid: Path, call: Call) -> None:
    called = call("kfold", "-c", "runs/test_vit/config.toml", "--resume")
    assert called.code == 0, called.err
    assert "all folds are trained already" in called.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--arch", "resnet81"], 2, "unknown architecture 'resnet81'; did you mean"),
        (["--arch", "vgg11", "--img-size", "16x20"], 2, "does not accept 20×16 px"),
        (["--k", "1"], 2, "--k must be 2 or more, found 1"),
        (["--k", "31"], 1, "31"),
        (["--fold", "3"], 2, "the folds are 0 to 2"),
        (["--fold", "one"], 2, "expected fold numbers"),
        (["--lr", "-1"], 2, "--lr must be above 0"),
        (["--img-size", "tiny"], 2, "--img-size tiny"),
        (["--window", "9,1"], 2, "--window 9,1"),
        (["--augment", "strnog"], 2, "unknown --augment 'strnog'"),
        (["--amp", "fp8"], 2, "unknown --amp 'fp8'"),
        (["--fit", "crpo"], 2, "did you mean crop?"),
        (["--devices", "7"], 2, "device cuda:7 not found"),
        (["--name", "tta"], 2, "--name tta"),
        (["--init", "nowhere.pt", "--pretrained"], 1, "file not found: nowhere.pt"),
        (["--init", "x.pt", "--no-pretrained"], 2, "contradict"),
        (["-c", "nowhere.toml"], 1, "there is no settings file nowhere.toml"),
        (["--folds", "nowhere.csv"], 1, "nowhere.csv"),
        (["--resume", "--force"], 2, "contradict"),
        (["--jobs", "0"], 2, "--jobs must be 1 or more"),
        (["--repeats", "0"], 2, "--repeats must be from 1 to 1000, found 0"),
        (["--seeds", "0"], 2, "--seeds must be from 1 to 1000, found 0"),
        (["--repeats", "2", "--folds", "f.csv"], 2, "--folds and --repeats contradict each other"),
        (["--stratify", "site"], 2, "unknown column 'site'"),
    ],
)
def test_invalid_settings_are_refused_before_any_file_is_written(
    call: Call, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    base = QUICK[:-1] if "--init" in words else QUICK
    called = call("kfold", "--data", drawn, *base, *words)
    assert (called.code, said in called.err) == (code, True), called.err
    assert "Traceback" not in called.err
    assert called.out == ""
    assert not (tmp_path / "runs").exists()


def test_the_help_names_the_options_for_a_settings_file() -> None:
    sentence = " ".join(
        (kfold.__doc__ or "").split("cannot be set in a file:")[1].split(".")[0].replace(" and ", ", ").split()
    )
    now = {"config" if word == "-c" else word.removeprefix("--").replace("-", "_") for word in sentence.split(", ")}
    assert {name for name in inspect.signature(kfold).parameters if key_of(name) is None} - {"run"} == now


def test_the_names_of_the_samples_and_the_loss_are_options(
    call: Call, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = sorted((drawn / "eval/images").iterdir())[:12]
    rows = [f"0,n{i},{path},{'ab'[i % 2]},p{i}" for i, path in enumerate(paths)]
    Path("index.csv").write_text("\n".join(["id,name,path,label,person", *rows]))
    words = ["kfold", "--data", "index.csv", *QUICK, "--dry-run"]
    assert "name another column with --id" in call(*words).err
    assert call(*words, "--id", "name", "--loss", "ce").code == 0
    wrong = call(*words, "--id", "name", "--loss", "cee")
    assert (wrong.code, "unknown --loss 'cee'; did you mean ce or" in wrong.err) == (2, True)


def test_a_wrong_path_offers_what_is_there(
    call: Call, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pictures").mkdir()
    called = call("kfold", "--data", "pictrues", *QUICK)
    assert called.code == 1
    assert "pictrues" in called.err
    assert "pictures" in called.err


def test_unavailable_pretrained_weights_are_an_error(
    call: Call, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm
    import torch

    create = timm.create_model

    def no_network(*arguments: Any, **named: Any) -> Any:
        if named.get("pretrained"):
            raise OSError("the hub cannot be reached")
        if torch.get_default_device().type == "meta":  # to count parameters
            return create(*arguments, **named)
        raise AssertionError("a random start was made silently")

    monkeypatch.setattr(timm, "create_model", no_network)
    monkeypatch.chdir(tmp_path)
    called = call("kfold", "--data", drawn, "--arch", "resnet18", "--k", "3")
    assert called.code == 1
    assert "could not be downloaded" in called.err
    assert "--no-pretrained" in called.err


def test_only_labeled_test_images_are_scored(grid: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    images = grid / "more"
    images.mkdir()
    for path in sorted((grid / "people/eval/images").iterdir())[:5]:
        shutil.copy(path, images)
    monkeypatch.setattr(manager, "Worker", InProcess)
    called = call("kfold", "--data", "people", "--test", "more", *QUICK, "--name", "more", "--fold", "0")
    assert called.code == 0, called.err
    assert np.load("runs/more.fold0.test.npy").shape == (5, 18)
    assert "test macro F1" not in called.out


def test_ctrl_c_exits_130_and_a_resume_ends_with_the_same_bytes(
    grid: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        "kfold",
        "--data",
        "people",
        "--arch",
        "test_resnet",
        "--k",
        "3",
        "--img-size",
        "32",
        "--no-pretrained",
        "--epochs",
        "10",
        "--fold",
        "0",
    ]
    core = min(os.sched_getaffinity(0))  # one core: one thread
    process = Forked("ensemble.cli", [*words, "--name", "cut"], grid, environment_of(), core)
    wait_for(lambda: Path("runs/cut/fold0/history.csv").exists())
    process.send_signal(signal.SIGINT)
    cut = process.wait(60)
    assert cut.code == 130
    assert "interrupted" in cut.err
    assert cut.err.rstrip().splitlines()[-1].startswith("next: ensemble kfold")
    assert not Path("runs/cut.oof.npy").exists()
    monkeypatch.setattr(manager, "Worker", InProcess)
    monkeypatch.setattr(devices, "cpu_count", lambda: 1)
    resumed = call(*words, "--name", "cut", "--resume")
    assert resumed.code == 0, resumed.err
    stopped_at = len(Path("runs/cut/fold0/history.csv").read_text().splitlines())
    assert stopped_at == 11
    expected = Path("runs/cut.oof.npy").read_bytes()
    assert call(*words, "--name", "cut", "--force").code == 0
    assert Path("runs/cut.oof.npy").read_bytes() == expected


def test_a_failed_fold_exits_3_and_the_rest_is_saved(grid: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = Path("checkpoints/other/fold1.pt")
    blocked.mkdir(parents=True)
    monkeypatch.setattr(manager, "Worker", InProcess)
    called = call("kfold", "--data", "people", *QUICK, "--name", "other")
    assert called.code == 3
    assert "1 of 3 folds failed: other fold 1; the others are saved" in called.err
    assert called.err.rstrip().splitlines()[-1].startswith("hint: ensemble ")
    assert "other" in called.out
    assert "2/3" in called.out


def test_resume_with_a_name_or_alone_takes_the_recorded_settings(grid: Path, call: Call) -> None:
    named = call("kfold", "--resume", "test_vit")
    assert named.code == 0, named.err
    assert named.out.splitlines()[2].split()[:2] == ["test_vit", "3/3"]
    assert call("kfold", "--resume").err.startswith("error: all runs are finished")
    before = (grid / "runs/test_vit.oof.npy").read_bytes()
    shutil.rmtree("runs/test_vit/fold1")
    alone = call("kfold", "--resume")
    assert alone.err.startswith("continuing test_vit: 2 of 3 folds finished")
    assert alone.code == 0
    assert (grid / "runs/test_vit.oof.npy").read_bytes() == before
    shutil.rmtree("runs/test_vit/fold0")
    shutil.rmtree("runs/test_resnet/fold0")
    several = call("kfold", "--resume")
    assert (several.code, several.out) == (2, "")
    assert several.err.splitlines() == [
        "error: 2 runs are unfinished",
        "  test_resnet: 2 of 3 folds",
        "  test_vit: 2 of 3 folds",
        "hint: --resume test_resnet",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["swin"], "unexpected argument 'swin'"),
        (["--resume", "test_vitt"], "unknown run 'test_vitt'; did you mean test_vit"),
        (["--resume", "test_vit", "-c", "x.toml"], "not those of another file or sweep"),
    ],
)
def test_a_run_to_resume_must_be_one(grid: Path, call: Call, words: list[str], said: str) -> None:
    called = call("kfold", *words)
    assert called.code == 2
    assert said in called.err


def test_a_resume_that_cannot_match_builds_no_model(grid: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("folds.runs.matrix.create_model", lambda *given, **more: pytest.fail("fetched weights"))
    called = call(*GRID, "--lr", "0.5", "--resume")
    assert called.code == 1
    assert "started with different settings" in called.err


def test_another_metric_is_shown_and_changes_no_finished_run(grid: Path, call: Call) -> None:
    record = json.loads(call(*GRID, "--resume", "--metric", "brier", "--json").out)
    assert set(record["runs"][0]["oof"]) == {"brier", "accuracy", "rows", "people"}
    shown = call(*GRID, "--resume", "--metric", "brier")
    assert "OOF Brier score (lower is better)" in shown.out.splitlines()[0]
    wrong = call(*GRID, "--resume", "--metric", "brie")
    assert (wrong.code, "unknown metric 'brie'; did you mean brier" in wrong.err) == (2, True)
