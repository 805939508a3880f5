"""Where the data come from: what the user named, else ./data, else people drawn by the program."""

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
    """The data of a command: what was asked for, what was read, and whether it is the built-in people."""

    spec: DataSpec
    data: Dataset
    built_in: bool


def find_data(data: Path | None, root: Path = Path()) -> Path:
    """Return the data to use: those named, else ``data`` in the folder `root`, else people drawn there; which and why
    is logged.
    """
    if data is not None:
        logger.info(f"data: {data}")
        return data
    if (root / HERE).exists():
        logger.info(f"data: ./{root / HERE} (no --data given)")
        return root / HERE
    draw_built_in(root)
    logger.info(
        f"data: people drawn by the program, in {root / BUILT_IN} (no --data given, and there is no ./{root / HERE})"
    )
    return root / BUILT_IN


def draw_built_in(root: Path = Path()) -> None:
    """Draw the built-in people in the folder `root`, unless they are there."""
    from folds.data.synthetic.people import drawn_counts, generate_people

    # As many as are there: `ensemble demo --quick` draws fewer.
    counts: dict[str, Any] = {**drawn_counts(root / BUILT_IN)}
    generate_people(root / BUILT_IN, **counts)


def open_data(settings: Settings, root: Path = Path()) -> LoadedData:
    """Find and read the data of `ensemble kfold`; which they are, and what is noteworthy about them, is logged.

    The built-in people are recorded by their place in the folder `root`, wherever that is.
    """
    found = find_data(settings.data, root)
    built_in = found == root / BUILT_IN
    spec = spec_of(settings, found)
    data = read_data(spec)
    log_notes(data)
    return LoadedData(replace(spec, data=BUILT_IN) if built_in else spec, data, built_in)


def log_notes(data: Dataset) -> None:
    """Log what is noteworthy, and what may be wrong, about data that were read."""
    for line in data.notes:
        logger.info(line)
    for line in data.warnings:
        logger.warning(line)


def spec_of(settings: Settings, data: Path) -> DataSpec:
    """What the settings say about the data that were found."""
    return DataSpec(
        data,
        path=settings.path,
        label=settings.label,
        person=settings.person,
        id=settings.id,
        split=settings.split,
        person_regex=settings.person_regex,
        test=settings.test,
    )


def load_checkpoint_data(
    record: Mapping[str, Any],
    data: Path | None = None,
    *,
    classes: Sequence[str] | None = None,
    root: Path = Path(),
) -> Dataset:
    """Read the table that a checkpoint was trained on; where it is is logged.

    Parameters
    ----------
    record : the fields of ``DataSpec`` as a checkpoint has them, paths as text.
    data : where the table is now, if it has moved.
    classes : those the checkpoint knows; a label outside them is an error.
    root : the folder in which the built-in people are, or are drawn again.
    """
    fields: dict[str, Any] = dict(record)
    fields["test"] = Path(fields["test"]) if fields.get("test") else None
    fields["data"] = data or Path(fields["data"])
    declared = classes or fields.get("classes")
    fields["classes"] = tuple(declared) if declared else None
    if fields["data"] == BUILT_IN:
        draw_built_in(root)  # they can always be drawn again
        fields["data"] = root / BUILT_IN
    logger.info(f"data: {fields['data']}")
    return read_data(DataSpec(**fields))
