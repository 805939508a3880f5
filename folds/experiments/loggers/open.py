"""Choose a tracker of experiments by its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from folds.errors import UsageError, unknown_name
from folds.experiments.loggers.base import Tracker, Trackers

TRACKERS = ("tensorboard", "mlflow", "wandb", "trackio")
# What to install; the extra `track` is of TensorBoard and MLflow.
_INSTALLED_BY = {
    "tensorboard": "tensorboard",
    "mlflow": "mlflow-skinny",
    "wandb": "'ensemble-folds[wandb]'",
    "trackio": "'ensemble-folds[trackio]'",
}


def open_tracker(name: str | Sequence[str] | None, runs: Path = Path("runs")) -> Tracker:
    """Return the logger with this name, or one for several names; one that does nothing without a name.

    Raises
    ------
    UsageError : an unknown name, or a package that is not installed.
    """
    if not name:
        return Tracker()
    if not isinstance(name, str):
        parts = [open_tracker(one, runs) for one in dict.fromkeys(name)]
        return parts[0] if len(parts) == 1 else Trackers(parts)
    if name not in TRACKERS:
        raise unknown_name("`logger`", name, TRACKERS)
    try:
        return _opened(name, runs)
    except ImportError as error:
        raise UsageError(
            f"`logger={name}`: {error.name or name} is not installed",
            hint=f"pip install {_INSTALLED_BY[name]}, or remove `logger`",
        ) from None


def _opened(name: str, runs: Path) -> Tracker:
    """Return the logger of a known name; each one imports its package."""
    if name == "tensorboard":
        from folds.experiments.loggers.tensorboard import TensorBoard

        return TensorBoard(runs)
    if name == "mlflow":
        from folds.experiments.loggers.mlflow import MLflow

        return MLflow(runs)
    if name == "wandb":
        from folds.experiments.loggers.wandb import WandB

        return WandB(runs)
    from folds.experiments.loggers.trackio import Trackio

    return Trackio(runs)
