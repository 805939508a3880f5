"""A training as one function call: what it returns, what it logs, where its files lie, what stops it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from folds.config.command_settings import Settings
from folds.config.recipe import Recipe
from folds.errors import EnsembleError
from folds.execution import local
from folds.execution import placement as devices
from folds.experiments.ledger import ledger_file, read_ledger
from folds.runs import session
from folds.runs.plan import Plan, build_plan
from folds.runs.session import score_runs, train_runs
from tests.conftest import Logged
from tests.folds.runs.test_execute import InProcess
from tests.folds.utils.test_progress import Steps

Planner = Callable[..., Plan]


@pytest.fixture
def planned(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planner:
    """Makes a plan of a tiny run on two folds, trained in this process; the current folder is empty."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.setattr(devices, "cpu_count", lambda: 1)
    monkeypatch.setattr(local, "Worker", InProcess)

    def make(root: Path = Path(), folds: list[int] | None = None, **recipe: Any) -> Plan:
        values = {"epochs": 1, "img_size": "32", "pretrained": False} | recipe
        return build_plan(Settings(data=drawn, arch=("test_resnet",), k=2), Recipe(**values), folds=folds, root=root)

    return make


def files(root: Path) -> dict[str, bytes]:
    """What counts of a training, by its place in the folder."""
    found = [*(root / "runs").glob("*.npy"), *(root / "checkpoints").rglob("*.pt"), *(root / "runs").rglob("*.toml")]
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


def test_training_returns_scores_and_a_second_one_trains_nothing(planned: Planner, logged: Logged) -> None:
    steps = Steps()
    trained = train_runs(planned(), hypothesis="it learns", progress=steps)
    assert trained.failed == []
    assert list(trained.runs) == ["test_resnet"]
    [summary] = trained.summaries
    assert (summary.run, sorted(summary.folds), trained.pooled, trained.comparisons) == ("test_resnet", [0, 1], [], [])
    assert steps.titles == ["decoding images"]
    assert sorted(steps.ended) == ["test_resnet fold 0", "test_resnet fold 1"]
    assert {name for _, name in steps.events} == {"step", "epoch"}
    assert sum("macro F1" in line and line.startswith("test_resnet fold") for line in logged.notes) == 2
    assert read_ledger(ledger_file()).latest()["test_resnet"]["hypothesis"] == "it learns"
    again = train_runs(planned(), resume=True)
    assert "all folds are trained already" in logged.notes
    assert again.summaries == trained.summaries
    assert score_runs(planned()).summaries == trained.summaries


def test_training_in_another_root_gives_the_same_bytes(planned: Planner, tmp_path: Path) -> None:
    train_runs(planned(root=tmp_path / "other"))
    assert list(Path().iterdir()) == []
    assert list((tmp_path / "other/.ensemble/images").glob("*.npy"))
    train_runs(planned())
    assert files(Path()) == files(tmp_path / "other")
    assert len(files(Path())) == 6


def test_the_built_in_people_of_a_root_are_recorded_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from folds.data import sources
    from folds.data.synthetic.people import generate_people

    monkeypatch.chdir(tmp_path)
    root = tmp_path / "root"
    generate_people(root / sources.BUILT_IN, people=4, test_people=2)
    opened = sources.open_data(Settings(), root)
    assert (opened.spec.data, opened.built_in, len(opened.data.train)) == (sources.BUILT_IN, True, 28)
    again = sources.load_checkpoint_data({"data": str(opened.spec.data)}, root=root)
    assert again.train.sha == opened.data.train.sha
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_failed_fold_is_logged_and_returned_and_others_are_kept(
    planned: Planner, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    class Failing(InProcess):
        def run(self, job: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
            if job["fold"] == 0:
                raise EnsembleError("fold 0 is ill", hint="heal it", details=["badly"])
            return super().run(job, report)

    monkeypatch.setattr(local, "Worker", Failing)
    trained = train_runs(planned())
    assert [outcome.job.fold for outcome in trained.failed] == [0]
    assert [sorted(summary.folds) for summary in trained.summaries] == [[1]]
    assert "fold 0 is ill\n  badly\nhint: heal it" in logged.lines


def test_strict_writes_nothing_if_the_plan_has_a_warning(planned: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    plan = replace(planned(), warnings=("fold 0 lacks class 3",))
    with pytest.raises(EnsembleError, match="with strict=True: nothing was trained") as refused:
        train_runs(plan, strict=True)
    assert refused.value.details == ("fold 0 lacks class 3",)
    assert not Path("runs/test_resnet").exists()
    assert train_runs(plan).failed == []


def test_an_interrupt_passes_through_and_leaves_what_is_finished(
    planned: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupting(Steps):
        def outcome(self, outcome: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_runs(planned(), progress=Interrupting())
    assert Path("runs/test_resnet.oof.npy").is_file()
    [summary] = score_runs(planned()).summaries
    assert 0 in summary.folds or 1 in summary.folds  # both, if the second one ended before it was interrupted
    assert train_runs(planned(), resume=True).failed == []


def test_a_ledger_that_cannot_be_written_costs_no_result(
    planned: Planner, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    def refuse(*arguments: Any, **named: Any) -> None:
        raise EnsembleError("the ledger is full")

    monkeypatch.setattr(session, "record_run", refuse)
    plan = planned(folds=[0])
    logged.records.clear()
    assert train_runs(plan).summaries
    assert logged.warnings == ["test_resnet is not in the ledger: the ledger is full"]
