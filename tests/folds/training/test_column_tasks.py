"""Tiny trainings with several labels and with numbers, from a table to the prediction file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from folds.config.recipe import Recipe, Settings
from folds.errors import UsageError
from folds.experiments.record import entry_from_files
from folds.experiments.summary import summarize_run
from folds.models.checkpoint import load_checkpoint
from folds.predictions.files import oof_file, read_array, read_sidecar
from folds.predictions.label_columns import label_matrix
from folds.runs.open import prepare_jobs
from folds.runs.plan import Plan, build_plan
from folds.runs.publish import write_predictions
from folds.training.job import Job
from folds.training.trainer import train_fold
from folds.utils.files import read_json

TINY: dict[str, Any] = {"img_size": "32", "pretrained": False, "augment": "none", "lr": 6e-3, "label_smoothing": None}
PEOPLE = 16


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 16 people with three images: a red upper half is a hat, blue lower half are glasses; some unknown."""
    folder = tmp_path_factory.mktemp("columns")
    rng, lines = np.random.default_rng(0), ["path,person,hat,glasses,age"]
    for person in range(PEOPLE):
        hat, glasses = person % 2, person // 2 % 2
        for i in range(3):
            pixels = rng.integers(0, 60, (32, 32, 3))
            pixels[:16, :, 0] += 180 * hat
            pixels[16:, :, 2] += 180 * glasses
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{person}-{i}.png")
            known = "" if (person + i) % 7 == 0 else glasses
            lines.append(f"{person}-{i}.png,p{person},{hat},{known},{20.5 + 30 * hat + 5 * glasses}")
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    return folder / "t.csv"


def plan_of(table: Path, label: str, name: str = "run", **recipe: Any) -> Plan:
    settings = Settings(data=table, label=label, arch=("test_resnet",), k=2, name=name)
    return build_plan(settings, Recipe(**TINY | recipe))


def trained(plan: Plan, **options: Any) -> list[dict[str, Any]]:
    """Train all folds of a plan, publish them, and return what was recorded of them."""
    done = [train_fold(replace(job, threads=1), **options) for job in prepare_jobs(plan, resume=True)]
    write_predictions(plan, plan.runs[0])
    return done


@pytest.fixture(scope="module")
def labels_run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A folder with a run of several labels, and the records of its folds."""
    return run_in(tmp_path_factory.mktemp("labels"), lambda: trained(plan_of(table, "hat,glasses", epochs=12)))


@pytest.fixture(scope="module")
def numbers_run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A folder with a run of a number, and the records of its folds."""
    settings = {"epochs": 20, "task": "regression", "loss": "gaussian"}
    return run_in(tmp_path_factory.mktemp("numbers"), lambda: trained(plan_of(table, "age", **settings)))


def run_in(folder: Path, make: Callable[[], Any]) -> tuple[Path, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder, make()


def test_labels_are_learned_and_published(labels_run: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, done = labels_run
    path = oof_file(folder / "runs", "run")
    values, sidecar = read_array(path), read_sidecar(path)
    assert sidecar is not None
    assert (sidecar.kind, sidecar.task, sidecar.classes) == ("probability", "multilabel", ("hat", "glasses"))
    assert sidecar.rows.labels is not None
    assert values.shape == (3 * PEOPLE, 2)
    assert (values >= 0).all() and (values <= 1).all()
    labels = label_matrix(sidecar.rows.labels, sidecar.classes, sidecar.task)
    assert np.isnan(labels[:, 1]).sum() == 7
    summary = summarize_run("run", dict(enumerate(done)), 2, folder / "runs")
    assert summary.oof.metric == "roc_auc"
    assert summary.oof.interval.value > 0.9
    assert list(summary.columns) == ["hat", "glasses"]
    assert done[0]["task"] == "multilabel" and list(done[0]["scores"]) == ["roc_auc", "macro_f1", "log_loss"]


def test_numbers_are_in_the_unit_of_the_table(numbers_run: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, _ = numbers_run
    path = oof_file(folder / "runs", "run")
    values, sidecar = read_array(path), read_sidecar(path)
    assert sidecar is not None and sidecar.rows.labels is not None
    assert (sidecar.kind, sidecar.task, sidecar.classes) == ("number", "regression", ("age",))
    truth = label_matrix(sidecar.rows.labels, sidecar.classes, sidecar.task)
    assert np.abs(values - truth).mean() < 0.4 * np.abs(truth - truth.mean()).mean()
    checkpoint = load_checkpoint(folder / "checkpoints" / "run" / "fold0.pt")
    assert (checkpoint.task, checkpoint.architecture.head) == ("regression", "gaussian")
    outputs = checkpoint.build()(
        __import__("torch").zeros(1, 3, 32, 32)
    )  # the variance is learned, and not a part of the predictions
    assert outputs.shape == (1, 1)


def test_the_ledger_has_the_scores_of_the_task(numbers_run: tuple[Path, Any]) -> None:
    entry = entry_from_files("run", numbers_run[0] / "runs")
    assert entry is not None
    assert entry["oof"]["task"] == "regression"
    assert {"mae", "rmse", "r2"} < set(entry["oof"])
