"""Write the labels of a table for another one: several labels or numbers have a column each."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from folds.data.table import SampleTable
from folds.metrics.task_names import REGRESSION
from folds.predictions.label_columns import label_texts


def columns_of_labels(table: SampleTable, others: Collection[str]) -> list[str]:
    """Return the columns in which labels are written: one for each of several labels or numbers, else ``label``.

    Parameters
    ----------
    others : names of further columns of the table that is written; one text of all labels is written if a label has
        such a name.
    """
    if not table.has_columns or any("," in name for name in table.classes):
        return ["label"]
    taken = {"id", "path", "person", "split", *others} & set(table.classes)
    return ["label"] if taken else list(table.classes)


def label_cells(table: SampleTable, columns: Sequence[str]) -> dict[str, NDArray[np.str_] | None]:
    """Return column → its cells (n,), empty where a label is not known; None where there are no labels.

    Parameters
    ----------
    columns : of `columns_of_labels`.
    """
    if table.labels is None or not table.has_columns or tuple(columns) != table.classes:
        return dict.fromkeys(columns, table.labels)
    values = table.label_values()
    return {name: label_texts(values[:, [i]], [name], REGRESSION) for i, name in enumerate(table.classes)}
