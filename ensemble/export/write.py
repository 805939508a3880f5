"""Write an exported model: weights, expected probabilities, the model card and ``model.toml``, all or nothing."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.blending.coefficients import pack_coefficients
from ensemble.decisions.label_decision import read_decision
from ensemble.export.card import card_text
from ensemble.export.scores import Knowledge
from ensemble.model_files.container import CARD, COEFFICIENTS, EXPECTED, ONNX, RECORD, WEIGHTS
from ensemble.model_files.expected import TOLERANCE, TOLERANCE_OF_HEADS, Expected, pack_expected, synthetic_images
from ensemble.model_files.made_up_rows import expected_images
from ensemble.model_files.reading import read_record
from ensemble.model_files.record import CASCADE, DECISION, FileEntry, ModelRecord, RunEntry, plain, to_text
from ensemble.model_files.weights import pack_weights, unpack_weights
from ensemble.prediction.arrays import LoadedModels, columns_of, made_up_rows_of
from ensemble.prediction.combine import combine_members
from ensemble.prediction.source import FoldModel, PredictionSource, RunModels, head_of_people
from folds import __version__
from folds.errors import EnsembleError
from folds.images.decode import fit_colors
from folds.metrics.task_names import CLASSES, COLUMN_TASKS
from folds.models.checkpoint import Checkpoint
from folds.predictions.links import largest_difference
from folds.utils.files import cannot_write, make_folder, remove, sha256_bytes

SEED = 20_251_129
IMAGES = 3
_CANDIDATES = 24
_CLEAR_MARGIN = 1e-3  # distance from the threshold of adaptive views, where rounding could decide
# Largest difference of a fold model's probabilities: fp32 on CPUs differs in the last bits; GPUs may use TF32.


@dataclass(frozen=True)
class Bundle:
    """The content of an exported model: its record, and name → bytes of every part."""

    record: ModelRecord
    parts: Mapping[str, bytes]
    source: PredictionSource
    expected: Expected


def build_bundle(source: PredictionSource, known: Knowledge, half: bool = False) -> Bundle:
    """Return the parts of a model; its expected probabilities are computed from the weights as they are stored.

    Parameters
    ----------
    known : scores and counts of the training.
    half : whether to store fp16 weights; the largest difference of probabilities is measured.

    Raises
    ------
    EnsembleError : the models cannot predict.
    """
    before = read_record(source.folder) if source.kind == "model" and source.folder is not None else None
    half = half or (before is not None and before.precision == "fp16")  # the weights stay those of fp16
    files, entries, stored = _weights(source, half)
    expected, difference = _expected(source, stored if half else source, half)
    if before is not None:
        difference += before.half_difference or 0.0
    tolerance = TOLERANCE if head_of_people(source) is None else TOLERANCE_OF_HEADS
    record = ModelRecord(
        name=source.name,
        kind=source.kind if before is None else before.kind,
        program=f"ensemble {__version__}",
        classes=source.classes,
        target=source.target,
        combination=source.combination,
        runs=tuple(_run_entry(run, source) for run in source.runs),
        models=tuple(entries),
        class_attributes=source.class_attributes,
        ranking=tuple(name for name in source.ranking if name in source.combination.runs),
        precision="fp16" if half else "fp32",
        half_difference=difference if half else None,
        refit=source.refit,
        score=known.score,
        test_score=known.test_score,
        trained=known.trained,
        expected={"images": len(expected), "seed": SEED, "tolerance": tolerance},
        extras=_extras(source),
        task=_stated_task(source),
    )
    parts = {**files, EXPECTED: pack_expected(expected)}
    if source.combination.large_arrays():
        numbers = io.BytesIO()
        pack_coefficients(numbers, source.combination.large_arrays())
        parts[COEFFICIENTS] = numbers.getvalue()
    return Bundle(record, parts, stored, expected)


def _stated_task(source: PredictionSource) -> str:
    """Return the task as ``model.toml`` states it: if it is one of `COLUMN_TASKS`, or not that of the models."""
    of_models = {model.checkpoint.task for model in source.models}
    return source.task if source.task in COLUMN_TASKS or source.task not in of_models else ""


def _extras(source: PredictionSource) -> dict[str, Mapping[str, Any]]:
    """Return the optional tables of a source: its decision rules and its cascade."""
    extras: dict[str, Mapping[str, Any]] = {}
    if source.decision is not None:
        extras[DECISION] = source.decision.to_dict()
        read_decision(extras[DECISION], source.classes, "these rules")  # what is written can be read
    if source.cascade is not None:
        extras[CASCADE] = source.cascade.to_dict()
    return extras


def finished(bundle: Bundle, onnx: bytes | None = None, onnx_note: str = "") -> Bundle:
    """Return the bundle with its model card, the ONNX graph if there is one, and the hashes of all parts."""
    parts = dict(bundle.parts)
    if onnx is not None:
        parts[ONNX] = onnx
    if onnx_note and bundle.record.extras:
        onnx_note += " The graph gives probabilities of all models: decision rules and a cascade are not in it."
    parts[CARD] = card_text(bundle.record, onnx_note).encode()
    entries = {name: FileEntry(len(content), sha256_bytes(content)) for name, content in parts.items()}
    record = replace(bundle.record, files=entries)
    return replace(bundle, record=record, parts={**parts, RECORD: to_text(record).encode()})


def _weights(source: PredictionSource, half: bool) -> tuple[dict[str, bytes], list[dict[str, Any]], PredictionSource]:
    """Return the weight files, the fields of their [[model]] tables, and the source with the weights as stored.

    A checkpoint that several runs use is stored once.
    """
    files: dict[str, bytes] = {}
    entries: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    stored: dict[str, Checkpoint] = {}
    counts = _counts(source)
    for model in source.models:
        if model.sha in names:
            continue
        checkpoint = model.checkpoint
        name = f"{WEIGHTS}/{len(names):03d}-{checkpoint.run[:100].lstrip('.-')}.{checkpoint.part}.safetensors"
        names[model.sha] = name
        files[name] = pack_weights(checkpoint.weights, half)
        stored[model.sha] = replace(checkpoint, weights=unpack_weights(files[name])) if half else checkpoint
        entries.append({"file": name, **model_fields(checkpoint), **counts.get(model.path.name, {})})
    runs = tuple(
        replace(run, models=tuple(FoldModel(Path(names[m.sha]), m.sha, stored[m.sha]) for m in run.models))
        for run in source.runs
    )
    return files, entries, replace(source, runs=runs)


def _counts(source: PredictionSource) -> dict[str, dict[str, Any]]:
    """Return the counts of images of the fold models of an exported model, by the names of their files."""
    if source.kind != "model" or source.folder is None:
        return {}
    names = ("training_images", "validation_images")
    return {Path(one["file"]).name: {name: one[name] for name in names} for one in read_record(source.folder).models}


def model_fields(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what a fold model needs beside its weights, as plain values; people and images in counts only."""
    architecture = checkpoint.architecture.to_dict()
    recipe = {name: checkpoint.recipe.get(name) for name in ("seed", "channels_last")}
    recipe |= {} if checkpoint.task == CLASSES and not checkpoint.exclusive else {"task": checkpoint.task}
    fields = {
        "run": checkpoint.run,
        "fold": checkpoint.fold,
        "k": checkpoint.k,
        "amp": checkpoint.amp,
        "target": checkpoint.target,
        "classes": checkpoint.classes,
        "heads": checkpoint.heads,
        "architecture": architecture,
        "images": dict(checkpoint.images),
        "recipe": recipe,
        "training_images": len(checkpoint.training_hashes),
        "validation_images": len(checkpoint.validation_hashes),
        "selected_on_validation": checkpoint.selected_on_validation,
    }
    return dict(plain(fields))


def _run_entry(run: RunModels, source: PredictionSource) -> RunEntry:
    places: dict[str, int] = {}
    for model in source.models:
        places.setdefault(model.sha, len(places))
    models = tuple(places[model.sha] for model in run.models)
    hand_over = () if run.hand_over is None else tuple(run.hand_over.as_record())
    return RunEntry(run.name, run.target, run.classes, models, run.merge, run.joined, hand_over)


def _expected(source: PredictionSource, stored: PredictionSource, half: bool) -> tuple[Expected, float]:
    """Return the expected probabilities on the CPU, and the largest difference that fp16 weights make."""
    models = LoadedModels(stored, "cpu")
    images = _clear_images(models, expected_images(stored.combination, head_of_people(stored) is not None, IMAGES))
    pixels = _pixels(models, images)
    rows = made_up_rows_of(stored, len(images))
    members = models.members(pixels, rows.persons)
    combined = combine_members(stored, members, rows)
    difference = 0.0
    if half:
        full = LoadedModels(source, "cpu").members(pixels, rows.persons)
        difference = largest_difference(source.task, combine_members(source, full, rows), combined)
    return Expected(images, combined, columns_of(stored, members)), difference


def _clear_images(models: LoadedModels, count: int) -> np.ndarray:
    """Return `count` synthetic images for which rounding does not decide whether more views are used."""
    thresholds = [run.merge.threshold for run in models.source.runs if run.models]
    if all(threshold is None for threshold in thresholds):
        return synthetic_images(SEED, count)
    from ensemble.tta.merge import margins
    from folds.utils.numeric import softmax

    images = synthetic_images(SEED, _CANDIDATES)

    def distances(some: np.ndarray) -> np.ndarray:
        found = np.full(len(some), np.inf)
        for merge, logits in models.first_logits(
            _pixels(models, some), made_up_rows_of(models.source, len(some)).persons
        ):
            if merge.threshold is not None:
                found = np.minimum(found, np.abs(margins(softmax(logits)) - merge.threshold))
        return found

    if head_of_people(models.source) is not None:  # an image's margin depends on the others of its person
        windows = [images[at : at + count] for at in range(len(images) - count + 1)]
        return max(windows, key=lambda some: float(distances(some).min()))
    distance = distances(images)
    clear = np.flatnonzero(distance > _CLEAR_MARGIN)[:count]
    chosen = clear if len(clear) == count else np.sort(np.argsort(-distance, kind="stable")[:count])
    return images[chosen]


def _pixels(models: LoadedModels, images: np.ndarray) -> Any:
    from PIL import Image

    return models.decoded(range(len(images)), lambda at, one: fit_colors(Image.fromarray(images[at]), one))


def write_bundle(bundle: Bundle, path: Path, force: bool = False) -> Path:
    """Write a model as a folder, or as an archive if the name ends in ``.zip``; complete or not at all.

    Raises
    ------
    EnsembleError : `path` exists and `force` is false, is something else than a model, or cannot be written.
    """
    check_target(path, force)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    make_folder(path.parent)
    try:
        with _removed_on_error(temporary):
            (_write_zip if path.suffix == ".zip" else _write_folder)(bundle.parts, temporary)
            _replace(temporary, path, force)
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def check_target(path: Path, force: bool) -> None:
    """Raise EnsembleError if a model cannot be written to `path`; `force` replaces only what is a model."""
    if not path.name or path.name in (".", ".."):
        raise EnsembleError(f"`output={path}`: expected the name of a new folder", hint="`output=model/`")
    if not (path.exists() or path.is_symlink()):
        return
    if not force:
        raise EnsembleError(f"the model {path} exists", hint="give another name, or `force=True` to replace it")
    is_folder = path.is_dir() and not path.is_symlink()
    fits = (
        (is_folder and ((path / RECORD).is_file() or not any(path.iterdir())))
        if path.suffix != ".zip"
        else path.is_file()
    )
    if not fits:
        raise EnsembleError(
            f"{path} exists and is not a model, so it is not replaced", hint="move it away, or give another name"
        )


@contextlib.contextmanager
def _removed_on_error(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(EnsembleError, OSError):
            remove(path)
        raise


def _replace(temporary: Path, path: Path, force: bool) -> None:
    """Give the written model its name; an earlier model is moved away first and removed last."""
    if path.is_dir() and force:
        before = path.with_name(f"{temporary.name}.old")
        path.rename(before)
        try:
            temporary.rename(path)
        except OSError:
            before.rename(path)
            raise
        remove(before)
        return
    if path.suffix != ".zip" and path.exists():  # it appeared meanwhile
        check_target(path, force)
    temporary.rename(path)


def _write_folder(parts: Mapping[str, bytes], folder: Path) -> None:
    """Write the parts; ``model.toml`` last, without which a folder is no model."""
    (folder / WEIGHTS).mkdir(parents=True)
    for name in [*(name for name in parts if name != RECORD), RECORD]:
        with open(folder / name, "xb") as file:
            file.write(parts[name])
            file.flush()
            os.fsync(file.fileno())


def _write_zip(parts: Mapping[str, bytes], path: Path) -> None:
    with open(path, "xb") as file:
        with zipfile.ZipFile(file, "w") as archive:
            for name in [RECORD, *(name for name in parts if name != RECORD)]:
                entry = zipfile.ZipInfo(name)  # without a date: equal models are equal files
                entry.external_attr = 0o100644 << 16
                archive.writestr(entry, parts[name])
        file.flush()
        os.fsync(file.fileno())
