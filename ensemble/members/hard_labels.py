"""Read CSV files of hard labels by id: predictions to vote with, or true labels to score against."""

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
    """Rows of one CSV file: ids, labels and, if the file has such a column, persons; each (n,) of str."""

    path: Path
    ids: NDArray[np.str_]
    labels: NDArray[np.str_]
    persons: NDArray[np.str_] | None = None


def read_hard_labels(path: Path) -> HardLabels:
    """Return the rows of a CSV file with columns such as ``ImageID,ans`` or ``id,label``, or any two columns.

    Raises
    ------
    EnsembleError : a missing id or label column, a missing header, an empty cell, a class name with control characters,
        or a repeated id.
    """
    table = read_csv(path)
    id_column, label_column = _columns(table)
    ids, labels = table.columns[id_column], table.columns[label_column]
    if label_column in labels:
        raise EnsembleError(
            f"{path}: expected a header row, found '{id_column},{label_column}'", hint="add a first row: ImageID,ans"
        )
    for what, cells in (("id", ids), ("label", labels)):
        if "" in cells:
            raise EnsembleError(
                f"{path} row {table.numbers[cells.index('')]} has no {what}", hint="every row needs an id and a class"
            )
    # Class names are printed in tables. Ids may be paths with any characters; they are escaped when printed.
    invalid = next((name for name in dict.fromkeys(labels) if CONTROL.search(name)), None)
    if invalid is not None:
        row = table.numbers[labels.index(invalid)]
        raise EnsembleError(
            f"{path} row {row}: the class '{printable(invalid)}' has control characters", hint="rename the class"
        )
    if len(set(ids)) < len(ids):
        first: dict[str, int] = {}
        name, second = next((name, i) for i, name in enumerate(ids) if first.setdefault(name, i) != i)
        raise EnsembleError(
            f"{path}: the id '{name}' is in rows {table.numbers[first[name]]} and {table.numbers[second]}",
            hint="rows are aligned by id: each sample needs exactly one row",
        )
    person = _first(table, PERSON_COLUMNS)
    persons = (
        np.array(table.columns[person], dtype=str)
        if person is not None and person not in (id_column, label_column)
        else None
    )
    return HardLabels(Path(path), np.array(ids, dtype=str), np.array(labels, dtype=str), persons)


def is_sample_table(header: Sequence[str]) -> bool:
    """Return whether a CSV file with these columns is a table of samples or folds.

    Such a table holds true labels. As a member it would always be right.
    """
    names = {name.lower() for name in header}
    if "fold" in names:
        return True
    companions = names.intersection(PERSON_COLUMNS) or ("path" in names and names.intersection(ID_COLUMNS) - {"path"})
    return "label" in names and bool(companions)


def _columns(table: CsvTable) -> tuple[str, str]:
    names = list(table.columns)
    id_column, label_column = _first(table, ID_COLUMNS), _first(table, LABEL_COLUMNS)
    if id_column is not None and label_column is not None:
        return id_column, label_column
    if len(names) == 2:
        return names[0], names[1]
    missing = "ids" if id_column is None else "labels"
    raise EnsembleError(
        f"{table.source}: expected a column of {missing}, found {', '.join(names)}",
        hint="name the columns ImageID,ans or id,label",
    )


def _first(table: CsvTable, known: tuple[str, ...]) -> str | None:
    lowered = {name.lower(): name for name in reversed(list(table.columns))}
    return next((lowered[name] for name in known if name in lowered), None)
