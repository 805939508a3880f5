"""Make a served model of a predictor, or of the name of anything that can be loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ensemble.serving.model import ServedModel


def open_model(what: Any, device: str, root: Path) -> ServedModel:
    """Return the model of an exported folder or archive, a loaded one, a checkpoint, a run or a blend.

    Raises
    ------
    EnsembleError : it does not exist, is damaged, or cannot predict single images.
    """
    raise NotImplementedError
