"""What a training prints about its results: the table, and what its reader must know."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ensemble.cli.reports.training import FEW_PEOPLE, remarks, results_table
from ensemble.cli.terminal import console
from folds.execution import local as manager
from folds.experiments.summary import PooledRuns, RunSummary
from folds.metrics.intervals import Interval
from folds.metrics.report import ScoreReport
from tests.conftest import GRID, Called
from tests.folds.runs.test_execute import InProcess

Call = Callable[..., Called]
REPEATED = ["--repeats", "2", "--seeds", "2", "--arch", "test_resnet"]


@pytest.fixture(autouse=True)
def _said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "quiet", False)


def of(people: int, name: str = "swin", value: float = 0.5, **more: bool) -> RunSummary:
    done = {fold: {"macro_f1": value, "seconds": 60.0, **more} for fold in (0, 1)}
    return RunSummary(
        name, done, 2, ScoreReport("macro_f1", Interval(value, 0.4, 0.6, people=people), 0.7, 40), None, 120.0
    )


@pytest.mark.parametrize(("people", "warned"), [(FEW_PEOPLE - 1, True), (FEW_PEOPLE, False)])
def test_an_interval_over_few_people_is_said_to_be_too_narrow(
    capsys: pytest.CaptureFixture[str], people: int, warned: bool
) -> None:
    remarks([of(people)])
    expected = f"warning: only {people} people: the interval is unreliable\n"
    assert capsys.readouterr().err == (expected if warned else "")


def test_a_chosen_epoch_is_said_to_flatter(capsys: pytest.CaptureFixture[str]) -> None:
    remarks([of(20, optimistic=True)])
    assert "optimistic: the epoch was selected on the scored fold" in capsys.readouterr().err


def test_runs_that_differ_in_seed_or_folds_are_pooled(
    capsys: pytest.CaptureFixture[str],
) -> None:
    summaries = [of(20, "swin", 0.5), of(20, "swin-r1", 0.6)]
    together = PooledRuns(
        "swin", ("swin", "swin-r1"), (0.5, 0.6), (0.5, 0.5, 0.6, 0.6), of(20, value=0.65).oof, None, 240.0
    )
    lines = [" ".join(line.split()) for line in results_table(summaries, [together]).splitlines()]
    assert lines[-1] == "swin, mean of 2 4 0.650 [0.400, 0.600] 0.700 0.550 ± 0.058 4 min"
    remarks(summaries, [together])
    assert capsys.readouterr().err.startswith(
        "swin: 2 runs, OOF macro F1 0.550 ± 0.071 (0.500 to 0.600); the mean of their probabilities"
    )


def test_repeats_and_seeds_are_trained_in_one_queue(grid: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "Worker", InProcess)
    before = Path("runs/test_resnet.oof.npy").stat().st_mtime_ns
    called = call(*GRID, *REPEATED, "--resume")
    assert called.code == 0, called.err
    assert "18 classes, 3 folds by person, 2 repeats" in called.err
    assert "same recipe, other folds or seeds: test_resnet-s1, test_resnet-r1, test_resnet-r1-s1" in called.err
    assert "repeats: the adjusted Rand index" in called.err
    assert Path("runs/test_resnet.oof.npy").stat().st_mtime_ns == before
    assert [line.split("  ")[0] for line in called.out.splitlines()[2:]] == [
        "test_resnet",
        "test_resnet-s1",
        "test_resnet-r1",
        "test_resnet-r1-s1",
        "test_resnet, mean of 4",
    ]
    record = json.loads(call(*GRID, *REPEATED, "--resume", "--json").out)
    [pooled] = record["pooled"]
    scores = [run["oof"]["macro_f1"]["score"] for run in record["runs"]]
    assert (pooled["of"], pooled["runs"]) == ("test_resnet", [run["run"] for run in record["runs"]])
    assert pooled["mean_of_runs"] == pytest.approx(np.mean(scores))
    assert pooled["oof"]["rows"] == 210
    sidecars = {
        name: json.loads(Path(f"runs/test_resnet{name}.oof.json").read_text()) for name in ("", "-s1", "-r1", "-r1-s1")
    }
    assert [(one["seed"], one["repeat"]) for one in sidecars.values()] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert (
        sidecars[""]["folds_sha"]
        == sidecars["-s1"]["folds_sha"]
        != sidecars["-r1"]["folds_sha"]
        == sidecars["-r1-s1"]["folds_sha"]
    )
    assert len({Path(f"runs/test_resnet{name}.oof.npy").read_bytes() for name in sidecars}) == 4
    # A run of them goes on by itself, by its record.
    assert "all folds are trained already" in call("kfold", "-c", "runs/test_resnet-r1-s1/config.toml", "--resume").err
    assert call("blend", *sorted(map(str, Path("runs").glob("test_resnet*.npy")))).code == 0


def test_a_dry_run_lists_every_fold_of_every_repeat(grid: Path, call: Call) -> None:
    record = json.loads(call(*GRID, *REPEATED, "--name", "new", "--fold", "1", "--dry-run", "--json").out)
    assert [(run["run"], run["seed"], run["repeat"]) for run in record["plan"]["runs"]] == [
        ("new", 0, 0),
        ("new-s1", 1, 0),
        ("new-r1", 0, 1),
        ("new-r1-s1", 1, 1),
    ]
    assert record["plan"]["folds"] == [1]
