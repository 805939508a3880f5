"""Determine the classes of a blend and their order from sidecars, arrays and CSV files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ensemble.members.hard_labels import HardLabels
from ensemble.members.reading import Member
from folds.errors import EnsembleError, close_matches
from folds.utils.text import sort_classes


def class_order(members: Sequence[Member], labels: HardLabels | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the classes in order, and the assumed column order of arrays without a sidecar.

    Raises
    ------
    EnsembleError : members have different classes or numbers of columns, or hard labels include an unknown class.
    """
    first = next((member for member in members if member.sidecar is not None), None)
    widths = {member.values.shape[1]: member for member in members if member.values is not None}
    if first is not None and first.sidecar is not None:
        stated_classes = first.sidecar.classes
        _check_same_classes(first, stated_classes, members)
    elif widths:
        count = next(iter(widths))
        stated_classes = _bare_classes(widths[count], count, labels)
    else:
        stated_classes = _answered_classes(members, labels)
    for count, member in widths.items():
        if count != len(stated_classes):
            raise EnsembleError(
                f"{member.path} has {count} columns, "
                f"expected one for each of the {len(stated_classes)} classes: {', '.join(stated_classes[:20])}"
            )
    classes = sort_classes(stated_classes)
    for member in members:
        _check_answers(member, classes)
    return classes, stated_classes


def _check_same_classes(first: Member, stated_classes: Sequence[str], members: Sequence[Member]) -> None:
    for member in members:
        if member.sidecar is not None and set(member.sidecar.classes) != set(stated_classes):
            difference = _difference(stated_classes, member.sidecar.classes)
            raise EnsembleError(
                f"{first.path} and {member.path} have different classes: {difference}",
                hint="select runs with the same classes with `runs`",
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
        hint=f"the classes are {', '.join(classes[:30])}",
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


def _bare_classes(member: Member, count: int, labels: HardLabels | None) -> tuple[str, ...]:
    numbered = tuple(map(str, range(count)))
    if labels is None:
        return numbered
    label_classes = sort_classes(labels.labels.tolist())
    if set(label_classes) <= set(numbered):
        return numbered
    if len(label_classes) != count:
        raise EnsembleError(
            f"{member.path} has {count} columns, but {labels.path} has {len(label_classes)} classes: "
            f"{', '.join(label_classes[:20])}",
            hint="add a sidecar with the classes",
        )
    return label_classes


def _answered_classes(members: Sequence[Member], labels: HardLabels | None) -> tuple[str, ...]:
    """Return the classes of a blend of CSV files only: all classes in the files."""
    source: dict[str, object] = {} if labels is None else dict.fromkeys(labels.labels.tolist(), labels.path)
    for member in members:
        if member.answers is not None:
            source = dict.fromkeys(np.unique(member.answers).tolist(), member.path) | source
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
    return sort_classes(list(source))
