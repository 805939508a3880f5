"""Read labels from one-hot columns: a column for each class, with 1 in the column of the row's class, else 0."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from folds.errors import combine_errors
from folds.utils.csv_table import CsvTable

_ONE = frozenset({"1", "1.0", "1.", "True", "TRUE", "true"})
_MAX_SEARCHED = 64  # columns of 0 and 1 among which a part is looked for
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
    """Return the columns of 0 and 1 that stand side by side and of which every row has exactly one 1.

    Other columns of 0 and 1, such as a sex, may be elsewhere in the table. () if there are no two such columns, or if
    several sets of columns fit.
    """
    found = binary_columns(table, skipped)
    if len(found) < 2:
        return ()
    ones = np.array([[cell in _ONE for cell in table.columns[name]] for name in found], np.int64)
    if (ones.sum(axis=0) == 1).all():
        return found
    if len(found) > _MAX_SEARCHED:
        return ()
    place = [list(table.columns).index(name) for name in found]
    sums = np.concatenate([np.zeros_like(ones[:1]), ones.cumsum(axis=0)])
    runs = [
        found[start:end]
        for start in range(len(found))
        for end in range(start + 2, len(found) + 1)
        if place[end - 1] - place[start] == end - 1 - start and (sums[end] - sums[start] == 1).all()
    ]
    return runs[0] if len(runs) == 1 else ()


def nearly_one_hot_columns(table: CsvTable, skipped: Collection[str]) -> tuple[str, ...]:
    """Return columns of 0 and 1, all or some side by side, of which no row has two 1 and most have one; else ()."""
    found = binary_columns(table, skipped)[:_MAX_SEARCHED]
    header = list(table.columns)
    for start in range(len(found)):
        for end in range(len(found), start + 1, -1):
            columns = found[start:end]
            beside = header.index(columns[-1]) - header.index(columns[0]) == len(columns) - 1
            if not beside and columns != found:
                continue
            ones = count_ones(table, columns)
            if max(ones) == 1 and 2 * sum(ones) > len(ones):
                return columns
    return ()


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
            "an image has one class: name all columns of classes with `label`, or add a column with the class; "
            "`task=multilabel` reads several labels of an image, or none",
        )
    return [columns[row.index(True)] for row in zip(*([cell in _ONE for cell in column] for column in cells))]
