"""Check arrays of several labels, or of numbers, that users give to functions, and guess the task of arrays."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from folds.errors import UsageError, unknown_name
from folds.metrics.array_checks import NEGATIVE, as_array, frame_columns, name_text, shape_text
from folds.metrics.classification import Metric
from folds.metrics.custom import metric_of
from folds.metrics.task_names import ALL_TASKS, CLASSES, LARGEST_NUMBER, MULTILABEL, REGRESSION

_log = logging.getLogger(__name__)
_MISSING = ("NAType", "NaTType")


def task_of_arrays(
    y: ArrayLike | None,
    predictions: Mapping[str, Any],
    task: str | None,
    metric: str | Metric | Callable[..., Any] | None = None,
    name: str = "y",
) -> str:
    """Return the task of labels and predictions: the given one, else what the metric or the arrays say, which is
    logged.

    Several columns of 0, 1 and nan are several labels, other columns of numbers are numbers. One column of numbers
    with fractions beside one column of predictions is a regression; whole numbers could be classes and are never
    guessed to be anything else.

    Parameters
    ----------
    predictions : parameter → array, for the shapes.
    name : the parameter of the labels, for messages.

    Raises
    ------
    UsageError : the task is unknown.
    """
    if task is not None:
        if task not in ALL_TASKS:
            raise unknown_name("`task`", task, list(ALL_TASKS))
        return task
    if metric is not None:
        fitting = metric_of(metric).tasks
        if CLASSES not in fitting:
            return fitting[0]
    labels = as_array(y, name) if y is not None else np.zeros(0)
    values = _numbers(labels) if labels.ndim in (1, 2) and labels.size else None
    if values is None or (labels.ndim == 2 and labels.shape[1] == 1):
        return CLASSES
    if labels.ndim == 2:
        found = _task_of_columns(values)
        what = "0 and 1" if found == MULTILABEL else "numbers"
        _log.info("`%s` has %d columns of %s: `task=%s`", name, labels.shape[1], what, found)
        return found
    known = values[~np.isnan(values)]
    shapes = [as_array(one, parameter).shape for parameter, one in predictions.items()]
    if (
        all(len(shape) == 1 or shape[1:] == (1,) for shape in shapes)
        and (known % 1 != 0).any()
        and len(np.unique(known)) > 2
    ):
        _log.info("`%s` has numbers with fractions, and the predictions one column: `task=regression`", name)
        return REGRESSION
    return CLASSES


def _task_of_columns(labels: NDArray[np.floating]) -> str:
    """Return multilabel if every known one of (n, columns) is 0 or 1, else regression."""
    return MULTILABEL if (np.isnan(labels) | (labels == 0) | (labels == 1)).all() else REGRESSION


def column_names(given: Mapping[str, Any], classes: Sequence[Any] | None, columns: int) -> tuple[str, ...] | None:
    """Return the names of the columns: those of `classes`, or of the first DataFrame; None if nothing names them.

    Parameters
    ----------
    given : parameter → array or DataFrame, predictions first.

    Raises
    ------
    UsageError : two of them have other names, or there are not as many as columns.
    """
    named = {f"`{name}`": frame_columns(one) for name, one in given.items()}
    if classes is not None:
        named = {"`classes`": tuple(map(name_text, classes)), **named}
    known = {name: own for name, own in named.items() if own is not None}
    if len(known) < 1:
        return None
    first, *others = known
    for other in others:
        # One column is called as its table calls it: the number and its prediction have different names.
        if set(known[other]) != set(known[first]) and columns > 1:
            raise UsageError(
                f"the columns of {first} and {other} differ: {', '.join(known[first])} and {', '.join(known[other])}",
                hint="rename them, or pass .to_numpy() of both with the columns in one order",
            )
    if len(known[first]) != columns:
        raise UsageError(f"{first} has {len(known[first])} names for {columns} columns")
    return known[first]


def as_columns(values: ArrayLike, name: str, task: str, names: Sequence[str] | None = None) -> NDArray[np.floating]:
    """Return predictions as (n, columns) floats: probabilities from 0 to 1 of several labels, or finite numbers.

    Parameters
    ----------
    values : (n, columns), or (n,) for one column.
    name : the parameter's name, for errors.
    names : the order of the columns of a DataFrame; None for its own.

    Raises
    ------
    UsageError : another shape, or a value is not finite or no probability.
    """
    array = _in_order(values, name, names)
    if array.dtype.kind != "f":
        array = _as_numbers(array, name)
    where = np.argwhere(~np.isfinite(array))
    if len(where):
        row, column = where[0].tolist()
        raise UsageError(f"`{name}` must be finite, found {array[row, column]} in row {row}, column {column}")
    if task == REGRESSION and array.size and max(-array.min(), array.max()) > LARGEST_NUMBER:
        raise UsageError(
            f"`{name}` must hold numbers of at most {LARGEST_NUMBER:g}, found {np.abs(array).max():g}",
            hint="give them in a larger unit",
        )
    if task == MULTILABEL:
        wrong = np.argwhere((array < NEGATIVE) | (array > 1 - NEGATIVE))
        if len(wrong):
            row, column = wrong[0].tolist()
            raise UsageError(
                f"`{name}` must hold a probability of each label, but row {row}, column {column} is "
                f"{array[row, column]:.4g} ({len(wrong):,} of {array.size:,} values wrong)",
                hint="convert logits by scipy.special.expit(logits), or set `task=regression`",
            )
    return array


def as_label_columns(
    values: ArrayLike, name: str, task: str, columns: int | None = None, names: Sequence[str] | None = None
) -> NDArray[np.float64]:
    """Return labels as (n, columns) float64, nan where one is not known: 0 and 1 of several labels, or numbers.

    Parameters
    ----------
    values : (n, columns), or (n,) for one column.
    columns : the required number; None for any.
    names : the order of the columns of a DataFrame; None for its own.

    Raises
    ------
    UsageError : another shape, or a value is neither 0 nor 1, or infinite.
    """
    array = _as_numbers(_in_order(values, name, names), name)
    if columns is not None and array.shape[1] != columns:
        raise UsageError(f"`{name}` has {array.shape[1]} columns, the predictions have {columns}")
    allowed = np.isnan(array)
    allowed |= (np.abs(array) <= LARGEST_NUMBER) if task == REGRESSION else (array == 0) | (array == 1)
    wrong = np.argwhere(~allowed)
    if len(wrong):
        row, column = wrong[0].tolist()
        numbers = f"numbers of at most {LARGEST_NUMBER:g}" if np.isfinite(array[row, column]) else "finite numbers"
        expected = f"{numbers}, or nan" if task == REGRESSION else "0, 1, or nan if a label is not known"
        raise UsageError(
            f"`{name}` must hold {expected}, found {array[row, column]:g} in row {row}, column {column}",
            hint=None if task == REGRESSION else "numbers are scored by `task=regression`",
        )
    return array


def _in_order(values: Any, name: str, names: Sequence[str] | None) -> NDArray:
    """Return (n, columns) the values, with the columns of a DataFrame in the order of `names`."""
    array = as_array(values, name)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or 0 in array.shape:
        raise UsageError(
            f"`{name}` must be (samples, columns), found {shape_text(as_array(values, name)) or 'one value'}",
            hint="use one row per sample and one column per label",
        )
    own = frame_columns(values)
    if names is None or own is None or own == tuple(names) or set(own) != set(names):
        return array
    return array[:, [own.index(one) for one in names]]


def _as_numbers(array: NDArray, name: str) -> NDArray[np.float64]:
    found = _numbers(array)
    if found is None:
        raise UsageError(
            f"`{name}` must hold numbers, found dtype {array.dtype}", hint="use nan where a label is not known"
        )
    return found


def _numbers(array: NDArray) -> NDArray[np.float64] | None:
    """Return an array as float64, nan for missing values of any kind; None if a value is no number."""
    if array.dtype.kind in "fiub":
        return array.astype(np.float64)
    if array.dtype.kind != "O":
        return None
    found = np.empty(array.size, np.float64)
    for i, value in enumerate(array.ravel().tolist()):
        if value is None or type(value).__name__ in _MISSING:
            found[i] = math.nan
        elif isinstance(value, str | bytes):
            return None
        else:
            try:
                found[i] = float(value)
            except (TypeError, ValueError):
                return None
    return found.reshape(array.shape)
