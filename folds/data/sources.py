"""Find the data to use: those the user named, else ./data, else synthetic faces."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from folds.config.command_settings import Settings
from folds.config.files import read_record
from folds.data.column_labels import are_many_fractions
from folds.data.readers import read_data
from folds.data.table import Dataset, DataSpec
from folds.errors import EnsembleError
from folds.metrics.task_names import CLASSES
from folds.predictions.file_names import RUN_CONFIG
from folds.utils.bounded import check_regular
from folds.utils.files import relocated
from folds.utils.schema import shown

logger = logging.getLogger(__name__)

HERE = Path("data")
FOUND = "columns"  # in a checkpoint: columns that were found by known names, see `Dataset.found`
BUILT_IN = Path(".ensemble/people")
_SYSTEM = {("/", name) for name in ("proc", "sys", "dev")}


@dataclass(frozen=True)
class LoadedData:
    """Data of a command: the request, the samples, and whether they are the built-in synthetic faces."""

    spec: DataSpec
    data: Dataset
    built_in: bool


def find_data(data: Path | None, root: Path = Path()) -> Path:
    """Return the path of the data: `data` if given, else ``data`` in `root`, else synthetic faces generated in `root`.

    The path and the reason are logged.
    """
    if data is not None:
        logger.info(f"data: {data}")
        return data
    if (root / HERE).exists():
        logger.info(f"data: ./{root / HERE} (no `data` given)")
        return root / HERE
    draw_built_in(root)
    logger.info(f"data: synthetic faces in {root / BUILT_IN} (no `data` given, and there is no ./{root / HERE})")
    return root / BUILT_IN


def draw_built_in(root: Path = Path()) -> None:
    """Generate the built-in synthetic faces in the folder `root`, unless they exist."""
    from folds.data.synthetic.people import drawn_counts, generate_people

    # Keep the number of people of an existing folder: `ensemble demo --quick` generates fewer.
    counts: dict[str, Any] = {**drawn_counts(root / BUILT_IN)}
    generate_people(root / BUILT_IN, **counts)


def open_data(settings: Settings, root: Path = Path(), task: str | None = None) -> LoadedData:
    """Find and read the data of `ensemble kfold`; log their path, notes and warnings.

    `task` is that of the recipe. What was decided about it is in the `spec` of the result, so that a later reading of
    these data decides the same.

    The built-in faces are recorded by their path relative to `root`, so the folder can be moved.
    """
    found = find_data(settings.data, root)
    built_in = found == root / BUILT_IN
    spec = spec_of(settings, found, task)
    data = read_data(spec)
    log_notes(data)
    spec = replace(spec, task=_decided_task(data))
    return LoadedData(replace(spec, data=BUILT_IN) if built_in else spec, data, built_in)


def log_notes(data: Dataset) -> None:
    """Log the notes and the warnings of data that were read."""
    for line in data.notes:
        logger.info(line)
    log_warnings(data)


def log_warnings(data: Dataset) -> None:
    """Log the warnings of data that were read."""
    for line in data.warnings:
        logger.warning(line)


def _decided_task(data: Dataset) -> str | None:
    """Return the task that reads these data again; None where the columns say it."""
    if data.train.has_columns:
        return data.train.task
    labels = data.train.labels
    return CLASSES if labels is not None and are_many_fractions(labels) else None


def spec_of(settings: Settings, data: Path, task: str | None = None) -> DataSpec:
    """Return the data specification of the settings, with `data` as the path and the `task` of the recipe."""
    return DataSpec(
        data,
        path=settings.path,
        label=settings.label,
        person=settings.person,
        id=settings.id,
        split=settings.split,
        person_regex=settings.person_regex,
        test=settings.test,
        images=settings.images,
        test_images=settings.test_images,
        test_labels=settings.test_labels,
        missing_persons=settings.missing_persons,
        merge_spellings=settings.merge_spellings,
        skip_unusable=settings.skip_unusable,
        max_pixels=settings.max_pixels,
        stack=settings.stack,
        task=task,
        label_of=settings.label_of,
        uncertain=settings.uncertain,
    )


def load_checkpoint_data(
    record: Mapping[str, Any],
    data: Path | None = None,
    *,
    test: Path | None = None,
    images: Sequence[str] | None = None,
    test_images: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    root: Path = Path(),
    run: str | None = None,
    folds_sha: str | None = None,
) -> Dataset:
    """Return the data that a checkpoint was trained on; log their path.

    A checkpoint does not name its table (one of version 0.1.0 does). The record of its run does, or the user.

    Parameters
    ----------
    record : the fields of ``DataSpec`` in a checkpoint, with paths as text.
    data, test : present paths of the table and of the test images, if they were moved.
    images, test_images : present folders of the images that the tables name.
    classes : classes of the checkpoint; a label outside them is an error.
    root : folder of ``runs`` and of the built-in synthetic faces, which are generated if missing.
    run, folds_sha : run of the checkpoint and hash of its folds, to find the record of the run.

    Raises
    ------
    EnsembleError : nothing says where the data are, or they are not there.
    """
    fields: dict[str, Any] = {"data": None, **{name: value for name, value in record.items() if name != FOUND}}
    if fields["data"] is None and run is not None:
        fields |= _places_in_record(root / "runs" / run / RUN_CONFIG, folds_sha)
    if data is not None and test is None and fields["data"] and fields.get("test"):
        former = Path(fields["test"])
        test = None if former.exists() else relocated(former, Path(fields["data"]), data)
    fields["data"] = data or (recorded_place(fields["data"], "data") if fields["data"] else None)
    if fields["data"] is None:
        raise EnsembleError(
            f"the table of {run or 'the checkpoint'} is not known: a checkpoint does not name it, and there is no "
            f"record of this training in {root / 'runs'}",
            hint="`data=PATH` names the table, and `test=PATH` the test images if there were any",
        )
    fields["test"] = test or (recorded_place(fields["test"], "test") if fields.get("test") else None)
    if data is not None and test is None and fields["test"] is not None and not fields["test"].exists():
        raise EnsembleError(
            f"the test images of the training are not in {fields['test']} any more", hint="`test=PATH` names them"
        )
    for name, named in (("images", images), ("test_images", test_images)):
        fields[name] = tuple(named or fields.get(name) or ()) or None
    fields["stack"] = tuple(fields.get("stack") or ()) or None
    declared = classes or fields.get("classes")
    fields["classes"] = tuple(declared) if declared else None
    # Several labels and numbers are recorded; classes are not, nor by versions that read numbers as classes only.
    fields["task"] = fields.get("task") or CLASSES
    if fields["data"] == BUILT_IN:
        draw_built_in(root)  # their seed is fixed, so they can be generated again
        fields["data"] = root / BUILT_IN
    moved = "" if fields["test"] is None else f"; test: {fields['test']}"
    logger.info(f"data: {fields['data']}{moved}")
    return read_data(DataSpec(**fields))


def _places_in_record(path: Path, folds_sha: str | None) -> dict[str, Any]:
    """Return the places of the data in the record of a run; {} if there is none, or it is of another training."""
    if not path.is_file():
        return {}
    record = read_record(path)
    resolved = record.get("resolved")
    known = resolved.get("folds_sha") if isinstance(resolved, Mapping) else None
    if folds_sha is not None and known != folds_sha:
        return {}
    places: dict[str, Any] = {name: record[name] for name in ("data", "test") if isinstance(record.get(name), str)}
    for name in ("images", "test_images"):
        value = record.get(name)
        listed = [value] if isinstance(value, str) else value
        if isinstance(listed, list) and all(isinstance(one, str) for one in listed):
            places[name] = listed
    return places


def recorded_place(text: str, name: str) -> Path:
    """Return a path that a file names, checked as far as a stranger could have written it.

    Raises
    ------
    EnsembleError : a pipe or a device (reading it could wait for ever), or a folder of the system.
    """
    path = Path(text)
    try:
        there = os.path.realpath(path)
        check_regular(path)
    except FileNotFoundError:
        return path  # reported by the reader, with similar names
    except (OSError, ValueError) as error:
        reason = str(error.strerror if isinstance(error, OSError) else error).lower()
        raise EnsembleError(
            f"`{name}={shown(text)}` of the training cannot be read: {reason}", hint=f"`{name}=PATH` names it"
        ) from None
    if Path(there).parts[:2] in _SYSTEM or len(Path(there).parts) == 1:
        raise EnsembleError(
            f"`{name}={shown(text)}` of the training is a folder of the system, not data",
            hint=f"`{name}=PATH` names it",
        )
    return path
