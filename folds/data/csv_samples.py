"""Read the samples in a table whose columns have the usual names, other known names, or those that the user gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from folds.data.column_labels import ColumnLabels, class_notes, read_column_labels, with_all_columns
from folds.data.image_files import locate_images
from folds.data.image_folder import EACH_ITS_OWN, persons_by_regex, regex_warnings
from folds.data.image_paths import ImagePaths
from folds.data.label_cells import check_uncertain_applies
from folds.data.one_hot import binary_columns, count_ones, read_one_hot
from folds.data.patients import are_dicom, patients_of
from folds.data.raw_columns import MISSING, RawColumns
from folds.data.sample_columns import USUAL, SampleColumns, missing_column, with_first_file
from folds.data.table import AUTO_COPIES, DataSpec
from folds.errors import EnsembleError
from folds.images.stacks import stack_path
from folds.metrics.task_names import CLASSES, COLUMN_TASKS
from folds.utils.csv_table import CsvTable
from folds.utils.spelling import is_placeholder


def read_samples(
    table: CsvTable,
    found: SampleColumns,
    index: Sequence[int] | None,
    spec: DataSpec,
    *,
    training: bool,
    need_images: bool,
    find_images: bool = False,
) -> RawColumns:
    """Return the cells of the rows at `index` (None: all rows) in the columns that were found.

    Raises
    ------
    EnsembleError : a needed column is missing or ambiguous, or a row has no path.
    """

    spec = with_first_file(spec, table)

    def select(column: list[str]) -> list[str]:
        return column if index is None else [column[i] for i in index]

    def cells(role: str, name: str | None, required: bool, advice: str = "") -> list[str] | None:
        if name is not None:
            return select(table.columns[name])
        if not required:
            return None
        return select(missing_column(table, found.roles, role, getattr(spec, role), advice))

    def known(column: list[str] | None) -> list[str] | None:
        # A column that is empty in all test rows is unknown; a column with only some empty cells is an error later.
        return None if column is not None and not training and MISSING.issuperset(column) else column

    locations = table.location() if index is None else table.location().take(index)
    if spec.id is not None and found.id is None:
        table.column(spec.id, "`id`")
    path = found.path
    wanted = need_images or find_images or spec.person_regex or spec.person == AUTO_COPIES
    if path == found.id == "id" and not wanted:
        path = None  # the ids of a table without paths need not be names of files
    written = cells("path", path, need_images or found.id is None or spec.person_regex is not None)
    # Tables made on Windows have backslashes; `/` works on every system.
    paths = None if written is None else [name.replace("\\", "/") for name in written]
    ids = select(table.columns[found.id]) if found.id is not None and found.id != path else paths
    named = None if found.person is None or spec.person_regex else select(table.columns[found.person])
    several = _several_labels(table, found, index, spec, training, named)
    warnings: list[str] = []
    notes: list[str] = []
    if several is not None:
        labels = known(several.texts)
    else:
        every = _labels(table, found, spec, training)
        labels = None if every is None else known(select(every))
    proposed = class_notes(labels or (), found.label[0], table.source) if training and len(found.label) == 1 else []
    if spec.person_regex is not None and paths is not None:
        persons: list[str] | None = persons_by_regex(paths, spec.person_regex, locations)
        warnings = regex_warnings(spec.person_regex, paths)
    else:
        advice = (
            f"or extract it from paths with `person_regex`; `person={AUTO_COPIES}` groups copies of an image; "
            f"{EACH_ITS_OWN}"
        )
        if training and spec.person != AUTO_COPIES and _patients_are_persons(found, spec, paths):
            persons, notes, warnings = _patients(table, spec, paths or [], locations)
        else:
            persons = cells("person", found.person, training and spec.person != AUTO_COPIES, advice)
        if persons is not None and not training and all(map(is_placeholder, set(persons))):
            persons = None  # unknown for all test images
    used = {path, *found.label, found.person, spec.person, spec.split, found.id, *(spec.stack or ())}
    attributes = {name: select(column) for name, column in table.columns.items() if name not in used}
    columns = RawColumns(table.source, ids or [], locations, None, labels, persons, attributes)
    columns.notes, columns.warnings = notes, warnings
    if several is not None:
        columns.task, columns.names = several.task, several.names
        columns.notes, columns.warnings = [*several.notes, *notes], [*several.warnings, *warnings]
    elif spec.task is None:
        columns.notes = [*proposed, *notes]
    if paths is not None:
        _check_paths(paths, table, locations, found.path or spec.path)
        columns.folders = spec.image_folders(training)
        folder = next(iter(columns.folders), table.path.absolute().parent)
        columns.paths = ImagePaths(folder, paths)
        if spec.stack:
            _add_stacks(columns, table, spec.stack, folder, select)
    return columns


def _patients_are_persons(found: SampleColumns, spec: DataSpec, paths: Sequence[str] | None) -> bool:
    """Return whether no column says whose image a row is, and all images are DICOM, which may say it."""
    named = found.person or found.roles.ambiguous.get("person") or spec.person != USUAL["person"]
    return not named and are_dicom(paths or ())


def _patients(
    table: CsvTable, spec: DataSpec, names: Sequence[str], locations: Sequence[str]
) -> tuple[list[str], list[str], list[str]]:
    """Return the PatientID of each image, notes and warnings (`patients_of`)."""
    folders = spec.image_folders(True)
    paths: Sequence[Path] = ImagePaths(next(iter(folders), table.path.absolute().parent), list(names))
    paths = locate_images(paths, folders, table.source, locations, True, [])
    return patients_of(paths, locations, table.source)


def _add_stacks(
    columns: RawColumns,
    table: CsvTable,
    names: Sequence[str],
    folder: Path,
    select: Callable[[list[str]], list[str]],
) -> None:
    """Set the paths of samples that are stacks of the files in several columns."""
    for name in names:
        written = [cell.replace("\\", "/") for cell in select(table.columns[name])]
        _check_paths(written, table, columns.locations, name)
        columns.stacked[name] = ImagePaths(folder, written)
    columns.paths = tuple(map(stack_path, zip(*columns.stacked.values(), strict=True)))


def _several_labels(
    table: CsvTable,
    found: SampleColumns,
    index: Sequence[int] | None,
    spec: DataSpec,
    training: bool,
    persons: list[str] | None = None,
) -> ColumnLabels | None:
    """Return the labels or numbers of each row; None for one class, and for columns of test images without labels."""
    if not training and spec.task not in COLUMN_TASKS:
        return None
    try:
        read = read_column_labels(
            table,
            found.label,
            index,
            spec.task,
            spec.classes,
            None if persons is None else len(set(persons)),
            merge=bool(spec.merge_spellings),
            training=training,
            uncertain=spec.uncertain,
        )
        if training and spec.uncertain is not None:
            task, names = (CLASSES, ()) if read is None else (read.task, read.names)
            check_uncertain_applies(spec.uncertain, task, names, found.label, table.source)
        return read if training or read is None else with_all_columns(read, spec.classes or (), table.source)
    except EnsembleError:
        cells = (table.columns[name] for name in found.label if name in table.columns)
        values = [{column[i] for i in index or range(len(column))} for column in cells]
        if training or any(len(one) > 1 for one in values):
            raise
    shown = ", ".join(f"'{one}'" for one in sorted({cell for one in values for cell in one}))
    warning = f"all cells of {', '.join(found.label)} of {table.source} are {shown}, as in a sample submission: read "
    warning += "without labels"
    # All equal, and no labels: the template of a submission, such as .5 in all cells.
    texts = [""] * len(index or range(len(table)))
    return ColumnLabels(spec.task or "", tuple(spec.classes or ()), texts, warnings=(warning,))


def _labels(table: CsvTable, found: SampleColumns, spec: DataSpec, training: bool) -> list[str] | None:
    """Return the labels of all rows; None for test images without them."""
    if len(found.label) > 1:
        return read_one_hot(table, found.label)
    if found.label:
        return table.columns[found.label[0]]
    if training:
        return missing_column(table, found.roles, "label", spec.label, _binary_advice(table, found))
    return None


def _binary_advice(table: CsvTable, found: SampleColumns) -> str:
    """Return advice about columns of 0 and 1 that are no one-hot labels; "" if there are none."""
    columns = binary_columns(table, set(found.roles.names.values()))
    if len(columns) < 2:
        return ""
    wrong = sum(count != 1 for count in count_ones(table, columns))
    return (
        f"the columns {', '.join(columns)} hold 0 and 1, but {wrong:,} rows have not exactly one 1: if some of them "
        "are one-hot labels, or several labels of an image, list these: `label=A,B,C`"
    )


def _check_paths(written: list[str], table: CsvTable, locations: Sequence[str], column: str) -> None:
    if not MISSING.isdisjoint(written):
        missing = locations[next(i for i, name in enumerate(written) if name in MISSING)]
        place = missing if table.around else f"{missing} of {table.source}"
        raise EnsembleError(f"{place} has no image path in column '{column}'", hint="add it or remove the row")


def without_placeholder_labels(
    columns: RawColumns, test_labels: bool | None, classes: Sequence[str] | None
) -> RawColumns:
    """Return the columns of test images without labels that are no labels: all are equal, as in a sample submission.

    Parameters
    ----------
    test_labels : True keeps them, False removes any labels.
    """
    labels = columns.labels
    if labels is None or test_labels:
        return columns
    if test_labels is False:
        note = f"the labels of {columns.source} are not used, as asked"
        return replace(columns, labels=None, notes=[*columns.notes, note])
    several = classes is None or len(classes) > 1
    if len(labels) < 2 or len(set(labels)) > 1 or not several:
        return columns
    return replace(
        columns,
        labels=None,
        warnings=[
            *columns.warnings,
            f"all {len(labels):,} test labels of {columns.source} are '{labels[0]}', as in a sample submission: they "
            "are not used; `test_labels=True` scores them, `test_labels=False` says that they are no labels",
        ],
    )
