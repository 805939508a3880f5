"""Say why out-of-fold predictions score better than predictions of people whom nothing has seen."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from folds.utils.files import read_json


def student_text(teacher: str) -> str:
    """Return why the out-of-fold score of a student is optimistic."""
    whose = "a teacher that is not recorded" if teacher == "unknown" else teacher
    return f"optimistic: it learned the predictions of {whose}, whose models have seen the people it is scored on"


def selected_text(runs: Iterable[str]) -> str:
    """Return why the out-of-fold score of runs is optimistic whose models were selected on it; "" for no runs."""
    names = ", ".join(runs)
    return f"optimistic: something about the models of {names} was selected on the people they are scored on" * bool(
        names
    )


def selected_runs(runs: Path, names: Iterable[str]) -> list[str]:
    """Return the runs whose training records that a score of a fold is optimistic.

    Parameters
    ----------
    runs : the folder of the runs.
    """
    return [name for name in names if any(map(is_optimistic, sorted((runs / name).glob("fold*/done.json"))))]


def is_optimistic(path: Path) -> bool:
    """Return whether the ``done.json`` of a fold says that the fold's score is optimistic."""
    record = read_json(path)
    return isinstance(record, dict) and record.get("optimistic") is True
