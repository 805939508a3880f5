"""The classes of a blend, in order, from whatever says what they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ensemble.members.hard_labels import HardLabels
from ensemble.members.reading import Member
from folds.errors import EnsembleError, close_matches
from folds.utils.text import sort_classes


def class_order(members: Sequence[Member], labels: HardLabels | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes in order, and the order in which bare arrays are taken to have them.

    Raises
    ------
    EnsembleError : members have different classes, or another number of columns, or answer with a name that is no class.
    """
    first = next((member for member in members if member.sidecar is not None), None)
    widths = {member.values.shape[1]: member for member in members if member.values is not None}
    if first is not None and first.sidecar is not None:
        given = first.sidecar.classes
        _check_same_classes(first, given, members)
    elif widths:
        count = next(iter(widths))
        given = _bare_classes(widths[count], count, labels)
    else:
        given = _answered_classes(members, labels)
    for count, member in widths.items():
        if count != len(given):
            raise EnsembleError(
                f"{member.path} has {count} columns, expected one for each of the {len(given)} classes: {', '.join(given[:20])}"
            )
    classes = sort_classes(given)
    for member in members:
        _check_answers(member, classes)
    return classes, given


def _check_same_classes(first: Member, given: Sequence[str], members: Sequence[Member]) -> None:
    for member in members:
        if member.sidecar is not None and set(member.sidecar.classes) != set(given):
            difference = _difference(given, member.sidecar.classes)
            raise EnsembleError(
                f"{first.path} and {member.path} have different classes: {difference}", hint="blend one with `runs`"
            )


def _check_answers(member: Member, classes: Sequence[str]) -> None:
    """Raise EnsembleError where a file of hard labels has a name that is no class."""
    unknown = [] if member.answers is None else sorted(set(member.answers.tolist()) - set(classes))
    if member.answers is None or member.rows is None or not unknown:
        return
    row = int(np.flatnonzero(member.answers == unknown[0])[0])
    close = close_matches(unknown[0], classes)
    raise EnsembleError(
        f"{member.path}: '{unknown[0]}' (id '{member.rows.ids[row]}') is none of the {len(classes)} classes"
        + (f"; did you mean {' or '.join(close)}?" if close else "")
        + (f"; {len(unknown)} such names" if len(unknown) > 1 else ""),
        hint=f"the classes are {', '.join(classes[:30])}",
    )


def _difference(one: Sequence[str], other: Sequence[str]) -> str:
    only = [
        ("first", [name for name in one if name not in other]),
        ("second", [name for name in other if name not in one]),
    ]
    return "; ".join(
        f"only the {which} has {', '.join(names[:10])}{' …' if len(names) > 10 else ''}"
        for which, names in only
        if names
    )


def _bare_classes(member: Member, count: int, labels: HardLabels | None) -> tuple[str, ...]:
    numbered = tuple(map(str, range(count)))
    if labels is None:
        return numbered
    found = sort_classes(labels.labels.tolist())
    if set(found) <= set(numbered):
        return numbered
    if len(found) != count:
        raise EnsembleError(
            f"{member.path} has {count} columns, but {labels.path} has {len(found)} classes: {', '.join(found[:20])}",
            hint="write a sidecar with the classes beside the array",
        )
    return found


def _answered_classes(members: Sequence[Member], labels: HardLabels | None) -> tuple[str, ...]:
    """The classes of CSVs alone: all that are answered."""
    source: dict[str, object] = {} if labels is None else dict.fromkeys(labels.labels.tolist(), labels.path)
    for member in members:
        if member.answers is not None:
            source = dict.fromkeys(np.unique(member.answers).tolist(), member.path) | source
    by_number: dict[float, str] = {}
    for name in source:
        try:
            twin = by_number.setdefault(float(name), name)
        except ValueError:
            continue
        if twin != name:
            raise EnsembleError(
                f"'{twin}' in {source[twin]} and '{name}' in {source[name]} are one number and two class names",
                hint="write classes the same way in all files",
            )
    return sort_classes(list(source))
