"""Save and restore the whole state of a training between two steps, to the bit."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from folds.errors import EnsembleError
from folds.utils.files import write_atomic


@dataclass
class Progress:
    """How far a training is: `epoch` epochs and `step` steps of the next one.

    Nothing else is needed to know what comes next: the order of an epoch and every random number are derived from
    (seed, run, fold, epoch, step), so no generator has a state to save.

    Attributes
    ----------
    summed : the losses of the epoch's steps so far, each times its images; None at an epoch's beginning.
    history : one record a finished epoch.
    seconds, epoch_seconds : spent on finished epochs, and on the one that is under way.
    best : the weights of the best epoch, where that is asked for.
    micro : images a forward pass where memory did not suffice for a whole batch; 0: the whole batch.
    """

    epoch: int = 0
    step: int = 0
    summed: Tensor | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    best: dict[str, Tensor] | None = None
    micro: int = 0


@dataclass
class TrainingState:
    """What changes while a model is trained: all of it is saved, all of it is restored.

    The learning rate is a function of the step, so there is no scheduler to save.
    """

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    ema: Any  # timm's ModelEmaV3, or None
    scaler: torch.amp.GradScaler
    progress: Progress = field(default_factory=Progress)

    @property
    def eval_model(self) -> torch.nn.Module:
        """Return the model whose predictions count: the average where there is one."""
        return self.model if self.ema is None else self.ema.module

    def state(self) -> dict[str, Any]:
        """Return everything, as plain values and tensors on the CPU that no later step changes."""
        return _copied(
            {
                "progress": dict(vars(self.progress)),
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": None if self.ema is None else self.ema.module.state_dict(),
                "scaler": self.scaler.state_dict(),
            }
        )

    def load(self, state: Mapping[str, Any]) -> None:
        """Go back to a state of `state`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["average"])
        self.scaler.load_state_dict(state["scaler"])
        self.progress = Progress(**state["progress"])


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


class StateWriter:
    """``state.pt`` and ``history.csv`` of a job; written by a thread of its own while the training goes on.

    Writing and syncing what is three times the size of the weights would else hold up every epoch. What a save holds is
    copied before `save` returns; there is one write at a time, and an error in it is raised at the next call.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.path = place / "state.pt"
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state")
        self._pending: Future[None] | None = None

    def restore(self, state: TrainingState) -> bool:
        """Load the last state into `state`; False where there is none.

        Raises
        ------
        EnsembleError : the file is damaged or of another training.
        """
        if not self.path.exists():
            return False
        try:
            # On the CPU: an optimizer keeps its step counts where they are, and asks for them every step.
            # Plain values only: a state, like everything read from disk, cannot run code.
            state.load(torch.load(self.path, map_location="cpu", weights_only=True))
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except OSError as error:
            raise EnsembleError(
                f"{self.path} cannot be read: {error.strerror or error}", hint="--resume tries it again"
            ) from None
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise EnsembleError(
                f"{self.path} cannot be used to go on: {reason}",
                hint=f"remove {self.path} to train this fold from its beginning",
            ) from None
        # The process may have been killed between the two files, and this may have been the last epoch.
        self._write_history(state.progress.history)
        return True

    def save(self, state: TrainingState) -> None:
        """Save the state of now; returns when it is copied, not when it is written."""
        self.wait()
        self._pending = self._writer.submit(self._write, state.state())

    def _write(self, state: dict[str, Any]) -> None:
        write_atomic(self.path, lambda file: torch.save(state, file))
        self._write_history(state["progress"]["history"])

    def _write_history(self, history: list[dict[str, float]]) -> None:
        if history:
            text = io.StringIO()
            writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(history)
            write_atomic(self.place / "history.csv", text.getvalue())

    def wait(self) -> None:
        """Return when the last save is on the disk; raise what stopped it."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Let a write that is under way end, and its thread with it."""
        self._writer.shutdown(wait=True)
