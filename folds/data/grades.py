"""Find the order of classes that are grades, and give it to a data set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from folds.data.table import Dataset, SampleTable
from folds.errors import UsageError
from folds.utils.text import sort_by_number

# Words in order; those of one group have the same rank, so a table has one of them.
_WORDS: tuple[tuple[tuple[str, ...], ...], ...] = (
    (
        ("none", "no", "normal", "healthy", "absent", "negative"),
        ("questionable", "doubtful"),
        ("minimal", "trace", "very mild"),
        ("mild", "slight"),
        ("moderate",),
        ("severe",),
        ("very severe", "proliferative", "critical"),
    ),
    (("very low",), ("low",), ("medium", "middle"), ("high",), ("very high",)),
    (("tiny",), ("small",), ("medium",), ("large",), ("huge",)),
    (("bad", "very poor"), ("poor",), ("fair", "average"), ("good",), ("very good",), ("excellent",)),
    (("i",), ("ii",), ("iii",), ("iv",), ("v",), ("vi",)),
)
_NUMBERED = re.compile(r"(\D*)(\d+)(\D*)")
_RANGE = re.compile(r"(<=?|≤)?\s*(?:>=?|≥)?\s*(\d+)\s*(?:\+|[-–]\s*\d+)?")


def grade_order(classes: Sequence[str]) -> tuple[str, ...] | None:
    """Return classes in the order of their grades, if their names say it; None if not.

    Names with an order are numbers, texts that differ in one number (``grade 2``), ranges (``<30``, ``30-59``) and
    known words (``mild``).

    Examples
    --------
    >>> grade_order(["10", "2"]), grade_order(["mild", "none", "severe"]), grade_order(["cat", "dog"])
    (('2', '10'), ('none', 'mild', 'severe'), None)
    """
    if all(_is_number(name) for name in classes):
        return tuple(sort_by_number(classes))
    parts = [_NUMBERED.fullmatch(name) for name in classes]
    if all(parts) and len({(one[1], one[3]) for one in parts if one}) == 1:
        return tuple(sorted(classes, key=lambda name: int(re.sub(r"\D", "", name))))
    ranges = [_RANGE.fullmatch(name.strip()) for name in classes]
    starts = {name: (not one[1], int(one[2])) for name, one in zip(classes, ranges, strict=True) if one}
    if all(ranges) and len(set(starts.values())) == len(starts) and sum(not above for above, _ in starts.values()) < 2:
        return tuple(sorted(classes, key=lambda name: starts[name]))
    plain = [re.sub(r"[\s_-]+", " ", name.strip().lower()) for name in classes]
    for words in _WORDS:
        rank = {word: at for at, group in enumerate(words) for word in group}
        ranks = [rank.get(word, -1) for word in plain]
        if min(ranks) >= 0 and len(set(ranks)) == len(ranks):
            return tuple(name for _, name in sorted(zip(ranks, classes, strict=True)))
    return None


def order_of_grades(classes: Sequence[str], given: Sequence[str], what: str) -> tuple[str, ...]:
    """Return the order of grades: the given one, or the one that their names say.

    Parameters
    ----------
    classes : the classes that occur.
    given : the order of `class_order`; () if it is not given. It may have more classes than occur.
    what : what has these classes, for the message.

    Raises
    ------
    UsageError : the given order lacks a class or has one twice, or none is given and the names do not say it.
    """
    listed = ", ".join(classes[:10]) + (" …" if len(classes) > 10 else "")
    if not given:
        found = grade_order(classes)
        if found is None:
            raise UsageError(
                f"`task=ordinal`: the names of the classes of {what} do not say their order: {listed}",
                hint="`class_order=lowest,…,highest` names them in order",
            )
        return found
    missing = [name for name in classes if name not in given]
    if missing or len(set(given)) < len(given):
        wrong = f"lacks '{missing[0]}'" if missing else "names a class twice"
        raise UsageError(
            f"`class_order={','.join(given)}` {wrong}; the classes of {what} are {listed}",
            hint="name every class once, from the lowest to the highest grade",
        )
    return tuple(given)


def grades_of_attribute(values: Sequence[str], given: Sequence[str], name: str) -> tuple[str, ...]:
    """Return the order of the values of an attribute; see `order_of_grades`. All of them occur.

    Raises
    ------
    UsageError : see `order_of_grades`, or the given order has another value.
    """
    order = order_of_grades(values, given, f"the attribute {name}")
    other = next((one for one in order if one not in values), None)
    if other is not None:
        raise UsageError(
            f"`class_order={','.join(order)}`: the attribute {name} has no value '{other}'",
            hint=f"its values: {', '.join(values)}",
        )
    return order


def in_order(data: Dataset, given: Sequence[str]) -> Dataset:
    """Return a data set whose classes are in the order of their grades, for training and test samples.

    Raises
    ------
    UsageError : see `order_of_grades`.
    """
    train = data.train
    order = order_of_grades(train.classes, given, train.source)
    if order == train.classes:
        return data
    spec = None if data.spec is None else replace(data.spec, classes=order)
    test = None if data.test is None else _ordered(data.test, order)
    return replace(data, train=_ordered(train, order), test=test, spec=spec)


def _ordered(table: SampleTable, order: tuple[str, ...]) -> SampleTable:
    ordered = replace(table, classes=order)
    if "factorized_persons" in table.__dict__:
        ordered.__dict__["factorized_persons"] = table.factorized_persons
    return ordered


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d+(\.\d+)?", text) is not None
