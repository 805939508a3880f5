"""Check the cells of labels that are names, and write several labels or numbers as columns of a table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from folds.errors import UsageError, combine_errors
from folds.metrics.task_names import MULTILABEL, REGRESSION
from folds.predictions.label_columns import NOTHING_CELLS, UNKNOWN_CELLS, known_and_unknown, label_texts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from folds.data.column_labels import ColumnLabels
    from folds.data.table import SampleTable


def check_named_labels(
    parts: Mapping[str, Sequence[str]],
    known: Collection[str],
    column: Sequence[str],
    locations: Sequence[str],
    what: str,
) -> None:
    """Raise EnsembleError, with the rows, for cells that name labels and contradict themselves.

    Parameters
    ----------
    parts : distinct cell → the labels that it names.
    known : names of labels, which may be words such as ``none``.
    column : the cell of each row.
    what : the column and its table, for messages.
    """
    alone = (NOTHING_CELLS | UNKNOWN_CELLS) - {name.lower() for name in known}
    empty = {cell for cell, own in parts.items() if len(own) > 1 and any(part.lower() in alone for part in own)}
    both = {cell for cell, own in parts.items() if known_and_unknown(own) is not None}
    for wrong, text, hint in (
        (
            empty,
            "name labels, and also say that there are none or that they are unknown",
            "write the labels, or only the text for none of them",
        ),
        (
            both,
            "name a label, and also say that it is not known",
            "write Mass where an image has it, ?Mass where that is not known",
        ),
    ):
        if wrong:
            lines = [f"{locations[i]}: '{cell}'" for i, cell in enumerate(column) if cell in wrong]
            raise combine_errors(lines, f"cells of {what} {text}", hint)


def check_uncertain_applies(read: ColumnLabels | None, columns: Sequence[str], uncertain: str, source: str) -> None:
    """Raise UsageError if `uncertain` is given, and the labels are not columns of 0, 1 and -1.

    Parameters
    ----------
    read : the labels of the training samples; None for classes.
    columns : the columns of the table in which they are.
    """
    if read is not None and read.task == MULTILABEL and tuple(read.names) == tuple(columns):
        return
    found = "classes" if read is None else "numbers" if read.task == REGRESSION else "names in one column"
    raise UsageError(
        f"`uncertain={uncertain}` says what -1 means in columns of labels, found {found} in {source}",
        hint="leave it out"
        if read is not None
        else "leave it out, or read several labels: `label=A,B,C`, `task=multilabel`",
    )


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
    if table.labels is None or len(columns) == 1:
        return dict.fromkeys(columns, table.labels)
    values = table.label_values()
    return {name: label_texts(values[:, [i]], [name], REGRESSION) for i, name in enumerate(table.classes)}
