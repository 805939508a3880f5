"""Read tables of several labels or of numbers: predictions with a column for each, and true values by id.

Used where `task` is ``multilabel`` or ``regression``; tables of classes are read in `ensemble.members.tables`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ensemble.members.columns import ColumnNames, check_ids, listed, numbers, persons_of, stacked
from ensemble.members.tables import PREFIXES, PredictionTable
from ensemble.members.true_labels import TrueLabels
from folds.errors import CONTROL, EnsembleError, UsageError, no_column, printable
from folds.metrics.task_names import LARGEST_NUMBER, MULTILABEL, REGRESSION
from folds.predictions.columns import ColumnRoles, find_columns
from folds.predictions.label_columns import (
    NOTHING,
    NOTHING_CELLS,
    SEPARATOR,
    UNKNOWN,
    UNKNOWN_CELLS,
    check_column_names,
    encode_labels,
    known_and_unknown,
    label_texts,
    separator_of,
)
from folds.predictions.uncertain import HINT, UNCERTAIN_CELLS, decided_cells, uncertain_text
from folds.utils.csv_table import CsvTable
from folds.utils.tables import read_table_file

_ROLES = ("id", "path", "person", "fold", "split")
_UNKNOWN = UNKNOWN_CELLS | {"none", "?"}  # of a cell that holds one value
_WORDS = {"true": "1", "yes": "1", "false": "0", "no": "0"}


class _Columns:
    """A table with the roles of its columns; the others may be labels or numbers."""

    def __init__(self, path: Path, names: ColumnNames, uncertain: str | None = None) -> None:
        self.table: CsvTable = read_table_file(path)
        self.uncertain = uncertain
        self.names = list(self.table.columns)
        given = {role: name for role, name in names.given(self.names).items() if role in ("id", "person", "fold")}
        self.roles = find_columns(self.names, self.table.source, _ROLES, given)
        self.id = self.roles.get("id") or self.roles.get("path")
        if self.id is None:
            if "id" in self.roles.ambiguous:
                self.id = self.roles.require("id")
            raise EnsembleError(
                f"{self.table.source}: expected a column of ids, found {', '.join(self.names[:20])}",
                hint="name it with `id=COLUMN`",
            )
        taken = {self.id, *(self.roles.get(role) for role in _ROLES)}
        self.free = [name for name in self.names if name not in taken]

    def cells(self, name: str) -> Sequence[str]:
        """Return the cells of labels or numbers in a column, those of uncertain labels as what they are read as."""
        cells = self.table.columns[name]
        return cells if self.uncertain is None else decided_cells(cells, self.uncertain)[0]

    def ids(self) -> list[str]:
        """Return the ids; raise EnsembleError if one is empty or repeated."""
        assert self.id is not None  # noqa: S101 - set above
        check_ids(self.table, self.table.columns[self.id])
        return list(self.table.columns[self.id])

    def persons(self, ids: Sequence[str]) -> tuple[NDArray[np.str_] | None, list[str]]:
        """Return (n,) the person of each row and warnings; None without such a column."""
        column = self.roles.get("person")
        return (None, []) if column is None else persons_of(self.table.source, self.table.columns[column], ids)

    def summary(self, what: str, columns: Sequence[str]) -> str:
        """Return which columns were read, for the reader, without the name of the file."""
        used = {"id": self.id or "", what: listed(columns)}
        for role in ("person", "fold"):
            if (name := self.roles.get(role)) is not None:
                used[role] = name
        taken = {*used.values(), *columns}
        unused = tuple(name for name in self.names if name not in taken)
        return ColumnRoles("", used, frozenset(), {}, unused).text().removeprefix(": ")


def read_column_table(path: Path, names: ColumnNames, task: str) -> PredictionTable:
    """Return the predictions in a table with an id and a column for each label or number.

    The columns are those of `names.probabilities` if the user named them, else all columns of numbers that have no
    other role; a prefix that all of them have (``prob_``) is left out.

    Raises
    ------
    EnsembleError : no column of ids or of numbers, or a cell that is no finite number.
    """
    found = _Columns(path, names)
    asked = names.probabilities or ((names.prediction,) if names.prediction is not None else ())
    present = [name for name in asked if name in found.names]
    missing = next((name for name in asked if name not in found.names), None)
    if present and missing is not None:
        raise EnsembleError(no_column(found.table.source, missing, found.names))
    chosen = present or [name for name in found.free if numbers(found.table.columns[name]) is not None]
    if not chosen:
        what = "probability of each label" if task == MULTILABEL else "number"
        raise EnsembleError(
            f"{found.table.source}: expected a column with the {what}, found {', '.join(found.names[:20])}",
            hint="name the columns with `probabilities=A,B,C`",
        )
    values = stacked([numbers(found.table.columns[name]) for name in chosen], len(found.table))
    _check_finite(found.table, chosen, values)
    ids = found.ids()
    persons, warnings = found.persons(ids)
    fold = None
    column = found.roles.get("fold")
    if column is not None:
        cells = numbers(found.table.columns[column])
        if cells is None or not (np.isnan(cells) | ((cells >= -1) & (cells == np.round(cells)))).all():
            raise EnsembleError(
                f"{found.table.source}: the column {column} must hold the fold of each row, a whole number",
                hint="rename the column if it is something else",
            )
        fold = np.nan_to_num(cells, nan=-1).astype(np.int64)
    prefix = next((one for one in PREFIXES if all(_starts(name, one) for name in chosen)), "") if chosen[1:] else ""
    classes = tuple(name[len(prefix) :] for name in chosen)
    check_column_names(classes, task)
    what = "probabilities of the labels" if task == MULTILABEL else "numbers"
    return PredictionTable(
        np.array(ids, dtype=str), values, classes, prefix, "", None, None, persons, fold, tuple(found.names),
        found.summary(what, chosen), tuple(warnings),
    )  # fmt: skip


def _starts(name: str, prefix: str) -> bool:
    return name.lower().startswith(prefix) and len(name) > len(prefix)


def _check_finite(table: CsvTable, columns: Sequence[str], values: NDArray[np.float64]) -> None:
    wrong = np.argwhere(~(np.abs(values) <= LARGEST_NUMBER))
    if len(wrong):
        row, at = (int(place) for place in wrong[0])
        cell, large = printable(table.columns[columns[at]][row]), bool(np.isfinite(values[row, at]))
        expected = f"a number of at most {LARGEST_NUMBER:g}" if large else "a finite number"
        raise EnsembleError(
            f"{table.source} row {table.numbers[row]}: column {columns[at]} holds '{cell}', expected {expected}",
            hint="give the numbers in a larger unit" if large else "remove the rows of samples that have no prediction",
        )


def read_true_columns(
    path: Path,
    names: ColumnNames,
    task: str,
    known: Sequence[str] = (),
    count: int = 0,
    uncertain: str | None = None,
) -> TrueLabels:
    """Return the true labels or numbers in a table, as texts of `folds.predictions.label_columns`.

    Parameters
    ----------
    names : columns that the user named; `label` may name several, joined by commas, or one column of texts.
    known : the names of the columns that members have; the table's columns with these names are taken.
    count : the number of columns that members have; 0 if unknown.
    uncertain : what labels of -1 are read as, one of `folds.metrics.task_names.UNCERTAIN`; None: they are an error.

    Raises
    ------
    EnsembleError : no column of ids or of true values, or a cell that is none.
    """
    found = _Columns(path, names, uncertain)
    chosen = _true_columns(found, names.label, task, known, count)
    ids = found.ids()
    persons, warnings = found.persons(ids)
    texts: NDArray[np.str_]
    if task == MULTILABEL and len(chosen) == 1 and _are_texts(found.cells(chosen[0])):
        if uncertain is not None:
            raise UsageError(
                f"`uncertain={uncertain}` says what -1 means in columns of labels, found names in the column "
                f"'{chosen[0]}' of {found.table.source}",
                hint="leave it out",
            )
        texts, columns = _of_texts(found.table, chosen[0], known)
    else:
        columns = tuple(known) if len(chosen) == len(known) == 1 else tuple(chosen)
        check_column_names(columns, task)
        values = np.stack([_known_cells(found, name, task) for name in chosen], axis=1)
        texts = label_texts(values, columns, task)
    summary = f"{found.table.source}: " + found.summary("labels" if task == MULTILABEL else "true numbers", chosen)
    if uncertain is not None:
        counts = {name: decided_cells(found.table.columns[name], uncertain)[1] for name in chosen}
        summary += "".join(f"; {text}" for text in [uncertain_text(uncertain, counts)] if text)
    return TrueLabels(
        Path(path), np.array(ids, dtype=str), texts, persons, tuple(found.names), summary, tuple(warnings), columns
    )


def _true_columns(found: _Columns, label: str | None, task: str, known: Sequence[str], count: int) -> list[str]:
    """Return the columns of true values: those the user named, those of the members, or all that can be."""
    if label is not None:
        asked = [label] if label in found.names else [name.strip() for name in label.split(",")]
        missing = next((name for name in asked if name not in found.names), None)
        if missing is not None:
            raise UsageError(f"`label={label}`: {no_column(found.table.source, missing, found.names)}")
        return asked
    same = [name for name in known if name in found.names]
    if known and len(same) == len(known):
        return same
    one = find_columns(found.free, found.table.source, ("label",)).get("label")
    if one is not None:
        return [one]
    if not same:
        fitting = [name for name in found.free if _can_be(found.cells(name), task)]
        if fitting and (count or len(known)) in (0, len(fitting)):
            return fitting
    missing = next((name for name in known if name not in found.names), "")
    raise EnsembleError(
        f"{found.table.source}: expected a column for each {'label' if task == MULTILABEL else 'number'}"
        + (f" ({listed(known)}; '{missing}' is missing)" if known else "")
        + f", found {', '.join(found.names[:20])}",
        hint="name them with `label=A,B,C`",
    )


def _cleaned(cells: Sequence[str], task: str) -> list[str]:
    """Return cells as numbers in text, "" where a cell is empty or says that it is not known."""
    texts = [cell.strip() for cell in cells]
    texts = ["" if text.lower() in _UNKNOWN else text for text in texts]
    return [_WORDS.get(text.lower(), text) for text in texts] if task == MULTILABEL else texts


def _can_be(cells: Sequence[str], task: str) -> bool:
    values = numbers(_cleaned(cells, task))
    return values is not None and (task == REGRESSION or bool((np.isnan(values) | np.isin(values, (0, 1))).all()))


def _known_cells(found: _Columns, name: str, task: str) -> NDArray[np.float64]:
    """Return (n,) the values of a column, nan where a cell is empty or says that it is not known."""
    table, cells = found.table, _cleaned(found.cells(name), task)
    values = numbers(cells)
    if values is None:  # which cell it is
        values = np.array([np.inf if numbers([cell]) is None else float(cell or "nan") for cell in cells])
    wrong = (np.abs(values) > LARGEST_NUMBER) | ((task == MULTILABEL) & ~np.isnan(values) & ~np.isin(values, (0, 1)))
    if wrong.any():
        row = int(np.argmax(wrong))
        number = "a finite number" if np.isinf(values[row]) else f"a number of at most {LARGEST_NUMBER:g}"
        expected = "0, 1 or an empty cell" if task == MULTILABEL else f"{number} or an empty cell"
        raise EnsembleError(
            f"{table.source} row {table.numbers[row]}: column {name} holds '{printable(table.columns[name][row])}', "
            f"expected {expected}",
            hint=HINT if task == MULTILABEL and cells[row] in UNCERTAIN_CELLS else None,
        )
    return values


def _are_texts(cells: Sequence[str]) -> bool:
    return numbers(_cleaned(cells, MULTILABEL)) is None


def _of_texts(table: CsvTable, column: str, known: Sequence[str]) -> tuple[NDArray[np.str_], tuple[str, ...]]:
    """Return (n,) the labels of a column of texts such as ``hat;glasses``, and the names of all labels."""
    cells = [cell.strip() for cell in table.columns[column]]
    named = [cell for cell in cells if cell.lower() not in UNKNOWN_CELLS | NOTHING_CELLS]
    mark = separator_of(named, known)
    parts = {cell: [cell] if mark is None or cell in known else cell.split(mark) for cell in named}
    parts = {cell: [part.strip() for part in own if part.strip()] for cell, own in parts.items()}
    names = tuple(known) or tuple(sorted({part.removeprefix(UNKNOWN) for own in parts.values() for part in own}))
    for row, cell in enumerate(cells):
        both = known_and_unknown(parts.get(cell, ()))
        if both is not None:
            raise EnsembleError(
                f"{table.source} row {table.numbers[row]}: the cell '{printable(cell)}' names {printable(both)}, and "
                "also says that it is not known",
                hint=f"write {printable(both)} where an image has it, ?{printable(both)} where that is not known",
            )
        if CONTROL.search(cell):
            raise EnsembleError(
                f"{table.source} row {table.numbers[row]}: the label '{printable(cell)}' has control characters"
            )
    check_column_names(names, MULTILABEL)
    none = dict.fromkeys(NOTHING_CELLS, NOTHING) | dict.fromkeys(UNKNOWN_CELLS, "")
    whole = [SEPARATOR.join(parts[cell]) if cell in parts else none[cell.lower()] for cell in cells]
    texts = np.array(whole, dtype=str)
    return label_texts(encode_labels(texts, names, MULTILABEL), names, MULTILABEL), names
