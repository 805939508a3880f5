"""Save and load checkpoints: weights, and everything needed to use them; loading never executes code in the file.

A checkpoint may be shared, so it names no files, people or labels of samples: ids are kept as hashes, which suffice to
find the rows of a table again and to detect leaks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from folds.data.sources import BUILT_IN
from folds.data.targets import Target, resolve_target
from folds.data.tasks import recorded_task
from folds.errors import EnsembleError, UsageError
from folds.images.settings import ImageSettings
from folds.metrics.task_names import CLASSES
from folds.models.accelerators import prefers_channels_last
from folds.models.archive import load_archive
from folds.models.checkpoint_fields import (
    CHECKPOINT_FIELDS,
    HASH_DIGITS,
    HASHES,
    PSEUDO_HASHES,
    invalid_fields,
    wrong_rows,
)
from folds.models.factory import Architecture, create_model, is_convolutional
from folds.models.head_spec import LINEAR, check_head, require_image_head
from folds.models.model_names import are_known, check_arguments
from folds.models.multi_head import join_heads
from folds.models.precision import usable_amp
from folds.models.stored_weights import StoredWeights
from folds.predictions.files import ALL, LABEL
from folds.utils.files import is_file_safe, sha256_file, write_atomic
from folds.utils.schema import shown

if TYPE_CHECKING:
    import torch

FORMAT = "ensemble checkpoint 1"
_TUPLES = ("classes", "heads")


@dataclass(frozen=True)
class Checkpoint:
    """The content of `checkpoints/<run>/fold<i>.pt`, or of ``all.pt``, the model that was trained on all people.

    Attributes
    ----------
    data : how the table is read (the fields of ``DataSpec``); of its place only that of synthetic data
        (`anonymous_data`). ``columns``: label and person → the column that was found by a known name.
    images : how images were decoded (the fields of ``ImageSettings``).
    recipe : the resolved training settings.
    training_hashes, validation_hashes : hashes of the sample ids of the training and the validation part of the fold
        (`hash_ids`).
    pseudo_hashes : hashes of the ids of the images without labels whose pseudo-labels were learned.
    labels_sha : hash of the labels of the validation part (`hash_labels`); None if they were not recorded.
    heads : attributes with one head each; empty if the outputs are the classes.
    selected_on_validation : whether the score of the validation part is optimistic: something was chosen on it, or
        models that have seen it made the soft labels; ``optimistic`` in the file.
    refit : of the model of all people: its epochs, the epochs of the folds that they follow from, and the hashes of
        their checkpoints. Its `fold` is `k`, and it has no validation part, so nothing scores it out of fold.
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
    training_hashes: tuple[str, ...]
    validation_hashes: tuple[str, ...]
    folds_sha: str
    versions: Mapping[str, str]
    labels_sha: str | None = None
    heads: tuple[str, ...] = ()
    selected_on_validation: bool = False
    refit: Mapping[str, Any] | None = None
    pseudo_hashes: tuple[str, ...] = ()

    @property
    def part(self) -> str:
        """Return the name of its file without suffix: ``fold<i>``, or ``all``."""
        return f"fold{self.fold}" if self.refit is None else ALL

    @property
    def task(self) -> str:
        """Return what the classes are, one of `folds.metrics.task_names`; if ``binary``, the positive is last."""
        return recorded_task(self.recipe.get("task"), self.recipe.get("positive"), self.target, self.classes)

    @property
    def label_of(self) -> str | None:
        """Return ``person`` if only persons were labeled in the training, so that scores are by person."""
        return self.data.get("label_of")

    @property
    def exclusive(self) -> bool:
        """Return whether exclusive classes were asked for, so that no name of a class makes it the positive one."""
        return self.recipe.get("task") == CLASSES

    @property
    def image_settings(self) -> ImageSettings:
        """Return how images were decoded."""
        window, margin = self.images.get("window"), self.images.get("margin") or (0, 0)
        values = {**self.images, "window": tuple(window) if window else None}
        values |= {name: tuple(self.images.get(name) or ()) for name in ("channels", "stack")}
        return ImageSettings(**{**values, "margin": (int(margin[0]), int(margin[1]))})

    @property
    def weight_bytes(self) -> int:
        """Return the size of the weights in memory, without reading them."""
        if isinstance(self.weights, StoredWeights):
            return self.weights.nbytes
        return sum(value.nbytes for value in self.weights.values())

    @property
    def repair(self) -> str:
        """Return the hint of an error about its weights: how to get them anew."""
        return train_again(self)

    def build(self, path: Path | None = None) -> torch.nn.Module:
        """Return the model with its weights, in evaluation mode, on the CPU.

        Parameters
        ----------
        path : file that errors name.

        Raises
        ------
        EnsembleError : the weights do not fit the architecture.
        """
        require_image_head(self.architecture.head, "this command", str(path or f"{self.run} {self.part}"))
        return join_heads(self.network(path), self.outputs())

    def network(self, path: Path | None = None) -> torch.nn.Module:
        """Return the model as it was trained, before heads of attributes are joined; see `build`."""
        from folds.models.build_limit import BuildLimit

        own = sum(value.numel() for value in self.weights.values())
        limit = BuildLimit(4 * own + 2**22, 40 * len(self.weights) + 5_000)
        try:
            model = create_model(self.architecture, self.outputs().outputs, limit=limit)
        except UsageError as error:
            raise EnsembleError(f"{path or 'the checkpoint'} is damaged: {error.message}") from None
        mismatch = _mismatches(self.weights, model.state_dict())
        if mismatch:
            raise EnsembleError(
                f"{path or 'the checkpoint'} is damaged: {mismatch}, for {self.architecture.timm_name} with "
                f"{len(self.classes)} classes",
                hint=self.repair,
            )
        model.load_state_dict(dict(self.weights))
        return model.eval()

    def build_on(self, device: str, path: Path | None = None) -> tuple[torch.nn.Module, bool]:
        """Return the model on a device, in evaluation mode, and whether its memory format is channels_last.

        Raises
        ------
        EnsembleError : the weights do not fit the architecture.
        """
        return self.placed(self.build(path), device)

    def placed(self, built: torch.nn.Module, device: str) -> tuple[torch.nn.Module, bool]:
        """Return a model of this checkpoint, or a part of it, on a device, and whether it is in channels_last."""
        import torch

        setting = self.recipe.get("channels_last")
        channels_last = is_convolutional(built) and prefers_channels_last(device) if setting is None else bool(setting)
        layout = torch.channels_last if channels_last else torch.preserve_format
        return built.to(device).to(memory_format=layout), channels_last  # type: ignore[call-overload]

    def amp_on(self, device: str) -> str:
        """Return the precision to predict in: that of the training on a GPU that has it, full precision on a CPU."""
        return usable_amp(self.amp, device)

    def outputs(self) -> Target:
        """Return the target that the outputs of the model predict."""
        if self.heads:
            return resolve_target("+".join(self.heads), self.classes, self.class_attributes)
        return resolve_target(LABEL, self.classes, {})


def hash_ids(ids: Iterable[str]) -> tuple[str, ...]:
    """Return a hash of each sample id: 16 hex digits, the same in every table."""
    return tuple(hashlib.sha256(b"id\0" + one.encode(errors="surrogatepass")).hexdigest()[:HASH_DIGITS] for one in ids)


def hash_labels(hashes: Sequence[str], labels: Sequence[str]) -> str:
    """Return one hash of the labels of samples, which does not depend on the order of the samples.

    Parameters
    ----------
    hashes : of the ids (`hash_ids`).
    """
    pairs = sorted(zip(hashes, map(str, labels), strict=True))
    return hashlib.sha256(repr(pairs).encode(errors="surrogatepass")).hexdigest()


def anonymous_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of ``DataSpec`` without paths, except that of the synthetic data, which can be made again."""
    built_in = data.get("data") == str(BUILT_IN)
    places = {name: None for name in ("test", "images", "test_images") if name in data}
    return {**data, **places, "data": str(BUILT_IN) if built_in else None}


def train_again(checkpoint: Checkpoint) -> str:
    """Return the command that trains this fold again and keeps the other folds."""
    what, fold = ("this fold", str(checkpoint.fold)) if checkpoint.refit is None else ("this model", ALL)
    return f"train {what} again: ensemble kfold -c runs/{checkpoint.run}/config.toml --fold {fold} --force"


def _mismatches(weights: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> str:
    """Return the differences between `weights` and the weights of the model, in one phrase; "" if there are none."""
    parts = []
    other = [name for name, value in expected.items() if name in weights and weights[name].shape != value.shape]
    for names, what in (
        ([name for name in expected if name not in weights], "missing"),
        ([name for name in weights if name not in expected], "unknown"),
        (other, "of another shape"),
    ):
        if names:
            parts.append(f"{len(names)} {what} (e.g. {shown(names[0])})")
    return f"weights are {', '.join(parts)}" if parts else ""


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> str:
    """Write a checkpoint atomically; return the SHA-256 of its bytes (which do not depend on the file name)."""
    import torch

    record = {_file_key(name): getattr(checkpoint, name) for name in Checkpoint.__dataclass_fields__}
    record["architecture"] = checkpoint.architecture.to_dict()
    record["weights"] = dict(checkpoint.weights.items())
    record["format"] = FORMAT
    if checkpoint.refit is None:
        del record["refit"]  # the files of folds stay as they were
    record |= {name: "".join(record[name]) for name in (*HASHES, PSEUDO_HASHES)}
    if not checkpoint.pseudo_hashes:
        del record[PSEUDO_HASHES]
    record["data"] = anonymous_data(checkpoint.data)
    record["recipe"] = {name: value for name, value in checkpoint.recipe.items() if name != "init"}  # a path
    write_atomic(path, lambda file: torch.save(record, file))
    return sha256_file(path)


def _file_key(field: str) -> str:
    """Return the key of a field of `Checkpoint` in the file."""
    return "optimistic" if field == "selected_on_validation" else field


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    EnsembleError : the file does not exist (the hint lists the existing checkpoints), is not a checkpoint, or contains
        code.
    """
    path = Path(path)
    if not path.is_file():
        raise EnsembleError(f"there is no checkpoint {path}", hint=available_checkpoints())
    try:
        record = load_archive(path)
    except MemoryError:
        raise
    except Exception as error:
        # torch adds its advice about weights_only to every error, also for an image renamed to .pt.
        if any(sign in str(error) for sign in ("GLOBAL", "unsupported class", "Unsupported class", "persistent id")):
            raise EnsembleError(
                f"{path} holds more than plain values and was not loaded, because it could run code"
            ) from None
        reason = str(error) if type(error) is ValueError else f"{type(error).__name__} while reading"
        raise EnsembleError(f"{path} is not a checkpoint: {reason}", hint=available_checkpoints()) from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise EnsembleError(
            f"{path} is not a checkpoint of this program",
            hint="other weights can initialize a training: ensemble kfold --arch NAME --init-weights FILE",
        )
    checkpoint, folder = _checked(path, record), path.absolute().parent
    # A renamed run keeps its checkpoints as they are: then their folder has its name.
    own = folder.parent.name == "checkpoints" and path.name == f"{checkpoint.part}.pt" and is_file_safe(folder.name)
    return replace(checkpoint, run=folder.name) if own else checkpoint


def _checked(path: Path, record: Mapping[str, Any]) -> Checkpoint:
    wrong = invalid_fields(record, CHECKPOINT_FIELDS)
    wrong = wrong or wrong_rows(record)
    if wrong:
        raise EnsembleError(
            f"{path} is a damaged checkpoint: {wrong[0]}", hint=available_checkpoints(), details=wrong[1:6]
        )
    # A field that an earlier version did not record has its default.
    recorded = {name: record.get(_file_key(name)) for name in Checkpoint.__dataclass_fields__}
    values = {name: value for name, value in recorded.items() if value is not None} | _rows_of(record)
    try:
        return checkpoint_of(values)
    except UnknownModelError as error:
        raise EnsembleError(f"{path} cannot be used: {error.message}", hint=error.hint) from None
    except EnsembleError as error:
        raise EnsembleError(f"{path} is a damaged checkpoint: {error.message}", hint=available_checkpoints()) from None


class UnknownModelError(EnsembleError):
    """timm has no model of this name."""


def checkpoint_of(values: Mapping[str, Any]) -> Checkpoint:
    """Return the checkpoint with these fields, which were checked one by one (`invalid_fields`), if they fit together.

    Raises
    ------
    UnknownModelError : timm has no such model.
    EnsembleError : the fields contradict each other, or an argument does more than shape a model.
    """
    architecture = {**values["architecture"]}
    architecture |= {name: tuple(architecture[name]) for name in ("mean", "std")}
    architecture |= {"head": architecture.get("head") or LINEAR, "joined": tuple(architecture.get("joined") or ())}
    tuples = {name: tuple(values[name]) for name in _TUPLES if name in values}
    checkpoint = Checkpoint(**{**values, **tuples, "architecture": Architecture(**architecture)})
    settings = checkpoint.image_settings  # which checks its fields
    for part in checkpoint.architecture.parts():
        if not len(part.mean) == len(part.std) == settings.depth:
            raise EnsembleError(f"{len(part.mean)} means of channels, expected {settings.depth} as the images have")
    check_head(checkpoint.architecture.head)
    for part in (checkpoint.architecture, *checkpoint.architecture.parts()):
        check_arguments(part.arguments)
    checkpoint.outputs()
    if not are_known(checkpoint.architecture):
        raise UnknownModelError(
            f"timm has no model {shown(checkpoint.architecture.timm_name)}",
            hint="only models of timm are loaded; pip install --upgrade timm",
        )
    return checkpoint


def _rows_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hashes of the training and validation rows, also of a checkpoint that has the ids themselves."""
    found: dict[str, Any] = {}
    for name in (*HASHES, PSEUDO_HASHES):
        text = record.get(name)
        found[name] = (
            hash_ids(record.get(name.replace("hashes", "ids"), ()))
            if text is None
            else tuple(text[at : at + HASH_DIGITS] for at in range(0, len(text), HASH_DIGITS))
        )
    if record.get("validation_labels") is not None:
        found["labels_sha"] = hash_labels(found["validation_hashes"], record["validation_labels"])
    return found


def available_checkpoints(folder: Path = Path("checkpoints"), limit: int = 10) -> str:
    """Return a hint that lists the existing checkpoints, or the command that trains some."""
    found = sorted(folder.glob("*/*.pt"))
    if not found:
        return "ensemble kfold --k 5 --arch swin writes checkpoints to checkpoints/"
    more = f" and {len(found) - limit} more" if len(found) > limit else ""
    return f"existing checkpoints: {', '.join(map(str, found[:limit]))}{more}"
