"""Place members that do not say their split, and arrays without ids, into the tables of the splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.coverage import Table, different_samples, equal_ids
from ensemble.members.columns import listed
from ensemble.members.reading import Member
from ensemble.members.true_labels import TrueLabels
from folds.errors import EnsembleError
from folds.predictions.files import SPLITS
from folds.predictions.rows import SampleRows


@dataclass(frozen=True)
class RowOrder:
    """The ids of a file, in its order; `named` is True for a file that the user gave for its order."""

    source: str
    ids: NDArray[np.str_]
    named: bool = False


@dataclass
class Placed:
    """The members of each split.

    Attributes
    ----------
    members : split → members, those with a sidecar and the others in their order.
    order : source of an array without ids → the file whose row order it was given, "" if its rows are numbered.
    """

    members: dict[str, list[Member]]
    order: dict[str, str] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)


def place_members(
    members: Sequence[Member], tables: dict[str, Table], labels: TrueLabels | None, orders: Sequence[RowOrder] = ()
) -> Placed:
    """Return the members of each split.

    A member with ids belongs to the split with its ids. An array without ids belongs to the split that its name says,
    otherwise to the one with as many rows. If no member has a split, members are out-of-fold if `labels` are given,
    otherwise test. An array without ids gets the row order of the files with ids if they agree, or that of `orders`.

    Parameters
    ----------
    tables : split → table; tables known only from other files or arrays are added to it.
    orders : ids in files that the user named for the row order of arrays.

    Raises
    ------
    EnsembleError : the ids of a file or the length of an array match no split or two, or the row order of an array is
        unknown because files list the same samples in different orders.
    """
    placement = _Placement(members, tables, labels, orders)
    splits: dict[int, str] = {}
    for member in members:
        if member.rows is not None:
            splits[id(member)] = member.split or placement.split_of_ids(member)
    bare = [member for member in members if member.rows is None]
    no_tables = not tables
    for member in bare:
        splits[id(member)] = placement.split_of_rows(member, bare[0], no_tables)
    placed = Placed({split: [] for split in SPLITS})
    for member in members:
        split = splits[id(member)]
        placed.members[split].append(
            member if member.rows is not None else placement.with_order(member, split, splits, placed)
        )
        placed.splits[member.source] = split
    placed.members = {split: inside for split, inside in placed.members.items() if inside}
    for order in orders:
        if order.named and order.source not in placed.order.values():
            raise EnsembleError(
                f"`ids={order.source}` has {len(order.ids):,} ids, which are not those of an array without ids",
                hint="name a file with the ids of the rows of an array, in its order; files with ids need none",
            )
    return placed


def order_notes(members: Sequence[Member], placed: Placed, assumed: frozenset[str]) -> list[str]:
    """Return notes on arrays whose rows or columns are in an order that cannot be checked: which order was taken."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for member in members:
        if member.rows is not None and member.source not in assumed:
            continue
        split = placed.splits[member.source]
        columns = f"columns {listed(member.classes)}" if member.source in assumed else ""
        order = placed.order.get(member.source)
        rows = "" if order is None else f"rows in the order of {order}" if order else "rows numbered from 0"
        groups.setdefault((split, rows, columns), []).append(member.source)
    return [
        f"no sidecar, row and column order not checked ({split}): {listed(paths)}: "
        + ", ".join(filter(None, (rows, columns)))
        for (split, rows, columns), paths in groups.items()
    ]


class _Placement:
    def __init__(
        self,
        members: Sequence[Member],
        tables: dict[str, Table],
        labels: TrueLabels | None,
        orders: Sequence[RowOrder],
    ) -> None:
        self.members, self.tables, self.labels, self.orders = members, tables, labels, orders
        self.id_sets: dict[int, set[str]] = {}
        self.labeled = self._split_of_labels()
        if labels is not None and not tables:
            table = self._table_of_labels(labels)
            if table is not None:
                tables[self.labeled] = table

    def _table_of_labels(self, labels: TrueLabels) -> Table | None:
        """Return the samples of the labels; None if the user named other ids for the arrays."""
        bare = [len(member) for member in self.members if member.rows is None]
        inside = next((member.rows.ids for member in self.members if member.rows is not None), None)
        if not bare and inside is not None and self._set(inside) < self._set(labels.ids):
            return Table(inside)  # the labels may be those of more samples
        named = {len(order.ids) for order in self.orders if order.named}
        return Table(labels.ids) if inside is not None or len(labels.ids) in bare or not named & set(bare) else None

    def _split_of_labels(self) -> str:
        """Return the split that the labels belong to if no file with ids says it."""
        stated = {member.split for member in self.members} - {""}
        return "test" if stated == {"test"} and all(member.split for member in self.members) else "oof"

    def _set(self, ids: NDArray[np.str_]) -> set[str]:
        if id(ids) not in self.id_sets:
            self.id_sets[id(ids)] = set(ids.tolist())
        return self.id_sets[id(ids)]

    def _same_samples(self, ids: NDArray[np.str_], others: NDArray[np.str_]) -> bool:
        return len(ids) == len(others) and (equal_ids(ids, others) or self._set(ids) == self._set(others))

    def split_of_ids(self, member: Member) -> str:
        """Return the split whose samples have the ids of a member."""
        assert member.rows is not None  # noqa: S101
        ids = member.rows.ids
        for split, table in self.tables.items():
            if self._same_samples(ids, table.ids) and not table.numbered:
                return split
        if "test" not in self.tables and not any(self._set(ids) & self._set(one.ids) for one in self.tables.values()):
            self.tables["test"] = Table(ids)
            return "test"
        split, table = max(self.tables.items(), key=lambda item: len(self._set(ids) & self._set(item[1].ids)))
        others = [one.run for one in self.members if one is not member and one.rows is not None] or ["the labels"]
        raise different_samples(split, [(table.ids, list(dict.fromkeys(others))), (ids, [member.run])])

    def split_of_rows(self, member: Member, first: Member, no_tables: bool) -> str:
        """Return the split of an array without ids, by its name or its length; add the split's table if it is new."""
        tables, named = self.tables, [order for order in self.orders if order.named and len(order.ids) == len(member)]
        split = member.split
        if split and split not in tables:
            tables[split] = self._new_table(member, split, named)
        if not tables:
            split = self.labeled if self.labels is not None else "test"
            tables[split] = self._new_table(member, split, named)
        fitting = [name for name, table in tables.items() if len(table) == len(member)]
        if split and split in fitting:
            return split
        if len(fitting) == 1 and not split:
            return fitting[0]
        if not split and not fitting and named and "test" not in tables:
            tables["test"] = Table(named[0].ids)
            return "test"
        sizes = (
            f"{first.path} has {len(first):,}"
            if no_tables and member is not first
            else ", ".join(f"{name} has {len(table):,} samples" for name, table in tables.items())
        )
        if fitting and not split:
            raise EnsembleError(
                f"{member.path} has {len(member):,} rows and no sidecar, and matches two splits: {sizes}",
                hint=f"add a sidecar, or name it NAME.oof{member.path.suffix} or NAME.test{member.path.suffix}",
            )
        raise EnsembleError(
            f"{member.path} has {len(member):,} rows and no sidecar, expected one row for each sample: {sizes}",
            hint="blend arrays of the same length, name a file with its ids (`ids=FILE`), or add a sidecar with them",
        )

    def _new_table(self, member: Member, split: str, named: Sequence[RowOrder]) -> Table:
        if named:
            return Table(named[0].ids)
        labels = self.labels
        if labels is not None and split == self.labeled and len(labels.ids) == len(member):
            return Table(labels.ids)
        return Table(np.arange(len(member)).astype(str), numbered=True)

    def with_order(self, member: Member, split: str, splits: Mapping[int, str], placed: Placed) -> Member:
        """Return an array with the ids of its rows; unchanged if it has the order of the table."""
        table = self.tables[split]
        if table.numbered:
            placed.order[member.source] = ""
            return member
        chosen = self._order(member, table, split, splits)
        placed.order[member.source] = chosen.source
        if equal_ids(chosen.ids, table.ids):
            return member
        rows = SampleRows(chosen.ids)
        return replace(member, rows=rows, all_rows=rows)

    def _order(self, member: Member, table: Table, split: str, splits: Mapping[int, str]) -> RowOrder:
        """Return the row order of an array: the one that the user named, or that of all files with ids."""
        length = len(table)
        fitting = [one for one in self.orders if self._same_samples(one.ids, table.ids)]
        named = next((one for one in fitting if one.named), None)
        if named is not None:
            return named
        whole = [
            RowOrder(str(one.path), one.rows.ids)
            for one in self.members
            if one.rows is not None and splits[id(one)] == split and len(one.rows) == length
        ]
        distinct = _distinct(whole)
        labels = self.labels
        labeled = None
        if labels is not None and self._same_samples(labels.ids, table.ids):
            labeled = RowOrder(str(labels.path), labels.ids)
        if labeled is not None and len(distinct) != 1:
            return labeled
        if labeled is not None:
            distinct = _distinct([*distinct, labeled])
        if len(distinct) > 1:
            raise EnsembleError(
                f"{member.path} has no ids, and {distinct[0].source} and {distinct[1].source} list the same samples in "
                "different orders: its row order is unknown",
                hint=f"name a file with its ids in its order: `ids={distinct[0].source}` or `ids={distinct[1].source}`",
            )
        return distinct[0] if distinct else RowOrder("the samples file", table.ids)


def _distinct(orders: Sequence[RowOrder]) -> list[RowOrder]:
    """Return the orders without those equal to an earlier one."""
    kept: list[RowOrder] = []
    for order in orders:
        if not any(equal_ids(order.ids, other.ids) for other in kept):
            kept.append(order)
    return kept
