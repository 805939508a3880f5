from __future__ import annotations

import builtins
import sys
import types
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from folds.errors import EnsembleError, UsageError
from folds.experiments.loggers.base import Tracker, Trackers, without_secrets
from folds.experiments.loggers.mlflow import MLflow
from folds.experiments.loggers.open import open_tracker
from folds.experiments.loggers.reports import report_stores, store_report
from folds.experiments.loggers.tensorboard import TensorBoard
from folds.training.job import Job
from tests.conftest import Logged
from tests.folds.experiments.loggers.courses import event, made_job
from tests.folds.ledger_lines import against, line

COURSES = {
    "loss/training",
    "loss/validation",
    "score/macro_f1",
    "score/accuracy",
    "course/learning_rate",
    "course/seconds_an_epoch",
}


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Fold 1 of the run `swin`, in whose history.csv two epochs stand."""
    monkeypatch.chdir(tmp_path)
    return made_job()


def scalars(place: Path, name: str) -> dict[int, float]:
    """What TensorBoard itself reads."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(place))
    read.Reload()
    found = [(point.step, round(point.value, 4)) for point in read.Scalars(name)]
    assert len(found) == len(dict(found)), "a step stands there twice"
    return dict(found)


class Client:
    """Stands in for MLflow's client: keeps what it is told, in one store for all of them."""

    store: dict[str, Any]

    def __init__(self, tracking_uri: str) -> None:
        self.uri = tracking_uri

    def get_experiment_by_name(self, name: str) -> Any:
        return self.store["experiments"].get(name)

    def create_experiment(self, name: str) -> str:
        self.store["experiments"][name] = types.SimpleNamespace(experiment_id="7")
        return "7"

    def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> Any:
        number = f"n{len(self.store['runs'])}"
        self.store["runs"][number] = types.SimpleNamespace(
            info=types.SimpleNamespace(run_id=number, name=run_name, status="RUNNING"),
            data=types.SimpleNamespace(params={}, tags=dict(tags)),
            metrics=defaultdict(list),
        )
        return self.store["runs"][number]

    def get_run(self, number: str) -> Any:
        return self.store["runs"][number]

    def get_metric_history(self, number: str, name: str) -> list[Any]:
        return [types.SimpleNamespace(step=step) for step, _ in self.store["runs"][number].metrics[name]]

    def log_metric(self, number: str, name: str, value: float, step: int) -> None:
        self.store["runs"][number].metrics[name].append((step, value))

    def log_param(self, number: str, name: str, value: str) -> None:
        assert name not in self.store["runs"][number].data.params, "MLflow refuses a second value"
        self.store["runs"][number].data.params[name] = value

    def set_tag(self, number: str, name: str, value: str) -> None:
        self.store["runs"][number].data.tags[name] = value

    def log_artifact(self, number: str, file: str, folder: str) -> None:
        self.store["runs"][number].artifacts = [(folder, file, Path(file).read_text())]

    def set_terminated(self, number: str) -> None:
        self.store["runs"][number].info.status = "FINISHED"


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The store of a stand-in for the package."""
    store: dict[str, Any] = {"experiments": {}, "runs": {}}
    monkeypatch.setattr(Client, "store", store, raising=False)
    module = types.ModuleType("mlflow")
    module.MlflowClient = Client  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", module)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_DISABLE_TELEMETRY", "MLFLOW_ALLOW_FILE_STORE"):
        monkeypatch.delenv(name, raising=False)
    return store


@pytest.fixture(autouse=True)
def _nothing_goes_wrong(request: pytest.FixtureRequest, logged: Logged) -> Iterator[None]:
    """What a tracker complains of fails a test that does not look at it."""
    yield
    assert logged.warnings == [] or "logged" in request.function.__code__.co_varnames


def test_tensorboard_shows_the_epochs_before_a_resume(job: Job) -> None:
    with open_tracker("tensorboard") as tracker:
        tracker.event(job, {"event": "step", "done": 1, "total": 9})
        tracker.event(job, event(3))
        tracker.event(job, {"event": "note", "text": "something"})
        tracker.event(job, event(4))
    assert scalars(job.fold_dir, "loss/training") == {1: 3.0, 2: 1.5, 3: 1.0, 4: 0.75}
    for name in COURSES:
        assert set(scalars(job.fold_dir, name)) == {1, 2, 3, 4}


def test_tensorboard_shows_a_resumed_course_once(job: Job) -> None:
    with open_tracker("tensorboard") as first:
        first.event(job, event(3))
        first.event(job, event(4))  # shown, and not saved when the process was killed
    with open_tracker("tensorboard") as second:
        second.event(job, event(3))
    assert scalars(job.fold_dir, "loss/training") == {1: 3.0, 2: 1.5, 3: 1.0}


def test_a_damaged_history_costs_the_epochs_in_it_alone(job: Job) -> None:
    (job.fold_dir / "history.csv").write_text("epoch,loss\n1,much\n")
    with open_tracker("tensorboard") as tracker:
        tracker.event(job, event(3))
        tracker.event(job, event(4))
    assert set(scalars(job.fold_dir, "loss/training")) == {3, 4}


def test_tensorboard_shows_scores_settings_and_texts_of_a_run(job: Job) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    entry = line("swin", hypothesis="small is better", baseline=against("base", loss=["ce", "focal"]))
    with open_tracker("tensorboard") as tracker:
        tracker.entry(entry)
    assert scalars(Path("runs/swin"), "oof/macro_f1") == {2: 0.5}
    assert scalars(Path("runs/swin"), "oof/macro_f1_low") == {2: 0.4}
    read = EventAccumulator("runs/swin")
    read.Reload()
    assert {"hypothesis/text_summary", "baseline/text_summary", "varied/text_summary", "commit/text_summary"} <= set(
        read.Tags()["tensors"]
    )
    settings = read.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"loss" in settings
    assert b"swin" in settings


def test_mlflow_has_metrics_parameters_scores_and_texts_of_a_run(job: Job, mlflow: dict[str, Any]) -> None:
    import os

    with open_tracker("mlflow") as tracker:
        tracker.event(job, event(3))
        tracker.event(replace(job, fold=0), event(1))
        tracker.entry(
            line("swin", hypothesis="small is better", baseline=against("base", loss=["ce", "focal"]), optimistic=True)
        )
    (run,) = mlflow["runs"].values()
    assert run.metrics["fold1/loss/training"] == [(1, 3.0), (2, 1.5), (3, 1.0)]
    assert run.metrics["fold0/score/macro_f1"] == [(1, 0.1)]
    assert run.metrics["oof/macro_f1"] == [(2, 0.5)]
    assert run.data.params["loss"] == "ce"
    tags = run.data.tags
    assert (tags["ensemble.run"], tags["mlflow.note.content"], tags["ensemble.varied"]) == (
        "swin",
        "small is better",
        "loss: ce → focal",
    )
    assert "selected on the scored fold" in tags["ensemble.optimistic"]
    assert (run.info.name, run.info.status) == ("swin", "FINISHED")
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_mlflow_continues_a_run_without_duplicates(job: Job, mlflow: dict[str, Any]) -> None:
    with open_tracker("mlflow") as first:
        first.event(job, event(3))
        first.entry(line("swin", folds={"1": "sha"}))
    assert mlflow["runs"]["n0"].info.status == "RUNNING"  # a fold is missing
    with open_tracker("mlflow") as second:
        second.event(job, event(3))
        second.event(job, event(4))
        second.entry(line("swin"))
    assert list(mlflow["runs"]) == ["n0"]
    assert [step for step, _ in mlflow["runs"]["n0"].metrics["fold1/loss/training"]] == [1, 2, 3, 4]
    mlflow["runs"].clear()  # removed there, or another server
    with open_tracker("mlflow") as third:
        third.event(job, event(4))
    assert len(mlflow["runs"]) == 1


def test_mlflow_takes_the_server_that_is_named_or_a_folder(
    job: Job, mlflow: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    local = open_tracker("mlflow")
    assert isinstance(local, MLflow)
    assert local._uri == (Path.cwd() / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    named = open_tracker("mlflow")
    assert isinstance(named, MLflow)
    assert named._uri == "http://127.0.0.1:5000"


def test_mlflow_stores_a_report_with_each_run_but_calls_no_address_from_a_file(
    job: Job, mlflow: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_tracker("mlflow") as tracker:
        tracker.entry(line("swin"))
        tracker.entry(line("resnet18"))
    Path("report.html").write_text("page")
    folders = {run: Path("runs") / run for run in ("swin", "resnet18", "other")}
    store_report(Path("report.html"), report_stores(["mlflow"], folders))
    assert [run.artifacts for run in mlflow["runs"].values()] == [[("report", "report.html", "page")]] * 2
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    with pytest.raises(EnsembleError, match=r"none of the runs of this report \(swin, resnet18, other\) was logged to"):
        report_stores(["mlflow"], folders)


def test_the_real_mlflow_keeps_it_in_a_folder(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    package = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with open_tracker("mlflow") as tracker:
        tracker.event(job, event(3))
        tracker.entry(line("swin", hypothesis="small is better"))
    client = package.MlflowClient((Path.cwd() / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("ensemble").experiment_id])
    assert [point.step for point in client.get_metric_history(run.info.run_id, "fold1/loss/training")] == [1, 2, 3]
    assert (run.data.params["loss"], run.data.metrics["oof/macro_f1"], run.info.status) == ("ce", 0.5, "FINISHED")


@pytest.mark.parametrize(("task", "shown"), [("multilabel", {"roc_auc", "macro_f1", "accuracy"}), (None, {"macro_f1"})])
def test_the_task_decides_which_scores_are_logged(job: Job, task: str | None, shown: set[str]) -> None:
    """Of several labels the accuracy may be the metric of the run, beside those of the task."""
    written: dict[str, float] = {}

    class Kept(Tracker):
        def _write(self, job: Job, epoch: int, values: Mapping[str, float]) -> None:
            written.update(values)

    recipe = {} if task is None else {"task": task}
    scores = {"validation_roc_auc": 0.6, "validation_macro_f1": 0.5} | (
        {} if task is None else {"validation_accuracy": 0.9}
    )
    one = {"event": "epoch", "done": 1, "total": 9, "epoch": 1, "loss": 1.0, **scores}
    Kept().event(replace(job, recipe=recipe, run="new", folder="runs/new"), one)
    assert {name.removeprefix("score/") for name in written if name.startswith("score/")} == shown


def test_without_a_name_nothing_is_tracked(job: Job) -> None:
    with open_tracker(None) as tracker:
        tracker.event(job, event(3))
        tracker.entry(line())
    assert type(tracker) is Tracker
    assert sorted(path.name for path in job.fold_dir.iterdir()) == ["history.csv"]


@pytest.mark.parametrize(("name", "missing"), [(name, name) for name in ("tensorboard", "mlflow", "wandb", "trackio")])
def test_a_missing_package_is_one_clear_error_before_training(
    job: Job, monkeypatch: pytest.MonkeyPatch, name: str, missing: str
) -> None:
    plain: Callable[..., Any] = builtins.__import__

    def without(module: str, *others: Any, **named: Any) -> Any:
        if module.split(".")[0] == missing or module.startswith(f"torch.utils.{missing}"):
            raise ModuleNotFoundError(f"No module named '{missing}'", name=missing)
        return plain(module, *others, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=f"logger={name}: {missing} is not installed") as raised:
        open_tracker(name)
    assert "pip install" in str(raised.value.hint)


def test_an_unknown_tracker_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown logger 'tensorbord'; did you mean tensorboard\?"):
        open_tracker("tensorbord")


def test_a_failing_logger_warns_once_and_training_continues(
    job: Job, mlflow: dict[str, Any], monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    with open_tracker("mlflow") as tracker:

        def gone(*words: Any, **named: Any) -> None:
            raise ConnectionError("the server\nhas gone")

        monkeypatch.setattr(Client, "log_metric", gone)
        for epoch in (3, 4):
            tracker.event(job, event(epoch))
        tracker.entry(line())
    assert logged.warnings == ["`logger` has stopped, the training continues: ConnectionError: the server has gone"]


def test_a_logger_that_cannot_start_is_an_error_before_training(
    job: Job, mlflow: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Client, name: str) -> None:
        raise ConnectionError("nobody listens")

    monkeypatch.setattr(Client, "get_experiment_by_name", refused)
    with pytest.raises(EnsembleError, match="logger cannot start: ConnectionError: nobody listens"):
        open_tracker("mlflow").__enter__()


def test_an_unwritable_folder_is_a_warning_and_no_error(job: Job, logged: Logged) -> None:
    tracker = TensorBoard()
    broken = replace(job, folder=str(job.fold_dir / "history.csv"))  # a file where a folder should be
    with tracker:
        tracker.event(broken, event(1))
    assert len(logged.warnings) == 1


def test_two_loggers_get_the_same_events(tmp_path: Path) -> None:
    class Counting(Tracker):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[str] = []

        def entry(self, entry: Mapping[str, Any]) -> None:
            self.seen.append(entry["run"])

        def _close(self) -> None:
            self.seen.append("closed")

    parts = Counting(), Counting()
    with Trackers(parts) as both:
        both.entry({"run": "swin"})
    assert [part.seen for part in parts] == [["swin", "closed"]] * 2
    assert type(open_tracker([])) is Tracker
    with pytest.raises(UsageError, match="unknown logger 'x'"):
        open_tracker(["x"])


def test_secrets_are_left_out_at_any_depth() -> None:
    given = {"a": {"api_key": "k", "at": "https://me:p@ss@host/x?t=1"}, "b": ["ftp://me:p@host/y"], "c": 1}
    assert without_secrets(given) == {"a": {"at": "https://host/x"}, "b": ["ftp://host/y"], "c": 1}


def test_mlflow_records_its_server_without_the_password(
    job: Job, mlflow: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:word@127.0.0.1:5000")
    for _ in range(2):
        with open_tracker("mlflow") as tracker:
            tracker.event(job, event(3))
    assert "word" not in Path("runs/swin/mlflow.json").read_text()
    assert list(mlflow["runs"]) == ["n0"]
