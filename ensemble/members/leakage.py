"""Detect members whose out-of-fold predictions are for people or images in their training data.

Three checks: no person is in two folds of one member; the fold of each row is the fold of that row in the run's
``folds.csv`` (beside the predictions, ``runs/<run>/folds.csv``); no row is in the training data that the sidecar lists
(``trained_on``: ids, or ids by fold).

Checkpoints are not opened, which would take torch and seconds. So a member without persons, without ``folds.csv`` and
without ``trained_on`` cannot be checked and is accepted. Images are not compared either: ``ensemble folds check`` finds
copies of training images under other ids.
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
from folds.utils.numeric import factorize, groups_in_several_folds


class LeakCheck:
    """Leakage checks of several members; results for rows and folds that members share are cached."""

    def __init__(self) -> None:
        self._persons: dict[int, NDArray[np.int64]] = {}
        self._kept: list[object] = []
        self._folds: dict[str, dict[str, str]] = {}
        self._seen: set[tuple[int, int | bytes, str]] = set()

    def check(self, path: Path, sidecar: PredictionMetadata) -> None:
        """Check one member.

        Raises
        ------
        EnsembleError : the member predicts people or images that its models were trained on.
        """
        _check_trained_on(path, sidecar)
        if sidecar.split != "oof" or sidecar.fold is None:
            return
        folder = path.parent.parent if path.parent.name == "tta" else path.parent
        folds_file = folder / sidecar.run / "folds.csv"
        # Runs of one plan have equal files, which are read once.
        sha = sha256_file(folds_file) if is_file_safe(sidecar.run) and folds_file.is_file() else ""
        fold = np.broadcast_to(np.asarray(sidecar.fold), len(sidecar.rows))
        # Files of one plan mostly share one array of folds, which nothing can change.
        shared = isinstance(sidecar.fold, np.ndarray) and not sidecar.fold.flags.writeable
        key = (id(sidecar.rows), id(sidecar.fold) if shared else fold.tobytes(), sha)
        if key in self._seen:
            return
        self._check_persons(path, sidecar.rows, fold)
        if sha and sha not in self._folds:
            table = read_csv(folds_file).columns
            self._folds[sha] = dict(zip(table.get("id", ()), table.get("fold", ()), strict=False))
        _check_folds(path, sidecar.rows, fold, folds_file, self._folds.get(sha, {}))
        self._seen.add(key)
        self._kept += [sidecar.rows, sidecar.fold]  # keeps the objects alive, so that their ids stay unique

    def _check_persons(self, path: Path, rows: SampleRows, fold: NDArray[np.integer]) -> None:
        if rows.persons is None:
            return
        if id(rows) not in self._persons:
            self._persons[id(rows)] = factorize(rows.persons)[1]
        person = self._persons[id(rows)]
        split_persons = groups_in_several_folds(person, fold)
        if len(split_persons):
            rows_of_person = np.flatnonzero(person == split_persons[0])
            name, folds = rows.persons[rows_of_person[0]], sorted(set(fold[rows_of_person].tolist()))
            raise EnsembleError(
                f"{path}: person '{name}' is in folds {', '.join(map(str, folds))}; "
                f"{len(split_persons):,} of {int(person.max()) + 1:,} people are in several folds",
                hint="the score would include people from the training data; split by person: ensemble folds",
            )


def _check_folds(
    path: Path, rows: SampleRows, fold: NDArray[np.integer], folds_file: Path, known: Mapping[str, str]
) -> None:
    """Raise EnsembleError if a row has another fold in ``folds.csv``: then its model was trained on it."""
    stated = map(str, fold.tolist())
    wrong = (
        [
            (name, row_fold, known[name])
            for name, row_fold in zip(rows.ids.tolist(), stated, strict=True)
            if known.get(name, row_fold) != row_fold
        ]
        if known
        else []
    )
    if wrong:
        name, row_fold, true_fold = wrong[0]
        raise EnsembleError(
            f"{path}: the model of fold {row_fold} predicts '{name}' but was trained on it: "
            f"{folds_file} has it in fold {true_fold}; "
            f"this affects {len(wrong):,} of {len(fold):,} rows",
            hint=f"if 'fold' in the sidecar is wrong, give each row the fold in {folds_file}; "
            "otherwise make the out-of-fold predictions again",
        )


def _check_trained_on(path: Path, sidecar: PredictionMetadata) -> None:
    if sidecar.trained_on is None:
        return
    ids = sidecar.rows.ids.tolist()
    if not isinstance(sidecar.trained_on, Mapping):
        trained = set(sidecar.trained_on)
        leaked = [name for name in ids if name in trained]
    else:
        by_fold = {fold: set(names) for fold, names in sidecar.trained_on.items()}
        fold = (
            [None] * len(ids) if sidecar.fold is None else np.broadcast_to(np.asarray(sidecar.fold), len(ids)).tolist()
        )
        no_ids: set[str] = set()
        # If the fold of a row is unknown, no fold's model may have been trained on it.
        all_trained = set().union(*by_fold.values())
        leaked = [
            name
            for name, row_fold in zip(ids, fold, strict=True)
            if name in (all_trained if row_fold is None else by_fold.get(str(row_fold), no_ids))
        ]
    if leaked:
        raise EnsembleError(
            f"{path}: the model was trained on {len(leaked):,} of {len(ids):,} rows that it predicts, "
            f"e.g. '{leaked[0]}' ('trained_on' in the sidecar)",
            hint="remove these rows, or predict them with a model that was not trained on them",
        )
