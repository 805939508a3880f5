"""Make members of a blend from arrays in memory with a column for each label or number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ensemble.blending.arrays import ArrayMembers, member_of_array, member_of_predictions, split_predictions
from ensemble.blending.row_arrays import RowArrays
from ensemble.members.reading import Member
from folds.errors import UsageError
from folds.metrics.arrays import as_array, column_classes
from folds.metrics.task_names import MULTILABEL
from folds.predictions.files import PredictionMetadata
from folds.predictions.label_columns import check_column_names, label_texts
from folds.predictions.links import kind_of
from folds.predictions.predictions import Predictions
from folds.predictions.rows import SampleRows

_TOLERANCE = 1e-6


def members_of_columns(
    predictions: Mapping[str, Any],
    split: str,
    task: str,
    *,
    y: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    fold: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    classes: Sequence[Any] | None = None,
) -> ArrayMembers:
    """Return a member for each name.

    Parameters
    ----------
    predictions : name → (n, columns) probabilities of the labels or numbers, (n,) for one number, a DataFrame with a
        column for each, or `Predictions`; arrays have the same rows in the same order.
    split : ``oof`` or ``test``.
    task : ``multilabel`` or ``regression``.
    y : (n, columns) or (n,) true labels (0, 1, nan if unknown) or numbers.
    groups, fold, ids : (n,) the person, fold and id of each row.
    classes : the label or number of each column.

    Raises
    ------
    UsageError : an invalid name, different lengths or columns, or a value that is no probability or number.
    """
    arrays, own = split_predictions(predictions)
    given = RowArrays(y, groups, fold, ids)
    order = _names(predictions, y, classes, task)
    members = {name: _of_predictions(name, value, split, task) for name, value in own.items()}
    if arrays:
        members |= _of_arrays(arrays, split, task, order, given, bool(own))
    else:
        given.check_unused()
    return ArrayMembers(tuple(members[name] for name in predictions), order)


def _names(predictions: Mapping[str, Any], y: Any, classes: Sequence[Any] | None, task: str) -> tuple[str, ...]:
    """Return the names of the columns: those given, of predictions, of a DataFrame, or numbers from 0."""
    named = None if classes is None else column_classes(None, classes)
    for value in () if named is not None else predictions.values():
        named = named or (value.classes if isinstance(value, Predictions) else column_classes(value, None))
    if named is None and y is not None:
        named = column_classes(y, None)
    if named is None:
        shape = np.shape(next(iter(predictions.values())))
        named = tuple(map(str, range(shape[1] if len(shape) == 2 else 1)))
    check_column_names(named, task)
    return named


def _of_arrays(
    arrays: Mapping[str, Any],
    split: str,
    task: str,
    order: tuple[str, ...],
    given: RowArrays,
    mixed: bool,
) -> dict[str, Member]:
    values = {name: _as_columns(value, f"'{name}'", len(order)) for name, value in arrays.items()}
    first, n = next(iter(values)), len(next(iter(values.values())))
    for name, array in values.items():
        if len(array) != n:
            raise UsageError(f"'{first}' has {n:,} rows, '{name}' has {len(array):,}", hint="use the same rows")
        _check_values(array, name, task)
    names = given.names(n, mixed)
    labels = None if given.y is None else _true_texts(given.y, n, order, task)
    rows = SampleRows(names, labels, given.persons(n))
    folds = given.folds(arrays, n)
    members = {}
    for name, array in values.items():
        theirs = column_classes(arrays[name], None) or order
        if set(theirs) != set(order):
            raise UsageError(f"'{name}' has the columns {', '.join(theirs[:20])}, expected {', '.join(order[:20])}")
        meaning = PredictionMetadata(kind_of(task), split, theirs, rows, fold=folds, run=name, task=task)
        members[name] = member_of_array(name, array, meaning)
    return members


def _as_columns(values: Any, name: str, columns: int) -> NDArray[np.float64]:
    """Return (n, columns) float64; (n,) counts as one column."""
    array = as_array(values, name)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or array.dtype.kind not in "fiub" or array.shape[1] != columns or not len(array):
        shape = " × ".join(map(str, np.shape(values)))
        raise UsageError(
            f"{name} must be numbers, (samples, {columns}), found {shape} of {array.dtype}",
            hint="use one row per sample, and one column per label or number; name them in `classes`",
        )
    return array.astype(np.float64)


def _check_values(values: NDArray[np.float64], name: str, task: str) -> None:
    wrong = ~np.isfinite(values)
    if task == MULTILABEL:
        wrong |= (values < -_TOLERANCE) | (values > 1 + _TOLERANCE)
    if wrong.any():
        row, column = (int(place) for place in np.argwhere(wrong)[0])
        expected = "a probability from 0 to 1" if task == MULTILABEL else "a finite number"
        raise UsageError(f"'{name}' has {values[row, column]:g} in row {row}, column {column}, expected {expected}")


def _true_texts(y: Any, n: int, order: tuple[str, ...], task: str) -> NDArray[np.str_]:
    values = _as_columns(y, "`y`", len(order))
    named = column_classes(y, None) if np.ndim(y) == 2 else None
    if named is not None and len(order) > 1:  # a single column may have any name
        if set(named) != set(order):
            raise UsageError(
                f"`y` has the columns {', '.join(named[:20])}, the predictions {', '.join(order[:20])}",
                hint="name the columns of `y` as those of the predictions, or give it as an array in their order",
            )
        values = values[:, [named.index(name) for name in order]]
    if len(values) != n:
        raise UsageError(f"`y` has {len(values):,} rows, the predictions have {n:,}", hint="use the same rows")
    known = values[~np.isnan(values)]
    if np.isinf(known).any() or (task == MULTILABEL and not np.isin(known, (0, 1)).all()):
        expected = "0, 1, or nan if unknown" if task == MULTILABEL else "finite, or nan if unknown"
        raise UsageError(f"`y` must be {expected}", hint="`task='regression'` for numbers" * (task == MULTILABEL))
    return label_texts(values, order, task)


def _of_predictions(name: str, value: Predictions, split: str, task: str) -> Member:
    if value.metadata.task != task:
        raise UsageError(f"'{name}' is of the task {value.metadata.task}, expected {task}")
    return member_of_predictions(name, value, split, kind_of(task))
