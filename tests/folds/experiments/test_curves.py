"""Curves of folds: from the files of a run, and in the events of its epochs, also after an interruption."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from folds.experiments.curves import EpochCurves, curve_title, fold_curves

HEADER = "epoch,loss,validation_macro_f1,validation_log_loss"


def write_history(folder: Path, *rows: str, header: str = HEADER) -> None:
    folder.mkdir(parents=True)
    (folder / "history.csv").write_text("\n".join([header, *rows]) + "\n")


def test_the_curves_are_those_of_the_metric_of_the_run(tmp_path: Path) -> None:
    write_history(tmp_path / "fold0", "1,2.0,0.3,1.5", "2,1.0,0.5,1.2")
    write_history(tmp_path / "fold2", "1,2.1,0.2,1.6")
    assert fold_curves(tmp_path, [0, 1, 2], "log_loss") == ("validation_log_loss", {0: [1.5, 1.2], 2: [1.6]})
    assert fold_curves(tmp_path, [0], "mine:metric") == ("validation_macro_f1", {0: [0.3, 0.5]})
    assert fold_curves(tmp_path, [1]) == ("loss", {})
    assert curve_title("validation_log_loss") == "log loss"
    assert curve_title("loss") == "loss"


def test_damaged_histories_are_left_out(tmp_path: Path) -> None:
    write_history(tmp_path / "fold0", "1,x,0.3,1.5")
    write_history(tmp_path / "fold1", "1,2.0", header="epoch,loss")
    assert fold_curves(tmp_path, [0, 1]) == ("loss", {1: [2.0]})


@pytest.fixture
def job(tmp_path: Path) -> Any:
    return SimpleNamespace(run="swin", fold=0, fold_dir=tmp_path / "fold0", recipe={"metric": "log_loss"})


def epoch(number: int, score: float) -> dict[str, Any]:
    return {"event": "epoch", "epoch": number, "done": number, "total": 9, "loss": 1.0, "validation_log_loss": score}


def test_a_resumed_fold_has_its_earlier_epochs(job: Any) -> None:
    write_history(job.fold_dir, "1,2.0,0.3,1.5", "2,1.0,0.5,1.2")
    curves = EpochCurves()
    step = {"event": "step", "done": 1, "total": 9}
    assert curves.added(job, step) is step
    assert curves.added(job, epoch(3, 1.1)) == {**epoch(3, 1.1), "metric": "log loss", "curve": (1.5, 1.2, 1.1)}
    assert curves.added(job, epoch(4, 1.0))["curve"] == (1.5, 1.2, 1.1, 1.0)
    assert curves.added(job, epoch(3, 1.1))["curve"] == (1.5, 1.2, 1.1), "an epoch that is repeated after a crash"


def test_an_epoch_whose_history_is_not_there_is_a_gap(job: Any) -> None:
    curve = EpochCurves().added(job, epoch(2, 1.0))["curve"]
    assert math.isnan(curve[0])
    assert curve[1:] == (1.0,)
