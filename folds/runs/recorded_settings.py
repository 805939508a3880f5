"""Read and compare the settings that runs have recorded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from folds.config.files import DAMAGED
from folds.errors import EnsembleError

# Locations of files do not change the training; contents are compared by hash.
_NOT_COMPARED = {
    "data",
    "test",
    "folds",
    "path",
    "label",
    "person",
    "id",
    "split",
    "person_regex",
    "init",
    "soft_labels",
    "pseudo",
    "resolved",
    "name",
    "preset",
}
# Folds are compared by their hash.
_NOT_COMPARED |= {"holdout", "repair", "stratify", "group_within", "leave_out"}
# The number of runs of one command.
_NOT_COMPARED |= {"repeats", "seeds"}
# Threads are taken from the record (`recorded_start`), not compared; the number of parallel jobs does not change
# results.
_NOT_COMPARED_RESOLVED = {"threads", "jobs", "jobs_measured_on", "jobs_reason", "course", "defaults", "gpus_per_job"}
# The rates by which the number format was chosen; a machine without a compiler continues without compiling.
_NOT_COMPARED_RESOLVED |= {"format", "compiled"}
# Soft labels are compared by their hash; a blend can be renamed.
_NOT_COMPARED_RESOLVED |= {"teacher", "teacher_identity", "pseudo_teacher"}
# Of these files the contents are compared by hash, and whether they are given.
_FILES_OF_LABELS = {"relabel", "drop", "soften"}
RESOLVED_PREFIX = "resolved "  # of keys that are not settings


def resolved_of(record: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the automatic decisions in the record of a run; raise EnsembleError if `path`, its file, is damaged."""
    resolved = record.get("resolved", {})
    if not isinstance(resolved, dict):
        raise EnsembleError(f"{path} is damaged: expected a table [resolved], found {resolved!r}", hint=DAMAGED)
    return resolved


def resolved_number(resolved: Mapping[str, Any], key: str, path: Path) -> int | None:
    """Return a whole number of 1 or more among these decisions; None if it is not recorded."""
    number = resolved.get(key)
    if number is not None and (type(number) is not int or number < 1):
        raise EnsembleError(f"{path} is damaged: [resolved] {key} must be 1 or more, found {number!r}", hint=DAMAGED)
    return number


def comparable_settings(record: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return what must be equal for a run to be continued: settings, and decisions under `RESOLVED_PREFIX`."""
    resolved = {
        f"{RESOLVED_PREFIX}{key}": value
        for key, value in resolved_of(record, path).items()
        if key not in _NOT_COMPARED_RESOLVED
    }
    shown = (
        {"metric"} if record.get("keep", "last") != "best" and not record.get("patience") else set()
    )  # decides nothing
    given = {key: "a file" if key in _FILES_OF_LABELS else value for key, value in record.items()}
    return {key: value for key, value in given.items() if key not in _NOT_COMPARED | shown} | resolved
