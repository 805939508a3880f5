"""One fold on several devices; here two processes of the CPU, connected by gloo."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from folds.config.command_settings import Settings
from folds.config.recipe import Recipe
from folds.errors import EnsembleError, UsageError
from folds.models.checkpoint import load_checkpoint
from folds.runs.open import prepare_jobs
from folds.runs.plan import build_plan
from folds.runs.plan_checks import check_shared_batches
from folds.training import ranks
from folds.training.job import Job, job_as_dict, job_from_dict
from folds.training.ranks import started_group
from folds.training.trainer import _build, train_fold


@pytest.fixture
def job(drawn: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Job]:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")

    def make(name: str, **recipe: Any) -> Job:
        settings = Settings(data=drawn, arch=("test_resnet",), k=3, name=name)
        values = {"epochs": 2, "img_size": "32", "pretrained": False, "batch_size": 33} | recipe
        one = prepare_jobs(build_plan(settings, Recipe(**values), folds=[0]))[0]
        return replace(one, threads=1)

    return make


def weights_of(one: Job) -> dict[str, torch.Tensor]:
    return dict(load_checkpoint(Path(one.checkpoint)).weights)


class Stop(Exception):
    """Stands for a process that is gone."""


def test_two_processes_train_as_one_and_continue(job: Callable[..., Job]) -> None:
    """With mixed images, batch normalization, a moving average, parts of a batch, and a loss divided by class weights.

    By SGD: Adam divides by the gradient, so where that is almost zero, rounding decides the step.
    """
    recipe = {"mixup": 0.4, "ema": 0.9, "accumulate": 2, "opt": "sgd", "lr": 0.001}
    recipe["loss"] = "focal:weights=inverse"
    one = job("run", **recipe)
    first = {name: value.clone() for name, value in _build(one).model.state_dict().items()}
    train_fold(one)
    alone, rows = weights_of(one), np.load(one.fold_dir / "oof.npy")
    history = (one.fold_dir / "history.csv").read_text()
    shutil.rmtree(one.fold_dir)
    Path(one.checkpoint).unlink()

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "epoch":
            raise Stop

    both = replace(one, partners=("cpu",), save_seconds=0)
    with pytest.raises(Stop):
        train_fold(both, stop)  # ends the other process too
    assert (both.fold_dir / "state.pt").exists()
    train_fold(replace(both, save_seconds=180))
    assert max(float((value - alone[name]).abs().max()) for name, value in first.items()) > 1e-3
    for name, value in weights_of(both).items():
        torch.testing.assert_close(value, alone[name], atol=1e-5, rtol=1e-5, msg=lambda text, name=name: name + text)
    np.testing.assert_allclose(np.load(both.fold_dir / "oof.npy"), rows, atol=1e-5)
    shared = (both.fold_dir / "history.csv").read_text()
    for mine, theirs in zip(shared.split()[1:], history.split()[1:], strict=True):
        np.testing.assert_allclose(float(mine.split(",")[1]), float(theirs.split(",")[1]), rtol=1e-5)  # the loss


def tiny() -> Job:
    values = dict.fromkeys(("folder", "checkpoint", "pixels", "folds_sha"), "x")
    records: dict[str, Any] = {key: {} for key in ("architecture", "recipe", "images", "data", "class_attributes")}
    return Job(run="run", fold=0, k=2, test_pixels=None, classes=(), **values, **records)


def test_a_process_that_fails_is_named_with_its_reason() -> None:
    one = replace(tiny(), partners=("nothing",))
    said = r"on nothing ended with status 1: RuntimeError.*nothing"
    with pytest.raises(EnsembleError, match=said), started_group(one, lambda event: None):
        pytest.fail("the group is not complete")


@pytest.mark.parametrize(("status", "ending", "told"), [(3, False, True), (0, False, False), (3, True, False)])
def test_a_gpu_does_not_wait_for_a_process_that_has_failed(
    status: int, ending: bool, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[dict[str, Any]] = []
    exits: list[int] = []
    monkeypatch.setattr(ranks.os, "_exit", exits.append)
    partner = object.__new__(ranks._Partner)
    partner._job, partner._device, partner._report, partner._ending = tiny(), "cuda:1", events.append, ending
    partner._log = tmp_path / "log"
    partner._log.write_text("torch.OutOfMemoryError: CUDA out of memory\n")
    partner._process = subprocess.Popen(["sh", "-c", f"exit {status}"], stdin=subprocess.PIPE, text=True)
    partner._watch()
    partner.end()
    assert exits == ([1] if told else [])
    assert [event["event"] for event in events] == (["failed"] if told else [])
    assert all("cuda:1 ended with status 3: torch.OutOfMemoryError" in event["message"] for event in events)


def test_partners_travel_with_the_job() -> None:
    one = replace(tiny(), partners=("cuda:1", "cuda:2"))
    assert job_from_dict(json.loads(json.dumps(job_as_dict(one)))) == one


@pytest.mark.parametrize(
    ("recipe", "gpus", "said"),
    [
        ({"compile": True}, 2, "compile=True does not work with gpus_per_job=2"),
        ({"batch_size": 7}, 2, ""),
        ({"batch_size": 7}, 4, "needs at least 8 images per forward pass, found 7"),
        ({"batch_size": 32, "accumulate": 8}, 4, "found 4"),
        ({"batch_size": 1, "compile": True}, 1, ""),
    ],
)
def test_a_recipe_that_several_gpus_cannot_train_is_wrong_usage(recipe: dict[str, Any], gpus: int, said: str) -> None:
    with pytest.raises(UsageError, match=said) if said else nullcontext():
        check_shared_batches([Recipe(**recipe)], gpus)
