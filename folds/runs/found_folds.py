"""Use a file of folds that lies in the folder, if it fits the table and the settings, and say so."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from folds.config.command_settings import Settings
from folds.config.files import read_record
from folds.data.table import SampleTable
from folds.errors import EnsembleError
from folds.splits.assignment import load_folds
from folds.splits.checks import check_folds

logger = logging.getLogger(__name__)


def named_columns(settings: Settings) -> dict[str, str | None]:
    """Return role → column of a file of folds, where the user named it."""
    usual = Settings()
    given = {role: getattr(settings, role) for role in ("id", "label", "person")}
    named = {role: name for role, name in given.items() if name != getattr(usual, role)}
    return {**named, "fold": settings.fold_column}


def with_found_folds(
    settings: Settings, file: Path | None, k_given: bool, table: SampleTable, records: Sequence[Path] = ()
) -> Settings:
    """Return the settings with `file` as their folds if it fits; what was decided, and why, is logged.

    Parameters
    ----------
    file : a file of folds that may not exist; None for none.
    k_given : whether the number of folds was chosen, so that the file must have it.
    records : records of existing runs; one that was started without the file is continued without it.
    """
    if file is None or not file.is_file() or settings.folds is not None:
        return settings
    reason = _reason_against(settings, file, k_given, table, records)
    if reason:
        logger.info(f"{file} is not used: {reason}")
        return settings
    shown = file if file.is_absolute() else f"./{file}"
    logger.info(f"folds: {shown} (found here, and it fits the table; `folds=FILE` or `k=N` chooses others)")
    return replace(settings, folds=file)


def _reason_against(settings: Settings, file: Path, k_given: bool, table: SampleTable, records: Sequence[Path]) -> str:
    """Return why a file of folds is not used; "" if it fits."""
    chosen = {
        "fold_column": settings.fold_column is not None,
        "holdout": settings.holdout is not None,
        "stratify": bool(settings.stratify),
        "repeats": settings.repeats > 1,
        "group_within": settings.group_within is not None,
        "leave_out": settings.leave_out is not None,
    }
    given = [name for name, is_given in chosen.items() if is_given]
    if given:
        return f"`{given[0]}` is given"
    for record in records:
        if read_record(record).get("folds") != str(file):
            return f"the run {record.parent} was started with another split"
    try:
        found = load_folds(file, table)
        check_folds(found, table.classes)
    except EnsembleError as error:
        return error.message
    if k_given and found.k != settings.k:
        return f"it has {found.k} folds, and `k` is {settings.k}; `folds={file}` uses it"
    return ""
