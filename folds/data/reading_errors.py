"""Refuse places without data, and options that the form of the data does not have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from folds.data.table import AUTO_COPIES, DataSpec
from folds.errors import EnsembleError, UsageError, close_matches
from folds.metrics.task_names import COLUMN_TASKS


def not_there(path: Path, option: str | None = None) -> EnsembleError:
    """Return the error for a path that does not exist; it suggests similar names that do.

    Parameters
    ----------
    option : the parameter that names it.
    """
    parent = path.parent
    while not parent.is_dir():
        parent = parent.parent
    missing = path.relative_to(parent).parts[0]
    try:
        close = close_matches(missing, sorted(entry.name for entry in parent.iterdir()))
    except OSError:
        close = []
    hint = "expected a table (CSV, Parquet), a folder or images"
    if option is not None:
        hint = f"`{option}=PATH` names its present place (a CSV or a folder), also in place of that in a settings file"
    meant = f"; did you mean {' or '.join(str(parent / name) for name in close)}?" if close else ""
    return EnsembleError(f"there is no {path}{meant}", hint=hint)


def no_stack(path: str | Path, stack: Sequence[str]) -> UsageError:
    """Return the error for images in place of a table whose columns are the files of a sample."""
    return UsageError(
        f"a sample is a stack of files in the columns {', '.join(stack)}, and {path} names no columns",
        hint="name a table with these columns",
    )


def check_form_has_columns(spec: DataSpec, form: str) -> None:
    """Raise UsageError if labels of a table with columns are wanted, and `form` has classes."""
    if spec.task in COLUMN_TASKS:
        raise UsageError(
            f"`task={spec.task}` reads the labels of a table, found {form} ({spec.data})",
            hint="name a table with `data`, and its columns with `label`",
        )


def check_unused_options(spec: DataSpec, form: str, **more: str | None) -> None:
    """Raise UsageError if `spec`, or `more`, sets an option of CSV files, because ignoring it would hide a mistake."""
    plain = DataSpec(spec.data)
    given = {
        name: getattr(spec, name)
        for name in ("path", "label", "person", "id", "split", "images", "stack", "uncertain")
        if getattr(spec, name) != getattr(plain, name) and getattr(spec, name) != AUTO_COPIES
    }
    for name, value in {**given, **more}.items():
        if value is not None:
            raise UsageError(
                f"`{name}='{value}'` does not apply to {form} ({spec.data})", hint=f"omit `{name}`, or name a CSV"
            )
