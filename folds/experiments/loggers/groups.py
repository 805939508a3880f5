"""Log to trackers that know groups of runs: each fold is one of their runs, and a run with its repeats is a group."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from folds.config.files import read_record
from folds.errors import EnsembleError
from folds.experiments.compared_settings import settings_of
from folds.experiments.loggers.base import Tracker, scores_of, texts_of, without_secrets
from folds.predictions.file_names import FOLD_DONE, RUN_CONFIG
from folds.training.job import Job
from folds.utils.files import read_json, write_json
from folds.utils.schema import TEXT, FieldType, validate_fields

# What is read here is sent to the tracker, so it may not be anything.
_ID = FieldType("an id", lambda value: isinstance(value, str) and re.fullmatch(r"[\w-]{1,64}", value) is not None)
_RECORD = {"place": TEXT, "project": TEXT, "group": TEXT, "run": _ID}
FOLD, REFIT, SUMMARY, REPORT = "fold", "refit", "summary", "report"


@dataclass(frozen=True)
class TrackedRun:
    """A run of the tracker, as it is asked for.

    Attributes
    ----------
    kind : `FOLD`, `REFIT`, `SUMMARY` (the scores of all folds) or `REPORT`.
    record : JSON file with its id, beside the files that it is about: if these are removed, another run is started.
    settings : plain values.
    notes : a text for readers.
    """

    group: str
    name: str
    kind: str
    record: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: str = ""


@dataclass
class OpenRun:
    """An open run of the tracker.

    Attributes
    ----------
    run : the object of the tracker's package.
    id : its name in the tracker, by which it is continued.
    epochs : number of epochs that need not be written.
    folder : of the fold, which has a done.json when it is trained.
    """

    run: Any
    id: str
    epochs: int = 0
    folder: Path | None = None


class GroupTracker(Tracker):
    """A tracker that shows a run as a group: a run for each fold, and one with the scores of all folds.

    Subclasses start, write and finish runs; which run is continued is decided here.
    """

    name = ""  # of the tracker, and of the files that record its runs

    def __init__(self, runs: Path = Path("runs")) -> None:
        super().__init__()
        self._runs = runs
        self._project = ""
        self._open: dict[str, OpenRun] = {}

    @abstractmethod
    def _place(self) -> str:
        """Return where the project is, without secrets: a run that is recorded of another place is not continued."""

    @abstractmethod
    def _start(self, wanted: TrackedRun, known: str | None) -> OpenRun:
        """Start a run, or continue the one with the id `known`."""

    @abstractmethod
    def _log(self, opened: OpenRun, values: Mapping[str, float], step: int) -> None:
        """Write values of an epoch."""

    @abstractmethod
    def _summarize(self, opened: OpenRun, scores: Mapping[str, float], folds: int) -> None:
        """Write the scores of the trained folds."""

    @abstractmethod
    def _attach(self, opened: OpenRun, page: Path, name: str) -> None:
        """Store a file as the newest version of the artifact of this name."""

    @abstractmethod
    def _finish(self, opened: OpenRun, complete: bool) -> None:
        """End a run; one that is not complete is continued later, or has failed."""

    def place(self) -> str:
        """Return where the runs of today are logged to, without secrets."""
        return self._place()

    def report(self, page: Path, found: ReportPlace) -> None:
        """Store a page as an artifact of a group.

        Raises
        ------
        Exception : whatever the package raises.
        """
        self._project = found.project
        wanted = TrackedRun(
            found.group, f"{found.group}/report", REPORT, found.folder / f"{self.name}-report.json", notes=page.name
        )
        opened = self._opened(wanted)
        try:
            self._attach(opened, page, f"{found.group}-report")
        finally:
            self._finish(self._open.pop(wanted.name), True)

    def _opened(self, wanted: TrackedRun) -> OpenRun:
        if wanted.name not in self._open:
            opened = self._start(wanted, self._known(wanted.record))
            self._open[wanted.name] = opened
            record = {"place": self._place(), "project": self._project, "group": wanted.group, "run": opened.id}
            write_json(wanted.record, record)
        return self._open[wanted.name]

    def _known(self, file: Path) -> str | None:
        """Return the recorded id; None if there is none, or one of another place."""
        record = read_tracked(file)
        return record["run"] if record and (record["place"], record["project"]) == self._here() else None

    def _here(self) -> tuple[str, str]:
        return self._place(), self._project

    def _group(self, run: str) -> str:
        return self._groups.get(run) or run

    def _of_job(self, job: Job) -> OpenRun:
        wanted = TrackedRun(
            self._group(job.run),
            f"{job.run}/{job.part}",
            FOLD if job.refit is None else REFIT,
            job.fold_dir / f"{self.name}.json",
            {"run": job.run, "part": job.part, "fold": job.fold, "k": job.k} | _recorded_settings(Path(job.folder)),
        )
        opened = self._opened(wanted)
        opened.folder = job.fold_dir
        return opened

    def _begin(self, job: Job) -> int:
        return self._of_job(job).epochs

    def _write(self, job: Job, epoch: int, values: Mapping[str, float]) -> None:
        self._log(self._of_job(job), values, epoch)

    def _end(self, job: Job) -> None:
        opened = self._open.pop(f"{job.run}/{job.part}", None)
        if opened is not None:
            self._finish(opened, True)

    def _entry(self, entry: Mapping[str, Any]) -> None:
        run, texts = entry["run"], texts_of(entry)
        wanted = TrackedRun(
            self._group(run),
            run,
            SUMMARY,
            self._runs / run / f"{self.name}.json",
            {"run": run, "k": entry["k"]} | dict(entry["settings"]) | {f"about_{key}": texts[key] for key in texts},
            texts.get("hypothesis", ""),
        )
        opened = self._opened(wanted)
        self._summarize(opened, scores_of(entry), len(entry["folds"]))
        self._finish(self._open.pop(wanted.name), True)

    def _close(self) -> None:
        while self._open:
            _, opened = self._open.popitem()
            self._finish(opened, opened.folder is not None and (opened.folder / FOLD_DONE).is_file())


@dataclass(frozen=True)
class ReportPlace:
    """A group that gets a report.

    Attributes
    ----------
    folder : of the first of its runs.
    """

    project: str
    group: str
    folder: Path


def tracked_groups(name: str, folders: Mapping[str, Path], place: str | None = None) -> list[ReportPlace]:
    """Return the groups of some runs in a tracker, each once.

    Parameters
    ----------
    name : of the tracker.
    folders : run → ``runs/<run>``.
    place : only groups that were logged to this place, as `GroupTracker.place` returns it; None: to any.
    """
    found: dict[tuple[str, str], ReportPlace] = {}
    for folder in folders.values():
        for file in [folder / f"{name}.json", *sorted(folder.glob(f"*/{name}.json"))]:
            record = read_tracked(file)
            if record and place in (None, record["place"]):
                key = record["project"], record["group"]
                found.setdefault(key, ReportPlace(*key, folder))
    return list(found.values())


def read_tracked(file: Path) -> dict[str, str] | None:
    """Return the record of a tracked run; None if there is none or it is damaged."""
    with suppress(EnsembleError, OSError):
        record = read_json(file)
        if not validate_fields(record, _RECORD):
            return dict(record)
    return None


def _recorded_settings(folder: Path) -> dict[str, Any]:
    """Return the settings of a run from its config.toml, with hashes for its files, and without secrets."""
    with suppress(EnsembleError, OSError):
        return without_secrets(settings_of(read_record(folder / RUN_CONFIG)))
    return {}
