"""Report the progress of long tasks: one protocol for terminals, notebooks and silence.

Texts (notes, warnings, errors) go to `logging`; this protocol is for progress bars, which are updated. A long function
of the library has a parameter ``progress: Progress = SILENT`` and does::

    with progress.step("decoding images") as advance:
        load_images(paths, settings, cache_dir=folder, progress=advance)

`ensemble.cli.terminal.progress` implements it for terminals, `folds.utils.bars` for notebooks and
scripts. Both draw the curves of folds with `folds.utils.sparkline`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

Advance = Callable[[int, int], None]
"""Called with (done, total), from one thread at a time; `total` is the same in all calls of a step."""


class JobProgress(Protocol):
    """The live view of jobs that are trained in parallel; its methods may be called from any thread.

    A job has a ``run`` and a ``fold`` (`folds.training.job.Job`); an outcome has a ``job``, and a ``result`` or an
    ``error``.
    """

    def event(self, job: Any, event: Mapping[str, Any]) -> None:
        """Show ``{"event": "step", "done": …, "total": …}`` or ``{"event": "epoch", …}``.

        The event of an epoch also has its scores, and for a sparkline ``metric``, the title of one of them (or of the
        loss), and ``curve``, its value after each epoch so far.
        """

    def outcome(self, outcome: Any) -> None:
        """Show that a job has ended."""


class Progress(Protocol):
    """A receiver of the progress of a long task."""

    def step(self, title: str) -> AbstractContextManager[Advance]:
        """Return a context for one step of the task; it gives a function to call with (done, total)."""

    def jobs(self, jobs: Sequence[Any], slots: int) -> AbstractContextManager[JobProgress]:
        """Return a context for jobs that are trained, `slots` at a time."""


class Silent:
    """Progress that is not shown."""

    def step(self, title: str) -> AbstractContextManager[Advance]:
        """Return a context that ignores all reports."""
        return nullcontext(lambda done, total: None)

    def jobs(self, jobs: Sequence[Any], slots: int) -> AbstractContextManager[JobProgress]:
        """Return a context that ignores all reports."""
        return nullcontext(_SilentJobs())


class _SilentJobs:
    def event(self, job: Any, event: Mapping[str, Any]) -> None: ...

    def outcome(self, outcome: Any) -> None: ...


SILENT: Progress = Silent()
