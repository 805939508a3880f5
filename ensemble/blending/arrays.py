"""Make members of a blend from predictions in memory: arrays, DataFrames, `Predictions`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ensemble.alignment.naming import positive_last
from ensemble.blending.row_arrays import RowArrays
from ensemble.members.arrays import as_predictions
from ensemble.members.leakage import LeakCheck
from ensemble.members.reading import Member
from folds.errors import CONTROL, EnsembleError, UsageError, printable
from folds.metrics.arrays import (
    as_array,
    as_probabilities,
    check_order,
    class_codes,
    column_classes,
    names_of,
)
from folds.predictions.files import PredictionMetadata
from folds.predictions.predictions import Predictions
from folds.predictions.rows import SampleRows
from folds.utils.arguments import described
from folds.utils.files import sha256_bytes

if TYPE_CHECKING:
    import pandas as pd

    Predicted: TypeAlias = ArrayLike | pd.DataFrame | Predictions


@dataclass(frozen=True)
class ArrayMembers:
    """Members made from arrays, and the class order of the arrays, which is also the order of the results."""

    members: tuple[Member, ...]
    classes: tuple[str, ...]


def members_of_arrays(
    predictions: Mapping[str, Predicted],
    split: str,
    *,
    y: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    fold: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    classes: Sequence[Any] | None = None,
    extra: Mapping[str, ArrayLike] | None = None,
) -> ArrayMembers:
    """Return a member for each name.

    All arrays have the same rows in the same order. `Predictions` are aligned by id, and contain their labels, people
    and folds.

    Parameters
    ----------
    split : ``oof`` or ``test``.
    y, groups, fold, ids : (n,) label, person, fold and id of each row of the arrays, if known; without `ids`, rows are
        numbered.
    classes : class of each column of the arrays without names of columns; DataFrames and `Predictions` contain their
        own.
    extra : name → (n,) further columns of the rows of the arrays.

    Raises
    ------
    UsageError : no predictions, an invalid name, different lengths or classes, or an array without probabilities.
    """
    arrays, own = split_predictions(predictions)
    given = RowArrays(y, groups, fold, ids)
    order = _class_order(predictions, classes, y)
    members: dict[str, Member] = {}
    if arrays:
        members, order = _of_arrays(arrays, split, order, given, bool(own), extra or {})
    else:
        given.check_unused()
        if extra:
            raise UsageError(
                "values of `extra` apply to arrays, found only `Predictions`, whose rows have columns of their own",
                hint="name the columns: `extra=['age']`",
            )
    for name, value in own.items():
        members[name] = member_of_predictions(name, value, split, "probability")
    if order is None:  # pragma: no cover - every kind of input above sets it
        raise UsageError("`classes` must name the class of each column")
    return ArrayMembers(tuple(members[name] for name in predictions), order)


def split_predictions(predictions: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Predictions]]:
    """Return the arrays and the `Predictions` among these, by name.

    Raises
    ------
    UsageError : there are none, or a name is invalid.
    """
    if not predictions:
        raise UsageError("expected one or more predictions, found none", hint="blend({'a': a, 'b': b}, y=y)")
    for name in predictions:
        check_name(name)
    own = {name: value for name, value in predictions.items() if isinstance(value, Predictions)}
    return {name: value for name, value in predictions.items() if name not in own}, own


def check_name(name: Any) -> None:
    """Raise UsageError if a name of a run is not text, or could not be given as text of `weights`."""
    if not isinstance(name, str) or not name or any(mark in name for mark in ",=") or CONTROL.search(name):
        shown = f"'{printable(name)}'" if isinstance(name, str) else described(name)
        raise UsageError(
            f"{shown} is not a valid name of a run: expected text without commas, '=' and control characters"
        )


def _class_order(
    predictions: Mapping[str, Predicted], classes: Sequence[Any] | None, y: ArrayLike | None
) -> tuple[str, ...] | None:
    """Return `classes` if given, otherwise the class order of the first predictions that have one, or None.

    Raises
    ------
    UsageError : some predictions name their classes, others do not, and the order is not the one that arrays have by
        default.
    """
    if classes is not None:
        return column_classes(None, classes)
    own = {
        name: value.classes if isinstance(value, Predictions) else column_classes(value, None)
        for name, value in predictions.items()
    }
    named = next((name for name, found in own.items() if found is not None), None)
    bare = next((name for name, found in own.items() if found is None), None)
    order = None if named is None else own[named]
    if order is not None and bare is not None:
        check_order(order, y, f"'{bare}'", f"'{named}'")
    return order


def _of_arrays(
    arrays: Mapping[str, Any],
    split: str,
    order: tuple[str, ...] | None,
    given: RowArrays,
    mixed: bool,
    extra: Mapping[str, ArrayLike],
) -> tuple[dict[str, Member], tuple[str, ...]]:
    y = given.y
    order, widened = _in_two_columns(arrays, order, y)
    values = {name: as_probabilities(value, name) for name, value in widened.items()}
    first, n = next(iter(values)), len(next(iter(values.values())))
    _check_same_shape(values)
    columns = values[first].shape[1]
    if y is not None:
        found = as_array(y, "y")
        if found.ndim and len(found) != n:
            raise UsageError(
                f"`y` has {len(found):,} rows, '{first}' has {n:,}",
                hint="`y` and the arrays must have the same rows in the same order",
            )
        order = class_codes(y, columns, order)[1]
    elif order is None:
        order = tuple(map(str, range(columns)))
    elif len(order) != columns:
        raise UsageError(f"`classes` has {len(order)} names for {columns} columns of probabilities")
    rows = SampleRows(
        given.names(n, mixed),
        None if y is None else names_of(y, "y", n),
        given.persons(n),
        {name: _texts_of(values, name, n) for name, values in extra.items()},
    )
    folds = given.folds(arrays, n)
    members = {}
    for name, array in values.items():
        theirs = column_classes(widened[name], None) or order
        if set(theirs) != set(order):
            raise UsageError(
                f"'{name}' has the columns {', '.join(theirs[:20])}, expected the classes {', '.join(order[:20])}"
            )
        meaning = PredictionMetadata("probability", split, theirs, rows, fold=folds, run=name)
        members[name] = member_of_array(name, array, meaning)
    return members, order


def _texts_of(values: ArrayLike, name: str, n: int) -> NDArray[np.str_]:
    """Return (n,) the values of a column as texts; "" where a value is missing."""
    found = as_array(values, name)
    if found.shape != (n,):
        raise UsageError(f"`extra={name}` has the shape {found.shape}, expected ({n:,},)")
    return np.array(["" if value is None or value != value else str(value) for value in found.tolist()], dtype=str)


def _in_two_columns(
    arrays: Mapping[str, Any], order: tuple[str, ...] | None, y: ArrayLike | None
) -> tuple[tuple[str, ...] | None, dict[str, Any]]:
    """Return the order of the classes, and the arrays; (n,) and (n, 1) become 1 − p and p of two classes.

    Raises
    ------
    UsageError : one column, but not two classes, or it is unknown which of them is the positive one.
    """
    single = {
        name: array
        for name, value in arrays.items()
        if (array := as_array(value, name)).ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)
    }
    if not single:
        return order, dict(arrays)
    first, names = next(iter(single)), order
    try:
        if order is None or getattr(arrays[first], "columns", None) is not None:
            known = [] if y is None else list(dict.fromkeys(names_of(y, "y").tolist()))
            names = positive_last(first, known if order is None or len(order) == 1 else order)
        if names is None or len(names) != 2:
            raise UsageError(
                f"'{first}' is one column, but there are {len(names or ())} classes",
                hint="one column is enough only for two classes: pass one column per class",
            )
        changed = {name: as_predictions(name, np.asarray(value)).values for name, value in single.items()}
    except EnsembleError as error:
        raise UsageError(error.message, hint=error.hint) from None
    return names, {**arrays, **changed}


def member_of_predictions(name: str, value: Predictions, split: str, kind: str) -> Member:
    """Return the member of predictions, which contain their rows; what they were trained on is checked.

    Parameters
    ----------
    kind : one of `folds.predictions.files.KINDS`.
    """
    meaning = replace(value.metadata, kind=kind, split=split, run=name, samples_sha=None)
    LeakCheck().check(Path(name), meaning)
    return member_of_array(name, value.probabilities, meaning)


def member_of_array(name: str, array: NDArray[np.floating], meaning: PredictionMetadata) -> Member:
    """Return the member of an array with the metadata of a file."""
    values = np.ascontiguousarray(array, np.float32)
    rows, content = meaning.rows, sha256_bytes(values.tobytes())
    who = "".join(
        sha256_bytes(column.tobytes()) for column in (rows.ids, rows.labels, rows.persons) if column is not None
    )
    about = repr((meaning.kind, meaning.split, meaning.classes, meaning.target, who))
    fold = meaning.fold.tobytes().hex() if isinstance(meaning.fold, np.ndarray) else meaning.fold
    sha = sha256_bytes(repr((content, about, fold)).encode())
    return Member(Path(name), name, values, None, False, meaning, rows, rows, sha, content, about)


def _check_same_shape(values: Mapping[str, NDArray]) -> None:
    first, *others = values
    for name in others:
        if values[name].shape != values[first].shape:
            (n, columns), (rows, width) = values[first].shape, values[name].shape
            raise UsageError(
                f"'{first}' is {n:,} × {columns}, '{name}' is {rows:,} × {width}",
                hint="all arrays must have the same rows and classes",
            )
