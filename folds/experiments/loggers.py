"""The numbers of a training for TensorBoard or MLflow as well, for those who watch them there; no result depends on it.

The command writes them, not its workers: they come with the events that the bars come from. After a resume the epochs
before it are taken from history.csv, so that a course is whole, wherever it was interrupted.
"""

from __future__ import annotations

import csv
import logging
import os
import threading
from collections.abc import Callable, Mapping
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
# Column of history.csv → the name it has there.
_COURSES = {
    "loss": "loss/training",
    "validation_log_loss": "loss/validation",
    "validation_macro_f1": "score/macro_f1",
    "validation_accuracy": "score/accuracy",
    "lr": "course/learning_rate",
    "seconds": "course/seconds_an_epoch",
}
# Nothing is told to anybody; the folder stays usable in versions that would rather have a database; and a server that
# is gone
# holds up an epoch for seconds, not for minutes.
_MLFLOW = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


class Tracker:
    """Takes the events of a training and the entries of the ledger, and does nothing with them; a context manager.

    Its methods may be called from any thread. What goes wrong in one that does something is logged once, and ends it:
    nobody
    loses a training to a plot.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[tuple[str, int], int] = {}
        self._broken = False

    def __enter__(self) -> Tracker:
        """Begin, before anything is trained.

        Raises
        ------
        EnsembleError : it cannot be.
        """
        try:
            self._connect()
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise EnsembleError(
                f"--logger cannot start: {type(error).__name__}: {reason}",
                hint="correct it, or leave --logger out",
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._safely(self._close)

    def event(self, job: Job, event: Mapping[str, Any]) -> None:
        """A worker's word about its job; only that of an epoch counts here."""
        if event["event"] == "epoch":
            self._safely(lambda: self._epoch(job, event))

    def entry(self, entry: Mapping[str, Any]) -> None:
        """A line of the ledger."""
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
                    f"--logger has stopped, the training continues: {type(error).__name__}: "
                    f"{' '.join(str(error).split())[:300]}"
                )

    def _epoch(self, job: Job, event: Mapping[str, Any]) -> None:
        key = job.run, job.fold
        if key not in self._last:
            self._last[key] = self._begin(job)
        # Those before it that were reported to nobody, then its own; one that is trained again after a crash gives the
        # same numbers.
        earlier = [record for record in _history(job.fold_dir) if record["epoch"] < event["epoch"]]
        for record in [one for one in [*earlier, event] if one["epoch"] > self._last[key]]:
            self._write(
                job,
                int(record["epoch"]),
                {name: float(record[column]) for column, name in _COURSES.items() if column in record},
            )
        self._last[key] = max(self._last[key], int(event["epoch"]))

    def _connect(self) -> None:
        """Open what everything is written to."""

    def _begin(self, job: Job) -> int:
        """Begin, or go on with, the course of a fold; how many of its epochs are there already."""
        return 0

    def _write(self, job: Job, epoch: int, values: Mapping[str, float]) -> None:
        """Write the numbers of an epoch."""

    def _entry(self, entry: Mapping[str, Any]) -> None:
        """Write what a run has come to."""

    def _close(self) -> None:
        """Let go of what is open."""


class TensorBoard(Tracker):
    """Event files in ``runs/<run>/fold<i>/``, and the scores and settings of a run in ``runs/<run>/``: `tensorboard
    --logdir runs`.
    """

    def __init__(self, runs: Path = Path("runs")) -> None:
        super().__init__()
        self._runs = runs
        self._open: dict[tuple[str, int], Any] = {}

    def _begin(self, job: Job) -> int:
        self._open[job.run, job.fold] = self._writer(job.fold_dir)
        return 0

    def _writer(self, place: Path) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        # What earlier files of the folder say from this step on is not shown any more: nothing stands there twice.
        return SummaryWriter(str(place), purge_step=0)

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
        for name, text in _words(entry).items():
            writer.add_text(name, text, len(entry["folds"]))
        writer.close()

    def _close(self) -> None:
        for writer in self._open.values():
            writer.close()
        self._open.clear()


class MLflow(Tracker):
    """A run of MLflow for each run: courses ``fold<i>/…``, settings as parameters, scores, the hypothesis and the
    baseline.

    Where it is kept is ``MLFLOW_TRACKING_URI``, or else the folder ``mlruns`` beside ``runs``. Its number stands in
    ``runs/<run>/mlflow.json``:
    a resume goes on with it.
    """

    def __init__(self, runs: Path = Path("runs")) -> None:
        super().__init__()
        for name, value in _MLFLOW.items():
            os.environ.setdefault(name, value)
        import mlflow  # noqa: F401 - whether it is there

        self._runs = runs
        self._uri = os.environ.get("MLFLOW_TRACKING_URI") or (runs.parent / "mlruns").absolute().as_uri()
        self._client: Any = None
        self._numbers: dict[str, str] = {}

    def _connect(self) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=self._uri)
        self._client.get_experiment_by_name(EXPERIMENT)

    def _number(self, run: str) -> str:
        """Return the id of a run's run: the one that was begun, if it is still there, or else a new one."""
        if run not in self._numbers:
            file = self._runs / run / "mlflow.json"
            with suppress(Exception):  # removed, or of another server
                kept = read_json(file)
                if kept["uri"] == self._uri:
                    self._numbers[run] = self._client.get_run(kept["run_id"]).info.run_id
            if run not in self._numbers:
                found = self._client.get_experiment_by_name(EXPERIMENT)
                experiment = self._client.create_experiment(EXPERIMENT) if found is None else found.experiment_id
                self._numbers[run] = self._client.create_run(
                    experiment, run_name=run, tags={"ensemble.run": run}
                ).info.run_id
                write_json(file, {"uri": self._uri, "run_id": self._numbers[run]})
        return self._numbers[run]

    def _begin(self, job: Job) -> int:
        written = self._client.get_metric_history(self._number(job.run), f"fold{job.fold}/{_COURSES['loss']}")
        return max((metric.step for metric in written), default=0)

    def _write(self, job: Job, epoch: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._client.log_metric(self._number(job.run), f"fold{job.fold}/{name}", value, step=epoch)

    def _entry(self, entry: Mapping[str, Any]) -> None:
        number = self._number(entry["run"])
        there = self._client.get_run(number).data.params
        for name, value in entry["settings"].items():
            if name not in there:  # a parameter is written once
                self._client.log_param(number, name, str(value)[:500])
        for name, value in _scores(entry).items():
            self._client.log_metric(number, name, value, step=len(entry["folds"]))
        for name, text in _words(entry).items():
            self._client.set_tag(number, "mlflow.note.content" if name == "hypothesis" else f"ensemble.{name}", text)
        if len(entry["folds"]) == entry["k"]:
            self._client.set_terminated(number)


def open_tracker(name: str | None, runs: Path = Path("runs")) -> Tracker:
    """Return the tracker of that name; the one that does nothing for None.

    Raises
    ------
    UsageError : there is none of that name, or what it needs is not installed.
    """
    if name is None:
        return Tracker()
    if name not in TRACKERS:
        raise unknown_name("--logger", name, TRACKERS)
    try:
        if name == "tensorboard":
            import torch.utils.tensorboard  # noqa: F401

            return TensorBoard(runs)
        return MLflow(runs)
    except ImportError as error:
        hint = f"pip install {'mlflow-skinny' if name == 'mlflow' else name}, or leave --logger out"
        raise UsageError(f"--logger {name}: {error.name or name} is not installed", hint=hint) from None


def _history(place: Path) -> list[dict[str, float]]:
    """Return the epochs in history.csv; [] where there is none yet, or it is damaged."""
    try:
        with open(place / "history.csv", encoding="utf-8", newline="") as file:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError, csv.Error):
        return []


def _scores(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return ``oof/macro_f1``, ``oof/macro_f1_low``, … of an entry."""
    found: dict[str, float] = {}
    for split in ("oof", "test"):
        for name, value in (entry.get(split) or {}).items():
            if isinstance(value, Mapping):
                found[f"{split}/{name}"] = value["score"]
                found |= {f"{split}/{name}_{end}": value[end] for end in ("low", "high")}
    return found


def _words(entry: Mapping[str, Any]) -> dict[str, str]:
    """Return what an entry says in words."""
    baseline, git = entry.get("baseline"), entry.get("git")
    words = {
        "hypothesis": entry.get("hypothesis") or "",
        "baseline": baseline["run"] if baseline else "",
        "varied": ", ".join(f"{name}: {before} → {after}" for name, (before, after) in baseline["varied"].items())
        if baseline
        else "",
        "optimistic": "chosen on the fold that is scored" if entry["optimistic"] else "",
        "commit": f"{git['commit']}{' and changes' if git['dirty'] else ''}" if git else "",
    }
    return {name: text for name, text in words.items() if text}
