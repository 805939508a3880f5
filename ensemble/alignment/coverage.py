"""Determine the samples of each split from members that say their split; raise an error if they predict different
samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ensemble.members.reading import Member
from folds.errors import EnsembleError
from folds.predictions.files import SPLITS


def equal_ids(one: NDArray[np.str_], other: NDArray[np.str_]) -> bool:
    """Return whether two columns of ids are equal, row by row."""
    return one is other or np.array_equal(one, other)


@dataclass(frozen=True)
class Table:
    """The samples of one split, in the order of the results.

    Attributes
    ----------
    numbered : whether the ids are the numbers of rows, because nothing names the samples; they match no other ids.
    """

    ids: NDArray[np.str_]
    numbered: bool = False

    @cached_property
    def position(self) -> dict[str, int]:
        """Return id → row."""
        return {name: i for i, name in enumerate(self.ids.tolist())}

    def locate(self, ids: NDArray[np.str_]) -> NDArray[np.int64] | None:
        """Return (n,) the row of each of `ids`, −1 if it is not in the table; None if `ids` equal the table's ids."""
        if equal_ids(ids, self.ids):
            return None
        return np.array([self.position.get(name, -1) for name in ids.tolist()], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ids)


def tables_of(members: Sequence[Member]) -> dict[str, Table]:
    """Return the table of each split that members predict which have ids and say their split.

    Members belong to one table if they refer to the same samples file or have the same ids. An out-of-fold member may
    also lack complete folds.

    Raises
    ------
    EnsembleError : the members of a split belong to different tables; the message names both groups and counts the ids.
    """
    tables = {}
    for split in SPLITS:
        inside = [member for member in members if member.rows is not None and member.split == split]
        groups: list[list[_Coverage]] = []
        for coverage in _coverages(inside):
            match = next(
                (group for group in groups if any(_same_table(coverage, other, split) for other in group)), None
            )
            if match is None:
                groups.append([coverage])
            else:
                match.append(coverage)
        if len(groups) > 1:
            raise different_samples(
                split, [(group[0].ids, [run for coverage in group for run in coverage.runs]) for group in groups]
            )
        if groups:
            tables[split] = Table(_union([coverage.table_ids for coverage in groups[0]]))
    return tables


@dataclass
class _Coverage:
    """The ids that some runs predict, and the fold of each id if it is known."""

    runs: list[str]
    ids: NDArray[np.str_]
    table_ids: NDArray[np.str_]
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
    """Return one coverage for each run; runs with the same rows share one."""
    by_run: dict[str, list[Member]] = {}
    for member in members:
        by_run.setdefault(member.run, []).append(member)
    coverages: list[_Coverage] = []
    for run, parts in by_run.items():
        coverage = _coverage(run, parts)
        twin = next(
            (
                other
                for other in coverages
                if other.table_ids is coverage.table_ids and equal_ids(other.ids, coverage.ids)
            ),
            None,
        )
        if twin is None:
            coverages.append(coverage)
        else:
            twin.runs.append(run)
    return coverages


def _coverage(run: str, parts: Sequence[Member]) -> _Coverage:
    ids: list[NDArray[np.str_]] = []
    wholes: list[NDArray[np.str_]] = []
    folds: list[NDArray] = []
    shas: set[str] = set()
    for part in parts:
        assert part.rows is not None  # noqa: S101
        assert part.all_rows is not None  # noqa: S101
        if not any(part.rows.ids is seen for seen in ids):
            ids.append(part.rows.ids)
            fold = part.fold
            folds.append(
                np.full(len(part.rows), -1 if fold is None else fold) if not isinstance(fold, np.ndarray) else fold
            )
        if not any(part.all_rows.ids is seen for seen in wholes):
            wholes.append(part.all_rows.ids)
        if part.sidecar is not None and part.sidecar.samples_sha is not None:
            shas.add(part.sidecar.samples_sha)
    # A run may have one file per fold: it covers the rows of all its files.
    all_ids = np.concatenate(ids) if len(ids) > 1 else ids[0]
    known_folds = np.concatenate(folds) if len(folds) > 1 else folds[0]
    if len(ids) > 1:
        all_ids, first = np.unique(all_ids, return_index=True)
        known_folds = known_folds[first]
    sha = parts[0].sidecar.folds_sha if parts[0].sidecar is not None else None
    return _Coverage([run], all_ids, _union(wholes), None if (known_folds < 0).any() else known_folds, sha, shas)


def _union(columns: Sequence[NDArray[np.str_]]) -> NDArray[np.str_]:
    """Return the ids of the longest column, then the other ids."""
    longest = max(columns, key=len)
    if all(equal_ids(column, longest) for column in columns):
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
    # Only complete folds may be absent: the fold of a row that one run lacks must be absent from that run.
    common = a.id_set & b.id_set
    nested = len(common) in (len(a.id_set), len(b.id_set)) or (a.folds_sha is not None and a.folds_sha == b.folds_sha)
    only_a, only_b = {a.fold_of[name] for name in a.id_set - common}, {b.fold_of[name] for name in b.id_set - common}
    complete = not only_a & set(b.folds.tolist()) and not only_b & set(a.folds.tolist())
    return nested and complete and all(a.fold_of[name] == b.fold_of[name] for name in common)


def different_samples(split: str, groups: Sequence[tuple[NDArray[np.str_], Sequence[str]]]) -> EnsembleError:
    (one, first), (other, second) = groups[0], groups[1]
    a, b = set(one.tolist()), set(other.tolist())
    lines = []
    for runs, own, theirs in ((first, a, b), (second, b, a)):
        missing = sorted(own - theirs)
        example = (
            f", {len(missing):,} of them not in the other group (e.g. '{missing[0]}')"
            if missing
            else ", all of them in the other group"
        )
        lines.append(f"{', '.join(runs)}: {len(own):,} ids{example}")
    lines += [f"{', '.join(runs)}: {len(ids):,} ids" for ids, runs in groups[2:]]
    return EnsembleError(
        f"the {split} predictions are for different samples: "
        f"{len(a ^ b):,} ids differ between {', '.join(first)} and {', '.join(second)}",
        hint=f"`runs={','.join(first)}` blends only the first group",
        details=lines,
    )
