"""Save and load checkpoints: weights and all that is needed to use them again; nothing in the file is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from folds.data.targets import Target, resolve_target
from folds.errors import EnsembleError
from folds.images.settings import ImageSettings
from folds.models.factory import Architecture, check_arguments, create_model, is_known
from folds.models.multi_head import join_heads
from folds.predictions.files import LABEL
from folds.utils.files import sha256_file, write_atomic
from folds.utils.schema import (
    ANYTHING,
    BOOL,
    FILE_SAFE,
    NUMBER,
    TEXT,
    FieldType,
    integer,
    list_of,
    mapping_of,
    one_of,
    optional,
    shown,
    validate_fields,
)

if TYPE_CHECKING:
    import torch

FORMAT = "ensemble checkpoint 1"


_POSITIVE = FieldType("a number above 0", lambda value: NUMBER.holds(value) and value > 0)
_IMAGES = {"height": integer(1, 2**16), "width": integer(1, 2**16), "fit": TEXT, "window": optional(list_of(NUMBER, 2))}
_ARCHITECTURE = {
    **{"name": TEXT, "timm_name": TEXT, "height": integer(1, 2**16), "width": integer(1, 2**16)},
    **{"mean": list_of(NUMBER, 3), "std": list_of(_POSITIVE, 3), "arguments": mapping_of(ANYTHING)},
}
_DATA = {
    **{"data": TEXT, "path": TEXT, "label": TEXT, "person": TEXT, "id": optional(TEXT), "split": optional(TEXT)},
    **{"person_regex": optional(TEXT), "test": optional(TEXT), "classes": optional(list_of(TEXT))},
}
_RECIPE = {
    "seed": optional(integer(0, 2**32 - 1)),
    "channels_last": optional(BOOL),
}  # what is used again; the rest is a record
# Every field, since a checkpoint may come from anywhere: `run` and `fold` become paths, the rest is handed on as it is.
_FIELDS: dict[str, FieldType] = {
    "run": FILE_SAFE,
    "fold": integer(0, 9999),
    "k": integer(0, 10000),
    "architecture": mapping_of(ANYTHING),
    "weights": mapping_of(FieldType("a tensor", lambda value: _is_tensor(value))),
    "classes": list_of(TEXT),
    "class_attributes": mapping_of(mapping_of(TEXT)),
    "target": TEXT,
    "images": mapping_of(ANYTHING),
    "data": mapping_of(ANYTHING),
    "recipe": mapping_of(ANYTHING),
    "amp": one_of("off", "bf16", "fp16"),
    "training_ids": list_of(TEXT),
    "validation_ids": list_of(TEXT),
    "folds_sha": TEXT,
    "versions": mapping_of(TEXT),
    "validation_labels": optional(list_of(TEXT)),
    "heads": optional(list_of(TEXT)),
    "optimistic": optional(BOOL),
}
_TUPLES = ("classes", "training_ids", "validation_ids", "validation_labels", "heads")


@dataclass(frozen=True)
class Checkpoint:
    """What `checkpoints/<run>/fold<i>.pt` holds.

    `data` says where the table was (the fields of ``DataSpec``), `images` how pixels were made (``ImageSettings``),
    `recipe` the resolved training settings; the ids are those of the fold's own training and validation part, and
    `validation_labels` what the latter showed (None where it was not recorded). `heads` are the attributes that the
    model has
    one head each for; none where its outputs are the classes. `optimistic`: something was chosen on the validation
    part.
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
    validation_labels: tuple[str, ...] | None = None
    heads: tuple[str, ...] = ()
    optimistic: bool = False

    @property
    def image_settings(self) -> ImageSettings:
        """Return how pixels were made."""
        window = self.images.get("window")
        return ImageSettings(**{**self.images, "window": tuple(window) if window else None})

    def build(self, path: Path | None = None) -> torch.nn.Module:
        """Return the model of `classes` with its weights, in evaluation mode, on the CPU; `path` is named where they do
        not fit.
        """
        target = self._outputs()
        model = create_model(self.architecture, target.outputs)
        wrong = _misfits(self.weights, model.state_dict())
        if wrong:
            raise EnsembleError(
                f"{path or 'the checkpoint'} is damaged: {wrong}, for {self.architecture.timm_name} with "
                f"{len(self.classes)} classes",
                hint=train_again(self),
            )
        model.load_state_dict(dict(self.weights))
        return join_heads(model.eval(), target)

    def _outputs(self) -> Target:
        """Return what the outputs of the model are."""
        if self.heads:
            return resolve_target("+".join(self.heads), self.classes, self.class_attributes)
        return resolve_target(LABEL, self.classes, {})


def train_again(checkpoint: Checkpoint) -> str:
    """Return the command that makes this fold's checkpoint again, and leaves the other folds alone."""
    return (
        f"train this fold again: ensemble kfold -c runs/{checkpoint.run}/config.toml --fold {checkpoint.fold} --force"
    )


def _misfits(weights: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> str:
    """Return how `weights` differ from those the model has, in one phrase; "" where they fit."""
    parts = []
    other = [name for name, value in wanted.items() if name in weights and weights[name].shape != value.shape]
    for names, what in (
        ([name for name in wanted if name not in weights], "missing"),
        ([name for name in weights if name not in wanted], "unknown"),
        (other, "of another shape"),
    ):
        if names:
            parts.append(f"{len(names)} {what} (e.g. {shown(names[0])})")
    return f"weights are {', '.join(parts)}" if parts else ""


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


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
        raise EnsembleError(
            f"{path} is not a checkpoint: {type(error).__name__} while reading", hint=available_checkpoints()
        ) from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise EnsembleError(
            f"{path} is not a checkpoint of this program",
            hint="weights from elsewhere start a training: ensemble kfold --arch NAME --init FILE",
        )
    return _checked(path, record)


def _checked(path: Path, record: Mapping[str, Any]) -> Checkpoint:
    wrong = validate_fields(record, _FIELDS)
    for part, table in (("architecture", _ARCHITECTURE), ("images", _IMAGES), ("data", _DATA), ("recipe", _RECIPE)):
        if isinstance(record.get(part), Mapping):
            wrong += [f"{part}: {line}" for line in validate_fields(record[part], table, others=part == "recipe")]
    if not wrong:
        if len(set(record["classes"])) < max(2, len(record["classes"])):
            wrong.append(f"'classes' is {shown(record['classes'])}, expected two or more, each once")
        labels = record.get("validation_labels")
        if not record["validation_ids"] or (labels is not None and len(labels) != len(record["validation_ids"])):
            wrong.append("'validation_ids' must not be empty, and 'validation_labels' as many")
    if wrong:
        raise EnsembleError(
            f"{path} is a damaged checkpoint: {wrong[0]}", hint=available_checkpoints(), details=wrong[1:6]
        )
    architecture = {**record["architecture"], **{name: tuple(record["architecture"][name]) for name in ("mean", "std")}}
    # What an earlier version did not record has its default.
    values = {name: record[name] for name in Checkpoint.__dataclass_fields__ if record.get(name) is not None}
    values |= {name: tuple(record[name]) for name in _TUPLES if record.get(name) is not None}
    checkpoint = Checkpoint(**(values | {"architecture": Architecture(**architecture)}))
    try:
        checkpoint.image_settings  # noqa: B018 - it checks what it is made of
        check_arguments(checkpoint.architecture.arguments)
        checkpoint._outputs()
    except EnsembleError as error:
        raise EnsembleError(f"{path} is a damaged checkpoint: {error.message}", hint=available_checkpoints()) from None
    if not is_known(checkpoint.architecture.timm_name):
        what = f"timm has no model {shown(checkpoint.architecture.timm_name)}"
        raise EnsembleError(
            f"{path} is of no use here: {what}",
            hint="only models that timm itself builds are loaded; pip install --upgrade timm",
        )
    return checkpoint


def available_checkpoints(folder: Path = Path("checkpoints"), most: int = 10) -> str:
    """Return a hint that lists the checkpoints there are, or how to make one."""
    found = sorted(folder.glob("*/*.pt"))
    if not found:
        return "ensemble kfold --k 5 --arch swin makes some, in checkpoints/"
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return f"there are {', '.join(map(str, found[:most]))}{more}"
