"""Score and compare predictions given as arrays: the functions `score` and `compare`, and the checks of their
arguments.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from folds.errors import UsageError
from folds.metrics.array_checks import NEGATIVE, check_lengths, frame_columns, name_text, persons_of, shape_text
from folds.metrics.array_checks import as_array as as_array
from folds.metrics.array_checks import as_probabilities as as_probabilities
from folds.metrics.array_checks import check_order as check_order
from folds.metrics.array_checks import check_same_index as check_same_index
from folds.metrics.array_checks import class_codes as class_codes
from folds.metrics.array_checks import column_classes as column_classes
from folds.metrics.array_checks import fold_numbers as fold_numbers
from folds.metrics.array_checks import names_of as names_of
from folds.metrics.array_checks import texts_of as texts_of
from folds.metrics.classification import Metric
from folds.metrics.column_arrays import as_columns, as_label_columns, column_names, task_of_arrays
from folds.metrics.intervals import Difference, Interval, check_level, difference_over_people, interval_over_people
from folds.metrics.positive import in_order_of_metric, positive_last, positive_of
from folds.metrics.scored_units import scored_units
from folds.metrics.task_names import COLUMN_TASKS, MULTILABEL
from folds.metrics.tasks import metric_for_task
from folds.utils.arguments import CLASSES, FLAG, NAME, check_arguments
from folds.utils.schema import ANYTHING, optional
from folds.utils.text import sort_classes

_log = logging.getLogger(__name__)
_KINDS = {
    "per_person": FLAG,
    "classes": optional(CLASSES),
    "positive": optional(ANYTHING),
    "task": optional(NAME),
}


def score(
    y: ArrayLike,
    proba: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    metric: str | Metric | Callable[..., float] | None = None,
    per_person: bool = False,
    classes: Sequence[Any] | None = None,
    positive: Any = None,
    level: float = 0.95,
    task: str | None = None,
) -> Interval:
    """Return a score with its confidence interval over people (groups).

    Parameters
    ----------
    y : (n,) true classes: names or numbers. Of several labels (n, columns) of 0, 1, and nan where one is not known; of
        numbers (n,) or (n, columns).
    proba : (n, classes) probabilities, or a DataFrame whose columns are the classes; for two classes also (n,) or
        (n, 1), the probability of the positive class. Of several labels (n, columns), a probability of each; of
        numbers the predicted ones, in the shape of `y`.
    groups : (n,) the person (patient, camera, writer) of each row; without it every row counts as its own person.
    metric : a built-in metric, with settings after a colon: ``macro_f1``, ``accuracy``, ``balanced_accuracy``,
        ``kappa``, ``log_loss``, ``brier``, ``roc_auc``, ``roc_auc_micro``, ``average_precision``, ``pauc:tpr=0.8``,
        ``sensitivity_at:specificity=0.95``, ``specificity_at:sensitivity=0.95``, ``f_beta:beta=1``,
        ``probabilistic_f1``, ``mcc``, ``youden``, ``quadratic_kappa``, ``grade_mae``, ``top_k:k=3``,
        ``column_log_loss``; of several labels their means over the labels, ``micro_f1`` and ``subset_accuracy``; of
        numbers ``mae``, ``mse``, ``rmse``, ``median_ae``, ``r2``, ``pearson``, ``concordance``, ``c_index``,
        ``within:error=5``; ``module:function``, or a function of (labels, predictions) as numpy arrays. By default
        ``macro_f1``, of several labels ``roc_auc``, of numbers ``mae``.
    per_person : average the predictions of each person's rows first, and score people. A person has the labels that
        any of its rows has, or the mean of its numbers.
    classes : the class of each column of `proba`; by default the sorted values of `y`, as in ``classes_`` of
        scikit-learn.
    positive : the positive one of two classes, for metrics of a positive class; by default the one that the names tell
        (1, yes, malignant, …), which is logged, else the second.
    level : confidence level of the interval, above 0 and below 1.
    task : ``classes``, ``binary``, ``ordinal``, ``multilabel`` (several labels) or ``regression`` (numbers). By default
        several columns of `y` are labels if all are 0 or 1, else numbers, as is one column with fractions beside one
        of predictions; this is logged. Everything else is classes.

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
    >>> found = folds.score([[1, 0], [0, 1], [1, float("nan")]], [[0.9, 0.2], [0.4, 0.6], [0.8, 0.5]])
    >>> found.value
    1.0
    """
    check_arguments(locals(), _KINDS)
    check_level(level)
    task = task_of_arrays(y, {"proba": proba}, task, metric)
    if task in COLUMN_TASKS:
        labels, (values,), persons, resolved = _columns(y, {"proba": proba}, groups, metric, classes, positive, task)
        units = scored_units(labels, [values], persons, per_person, task)
        _log_different_labels(units.several, task)
        return interval_over_people(resolved, units.labels, units.predictions[0], units.persons, level=level)
    columns, names = _in_two_columns(proba, "proba", y, classes, positive)
    names, values = column_classes(columns, names), as_probabilities(columns, "proba")
    labels, found = class_codes(y, values.shape[1], names)
    persons = persons_of(groups, len(labels))
    check_lengths(len(labels), proba=values)
    check_same_index({"`y`": y, "`proba`": proba, "`groups`": groups})
    resolved = metric_for_task(metric, task)
    labels, (values,) = _with_positive_last(resolved, labels, [values], found, positive)
    units = scored_units(labels, [values], persons, per_person, task)
    _log_several_labels(units.several)
    return interval_over_people(resolved, units.labels, units.predictions[0], units.persons, level=level)


def compare(
    y: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    metric: str | Metric | Callable[..., float] | None = None,
    per_person: bool = False,
    classes: Sequence[Any] | None = None,
    positive: Any = None,
    level: float = 0.95,
    task: str | None = None,
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
    given = {"first": first, "second": second}
    task = task_of_arrays(y, given, task, metric)
    if task in COLUMN_TASKS:
        labels, (a, b), persons, resolved = _columns(y, given, groups, metric, classes, positive, task)
        units = scored_units(labels, [a, b], persons, per_person, task)
        _log_different_labels(units.several, task)
        a, b = units.predictions
        return difference_over_people(resolved, units.labels, a, b, units.persons, level=level)
    one, named = _in_two_columns(first, "first", y, classes, positive)
    other, named = _in_two_columns(second, "second", y, named, positive)
    names = _common_classes(y, one, other, named)
    a, b = as_probabilities(one, "first"), as_probabilities(other, "second")
    if a.shape != b.shape:
        raise UsageError(
            f"`first` is {shape_text(a)}, `second` is {shape_text(b)}",
            hint="both must predict the same rows and classes",
        )
    labels, found = class_codes(y, a.shape[1], names)
    check_lengths(len(labels), first=a, second=b)
    check_same_index({"`y`": y, "`first`": first, "`second`": second, "`groups`": groups})
    persons, resolved = persons_of(groups, len(labels)), metric_for_task(metric, task)
    labels, (a, b) = _with_positive_last(resolved, labels, [a, b], found, positive)
    units = scored_units(labels, [a, b], persons, per_person, task)
    _log_several_labels(units.several)
    a, b = units.predictions
    return difference_over_people(resolved, units.labels, a, b, units.persons, level=level)


def _columns(
    y: ArrayLike,
    predictions: Mapping[str, Any],
    groups: ArrayLike | None,
    metric: str | Metric | Callable[..., float] | None,
    classes: Sequence[Any] | None,
    positive: Any,
    task: str,
) -> tuple[NDArray, list[NDArray], NDArray, Metric]:
    """Return labels (n, columns), the predictions, each (n, columns), persons (n,) and the metric of several labels or
    numbers.

    Parameters
    ----------
    predictions : parameter → array; all have one shape.
    """
    if positive is not None:
        raise UsageError(f"`positive` is one of two classes, found `task={task}`", hint="leave it out")
    first, *_ = predictions.values()
    width = as_columns(first, next(iter(predictions)), task).shape[1]
    names = column_names({**predictions, "y": y}, classes, width)
    values = [as_columns(one, name, task, names) for name, one in predictions.items()]
    labels = as_label_columns(y, "y", task, width, names)
    for name, one in zip(predictions, values, strict=True):
        if one.shape != labels.shape:
            raise UsageError(
                f"`{name}` is {shape_text(one)}, `y` is {shape_text(labels)}",
                hint="they must have the same rows and columns in the same order",
            )
    if np.isnan(labels).all():
        raise UsageError("`y` has no known label", hint="nan is a label that is not known")
    check_same_index({"`y`": y, **{f"`{name}`": one for name, one in predictions.items()}, "`groups`": groups})
    return labels, values, persons_of(groups, len(labels)), metric_for_task(metric, task)


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
                else "use one column per class: one is enough only for two classes; numbers are `task=regression`",
            )
        own = frame_columns(values)
        of_column = own[0] if own is not None and own[0] in known else None
        chosen = positive_of(known, of_column if of_column is not None or positive is None else name_text(positive))
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
    given = None if positive is None else name_text(positive)
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


def _log_several_labels(mixed: int) -> None:
    if mixed:
        _log.info("%d people have several labels and are scored by their most frequent one", mixed)


def _log_different_labels(people: int, task: str) -> None:
    if people:
        how = "those that any image has" if task == MULTILABEL else "the mean of their numbers"
        _log.info("%d people have images with different labels and are scored by %s", people, how)
