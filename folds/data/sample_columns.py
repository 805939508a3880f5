"""Find the columns of a table of images: path, id, label, person, and what they are taken for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from folds.data.image_folder import is_image
from folds.data.one_hot import binary_columns, count_ones, nearly_one_hot_columns, one_hot_columns, read_one_hot
from folds.data.table import AUTO_COPIES, DataSpec
from folds.errors import EnsembleError, UsageError
from folds.metrics.task_names import COLUMN_TASKS
from folds.predictions.columns import ColumnRoles, find_columns
from folds.utils.csv_table import CsvTable
from folds.utils.tables import table_header, table_suffix

USUAL = {"path": "path", "label": "label", "person": "person"}
_SAMPLE = re.compile(r"sample.?sub", re.IGNORECASE)
_TEST_VALUES = frozenset({"test", "testing"})


@dataclass(frozen=True)
class SampleColumns:
    """The columns of the samples in a table; None: there is no such column.

    Attributes
    ----------
    label : a column, or the columns of one-hot labels.
    roles : what was found, with the columns that could be meant.
    notes, warnings : lines for the user.
    """

    path: str | None
    id: str | None
    label: tuple[str, ...]
    person: str | None
    roles: ColumnRoles
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def find_sample_columns(table: CsvTable, spec: DataSpec, training: bool) -> SampleColumns:
    """Return which columns hold paths, ids, labels and persons.

    A column that the user named, or that has the usual name, is taken; else the only one with another known name. In a
    table of test images, labels and persons are not guessed: another column could only look like them.

    Raises
    ------
    EnsembleError : several columns could be meant, and one of them is needed.
    """
    spec = with_first_file(spec, table)
    header = list(table.columns)
    given = {
        role: name
        for role, name in {"path": spec.path, "label": spec.label, "person": spec.person, "id": spec.id}.items()
        if name in header
    }
    if spec.person == AUTO_COPIES and spec.person_regex is not None:
        raise UsageError(f"`person={AUTO_COPIES}` and `person_regex` contradict each other", hint="give one of them")
    asked = {role for role in USUAL if getattr(spec, role) != USUAL[role]} | ({"id"} if spec.id else set())
    wanted = [role for role in ("path", "id", "label", "person") if role not in asked - given.keys()]
    if not training:
        wanted = [role for role in wanted if role in ("path", "id") or role in given]
    if (spec.person_regex is not None or spec.person == AUTO_COPIES) and "person" not in given:
        wanted = [role for role in wanted if role != "person"]
    roles = find_columns(header, table.source, wanted, given)
    names, ambiguous = dict(roles.names), dict(roles.ambiguous)
    path, id_column = _path_and_id(table, names, ambiguous, spec, asked)
    names |= {} if path is None else {"path": path}
    if id_column is None:
        names.pop("id", None)
        ambiguous.pop("id", None)
    else:
        names["id"] = id_column
    shown = _label_of_submission(table, ambiguous.get("label", ())) if training else None
    notes: tuple[str, ...] = ()
    if shown is not None:
        names["label"], others = shown[0], [name for name in ambiguous.pop("label") if name != shown[0]]
        notes = (f"{table.source}: the label is '{shown[0]}', as in {shown[1]}, not {' or '.join(map(repr, others))}",)
    label, warnings = _label(table, spec, names, ambiguous, training)
    unused = [*(["person"] if "person" in header else []), *_known(table, "person")]
    if spec.person == AUTO_COPIES and training and unused:
        warnings.append(
            f"{table.source} has a column '{unused[0]}', which may name the persons: `person={unused[0]}` keeps all "
            "images of a person together, `person=auto-copies` only copies of an image"
        )
    if len(label) > 1:
        names["label"] = ",".join(label)
    roles = _roles(table, names, ambiguous, spec.split, label)
    unusual = any(name != USUAL.get(role, "id") for role, name in roles.names.items() if role != "split")
    notes += (roles.text(),) if unusual or roles.ambiguous else ()
    return SampleColumns(path, id_column, label, names.get("person"), roles, notes, tuple(warnings))


def _label_of_submission(table: CsvTable, columns: Sequence[str]) -> tuple[str, str] | None:
    """Return the one of several columns that a sample submission beside the table has, and its name; None if unknown.

    A competition asks for the label: ``image_name,target``.
    """
    if not columns or not table.path.is_file():
        return None
    beside = sorted(path for path in table.path.parent.iterdir() if _SAMPLE.match(path.name) and path.is_file())
    found = {
        (name, path.name)
        for path in beside
        if table_suffix(path.name)
        for name in table_header(path)[1:]
        if name in columns
    }
    return min(found) if len({name for name, _ in found}) == 1 else None


def _path_and_id(
    table: CsvTable, names: dict[str, str], ambiguous: dict[str, tuple[str, ...]], spec: DataSpec, asked: set[str]
) -> tuple[str | None, str | None]:
    """Return the columns of the path and of the id; without a path, the column of names of files or ids is the path."""
    path, id_column = names.get("path"), names.get("id")
    if path is not None:
        # Ids of other names are guessed only where they are the paths, too: a table keeps the ids that it had.
        return path, id_column if id_column == (spec.id or "id") else None
    if "path" in asked or "path" in ambiguous:
        return None, id_column if id_column == (spec.id or "id") else None
    files = [name for name in _known(table, "id") if name != id_column and is_image(table.columns[name][0])]
    if len(files) == 1 and not (id_column and is_image(table.columns[id_column][0])):
        ambiguous.pop("id", None)
        return files[0], id_column
    return id_column, id_column


def _known(table: CsvTable, role: str) -> list[str]:
    """Return the columns with a known name of a role."""
    return [name for name in table.columns if role in find_columns([name], table.source, (role,)).names]


def _label(
    table: CsvTable,
    spec: DataSpec,
    names: dict[str, str],
    ambiguous: dict[str, tuple[str, ...]],
    training: bool,
) -> tuple[tuple[str, ...], list[str]]:
    """Return the column of the label, or the one-hot columns, and warnings; () if there is none."""
    listed = tuple(part.strip() for part in spec.label.split(",") if part.strip())
    if "label" not in names and len(listed) > 1:
        if training:
            return listed, []
        if spec.task in COLUMN_TASKS:  # the others are not known
            return tuple(name for name in listed if name in table.columns), []
        if not set(listed) <= table.columns.keys():
            return (), []
        if set(listed) <= set(binary_columns(table, ())) and set(count_ones(table, listed)) == {1}:
            return listed, []
        return (), [f"the columns {spec.label} of {table.source} are not one-hot labels: read without labels"]
    taken = {*names.values(), *(name for found in ambiguous.values() for name in found)}
    taken |= {*_known(table, "fold"), *_known(table, "split")}
    if "label" in names:
        label = names["label"]
        one_hot = one_hot_columns(table, taken - {label})
        if label not in (spec.label, *one_hot):
            _check_agreement(table, label, one_hot, taken)
        if label in one_hot and len(one_hot) > 2:
            return (label,), [
                f"column '{label}' of {table.source} is one of {len(one_hot)} one-hot columns: it tells its class "
                f"from all others together; `label={','.join(one_hot)}` reads all classes"
            ]
        return (label,), []
    if not training or "label" in ambiguous or spec.label != USUAL["label"]:
        return (), []
    return one_hot_columns(table, taken), []


def _check_agreement(table: CsvTable, label: str, one_hot: Sequence[str], skipped: set[str]) -> None:
    """Raise EnsembleError if a column that is guessed to be the label says something else than one-hot columns."""
    agrees = True
    if one_hot:
        classes = read_one_hot(table, one_hot)
        pairs = set(zip(table.columns[label], classes, strict=True))
        agrees = len(pairs) == len(set(table.columns[label])) == len(set(classes))
    else:
        # One-hot columns with rows that have no label, too, could be meant.
        one_hot = nearly_one_hot_columns(table, skipped)
        agrees = not one_hot
    if not agrees:
        raise EnsembleError(
            f"{table.source}: '{label}' and the one-hot columns {', '.join(one_hot)} could both be the label",
            hint=f"name one of them: `label={label}` or `label={','.join(one_hot)}`",
        )


def _roles(
    table: CsvTable,
    names: dict[str, str],
    ambiguous: dict[str, tuple[str, ...]],
    split: str | None,
    label: Sequence[str],
) -> ColumnRoles:
    names = {role: names[role] for role in ("id", "path", "label", "person") if role in names}
    if split is not None:
        names["split"] = split
    taken = {*names.values(), *label, *_known(table, "fold"), *(name for found in ambiguous.values() for name in found)}
    unused = tuple(name for name in table.columns if name not in taken)
    return ColumnRoles(table.source, names, frozenset(), ambiguous, unused)


def with_first_file(spec: DataSpec, table: CsvTable) -> DataSpec:
    """Return the specification with the first column of a stack of files as the path, whose names may be the ids."""
    if not spec.stack:
        return spec
    if spec.path not in (USUAL["path"], spec.stack[0]):
        raise UsageError("`stack` and `path` both name the files of a sample", hint="give one of them")
    for name in spec.stack:
        table.column(name, "`stack`")
    return replace(spec, path=spec.stack[0])


def missing_column(table: CsvTable, roles: ColumnRoles, role: str, name: str, advice: str = "") -> list[str]:
    """Raise EnsembleError: there is no column `name`, or several could be meant."""
    if role in roles.ambiguous:
        roles.require(role)
    header = list(table.columns)
    first = ",".join(header)
    if any(is_image(cell.split()[0]) for cell in header if cell.split()):
        raise EnsembleError(
            f"{table.source} has no header: its first line is '{first[:80]}'",
            hint="write names of columns into the first line, separated by commas: path,label,person",
        )
    if len(header) == 1 and re.search(r"\S\s+\S", first):
        raise EnsembleError(
            f"{table.source} has one column, '{first[:80]}': its cells are separated by blanks",
            hint="save it as a CSV, with commas between the cells",
        )
    # The columns of paths and ids are neither labels nor persons.
    other = () if role in ("path", "id") else tuple(roles.names.get(one) for one in ("path", "id"))
    return table.column(name, f"`{role}`", advice, other)


def unused_split_note(table: CsvTable, spec: DataSpec) -> list[str]:
    """Return a note if a column says which rows are test images and the user did not name it."""
    for name in _known(table, "split") if spec.split is None else ():
        counts = Counter(table.columns[name])
        if any(value.lower() in _TEST_VALUES for value in counts) and len(counts) > 1:
            listed = ", ".join(f"{value or '(empty)'} ({count:,})" for value, count in counts.most_common(5))
            return [
                f"{table.source} has a column '{name}' ({listed}), which is not used: all rows are for training; "
                f"`split={name}` makes its rows with test test images"
            ]
    return []
