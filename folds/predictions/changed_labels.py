"""Remember which training labels a run has changed, so that its gain is scored on other people.

``runs/<run>/changed_labels.csv`` has a row for each image that was relabeled, dropped or softened for the training. The
scored labels stay those of the table. Whether the table or the change is right cannot be known, so people with a
changed label say nothing about the gain, and the score of the run leaves them out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError
from folds.predictions.file_names import BLEND_RECORD, RUN_CONFIG
from folds.predictions.named import BLENDS, TTA, is_blend, is_plain_name
from folds.predictions.rows import SampleRows
from folds.utils.csv_table import csv_text, read_csv
from folds.utils.files import read_json, write_atomic
from folds.utils.toml import read_toml

CHANGED = "changed_labels.csv"


def write_changed_labels(folder: Path, columns: Mapping[str, Sequence[str]]) -> None:
    """Write ``changed_labels.csv`` into the folder of a run; `columns` has id, label, change and new_label."""
    write_atomic(folder / CHANGED, csv_text(columns))


def changed_ids(name: str, runs: Path) -> frozenset[str]:
    """Return the ids of the images whose changed training label a run or a blend has learned from.

    The changes are those of the run, of the runs whose weights it starts from or whose predictions it learns, and of
    the runs and blends in a blend, as far as their records are in the folder of the runs.

    Raises
    ------
    EnsembleError : a record is damaged.
    """
    waiting, seen, found = [name], set(), set()
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        if is_blend(one, runs):
            record = runs / BLENDS / one.removeprefix(f"{BLENDS}/") / BLEND_RECORD
            if one == name or record.is_file():
                waiting += _members(record)
        elif is_plain_name(one):
            if has_changed_labels(one, runs):
                found.update(read_csv(runs / one / CHANGED).column("id"))
            waiting += _origins(runs / one / RUN_CONFIG)
    return frozenset(found)


def with_changed_labels(names: Sequence[str], rows: SampleRows, runs: Path) -> NDArray[np.bool_]:
    """Return (n,) whether the person of each row has an image whose training label one of these runs has changed.

    Raises
    ------
    EnsembleError : a record is damaged.
    """
    changed = sorted(frozenset().union(*(changed_ids(name, runs) for name in names)))
    if not changed:
        return np.zeros(len(rows), bool)
    persons = rows.ids if rows.persons is None else rows.persons
    return np.isin(persons, persons[np.isin(rows.ids, changed)])


def has_changed_labels(run: str, runs: Path) -> bool:
    """Return whether a run itself has changed training labels."""
    return (runs / run / CHANGED).is_file()


def _members(record: Path) -> list[str]:
    """Return the names of the runs and blends in a blend."""
    found = read_json(record)
    members = found.get("inputs") if isinstance(found, dict) else None
    names = []
    for one in members if isinstance(members, list) else ():
        if isinstance(one, dict):
            # A blend calls itself by its bare name, which a run may have as well.
            folder = Path(one["path"]).parent if isinstance(one.get("path"), str) else Path()
            names.append(f"{BLENDS}/{folder.name}" if folder.parent.name == BLENDS else one.get("run"))
    return _clean(names)


def _origins(config: Path) -> list[str]:
    """Return the names of the runs and blends that a run starts from or learns the predictions of."""
    if not config.is_file():
        return []
    try:
        record = read_toml(config)
    except (OSError, ValueError) as error:
        raise EnsembleError(f"{config} cannot be read: {error}", hint="restore the file") from None
    resolved = record.get("resolved")
    learned = resolved if isinstance(resolved, dict) else {}
    pseudo = learned.get("pseudo_teacher")
    teachers = pseudo.split(",") if isinstance(pseudo, str) else []
    return _clean([record.get("init_run"), learned.get("teacher"), *teachers])


def _clean(names: Sequence[Any]) -> list[str]:
    """Return the names of runs and blends without those that are not in the folder of the runs."""
    # Views of the images are predicted by a run of the same name; a part of a run is named after it.
    whole = [one.strip().removeprefix(f"{TTA}/").partition("#")[0] for one in names if isinstance(one, str)]
    return [one for one in whole if is_plain_name(one.removeprefix(f"{BLENDS}/"))]
