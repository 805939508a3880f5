"""Read tables of images in all supported forms: `read_data` for training and test data, `read_test` for test images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from folds.data import mask_competition as mask_layout
from folds.data.image_folder import EACH_ITS_OWN, is_image, persons_by_regex, read_class_folders, read_plain_folder
from folds.data.table import (
    MISSING,
    Dataset,
    DataSpec,
    ImagePaths,
    RawColumns,
    SampleTable,
    build_table,
    normal_path,
)
from folds.errors import EnsembleError, UsageError, close_matches
from folds.utils.csv_table import CsvTable, read_header
from folds.utils.frames import FRAME, frame_columns
from folds.utils.tables import read_table_file

if TYPE_CHECKING:
    import pandas


def read_data(spec: DataSpec, *, need_images: bool = True) -> Dataset:
    """Return the training samples, and the test samples if there are any.

    The form of `spec.data` is detected from its content, in this order: the mask-competition layout (train/train.csv),
    a CSV, a folder with one CSV that has the requested columns, a folder of class folders.

    Parameters
    ----------
    need_images : whether every image file must exist; splitting needs only the table.

    Raises
    ------
    EnsembleError : invalid data, see `build_table` and the readers; problems of one kind are collected.
    UsageError : options that contradict each other.
    """
    data = spec.data
    if not data.exists():
        raise not_there(data, "data")
    if spec.split is not None and spec.test is not None:
        raise UsageError("`split` and `test` both select test images", hint="give one of them")
    notes: list[str] = []
    warnings: list[str] = []
    test: SampleTable | None = None
    layout = mask_layout.train_folder(data, spec.label)
    csv_file = data if data.is_file() else None if layout else _only_csv(data, spec)
    if layout is not None:
        _check_unused_options(spec, "the mask-competition layout", person_regex=spec.person_regex)
        source = str(layout / "train.csv")
        columns, notes = mask_layout.read_train(layout, source, need_images)
        declared = spec.classes or mask_layout.CLASSES
        attributes = mask_layout.CLASS_ATTRIBUTES
        train = build_table(columns, training=True, classes=declared, class_attributes=attributes, need_images=False)
        evaluation = mask_layout.is_evaluation(layout.parent)
        if spec.test is None and evaluation is not None:
            test, more = _evaluation(evaluation, train.classes, train.class_attributes, need_images)
            notes += more
    elif csv_file is not None:
        if csv_file is not data:
            notes.append(f"reading {csv_file}")
        train, test, more_notes = _csv_data(_read_table(csv_file), spec, need_images)
        notes += more_notes
    else:
        _check_unused_options(spec, "a folder of class folders")
        columns, notes = read_class_folders(data, spec, str(data))
        train = build_table(columns, training=True, classes=spec.classes, need_images=False)
    if spec.test is not None:
        if layout is not None and mask_layout.is_evaluation(layout.parent):
            notes.append(f"{layout.parent / 'eval'} is not read, because `test` is given")
        test, more = read_test(
            spec.test, spec, classes=train.classes, class_attributes=train.class_attributes, need_images=need_images
        )
        notes += more
    _warn_of_leaks(train, test, warnings)
    return Dataset(train, test, tuple(notes), tuple(warnings))


def read_frame(frame: pandas.DataFrame, spec: DataSpec | None = None, *, need_images: bool = True) -> Dataset:
    """Return the samples of a DataFrame, equal to those of the CSV that it would be written to.

    All cells are text. A column of integers with missing values is a float column in pandas, so its label 1 becomes
    "1.0". A named index is a column. Messages count rows from 0, as ``frame.iloc`` does: ``row 3 of the DataFrame``.

    Parameters
    ----------
    spec : column names; its `data` is the folder that relative image paths start from (default: the working
        directory); `test` and `split` as for a file.
    need_images : whether every image file must exist.

    Raises
    ------
    EnsembleError, UsageError : as `read_data` for a CSV.
    """
    spec = spec or DataSpec(Path())
    if spec.split is not None and spec.test is not None:
        raise UsageError("`split` and `test` both select test images", hint="give one of them")
    train, test, notes = _csv_data(frame_columns(frame, spec.data, FRAME), spec, need_images)
    if spec.test is not None:
        test, more = read_test(
            spec.test, spec, classes=train.classes, class_attributes=train.class_attributes, need_images=need_images
        )
        notes += more
    warnings: list[str] = []
    _warn_of_leaks(train, test, warnings)
    return Dataset(train, test, tuple(notes), tuple(warnings))


def table_from_frame(
    frame: pandas.DataFrame,
    *,
    path: str = "path",
    label: str = "label",
    person: str = "person",
    id: str | None = None,
    person_regex: str | None = None,
    classes: Sequence[str] | None = None,
    folder: Path | str = ".",
    training: bool = True,
    need_images: bool = True,
) -> SampleTable:
    """Return the sample table of a DataFrame, equal to that of the CSV it would be written to.

    Parameters
    ----------
    path, label, person, id, person_regex, classes : as in `DataSpec`.
    folder : folder that relative image paths start from.
    training : whether labels and persons are required; if False, they are read if present.
    need_images : whether every image file must exist.

    Raises
    ------
    EnsembleError, UsageError : as for a CSV; messages count rows from 0, as in ``row 3 of the DataFrame``.

    Examples
    --------
    >>> import pandas
    >>> frame = pandas.DataFrame({"path": ["a.jpg", "b.jpg"], "label": ["cat", "dog"], "person": [1, 2]})
    >>> table_from_frame(frame, need_images=False).persons.tolist()
    ['1', '2']
    """
    spec = DataSpec(Path(folder), path, label, person, id, None, person_regex)
    columns = _csv_columns(frame_columns(frame, spec.data), None, spec, training=training, need_images=need_images)
    return build_table(columns, training=training, classes=classes, need_images=need_images)


def _read_table(path: Path) -> CsvTable:
    """Return the columns of a CSV or of a Parquet file."""
    return read_table_file(path)


def read_test(
    path: Path,
    spec: DataSpec | None = None,
    *,
    classes: Sequence[str] | None = None,
    class_attributes: Mapping[str, Mapping[str, str]] | None = None,
    need_images: bool = True,
) -> tuple[SampleTable, tuple[str, ...]]:
    """Return images to predict, from a CSV, a folder (any depth), a single image, or the competition's evaluation set.

    Parameters
    ----------
    spec : column names and `person_regex`; labels and persons are read if present.
    classes, class_attributes : those of the training; a label outside them is an error.

    Returns
    -------
    table, notes

    Raises
    ------
    EnsembleError : there is no such path, or the data are invalid (see `build_table`).
    """
    path = Path(path)
    spec = spec or DataSpec(path)
    if not path.exists():
        raise not_there(path, "test")
    evaluation = mask_layout.is_evaluation(path)
    if evaluation is not None:
        return _evaluation(evaluation, classes, class_attributes, need_images)
    csv_file = _only_csv(path, spec, training=False) if path.is_dir() else path
    if csv_file is None:
        columns, notes = read_plain_folder(path, spec, str(path), classes)
    elif is_image(csv_file.name):
        columns, notes = RawColumns(str(path), [path.name], [path.name], [path.absolute()]), []
    else:
        table = _read_table(csv_file)
        notes = (
            [f"{table.source} has no column '{spec.label}': read without labels"]
            if spec.label not in table.columns
            else []
        )
        columns = _csv_columns(table, None, spec, training=False, need_images=need_images)
    return build_table(
        columns, training=False, classes=classes, class_attributes=class_attributes, need_images=need_images
    ), tuple(notes)


def _evaluation(
    folder: Path,
    classes: Sequence[str] | None,
    class_attributes: Mapping[str, Mapping[str, str]] | None,
    need_images: bool,
) -> tuple[SampleTable, tuple[str, ...]]:
    columns, notes = mask_layout.read_evaluation(folder, str(folder / "info.csv"), need_images)
    if classes is None:
        classes, class_attributes = mask_layout.CLASSES, mask_layout.CLASS_ATTRIBUTES
    table = build_table(
        columns, training=False, classes=classes, class_attributes=class_attributes, need_images=need_images
    )
    return table, tuple(notes)


def not_there(path: Path, option: str | None = None) -> EnsembleError:
    """Return the error for a path that does not exist; it suggests similar names that do.

    Parameters
    ----------
    option : the parameter that names it.
    """
    parent = path.parent
    while not parent.is_dir():
        parent = parent.parent
    missing = path.relative_to(parent).parts[0]
    try:
        close = close_matches(missing, sorted(entry.name for entry in parent.iterdir()))
    except OSError:
        close = []
    hint = "`data` and `test` take a CSV or a folder"
    if option is not None:
        hint = f"`{option}=PATH` names its present place (a CSV or a folder), also in place of that in a settings file"
    meant = f"; did you mean {' or '.join(str(parent / name) for name in close)}?" if close else ""
    return EnsembleError(f"there is no {path}{meant}", hint=hint)


def _check_unused_options(spec: DataSpec, form: str, **more: str | None) -> None:
    """Raise UsageError if `spec`, or `more`, sets an option of CSV files, because ignoring it would hide a mistake."""
    plain = DataSpec(spec.data)
    given = {
        name: getattr(spec, name)
        for name in ("path", "label", "person", "id", "split")
        if getattr(spec, name) != getattr(plain, name)
    }
    for name, value in {**given, **more}.items():
        if value is not None:
            raise UsageError(
                f"`{name}='{value}'` does not apply to {form} ({spec.data})", hint=f"omit `{name}`, or name a CSV"
            )


def _only_csv(folder: Path, spec: DataSpec, training: bool = True) -> Path | None:
    """Return the CSV in `folder` that has the requested columns if there is exactly one, else None."""
    wanted = {spec.path, spec.label} if training else {spec.path}
    tables = [path for path in sorted(folder.glob("*.csv")) if path.name[0] != "."]
    found = [path for path in tables if wanted <= set(read_header(path))]
    if not found and training and wanted != {"path", "label"}:
        found = tables  # column names imply a CSV; reading it reports the missing columns
    return found[0] if len(found) == 1 else None


def _csv_data(table: CsvTable, spec: DataSpec, need_images: bool) -> tuple[SampleTable, SampleTable | None, list[str]]:
    notes: list[str] = []
    kept: list[int] | None = None
    apart: list[int] = []
    if spec.split is not None:
        values = table.column(spec.split, "`split`")
        apart = [i for i, value in enumerate(values) if value.lower() == "test"]
        kept = [i for i, value in enumerate(values) if value.lower() != "test"]
        counts = Counter(value or "(empty)" for value in values)
        listed = ", ".join(f"{value} ({count:,})" for value, count in counts.most_common(20))
        if not apart or not kept:
            expected = "'test' in some rows" if not apart else "a value other than 'test' in some rows"
            raise EnsembleError(
                f"expected {expected} of column '{spec.split}' of {table.source}, found {listed}",
                hint="omit `split`, or name another column",
            )
        notes.append(
            f"rows of {table.source} by column '{spec.split}': {listed}; rows with test are test samples, all others "
            "training samples"
        )
    train = build_table(
        _csv_columns(table, kept, spec, training=True, need_images=need_images),
        training=True,
        classes=spec.classes,
        need_images=need_images,
    )
    if not apart:
        return train, None, notes
    columns = _csv_columns(table, apart, spec, training=False, need_images=need_images)
    test = build_table(
        columns, training=False, classes=train.classes, class_attributes=train.class_attributes, need_images=need_images
    )
    return train, test, notes


def _csv_columns(
    table: CsvTable, index: Sequence[int] | None, spec: DataSpec, *, training: bool, need_images: bool
) -> RawColumns:
    """Return the cells of the rows at `index` (None: all rows) in the columns that `spec` names."""

    def select(column: list[str]) -> list[str]:
        return column if index is None else [column[i] for i in index]

    def cells(name: str, option: str, required: bool, advice: str = "") -> list[str] | None:
        if name not in table.columns and not required:
            return None
        return select(table.column(name, option, advice))

    def known(column: list[str] | None) -> list[str] | None:
        # A column that is empty in all test rows is unknown; a column with only some empty cells is an error later.
        return None if column is not None and not training and MISSING.issuperset(column) else column

    locations = table.location() if index is None else table.location().take(index)
    id_column = spec.id or ("id" if "id" in table.columns else None)
    written = cells(spec.path, "`path`", required=need_images or id_column is None or spec.person_regex is not None)
    # Tables made on Windows have backslashes; `/` works on every system.
    written = None if written is None else [name.replace("\\", "/") for name in written]
    ids = cells(id_column, "`id`", True) if id_column else written
    labels = known(cells(spec.label, "`label`", required=training))
    if spec.person_regex is not None and written is not None:
        persons: list[str] | None = persons_by_regex(written, spec.person_regex, locations)
    else:
        persons = known(
            cells(spec.person, "`person`", training, f"or extract it from paths with `person_regex`; {EACH_ITS_OWN}")
        )
    paths = None
    if written is not None:
        if not MISSING.isdisjoint(written):
            missing = locations[next(i for i, name in enumerate(written) if name in MISSING)]
            place = missing if table.around else f"{missing} of {table.source}"
            raise EnsembleError(f"{place} has no image path in column '{spec.path}'", hint="add it or remove the row")
        paths = ImagePaths(table.path.absolute().parent, written)
    used = {spec.path, spec.label, spec.person, spec.split, id_column}
    attributes = {name: select(column) for name, column in table.columns.items() if name not in used}
    return RawColumns(table.source, ids or [], locations, paths, labels, persons, attributes)


def _warn_of_leaks(train: SampleTable, test: SampleTable | None, warnings: list[str]) -> None:
    """Add a warning if no person has two images, or if people or images appear in both training and test."""
    if train.persons is not None:
        people, _ = train.factorized_persons
        if len(people) == len(train):
            warnings.append(
                f"each of the {len(train):,} images of {train.source} is its own person: grouping has no effect"
            )
        if test is not None and test.persons is not None:
            both = sorted(set(people).intersection(test.factorized_persons[0]))
            if both:
                images = int(np.isin(test.persons, both).sum())
                names = ", ".join(both[:3]) + (", …" if len(both) > 3 else "")
                warnings.append(
                    f"{len(both):,} people appear in both training and test ({names}; {images:,} test images): test "
                    "scores will be optimistic"
                )
    if test is not None and train.paths is not None and test.paths is not None:
        same = set(map(normal_path, train.paths)) & set(map(normal_path, test.paths))
        if same:
            warnings.append(
                f"{len(same):,} images appear in both training and test (first {min(same)}): test scores will be "
                "optimistic"
            )
