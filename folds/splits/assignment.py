"""Assign samples to folds: the `FoldAssignment`, and its file `folds.csv`."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from folds import __version__
from folds.data.table import SampleTable
from folds.errors import EnsembleError, UsageError, combine_errors
from folds.metrics.task_names import CLASSES, COLUMN_TASKS, MULTILABEL, REGRESSION
from folds.predictions.columns import find_columns
from folds.predictions.label_columns import SEPARATOR
from folds.splits.checks import check_folds, fold_counts, people_per_class
from folds.splits.column_counts import ColumnFolds
from folds.splits.numbers import fold_numbers
from folds.splits.repair import Repair
from folds.utils.arguments import FLAG, PATH, check_arguments, whole
from folds.utils.csv_table import CsvTable, csv_bytes, read_bytes
from folds.utils.display import Displayed, Table
from folds.utils.files import read_json, sha256_bytes, write_atomic, write_json
from folds.utils.numeric import factorize
from folds.utils.tables import read_table_file
from folds.utils.text import sort_classes

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

SCHEMA = 1
_BLOCK = 1 << 14  # rows per block


@dataclass(frozen=True, eq=False, repr=False)
class FoldAssignment(Displayed):
    """The fold of every sample of a table.

    Attributes
    ----------
    ids, labels, persons : (n,) str, in the order of the table.
    fold : (n,) int64 in 0 … k-1; the fold in whose validation part the sample is. -1: in no validation part, always
        used for training; only with k = 1, where fold 0 is the part held out.
    k : number of folds.
    seed : seed of the split; None if a file does not record it.
    repeat : index among several assignments with one seed.
    table_sha : the `sha` of the sample table; "" if unknown.
    repair : changes to the assignment of scikit-learn; None if there are none.
    stratify : stratified columns besides the label.
    group_within : column (site) that was balanced over the folds of whole people; None if there was none.
    leave_out : column (site) whose values are the folds; None for folds by person.
    names : with `leave_out`, (k,) the value of each fold, several joined by ``+`` if they share people.
    task : ``classes``; or ``multilabel`` or ``regression``, with texts of several labels or numbers in `labels`.
    label_names : names of several labels or numbers; () for classes.
    """

    ids: NDArray[np.str_]
    labels: NDArray[np.str_]
    persons: NDArray[np.str_]
    fold: NDArray[np.int64]
    k: int
    seed: int | None
    repeat: int = 0
    table_sha: str = ""
    repair: Repair | None = None
    stratify: tuple[str, ...] = ()
    group_within: str | None = None
    leave_out: str | None = None
    names: tuple[str, ...] = ()
    task: str = CLASSES
    label_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def training_index(self, fold: int) -> NDArray[np.int64]:
        """Return the positions of the training samples of fold `fold`."""
        return np.flatnonzero(self.fold != self._check_fold(fold))

    def validation_index(self, fold: int) -> NDArray[np.int64]:
        """Return the positions of the validation samples of fold `fold`."""
        return np.flatnonzero(self.fold == self._check_fold(fold))

    def _check_fold(self, fold: int) -> int:
        if not whole().holds(fold) or not 0 <= fold < self.k:
            raise UsageError(f"`fold` must be from 0 to {self.k - 1}, found {fold!r}")
        return fold

    @property
    def held_out(self) -> bool:
        """Return whether this is one held-out part instead of k folds."""
        return self.k == 1

    @cached_property
    def sha(self) -> str:
        """Return the SHA-256 of the pairs of fold and id, independent of the order of the rows."""
        # Sorted in NumPy, because a million Python pairs take 200 MB; pairs are only needed if an id is repeated.
        order = np.argsort(self.ids, kind="stable")
        digest, last = hashlib.sha256(), None
        for start in range(0, len(order), _BLOCK):
            rows = order[start : start + _BLOCK]
            names = self.ids[rows].tolist()
            if len(set(names)) < len(names) or names[0] == last:
                pairs = sorted(zip(self.ids.tolist(), self.fold.tolist()))
                return sha256_bytes("\n".join(f"{fold} {name}" for name, fold in pairs).encode())
            last = names[-1]
            lines = [f"{fold} {name}" for name, fold in zip(names, self.fold[rows].tolist(), strict=True)]
            digest.update(("\n" if start else "").encode() + "\n".join(lines).encode())
        return digest.hexdigest()

    @cached_property
    def factorized_persons(self) -> tuple[list[str], NDArray[np.int64]]:
        """Return the sorted names of the people, and (n,) the index of each sample's person among them."""
        return factorize(self.persons)

    @cached_property
    def factorized_labels(self) -> tuple[list[str], NDArray[np.int64]]:
        """Return the sorted labels that occur, and (n,) the index of each sample's label among them."""
        return factorize(self.labels)

    def with_codes_of(self, table: SampleTable) -> FoldAssignment:
        """Return this assignment, with the factorized persons of `table` if both share one array of persons."""
        if self.persons is table.persons:
            self.__dict__["factorized_persons"] = table.factorized_persons
        return self

    @property
    def has_columns(self) -> bool:
        """Return whether a sample has several labels, or numbers, in place of one class."""
        return self.task in COLUMN_TASKS

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the classes that occur, sorted; or the names of several labels or numbers."""
        return self.label_names if self.has_columns else sort_classes(self.labels.tolist())

    @property
    def repair_text(self) -> str:
        """Return the changes by repair in a line; "" if there are none."""
        if self.repair is None:
            return ""
        one = {MULTILABEL: "label", REGRESSION: "bin"}.get(self.task, "")
        return self.repair.text(one, f"{one}s") if one else str(self.repair)

    def frame(self) -> pd.DataFrame:
        """Return a DataFrame with the columns ``id``, ``label``, ``person``, ``fold``, in the order of the table."""
        import pandas as pd

        return pd.DataFrame({"id": self.ids, "label": self.labels, "person": self.persons, "fold": self.fold})

    def check(self, classes: Sequence[str] | None = None) -> list[str]:
        """Return a line for each class that is missing from a fold; [] if there is none (see `check_folds`).

        Parameters
        ----------
        classes : the declared classes; by default those that occur.

        Raises
        ------
        EnsembleError : a person is in two folds, a fold number is outside 0 … k-1, or a fold is empty.
        """
        return check_folds(self, self.classes if classes is None else classes)

    def save(self, path: str | Path, force: bool = False) -> Path:
        """Write ``folds.csv`` and ``folds.json``, as ``ensemble folds -o``; return the path (see `save_folds`)."""
        check_arguments(locals(), {"path": PATH, "force": FLAG})
        return save_folds(Path(path), self, force)

    def to_dict(self, classes: Sequence[str] | None = None) -> dict[str, Any]:
        """Return the folds as plain values, for ``ensemble folds --json``."""
        classes = self.classes if classes is None else classes
        images, people = fold_counts(self, classes)
        return {
            "k": self.k,
            "seed": self.seed,
            "sha": self.sha,
            "table_sha": self.table_sha,
            "classes": list(classes),
            "images": images.tolist(),
            "people": people.tolist(),
            "people_per_class": people_per_class(self, classes),
            "repair": None if self.repair is None else self.repair.to_dict(),
            **(ColumnFolds(self, classes).to_dict() if self.has_columns else {}),
        } | self.second_grouping()

    def second_grouping(self) -> dict[str, Any]:
        """Return the fields of a second grouping on disk; {} without one."""
        within = {} if self.group_within is None else {"group_within": self.group_within}
        return within if self.leave_out is None else within | {"leave_out": self.leave_out, "names": list(self.names)}

    @property
    def part_names(self) -> list[str]:
        """Return the names of the folds for a table: numbers, or the sites that are left out."""
        if self.held_out:
            return ["held out", "training"]
        return [f"fold {i}: {self.names[i]}" if self.names else f"fold {i}" for i in range(self.k)]

    def display_table(self) -> Table:
        """Return the table to display: images of each class in each fold, and people."""
        classes = self.classes
        images, people = fold_counts(self, classes)
        parts = self.part_names
        title = "one part held out by person" if self.held_out else f"{self.k} folds by {self.leave_out or 'person'}"
        if self.has_columns:
            return self._display_columns(title, people)
        owners = people_per_class(self, classes)
        rows = [[name, *map(int, images[i]), int(images[i].sum()), owners[i]] for i, name in enumerate(classes[:12])]
        more = [f"… {len(classes) - 12} more classes"] if len(classes) > 12 else []
        rows += [
            ["images", *map(int, images.sum(axis=0)), len(self), ""],
            ["people", *map(int, people), int(people.sum()), ""],
        ]
        notes = [*more, *([f"repair: {self.repair}"] if self.repair is not None else [])]
        return Table(title, ["class", *parts, "all", "people"], rows, notes)

    def _display_columns(self, title: str, people: NDArray[np.int64]) -> Table:
        counted = ColumnFolds(self, self.classes)
        rows = counted.rows()[:12]
        rows += [
            ["images", *map(int, counted.samples), len(self), "", ""],
            ["people", *map(int, people), int(people.sum()), "", ""],
        ]
        more = len(self.classes) - 12
        notes = [*([f"… {more} more"] if more > 0 else []), *([f"repair: {self.repair_text}"] if self.repair else [])]
        return Table(title, counted.header(self.part_names), rows, notes)


def labels_of(table: SampleTable) -> dict[str, Any]:
    """Return the fields of a `FoldAssignment` that say what the labels of its table are."""
    return {"task": table.task, "label_names": tuple(table.classes)} if table.has_columns else {}


def save_folds(path: Path, assignment: FoldAssignment, force: bool = False) -> Path:
    """Write ``folds.csv`` (``id,label,person,fold``) and ``folds.json`` (k, seed, repeat, versions, shas).

    Equal files are left unchanged. A file with other folds is replaced only with `force`.

    Returns
    -------
    the path of the CSV

    Raises
    ------
    UsageError : the path has the suffix of the JSON file.
    EnsembleError : a file with other content exists, and `force` is False.
    """
    path = Path(path)
    beside = _json_path(path)
    if beside == path:
        raise UsageError(
            f"expected the name of a CSV file for the folds, found {path}",
            hint=f"name it {path.with_suffix('.csv')}",
        )
    columns = {"id": assignment.ids, "label": assignment.labels, "person": assignment.persons}
    content = csv_bytes({**columns, "fold": list(map(str, assignment.fold.tolist()))})
    same = path.is_file() and path.stat().st_size == len(content) and read_bytes(path) == content
    if same and beside.exists():
        return path
    if path.exists() and not same and not force:
        raise EnsembleError(
            f"{path} exists and holds other folds", hint="give another file name, or `force=True` to replace it"
        )
    if beside.exists() and not force and not _is_record(beside):
        raise EnsembleError(
            f"{beside} exists and is not a record of folds",
            hint="give another file name, or `force=True` to replace it",
        )
    # The .json first, so that every folds.csv has its record.
    write_json(beside, _to_json(assignment))
    return write_atomic(path, content)


def _json_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _is_record(path: Path) -> bool:
    try:
        record = read_json(path)
    except EnsembleError:
        return False
    return isinstance(record, dict) and {"schema", "k", "sha"} <= record.keys()


def _to_json(assignment: FoldAssignment) -> dict[str, Any]:
    # __version__ instead of package metadata, which do not exist if the program runs from a source tree.
    versions = {"ensemble": __version__, **{name: version(name) for name in ("scikit-learn", "numpy")}}
    record: dict[str, Any] = {"schema": SCHEMA, "k": assignment.k, "seed": assignment.seed, "repeat": assignment.repeat}
    record["stratify"] = list(assignment.stratify)
    record["repair"] = None if assignment.repair is None else assignment.repair.to_dict()
    record |= assignment.second_grouping()
    if assignment.has_columns:
        record |= {"task": assignment.task, "classes": list(assignment.label_names)}
    return record | {"versions": versions, "table_sha": assignment.table_sha, "sha": assignment.sha}


def load_folds(
    path: Path, table: SampleTable | None = None, columns: Mapping[str, str | None] | None = None
) -> FoldAssignment:
    """Return the folds in the file `path`, aligned by id with `table`.

    The file is a table of any format with ids and folds. Its columns are found by their names, which is logged if they
    are not ``id`` and ``fold``. Columns ``label`` and ``person``, or those in `columns`, must equal those of the table.
    The ``.json`` file is optional, so files of other programs can be read. Without `table`, the file is read as it is
    (see `read_folds`).

    Parameters
    ----------
    columns : role (id, label, person, fold) → column of the file, for names that are not known or not unique. A column
        that the file does not have is ignored, because it can be that of the table.

    Raises
    ------
    EnsembleError : ids are missing, unknown or repeated, labels or persons differ, or a fold is not a whole number.
    """
    if table is None:
        return read_folds(path, columns)
    if table.labels is None or table.persons is None:
        raise EnsembleError(f"{table.source} has no labels or no persons, which folds need")
    path = Path(path)
    read, fold = _read(path, columns, ("id", "fold"), table)
    order = _line_up(path, read, table)
    fold = fold if order is None else fold[order]
    del read
    k = int(fold.max()) + 1
    found = FoldAssignment(table.ids, table.labels, table.persons, fold, k, None, 0, table.sha, **labels_of(table))
    return _with_record(path, found).with_codes_of(table)


def read_folds(path: Path, columns: Mapping[str, str | None] | None = None) -> FoldAssignment:
    """Return the folds in the file `path`, in its order; columns of labels and persons are required."""
    path = Path(path)
    read, fold = _read(path, columns, ("id", "label", "person", "fold"))
    labels, persons = (np.array(read.columns[name], dtype=str) for name in ("label", "person"))
    return _with_record(
        path, FoldAssignment(np.array(read.columns["id"], dtype=str), labels, persons, fold, int(fold.max()) + 1, None)
    )


def _read(
    path: Path,
    columns: Mapping[str, str | None] | None,
    needed: Sequence[str],
    table: SampleTable | None = None,
) -> tuple[CsvTable, NDArray[np.int64]]:
    """Return the columns of the file by role and the fold of each row; raise EnsembleError if an id is repeated."""
    read = _by_role(read_table_file(path), columns or {}, needed, table)
    ids = read.columns["id"]
    fold = fold_numbers(read.columns["fold"], read.location(), read.source)
    if len(set(ids)) < len(ids):
        row: dict[str, int] = {}
        repeated = [
            f"{path.name} row {read.numbers[i]}: '{name}'" for i, name in enumerate(ids) if row.setdefault(name, i) != i
        ]
        raise combine_errors(repeated, f"ids of {path} are repeated", hint="expected one row per sample")
    return read, fold


def _by_role(
    read: CsvTable, columns: Mapping[str, str | None], needed: Sequence[str], table: SampleTable | None
) -> CsvTable:
    """Return the table with its columns named by role: id, fold, label, person."""
    for role, column in columns.items():
        if column is not None and (table is None or role == "fold"):
            read.column(column, "`fold_column`" if role == "fold" else f"`{role}`")
    given = {role: name for role, name in columns.items() if name in read.columns}
    roles = find_columns(list(read.columns), read.source, ("id", "label", "person", "fold"), given)
    names = dict(roles.names)
    if "id" not in given and table is not None:
        names = _id_by_content(read, names, table)
    elif "id" not in names and "id" not in roles.ambiguous:
        path = find_columns(list(read.columns), read.source, ("path",)).get("path")
        names |= {} if path is None else {"id": path}
    advice = {
        "id": "where a table has no column 'id', its paths are the ids",
        "fold": "name it with `fold_column`",
        "label": "give the table with `data`",
        "person": "give the table with `data`",
    }
    for role in needed:
        if role not in names:
            if role in roles.ambiguous:
                roles.require(role)
            read.column(role, None if role == "fold" else f"`{role}`", advice[role])
    if table is not None:
        # A column that is only guessed to hold labels or persons need not equal those of the table.
        names = {role: name for role, name in names.items() if role in needed or role in given or role == name}
    if any(role != name for role, name in names.items()):
        logger.info(f"{read.source}: {', '.join(f'{role} = {name}' for role, name in names.items())}")
    return replace(read, columns={role: read.columns[name] for role, name in names.items()})


def _id_by_content(read: CsvTable, names: dict[str, str], table: SampleTable) -> dict[str, str]:
    """Return `names` with the column whose cells are the ids of the table as id, if there is exactly one."""
    if "id" in names and _equal(table.ids, read.columns[names["id"]]):  # sets of a million ids take 150 MB
        return names
    wanted = set(table.ids.tolist())
    if "id" in names and wanted <= set(read.columns[names["id"]]):
        return names
    fitting = [name for name, cells in read.columns.items() if wanted <= set(cells)]
    return {**names, "id": fitting[0]} if len(fitting) == 1 else names


def _line_up(path: Path, read: CsvTable, table: SampleTable) -> NDArray[np.int64] | None:
    """Return the row of each sample of `table`, None if the order is the same; check that file and table agree."""
    again = f"make folds of this table: ensemble folds --data {table.source} -o NAME.csv"
    theirs = read.columns["id"]
    order: NDArray[np.int64] | None = None
    if not _equal(table.ids, theirs):
        ids = table.ids.tolist()
        first = {name: i for i, name in enumerate(theirs)}
        missing = [f"{location}: {name}" for name, location in zip(ids, table.locations) if name not in first]
        if missing:
            raise combine_errors(
                missing, f"of {len(table):,} samples of {table.source} have no fold in {path}", hint=again
            )
        known = set(ids)
        extra = [f"{path.name} row {read.numbers[i]}: {name}" for name, i in first.items() if name not in known]
        if extra:
            raise combine_errors(extra, f"of {len(first):,} ids in {path} are not in {table.source}", hint=again)
        order = np.fromiter(map(first.__getitem__, ids), np.int64, len(ids))
    for column, values in (("label", table.labels), ("person", table.persons)):
        if column not in read.columns or values is None:
            continue
        cells = read.columns[column]
        cells = cells if order is None else [cells[i] for i in order.tolist()]
        if column == "label" and table.has_columns and not _equal(values, cells):
            cells = _in_order_of(values.tolist(), cells)
        if not _equal(values, cells):
            rows = zip(table.ids.tolist(), cells, values.tolist(), strict=True)
            other = [f"{name}: '{theirs}', in the table '{ours}'" for name, theirs, ours in rows if theirs != ours]
            hint = again
            if column == "label" and table.has_columns:  # other readings of the same labels have the same people
                hint = f"read the labels as {path} has them (`uncertain`, `label`); without its column 'label' its "
                hint += f"folds are used for these labels; or {again}"
            raise combine_errors(other, f"samples have another {column} in {path} than in {table.source}", hint=hint)
    return order


def _in_order_of(ours: list[str], theirs: list[str]) -> list[str]:
    """Return texts of several labels as this table has them, where they only differ in the order of the labels."""
    return [
        own if sorted(own.split(SEPARATOR)) == sorted(other.split(SEPARATOR)) else other
        for own, other in zip(ours, theirs, strict=True)
    ]


def _equal(values: NDArray[np.str_], cells: list[str]) -> bool:
    """Return whether an array and a list are equal, without converting the whole array to Python texts at once."""
    parts = range(0, len(values), _BLOCK)
    return len(values) == len(cells) and all(
        values[at : at + _BLOCK].tolist() == cells[at : at + _BLOCK] for at in parts
    )


def _with_record(path: Path, found: FoldAssignment) -> FoldAssignment:
    """Return `found` with the fields of the .json file, if its sha is that of these folds (files may be edited)."""
    beside = _json_path(path)
    record = read_json(beside) if beside.is_file() else None
    if not isinstance(record, dict) or record.get("sha") != found.sha:
        return found
    seed, k, stratify = record.get("seed"), record.get("k"), record.get("stratify")
    k = k if isinstance(k, int) and k >= found.k else found.k
    table_sha = found.table_sha or str(record.get("table_sha") or "")
    spread = tuple(map(str, stratify)) if isinstance(stratify, list) else ()
    repeat, changes = int(record.get("repeat") or 0), _repair(record.get("repair"))
    task, classes = record.get("task"), record.get("classes")
    if not found.has_columns and task in COLUMN_TASKS and isinstance(classes, list) and classes:
        found = replace(found, task=str(task), label_names=tuple(map(str, classes)))
    within, left_out, names = (record.get(name) for name in ("group_within", "leave_out", "names"))
    texts = tuple(map(str, names)) if isinstance(names, list) and len(names) == k and left_out else ()
    return replace(
        found,
        k=k,
        seed=seed,
        repeat=repeat,
        table_sha=table_sha,
        repair=changes,
        stratify=spread,
        group_within=str(within) if within else None,
        leave_out=str(left_out) if texts else None,
        names=texts,
    )


def _repair(record: Any) -> Repair | None:
    try:
        return Repair.from_dict(record)
    except (TypeError, KeyError):
        return None
