"""How far a long piece of work has come: one protocol for terminals, notebooks and silence.

What is said in words (notes, warnings, errors) goes to `logging`; this is for what is drawn again and again: bars.
A function of the library that takes long has a parameter ``progress: Progress = SILENT`` and does::

    with progress.step("decoding images") as advance:
        load_images(paths, settings, cache_dir=folder, progress=advance)

`ensemble.cli.terminal.progress` implements it for terminals; an implementation for notebooks is a class with these two
methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

Advance = Callable[[int, int], None]
"""Called with (done, total), from one thread at a time; `total` is the same in all calls of a step."""


class JobProgress(Protocol):
    """The live view of jobs that are trained side by side; its methods may be called from any thread.

    A job has a ``run`` and a ``fold`` (`folds.training.job.Job`); an outcome has a ``job``, and a ``result`` or an
    ``error``.
    """

    def event(self, job: Any, event: Mapping[str, Any]) -> None:
        """Show ``{"event": "step", "done": …, "total": …}`` or ``{"event": "epoch", …}``, which has the epoch's scores
        as well.
        """

    def outcome(self, outcome: Any) -> None:
        """Show that a job has ended."""


class Progress(Protocol):
    """What a long piece of work reports to."""

    def step(self, title: str) -> AbstractContextManager[Advance]:
        """Return a context for one step of the work; what it gives is called with (done, total)."""

    def jobs(self, jobs: Sequence[Any], slots: int) -> AbstractContextManager[JobProgress]:
        """Return a context for jobs that are trained, `slots` of them at a time."""


class Silent:
    """Progress that nobody sees."""

    def step(self, title: str) -> AbstractContextManager[Advance]:
        """Return a context that ignores what is reported."""
        return nullcontext(lambda done, total: None)

    def jobs(self, jobs: Sequence[Any], slots: int) -> AbstractContextManager[JobProgress]:
        """Return a context that ignores what is reported."""
        return nullcontext(_SilentJobs())


class _SilentJobs:
    def event(self, job: Any, event: Mapping[str, Any]) -> None: ...

    def outcome(self, outcome: Any) -> None: ...


SILENT: Progress = Silent()
