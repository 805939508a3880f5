"""Members that hold the same predictions, and names that tell runs apart."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from ensemble.members.reading import Member
from folds.errors import unknown_name

logger = logging.getLogger(__name__)


def without_copies(members: Sequence[Member]) -> list[Member]:
    """Return the members without those of runs that hold what an earlier run holds, file by file, under another name; warn of each.

    Values, samples, classes, split and kind are compared; of a bare array its values alone. Two files of one run that are
    equal (two folds that predict the same) are no copies.
    """
    by_run: dict[str, list[Member]] = {}
    for member in members:
        by_run.setdefault(member.run, []).append(member)
    kept: dict[str, list[Member]] = {}
    for run, files in by_run.items():
        twin = next((other for other in kept.values() if _same(files, other)), None)
        if twin is None:
            kept[run] = files
        else:
            logger.warning(
                "%s has the same content as %s; the two count once (`allow_duplicates`: each votes)",
                files[0].path,
                twin[0].path,
            )
    return [member for member in members if member.run in kept]


def _same(one: Sequence[Member], other: Sequence[Member]) -> bool:
    if {member.content for member in one} != {member.content for member in other}:
        return False
    bare = any(member.sidecar is None for member in (*one, *other))
    return bare or {member.meaning for member in one} == {member.meaning for member in other}


def named_apart(members: Sequence[Member]) -> list[Member]:
    """Runs of files without a sidecar get names that no other run has: as much of the path as that takes."""
    without = [member for member in members if member.sidecar is None]
    taken = {member.run for member in members if member.sidecar is not None}

    def longer(member: Member, depth: int) -> str:
        return "/".join([*member.path.resolve().parts[1:-1][-depth:], member.run]) if depth else member.run

    def split_of(member: Member) -> str:
        return member.path.stem.removeprefix(member.run)  # `a.oof.npy` and `a.test.npy` are two splits of one run

    def name(member: Member) -> str:
        others = [other for other in without if other is not member and split_of(other) == split_of(member)]
        for depth in range(len(member.path.resolve().parts)):
            if longer(member, depth) not in taken | {longer(other, depth) for other in others}:
                return longer(member, depth)
        return member.path.name

    return [member if member.sidecar is not None else replace(member, run=name(member)) for member in members]


def select_runs(members: Sequence[Member], runs: Sequence[str] | None) -> list[Member]:
    """The members of these runs; all of them without `runs`. An unknown run is an error that offers the nearest."""
    if runs is None:
        return list(members)
    known = list(dict.fromkeys(member.run for member in members))
    for name in runs:
        if name not in known:
            raise unknown_name("run", name, known)
    return [member for member in members if member.run in runs]
