"""Write and read the progress of a job on another machine: an append-only file with one JSON line per event.

The file is next to the results of the job, on the drive that all machines share. Writing an event is one small write
and polling is one small read, independent of the length of the file. Events are kept until they are read.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from folds.training.job import Job

logger = logging.getLogger(__name__)

Report = Callable[[Job, dict[str, Any]], None]  # called with the steps and epochs of a job, in any thread

STEP_SECONDS = 1.0  # least time between two written steps; all notes and epochs are written


class ProgressWriter:
    """A writer of progress events, for the process that holds the lock of the job.

    The first event is ``{"event": "started"}``. A second one in a file means that another process has taken over the
    job.

    Parameters
    ----------
    path : the file; it is created, or appended to.
    fields : further fields of every event.
    """

    def __init__(self, path: Path, fields: Mapping[str, Any]) -> None:
        self.path = path
        self.fields = dict(fields)
        self._unwritten = [self._line({"event": "started"})]
        self._written = -STEP_SECONDS

    def _line(self, event: Mapping[str, Any]) -> str:
        return json.dumps({**event, **self.fields})

    def add(self, event: Mapping[str, Any]) -> None:
        """Write an event; skip a step that comes too soon after the last event.

        An error while writing does not stop the training: notes and epochs are written with the next event.
        """
        is_step = event["event"] == "step"
        if is_step and time.monotonic() - self._written < STEP_SECONDS:
            return
        lines = [*self._unwritten, self._line(event)]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab") as file:
                # The leading newline ends the incomplete line of a process that was killed while it wrote.
                file.write(("\n" + "\n".join(lines) + "\n").encode())
        except OSError:
            self._unwritten = lines[:-1] if is_step else lines
        else:
            self._unwritten = []
            self._written = time.monotonic()


class ProgressReader:
    """A reader that returns every event once, in the order of the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def events(self) -> list[dict[str, Any]]:
        """Return the events written since the last call; an incomplete last line is left for the next call."""
        try:
            # Reopened each time, because a network drive checks for changes when a file is opened.
            with open(self.path, "rb") as file:
                file.seek(self._offset)
                text = file.read()
        except OSError:
            return []
        complete = text[: text.rfind(b"\n") + 1]
        self._offset += len(complete)
        found: list[dict[str, Any]] = []
        for line in complete.splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                event = json.loads(line)
                if isinstance(event, dict) and "event" in event:
                    found.append(event)
        return found

    def forget(self) -> None:
        """Remove the file and read from the start again."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        self._offset = 0


def pass_on(report: Report, job: Job, event: dict[str, Any]) -> None:
    """Log a note of a job; pass its steps and epochs to `report`."""
    if event["event"] == "note":
        logger.info(event["text"])
    else:
        report(job, event)
