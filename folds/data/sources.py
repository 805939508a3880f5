"""Find the data to use: those the user named, else ./data, else synthetic faces."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from folds.config.recipe import Settings
from folds.data.readers import read_data
from folds.data.table import Dataset, DataSpec

logger = logging.getLogger(__name__)

HERE = Path("data")
BUILT_IN = Path(".ensemble/people")


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


def open_data(settings: Settings, root: Path = Path()) -> LoadedData:
    """Find and read the data of `ensemble kfold`; log their path, notes and warnings.

    The built-in faces are recorded by their path relative to `root`, so the folder can be moved.
    """
    found = find_data(settings.data, root)
    built_in = found == root / BUILT_IN
    spec = spec_of(settings, found)
    data = read_data(spec)
    log_notes(data)
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


def spec_of(settings: Settings, data: Path) -> DataSpec:
    """Return the data specification of the settings, with `data` as the path."""
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
    )


def load_checkpoint_data(
    record: Mapping[str, Any],
    data: Path | None = None,
    *,
    classes: Sequence[str] | None = None,
    root: Path = Path(),
) -> Dataset:
    """Return the data that a checkpoint was trained on; log their path.

    Parameters
    ----------
    record : the fields of ``DataSpec`` in a checkpoint, with paths as text.
    data : present path of the table, if it was moved.
    classes : classes of the checkpoint; a label outside them is an error.
    root : folder of the built-in synthetic faces, which are generated if missing.
    """
    fields: dict[str, Any] = dict(record)
    fields["test"] = Path(fields["test"]) if fields.get("test") else None
    fields["data"] = data or Path(fields["data"])
    for name in ("images", "test_images"):
        fields[name] = tuple(fields[name]) if fields.get(name) else None
    declared = classes or fields.get("classes")
    fields["classes"] = tuple(declared) if declared else None
    if fields["data"] == BUILT_IN:
        draw_built_in(root)  # their seed is fixed, so they can be generated again
        fields["data"] = root / BUILT_IN
    logger.info(f"data: {fields['data']}")
    return read_data(DataSpec(**fields))
