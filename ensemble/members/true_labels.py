"""Read tables of true labels by id, to score against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ensemble.members.columns import (
    ColumnNames,
    check_class_names,
    check_ids,
    is_fractional,
    listed,
    numbers,
    persons_of,
    stacked,
)
from folds.errors import EnsembleError
from folds.predictions.columns import ColumnRoles, find_columns
from folds.utils.csv_table import CsvTable
from folds.utils.spelling import spelling_text, spellings
from folds.utils.tables import read_table_file

# Marks of a missing class; other placeholders ("none", "unknown", "-1") are the names of real classes in some data.
_MISSING_LABELS = frozenset({"nan", "<na>", "#n/a", "#na", "n/a", "null", "nat"})


@dataclass(frozen=True)
class TrueLabels:
    """The true labels of one table.

    Attributes
    ----------
    ids, labels : (n,) of str.
    persons : (n,) of str if the table has such a column.
    columns : the columns of the table.
    summary : which columns were read, for the reader.
    warnings : doubts about the table.
    named : the labels or numbers that the texts of `labels` name, for a task with a column for each; () for classes.
    """

    path: Path
    ids: NDArray[np.str_]
    labels: NDArray[np.str_]
    persons: NDArray[np.str_] | None = None
    columns: tuple[str, ...] = ()
    summary: str = ""
    warnings: tuple[str, ...] = field(default=(), compare=False)
    named: tuple[str, ...] = ()


def read_true_labels(path: Path, names: ColumnNames | None = None) -> TrueLabels:
    """Return the true labels in a table with columns such as ``id,label``, any two columns, or an id and a column of 0
    and 1 for each class.

    Parameters
    ----------
    names : columns that the user named.

    Raises
    ------
    EnsembleError : no id or label column, a missing header, an empty cell, a class name with control characters, labels
        that are no classes, or a repeated id.
    """
    table = read_table_file(path)
    columns = list(table.columns)
    given = (names or ColumnNames()).given(columns)
    roles = find_columns(columns, str(path), ("id", "path", "label", "prediction", "person", "fold", "split"), given)
    id_column, label_column = _id_of(table, roles), roles.get("label")
    one_hot: tuple[str, ...] = ()
    if label_column is None and "label" not in roles.ambiguous:
        one_hot = _one_hot(table, [name for name in columns if name not in (id_column, *roles.names.values())])
        label_column = roles.get("prediction") if not one_hot else None
    if label_column is None and not one_hot and len(columns) == 2:
        id_column, label_column = columns
    if id_column is None or (label_column is None and not one_hot):
        if id_column is not None and "label" in roles.ambiguous:
            roles.require("label")
        raise _no_column(table, "ids" if id_column is None else "labels")
    ids = table.columns[id_column]
    check_ids(table, ids)
    if one_hot:
        codes = stacked([numbers(table.columns[name]) for name in one_hot], len(table)).argmax(axis=1)
        labels = np.array(one_hot, dtype=str)[codes]
    else:
        assert label_column is not None  # noqa: S101
        check_class_names(table, label_column)
        _check_no_probabilities(table, label_column)
        labels = np.array(table.columns[label_column], dtype=str)
    person = roles.get("person")
    persons, warnings = (None, []) if person is None else persons_of(str(path), table.columns[person], ids)
    used = {"id": id_column, "label": label_column or f"one column of 0 and 1 per class ({listed(one_hot)})"}
    used |= {} if person is None else {"person": person}
    warnings += _doubts(str(path), labels)
    summary = _text(table, used, roles, one_hot)
    return TrueLabels(Path(path), np.array(ids, dtype=str), labels, persons, tuple(columns), summary, tuple(warnings))


def is_sample_table(header: Sequence[str]) -> bool:
    """Return whether a table with these columns lists samples or folds and no predictions.

    Such a table holds true labels. As a member it would always be right.
    """
    roles = find_columns(header, "", ("prediction", "id", "path", "fold", "person", "label", "split"))
    if roles.get("prediction") is not None or roles.unused or roles.ambiguous:
        return False
    companions = roles.get("person") is not None or (roles.get("id") is not None and roles.get("path") is not None)
    return roles.get("fold") is not None or (roles.get("label") is not None and companions)


def _id_of(table: CsvTable, roles: ColumnRoles) -> str | None:
    if roles.get("id") is None and "id" in roles.ambiguous and len(table.columns) > 2:
        return roles.require("id")
    return roles.get("id") or roles.get("path")


def _one_hot(table: CsvTable, names: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of 0 and 1 with exactly one 1 in each row; () if the table has no such columns."""
    found = [(name, values) for name in names if (values := numbers(table.columns[name])) is not None]
    binary = [(name, values) for name, values in found if np.isin(values, (0, 1)).all()]
    if len(binary) < 2 or (np.stack([values for _, values in binary]).sum(axis=0) != 1).any():
        return ()
    return tuple(name for name, _ in binary)


def _check_no_probabilities(table: CsvTable, column: str) -> None:
    distinct = list(dict.fromkeys(table.columns[column]))
    values = numbers(distinct)
    if values is not None and is_fractional(values):
        raise EnsembleError(
            f"{table.source}: the column {column} holds {len(distinct):,} different numbers from "
            f"{np.nanmin(values):g} to {np.nanmax(values):g}, expected classes",
            hint="name the column of the true classes with `label=COLUMN`",
        )


def _doubts(source: str, labels: NDArray[np.str_]) -> list[str]:
    distinct = sorted(set(labels.tolist()))
    found = []
    missing = [name for name in distinct if name.lower() in _MISSING_LABELS]
    if missing:
        count = int((labels == missing[0]).sum())
        found.append(
            f"{source}: {count:,} rows have the label '{missing[0]}', which usually marks a missing "
            "value and counts as a class here"
        )
    same = spellings(distinct)
    if same:
        found.append(
            f"{source}: the classes {spelling_text(same[0])} are probably one class written in several ways, and count "
            "as different classes"
        )
    return found


def _text(table: CsvTable, used: dict[str, str], roles: ColumnRoles, one_hot: Sequence[str]) -> str:
    taken = {*used.values(), *one_hot}
    unused = tuple(name for name in table.columns if name not in taken)
    ambiguous = {role: found for role, found in roles.ambiguous.items() if role == "person"}
    unused = tuple(name for name in unused if not any(name in found for found in ambiguous.values()))
    return ColumnRoles(table.source, used, frozenset(), ambiguous, unused).text()


def _no_column(table: CsvTable, missing: str) -> EnsembleError:
    name = "id" if missing == "ids" else "label"
    return EnsembleError(
        f"{table.source}: expected a column of {missing}, found {', '.join(list(table.columns)[:20])}",
        hint=f"name the column with `{name}=COLUMN`; names such as ImageID,ans or id,label are known",
    )
