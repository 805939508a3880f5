"""Find the out-of-fold predictions of a run or a blend, and prepare them for fitting decision rules."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ensemble.decisions.record import CROSS_FITTED, ONE_MODEL, SELECTED, STUDENT, UNKNOWN, DecisionSource
from ensemble.decisions.rows import LabeledRows
from ensemble.learning.nested import outer_fold_ids
from folds.errors import EnsembleError, UsageError, close_matches
from folds.metrics.arrays import as_probabilities, check_same_index, class_codes, column_classes, fold_numbers, names_of
from folds.metrics.grouping import average_by_person
from folds.metrics.scored_units import known_rows, rows_of_known_people
from folds.metrics.task_names import CLASSES, ORDINAL
from folds.predictions.file_names import BLEND_RECIPE, BLEND_RECORD
from folds.predictions.files import oof_file
from folds.predictions.label_columns import encode_labels
from folds.predictions.optimism import selected_runs
from folds.predictions.predictions import Predictions, read_predictions
from folds.utils.files import is_file_safe, read_json, sha256_bytes
from folds.utils.numeric import factorize

logger = logging.getLogger(__name__)


def oof_of_name(what: str | Path, root: Path) -> tuple[Predictions, str, str]:
    """Return the out-of-fold predictions of a run or a blend, its name and kind.

    Parameters
    ----------
    what : name of a run or a blend; folder or ``blend.toml`` of a blend; or a prediction file ``NAME.npy``.
    root : the folder that holds ``runs/``.

    Raises
    ------
    EnsembleError : nothing of this name has out-of-fold predictions, or a run and a blend have this name.
    """
    text, path = str(what), Path(what)
    if path.suffix == ".npy":
        found = read_predictions(path)
        return found, found.run or path.name.removesuffix(".npy").removesuffix(".oof"), "file"
    if path.suffix == ".toml" or (path / BLEND_RECIPE).is_file():
        folder = blend_folder(path, "", root)
        return _read(folder / "oof.npy", folder.resolve().name), folder.resolve().name, "blend"
    plain = re.fullmatch(r"[\w.+#-]+", text, re.ASCII) is not None and text not in (".", "..")
    blend, run = root / "runs" / "blends" / text / "oof.npy", oof_file(root / "runs", text)
    if plain and blend.is_file() and run.is_file():
        raise EnsembleError(f"'{text}' is the name of a run and of a blend", hint=f"name the file: {blend} or {run}")
    if plain and blend.is_file():
        return _read(blend, text), text, "blend"
    if plain and run.is_file():
        return _read(run, text), text, "run"
    runs = [file.name.removesuffix(".oof.npy") for file in (root / "runs").glob("*.oof.npy")]
    blends = [file.parent.name for file in (root / "runs" / "blends").glob("*/oof.npy")]
    close = close_matches(text, sorted([*runs, *blends]))
    meant = f"; did you mean {' or '.join(close)}?" if close else ""
    raise EnsembleError(
        f"expected a run or a blend with out-of-fold predictions, found '{text}'{meant}",
        hint="; ".join(
            f"{kind}: {', '.join(sorted(names)[:10])}" for kind, names in (("runs", runs), ("blends", blends)) if names
        )
        or f"there is no runs/*.oof.npy in {root.resolve()}",
    )


def blend_folder(what: Any, name: str, root: Path) -> Path:
    """Return the folder of the blend `name` in memory or on the disk, where `what` may be its path."""
    path = Path(what) if isinstance(what, str | Path) else Path()
    if path.suffix == ".toml":
        return path.parent
    return path if (path / "blend.toml").is_file() else root / "runs" / "blends" / name


def _read(path: Path, name: str) -> Predictions:
    if not path.is_file():
        raise EnsembleError(
            f"'{name}' has no out-of-fold predictions ({path})", hint="decision rules are fitted to the OOF predictions"
        )
    return read_predictions(path)


def rows_of_predictions(
    found: Predictions, name: str, kind: str, per_person: bool, fold: int | None = None
) -> tuple[LabeledRows, DecisionSource]:
    """Return the rows with a label, and their source.

    Parameters
    ----------
    per_person : whether to average the probabilities of each person's images.
    fold : only the rows of this fold, which one model has predicted; None for all.

    Raises
    ------
    UsageError : the predictions were made with a cascade.
    EnsembleError : there are no labels, or not of two people.
    """
    if found.metadata.has_columns:
        raise UsageError(
            f"{name} is of the task {found.metadata.task}, and these rules are for classes that exclude each other",
            hint="ensemble decide fits a threshold for each of several labels",
        )
    check_decidable(found, name, per_person)
    if fold is not None and found.fold is not None:
        found = found.take(np.flatnonzero(found.fold == fold))
    if found.labels is None or not (found.labels != "").any():
        raise EnsembleError(f"the predictions of {name} have no labels, to which decision rules are fitted")
    codes, persons, folds = encode_labels(found.labels, found.classes, CLASSES), found.persons, found.fold
    known = np.flatnonzero(
        known_rows(codes) if persons is None or not per_person else rows_of_known_people(codes, persons)
    )
    persons = None if persons is None else persons[known]
    rows, source = prepare_rows(
        found.probabilities[known],
        codes[known],
        persons,
        None if folds is None else folds[known],
        found.ids[known],
        found.classes,
        per_person,
        (name, kind),
    )
    rows = replace(rows, ordered=found.metadata.task == ORDINAL or _are_ascending(found.classes))
    return rows, replace(source, basis=STUDENT if found.metadata.teacher else source.basis)


def check_decidable(found: Predictions, name: str, per_person: bool) -> None:
    """Raise UsageError if rules cannot be fitted to predictions: of a cascade, or of images of labeled persons.

    Predictions of another split than ``oof`` are a warning.
    """
    if found.metadata.cascade is not None:
        raise UsageError(
            f"the predictions of {name} were made with a cascade: the probabilities of an image are those of the "
            "models that were used for it, not of all models, so their confidences cannot be compared",
            hint="predict again with `cascade=off`, and name that file",
        )
    if found.metadata.label_of is not None and not per_person:
        raise UsageError(
            f"only persons are labeled in the predictions of {name}, so decision rules are for people",
            hint="add `per_person`",
        )
    if found.split != "oof":
        logger.warning(
            "%s: rules are fitted to predictions of the split '%s'; the model must not be trained on these images",
            name,
            found.split,
        )


def _are_ascending(classes: Sequence[str]) -> bool:
    """Return whether class names are whole numbers in ascending order, which may be grades."""
    numbers = [int(name) for name in classes if re.fullmatch(r"[+-]?\d+", name)]
    return len(numbers) == len(classes) and numbers == sorted(numbers)


def with_selection(source: DecisionSource, runs: Path, names: Iterable[str]) -> DecisionSource:
    """Return the source of rules, marked if models of these runs were selected on the people.

    Parameters
    ----------
    runs : the folder of the runs.
    """
    if source.basis == STUDENT or not selected_runs(runs, names):
        return source
    return replace(source, basis=SELECTED)


def runs_of(name: str, kind: str, runs: Path) -> list[str]:
    """Return the run itself, or the runs that a blend in this folder was made of."""
    if kind != "blend":
        return [name] if kind == "run" and name else []
    path = runs / "blends" / name / BLEND_RECORD
    record = read_json(path) if name and path.is_file() else None
    listed = record.get("runs") if isinstance(record, dict) else None
    found = [one.get("run") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return [one for one in found if isinstance(one, str) and is_file_safe(one)]


def rows_of_arrays(
    proba: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike | None,
    fold: ArrayLike | None,
    ids: ArrayLike | None,
    classes: Any,
    per_person: bool,
) -> tuple[LabeledRows, DecisionSource]:
    """Return the rows of arrays, as `rows_of_predictions` does.

    Raises
    ------
    UsageError : lengths or indexes differ, the array is not probabilities, or the classes of its columns are unknown.
    """
    values = as_probabilities(proba, "predictions")
    codes, names = class_codes(y, values.shape[1], column_classes(proba, classes))
    if len(codes) != len(values):
        raise UsageError(f"`y` has {len(codes):,} rows, `predictions` has {len(values):,}")
    check_same_index({"`y`": y, "`predictions`": proba, "`groups`": groups, "`fold`": fold, "`ids`": ids})
    persons = None if groups is None else names_of(groups, "groups", len(values))
    numbers = None if fold is None else np.broadcast_to(np.asarray(fold_numbers(fold, len(values))), len(values))
    own = np.arange(len(values)).astype(str) if ids is None else names_of(ids, "ids", len(values))
    return prepare_rows(values, codes, persons, numbers, own, names, per_person, ("", "arrays"))


def prepare_rows(
    values: NDArray[np.floating],
    codes: NDArray[np.int64],
    persons: NDArray[np.str_] | None,
    folds: NDArray[np.int64] | None,
    ids: NDArray[np.str_],
    classes: tuple[str, ...],
    per_person: bool,
    name_and_kind: tuple[str, str],
) -> tuple[LabeledRows, DecisionSource]:
    """Return the rows and their source.

    Raises
    ------
    UsageError : `per_person` without persons.
    EnsembleError : there are fewer than two people.
    """
    if len(classes) < 2:
        raise EnsembleError(f"decision rules need two classes or more, found {len(classes)}")
    if persons is None and per_person:
        raise UsageError(
            "rules for people need the person of each image",
            hint="name the person of each image: a column of the table, or `groups` of decide() for arrays",
        )
    values = np.asarray(values, np.float64)
    sha = sha256_bytes(values.tobytes() + codes.tobytes() + repr(classes).encode())
    people = factorize(ids if persons is None else persons)[1]
    images = len(codes)
    distinct = 0 if folds is None else len(np.unique(folds))
    basis = UNKNOWN if folds is None else ONE_MODEL if distinct == 1 else CROSS_FITTED
    if per_person and persons is not None:
        codes, values, names, mixed = average_by_person(codes, values, persons, len(classes), CLASSES)
        if mixed:
            logger.info("%d people have several labels and count with their most frequent one", mixed)
        first = np.unique(people, return_index=True)[1]
        several = folds is not None and len(np.unique(np.stack([people, folds]), axis=1).T) > len(names)
        folds = None if folds is None or several else folds[first]
        people, ids = np.arange(len(names)), np.array(names, dtype=str)
    if len(np.unique(people)) < 2:
        raise EnsembleError("decision rules need two people or more, found one")
    parts = outer_fold_ids(people, codes, folds)
    rows = LabeledRows(np.asarray(values, np.float64), codes, people, parts, ids, classes)
    return rows, DecisionSource(*name_and_kind, sha, rows.people, images, basis, persons is not None)
