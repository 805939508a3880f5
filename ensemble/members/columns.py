"""The columns of tables that a user names, and what the columns of members and labels have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from folds.errors import CONTROL, EnsembleError, UsageError, no_column, printable
from folds.utils.csv_table import CsvTable
from folds.utils.spelling import PLACEHOLDERS, is_placeholder, spelling_text, spellings

_NAMED_AT_MOST = 6
# Spellings of persons are compared only up to this number of distinct names, which takes a tenth of a second.
_COMPARED_PERSONS = 50_000


@dataclass(frozen=True)
class ColumnNames:
    """The columns that the user named; they apply to every table (members and labels) that has them.

    Attributes
    ----------
    id, label, person, fold, prediction : one column each.
    probabilities : the columns of probabilities, one for each class, or one column: that of the positive class.
    """

    id: str | None = None
    label: str | None = None
    person: str | None = None
    fold: str | None = None
    prediction: str | None = None
    probabilities: tuple[str, ...] = ()

    def given(self, columns: Sequence[str]) -> dict[str, str | None]:
        """Return role → column for the named columns that a table has."""
        named = {name: getattr(self, name) for name in ("id", "label", "person", "fold", "prediction")}
        return {role: column for role, column in named.items() if column is not None and column in columns}

    def check_used(self, tables: Mapping[Path, Sequence[str]]) -> None:
        """Raise UsageError if no table has a named column.

        Parameters
        ----------
        tables : file → its columns, for all tables that were read.
        """
        if not tables:
            return  # nothing to apply to, as when the columns come from the environment
        known = list(dict.fromkeys(column for columns in tables.values() for column in columns))
        named = {name: getattr(self, name) for name in ("id", "label", "person", "fold", "prediction")}
        if self.label is not None and self.label not in known and {*self.label.split(",")} <= set(known):
            del named["label"]  # the columns of several labels
        asked = [(role, column) for role, column in named.items() if column is not None]
        for role, column in [*asked, *(("probabilities", column) for column in self.probabilities)]:
            if column not in known:
                raise UsageError(
                    f"`{role}={column}`: {no_column('no table', column, known)}",
                    hint=f"the columns are {', '.join(known[:20])}",
                )

    def record(self) -> dict[str, object]:
        """Return the named columns as plain values, for the identity of a blend."""
        return {name: value for name, value in vars(self).items() if value}


def numbers(cells: Sequence[str]) -> NDArray[np.float64] | None:
    """Return cells as numbers, NaN for an empty cell; None if a cell is another text. A decimal comma is understood."""
    filled = ["nan" if cell == "" else cell for cell in cells] if "" in cells else list(cells)
    try:
        return np.array(filled, dtype=np.float64)
    except ValueError:
        pass
    try:
        # "1,5" of a table separated by semicolons; a dot as well would be a separator of thousands
        changed = [cell.replace(",", ".") for cell in filled]
        return np.array(changed, dtype=np.float64) if not any("." in cell for cell in filled) else None
    except ValueError:
        return None


def stacked(columns: Sequence[NDArray[np.float64] | None], rows: int) -> NDArray[np.float64]:
    """Return (n, columns) the numbers of columns; NaN for None, a column that holds other text."""
    return np.stack([np.full(rows, np.nan) if values is None else values for values in columns], axis=1)


def check_ids(table: CsvTable, ids: Sequence[str]) -> None:
    """Raise EnsembleError if an id is empty or repeated."""
    check_filled(table, ids, "id")
    if len(set(ids)) < len(ids):
        first: dict[str, int] = {}
        name, second = next((name, i) for i, name in enumerate(ids) if first.setdefault(name, i) != i)
        raise EnsembleError(
            f"{table.source}: the id '{name}' is in rows {table.numbers[first[name]]} and {table.numbers[second]}",
            hint="rows are aligned by id: each sample needs exactly one row",
        )


def check_filled(table: CsvTable, cells: Sequence[str], what: str) -> None:
    """Raise EnsembleError if a cell is empty."""
    if "" in cells:
        raise EnsembleError(
            f"{table.source} row {table.numbers[cells.index('')]} has no {what}",
            hint="every row needs an id and a class",
        )


def check_class_names(table: CsvTable, column: str) -> None:
    """Raise EnsembleError if a class in a column is empty, has control characters, or is a number like 0.31.

    Class names are printed in tables. Ids may be paths with any characters; they are escaped when printed.
    """
    cells = table.columns[column]
    check_filled(table, cells, "label")
    distinct = list(dict.fromkeys(cells))
    invalid = next((name for name in distinct if CONTROL.search(name)), None)
    if invalid is not None:
        row = table.numbers[cells.index(invalid)]
        raise EnsembleError(
            f"{table.source} row {row}: the class '{printable(invalid)}' has control characters",
            hint="rename the class",
        )
    if column in distinct:
        raise EnsembleError(
            f"{table.source}: expected a header row, found '{','.join(list(table.columns)[:4])}'",
            hint="add a first row: ImageID,ans",
        )


def is_fractional(values: NDArray[np.float64] | None) -> bool:
    """Return whether a column holds a number that is not whole: then it holds no classes."""
    if values is None:
        return False
    known = values[np.isfinite(values)]
    return bool((known != np.round(known)).any())


def listed(names: Sequence[str]) -> str:
    """Return names as text, at most `_NAMED_AT_MOST` of them."""
    more = f" and {len(names) - _NAMED_AT_MOST:,} more" if len(names) > _NAMED_AT_MOST else ""
    return ", ".join(names[:_NAMED_AT_MOST]) + more


def persons_of(source: str, cells: Sequence[str], ids: Sequence[str]) -> tuple[NDArray[np.str_], list[str]]:
    """Return the person of each row, and warnings. A row without a person (empty, ``nan``, ``unknown``, ``-1``) is its
    own person.
    """
    distinct = set(cells)
    lowered = {name.lower() for name in distinct}
    missing = {name for name in distinct if is_placeholder(name)} if lowered & PLACEHOLDERS else set()
    warnings = []
    if missing:
        count = sum(cell in missing for cell in cells)
        marks = ", ".join(sorted(name or "empty" for name in missing))
        warnings.append(
            f"{source}: {count:,} of {len(cells):,} rows have no person ({marks}): each of them counts as a person of "
            "its own, and the 95% CI is too narrow if some belong together"
        )
        taken = distinct - missing
        names = [f"without person: {name}" for name in ids]
        while taken & set(names):
            names = [f"_{name}" for name in names]
        cells = [name if cell in missing else cell for cell, name in zip(cells, names, strict=True)]
    # Names of letters and digits without leading zeros have one spelling: most tables need no closer look.
    text = "\n".join(["", *distinct])
    plain = len(lowered) == len(distinct) and text.isascii() and "\n0" not in text and not {" ", ".", "+"} & set(text)
    same = [] if plain or len(distinct) > _COMPARED_PERSONS else spellings(distinct)
    if same:
        warnings.append(
            f"{source}: {len(same):,} people are written in several ways, e.g. {spelling_text(same[0])}; they count as "
            "different people"
        )
    return np.array(cells, dtype=str), warnings
