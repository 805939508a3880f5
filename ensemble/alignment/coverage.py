"""Which members predict the same samples: one table a split, or an error that names who differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ensemble.members.hard_labels import HardLabels
from ensemble.members.reading import Member
from folds.errors import EnsembleError
from folds.predictions.files import SPLITS


def _equal(one: NDArray[np.str_], other: NDArray[np.str_]) -> bool:
    return one is other or np.array_equal(one, other)


@dataclass(frozen=True)
class Table:
    """The samples of one split, in the order in which results are written."""

    ids: NDArray[np.str_]

    @cached_property
    def position(self) -> dict[str, int]:
        """id → row."""
        return {name: i for i, name in enumerate(self.ids.tolist())}

    def locate(self, ids: NDArray[np.str_]) -> NDArray[np.int64] | None:
        """(n,) where each of `ids` is in the table, −1 where it is not; None where they are the table's, in its order."""
        if _equal(ids, self.ids):
            return None
        return np.array([self.position.get(name, -1) for name in ids.tolist()], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ids)


def tables_of(members: Sequence[Member]) -> dict[str, Table]:
    """The table of each split that members with a sidecar predict.

    Members are of one table where they refer to the same samples file or have the same ids; out of fold a member may
    also lack whole folds of another.

    Raises
    ------
    EnsembleError : the members of a split are of different tables; it names both groups and counts the ids.
    """
    tables = {}
    for split in SPLITS:
        inside = [member for member in members if member.sidecar is not None and member.sidecar.split == split]
        groups: list[list[_Coverage]] = []
        for coverage in _coverages(inside):
            home = next(
                (group for group in groups if any(_same_table(coverage, other, split) for other in group)), None
            )
            if home is None:
                groups.append([coverage])
            else:
                home.append(coverage)
        if len(groups) > 1:
            raise _different(
                split, [(group[0].ids, [run for coverage in group for run in coverage.runs]) for group in groups]
            )
        if groups:
            tables[split] = Table(_union([coverage.whole for coverage in groups[0]]))
    return tables


@dataclass
class _Coverage:
    """The ids that some runs predict, and the fold of each where it is known."""

    runs: list[str]
    ids: NDArray[np.str_]
    whole: NDArray[np.str_]
    folds: NDArray | None
    folds_sha: str | None
    samples_sha: set[str]

    @cached_property
    def id_set(self) -> set[str]:
        return set(self.ids.tolist())

    @cached_property
    def fold_of(self) -> Mapping[str, int]:
        return {} if self.folds is None else dict(zip(self.ids.tolist(), self.folds.tolist(), strict=True))


def _coverages(members: Sequence[Member]) -> list[_Coverage]:
    """One for each run; runs on the same rows share one."""
    by_run: dict[str, list[Member]] = {}
    for member in members:
        by_run.setdefault(member.run, []).append(member)
    found: list[_Coverage] = []
    for run, parts in by_run.items():
        coverage = _coverage(run, parts)
        twin = next(
            (other for other in found if other.whole is coverage.whole and _equal(other.ids, coverage.ids)), None
        )
        if twin is None:
            found.append(coverage)
        else:
            twin.runs.append(run)
    return found


def _coverage(run: str, parts: Sequence[Member]) -> _Coverage:
    ids: list[NDArray[np.str_]] = []
    wholes: list[NDArray[np.str_]] = []
    folds: list[NDArray] = []
    shas: set[str] = set()
    for part in parts:
        sidecar = part.sidecar
        assert sidecar is not None  # noqa: S101
        assert part.whole is not None  # noqa: S101
        if not any(sidecar.rows.ids is seen for seen in ids):
            ids.append(sidecar.rows.ids)
            fold = sidecar.fold
            folds.append(
                np.full(len(sidecar.rows), -1 if fold is None else fold) if not isinstance(fold, np.ndarray) else fold
            )
        if not any(part.whole.ids is seen for seen in wholes):
            wholes.append(part.whole.ids)
        if sidecar.samples_sha is not None:
            shas.add(sidecar.samples_sha)
    # A run may come in one file a fold: what it covers is all of them together.
    together = np.concatenate(ids) if len(ids) > 1 else ids[0]
    known = np.concatenate(folds) if len(folds) > 1 else folds[0]
    if len(ids) > 1:
        together, first = np.unique(together, return_index=True)
        known = known[first]
    sha = parts[0].sidecar.folds_sha if parts[0].sidecar is not None else None
    return _Coverage([run], together, _union(wholes), None if (known < 0).any() else known, sha, shas)


def _union(columns: Sequence[NDArray[np.str_]]) -> NDArray[np.str_]:
    """The ids of the longest column, then those that only others have."""
    longest = max(columns, key=len)
    if all(_equal(column, longest) for column in columns):
        return longest
    seen = dict.fromkeys(longest.tolist())
    for column in columns:
        seen |= dict.fromkeys(column.tolist())
    return longest if len(seen) == len(longest) else np.array(list(seen), dtype=str)


def _same_table(a: _Coverage, b: _Coverage, split: str) -> bool:
    if a.samples_sha & b.samples_sha or np.array_equal(a.ids, b.ids) or a.id_set == b.id_set:
        return True
    if split != "oof" or a.folds is None or b.folds is None:
        return False
    # Rows may be absent where whole folds are: the fold of a row that only one has must not be among the other's.
    common = a.id_set & b.id_set
    nested = len(common) in (len(a.id_set), len(b.id_set)) or (a.folds_sha is not None and a.folds_sha == b.folds_sha)
    only_a, only_b = {a.fold_of[name] for name in a.id_set - common}, {b.fold_of[name] for name in b.id_set - common}
    whole = not only_a & set(b.folds.tolist()) and not only_b & set(a.folds.tolist())
    return nested and whole and all(a.fold_of[name] == b.fold_of[name] for name in common)


def _different(split: str, groups: Sequence[tuple[NDArray[np.str_], Sequence[str]]]) -> EnsembleError:
    (one, first), (other, second) = groups[0], groups[1]
    a, b = set(one.tolist()), set(other.tolist())
    lines = []
    for runs, mine, theirs in ((first, a, b), (second, b, a)):
        alone = sorted(mine - theirs)
        example = (
            f", {len(alone):,} of them not in the other group (e.g. '{alone[0]}')"
            if alone
            else ", all of them in the other group"
        )
        lines.append(f"{', '.join(runs)}: {len(mine):,} ids{example}")
    lines += [f"{', '.join(runs)}: {len(ids):,} ids" for ids, runs in groups[2:]]
    return EnsembleError(
        f"the {split} predictions are of different samples: {len(a ^ b):,} ids differ between {', '.join(first)} and {', '.join(second)}",
        hint=f"`runs={','.join(first)}` blends the first group alone",
        details=lines,
    )


def place_members(
    members: Sequence[Member], tables: dict[str, Table], labels: HardLabels | None
) -> tuple[dict[str, list[Member]], list[str]]:
    """Return the members of each split, and notes on what is taken on trust; `tables` gains those that only CSVs, labels or bare arrays tell.

    A CSV belongs to the split that has its ids. A bare array belongs to the split that has as many rows; alone it is
    out of fold where `labels` fit it, otherwise test.

    Raises
    ------
    EnsembleError : the ids of a CSV or the length of a bare array fit no split, or the latter two.
    """
    placed: dict[str, list[Member]] = {split: [] for split in SPLITS}
    if labels is not None and not any(member.sidecar is not None for member in members):
        tables["oof"] = Table(labels.ids)
    where: dict[int, str] = {}
    for member in members:
        if member.sidecar is None and member.rows is not None:
            where[id(member)] = _split_of_ids(member, tables, members)
    bare = [member for member in members if member.rows is None]
    trusted = not tables
    for member in bare:
        where[id(member)] = _split_of_length(member, bare[0], tables, trusted)
    for member in members:
        placed[member.sidecar.split if member.sidecar is not None else where[id(member)]].append(member)
    notes = []
    if bare:
        found = list(dict.fromkeys(where[id(member)] for member in bare))
        names = ", ".join(str(member.path) for member in bare[:3]) + (
            f" and {len(bare) - 3} more" if len(bare) > 3 else ""
        )
        notes.append(f"row and column order taken on trust ({' and '.join(found)}): {names}")
    return {split: inside for split, inside in placed.items() if inside}, notes


def _split_of_ids(member: Member, tables: dict[str, Table], members: Sequence[Member]) -> str:
    assert member.rows is not None  # noqa: S101
    ids = member.rows.ids
    for split, table in tables.items():
        if len(ids) == len(table) and (np.array_equal(ids, table.ids) or set(ids.tolist()) == set(table.ids.tolist())):
            return split
    if "test" not in tables and not any(set(ids.tolist()) & set(table.ids.tolist()) for table in tables.values()):
        tables["test"] = Table(ids)
        return "test"
    split, table = max(tables.items(), key=lambda item: len(set(ids.tolist()) & set(item[1].ids.tolist())))
    others = [other.run for other in members if other is not member and other.rows is not None] or ["the labels"]
    raise _different(split, [(table.ids, list(dict.fromkeys(others))), (ids, [member.run])])


def _split_of_length(member: Member, first: Member, tables: dict[str, Table], trusted: bool) -> str:
    if not tables:
        tables["test"] = Table(np.arange(len(member)).astype(str))
    fitting = [split for split, table in tables.items() if len(table) == len(member)]
    if len(fitting) == 1:
        return fitting[0]
    known = (
        f"{first.path} has {len(first):,}"
        if trusted
        else ", ".join(f"{split} has {len(table):,} samples" for split, table in tables.items())
    )
    if fitting:
        raise EnsembleError(
            f"{member.path} has {len(member):,} rows and no sidecar, and fits two splits: {known}",
            hint="write a sidecar beside it",
        )
    raise EnsembleError(
        f"{member.path} has {len(member):,} rows and no sidecar, so it must have as many as there are samples: {known}",
        hint="blend arrays of one length, or write a sidecar with the ids beside it",
    )
