"""What a job on another machine says: one JSON line an event, in a file that is only added to.

The file lies beside the job's results, on the drive that all machines share. An event costs one small write and a look
costs one small read, however long the file has grown; what is said is there until it is read.
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

Report = Callable[[Job, dict[str, Any]], None]  # gets the steps and epochs of a job, in any thread

STEP_SECONDS = 1.0  # between two steps that are written; notes and epochs are all written


class ProgressWriter:
    """The writing side; the process holds the lock of the job.

    What it says first is ``{"event": "begun"}``: a second one in a file is of a process that has taken the job over.

    Parameters
    ----------
    path : of the file; it is made, or added to.
    about : further fields of every event.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path = path
        self.about = dict(about)
        self._unwritten = [self._line({"event": "begun"})]
        self._written = -STEP_SECONDS

    def _line(self, event: Mapping[str, Any]) -> str:
        return json.dumps({**event, **self.about})

    def add(self, event: Mapping[str, Any]) -> None:
        """Write an event; a step that comes too soon after the last one is left out.

        A file that cannot be written now does not stop the training: notes and epochs are written with the next event.
        """
        passing = event["event"] == "step"
        if passing and time.monotonic() - self._written < STEP_SECONDS:
            return
        lines = [*self._unwritten, self._line(event)]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab") as file:
                # The newline in front ends what a process that was lost in the middle of a line has left.
                file.write(("\n" + "\n".join(lines) + "\n").encode())
        except OSError:
            self._unwritten = lines[:-1] if passing else lines
        else:
            self._unwritten = []
            self._written = time.monotonic()


class ProgressReader:
    """The reading side: every event once, in order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def events(self) -> list[dict[str, Any]]:
        """Return what has been written since the last call; a line of which only a part is there is left for the next
        one.
        """
        try:
            # Opened anew each time: that is when a network drive looks whether the file has changed.
            with open(self.path, "rb") as file:
                file.seek(self._offset)
                text = file.read()
        except OSError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        found: list[dict[str, Any]] = []
        for line in whole.splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                event = json.loads(line)
                if isinstance(event, dict) and "event" in event:
                    found.append(event)
        return found

    def forget(self) -> None:
        """Remove the file, and begin again at its beginning."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        self._offset = 0


def pass_on(report: Report, job: Job, event: dict[str, Any]) -> None:
    """Log what a job notes; tell `report` of its steps and epochs."""
    if event["event"] == "note":
        logger.info(event["text"])
    else:
        report(job, event)
