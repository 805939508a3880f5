"""Make sample tables without files, from the columns of their samples."""

from __future__ import annotations

from typing import Any

import numpy as np

from folds.data.raw_columns import RawColumns, build_table
from folds.data.table import SampleTable
from folds.predictions.label_columns import label_texts


def table_of(persons: list[str], labels: list[str], source: str = "table.csv") -> SampleTable:
    """Return the table of samples of these people and classes; their ids are s0, s1, …"""
    ids = [f"s{i}" for i in range(len(persons))]
    return build_table(
        RawColumns(source, ids, [f"{source} row {i + 2}" for i in range(len(ids))], None, labels, persons),
        training=False,
    )


def table_of_columns(
    values: np.ndarray, names: tuple[str, ...], task: str, persons: np.ndarray, **more: Any
) -> SampleTable:
    """Return the table of (n, columns) labels or numbers of people with these numbers; `more` are further columns."""
    ids = [f"i{i}" for i in range(len(values))]
    columns = RawColumns("t.csv", ids, [f"t.csv row {i}" for i in range(len(ids))], None)
    columns.labels, columns.persons = label_texts(values, names, task).tolist(), [f"p{one:02d}" for one in persons]
    columns.task, columns.names, columns.attributes = task, names, more
    return build_table(columns, training=True)
