"""Log the metrics of a training to a tracker of experiments; no result depends on it.

The main process writes them, from the same events as the progress bars. After a resume, earlier epochs are read from
history.csv, so the curves are complete.
"""

from __future__ import annotations

import csv
import logging
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from folds.errors import EnsembleError
from folds.metrics.task_names import COLUMN_TASKS
from folds.predictions.file_names import FOLD_HISTORY
from folds.training.job import Job

logger = logging.getLogger(__name__)

EXPERIMENT = "ensemble"
# Column of history.csv → name of the metric.
METRIC_NAMES = {
    "loss": "loss/training",
    "validation_log_loss": "loss/validation",
    "validation_macro_f1": "score/macro_f1",
    "validation_accuracy": "score/accuracy",
    "lr": "course/learning_rate",
    "seconds": "course/seconds_an_epoch",
}
# Beside these, of several labels and of numbers.
_OF_COLUMNS = {f"validation_{name}": f"score/{name}" for name in ("roc_auc", "mae", "rmse", "r2")}
_SECRET = re.compile(r"token|secret|password|passwd|api_?key|credential", re.IGNORECASE)
_ADDRESS = re.compile(r"(\w+://)(?:[^/?#\s]*@)?([^?#\s]*)[^\s]*")


def _names_of(job: Job) -> dict[str, str]:
    """Return column of history.csv → name of the metric, for the columns of the task."""
    return METRIC_NAMES | _OF_COLUMNS if job.recipe.get("task") in COLUMN_TASKS else METRIC_NAMES


class Tracker:
    """A logger that ignores the events of a training and the lines of the ledger; a context manager.

    Its methods can be called from any thread. An error in a subclass is logged once and stops the logger, not the
    training.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[tuple[str, int], int] = {}
        self._groups: dict[str, str] = {}
        self._broken = False

    def __enter__(self) -> Tracker:
        """Connect to the store, before any training.

        Raises
        ------
        EnsembleError : the connection fails.
        """
        try:
            self._connect()
        except EnsembleError:
            raise
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

    def set_groups(self, groups: Mapping[str, str]) -> None:
        """Set run → its group: the name that it has in common with its repeats and seeds; by default its own name."""
        self._groups = dict(groups)

    def event(self, job: Job, event: Mapping[str, Any]) -> None:
        """Log an event of a job; only the events of epochs are logged."""
        if event["event"] == "epoch":
            self._safely(lambda: self._epoch(job, event))

    def entry(self, entry: Mapping[str, Any]) -> None:
        """Log a line of the ledger, without what is secret in its settings."""
        shared = {**entry, "settings": without_secrets(entry["settings"])}
        self._safely(lambda: self._entry(shared))

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
                {name: float(record[column]) for column, name in _names_of(job).items() if column in record},
            )
        self._last[key] = max(self._last[key], int(event["epoch"]))
        if event["done"] >= event["total"]:
            self._end(job)

    def _connect(self) -> None:
        """Connect to the store."""

    def _begin(self, job: Job) -> int:
        """Start or continue the metrics of a fold; return the number of epochs that are logged already."""
        return 0

    def _write(self, job: Job, epoch: int, values: Mapping[str, float]) -> None:
        """Write the metrics of an epoch."""

    def _end(self, job: Job) -> None:
        """Close what is open for a fold, whose last epoch is written."""

    def _entry(self, entry: Mapping[str, Any]) -> None:
        """Write the scores and settings of a run."""

    def _close(self) -> None:
        """Close open files and connections."""


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

    def set_groups(self, groups: Mapping[str, str]) -> None:
        """Set the groups of the runs; see `Tracker.set_groups`."""
        for part in self._parts:
            part.set_groups(groups)

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


def without_secrets(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without those that are named as secrets, and addresses without user, password and query."""
    return {name: _plain(value) for name, value in settings.items() if not _SECRET.search(str(name))}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return without_secrets(value)
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return without_credentials(value) if isinstance(value, str) else value


def without_credentials(text: str) -> str:
    """Return a text whose addresses have no user, password and query: ``https://user:key@host/a?b`` as
    ``https://host/a``.
    """
    return _ADDRESS.sub(r"\1\2", text)


def _history(folder: Path) -> list[dict[str, float]]:
    """Return the epochs in history.csv; [] if it does not exist yet or is damaged."""
    try:
        with open(folder / FOLD_HISTORY, encoding="utf-8", newline="") as file:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError, csv.Error):
        return []


def scores_of(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return the scores of a line of the ledger: ``oof/macro_f1``, ``oof/macro_f1_low``, …"""
    found: dict[str, float] = {}
    for split in ("oof", "test"):
        for name, value in (entry.get(split) or {}).items():
            if isinstance(value, Mapping):
                found[f"{split}/{name}"] = value["score"]
                found |= {f"{split}/{name}_{end}": value[end] for end in ("low", "high") if value[end] is not None}
    return found


def texts_of(entry: Mapping[str, Any]) -> dict[str, str]:
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
