"""Find the images to explain, and the fold models that may explain each: those that have not seen its person."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from folds.data.image_folder import is_image
from folds.data.sources import load_checkpoint_data
from folds.data.table import Dataset, SampleTable
from folds.errors import EnsembleError, UsageError
from folds.images.stacks import stack_parts
from folds.models.checkpoint import Checkpoint, available_checkpoints, hash_ids, load_checkpoint, train_again
from folds.models.head_spec import require_image_head
from folds.models.stored_weights import StoredWeights
from folds.predictions.files import LABEL
from folds.utils.files import expand_pattern, is_pattern, sha256_file

logger = logging.getLogger(__name__)

MAX_IMAGES = 1_000  # of one call: two maps of each are in memory
OUT_OF_FOLD, NEW, SEEN = "out of fold", "in no fold", "seen in training"


@dataclass(frozen=True)
class Image:
    """An image to explain.

    Attributes
    ----------
    id : its id in the table of the training, or its path.
    path : the file.
    label : its class; None if it is not known.
    attributes : attribute → value, of the class.
    """

    id: str
    path: Path
    label: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Assigned:
    """An image, the keys of the checkpoints that explain it, and whether these have seen it (`OUT_OF_FOLD`, …)."""

    image: Image
    models: tuple[int, ...]
    part: str


def load_models(target: str, fold: int | None, root: Path) -> dict[int, Checkpoint]:
    """Return fold → checkpoint of a checkpoint file, or of the folds of a run; weights are read when they are used.

    Parameters
    ----------
    fold : the only fold to load; None for all.

    Raises
    ------
    EnsembleError : there is no such checkpoint, run or fold; the hint lists what exists.
    """
    path, checkpoints = Path(target), root / "checkpoints"
    files = [path] if path.is_file() else []
    folder = path if path.is_dir() else checkpoints / target
    if not files and folder.is_dir():
        files = sorted(folder.glob("fold*.pt"), key=lambda file: (len(file.name), file.name))
    if not files:
        raise EnsembleError(f"checkpoint or run not found: {target}", hint=available_checkpoints(checkpoints))
    if fold is not None and not path.is_file():
        named = [file for file in files if file.stem == f"fold{fold}"]
        if not named:
            raise UsageError(
                f"`fold={fold}`: {folder} has no fold{fold}.pt", hint=f"it has {', '.join(file.stem for file in files)}"
            )
        files = named
    found = {}
    for file in files:
        checkpoint, sha = load_checkpoint(file), sha256_file(file)
        require_image_head(checkpoint.architecture.head, "a heat map", str(file))
        weights = StoredWeights(file.absolute(), sha, checkpoint.weights)
        found[checkpoint.fold] = replace(checkpoint, weights=weights)
    if path.is_file() and fold not in (None, *found):
        raise UsageError(f"{target} is the model of fold {next(iter(found))}, not of fold {fold}")
    first = next(iter(found.values()))
    for checkpoint in found.values():
        if (checkpoint.classes, checkpoint.folds_sha, checkpoint.images) != (
            first.classes,
            first.folds_sha,
            first.images,
        ):
            raise EnsembleError(
                f"folds {first.fold} and {checkpoint.fold} of {target} are from different trainings",
                hint=train_again(checkpoint),
            )
    return found


def open_tables(
    checkpoint: Checkpoint,
    root: Path,
    *,
    data: Path | None = None,
    test: Path | None = None,
    images: Sequence[str] | None = None,
    test_images: Sequence[str] | None = None,
) -> Dataset | None:
    """Return the tables of a training; None, with a warning, if nothing says where they are and `data` is not given."""
    try:
        return load_checkpoint_data(
            checkpoint.data,
            data,
            test=test,
            images=images,
            test_images=test_images,
            classes=checkpoint.classes if checkpoint.target == LABEL else None,
            root=root,
            run=checkpoint.run,
            folds_sha=checkpoint.folds_sha,
        )
    except EnsembleError as error:
        if data is not None:
            raise
        logger.warning(f"{error.message}: images are compared with those of the training by their names alone")
        return None


def find_images(given: Sequence[str], tables: Dataset | None) -> list[Image]:
    """Return the images that ids, files, folders and patterns name, in their order, each once.

    A file that the training knows has its id and label, however its path is written.

    Raises
    ------
    EnsembleError : there is no such id or file, or there are more than `MAX_IMAGES`.
    """
    known = [] if tables is None else [table for table in (tables.train, tables.test) if table is not None]
    by_id = [{name: row for row, name in enumerate(table.ids.tolist())} for table in known]
    by_path: list[dict[str, int]] | None = None
    found: dict[tuple[str, Path], Image] = {}
    for text in given:
        of_id = next(((table, rows[text]) for table, rows in zip(known, by_id) if text in rows), None)
        if of_id is not None:
            image = _row(*of_id)
            found.setdefault((image.id, image.path), image)
            continue
        by_path = by_path if by_path is not None else [_paths(table) for table in known]
        for path in _files(text):
            place = os.path.realpath(path)
            of_path = next(((table, rows[place]) for table, rows in zip(known, by_path) if place in rows), None)
            image = Image(path.as_posix(), path) if of_path is None else _row(*of_path)
            found.setdefault((image.id, image.path), image)
    if not found:
        raise UsageError("expected one image or more, found none", hint="name ids, files or folders")
    if len(found) > MAX_IMAGES:
        raise UsageError(
            f"expected at most {MAX_IMAGES:,} images, found {len(found):,}", hint="explain them in several calls"
        )
    return list(found.values())


def _row(table: SampleTable, row: int) -> Image:
    name = str(table.ids[row])
    if table.paths is None:
        raise EnsembleError(f"{table.source} has no images", hint="`images=FOLDER` names their folder")
    label = None if table.labels is None else str(table.labels[row])
    return Image(name, Path(table.paths[row]), label, table.class_attributes.get(label or "", {}))


def _paths(table: SampleTable) -> dict[str, int]:
    files = {row: stack_parts(path) for row, path in enumerate(table.paths or ())}
    return {os.path.realpath(parts[0]): row for row, parts in files.items() if len(parts) == 1}


def _files(text: str) -> list[Path]:
    path = Path(text)
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file() and is_image(file.name))
    if path.exists():
        return [path]
    matches = [file for file in expand_pattern(path) if file.is_file()] if is_pattern(path) else []
    if not matches:
        raise EnsembleError(
            f"no image of the training has the id '{text}', and there is no such file",
            hint="name an id of the table, a file, a folder or a pattern",
        )
    return matches


def assign(images: Sequence[Image], models: Mapping[int, Checkpoint], forced: bool) -> list[Assigned]:
    """Return which models explain each image.

    An image of the training is explained by the model in whose validation part it is, an image of no fold by all.

    Parameters
    ----------
    models : fold → checkpoint.
    forced : whether the user chose the models: then they explain all images, also those they were trained on.

    Raises
    ------
    EnsembleError : the model that has not seen an image is not there.
    """
    validation = {one: fold for fold, model in models.items() for one in model.validation_hashes}
    training = {fold: set(model.training_hashes) | set(model.pseudo_hashes) for fold, model in models.items()}
    found = []
    for image, name in zip(images, hash_ids(image.id for image in images), strict=True):
        seen = [fold for fold, names in training.items() if name in names]
        if forced:
            part = SEEN if seen else OUT_OF_FOLD if name in validation else NEW
            found.append(Assigned(image, tuple(models), part))
        elif name in validation:
            found.append(Assigned(image, (validation[name],), OUT_OF_FOLD))
        elif seen:
            first = next(iter(models.values()))
            raise EnsembleError(
                f"all models of {first.run} that are there were trained on {image.id}",
                hint=f"train the missing folds: ensemble kfold -c runs/{first.run}/config.toml --resume",
            )
        else:
            found.append(Assigned(image, tuple(models), NEW))
    trained = sum(one.part == SEEN for one in found)
    if trained:
        logger.warning(
            f"{trained:,} of {len(found):,} images were in the training of these models: such a map shows what was "
            "memorized, too"
        )
    return found
