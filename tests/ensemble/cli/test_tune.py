"""`ensemble tune` with a real Ray, one trial at a time: what comes out is then the same every time, stops included."""

from __future__ import annotations

import csv
import json
import shutil
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from folds.errors import EnsembleError, UsageError
from folds.execution import local as manager
from folds.execution.placement import DevicePlan, Execution
from folds.metrics.confusion import argmax_classes, macro_f1
from folds.runs.open import prepare_jobs
from folds.splits.assignment import read_folds
from folds.training.trainer import train_fold
from folds.tuning.search import _Past, _plan, _plan_devices, _scheduler, require_tune
from folds.tuning.space import TuneOptions
from folds.tuning.study import make_study
from folds.tuning.trainable import PROGRESS, SCORE
from folds.utils.csv_table import read_csv
from tests.conftest import ROOT, Called, call_process, environment_of
from tests.folds.runs.test_execute import InProcess, wait_for
from tests.processes import Forked

Call = Callable[..., Called]
SPACE = """
data = "people"
arch = "test_resnet"
k = 3
img_size = "32"
pretrained = false
epochs = 4

[space]
lr = [1e-4, 1e-3, 1e-2, 1e30]
batch_size = [8, 16, 32]

[tune]
trials = 5
folds = [0, 1]
reduction = 2
parallel = 1
seed = 3
"""
COMMAND = ["tune", "-c", "space.toml", "--devices", "cpu"]


@pytest.fixture
def folder(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the drawn people and a space, made the current one."""
    monkeypatch.chdir(tmp_path)
    Path("people").symlink_to(drawn)
    Path("space.toml").write_text(SPACE)
    return tmp_path


@pytest.fixture(scope="module")
def with_tune() -> None:
    pytest.importorskip("ray.tune", reason="Ray Tune (the extra 'ray') is not installed", exc_type=ImportError)


@dataclass(frozen=True)
class Done:
    """A folder in which a tuning was made, what the command printed until it was killed, and when it went on."""

    folder: Path
    killed: Called
    called: Called


@pytest.fixture(scope="module")
def _done(with_tune: None, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Killed in the training of its second trial, which becomes the best, and resumed."""
    made = tmp_path_factory.mktemp("tuned")
    (made / "people").symlink_to(drawn)
    (made / "space.toml").write_text(SPACE)
    process, second = Forked("ensemble.cli", COMMAND, made, environment_of()), made / "runs/tune/space/t001"
    try:
        wait_for(lambda: (second / "fold0/history.csv").exists() or process.poll() is not None)
    finally:
        process.kill()
    assert (second / "fold0/history.csv").exists()
    assert not (second / "trial.json").exists(), "it had ended before it was killed"
    return Done(made, process.wait(), call_process([*COMMAND, "--resume"], made))


@pytest.fixture
def done(_done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Done:
    """A copy of it, made the current folder."""
    assert _done.called.code == 0, _done.called.err
    shutil.copytree(_done.folder, tmp_path / "tuned", symlinks=True)
    monkeypatch.chdir(tmp_path / "tuned")
    return Done(tmp_path / "tuned", _done.killed, _done.called)


def rows(path: str = "runs/tune/space/trials.csv") -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def test_trials_are_compared_and_the_best_is_written_for_kfold(done: Done) -> None:
    said = done.called
    assert "210 images of 30 people" in said.err
    assert "training 1 trial in parallel" in said.err
    assert said.err.rstrip().splitlines()[-1] == "next: ensemble kfold -c runs/tune/space/best.toml"
    assert "optimistic: macro_f1" in said.err
    assert said.out.splitlines()[0].split("  ")[0] == "trial"
    table = rows()
    assert [row["state"] for row in table] == ["finished", "stopped", "stopped", "failed", "failed"]
    scores = [float(row["macro_f1"]) for row in table[:3]]
    assert scores == sorted(scores, reverse=True)
    assert {(row["state"], row["lr"] == "1e+30", row["trained"] == row["of"] == "8") for row in table} == {
        ("finished", False, True),
        ("stopped", False, False),
        ("failed", True, False),
    }
    assert "t000: lr 1e+30, batch_size 8: failed: t000 fold 0: the loss is nan in epoch 1" in done.killed.err
    assert "1 of 5 trials have ended already" in said.err
    best = tomllib.loads(Path("runs/tune/space/best.toml").read_text())
    assert (f"{best['lr']:g}", str(best["batch_size"]), best["name"]) == (
        table[0]["lr"],
        table[0]["batch_size"],
        "space-best",
    )
    with Image.open("runs/tune/space/importance.png") as image:
        assert image.size[0] > 500


def test_a_trial_keeps_its_history_and_does_not_look_like_a_run(done: Done, call: Call) -> None:
    left = {path.name for path in Path("runs").rglob("*") if path.is_file()}
    assert not left & {"done.json", "state.pt", "fold0.pt", ".ray"}
    assert not [path for path in Path("runs").rglob("*") if "shared-" in path.name or path.suffix == ".pkl"]
    assert {"trial.json", "history.csv", "oof.npy", "config.toml"} <= left
    assert not list(Path("runs").glob("*.npy"))
    assert not Path("checkpoints").exists()
    assert "no runs" in call("runs").out


def test_a_score_is_the_mean_of_the_scores_of_its_folds(done: Done) -> None:
    row = rows()[0]
    place = Path("runs/tune/space") / row["trial"]
    folds = read_folds(place / "folds.csv")
    code = {name: i for i, name in enumerate(sorted(set(folds.labels.tolist()), key=int))}
    scores = []
    for fold in (0, 1):
        truth = np.array([code[label] for label in folds.labels[folds.validation_index(fold)].tolist()])
        scores.append(macro_f1(truth, argmax_classes(np.load(place / f"fold{fold}/oof.npy")), len(code)))
        assert len(read_csv(place / f"fold{fold}/history.csv").numbers) == 4
    assert np.mean(scores) == float(row["macro_f1"])


def test_a_tuning_that_exists_wants_resume_which_shows_it_again(done: Done, call: Call) -> None:
    refused = call(*COMMAND)
    assert (refused.code, "the study runs/tune/space exists" in refused.err, "--resume" in refused.err) == (
        1,
        True,
        True,
    )
    before = rows()
    again = call(*COMMAND, "--resume")
    assert (again.code, again.out) == (0, done.called.out)
    assert rows() == before
    record = json.loads(call(*COMMAND, "--resume", "--json").out)
    assert record["best"]["optimistic"] is True
    assert [one["trial"] for one in record["trials"]] == [row["trial"] for row in before]


def test_a_tuning_goes_on_with_its_own_settings_only(done: Done, call: Call) -> None:
    Path("space.toml").write_text(SPACE.replace("[8, 16, 32]", "[8, 16]").replace("epochs = 4", "epochs = 5"))
    called = call(*COMMAND, "--resume")
    assert called.code == 1
    assert "[settings] epochs: 4 → 5" in called.err
    assert "[space] batch_size" in called.err
    assert call(*COMMAND, "--name", "other", "--dry-run").code == 0


def test_the_best_is_scored_on_the_folds_not_used_for_the_choice(
    done: Done, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "Worker", InProcess)
    trained = call("kfold", "-q", "-c", "runs/tune/space/best.toml")
    assert trained.code == 0, trained.err
    assert Path("runs/space-best.oof.npy").exists()
    called = call(*COMMAND, "--resume")
    assert "space-best on fold 2, not used for the choice: macro_f1 0." in called.err
    checked = json.loads(call(*COMMAND, "--resume", "--json").out)["best"]["checked"]
    assert (checked["folds"], checked["low"] <= checked["score"] <= checked["high"]) == ([2], True)
    config = Path("runs/space-best/config.toml")
    lines = [
        f"lr = {float(line.split()[-1]) * 2}" if line.startswith("lr =") else line
        for line in config.read_text().splitlines()
    ]
    config.write_text("\n".join(lines))
    assert json.loads(call(*COMMAND, "--resume", "--json").out)["best"]["checked"] is None, "that is another training"


def test_a_trial_that_was_killed_ends_as_if_it_had_not_been(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned, tuning = Path("runs/tune/space").absolute(), make_study({}, Path("space.toml"))
    (tmp_path / "anew").mkdir()
    (tmp_path / "anew/people").symlink_to(Path("people").resolve())
    monkeypatch.chdir(tmp_path / "anew")
    plan = _plan(tuning, tuning.candidates, DevicePlan(("cpu",), 1, "", "ray"), Execution("cpu"))
    jobs = [job for job in prepare_jobs(plan) if job.run == "t001"]
    assert sorted(job.fold for job in jobs) == [0, 1]
    for job in jobs:
        train_fold(job)
        assert (job.fold_dir / "oof.npy").read_bytes() == (tuned / f"t001/fold{job.fold}/oof.npy").read_bytes()


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (("lr = [", "lrr = ["), 1, "space.toml: [space] unknown setting 'lrr'; did you mean lr"),
        (("epochs = 4", "epochs = 4\nlr = 1e-3"), 2, "[space] lr contradicts lr given by space.toml"),
        (("[8, 16, 32]", "[8, 0]"), 2, "batch_size must be 2 or more images, found 0"),
        (("[8, 16, 32]", '[8, "many"]'), 2, "batch_size = 'many'"),
        (("batch_size = [8, 16, 32]", 'loss = ["ce", "focall"]'), 2, "did you mean focal"),
        (("folds = [0, 1]", "folds = [0, 3]"), 1, "[tune] folds = [0, 3]: the folds are 0 to 2"),
        (("trials = 5", "trials = 5\ngrace = 9"), 1, "grace = 9: the longest trial has 8 epochs"),
        (
            ('arch = "test_resnet"', 'arch = ["test_resnet", "test_vit"]'),
            2,
            'put arch = ["test_resnet", "test_vit"] into [space]',
        ),
        (("[tune]", "[[run]]\nlr = 1\n[tune]"), 1, "[[run]] and [space] contradict each other"),
        (("[space]", "[spaces]"), 1, "unknown key 'spaces'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(
    folder: Path, call: Call, change: tuple[str, str], code: int, said: str
) -> None:
    Path("space.toml").write_text(SPACE.replace(*change))
    called = call(*COMMAND)
    assert (called.code, said in called.err) == (code, True), called.err
    assert sorted(path.name for path in folder.iterdir()) == ["people", "space.toml"]


def test_a_dry_run_shows_what_would_be_tried(folder: Path, call: Call) -> None:
    called = call(*COMMAND, "--trials", "6", "--dry-run")
    assert called.code == 0
    assert [line.split()[0] for line in called.out.splitlines()[2:]] == [f"t00{i}" for i in range(6)]
    assert not Path("runs").exists()


@pytest.mark.parametrize(("metric", "scores"), [("mae", (5, 2, 4, 1)), ("roc_auc", (0.5, 0.8, 0.6, 0.9))])
def test_trials_that_are_worse_by_the_metric_are_stopped(
    with_tune: None, tmp_path: Path, metric: str, scores: tuple[float, ...]
) -> None:
    (tmp_path / "space.toml").write_text(SPACE)
    scheduler = _scheduler(make_study({}, tmp_path / "space.toml", metric=metric, root=tmp_path))
    decided = []
    for number, score in enumerate(scores):
        trial = _Past(f"t{number:03d}")
        scheduler.on_trial_add(None, trial)
        decided.append(scheduler.on_trial_result(None, trial, {PROGRESS: 1, SCORE: score}))
    assert decided == ["CONTINUE", "CONTINUE", "STOP", "CONTINUE"]


def test_kfold_does_not_pass_over_a_space(folder: Path, call: Call) -> None:
    called = call("kfold", "-c", "space.toml", "--dry-run")
    assert called.code == 1
    assert "space.toml: [space] is not a setting of one training" in called.err
    assert "hint: ensemble tune -c space.toml" in called.err


def test_the_shipped_example_is_what_team_2_tuned() -> None:
    tuning = make_study({}, ROOT / "recipes/tune.toml")
    assert [axis.key for axis in tuning.space] == ["lr", "epochs", "batch_size"]
    assert (len(tuning.candidates), tuning.options.folds, tuning.max_epochs) == (20, (0,), 20)


def test_trials_can_start_from_the_weights_of_another_run(grid: Path) -> None:
    above = 'data = "people"\narch = "test_vit"\nk = 3\nimg_size = "32"\ninit_run = "test_vit"\nepochs = 1\n'
    Path("space.toml").write_text(above + "[space]\nlr = [1e-4, 1e-3]\n[tune]\nfolds = [0, 1]\n")
    tuning = make_study({}, Path("space.toml"))
    plan = _plan(tuning, tuning.candidates, DevicePlan(("cpu",), 1, "", "ray"), Execution("cpu"))
    jobs = prepare_jobs(plan)
    assert sorted((job.run, job.fold) for job in jobs) == [("t000", 0), ("t000", 1), ("t001", 0), ("t001", 1)]
    assert {(job.fold, job.init) for job in jobs} == {(fold, f"checkpoints/test_vit/fold{fold}.pt") for fold in (0, 1)}
    assert {Path(job.folder).parent for job in jobs} == {Path("runs/tune/space")}
    assert {Path(job.checkpoint).parent for job in jobs} == {Path("runs/tune/space/t000"), Path("runs/tune/space/t001")}


def test_without_ray_tune_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.tune", None)
    with pytest.raises(UsageError) as error:
        require_tune()
    assert error.value.hint == "pip install 'ray[tune]'"


class FakeRay:
    """A cluster as Ray describes it."""

    def __init__(self, *nodes: dict[str, float]) -> None:
        self._nodes = [{"Alive": True, "Resources": dict(node)} for node in nodes]

    def nodes(self) -> list[dict[str, Any]]:
        return self._nodes


@pytest.mark.parametrize(
    ("options", "devices", "slots", "kind", "share"),
    [
        ({}, "auto", 4, "cuda", 1.0),
        ({"gpus": 0.5}, "auto", 8, "cuda", 0.5),
        ({"gpus": 2}, "auto", 2, "cuda", 2.0),
        ({"gpus": 0}, "auto", 16, "cpu", 0.0),
        ({}, "cpu", 16, "cpu", 0.0),
        ({"cpus": 8}, "auto", 2, "cuda", 1.0),
        ({"parallel": 3}, "auto", 3, "cuda", 1.0),
    ],
)
def test_trials_take_the_gpus_that_ray_has(
    options: dict[str, Any], devices: str, slots: int, kind: str, share: float
) -> None:
    found = _plan_devices(FakeRay({"CPU": 8, "GPU": 2}, {"CPU": 8, "GPU": 2}), TuneOptions(**options), devices, 100)
    assert isinstance(found, DevicePlan)
    assert (len(found.devices), found.kind, found.gpu_share, found.threads) == (
        slots,
        kind,
        share,
        options.get("cpus", 1),
    )


def test_what_no_machine_has_is_refused() -> None:
    with pytest.raises(EnsembleError, match="the largest machine has 4 cores"):
        _plan_devices(FakeRay({"CPU": 4}, {"CPU": 2}), TuneOptions(cpus=5), "auto", 1)
    with pytest.raises(EnsembleError, match="Ray finds no GPU"):
        _plan_devices(FakeRay({"CPU": 4}), TuneOptions(gpus=1), "auto", 1)
    with pytest.raises(UsageError, match="Ray chooses the GPUs"):
        _plan_devices(FakeRay({"CPU": 4}), TuneOptions(), "0,1", 1)
