"""Log to trackio: to a folder beside the runs, or where its environment variables say."""

from __future__ import annotations

import contextlib
import contextvars
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from folds.experiments.loggers.base import EXPERIMENT, without_credentials
from folds.experiments.loggers.groups import GroupTracker, OpenRun, TrackedRun

_REMOTE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")


class Trackio(GroupTracker):
    """A run of trackio for each fold, with the epoch as its step, and one with the scores, in a group with its name.

    The project is ``TRACKIO_PROJECT``, or ``ensemble``, in the folder ``trackio`` beside ``runs``, or ``TRACKIO_DIR``;
    with ``TRACKIO_SPACE_ID`` or ``TRACKIO_SERVER_URL`` it is sent there. The id of each run is in ``trackio.json`` in
    the folder of its fold, so that a resumed fold continues it.
    """

    name = "trackio"

    def __init__(self, runs: Path = Path("runs")) -> None:
        super().__init__(runs)
        os.environ.setdefault("TRACKIO_DIR", str((runs.parent / "trackio").absolute()))  # read at the import
        import trackio

        if not hasattr(trackio, "init"):  # the folder that an earlier training has written
            raise ModuleNotFoundError("No module named 'trackio'", name="trackio")
        self._project = os.environ.get("TRACKIO_PROJECT") or EXPERIMENT
        self._remote = next((place for name in _REMOTE if (place := os.environ.get(name))), None)

    def _place(self) -> str:
        import trackio

        return without_credentials(self._remote or str(trackio.TRACKIO_DIR))

    def _start(self, wanted: TrackedRun, known: str | None) -> OpenRun:
        run = self._init(wanted, "never" if known is None else "allow")
        if known is None or run.id == known:
            return OpenRun(run, run.id, 0 if known is None else max(run._next_step - 1, 0))
        with _muted():
            run.finish()  # one of the same name that is about something else
        run = self._init(wanted, "never")
        return OpenRun(run, run.id)

    def _init(self, wanted: TrackedRun, resume: str) -> Any:
        import trackio

        about = {"kind": wanted.kind} | ({"notes": wanted.notes} if wanted.notes else {})
        with _muted(), contextlib.nullcontext() if self._remote else _without_hub():
            # In a context of its own it does not finish the run that was started before: folds train side by side.
            return contextvars.Context().run(
                trackio.init,
                self._project,
                name=wanted.name,
                group=wanted.group,
                config=dict(wanted.settings) | about,
                resume=resume,
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def _log(self, opened: OpenRun, values: Mapping[str, float], step: int) -> None:
        opened.run.log(dict(values), step=step)

    def _summarize(self, opened: OpenRun, scores: Mapping[str, float], folds: int) -> None:
        opened.run.log({**scores, "folds": folds}, step=max(folds, opened.epochs + 1))

    def _attach(self, opened: OpenRun, page: Path, name: str) -> None:
        opened.run.log_artifact(str(page), name=name, type="report")

    def _finish(self, opened: OpenRun, complete: bool) -> None:
        with _muted():
            opened.run.finish()


class _WithoutThread:
    """A stream that drops what one thread writes."""

    def __init__(self, stream: Any, thread: int) -> None:
        self._stream, self._thread = stream, thread

    def write(self, text: str) -> int:
        return len(text) if threading.get_ident() == self._thread else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _muted() -> Iterator[None]:
    """Drop what trackio prints: the output is that of the command."""
    before = sys.stdout
    sys.stdout = _WithoutThread(before, threading.get_ident())  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout = before


@contextlib.contextmanager
def _without_hub() -> Iterator[None]:
    """Let no request go to the hub, which trackio asks for the user's name also where all is written to a folder."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
