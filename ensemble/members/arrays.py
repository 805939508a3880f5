"""Read arrays of predictions of any shape that people save, from `.npy` files and `.npz` archives; never pickles."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError
from folds.predictions.files import load_npy

# Uncompressed bytes of an archive: a small file may expand to any size.
MAX_BYTES = 16 << 30
_MEANINGS = {
    "oof": ("oof", "oof_preds", "oof_pred", "oof_prob", "oof_probs", "oof_predictions", "val", "valid", "val_preds"),
    "test": ("test", "test_preds", "test_pred", "test_prob", "test_probs", "test_predictions", "submission"),
    "": ("probs", "proba", "prob", "probabilities", "predictions", "preds", "pred", "p", "y_pred", "y_prob", "arr_0"),
    "logits": ("logits", "arr_logits"),
    "oof_ids": ("oof_ids", "oof_id", "train_ids", "val_ids"),
    "test_ids": ("test_ids", "test_id"),
    "ids": ("ids", "id", "image_ids", "image_id", "filenames", "names", "files"),
    "classes": ("classes", "class_names", "classes_", "columns"),
    "labels": ("labels", "label", "y", "y_true", "target", "targets", "oof_labels", "oof_y"),
    "fold": ("fold", "folds", "fold_id"),
    "persons": ("persons", "person", "groups", "group", "patient_id", "patients"),
}
_MEANING_OF = {name: meaning for meaning, names in _MEANINGS.items() for name in names}


@dataclass(frozen=True)
class ArrayFile:
    """One array of predictions in a file.

    Attributes
    ----------
    values : (n, classes) as stored, or (n, 2) made of one column: 1 − p and p, or 0 and the logit.
    one_column : whether `values` was made of one column, so that the order of its classes is open.
    key : the name of the array in an archive, "" in a `.npy` file.
    split : ``oof`` or ``test`` if the archive says so.
    logit : whether the archive says that these are logits.
    about : what the archive says of the array: ids, classes, labels, persons, fold.
    form : the form in the file, for the reader.
    """

    values: NDArray
    one_column: bool = False
    key: str = ""
    split: str = ""
    logit: bool = False
    about: Mapping[str, NDArray] | None = None
    form: str = "array"


def read_arrays(path: Path, logits: bool = False, keeps_column: Callable[[], bool] | None = None) -> list[ArrayFile]:
    """Return the array of a `.npy` file, or the one or two arrays of predictions of an archive.

    Parameters
    ----------
    logits : whether one column holds logits.
    keeps_column : whether one column is one label or number, and not the positive one of two classes.

    Raises
    ------
    EnsembleError : the file is damaged, holds Python objects, or its shape or type is not that of predictions.
    """
    loaded = load_npy(path)
    if isinstance(loaded, np.ndarray):
        return [as_predictions(str(path), loaded, logits, keeps_column)]
    with loaded as archive:
        return _of_archive(path, archive, logits, keeps_column)


def as_predictions(
    source: str, values: NDArray, logits: bool = False, keeps_column: Callable[[], bool] | None = None
) -> ArrayFile:
    """Return an array as predictions (n, classes); the parameters are those of `read_arrays`.

    Raises
    ------
    EnsembleError : its shape or type is not that of predictions; the hint says how to save it.
    """
    shape = " × ".join(f"{size:,}" for size in values.shape) or "a single number"
    if values.ndim == 3 and 0 not in values.shape:
        raise EnsembleError(
            f"{source}: expected a 2-D array (samples, classes), found {shape}",
            hint="save the mean over the folds: array.mean(0) if the folds are the first axis; or one file per fold",
        )
    single = values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)
    if values.ndim not in (1, 2) or 0 in values.shape:
        raise EnsembleError(
            f"{source}: expected a 2-D array (samples, classes), found {shape}",
            hint="save one row per sample and one column per class",
        )
    if single and values.dtype.kind in "fiu" and keeps_column is not None and keeps_column():
        return ArrayFile(np.asarray(values).reshape(len(values), 1))
    if single and values.dtype.kind in "biuUS":
        raise EnsembleError(
            f"{source}: expected a 2-D array (samples, classes), found one column of answers ({values.dtype})",
            hint="write the answers to a CSV with the header id,ans and vote with `method=hard`; or save them as "
            "probabilities: np.eye(number_of_classes)[answers]",
        )
    if values.dtype.kind not in "fiu":
        raise EnsembleError(
            f"{source}: expected numbers, found dtype {values.dtype}",
            hint="save it again with np.save(file, array.astype('float32'))",
        )
    if not single:
        return ArrayFile(values)
    return ArrayFile(two_columns(source, np.asarray(values).reshape(len(values)), logits), True, form="one column")


def two_columns(source: str, values: NDArray, logits: bool) -> NDArray[np.float64]:
    """Return (n, 2) for the output of one unit: 1 − p and p, or 0 and the logit, whose softmax is the sigmoid.

    Raises
    ------
    EnsembleError : a number is not finite, or not between 0 and 1 and `logits` is False.
    """
    column = values.astype(np.float64)
    wrong = np.flatnonzero(~np.isfinite(column))
    if len(wrong):
        raise EnsembleError(
            f"{source}: row {wrong[0]} is {column[wrong[0]]}, expected a finite number",
            hint="remove samples without a prediction",
        )
    if logits:
        return np.stack([np.zeros(len(column)), column], axis=1)
    outside = np.flatnonzero((column < -1e-6) | (column > 1 + 1e-6))
    if len(outside):
        whole = bool((column == np.round(column)).all())
        raise EnsembleError(
            f"{source}: expected a probability in each row, but row {outside[0]} has the value "
            f"{column[outside[0]]:.4g}; {len(outside):,} of {len(column):,} rows are not probabilities",
            hint="write answers to a CSV with the header id,ans"
            if whole
            else "add `logits=True` if these are the logits of one output unit",
        )
    column = np.clip(column, 0, 1)
    return np.stack([1 - column, column], axis=1)


def _of_archive(
    path: Path, archive: Any, logits: bool, keeps_column: Callable[[], bool] | None = None
) -> list[ArrayFile]:
    """Return the arrays of predictions in an archive."""
    keys = list(archive.files)
    _check_size(path)
    if len(keys) == 1:
        found = as_predictions(f"{path}", _load(path, archive, keys[0]), logits or _is_logits(keys[0]), keeps_column)
        meaning = _MEANING_OF.get(keys[0].lower(), "")
        split = meaning if meaning in ("oof", "test") else ""
        return [
            ArrayFile(
                found.values, found.one_column, keys[0], split, _is_logits(keys[0]), form=f"archive, {found.form}"
            )
        ]
    meanings: dict[str, str] = {}
    for key in keys:
        known = _MEANING_OF.get(key.lower())
        if known is None or known in meanings:
            raise _unclear(path, archive)
        meanings[known] = key
    predictions = [meaning for meaning in ("oof", "test", "", "logits") if meaning in meanings]
    if not predictions or (len(predictions) > 1 and set(predictions) != {"oof", "test"}):
        raise _unclear(path, archive)
    made = []
    for meaning in predictions:
        key = meanings[meaning]
        logit = meaning == "logits"
        found = as_predictions(f"{path} ({key})", _load(path, archive, key), logits or logit, keeps_column)
        about = _about(path, archive, meanings, meaning, predictions)
        _check_lengths(path, found.values, about)
        split = meaning if meaning in ("oof", "test") else ""
        made.append(
            ArrayFile(found.values, found.one_column, key, split, logit, about, f"archive ({key}), {found.form}")
        )
    return made


def _about(
    path: Path, archive: Any, meanings: Mapping[str, str], meaning: str, predictions: Sequence[str]
) -> dict[str, NDArray]:
    """Return what an archive says of one array of predictions.

    In an archive of out-of-fold and test predictions, labels, folds and persons are those of the out-of-fold rows, and
    `ids` are those of the array with as many rows.
    """
    about: dict[str, NDArray] = {}
    pair = len(predictions) > 1
    for name in ("ids", "classes", "labels", "fold", "persons"):
        own = f"{meaning}_ids" if name == "ids" and f"{meaning}_ids" in meanings else name
        if own not in meanings:
            continue
        column = _column(path, meanings[own], _load(path, archive, meanings[own]))
        if pair and own == "ids":
            fitting = [one for one in predictions if len(_load(path, archive, meanings[one])) == len(column)]
            if fitting != [meaning]:
                continue
        if not pair or name in ("ids", "classes") or meaning == "oof":
            about[name] = column
    return about


def _is_logits(key: str) -> bool:
    return _MEANING_OF.get(key.lower()) == "logits"


def _load(path: Path, archive: Any, key: str) -> NDArray:
    try:
        return np.asarray(archive[key])
    except Exception as error:
        reason = str(error)
        if "allow_pickle" in reason or "Object arrays" in reason:
            reason = "it contains Python objects, which could run code"
        raise EnsembleError(
            f"{path}: the array '{key}' is not usable: {reason}",
            hint="save it again with np.savez(file, name=array.astype('float32'))",
        ) from None


def _check_size(path: Path) -> None:
    with zipfile.ZipFile(path) as file:
        size = sum(one.file_size for one in file.infolist())
    if size > MAX_BYTES:
        raise EnsembleError(
            f"{path} holds {size >> 30:,} GB uncompressed, expected at most {MAX_BYTES >> 30} GB",
            hint="save each array with np.save",
        )


def _column(path: Path, key: str, values: NDArray) -> NDArray:
    if values.ndim != 1 or values.dtype.kind not in "biufUS":
        raise EnsembleError(
            f"{path}: the array '{key}' must hold one text or number per row, found {values.dtype} {values.shape}",
            hint="save it again as a list of text: np.array(names, dtype=str)",
        )
    return values


def _check_lengths(path: Path, values: NDArray, about: Mapping[str, NDArray]) -> None:
    for name, column in about.items():
        expected = values.shape[1] if name == "classes" else len(values)
        if len(column) != expected:
            raise EnsembleError(
                f"{path}: '{name}' has {len(column):,} entries, expected {expected:,} for predictions of "
                f"{values.shape[0]:,} × {values.shape[1]}",
                hint="save one entry per row, and one class per column",
            )


def _unclear(path: Path, archive: Any) -> EnsembleError:
    keys = list(archive.files)
    return EnsembleError(
        f"{path} holds the arrays {', '.join(keys[:12])}, and it is unknown which of them are the predictions",
        hint=f"save one of them: np.save('NAME.npy', np.load({path.name!r})[{keys[0]!r}]); known names are oof, "
        "test, ids, classes, labels, fold",
    )
