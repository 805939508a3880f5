"""Show progress bars with the time left on a terminal: one for the whole training, one per running fold."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ensemble.cli.terminal import console
from folds.utils.sparkline import RunCurves, blocks_for
from folds.utils.text import counted, duration

if TYPE_CHECKING:  # the module imports torch, which some commands with a progress bar do not need
    from folds.training.job import Job, Outcome


# Seconds: a step that ends sooner has no bar; a step with more left is announced where there is no terminal.
_SHORT, _LONG = 0.5, 5.0
_WIDE = 110  # columns of a terminal with room for long bars beside the scores


class TerminalProgress:
    """An implementation of `folds.utils.progress.Progress` on stderr, if that is a terminal."""

    def step(self, title: str) -> StepsView:
        """Return a progress bar for one step of the work, drawn at the first update."""
        return StepsView(title)

    def jobs(self, jobs: Sequence[Job], slots: int) -> TrainingView:
        """Return a live view of the training of jobs."""
        return TrainingView(jobs, slots)


class TrainingView:
    """A live view of a training, a context manager. Its methods can be called from any thread."""

    def __init__(self, jobs: Sequence[Job], slots: int) -> None:
        self.jobs = list(jobs)
        self.slots = max(1, min(slots, len(jobs)))
        self.state: dict[tuple[str, int], tuple[int, int]] = {}  # (run, fold) → finished steps, all steps
        self.first_events: dict[tuple[str, int], tuple[float, int]] = {}  # (run, fold) → time, finished steps
        self.pace: dict[str, float] = {}  # run → seconds per step
        self.finished: set[tuple[str, int]] = set()
        self.estimated = False
        self.curves, self.blocks = RunCurves(), blocks_for(sys.stderr)
        self.epochs: dict[tuple[str, int], Mapping[str, Any]] = {}  # (run, fold) → the event of the last epoch
        self.lock = threading.Lock()
        self.bars: Any = None
        self.tasks: dict[tuple[str, int], Any] = {}

    def __enter__(self) -> TrainingView:
        if sys.stderr.isatty() and not console.quiet and self.jobs:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            terminal = Console(stderr=True)
            bar = BarColumn(bar_width=30 if terminal.width >= _WIDE else 10)
            columns = (TextColumn("{task.description}"), bar, TextColumn("{task.fields[text]}"))
            self.bars = Progress(*columns, console=terminal, transient=True)
            self.bars.start()
            self.tasks[("", 0)] = self.bars.add_task("all folds", total=1.0, text="estimating")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bars is not None:
            self.bars.stop()

    def event(self, job: Job, event: Mapping[str, Any]) -> None:
        """Show a step or an epoch of a job."""
        key = (job.run, job.fold)
        now = time.monotonic()
        with self.lock:
            self.state[key] = (event["done"], event["total"])
            since, first = self.first_events.setdefault(key, (now, event["done"]))
            if event["done"] > first:
                self.pace[job.run] = (now - since) / (event["done"] - first)
            left = self.seconds_left()
            if self.bars is None:
                # A file or pipe gets a line per epoch, and before the first one the estimate, once.
                if event["event"] == "epoch":
                    self.estimated = True
                    console.note(_epoch_line(job, event, left))
                if left is not None and not self.estimated and now - since > 2:
                    self.estimated = True
                    console.note(
                        f"about {duration(left)} left for {counted(len(self.jobs) - len(self.finished), 'fold')}"
                    )
                return
            if key not in self.tasks:
                self.tasks[key] = self.bars.add_task(_title(job), total=event["total"], text="")
            self.bars.update(self.tasks[key], completed=event["done"])
            if event["event"] == "epoch":
                self._show_epoch(job, event)
            done = sum(d / t for d, t in self.state.values()) / len(self.jobs)
            self.bars.update(
                self.tasks[("", 0)], completed=done, text="" if left is None else f"about {duration(left)} left"
            )

    def _show_epoch(self, job: Job, event: Mapping[str, Any]) -> None:
        """Show the scores of an epoch with the curve so far, and draw the other folds of the run on its scale."""
        if "curve" in event:
            self.curves.add(job.run, job.fold, event["metric"], event["curve"])
        self.epochs[job.run, job.fold] = event
        for (run, fold), last in self.epochs.items():
            if run == job.run and (run, fold) in self.tasks:
                curve = self.curves.text(run, fold, self.blocks)
                scores = curve if curve.startswith("loss ") else f"loss {last['loss']:.3f}, {curve}"
                text = f"epoch {last['epoch']}, {scores if curve else _scores(last, _task(job))}"
                self.bars.update(self.tasks[run, fold], text=text)

    def seconds_left(self) -> float | None:
        """Return the estimated seconds left, from each run's pace and the parallel slots; None before any step."""
        if not self.pace:
            return None
        totals = {run: total for (run, _), (_, total) in self.state.items()}
        usual, slowest = max(totals.values()), max(self.pace.values())
        left = 0.0
        for job in self.jobs:
            done, total = self.state.get((job.run, job.fold), (0, totals.get(job.run, usual)))
            if (job.run, job.fold) not in self.finished:
                left += (total - done) * self.pace.get(job.run, slowest)
        # The last jobs share the cores: more of them run than there are slots, each at a slower pace.
        return left / max(self.slots, len(self.state.keys() - self.finished))

    def outcome(self, outcome: Outcome) -> None:
        """Show that a job has ended."""
        key = (outcome.job.run, outcome.job.fold)
        with self.lock:
            self.finished.add(key)
            if self.bars is not None and key in self.tasks:
                self.bars.remove_task(self.tasks.pop(key))


def _epoch_line(job: Job, event: Mapping[str, Any], left: float | None) -> str:
    of = job.recipe.get("epochs", "?") if isinstance(job.recipe, Mapping) else "?"
    rest = "" if not left else f"; about {duration(left)} left in all"
    return f"{_title(job)}: epoch {event['epoch']} of {of}, {_scores(event, _task(job))}{rest}"


def _task(job: Job) -> str | None:
    return job.recipe.get("task") if isinstance(job.recipe, Mapping) else None


def _title(job: Job) -> str:
    return getattr(job, "title", f"{job.run} fold {job.fold}")


def _scores(event: Mapping[str, Any], task: str | None) -> str:
    """Return the loss of an epoch and, unless all people train the model, its validation score."""
    from folds.metrics.custom import find_metric
    from folds.predictions.task_scores import shown_score

    name = shown_score(event, task)
    score = "" if name is None else f", {find_metric(name).title} {event[f'validation_{name}']:.3f}"
    return f"loss {event['loss']:.3f}{score}"


class StepsView:
    """A progress bar of one long step, with the time left; a file or pipe gets the estimate once.

    It is created at the first update after half a second, because short steps need none and it costs an import.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.bar: Any = None
        self.task: Any = None
        self.began = time.monotonic()
        self.first: tuple[float, int] | None = None  # of a step that began with a part of the work done or prepared
        self.estimated = False

    def __enter__(self) -> StepsView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def __call__(self, done: int, total: int) -> None:
        if done == 0:  # the preparation is over, the work begins: the rate counts from here
            self.began = time.monotonic()
        spent = time.monotonic() - self.began
        if console.quiet or spent < _SHORT:
            return
        if not sys.stderr.isatty():
            left = spent * (total - done) / done if done else 0.0
            if left > _LONG and not self.estimated:
                self.estimated = True
                console.note(f"{self.title}: {done} of {total}, about {duration(left)} left")
            return
        if self.bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=total, rate="")
        self.bar.update(self.task, completed=done, total=total, rate=f"{done / spent:.1f}/s")
