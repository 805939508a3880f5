"""Show progress and notes to Python users: one updated line in a notebook or terminal, nothing elsewhere."""

from __future__ import annotations

import logging
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from folds.errors import printable, without_marks
from folds.utils.progress import SILENT, Advance, JobProgress, Progress
from folds.utils.sparkline import RunCurves, blocks_for
from folds.utils.text import counted, duration

_SECONDS = 0.2  # between two updates
_WIDTH = 130  # characters of the line


def progress_of(progress: bool | Progress) -> Progress:
    """Return the `Progress` for a ``progress`` argument: True shows a line on stderr (notebook or terminal only), False
    nothing.
    """
    if isinstance(progress, bool):
        return LineProgress() if progress and (in_notebook() or sys.stderr.isatty()) else SILENT
    return progress


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def log_in_notebook() -> None:
    """Print notes and warnings of the library in a notebook, unless its loggers are already set up."""
    if not in_notebook():
        return
    for name in ("folds", "ensemble"):
        logger = logging.getLogger(name)
        if not logger.handlers:
            logger.addHandler(_NotebookHandler(logging.INFO))
            logger.setLevel(logging.INFO)
            logger.propagate = False


class _NotebookHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        lines = without_marks(prefix + record.getMessage()).split("\n")
        print("\n".join(map(printable, lines)), file=sys.stderr, flush=True)


class LineProgress:
    """`folds.utils.progress.Progress` as one line on stderr that is updated in place."""

    @contextmanager
    def step(self, title: str) -> Iterator[Advance]:
        """Yield a function to call with (done, total)."""
        with _line() as draw:
            started = time.monotonic()

            def advance(done: int, total: int) -> None:
                share = done / total if total else 1.0
                left = (time.monotonic() - started) * (1 - share) / share if share else None
                rest = "" if left is None or done == total else f", about {duration(left)} left"
                draw(f"{title}: {done:,} of {total:,}{rest}", done == total)

            yield advance

    @contextmanager
    def jobs(self, jobs: Sequence[Any], slots: int) -> Iterator[JobProgress]:
        """Yield the view of jobs that are trained, `slots` at a time."""
        with _line() as draw:
            yield _Jobs(len(jobs), draw)


class _Jobs:
    def __init__(self, count: int, draw: Any) -> None:
        self.count, self.draw = count, draw
        self.started = time.monotonic()
        self.first: float | None = None
        self.shares: dict[tuple[str, int], float] = {}
        self.curves, self.blocks = RunCurves(), blocks_for(sys.stderr)
        self.lock = threading.Lock()

    def event(self, job: Any, event: Mapping[str, Any]) -> None:
        """Show the progress over all jobs and the latest validated epoch."""
        with self.lock:
            self.shares[job.run, job.fold] = event["done"] / max(event["total"], 1)
            done = sum(self.shares.values()) / self.count
            self.first = done if self.first is None else self.first
            passed, gained = time.monotonic() - self.started, done - self.first
            rest = f", about {duration(passed * (1 - done) / gained)} left" if gained > 0.02 else ""
            scored = event.get("validation_macro_f1")
            title = getattr(job, "title", f"{job.run} fold {job.fold}")
            score = "" if scored is None else f"macro F1 {scored:.3f}"
            if "curve" in event:
                self.curves.add(job.run, job.fold, event["metric"], event["curve"])
                score = self.curves.text(job.run, job.fold, self.blocks) or score
            last = f"; {title}, epoch {event['epoch']}: {score}" if score else ""
            self.draw(f"training {counted(self.count, 'fold')}: {done:.0%}{rest}{last}", bool(last))

    def outcome(self, outcome: Any) -> None:
        """Count an ended job as done."""
        with self.lock:
            self.shares[outcome.job.run, outcome.job.fold] = 1.0


@contextmanager
def _line() -> Iterator[Any]:
    """Yield a function that shows a text in place of the previous one; the line is empty at the end."""
    width, last = 0, 0.0
    # A longer line would be broken in a terminal, and not be replaced.
    most = _WIDTH if in_notebook() else min(_WIDTH, shutil.get_terminal_size().columns - 1)

    def draw(text: str, now: bool) -> None:
        nonlocal width, last
        if now or time.monotonic() - last >= _SECONDS:
            text = printable(text)[:most]
            print("\r" + text.ljust(width), end="", file=sys.stderr, flush=True)
            width, last = len(text), time.monotonic()

    try:
        yield draw
    finally:
        if width:
            print("\r" + " " * width + "\r", end="", file=sys.stderr, flush=True)
