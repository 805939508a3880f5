"""Decide which of two classes is the positive one: by its name, for all commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from folds.errors import UsageError, unknown_name
from folds.metrics.classification import Metric
from folds.metrics.task_names import CLASSES

_NEGATIVE = frozenset(
    [
        "0",
        "absent",
        "background",
        "benign",
        "clean",
        "control",
        "controls",
        "false",
        "good",
        "healthy",
        "intact",
        "n",
        "nc",
        "neg",
        "negative",
        "no",
        "none",
        "normal",
        "nv",
        "ok",
        "unaffected",
        "uninfected",
        "without",
    ]
)
_POSITIVE = frozenset(
    [
        "1",
        "abnormal",
        "affected",
        "bad",
        "cancer",
        "carcinoma",
        "case",
        "cases",
        "damaged",
        "defect",
        "defective",
        "disease",
        "diseased",
        "faulty",
        "glaucoma",
        "infected",
        "lesion",
        "malignancy",
        "malignant",
        "melanoma",
        "parasitized",
        "pathological",
        "patient",
        "patients",
        "pneumonia",
        "pos",
        "positive",
        "present",
        "sick",
        "tb",
        "true",
        "tuberculosis",
        "tumor",
        "tumour",
        "unhealthy",
        "with",
        "y",
        "yes",
    ]
)
_DENIALS = ("no ", "non ", "not ", "without ")


@dataclass(frozen=True)
class Positive:
    """The positive class of two.

    Attributes
    ----------
    name : the class.
    reason : why, for the reader: ``by its name, against benign``.
    is_known : whether it was given, or follows from the names; False if it is only the second of two.
    is_sure : whether both names say it; False if one of them is known and the other could be anything (none, moderate).
    """

    name: str
    reason: str
    is_known: bool = True
    is_sure: bool = True


def guess_positive(classes: Sequence[str]) -> Positive | None:
    """Return the positive one of two classes if their names say which it is, else None.

    Of two whole numbers it is the larger one. Otherwise one of the names is known (benign, no, malignant, yes, …), or
    one denies the other (no_mask, mask).
    """
    if len(classes) != 2:
        return None
    first, second = classes
    numbers = _whole_numbers(classes)
    if numbers is not None and numbers[0] != numbers[1]:
        larger, smaller = (second, first) if numbers[1] > numbers[0] else (first, second)
        return Positive(larger, f"the larger number, against {smaller}")
    words = [_words(name) for name in classes]
    for known, sign in ((_NEGATIVE, False), (_POSITIVE, True)):
        has = [word in known for word in words]
        if has[0] != has[1]:
            found = has.index(sign) if sign else has.index(True) ^ 1
            both = {words[found] in _POSITIVE, words[1 - found] in _NEGATIVE} == {True}
            return Positive(classes[found], f"by its name, against {classes[1 - found]}", is_sure=both)
    for denied, plain in ((0, 1), (1, 0)):
        denials = [f"{start}{words[plain]}" for start in _DENIALS]
        if words[denied] in (*denials, f"without {words[plain].removeprefix('with ')}"):
            return Positive(classes[plain], f"by its name, against {classes[denied]}")
    return None


def positive_of(classes: Sequence[str], given: str | None = None) -> Positive:
    """Return the positive one of two classes: the given one, else the one that the names tell, else the second.

    Raises
    ------
    UsageError : there are not two classes, or `given` is none of them.
    """
    if len(classes) != 2:
        named = ", ".join(classes[:10])
        raise UsageError(
            f"a positive class is one of two, found {len(classes)} classes: {named}",
            hint="scores of more classes are means over the classes, each against the others",
        )
    if given is not None:
        if given not in classes:
            raise unknown_name("positive class", given, list(classes))
        return Positive(given, "as asked")
    guess = guess_positive(classes)
    return Positive(classes[1], f"the second of two, against {classes[0]}", False, False) if guess is None else guess


def scored_class(classes: Sequence[str], task: str, exclusive: bool, of_attribute: bool) -> str | None:
    """Return the class whose score a metric of a positive class is, as in training; None if the names decide.

    It is the last one of a binary decision, of grades, of an attribute, and of classes that are said to be exclusive.

    Parameters
    ----------
    exclusive : whether ``task=classes`` was asked for.
    of_attribute : whether the classes are values of an attribute, and not labels.
    """
    if len(classes) != 2:
        return None
    return classes[-1] if task != CLASSES or exclusive or of_attribute else None


def positive_last(classes: Sequence[str], positive: str) -> tuple[str, ...]:
    """Return the classes with the positive one last, where the metrics of a binary decision expect it."""
    return (*(name for name in classes if name != positive), positive)


def in_order_of_metric(
    metric: Metric,
    labels: NDArray,
    values: Sequence[NDArray],
    classes: Sequence[str],
    positive: str | None = None,
) -> tuple[NDArray, list[NDArray]]:
    """Return labels (n,) and probabilities, each (n, classes), with the positive one of two classes last if the metric
    is a score of it; else as they are, as are several labels or numbers (n, columns).
    """
    if np.ndim(labels) == 2:
        return labels, list(values)
    if not metric.of_positive or len(classes) != 2 or positive_of(classes, positive).name == classes[1]:
        return labels, list(values)
    turned = np.where(labels < 0, labels, 1 - labels)  # −1 is a label that is not known
    return np.asarray(turned, np.int64), [np.ascontiguousarray(np.asarray(one)[:, ::-1]) for one in values]


def _words(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


def _whole_numbers(names: Sequence[str]) -> list[int] | None:
    try:
        values = [float(name) for name in names]
        return [int(value) for value in values] if all(value == int(value) for value in values) else None
    except (ValueError, OverflowError):
        return None
