"""The checkpoint: weights and everything needed to use them again, loaded without running anything in the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from folds.architectures import Architecture, create
from folds.errors import EnsembleError
from folds.files import sha256_file, write_atomic

if TYPE_CHECKING:
    import torch

FORMAT = "ensemble checkpoint 1"


@dataclass(frozen=True)
class Checkpoint:
    """What `checkpoints/<run>/fold<i>.pt` holds.

    `data` says where the table was (the fields of ``DataSpec``), `images` how pixels were made (``ImageSettings``),
    `recipe` the resolved training settings; the ids are those of the fold's own training and validation part.
    """

    run: str
    fold: int
    k: int
    architecture: Architecture
    weights: Mapping[str, torch.Tensor]
    classes: tuple[str, ...]
    class_attributes: Mapping[str, Mapping[str, str]]
    target: str
    images: Mapping[str, Any]
    data: Mapping[str, Any]
    recipe: Mapping[str, Any]
    amp: str
    training_ids: tuple[str, ...]
    validation_ids: tuple[str, ...]
    folds_sha: str
    versions: Mapping[str, str]

    def build(self) -> torch.nn.Module:
        """The model with its weights, in evaluation mode, on the CPU."""
        model = create(self.architecture, len(self.classes))
        model.load_state_dict(dict(self.weights))
        return model.eval()


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> str:
    """Write a checkpoint atomically; return the SHA-256 of its bytes (which do not depend on its name)."""
    import torch

    record = {name: getattr(checkpoint, name) for name in Checkpoint.__dataclass_fields__}
    record["architecture"] = asdict(checkpoint.architecture)
    record["format"] = FORMAT
    write_atomic(path, lambda file: torch.save(record, file))
    return sha256_file(path)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    EnsembleError : no such file (the checkpoints there are get listed), not a checkpoint, or one that holds code.
    """
    import torch

    path = Path(path)
    if not path.is_file():
        raise EnsembleError(f"there is no checkpoint {path}", hint=available_checkpoints())
    try:
        record = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch's advice about weights_only stands below every error, also for a picture renamed to .pt.
        if any(sign in str(error) for sign in ("GLOBAL", "unsupported class", "Unsupported class", "persistent id")):
            raise EnsembleError(f"{path} holds more than plain values and is refused: it could run code") from None
        raise EnsembleError(f"{path} is not a checkpoint: {type(error).__name__} while reading", hint=available_checkpoints()) from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise EnsembleError(
            f"{path} is not a checkpoint of this program", hint="weights from elsewhere start a training: ensemble kfold --arch NAME --init FILE"
        )
    try:
        values = {name: record[name] for name in Checkpoint.__dataclass_fields__}
        values["architecture"] = Architecture(**record["architecture"])
    except (KeyError, TypeError) as error:
        raise EnsembleError(f"{path} is a damaged checkpoint: {error} is missing or wrong") from None
    return Checkpoint(**values)


def available_checkpoints(folder: Path = Path("checkpoints"), most: int = 10) -> str:
    """A hint that lists the checkpoints there are, or how to make one."""
    found = sorted(folder.glob("*/*.pt"))
    if not found:
        return "ensemble kfold --k 5 --arch swin makes some, in checkpoints/"
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return f"there are {', '.join(map(str, found[:most]))}{more}"
