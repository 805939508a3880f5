"""Check arrays that users give to functions: their shapes, values and names."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from folds.errors import UsageError, close_matches
from folds.utils.arguments import described
from folds.utils.numeric import factorize
from folds.utils.text import sort_classes

_log = logging.getLogger(__name__)
# Largest allowed deviation of a row's sum from 1; enough for products of softmax outputs in half precision.
SUM_TOLERANCE = 5e-3
NEGATIVE = -1e-6


def check_order(names: Sequence[str], y: ArrayLike | None, bare: str, named: str) -> None:
    """Raise UsageError if `bare`, an array without names of its columns, may have another order of classes than
    `named`, whose columns are `names`.

    Both have the same order if that of `named` is the sorted one, which an array has by default.
    """
    if y is None:
        expected: Sequence[str] = sort_classes(names)
    else:
        try:
            expected = class_codes(y, len(names), None)[1]
        except UsageError:
            expected = ()
    if tuple(expected) != tuple(names):
        raise UsageError(
            f"{bare} does not name the class of each column, and the columns of {named} ({', '.join(names[:20])}) are "
            "not in sorted order",
            hint=f"give the columns of {bare} in `classes`, or make it a DataFrame with these columns",
        )


def as_array(values: Any, name: str) -> NDArray:
    """Return `values` as an array; `name` is the parameter's name, for errors.

    Raises
    ------
    UsageError : rows have different lengths, or values are masked.
    """
    if np.ma.isMaskedArray(values):
        masked = np.argwhere(np.ma.getmaskarray(values))
        if len(masked):
            where = ", ".join(f"{axis} {at}" for axis, at in zip(("row", "column"), masked[0].tolist(), strict=False))
            raise UsageError(
                f"`{name}` must have no masked values, found {len(masked):,}, first in {where}",
                hint="remove these rows from all arrays",
            )
    try:
        return np.asarray(values)
    except ValueError:
        lengths = sorted({len(row) if hasattr(row, "__len__") else 0 for row in values})
        raise UsageError(
            f"`{name}` must have rows of one length, found lengths {', '.join(map(str, lengths[:5]))}"
        ) from None


def as_probabilities(values: ArrayLike, name: str) -> NDArray[np.floating]:
    """Return `values` as (n, classes) floats whose rows sum to 1; `name` is the parameter's name, for errors."""
    array = as_array(values, name)
    if array.ndim == 0:
        raise UsageError(
            f"`{name}` must be (samples, classes), found {described(values)}",
            hint="use one row per sample and one column per class",
        )
    if array.ndim != 2 or 0 in array.shape:
        hint = (
            "for two classes: numpy.column_stack([1 - p, p])"
            if array.ndim == 1
            else "use one row per sample and one column per class"
        )
        raise UsageError(f"`{name}` must be (samples, classes), found {shape_text(array)}", hint=hint)
    if array.dtype.kind not in "fiub":
        raise UsageError(f"`{name}` must hold numbers, found dtype {array.dtype}")
    if array.dtype.kind != "f":
        array = array.astype(np.float64)
    if not np.isfinite(array).all():
        row, column = (int(index[0]) for index in np.nonzero(~np.isfinite(array)))
        raise UsageError(f"`{name}` must be finite, found {array[row, column]} in row {row}, column {column}")
    sums = array.sum(axis=1, dtype=np.float64)
    wrong = np.flatnonzero((np.abs(sums - 1) > SUM_TOLERANCE) | (array.min(axis=1) < NEGATIVE))
    if len(wrong):
        row = int(wrong[0])
        fault = f"sums to {sums[row]:.4g}" if array[row].min() >= NEGATIVE else f"has the value {array[row].min():.4g}"
        raise UsageError(
            f"`{name}` must hold probabilities, but row {row} {fault} ({len(wrong):,} of {len(array):,} rows wrong)",
            hint="convert logits by scipy.special.softmax(logits, axis=1)",
        )
    return array


def column_classes(values: Any, classes: Sequence[Any] | None) -> tuple[str, ...] | None:
    """Return the classes of the columns: those given, else the columns of a DataFrame, else None (unknown)."""
    own = frame_columns(values)
    if classes is None:
        return own
    given = tuple(name_text(name) for name in classes)
    if len(set(given)) < len(given):
        raise UsageError(f"`classes` names a class twice: {', '.join(given)}")
    if own is not None and own != given:
        raise UsageError(
            f"`classes` is {', '.join(given)}, but the columns are {', '.join(own)}",
            hint="omit `classes`: the columns name the classes",
        )
    return given


def by_name(values: NDArray[Any], given: Any, names: Sequence[str]) -> NDArray[Any]:
    """Return the columns of an array in the order of `names`, if what it was made of is a DataFrame with these columns.

    Parameters
    ----------
    values : (n, columns) the array of `given`.
    given : as the user gave it; other columns than `names`, and an array, are taken in their order.
    """
    own = frame_columns(given)
    if own is None or own == tuple(names) or sorted(own) != sorted(names):
        return values
    return values[:, [own.index(name) for name in names]]


def class_codes(y: ArrayLike, columns: int, classes: Sequence[str] | None) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return (n,) class indices and the class of each column.

    If `classes` is None and `y` has as many distinct values as there are columns, these are the classes, sorted as by
    numpy.unique (``classes_`` of scikit-learn). Whole numbers that include 0 are taken as indices if there are fewer
    distinct values than columns.

    Raises
    ------
    UsageError : a value of `y` is not a class, or the classes of the columns are unknown.
    """
    labels = names_of(y, "y")
    if classes is not None and len(classes) != columns:
        raise UsageError(f"`classes` has {len(classes)} names for {columns} columns of probabilities")
    if classes is None:
        classes = _classes_of(labels, as_array(y, "y"), columns)
    code = {name: i for i, name in enumerate(classes)}
    unknown = sorted(set(labels.tolist()) - set(code))
    if unknown:
        close = close_matches(unknown[0], list(classes))
        suggestion = f"; did you mean {' or '.join(close)}?" if close else ""
        raise UsageError(
            f"{int(np.isin(labels, unknown).sum()):,} values of `y` are none of the {columns} classes, e.g. "
            f"'{unknown[0]}'{suggestion}",
            hint=f"the classes are {', '.join(list(classes)[:20])}",
        )
    return np.fromiter(map(code.__getitem__, labels.tolist()), np.int64, len(labels)), tuple(classes)


def _classes_of(labels: NDArray[np.str_], y: NDArray, columns: int) -> tuple[str, ...]:
    """Return the classes of the columns if neither an argument nor a DataFrame names them."""
    distinct = sorted(set(labels.tolist()))
    numbers = all(name.isascii() and name.isdecimal() for name in distinct)
    are_text = y.dtype.kind in "USO" and any(isinstance(value, str) for value in y.tolist())
    if len(distinct) == columns:
        by_number = sorted(distinct, key=int) if numbers else distinct
        if by_number != distinct and are_text:
            raise UsageError(
                f"`y` has numbers as text, so the order of the columns is ambiguous: {', '.join(distinct[:3])}, … or "
                f"{', '.join(by_number[:3])}, …",
                hint="give the class of each column in `classes`",
            )
        return tuple(by_number)
    if numbers and "0" in distinct and not are_text and max(map(int, distinct)) < columns:
        return tuple(map(str, range(columns)))
    raise UsageError(
        f"`y` has {len(distinct)} classes, the probabilities have {columns} columns",
        hint="give the class of each column in `classes`",
    )


def names_of(values: ArrayLike, name: str, rows: int | None = None) -> NDArray[np.str_]:
    """Return (n,) values as text, 1.0 as ``1``; `name` is the parameter's name, and `rows` the required n.

    Raises
    ------
    UsageError : `values` is not one column, has another length, or a value is missing.
    """
    array = as_array(values, name)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or (rows is not None and len(array) != rows):
        expected = "one value per row" if rows is None else f"one value for each of {rows:,} rows"
        found = f"{len(array):,} values" if array.ndim == 1 else shape_text(array) if array.ndim else described(values)
        raise UsageError(f"`{name}` must be {expected}, found {found}")
    names = texts_of(values, array)
    missing = np.flatnonzero(names == "")
    if len(missing):
        raise UsageError(
            f"`{name}` has no value in {len(missing):,} rows, first in row {missing[0]}", hint="remove these rows"
        )
    return names


def texts_of(values: Any, array: NDArray) -> NDArray[np.str_]:
    """Return (n,) the values of a column as text, "" for a missing one.

    Parameters
    ----------
    values : as they were given. numpy makes a text of every value of a list that has one: "nan" of a missing value, and
        "1.0" of a number whose text is 1.
    array : (n,) the array that numpy makes of them.
    """
    if array.dtype.kind != "U":
        return np.array([name_text(value) for value in array.tolist()], dtype=str) if len(array) else np.zeros(0, str)
    if not isinstance(values, list | tuple) or all(isinstance(value, str) for value in values):
        return array
    cells = np.array(values, dtype=object).reshape(array.shape).tolist()
    plain = [cell.item() if isinstance(cell, np.floating | np.integer) else cell for cell in cells]
    return np.array([name_text(value) for value in plain], dtype=str)


def check_lengths(rows: int, **arrays: NDArray) -> None:
    """Raise UsageError if an array has another number of rows than `y`."""
    for name, values in arrays.items():
        if len(values) != rows:
            raise UsageError(
                f"`{name}` has {len(values):,} rows, `y` has {rows:,}",
                hint="they must have the same rows in the same order",
            )


def check_same_index(named: Mapping[str, Any]) -> None:
    """Raise UsageError if two Series or DataFrames have different indexes, because rows are matched by position.

    Parameters
    ----------
    named : name → value, in the order in which they are compared; values without an index are ignored.
    """
    indexed = {name: value.index for name, value in named.items() if hasattr(value, "iloc") and hasattr(value, "index")}
    if len(indexed) > 1:
        first, *others = indexed
        for name in others:
            if not indexed[name].equals(indexed[first]):
                raise UsageError(
                    f"{first} and {name} have different indexes, but rows are matched by position",
                    hint="sort them in the same order, or pass .to_numpy()",
                )


def fold_numbers(fold: ArrayLike, n: int, name: str = "fold") -> NDArray[np.int64] | int:
    """Return (n,) folds, or one fold for all rows; whole numbers stored as floats are folds, too.

    Raises
    ------
    UsageError : a value is not a whole number from 0, or there are not n of them.
    """
    array = as_array(fold, name)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    is_whole = array.dtype.kind in "iuf" and array.size > 0 and np.isfinite(array).all() and not (array % 1).any()
    if not is_whole or array.ndim > 1 or array.min() < 0 or (array.ndim == 1 and len(array) != n):
        found = f"{len(array):,} values" if is_whole and array.ndim == 1 and len(array) != n else described(fold)
        raise UsageError(
            f"`{name}` must be whole numbers from 0: one per row ({n:,}), or one for all; found {found}",
            hint=f"omit `{name}` if the folds are unknown",
        )
    return int(array) if array.ndim == 0 else array.astype(np.int64)


def name_text(value: Any) -> str:
    """Return a label or person as text, "" if it is missing."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return ""
    if isinstance(value, float):
        return "" if value != value else str(int(value)) if value.is_integer() else str(value)
    return str(value.decode() if isinstance(value, bytes) else value)


def frame_columns(values: Any) -> tuple[str, ...] | None:
    """Return the columns of a DataFrame, None for other values."""
    columns = getattr(values, "columns", None)
    return None if columns is None else tuple(map(name_text, columns))


def persons_of(groups: ArrayLike | None, rows: int) -> NDArray[np.int64]:
    if groups is None:
        _log.info("no `groups`: the interval is over rows, and too narrow if people have several rows")
        return np.arange(rows)
    return factorize(names_of(groups, "groups", rows))[1]


def shape_text(array: NDArray) -> str:
    return " × ".join(f"{size:,}" for size in array.shape)
