"""Read an exported model: every part is hashed and checked before it is used, and nothing in it can run code."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ensemble.blending.coefficients import unpack_coefficients
from ensemble.model_files.container import COEFFICIENTS, EXPECTED, EXPORT_AGAIN, RECORD, Parts, open_parts, refused
from ensemble.model_files.expected import Expected, unpack_expected
from ensemble.model_files.made_up_rows import expected_answers
from ensemble.model_files.record import ModelRecord
from ensemble.model_files.record_reading import from_text
from ensemble.model_files.weights import unpack_weights
from folds.errors import EnsembleError
from folds.models.checkpoint import Checkpoint, checkpoint_of
from folds.models.checkpoint_fields import invalid_fields
from folds.utils.files import sha256_bytes
from folds.utils.schema import ONE_LINE, FieldType, list_of, mapping_of, optional
from folds.utils.toml import MAX_BYTES

if TYPE_CHECKING:
    import torch

_MAX_COEFFICIENTS = 640 << 20
_ANY = mapping_of(FieldType("anything", lambda value: True))
_PARTS = {
    "architecture": _ANY,
    "images": _ANY,
    "recipe": _ANY,
    "classes": list_of(ONE_LINE),
    "heads": optional(list_of(ONE_LINE)),
}


class ExportedCheckpoint(Checkpoint):
    """A fold model of an exported model."""

    @property
    def repair(self) -> str:
        """Return the hint of an error about its weights."""
        return EXPORT_AGAIN

    def build(self, path: Path | None = None) -> torch.nn.Module:
        """Return the model with its weights; see `Checkpoint.build`."""
        try:
            return super().build(path)
        except EnsembleError as error:
            raise EnsembleError(error.message, hint=EXPORT_AGAIN) from None


@dataclass(frozen=True)
class StoredModel:
    """An exported model.

    Attributes
    ----------
    path : its folder or archive.
    record : the content of ``model.toml``.
    checkpoints : file → fold model, in the order of the record.
    expected : images and the probabilities that they must get.
    """

    path: Path
    record: ModelRecord
    checkpoints: Mapping[str, Checkpoint]
    expected: Expected


def is_model(path: Path) -> bool:
    """Return whether a path is that of an exported model: a folder with ``model.toml``, or an archive."""
    return (path / RECORD).is_file() or (path.suffix == ".zip" and path.is_file())


def read_record(path: Path) -> ModelRecord:
    """Return the record of a model; its other parts are not read.

    Raises
    ------
    EnsembleError : see `read_model`.
    """
    with open_parts(path) as parts:
        return _record(parts)


def read_model(path: Path) -> StoredModel:
    """Return an exported model, a folder or a ``.zip``.

    Raises
    ------
    EnsembleError : a part is missing, was changed or is too many; a newer version wrote it; or it does more than
        describe a model.
    """
    with open_parts(path) as parts:
        record = _record(parts)
        _check_names(parts, record)
        checkpoints = {str(model["file"]): _checkpoint(parts, record, model) for model in record.models}
        for name in record.files:
            if name not in checkpoints and name != EXPECTED:
                _hashed(parts, record, name)
        expected = _expected(parts, record)
    return StoredModel(path, record, checkpoints, expected)


def read_expected(path: Path) -> Expected:
    """Return the expected probabilities of a model.

    Raises
    ------
    EnsembleError : see `read_model`.
    """
    with open_parts(path) as parts:
        return _expected(parts, _record(parts))


def _record(parts: Parts) -> ModelRecord:
    if RECORD not in parts.sizes:
        raise refused(parts.path, f"{RECORD} is missing", "ensemble export BLEND -o model/ writes a model")
    if parts.sizes[RECORD] > MAX_BYTES:
        raise refused(parts.path, f"{RECORD} has more than {MAX_BYTES:,} bytes")

    def coefficients(combination: Mapping[str, Any]) -> Mapping[str, NDArray[np.float64]]:
        path = parts.path / COEFFICIENTS
        return unpack_coefficients(
            combination, parts.path / RECORD, path, lambda: io.BytesIO(_content(parts, path.name))
        )

    return from_text(parts.read(RECORD), parts.path, coefficients)


def _content(parts: Parts, name: str) -> bytes:
    if name not in parts.sizes:
        raise refused(parts.path, f"{name} is missing")
    if parts.sizes[name] > _MAX_COEFFICIENTS:
        raise refused(parts.path, f"{name} has {parts.sizes[name]:,} bytes, at most {_MAX_COEFFICIENTS:,} are read")
    return parts.read(name)


def _check_names(parts: Parts, record: ModelRecord) -> None:
    """Raise EnsembleError unless the files are those of the record, with their sizes."""
    missing = [name for name in record.files if name not in parts.sizes]
    if missing or EXPECTED not in record.files:
        raise refused(parts.path, f"{(missing or [EXPECTED])[0]} is missing")
    more = [name for name in parts.sizes if name not in record.files and name != RECORD]
    if more:
        raise refused(
            parts.path, f"{more[0]} does not belong to it ({RECORD} does not name it)", "move it out of the model"
        )
    for name, entry in record.files.items():
        if parts.sizes[name] != entry.bytes:
            raise refused(parts.path, f"{name} was changed: it has {parts.sizes[name]:,} bytes, not {entry.bytes:,}")


def _hashed(parts: Parts, record: ModelRecord, name: str) -> bytes:
    """Return the content of a part, whose hash is that of the record."""
    content = parts.read(name)
    if sha256_bytes(content) != record.files[name].sha256:
        raise refused(parts.path, f"{name} was changed after the export: its hash is another")
    return content


def _expected(parts: Parts, record: ModelRecord) -> Expected:
    columns = sum(len(run.classes) * len(run.models) for run in record.runs)
    found = unpack_expected(
        _hashed(parts, record, EXPECTED),
        parts.path / EXPECTED,
        len(record.classes),
        columns,
        expected_answers(record.combination, record.expected["images"], record.person_head is not None),
    )
    if len(found) != record.expected["images"]:
        raise refused(parts.path, f"{EXPECTED} has {len(found)} images, expected {record.expected['images']}")
    return found


def _checkpoint(parts: Parts, record: ModelRecord, model: Mapping[str, Any]) -> Checkpoint:
    name = model["file"]
    fields = {key: model[key] for key in ("architecture", "images", "classes", "heads") if key in model}
    fields["recipe"] = model.get("recipe") or {}
    wrong = invalid_fields(fields, _PARTS)
    if wrong:
        raise refused(parts.path, f"the [[model]] of {name}: {wrong[0]}")
    try:
        weights = unpack_weights(_hashed(parts, record, name))
    except ValueError as error:
        raise refused(parts.path, f"{name}: {error}") from None
    values = {key: model[key] for key in ("run", "fold", "k", "target", "amp")} | fields
    values |= {"weights": weights, "class_attributes": record.class_attributes, "data": {}, "versions": {}}
    values |= {"training_hashes": (), "validation_hashes": (), "folds_sha": ""}
    values["selected_on_validation"] = bool(model.get("selected_on_validation"))
    try:
        found = checkpoint_of(values)
    except EnsembleError as error:
        raise refused(parts.path, f"the [[model]] of {name}: {error.message}", error.hint or EXPORT_AGAIN) from None
    return ExportedCheckpoint(**{key: getattr(found, key) for key in Checkpoint.__dataclass_fields__})
