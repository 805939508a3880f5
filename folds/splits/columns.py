"""Read the folds in a column of a table."""

from __future__ import annotations

from folds.data.table import SampleTable
from folds.errors import EnsembleError, UsageError, unknown_name
from folds.predictions.columns import find_columns
from folds.splits.assignment import FoldAssignment, labels_of
from folds.splits.numbers import fold_numbers


def folds_of_column(table: SampleTable, column: str = "fold") -> FoldAssignment:
    """Return the folds in a column of the table: 0 to k-1, 1 to k, or 0 and -1 for one held-out part.

    Raises
    ------
    UsageError : the table has no such column.
    EnsembleError : the table has no labels or no persons, or a value is not a fold.
    """
    if table.labels is None or table.persons is None:
        raise EnsembleError(f"{table.source} has no labels or no persons, which folds need")
    if column in ("id", "path", "label", "person"):
        raise UsageError(
            f"column '{column}' of {table.source} is the {column} of each sample, expected a column of folds",
            hint=f"further columns: {', '.join(table.attributes)}" if table.attributes else "add a column 'fold'",
        )
    if column not in table.attributes:
        raise unknown_name(
            "column", column, list(table.attributes), hint=f"{table.source} has no column '{column}' of folds"
        )
    fold = fold_numbers(
        table.attributes[column].tolist(), table.locations, table.source, f"values of column '{column}'"
    )
    k = int(fold.max()) + 1
    return FoldAssignment(table.ids, table.labels, table.persons, fold, k, None, 0, table.sha, **labels_of(table))


def unused_fold_note(table: SampleTable) -> list[str]:
    """Return a note if a column of the table seems to hold folds that are not used."""
    roles = find_columns(list(table.attributes), table.source, ("fold",))
    name = roles.get("fold") or next(iter(roles.ambiguous.get("fold", ())), None)
    if name is None:
        return []
    return [f"{table.source} has a column '{name}', which is not used: `fold_column={name}` uses its folds"]
