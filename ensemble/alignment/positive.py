"""Decide which of two classes of a blend is the positive one; its column is the last."""

from __future__ import annotations

from collections.abc import Sequence

from ensemble.members.reading import Member
from folds.errors import EnsembleError
from folds.metrics.positive import Positive, positive_of
from folds.metrics.task_names import BINARY, CLASSES, ORDINAL
from folds.predictions.files import LABEL
from folds.utils.text import sort_by_number


def positive_class(
    members: Sequence[Member], given: str | None = None, wanted: bool = False, stated: Sequence[str] | None = None
) -> Positive | None:
    """Return the positive class of members whose columns are named; None if nothing says that there is one.

    It is the given one; else the one that sidecars state; else, if it is wanted, the higher of two grades, the last of
    classes that are said to be exclusive, the second of `stated` classes, that of a file of one column, the one that
    the names tell, or the second.

    Parameters
    ----------
    given : the class that the user named.
    wanted : whether a score needs it, so that it is guessed.
    stated : the classes that the user named, in order.

    Raises
    ------
    EnsembleError : members state different positive classes.
    UsageError : `given` is not one of two classes.
    """
    members = [one for one in members if one.target == LABEL and one.values is not None and one.classes]
    if not members:
        return None
    names = sort_by_number(members[0].classes)
    if given is not None:
        return positive_of(names, given)
    named: dict[str, Member] = {}
    for member in members:
        if member.sidecar is not None and member.sidecar.positive is not None:
            named.setdefault(member.sidecar.positive, member)
    if len(named) > 1:
        (one, first), (other, second) = list(named.items())[:2]
        raise EnsembleError(
            f"{first.path} states {one} as the positive class, {second.path} states {other}",
            hint=f"decide with `positive={one}` or `positive={other}`",
        )
    if named:
        name, member = next(iter(named.items()))
        return Positive(name, f"stated in the sidecar of {member.path}")
    if not wanted or len(names) != 2:
        return None
    for member in members:
        if member.sidecar is not None and member.sidecar.scored is not None:
            what = "the higher grade" if member.sidecar.task == ORDINAL else "the second of exclusive classes"
            return Positive(member.sidecar.scored, f"{what} in the sidecar of {member.path}")
    if stated is not None and len(stated) == 2:
        return Positive(stated[1], "the second of `classes`")
    single = next((one for one in members if one.one_column and one.sidecar is None), None)
    if single is not None:
        return Positive(single.classes[1], f"that of {single.source}")
    return positive_of(names)


def task_of(members: Sequence[Member], given: str | None = None) -> str:
    """Return the task of predictions that are made from members: the one that a member states, if it is not
    ``classes``; ``binary`` as well if the user names a positive class.
    """
    columns = next((one.task for one in members if one.has_columns), None)
    if columns is not None:
        return columns
    stated = {one.sidecar.task for one in members if one.sidecar is not None} - {CLASSES}
    if ORDINAL in stated:
        return ORDINAL
    return BINARY if stated or given is not None else CLASSES
