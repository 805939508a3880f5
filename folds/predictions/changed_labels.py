"""Remember which training labels a run has changed, so that its gain is scored on other people.

``runs/<run>/changed_labels.csv`` has a row for each image that was relabeled, dropped or softened for the training. The
scored labels stay those of the table. Whether the table or the change is right cannot be known, so people with a
changed label say nothing about the gain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from folds.predictions.named import BLENDS, is_blend
from folds.utils.csv_table import csv_text, read_csv
from folds.utils.files import read_json, write_atomic

CHANGED = "changed_labels.csv"


def write_changed_labels(folder: Path, columns: Mapping[str, Sequence[str]]) -> None:
    """Write ``changed_labels.csv`` into the folder of a run; `columns` has id, label, change and new_label."""
    write_atomic(folder / CHANGED, csv_text(columns))


def changed_ids(name: str, runs: Path) -> frozenset[str]:
    """Return the ids of the images whose training label a run has changed, or any run of a blend.

    Raises
    ------
    EnsembleError : a record is damaged.
    """
    if is_blend(name, runs):
        found = read_json(runs / BLENDS / name.removeprefix(f"{BLENDS}/") / "blend.json")
        members = found.get("inputs") if isinstance(found, dict) else None
        own = [one.get("run") for one in members or () if isinstance(one, dict)]
        names = [one for one in own if isinstance(one, str) and one and "/" not in one and not is_blend(one, runs)]
    else:
        names = [name]
    files = [file for one in dict.fromkeys(names) if (file := runs / one / CHANGED).is_file()]
    return frozenset(identifier for file in files for identifier in read_csv(file).column("id"))
