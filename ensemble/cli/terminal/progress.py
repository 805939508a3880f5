"""The live view of a training: a bar a running fold on a terminal, a line a finished fold elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ensemble.cli.terminal import console

if TYPE_CHECKING:  # they import torch, which not every command that shows a bar needs
    from folds.training.job import Job, Outcome


class TrainingView:
    """Shows the events of `folds.runs.execute.train`; a context manager. Its methods may be called from any thread."""

    def __init__(self, jobs: Sequence[Job], slots: int) -> None:
        self.jobs = list(jobs)
        self.slots = max(1, min(slots, len(jobs)))
        self.state: dict[tuple[str, int], tuple[int, int]] = {}  # (run, fold) → steps done, steps in all
        self.begun: dict[tuple[str, int], tuple[float, int]] = {}  # when its first event came, and at which step
        self.pace: dict[str, float] = {}  # seconds a step, by run
        self.finished: set[tuple[str, int]] = set()
        self.estimated = False
        self.lock = threading.Lock()
        self.bars: Any = None
        self.tasks: dict[tuple[str, int], Any] = {}

    def __enter__(self) -> TrainingView:
        if sys.stderr.isatty() and not console.quiet and self.jobs:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), TextColumn("{task.fields[text]}"))
            self.bars = Progress(*columns, console=Console(stderr=True), transient=True)
            self.bars.start()
            self.tasks[("", 0)] = self.bars.add_task("all folds", total=1.0, text="estimating")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bars is not None:
            self.bars.stop()

    def event(self, job: Job, event: dict[str, Any]) -> None:
        """A worker's word about its job."""
        if event["event"] == "note":
            self._print(event["text"])
            return
        key = (job.run, job.fold)
        now = time.monotonic()
        with self.lock:
            self.state[key] = (event["done"], event["total"])
            since, first = self.begun.setdefault(key, (now, event["done"]))
            if event["done"] > first:
                self.pace[job.run] = (now - since) / (event["done"] - first)
            left = self.seconds_left()
            if self.bars is None:
                # A file or pipe gets the estimate once, when there is something to estimate from.
                if left is not None and not self.estimated and now - since > 2:
                    self.estimated = True
                    self._print(f"about {duration(left)} left for {len(self.jobs) - len(self.finished)} folds")
                return
            if key not in self.tasks:
                self.tasks[key] = self.bars.add_task(f"{job.run} fold {job.fold}", total=event["total"], text="")
            epochs = (
                f"epoch {event['epoch']}, loss {event['loss']:.3f}, macro F1 {event['validation_macro_f1']:.3f}"
                if event["event"] == "epoch"
                else None
            )
            self.bars.update(self.tasks[key], completed=event["done"], **({"text": epochs} if epochs else {}))
            done = sum(d / t for d, t in self.state.values()) / len(self.jobs)
            self.bars.update(
                self.tasks[("", 0)], completed=done, text="" if left is None else f"about {duration(left)} left"
            )

    def seconds_left(self) -> float | None:
        """Steps still to do at each run's measured pace, shared by the slots; None before anything is measured."""
        if not self.pace:
            return None
        totals = {run: total for (run, _), (_, total) in self.state.items()}
        usual, slowest = max(totals.values()), max(self.pace.values())
        left = 0.0
        for job in self.jobs:
            done, total = self.state.get((job.run, job.fold), (0, totals.get(job.run, usual)))
            if (job.run, job.fold) not in self.finished:
                left += (total - done) * self.pace.get(job.run, slowest)
        return left / self.slots

    def outcome(self, outcome: Outcome) -> None:
        """A job has ended."""
        job, key = outcome.job, (outcome.job.run, outcome.job.fold)
        with self.lock:
            self.finished.add(key)
            if self.bars is not None and key in self.tasks:
                self.bars.remove_task(self.tasks.pop(key))
        if outcome.result is not None:
            done = outcome.result
            self._print(
                f"{job.run} fold {job.fold}: macro F1 {done['macro_f1']:.3f}, accuracy {done['accuracy']:.3f}, "
                f"{duration(done['seconds'])} ({done['seconds'] / max(done['epochs'], 1):.1f} s an epoch)"
            )
        elif outcome.error is not None:
            for line in outcome.error.lines(console.spelled):
                print(line, file=sys.stderr, flush=True)

    def _print(self, text: str) -> None:
        if self.bars is not None:
            self.bars.console.print(text, highlight=False, markup=False)
        else:
            console.note(text)


def duration(seconds: float) -> str:
    """``45 s``, ``3 min``, ``2 h 10 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


class StepsView:
    """Progress of one long step after the other: a bar with the time left on a terminal, nothing elsewhere; made at the first call.

    `title` may be changed between calls.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> StepsView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def __call__(self, done: int, total: int) -> None:
        if not sys.stderr.isatty() or console.quiet:
            return
        if self.bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=total)
        self.bar.update(self.task, description=self.title, completed=done, total=total)
