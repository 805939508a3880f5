"""Log the metrics of a training to TensorBoard or MLflow; no result depends on it.

The main process writes them, from the same events as the progress bars. After a resume, earlier epochs are read from
history.csv, so the curves are complete.
"""

from __future__ import annotations

import csv
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from folds.errors import EnsembleError, UsageError, unknown_name
from folds.training.job import Job
from folds.utils.files import read_json, write_json

logger = logging.getLogger(__name__)

TRACKERS = ("tensorboard", "mlflow")
EXPERIMENT = "ensemble"
# Column of history.csv → name of the metric.
_METRIC_NAMES = {
    "loss": "loss/training",
    "validation_log_loss": "loss/validation",
    "validation_macro_f1": "score/macro_f1",
    "validation_accuracy": "score/accuracy",
    "lr": "course/learning_rate",
    "seconds": "course/seconds_an_epoch",
}
# No telemetry; a folder as the store also in versions that prefer a database; and an unreachable server delays an epoch
# by seconds, not by minutes.
_MLFLOW = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


class Tracker:
    """A logger that ignores the events of a training and the lines of the ledger; a context manager.

    Its methods can be called from any thread. An error in a subclass is logged once and stops the logger, not the
    training.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[tuple[str, int], int] = {}
        self._broken = False

    def __enter__(self) -> Tracker:
        """Connect to the store, before any training.

        Raises
        ------
        EnsembleError : the connection fails.
        """
        try:
            self._connect()
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise EnsembleError(
                f"`logger` cannot start: {type(error).__name__}: {reason}",
                hint="correct it, or remove `logger`",
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._safely(self._close)

    def event(self, job: Job, event: Mapping[str, Any]) -> None:
        """Log an event of a job; only the events of epochs are logged."""
        if event["event"] == "epoch":
            self._safely(lambda: self._epoch(job, event))

    def entry(self, entry: Mapping[str, Any]) -> None:
        """Log a line of the ledger."""
        self._safely(lambda: self._entry(entry))

    def _safely(self, act: Callable[[], None]) -> None:
        with self._lock:
            if self._broken:
                return
            try:
                act()
            except Exception as error:
                self._broken = True
                logger.warning(
                    f"`logger` has stopped, the training continues: {type(error).__name__}: "
                    f"{' '.join(str(error).split())[:300]}"
                )

    def _epoch(self, job: Job, event: Mapping[str, Any]) -> None:
        key = job.run, job.fold
        if key not in self._last:
            self._last[key] = self._begin(job)
        # Earlier epochs that were not logged come first. An epoch that is repeated after a crash has the same values.
        earlier = [record for record in _history(job.fold_dir) if record["epoch"] < event["epoch"]]
        for record in [one for one in [*earlier, event] if one["epoch"] > self._last[key]]:
            self._write(
                job,
                int(record["epoch"]),
                {name: float(record[column]) for column, name in _METRIC_NAMES.items() if column in record},
            )
        self._last[key] = max(self._last[key], int(event["epoch"]))

    def _connect(self) -> None:
        """Connect to the store."""

    def _begin(self, job: Job) -> int:
        """Start or continue the metrics of a fold; return the number of epochs that are logged already."""
        return 0

    def _write(self, job: Job, epoch: int, values: Mapping[str, float]) -> None:
        """Write the metrics of an epoch."""

    def _entry(self, entry: Mapping[str, Any]) -> None:
        """Write the scores and settings of a run."""

    def _close(self) -> None:
        """Close open files and connections."""


class TensorBoard(Tracker):
    """Event files in ``runs/<run>/fold<i>/``, and the scores and settings of a run in ``runs/<run>/``.

    To view them: ``tensorboard --logdir runs``.
    """

    def __init__(self, runs: Path = Path("runs")) -> None:
        super().__init__()
        self._runs = runs
        self._open: dict[tuple[str, int], Any] = {}

    def _begin(self, job: Job) -> int:
        self._open[job.run, job.fold] = self._writer(job.fold_dir)
        return 0

    def _writer(self, folder: Path) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        # purge_step hides the values of earlier event files in the folder, so that no value is shown twice.
        return SummaryWriter(str(folder), purge_step=0)

    def _write(self, job: Job, epoch: int, values: Mapping[str, float]) -> None:
        writer = self._open[job.run, job.fold]
        for name, value in values.items():
            writer.add_scalar(name, value, epoch)
        writer.flush()

    def _entry(self, entry: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard.summary import hparams

        writer = self._writer(self._runs / entry["run"])
        scores = _scores(entry)
        settings = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in entry["settings"].items()
        }
        for summary in hparams(settings, dict(scores)):
            writer.file_writer.add_summary(summary)
        for name, value in scores.items():
            writer.add_scalar(name, value, len(entry["folds"]))
        for name, text in _texts(entry).items():
            writer.add_text(name, text, len(entry["folds"]))
        writer.close()

    def _close(self) -> None:
        for writer in self._open.values():
            writer.close()
        self._open.clear()


class MLflow(Tracker):
    """A run of MLflow for each run: metrics ``fold<i>/…``, settings as parameters, scores, hypothesis and baseline.

    The store is ``MLFLOW_TRACKING_URI``, or else the folder ``mlruns`` beside ``runs``. The id of MLflow's run is in
    ``runs/<run>/mlflow.json``, so that a resumed run continues it.
    """

    def __init__(self, runs: Path = Path("runs")) -> None:
        super().__init__()
        for name, value in _MLFLOW.items():
            os.environ.setdefault(name, value)
        import mlflow  # noqa: F401 - raises ImportError if it is not installed

        self._runs = runs
        self._uri = os.environ.get("MLFLOW_TRACKING_URI") or (runs.parent / "mlruns").absolute().as_uri()
        self._client: Any = None
        self._ids: dict[str, str] = {}

    def _connect(self) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=self._uri)
        self._client.get_experiment_by_name(EXPERIMENT)

    def _id(self, run: str) -> str:
        """Return the id of MLflow's run for a run: the recorded one if it still exists, otherwise a new one."""
        if run not in self._ids:
            file = self._runs / run / "mlflow.json"
            with suppress(Exception):  # removed, or of another server
                recorded = read_json(file)
                if recorded["uri"] == self._uri:
                    self._ids[run] = self._client.get_run(recorded["run_id"]).info.run_id
            if run not in self._ids:
                found = self._client.get_experiment_by_name(EXPERIMENT)
                experiment = self._client.create_experiment(EXPERIMENT) if found is None else found.experiment_id
                self._ids[run] = self._client.create_run(
                    experiment, run_name=run, tags={"ensemble.run": run}
                ).info.run_id
                write_json(file, {"uri": self._uri, "run_id": self._ids[run]})
        return self._ids[run]

    def _begin(self, job: Job) -> int:
        written = self._client.get_metric_history(self._id(job.run), f"{job.part}/{_METRIC_NAMES['loss']}")
        return max((metric.step for metric in written), default=0)

    def _write(self, job: Job, epoch: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._client.log_metric(self._id(job.run), f"{job.part}/{name}", value, step=epoch)

    def _entry(self, entry: Mapping[str, Any]) -> None:
        run_id = self._id(entry["run"])
        logged = self._client.get_run(run_id).data.params
        for name, value in entry["settings"].items():
            if name not in logged:  # MLflow does not allow a parameter to change
                self._client.log_param(run_id, name, str(value)[:500])
        for name, value in _scores(entry).items():
            self._client.log_metric(run_id, name, value, step=len(entry["folds"]))
        for name, text in _texts(entry).items():
            self._client.set_tag(run_id, "mlflow.note.content" if name == "hypothesis" else f"ensemble.{name}", text)
        if len(entry["folds"]) == entry["k"]:
            self._client.set_terminated(run_id)


class Trackers(Tracker):
    """Several loggers that get the same events; one that fails does not stop the others."""

    def __init__(self, parts: Sequence[Tracker]) -> None:
        super().__init__()
        self._parts = parts

    def __enter__(self) -> Trackers:
        """Connect all; see `Tracker.__enter__`."""
        for part in self._parts:
            part.__enter__()
        return self

    def event(self, job: Job, event: Mapping[str, Any]) -> None:
        """Log an event of a job."""
        for part in self._parts:
            part.event(job, event)

    def entry(self, entry: Mapping[str, Any]) -> None:
        """Log a line of the ledger."""
        for part in self._parts:
            part.entry(entry)

    def _close(self) -> None:
        for part in self._parts:
            part.__exit__(None, None, None)


def open_tracker(name: str | Sequence[str] | None, runs: Path = Path("runs")) -> Tracker:
    """Return the logger with this name, or one for several names; one that does nothing without a name.

    Raises
    ------
    UsageError : an unknown name, or a package that is not installed.
    """
    if not name:
        return Tracker()
    if not isinstance(name, str):
        parts = [open_tracker(one, runs) for one in dict.fromkeys(name)]
        return parts[0] if len(parts) == 1 else Trackers(parts)
    if name not in TRACKERS:
        raise unknown_name("`logger`", name, TRACKERS)
    try:
        if name == "tensorboard":
            import torch.utils.tensorboard  # noqa: F401

            return TensorBoard(runs)
        return MLflow(runs)
    except ImportError as error:
        hint = f"pip install {'mlflow-skinny' if name == 'mlflow' else name}, or remove `logger`"
        raise UsageError(f"`logger={name}`: {error.name or name} is not installed", hint=hint) from None


def _history(folder: Path) -> list[dict[str, float]]:
    """Return the epochs in history.csv; [] if it does not exist yet or is damaged."""
    try:
        with open(folder / "history.csv", encoding="utf-8", newline="") as file:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError, csv.Error):
        return []


def _scores(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return the scores of a line of the ledger: ``oof/macro_f1``, ``oof/macro_f1_low``, …"""
    found: dict[str, float] = {}
    for split in ("oof", "test"):
        for name, value in (entry.get(split) or {}).items():
            if isinstance(value, Mapping):
                found[f"{split}/{name}"] = value["score"]
                found |= {f"{split}/{name}_{end}": value[end] for end in ("low", "high") if value[end] is not None}
    return found


def _texts(entry: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of a line of the ledger: hypothesis, baseline, settings that differ, warnings, commit."""
    baseline, git = entry.get("baseline"), entry.get("git")
    texts = {
        "hypothesis": entry.get("hypothesis") or "",
        "baseline": baseline["run"] if baseline else "",
        "varied": ", ".join(f"{name}: {before} → {after}" for name, (before, after) in baseline["varied"].items())
        if baseline
        else "",
        "optimistic": "epoch selected on the scored fold, or student of a blend" if entry["optimistic"] else "",
        "commit": f"{git['commit']}{' with uncommitted changes' if git['dirty'] else ''}" if git else "",
    }
    return {name: text for name, text in texts.items() if text}
