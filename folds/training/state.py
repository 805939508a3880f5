"""Save and restore the complete state of a training between two steps, bit for bit."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from folds.errors import EnsembleError
from folds.models.archive import load_archive
from folds.predictions.file_names import FOLD_HISTORY, FOLD_STATE
from folds.training.ema import MovingAverage
from folds.utils.files import write_atomic


@dataclass
class Progress:
    """The progress of a training: `epoch` finished epochs, and `step` finished steps of the next epoch.

    The order of an epoch and all random numbers are derived from (seed, run, fold, epoch, step), so the state of random
    generators is not saved.

    Attributes
    ----------
    loss_sum : sum over the finished steps of the epoch of loss × images; None at the start of an epoch.
    history : one record per finished epoch.
    seconds, epoch_seconds : time spent on finished epochs, and on the current epoch.
    best : weights of the best epoch, if the best epoch is selected.
    last_sum : sum of the weights at the ends of the last epochs so far, if they are averaged.
    micro_batch_size : images per forward pass if the memory is too small for a whole batch, or if gradients are
        accumulated; 0 for the whole batch.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: Tensor | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    best: dict[str, Tensor] | None = None
    micro_batch_size: int = 0
    last_sum: dict[str, Tensor] | None = None


_KEYS = {"loss_sum": "summed", "micro_batch_size": "micro"}  # field of `Progress` → its key in state.pt, if different
_FIELDS = {key: field for field, key in _KEYS.items()}


@dataclass
class TrainingState:
    """Everything that changes during a training, and is saved and restored.

    The learning rate is a function of the step, so no scheduler is saved.
    """

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    ema: MovingAverage | None
    scaler: torch.amp.GradScaler
    progress: Progress = field(default_factory=Progress)

    @property
    def eval_model(self) -> torch.nn.Module:
        """Return the model for predictions: the moving average (EMA) of the weights, if there is one."""
        return self.model if self.ema is None else self.ema.module

    def state(self, best: dict[str, Tensor] | None = None) -> dict[str, Any]:
        """Return the state as plain values and tensors on the CPU, copied so that later steps do not change them.

        Parameters
        ----------
        best : a copy of the weights of the best epoch; without it they are copied.
        """
        progress = vars(self.progress) | ({} if best is None else {"best": None})
        state = _copied(
            {
                "progress": {_KEYS.get(name, name): value for name, value in progress.items()},
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": None if self.ema is None else self.ema.module.state_dict(),
                "scaler": self.scaler.state_dict(),
            }
        )
        if best is not None:
            state["progress"]["best"] = best
        return state  # type: ignore[no-any-return]

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore a state returned by `state`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["average"])
        self.scaler.load_state_dict(state["scaler"])
        self.progress = Progress(**{_FIELDS.get(key, key): value for key, value in state["progress"].items()})


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


class StateWriter:
    """A writer of ``state.pt`` and ``history.csv`` of a job in a thread of its own while the training continues.

    A state is three times as large as the weights, so writing it in the training thread would delay the training.
    `save` copies the state before it returns. There is one write of a state at a time; an error is raised at the next
    call.

    The history is written after every epoch, the state only now and then, so a process that was killed can leave a
    history with epochs that the state does not know. They are trained again: `restore` removes them from the history.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FOLD_STATE
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state")
        self._pending: Future[None] | None = None
        self._recording: Future[None] | None = None
        self._newest: list[dict[str, float]] = []  # the history to write; replaced by newer ones until it is written
        self._written: list[dict[str, float]] | None = None
        self._best: tuple[dict[str, Tensor] | None, dict[str, Tensor] | None] = (None, None)

    @property
    def busy(self) -> bool:
        """Return whether a state is still being written."""
        return self._pending is not None and not self._pending.done()

    def restore(self, state: TrainingState) -> bool:
        """Load the last saved state into `state`; return False if there is none.

        Raises
        ------
        EnsembleError : the file is damaged or belongs to another training.
        """
        if not self.path.exists():
            self._write_history()
            return False
        try:
            # On the CPU, because an optimizer reads its step counts at every step and keeps them on their device.
            # No code in the file is executed.
            state.load(load_archive(self.path, plain=False))
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except OSError as error:
            raise EnsembleError(
                f"{self.path} cannot be read: {error.strerror or error}", hint="`resume=True` tries again"
            ) from None
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise EnsembleError(
                f"{self.path} cannot be used to continue the training: {reason}",
                hint=f"remove {self.path} to train this fold from the start",
            ) from None
        self._newest = list(state.progress.history)
        self._write_history()
        return True

    def save(self, state: TrainingState) -> None:
        """Save the current state; return when it is copied, before it is written."""
        self._finish()
        best = state.progress.best
        if best is not self._best[0]:  # copied once, because it changes seldom
            self._best = best, _copied(best)
        self._newest = list(state.progress.history)
        self._pending = self._writer.submit(self._write, state.state(self._best[1]))

    def record(self, history: Sequence[dict[str, float]]) -> None:
        """Write the history without the state; return before it is written.

        Of the histories that come while another one is being written, only the last one is written.
        """
        self._newest = list(history)
        if self._recording is None or self._recording.done():
            recording, self._recording = self._recording, self._writer.submit(self._write_history)
            if recording is not None:
                recording.result()

    def wait(self) -> None:
        """Wait until the last state and the last history are on disk; raise the error of a failed write."""
        self._finish()
        self._write_history()

    def close(self) -> None:
        """Wait for a write in progress, write a history that came meanwhile, and end the thread."""
        self._writer.shutdown(wait=True)
        with suppress(OSError, EnsembleError):  # the error of the training, if there is one, says more
            if self._newest:
                self._write_history()

    def _finish(self) -> None:
        writes = self._pending, self._recording
        self._pending = self._recording = None
        for write in writes:
            if write is not None:
                write.result()

    def _write(self, state: dict[str, Any]) -> None:
        write_atomic(self.path, lambda file: torch.save(state, file))
        self._write_history()

    def _write_history(self) -> None:
        """Write the newest history if it is not on disk yet."""
        history = self._newest
        if history == self._written:
            return
        if history:
            text = io.StringIO()
            # A run that continues with another metric has its score in the later epochs only.
            names = dict.fromkeys(name for record in history for name in record)
            writer = csv.DictWriter(text, list(names), lineterminator="\n")
            writer.writeheader()
            writer.writerows(history)
            write_atomic(self.folder / FOLD_HISTORY, text.getvalue())
        else:
            (self.folder / FOLD_HISTORY).unlink(missing_ok=True)
        self._written = history


class StateReader(StateWriter):
    """The state of a process that does not write: another one of the same job does."""

    def save(self, state: TrainingState) -> None:
        """Do nothing."""

    def record(self, history: Sequence[dict[str, float]]) -> None:
        """Do nothing."""

    def _write_history(self) -> None:
        """Do nothing."""
