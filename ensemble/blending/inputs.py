"""Say how the files of a blend were read: which columns, which labels, whose row order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ensemble.alignment.placement import RowOrder
from ensemble.blending.request import BlendConfig
from ensemble.members.columns import ColumnNames, listed
from ensemble.members.reading import Member
from ensemble.members.row_order import read_row_order
from ensemble.members.true_labels import TrueLabels
from folds.errors import UsageError
from folds.metrics.task_names import COLUMN_TASKS


def with_recorded_task(request: BlendConfig, record: Mapping[str, Any]) -> BlendConfig:
    """Return the options that read the files of a blend again: tables do not say that they hold labels or numbers.

    Parameters
    ----------
    record : the content of ``blend.json``.
    """
    combination = record.get("combination")
    task = combination.get("task") if isinstance(combination, dict) else None
    return replace(request, task=task) if request.task is None and task in COLUMN_TASKS else request


def row_orders(request: BlendConfig) -> list[RowOrder]:
    """Return the ids in the files that the user named for the row order of arrays."""
    return [RowOrder(str(path), read_row_order(path, request.columns), named=True) for path in request.ids]


def check_columns(names: ColumnNames, members: Sequence[Member], labels: TrueLabels | None) -> None:
    """Raise UsageError if no table has a column that the user named, or only a table that does not use it."""
    tables: dict[Path, Sequence[str]] = {member.path: member.columns for member in members if member.columns}
    if labels is not None:
        tables[labels.path] = labels.columns
    names.check_used(tables)
    # Folds say which models predicted a row, so only those of predictions are used.
    used = any(names.fold in member.columns for member in members)
    if names.fold is not None and labels is not None and names.fold in labels.columns and not used:
        raise UsageError(
            f"`fold_column={names.fold}`: only {labels.path} has this column, and the folds of labels are not used",
            hint="put the column into the tables of predictions, or omit `fold_column`",
        )


def reading_notes(members: Sequence[Member], labels: TrueLabels | None) -> list[str]:
    """Return which columns of each table were read; tables that were read in the same way share a note."""
    groups: dict[str, list[str]] = {}
    for member in members:
        if member.summary:
            label = member.rows is not None and member.rows.labels is not None
            does = (
                ""
                if not label
                else "; the predictions vote, the labels "
                + ("score them" if labels is None else f"are those of {labels.path}")
            )
            groups.setdefault(member.summary + does, []).append(member.source)
    notes = [f"{listed(paths)}: {summary}" for summary, paths in groups.items()]
    return notes if labels is None else [*notes, f"labels {labels.summary}"]


def reading_warnings(members: Sequence[Member], labels: TrueLabels | None) -> list[str]:
    """Return the doubts about each file by itself, each once."""
    found = [warning for member in members for warning in member.warnings]
    return list(dict.fromkeys([*found, *(() if labels is None else labels.warnings)]))
