"""Members whose out-of-fold predictions are of people or images that their models were trained on.

What is checked: that no person stands in two folds of one member; that the fold a row is said to be of is the one that
its run's ``folds.csv`` (beside the predictions, ``runs/<run>/folds.csv``) keeps it out of; that no row is among those
that the sidecar says its model was trained on (``trained_on``: ids, or ids by fold).

What is not: checkpoints are not opened, which would take torch and seconds; so of a member without persons, without
``folds.csv`` and without ``trained_on`` nothing is known, and it is believed. Nor are images compared: a copy of a
training image under another id is what ``ensemble folds check`` looks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError
from folds.predictions.files import PredictionMetadata, SampleRows
from folds.utils.csv_table import read_csv
from folds.utils.files import is_file_safe, sha256_file
from folds.utils.numeric import groups_in_several_folds


class LeakCheck:
    """Checks member after member; what many of them share is worked out once."""

    def __init__(self) -> None:
        self._persons: dict[int, NDArray[np.int64]] = {}
        self._rows: list[SampleRows] = []
        self._folds: dict[str, dict[str, str]] = {}
        self._seen: set[tuple[int, bytes, str]] = set()

    def check(self, path: Path, sidecar: PredictionMetadata) -> None:
        """Check one member.

        Raises
        ------
        EnsembleError : its score would be of people or images that were seen in training.
        """
        _check_trained_on(path, sidecar)
        if sidecar.split != "oof" or sidecar.fold is None:
            return
        folder = path.parent.parent if path.parent.name == "tta" else path.parent
        kept = folder / sidecar.run / "folds.csv"
        # Runs of one plan have the same content there, and are read once.
        sha = sha256_file(kept) if is_file_safe(sidecar.run) and kept.is_file() else ""
        fold = np.broadcast_to(np.asarray(sidecar.fold), len(sidecar.rows))
        key = (id(sidecar.rows), fold.tobytes(), sha)
        if key in self._seen:
            return
        self._check_persons(path, sidecar.rows, fold)
        if sha and sha not in self._folds:
            table = read_csv(kept).columns
            self._folds[sha] = dict(zip(table.get("id", ()), table.get("fold", ()), strict=False))
        _check_folds(path, sidecar.rows, fold, kept, self._folds.get(sha, {}))
        self._seen.add(key)
        self._rows.append(sidecar.rows)  # they stay, so that no others get their id

    def _check_persons(self, path: Path, rows: SampleRows, fold: NDArray[np.integer]) -> None:
        if rows.persons is None:
            return
        if id(rows) not in self._persons:
            position: dict[str, int] = {}
            self._persons[id(rows)] = np.array(
                [position.setdefault(name, len(position)) for name in rows.persons.tolist()]
            )
        person = self._persons[id(rows)]
        torn = groups_in_several_folds(person, fold)
        if len(torn):
            mine = np.flatnonzero(person == torn[0])
            name, folds = rows.persons[mine[0]], sorted(set(fold[mine].tolist()))
            raise EnsembleError(
                f"{path}: person '{name}' stands in folds {', '.join(map(str, folds))}; "
                f"so do {len(torn):,} of {int(person.max()) + 1:,} people",
                hint="such a score is of people seen in training; split by person: ensemble folds",
            )


def _check_folds(path: Path, rows: SampleRows, fold: NDArray[np.integer], kept: Path, known: Mapping[str, str]) -> None:
    """The model of a fold is trained on all rows of the other folds of ``folds.csv``."""
    said = map(str, fold.tolist())
    wrong = (
        [
            (name, one, known[name])
            for name, one in zip(rows.ids.tolist(), said, strict=True)
            if known.get(name, one) != one
        ]
        if known
        else []
    )
    if wrong:
        name, one, other = wrong[0]
        raise EnsembleError(
            f"{path}: the model of fold {one} was trained on '{name}', which it predicts: {kept} has it in fold {other}; "
            f"so it is with {len(wrong):,} of {len(fold):,} rows",
            hint=f"give each row the fold in {kept}, if 'fold' in the sidecar is wrong; otherwise predict out of fold again",
        )


def _check_trained_on(path: Path, sidecar: PredictionMetadata) -> None:
    if sidecar.trained_on is None:
        return
    ids = sidecar.rows.ids.tolist()
    if not isinstance(sidecar.trained_on, Mapping):
        trained = set(sidecar.trained_on)
        seen = [name for name in ids if name in trained]
    else:
        by_fold = {fold: set(names) for fold, names in sidecar.trained_on.items()}
        fold = (
            [None] * len(ids) if sidecar.fold is None else np.broadcast_to(np.asarray(sidecar.fold), len(ids)).tolist()
        )
        nobody: set[str] = set()
        # Where it is not known which fold's model predicted a row, no fold's may have been trained on it.
        everybody = set().union(*by_fold.values())
        seen = [
            name
            for name, one in zip(ids, fold, strict=True)
            if name in (everybody if one is None else by_fold.get(str(one), nobody))
        ]
    if seen:
        raise EnsembleError(
            f"{path}: by its sidecar ('trained_on') its model was trained on {len(seen):,} of {len(ids):,} rows that it predicts, e.g. '{seen[0]}'",
            hint="leave these rows out, or predict them by a model that has not seen them",
        )
