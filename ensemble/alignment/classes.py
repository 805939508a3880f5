"""Determine the classes of a blend and check that all members have them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ensemble.members.columns import is_fractional, numbers
from ensemble.members.reading import Member
from ensemble.members.true_labels import TrueLabels
from folds.errors import EnsembleError, close_matches
from folds.metrics.positive import positive_last
from folds.metrics.task_names import ORDINAL
from folds.utils.text import sort_by_number


def class_order(
    members: Sequence[Member],
    labels: TrueLabels | None,
    classes: Sequence[str] | None = None,
    positive: str | None = None,
    order: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """Return the classes of members whose columns are named, in order: sorted, the positive one of two last.

    Parameters
    ----------
    classes : the classes that the user named; otherwise they follow from the members.
    positive : the positive one of two classes, if there is one.
    order : a known order; it counts if it has the classes of the members, or more than those that they answer.

    Raises
    ------
    EnsembleError : members have different classes or numbers of columns, or hard labels include an unknown class.
    """
    first = next((member for member in members if member.values is not None), None)
    if first is not None:
        _check_same_classes(first, members)
        stated = first.classes
    else:
        stated = tuple(classes) if classes is not None else _answered_classes(members, labels)
    fits = order is not None and (set(order) == set(stated) or (first is None and set(order) > set(stated)))
    ordered = tuple(order) if order is not None and fits else grades_of(members) or sort_by_number(stated)
    ordered = positive_last(ordered, positive) if positive in ordered else ordered
    for member in members:
        _check_answers(member, ordered)
    return ordered


def grades_of(members: Sequence[Member]) -> tuple[str, ...] | None:
    """Return the classes in the order of their grades; None if no member says that they are grades.

    Raises
    ------
    EnsembleError : two members say it with different orders.
    """
    graded = [one for one in members if one.sidecar is not None and one.sidecar.task == ORDINAL]
    for one in graded[1:]:
        if set(one.classes) == set(graded[0].classes) and one.classes != graded[0].classes:
            raise EnsembleError(
                f"{graded[0].path} and {one.path} have the same grades in different orders: "
                f"{', '.join(graded[0].classes[:10])} and {', '.join(one.classes[:10])}",
                hint="train with one `class_order`, or select runs with `runs`",
            )
    return graded[0].classes if graded else None


def _check_same_classes(first: Member, members: Sequence[Member]) -> None:
    for member in members:
        if member.values is None or set(member.classes) == set(first.classes):
            continue
        difference = _difference(first.classes, member.classes)
        own = member.sidecar is not None and first.sidecar is not None
        raise EnsembleError(
            f"{first.path} and {member.path} have different classes: {difference}",
            hint="select runs with the same classes with `runs`"
            + ("" if own else "; or name the columns with `probabilities=COLUMNS` (tables) or `classes` (arrays)"),
        )


def _check_answers(member: Member, classes: Sequence[str]) -> None:
    """Raise EnsembleError if a file of hard labels has an unknown class."""
    unknown = [] if member.answers is None else sorted(set(member.answers.tolist()) - set(classes))
    if member.answers is None or member.rows is None or not unknown:
        return
    row = int(np.flatnonzero(member.answers == unknown[0])[0])
    close = close_matches(unknown[0], classes)
    raise EnsembleError(
        f"{member.path}: '{unknown[0]}' (id '{member.rows.ids[row]}') is not one of the {len(classes)} classes"
        + (f"; did you mean {' or '.join(close)}?" if close else "")
        + (f"; {len(unknown)} unknown classes in all" if len(unknown) > 1 else ""),
        hint=f"the classes are {', '.join(classes[:30])}; `classes=A,B,C` names the columns of an array without names",
    )


def _difference(one: Sequence[str], other: Sequence[str]) -> str:
    differing = [
        ("first", [name for name in one if name not in other]),
        ("second", [name for name in other if name not in one]),
    ]
    return "; ".join(
        f"only the {position} has {', '.join(names[:10])}{' …' if len(names) > 10 else ''}"
        for position, names in differing
        if names
    )


def _answered_classes(members: Sequence[Member], labels: TrueLabels | None) -> tuple[str, ...]:
    """Return the classes of a blend of answers only: all classes in the files and among the labels."""
    source: dict[str, object] = {} if labels is None else dict.fromkeys(labels.labels.tolist(), labels.path)
    for member in members:
        if labels is None and member.rows is not None and member.rows.labels is not None:
            source = dict.fromkeys(np.unique(member.rows.labels).tolist(), member.path) | source
    truth = set(source) - {""}
    source.pop("", None)
    for member in members:
        if member.answers is not None:
            answers = np.unique(member.answers).tolist()
            if truth and not truth & set(answers):
                raise EnsembleError(
                    f"{member.path} answers {', '.join(answers[:5])}, but the labels are "
                    f"{', '.join(sorted(truth)[:5])}: they have no class in common",
                    hint="write answers and labels with the same names"
                    + ("; if these are probabilities, `probabilities=COLUMN`" * _are_decimals(answers)),
                )
            source = dict.fromkeys(answers, member.path) | source
    by_number: dict[float, str] = {}
    for name in source:
        try:
            first_name = by_number.setdefault(float(name), name)
        except ValueError:
            continue
        if first_name != name:
            raise EnsembleError(
                f"'{first_name}' in {source[first_name]} and '{name}' in {source[name]} "
                "are two spellings of the same number",
                hint="write each class the same way in all files",
            )
    return sort_by_number(list(source))


def _are_decimals(names: Sequence[str]) -> bool:
    """Return whether answers are numbers that are not all whole: probabilities, and no classes."""
    return is_fractional(numbers(names))
