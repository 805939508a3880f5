"""Remove duplicate members, give runs unique names, and select runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from ensemble.members.reading import Member
from folds.errors import unknown_name

logger = logging.getLogger(__name__)


def without_copies(members: Sequence[Member]) -> list[Member]:
    """Return the members without duplicate runs, and log a warning for each.

    A run is a duplicate if every file of it has the content of a file of an earlier run with another name. Values,
    samples, classes, split and kind are compared; for an array without a sidecar, only the values. Equal files of one
    run (two folds with the same predictions) are not duplicates.
    """
    by_run: dict[str, list[Member]] = {}
    for member in members:
        by_run.setdefault(member.run, []).append(member)
    kept: dict[str, list[Member]] = {}
    for run, files in by_run.items():
        duplicate = next((other for other in kept.values() if _same(files, other)), None)
        if duplicate is None:
            kept[run] = files
        else:
            logger.warning(
                "%s has the same content as %s and is ignored (`allow_duplicates`: both vote)",
                files[0].path,
                duplicate[0].path,
            )
    return [member for member in members if member.run in kept]


def _same(one: Sequence[Member], other: Sequence[Member]) -> bool:
    if {member.content for member in one} != {member.content for member in other}:
        return False
    bare = any(member.sidecar is None for member in (*one, *other))
    return bare or {member.meaning for member in one} == {member.meaning for member in other}


def named_apart(members: Sequence[Member]) -> list[Member]:
    """Return the members with unique run names; a file without a sidecar gets the shortest unique end of its path."""
    without = [member for member in members if member.sidecar is None]
    taken = {member.run for member in members if member.sidecar is not None}

    def qualified(member: Member, depth: int) -> str:
        return "/".join([*member.path.resolve().parts[1:-1][-depth:], member.run]) if depth else member.run

    def name(member: Member) -> str:
        # `a.oof.npy` and `a.test.npy` are two splits of one run.
        others = [other for other in without if other is not member and {other.split, member.split} != {"oof", "test"}]
        for depth in range(len(member.path.resolve().parts)):
            if qualified(member, depth) not in taken | {qualified(other, depth) for other in others}:
                return qualified(member, depth)
        return member.path.name

    return [member if member.sidecar is not None else replace(member, run=name(member)) for member in members]


def select_runs(members: Sequence[Member], runs: Sequence[str] | None) -> list[Member]:
    """Return the members of these runs; all members if `runs` is None.

    Raises
    ------
    UsageError : a run is unknown; the message suggests the closest names.
    """
    if runs is None:
        return list(members)
    known = list(dict.fromkeys(member.run for member in members))
    for name in runs:
        if name not in known:
            raise unknown_name("run", name, known)
    return [member for member in members if member.run in runs]
