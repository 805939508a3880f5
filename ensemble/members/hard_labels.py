"""CSVs of hard labels, by id: answers to vote with, and true labels to score against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from folds.errors import CONTROL, EnsembleError, printable
from folds.utils.csv_table import CsvTable, read_csv

ID_COLUMNS = ("imageid", "id", "image_id", "image", "filename", "file", "path")
LABEL_COLUMNS = ("ans", "label", "class", "prediction", "answer", "target")
PERSON_COLUMNS = ("person", "group", "patient")


@dataclass(frozen=True)
class HardLabels:
    """The rows of one CSV: ids, labels and, where there is such a column, persons, each (n,) of str."""

    path: Path
    ids: NDArray[np.str_]
    labels: NDArray[np.str_]
    persons: NDArray[np.str_] | None = None


def read_hard_labels(path: Path) -> HardLabels:
    """Read ``ImageID,ans``, ``id,label`` or the like; two columns may have any names.

    Raises
    ------
    EnsembleError : no column of ids or of labels, no header, an empty cell, a class with control characters, an id that stands twice.
    """
    table = read_csv(path)
    id_column, label_column = _columns(table)
    ids, labels = table.columns[id_column], table.columns[label_column]
    if label_column in labels:
        raise EnsembleError(
            f"{path} has no header: its first row is '{id_column},{label_column}'", hint="add a first row: ImageID,ans"
        )
    for what, cells in (("id", ids), ("label", labels)):
        if "" in cells:
            raise EnsembleError(
                f"{path} row {table.numbers[cells.index('')]} has no {what}", hint="every row needs an id and a class"
            )
    # Names of classes are printed in tables. Ids may be paths of any characters, and are escaped where one is printed.
    strange = next((name for name in dict.fromkeys(labels) if CONTROL.search(name)), None)
    if strange is not None:
        row = table.numbers[labels.index(strange)]
        raise EnsembleError(
            f"{path} row {row}: the class '{printable(strange)}' has control characters", hint="rename it"
        )
    if len(set(ids)) < len(ids):
        first: dict[str, int] = {}
        name, again = next((name, i) for i, name in enumerate(ids) if first.setdefault(name, i) != i)
        raise EnsembleError(
            f"{path}: the id '{name}' stands in rows {table.numbers[first[name]]} and {table.numbers[again]}",
            hint="rows are lined up by id: each sample needs one row",
        )
    person = _first(table, PERSON_COLUMNS)
    persons = (
        np.array(table.columns[person], dtype=str)
        if person is not None and person not in (id_column, label_column)
        else None
    )
    return HardLabels(Path(path), np.array(ids, dtype=str), np.array(labels, dtype=str), persons)


def lists_samples(header: Sequence[str]) -> bool:
    """Whether a CSV of these columns is a table of samples or folds: with the truth for an answer, it would win every vote."""
    names = {name.lower() for name in header}
    if "fold" in names:
        return True
    beside = names.intersection(PERSON_COLUMNS) or ("path" in names and names.intersection(ID_COLUMNS) - {"path"})
    return "label" in names and bool(beside)


def _columns(table: CsvTable) -> tuple[str, str]:
    names = list(table.columns)
    id_column, label_column = _first(table, ID_COLUMNS), _first(table, LABEL_COLUMNS)
    if id_column is not None and label_column is not None:
        return id_column, label_column
    if len(names) == 2:
        return names[0], names[1]
    missing = "ids" if id_column is None else "labels"
    raise EnsembleError(
        f"{table.source}: expected two columns (id, label), found {len(names)} and none that is known to hold {missing}: {', '.join(names)}",
        hint="name the columns ImageID,ans or id,label",
    )


def _first(table: CsvTable, known: tuple[str, ...]) -> str | None:
    lowered = {name.lower(): name for name in reversed(list(table.columns))}
    return next((lowered[name] for name in known if name in lowered), None)
