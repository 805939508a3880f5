"""Read labels from one-hot columns: a column for each class, with 1 in the column of the row's class, else 0."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from folds.errors import combine_errors
from folds.utils.csv_table import CsvTable

_ONE = frozenset({"1", "1.0", "1.", "True", "TRUE", "true"})
_ZERO = frozenset({"0", "0.0", "0.", "False", "FALSE", "false"})


def binary_columns(table: CsvTable, skipped: Collection[str]) -> tuple[str, ...]:
    """Return the columns that hold only 0 and 1 (or False and True), without those in `skipped`."""
    return tuple(
        name
        for name, cells in table.columns.items()
        if name not in skipped and (_ONE | _ZERO).issuperset(cells) and len(set(cells)) > 1
    )


def count_ones(table: CsvTable, columns: Sequence[str]) -> list[int]:
    """Return how many of these columns hold 1, for each row."""
    return [sum(row) for row in zip(*([cell in _ONE for cell in table.columns[name]] for name in columns), strict=True)]


def one_hot_columns(table: CsvTable, skipped: Collection[str]) -> tuple[str, ...]:
    """Return the columns of 0 and 1 if there are at least two and every row has exactly one 1; else ()."""
    found = binary_columns(table, skipped)
    return found if len(found) > 1 and set(count_ones(table, found)) == {1} else ()


def read_one_hot(table: CsvTable, columns: Sequence[str]) -> list[str]:
    """Return the label of each row: the name of its column with 1.

    Raises
    ------
    EnsembleError : a cell is neither 0 nor 1, or a row has not exactly one 1.
    """
    locations = table.location()
    cells = [table.column(name, "`label`") for name in columns]
    lines = [
        f"{locations[i]}: {name} is '{cell}'"
        for name, column in zip(columns, cells, strict=True)
        for i, cell in enumerate(column)
        if cell not in _ONE | _ZERO
    ]
    if lines:
        raise combine_errors(lines, f"cells of the one-hot columns of {table.source} are not 0 or 1")
    ones = count_ones(table, columns)
    lines = [f"{locations[i]}: {count} of {len(columns)} columns are 1" for i, count in enumerate(ones) if count != 1]
    if lines:
        raise combine_errors(
            lines,
            f"rows of {table.source} do not have exactly one 1 in the columns {', '.join(columns)}",
            "an image has one class: name all columns of classes with `label`, or add a column with the class",
        )
    return [columns[row.index(True)] for row in zip(*([cell in _ONE for cell in column] for column in cells))]
