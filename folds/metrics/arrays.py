"""Score and compare predictions given as arrays: the functions `score` and `compare`, and the checks of their
arguments.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from folds.errors import UsageError, close_matches
from folds.metrics.classification import Metric
from folds.metrics.custom import metric_of
from folds.metrics.grouping import average_by_person
from folds.metrics.intervals import Difference, Interval, check_level, difference_over_people, interval_over_people
from folds.metrics.positive import in_order_of_metric, positive_last, positive_of
from folds.utils.arguments import CLASSES, FLAG, check_arguments, described
from folds.utils.numeric import factorize
from folds.utils.schema import ANYTHING, optional
from folds.utils.text import sort_classes

_log = logging.getLogger(__name__)
# Largest allowed deviation of a row's sum from 1; enough for products of softmax outputs in half precision.
SUM_TOLERANCE = 5e-3
NEGATIVE = -1e-6
_KINDS = {"per_person": FLAG, "classes": optional(CLASSES), "positive": optional(ANYTHING)}


def score(
    y: ArrayLike,
    proba: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    metric: str | Metric | Callable[..., float] = "macro_f1",
    per_person: bool = False,
    classes: Sequence[Any] | None = None,
    positive: Any = None,
    level: float = 0.95,
) -> Interval:
    """Return a score with its confidence interval over people (groups).

    Parameters
    ----------
    y : (n,) true classes: names or numbers.
    proba : (n, classes) probabilities, or a DataFrame whose columns are the classes; for two classes also (n,) or
        (n, 1), the probability of the positive class.
    groups : (n,) the person (patient, camera, writer) of each row; without it every row counts as its own person.
    metric : a built-in metric, with settings after a colon: ``macro_f1``, ``accuracy``, ``balanced_accuracy``,
        ``kappa``, ``log_loss``, ``brier``, ``roc_auc``, ``roc_auc_micro``, ``average_precision``, ``pauc:tpr=0.8``,
        ``sensitivity_at:specificity=0.95``, ``specificity_at:sensitivity=0.95``, ``f_beta:beta=1``,
        ``probabilistic_f1``, ``mcc``, ``youden``, ``quadratic_kappa``, ``grade_mae``, ``top_k:k=3``,
        ``column_log_loss``; ``module:function``, or a function of (labels (n,) int, probabilities (n, classes)).
    per_person : average the probabilities of each person's rows first, and score people.
    classes : the class of each column of `proba`; by default the sorted values of `y`, as in ``classes_`` of
        scikit-learn.
    positive : the positive one of two classes, for metrics of a positive class; by default the one that the names tell
        (1, yes, malignant, …), which is logged, else the second.
    level : confidence level of the interval, above 0 and below 1.

    Rows are matched by position. Series and DataFrames must have the same index.

    Raises
    ------
    UsageError : lengths or indexes differ, `proba` is not probabilities, or the classes of its columns are unknown.

    Examples
    --------
    >>> import folds
    >>> y = ["cat", "cat", "dog", "dog", "cat", "dog"]
    >>> proba = [[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]]
    >>> found = folds.score(y, proba, groups=["ann", "ann", "bob", "bob", "cem", "dee"], metric="accuracy")
    >>> round(found.value, 3), found.people
    (0.833, 4)
    """
    check_arguments(locals(), _KINDS)
    check_level(level)
    columns, names = _in_two_columns(proba, "proba", y, classes, positive)
    names, values = column_classes(columns, names), as_probabilities(columns, "proba")
    labels, found = class_codes(y, values.shape[1], names)
    persons = _persons(groups, len(labels))
    check_lengths(len(labels), proba=values)
    check_same_index({"`y`": y, "`proba`": proba, "`groups`": groups})
    resolved = metric_of(metric)
    labels, (values,) = _with_positive_last(resolved, labels, [values], found, positive)
    if per_person:
        labels, values, persons, mixed = average_by_person(labels, values, persons, values.shape[1])
        _log_several_labels(mixed)
    return interval_over_people(resolved, labels, values, persons, level=level)


def compare(
    y: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    metric: str | Metric | Callable[..., float] = "macro_f1",
    per_person: bool = False,
    classes: Sequence[Any] | None = None,
    positive: Any = None,
    level: float = 0.95,
) -> Difference:
    """Return the score of `second` minus that of `first`, paired over people, with its confidence interval and p-value.

    Both predict the same rows in the same order. The parameters are those of `score`.

    Raises
    ------
    UsageError : lengths or indexes differ, an array is not probabilities, or the classes of its columns are unknown.

    Examples
    --------
    >>> import folds
    >>> y, person = ["cat", "dog"] * 4, ["ann", "bob", "cem", "dee", "eli", "fay", "gus", "hal"]
    >>> swin = [[0.4, 0.6], [0.2, 0.8]] * 4
    >>> blend = [[0.7, 0.3], [0.4, 0.6]] * 4
    >>> found = folds.compare(y, swin, blend, groups=person, metric="accuracy")
    >>> found.first, found.second, found.difference.value
    (0.5, 1.0, 0.5)
    """
    check_arguments(locals(), _KINDS)
    check_level(level)
    one, named = _in_two_columns(first, "first", y, classes, positive)
    other, named = _in_two_columns(second, "second", y, named, positive)
    names = _common_classes(y, one, other, named)
    a, b = as_probabilities(one, "first"), as_probabilities(other, "second")
    if a.shape != b.shape:
        raise UsageError(
            f"`first` is {_shape(a)}, `second` is {_shape(b)}", hint="both must predict the same rows and classes"
        )
    labels, found = class_codes(y, a.shape[1], names)
    check_lengths(len(labels), first=a, second=b)
    check_same_index({"`y`": y, "`first`": first, "`second`": second, "`groups`": groups})
    persons, resolved = _persons(groups, len(labels)), metric_of(metric)
    labels, (a, b) = _with_positive_last(resolved, labels, [a, b], found, positive)
    if per_person:
        b = average_by_person(labels, b, persons, b.shape[1])[1]
        labels, a, persons, mixed = average_by_person(labels, a, persons, a.shape[1])
        _log_several_labels(mixed)
    return difference_over_people(resolved, labels, a, b, persons, level=level)


def _in_two_columns(
    values: Any, name: str, y: ArrayLike, classes: Sequence[Any] | None, positive: Any
) -> tuple[Any, Sequence[Any] | None]:
    """Return (n,) and (n, 1) probabilities of the positive class as two columns with their classes, and others as they
    are.

    Raises
    ------
    UsageError : one column, but not two classes, or values that are not probabilities.
    """
    array = as_array(values, name)
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] != 1) or array.dtype.kind not in "fiu":
        return values, classes
    column = array.reshape(len(array))
    if classes is None or len(classes) < 2:
        known = sort_classes(names_of(y, "y").tolist())
        known = ("0", "1") if known in (("0",), ("1",)) else known
        if len(known) != 2:
            raise UsageError(
                f"`{name}` is one column, and `y` has {len(known)} classes",
                hint="name both classes in `classes`, the negative one first"
                if len(known) == 1
                else "use one column per class: one is enough only for two classes",
            )
        own = _columns(values)
        of_column = own[0] if own is not None and own[0] in known else None
        chosen = positive_of(known, of_column if of_column is not None or positive is None else _text(positive))
        classes = positive_last(known, chosen.name)
    elif len(classes) != 2:
        raise UsageError(f"`{name}` is one column, and `classes` has {len(classes)} names")
    wrong = np.flatnonzero(~((column >= NEGATIVE) & (column <= 1 - NEGATIVE)))
    if len(wrong):
        raise UsageError(
            f"`{name}` must hold probabilities, but row {wrong[0]} is {column[wrong[0]]:.4g} ({len(wrong):,} of "
            f"{len(column):,} rows wrong)",
            hint="convert logits by scipy.special.expit(logits)",
        )
    column = np.clip(column.astype(np.float64), 0, 1)
    return np.column_stack([1 - column, column]), classes


def _with_positive_last(
    metric: Metric, labels: NDArray[np.int64], values: list[NDArray], classes: tuple[str, ...], positive: Any
) -> tuple[NDArray[np.int64], list[NDArray]]:
    """Return labels and probabilities with the positive one of two classes last, if the metric is of it.

    A guess is logged.
    """
    given = None if positive is None else _text(positive)
    if given is not None or (metric.of_positive and len(classes) == 2):
        chosen = positive_of(classes, given)
        if given is None:
            _log.info("%s is that of class %s: %s", metric.title, chosen.name, chosen.reason)
    return in_order_of_metric(metric, labels, values, classes, given)


def _common_classes(y: ArrayLike, first: Any, second: Any, classes: Sequence[Any] | None) -> tuple[str, ...] | None:
    """Return the class of each column of `first` and `second`; None if neither is a DataFrame and none are given.

    Raises
    ------
    UsageError : the columns differ, or only one is a DataFrame and its columns are not in the order of ``classes_``.
    """
    own = column_classes(first, classes), column_classes(second, classes)
    if own[0] is not None and own[1] is not None and own[0] != own[1]:
        raise UsageError(
            f"the columns of `first` and `second` differ: {', '.join(own[0])} and {', '.join(own[1])}",
            hint="use the same order of columns: second[first.columns]",
        )
    names = own[0] or own[1]
    if names is not None and None in own:
        check_order(names, y, "`second`" if own[1] is None else "`first`", "`first`" if own[1] is None else "`second`")
    return names


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
        raise UsageError(f"`{name}` must be (samples, classes), found {_shape(array)}", hint=hint)
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
    own = _columns(values)
    if classes is None:
        return own
    given = tuple(_text(name) for name in classes)
    if len(set(given)) < len(given):
        raise UsageError(f"`classes` names a class twice: {', '.join(given)}")
    if own is not None and own != given:
        raise UsageError(
            f"`classes` is {', '.join(given)}, but the columns are {', '.join(own)}",
            hint="omit `classes`: the columns name the classes",
        )
    return given


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
        found = f"{len(array):,} values" if array.ndim == 1 else _shape(array) if array.ndim else described(values)
        raise UsageError(f"`{name}` must be {expected}, found {found}")
    if array.dtype.kind == "U":
        names = array
    else:
        names = np.array([_text(value) for value in array.tolist()], dtype=str) if len(array) else np.zeros(0, str)
    missing = np.flatnonzero(names == "")
    if len(missing):
        raise UsageError(
            f"`{name}` has no value in {len(missing):,} rows, first in row {missing[0]}", hint="remove these rows"
        )
    return names


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


def _text(value: Any) -> str:
    """Return a label or person as text, "" if it is missing."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return ""
    if isinstance(value, float):
        return "" if value != value else str(int(value)) if value.is_integer() else str(value)
    return str(value.decode() if isinstance(value, bytes) else value)


def _columns(values: Any) -> tuple[str, ...] | None:
    """Return the columns of a DataFrame, None for other values."""
    columns = getattr(values, "columns", None)
    return None if columns is None else tuple(map(_text, columns))


def _persons(groups: ArrayLike | None, rows: int) -> NDArray[np.int64]:
    if groups is None:
        _log.info("no `groups`: the interval is over rows, and too narrow if people have several rows")
        return np.arange(rows)
    return factorize(names_of(groups, "groups", rows))[1]


def _log_several_labels(mixed: int) -> None:
    if mixed:
        _log.info("%d people have several labels and are scored by their most frequent one", mixed)


def _shape(array: NDArray) -> str:
    return " × ".join(f"{size:,}" for size in array.shape)
