"""Align members with a column for each label or number: their task, the names of their columns, and their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.naming import NamedMembers
from ensemble.members.columns import listed
from ensemble.members.reading import Member
from ensemble.members.true_labels import TrueLabels
from folds.errors import EnsembleError, UsageError, unknown_name
from folds.metrics.task_names import BINARY, CLASSES, COLUMN_TASKS, ORDINAL, REGRESSION
from folds.predictions.files import SampleRows
from folds.predictions.label_columns import COLUMN_NAMES, check_column_names, encode_labels, label_texts


def members_task(members: Sequence[Member], given: str | None = None) -> str:
    """Return the task that members have in common: that of their columns of labels or numbers, else ``classes``.

    ``classes`` stands for all tasks with one label of a sample (``binary`` and ``ordinal`` as well).

    Parameters
    ----------
    given : the task that the user named.

    Raises
    ------
    UsageError : members of different tasks, or of another one than the given one.
    """
    first: dict[str, Member] = {}
    for member in members:
        first.setdefault(member.task if member.has_columns else CLASSES, member)
    if len(first) > 1:
        named = {task if task in COLUMN_TASKS else member.task: member for task, member in first.items()}
        (one, a), (other, b) = list(named.items())[:2]
        raise UsageError(
            f"{a.path} is of the task {one}, {b.path} of {other}: members of different tasks are not blended",
            hint=f"select the runs of one task with `runs`; a member of {REGRESSION} joins members of {ORDINAL} only",
        )
    found = next(iter(first), CLASSES)
    expected = given if given in COLUMN_TASKS else CLASSES
    if given is not None and found != expected and members:
        raise UsageError(
            f"`task={given}`, but {next(iter(first.values())).path} is of the task {found}",
            hint="leave `task` out: files with a sidecar state it",
        )
    return found


def check_given_task(task: str | None) -> None:
    """Raise UsageError unless a task that the user named is one that a blend can be given."""
    if task in (BINARY, ORDINAL):
        raise UsageError(
            f"`task={task}` of a blend is stated by its files",
            hint="`positive=CLASS` makes two classes a binary decision"
            if task == BINARY
            else "train with `task=ordinal`",
        )
    if task is not None and task not in (CLASSES, *COLUMN_TASKS):
        raise unknown_name("`task`", task, [CLASSES, *COLUMN_TASKS], "for files without a sidecar")


def name_label_columns(
    members: Sequence[Member], labels: TrueLabels | None = None, classes: Sequence[str] | None = None
) -> NamedMembers:
    """Return the members with the name of each column, and labels as texts in the order of these names.

    Columns without names get those of `classes`, of another member, of the labels, or numbers from 0; what was assumed
    is noted. A single column without a sidecar gets the one name that the others have.

    Raises
    ------
    EnsembleError : an array has another number of columns than there are names.
    """
    task = members[0].task if members else REGRESSION
    stated = next((one.classes for one in members if one.sidecar is not None), ())
    known = stated or tuple(classes or ())
    known = known or next((one.classes for one in members if one.classes), ())
    if labels is not None and labels.named and (not known or (len(known) == len(labels.named) == 1 and not stated)):
        known = labels.named
    notes, assumed, named = [], set(), []
    for member in members:
        made, note = _named(member, known, classes, task)
        if note:
            notes.append(note)
        if not member.classes and classes is None:
            assumed.add(member.source)
        named.append(made)
    order = named[0].classes if named else ()
    check_column_names(order, task)
    cache: dict[int, tuple[SampleRows, SampleRows]] = {}
    named = [_with_texts(member, order, task, cache) for member in named]
    if labels is not None:
        labels = replace(labels, labels=_in_order(str(labels.path), labels.labels, order, task))
    return NamedMembers(named, labels, notes, frozenset(assumed))


def _named(member: Member, known: tuple[str, ...], classes: Sequence[str] | None, task: str) -> tuple[Member, str]:
    """Return a member with names of its columns, and a note on what was assumed; "" for nothing."""
    assert member.values is not None  # noqa: S101 - columns have no answers
    count = member.values.shape[1]
    if member.classes:
        if member.sidecar is None and count == 1 and len(known) == 1 and member.classes != known:
            return (
                replace(member, classes=known),
                f"{member.source}: its only column {member.classes[0]} is taken for {known[0]}",
            )
        return member, ""
    names = tuple(classes) if classes is not None else known or tuple(map(str, range(count)))
    if len(names) != count:
        raise EnsembleError(
            f"{member.path} has {count} columns, expected one for each of {len(names)} {COLUMN_NAMES[task]}: "
            f"{', '.join(names[:20])}",
            hint="name its columns in order: `classes=A,B,C`",
        )
    note = "" if classes is not None else f"{member.source}: columns without names are taken for {listed(names)}"
    return replace(member, classes=names), note


def check_same_columns(members: Sequence[Member], order: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the names of the columns of members, in a known order or that of the first.

    Parameters
    ----------
    order : the names in order; it counts if it has those of the members.

    Raises
    ------
    EnsembleError : members have different columns.
    """
    first = members[0]
    for member in members[1:]:
        if set(member.classes) != set(first.classes):
            only = [sorted(set(a.classes) - set(b.classes)) for a, b in ((first, member), (member, first))]
            text = "; ".join(
                f"only the {which} has {', '.join(names[:10])}"
                for which, names in zip(("first", "second"), only, strict=True)
                if names
            )
            raise EnsembleError(
                f"{first.path} and {member.path} have different {COLUMN_NAMES[first.task]}: {text}",
                hint="select runs with the same columns with `runs`, or name them: `probabilities=COLUMNS` (tables), "
                "`classes` (arrays)",
            )
    return tuple(order) if order is not None and set(order) == set(first.classes) else first.classes


def _with_texts(
    member: Member, names: tuple[str, ...], task: str, cache: dict[int, tuple[SampleRows, SampleRows]]
) -> Member:
    """Return the member with its labels written in the order of `names`; unchanged if they are."""
    rows = member.rows
    if rows is None or rows.labels is None:
        return member
    if id(rows) not in cache:
        texts = _in_order(str(member.path), rows.labels, names, task)
        same = np.array_equal(texts, rows.labels)
        cache[id(rows)] = rows, rows if same else replace(rows, labels=texts)
    made = cache[id(rows)][1]
    return member if made is rows else replace(member, rows=made)


def _in_order(source: str, texts: NDArray[np.str_], names: tuple[str, ...], task: str) -> NDArray[np.str_]:
    try:
        return label_texts(encode_labels(texts, names, task), names, task)
    except EnsembleError as error:
        raise EnsembleError(
            f"{source}: {error.message}", hint="members and labels must have the same columns; name them with `label`"
        ) from None
