"""Read tables of images in all supported forms: `read_data` for training and test data, `read_test` for test images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from folds.data import mask_competition as mask_layout
from folds.data.csv_samples import (
    find_sample_columns,
    read_samples,
    unused_split_note,
    without_placeholder_labels,
)
from folds.data.doubts import name_warnings, prepare_names, prepare_persons, spelled_leaks
from folds.data.image_folder import (
    find_images as read_folder,
)
from folds.data.image_folder import (
    is_image,
    read_class_folders,
    read_plain_folder,
    read_split_folders,
    split_folders,
)
from folds.data.image_paths import normal_path
from folds.data.layouts import ignored_tables, only_table, table_beside_images, unread_test
from folds.data.person_labels import PERSON, label_by_person
from folds.data.raw_columns import RawColumns, build_table
from folds.data.table import AUTO_COPIES, Dataset, DataSpec, SampleTable
from folds.errors import EnsembleError, UsageError, close_matches
from folds.images.stacks import shown_path
from folds.metrics.task_names import COLUMN_TASKS
from folds.utils.csv_table import CsvTable
from folds.utils.frames import FRAME, frame_columns
from folds.utils.tables import read_table_file

if TYPE_CHECKING:
    import pandas


@dataclass
class Messages:
    """Notes and warnings for the user, collected while data are read."""

    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    left_out: int = 0  # images that cannot be used


def read_data(spec: DataSpec, *, need_images: bool = True, find_images: bool = False) -> Dataset:
    """Return the training samples, and the test samples if there are any.

    The form of `spec.data` is detected from its content, in this order: the mask-competition layout (train/train.csv),
    a table, a folder with one CSV that has the requested columns, a folder of class folders (or of ``train/CLASS``,
    ``val/CLASS``, ``test/CLASS``), a folder with one table that has columns of known names.

    Parameters
    ----------
    need_images : whether every image file must exist; splitting needs only the table.
    find_images : whether to look for image files that need not exist, whose names may be written in another way.

    Raises
    ------
    EnsembleError : invalid data, see `build_table` and the readers; problems of one kind are collected.
    UsageError : options that contradict each other.
    """
    data = spec.data
    if not data.exists():
        raise not_there(data, "data")
    _check_test_options(spec)
    layout = mask_layout.train_folder(data, spec.label)
    if layout is not None:
        _check_has_columns(spec, "the mask-competition layout")
    if layout is not None:
        train, test, messages = _competition_data(layout, spec, need_images)
        for_test = spec
    else:
        train, test, for_test, messages = _table_or_folders(data, spec, need_images, find_images)
    if spec.test is not None:
        if layout is not None and mask_layout.is_evaluation(layout.parent):
            messages.notes.append(f"{layout.parent / 'eval'} is not read, because `test` is given")
        elif test is not None and spec.split is None:
            messages.notes.append(f"the test folder of {data} is not read, because `test` is given")
        test, more = _read_test(spec.test, for_test, train, need_images, find_images)
        messages.notes += more.notes
        messages.warnings += more.warnings
        messages.left_out += more.left_out
    messages.warnings += name_warnings(train) + _leaks(train, test)
    found = {name: getattr(for_test, name) for name in ("label", "person")}
    found = {name: column for name, column in found.items() if column != getattr(spec, name)}
    return Dataset(train, test, tuple(messages.notes), tuple(messages.warnings), spec, found, messages.left_out)


def _check_test_options(spec: DataSpec) -> None:
    if spec.split is not None and spec.test is not None:
        raise UsageError("`split` and `test` both select test images", hint="give one of them")


def _competition_data(
    layout: Path, spec: DataSpec, need_images: bool
) -> tuple[SampleTable, SampleTable | None, Messages]:
    """Return the samples of the mask-competition layout."""
    copies = spec.person if spec.person == AUTO_COPIES else None
    _check_unused_options(spec, "the mask-competition layout", person_regex=spec.person_regex, person=copies)
    columns, notes = mask_layout.read_train(layout, str(layout / "train.csv"), need_images)
    declared = spec.classes or mask_layout.CLASSES
    attributes = mask_layout.CLASS_ATTRIBUTES
    train = build_table(columns, training=True, classes=declared, class_attributes=attributes, need_images=False)
    messages = Messages(notes)
    if spec.skip_unusable and train.paths is not None:
        from folds.data.unusable import without_unusable

        rows = len(train)
        train = without_unusable(train, spec.max_pixels, messages.warnings)
        messages.left_out += rows - len(train)
    evaluation = mask_layout.is_evaluation(layout.parent)
    if spec.test is not None or evaluation is None:
        return train, None, messages
    test, more = _evaluation(evaluation, train.classes, train.class_attributes, need_images)
    messages.notes += more
    return train, test, messages


def _table_or_folders(
    data: Path, spec: DataSpec, need_images: bool, find_images: bool
) -> tuple[SampleTable, SampleTable | None, DataSpec, Messages]:
    """Return the samples of a table, of a folder with a table, or of folders of images, and the `spec` for a test
    table.
    """
    table, images = (data, None) if data.is_file() else (only_table(data, spec), None)
    if table is None:
        images = read_folder(data)
        table = table_beside_images(data, spec, images)
    if table is not None:
        train, test, for_test, messages = _csv_data(read_table_file(table), spec, need_images, find_images)
        if table is not data:
            messages.notes.insert(0, f"reading {table}")
            messages.notes += [] if spec.test is not None else unread_test(table)
        return train, test, for_test, messages
    assert images is not None  # noqa: S101 - listed where there is no table
    splits = split_folders(images)
    messages = Messages()
    _check_has_columns(spec, "a folder of class folders")
    if splits is None:
        columns, of_test = read_class_folders(images, spec, str(data)), None
        _check_unused_options(spec, "a folder of class folders")
        messages.notes += ignored_tables(data)
    else:
        columns, of_test = read_split_folders(images, spec, str(data), splits)
        messages.notes += ignored_tables(data)
        _check_unused_options(spec, "a folder of splits")
    train = _built(columns, spec, messages, training=True, classes=spec.classes)
    test = None
    if of_test is not None:
        test = _built(of_test, spec, messages, training=False, classes=train.classes)
    return train, test, spec, messages


def read_frame(frame: pandas.DataFrame, spec: DataSpec | None = None, *, need_images: bool = True) -> Dataset:
    """Return the samples of a DataFrame, equal to those of the CSV that it would be written to.

    All cells are text. Whole numbers that pandas stores as decimals (a column of integers with missing values) are read
    as whole numbers, 1.0 as "1". A named index is a column. Messages count rows from 0, as ``frame.iloc`` does: ``row 3
    of the DataFrame``.

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
    _check_test_options(spec)
    train, test, for_test, messages = _csv_data(frame_columns(frame, spec.data, FRAME), spec, need_images, False)
    if spec.test is not None:
        test, more = _read_test(spec.test, for_test, train, need_images, False)
        messages.notes += more.notes
        messages.warnings += more.warnings
    messages.warnings += name_warnings(train) + _leaks(train, test)
    return Dataset(train, test, tuple(messages.notes), tuple(messages.warnings), label_of=spec.label_of)


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
    stack: Sequence[str] = (),
    training: bool = True,
    need_images: bool = True,
) -> SampleTable:
    """Return the sample table of a DataFrame, equal to that of the CSV it would be written to.

    Parameters
    ----------
    path, label, person, id, person_regex, classes, stack : as in `DataSpec`.
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
    spec = DataSpec(Path(folder), path, label, person, id, None, person_regex, stack=tuple(stack) or None)
    table = frame_columns(frame, spec.data)
    found = find_sample_columns(table, spec, training)
    columns = read_samples(table, found, None, spec, training=training, need_images=need_images)
    return _built(columns, spec, Messages(), training=training, classes=classes, need_images=need_images)


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
    table, messages = _test_samples(
        Path(path), spec or DataSpec(Path(path)), classes, class_attributes, need_images, False
    )
    return table, (*messages.notes, *messages.warnings)


def _read_test(
    path: Path, spec: DataSpec, train: SampleTable, need_images: bool, find_images: bool
) -> tuple[SampleTable, Messages]:
    return _test_samples(path, spec, train.classes, train.class_attributes, need_images, find_images, "test_images")


def _test_samples(
    path: Path,
    spec: DataSpec,
    classes: Sequence[str] | None,
    class_attributes: Mapping[str, Mapping[str, str]] | None,
    need_images: bool,
    find_images: bool,
    folders_option: str = "images",
) -> tuple[SampleTable, Messages]:
    """Return images to predict; see `read_test`."""
    messages = Messages()
    if spec.task in COLUMN_TASKS and classes is not None:
        spec = replace(spec, classes=tuple(classes))
    if not path.exists():
        raise not_there(path, "test")
    evaluation = mask_layout.is_evaluation(path)
    if evaluation is not None:
        samples, notes = _evaluation(evaluation, classes, class_attributes, need_images)
        return samples, Messages(list(notes))
    csv_file = only_table(path, spec, training=False) if path.is_dir() else path
    if spec.stack and (csv_file is None or is_image(csv_file.name)):
        raise no_stack(path, spec.stack)
    if csv_file is None:
        columns, messages.notes = read_plain_folder(
            path, spec, str(path), None if spec.task in COLUMN_TASKS else classes
        )
    elif is_image(csv_file.name):
        columns = RawColumns(str(path), [path.name], [path.name], [path.absolute()])
    else:
        table = read_table_file(csv_file)
        found = find_sample_columns(table, spec, training=False)
        messages = Messages(list(found.notes), list(found.warnings))
        if not found.label and not found.warnings:
            missing = [spec.label]
            if "," in spec.label and spec.label not in table.columns:
                missing = [one for part in spec.label.split(",") if (one := part.strip()) not in table.columns]
            what = f"columns {', '.join(missing)}" if len(missing) > 1 else f"column '{missing[0]}'"
            messages.notes.append(f"{table.source} has no {what}: read without labels")
        columns = read_samples(
            table, found, None, spec, training=False, need_images=need_images, find_images=find_images
        )
        names = None if spec.task in COLUMN_TASKS else classes  # one number is as good as several classes
        columns = without_placeholder_labels(columns, spec.test_labels, names)
        columns.folders_option = folders_option
    samples = _built(
        columns,
        spec,
        messages,
        training=False,
        classes=classes,
        class_attributes=class_attributes,
        need_images=need_images,
        find_images=find_images,
    )
    return samples, messages


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
    hint = "expected a table (CSV, Parquet), a folder or images"
    if option is not None:
        hint = f"`{option}=PATH` names its present place (a CSV or a folder), also in place of that in a settings file"
    meant = f"; did you mean {' or '.join(str(parent / name) for name in close)}?" if close else ""
    return EnsembleError(f"there is no {path}{meant}", hint=hint)


def no_stack(path: str | Path, stack: Sequence[str]) -> UsageError:
    """Return the error for images in place of a table whose columns are the files of a sample."""
    return UsageError(
        f"a sample is a stack of files in the columns {', '.join(stack)}, and {path} names no columns",
        hint="name a table with these columns",
    )


def _check_has_columns(spec: DataSpec, form: str) -> None:
    """Raise UsageError if labels of a table with columns are wanted, and `form` has classes."""
    if spec.task in COLUMN_TASKS:
        raise UsageError(
            f"`task={spec.task}` reads the labels of a table, found {form} ({spec.data})",
            hint="name a table with `data`, and its columns with `label`",
        )


def _check_unused_options(spec: DataSpec, form: str, **more: str | None) -> None:
    """Raise UsageError if `spec`, or `more`, sets an option of CSV files, because ignoring it would hide a mistake."""
    plain = DataSpec(spec.data)
    given = {
        name: getattr(spec, name)
        for name in ("path", "label", "person", "id", "split", "images", "stack", "uncertain")
        if getattr(spec, name) != getattr(plain, name) and getattr(spec, name) != AUTO_COPIES
    }
    for name, value in {**given, **more}.items():
        if value is not None:
            raise UsageError(
                f"`{name}='{value}'` does not apply to {form} ({spec.data})", hint=f"omit `{name}`, or name a CSV"
            )


def _csv_data(
    table: CsvTable, spec: DataSpec, need_images: bool, find_images: bool
) -> tuple[SampleTable, SampleTable | None, DataSpec, Messages]:
    """Return the training samples, the test samples if a column marks them, and the `spec` for a test table."""
    found = find_sample_columns(table, spec, training=True)
    messages = Messages([*found.notes, *unused_split_note(table, spec)], list(found.warnings))
    kept, apart = _parts(table, spec, messages)
    checks = {"need_images": need_images, "find_images": find_images}
    columns = read_samples(table, found, kept, spec, training=True, **checks)
    train = _built(
        columns,
        spec,
        messages,
        training=True,
        classes=spec.classes,
        need_images=need_images,
        find_images=find_images,
    )
    label, person = ",".join(found.label) or spec.label, found.person or spec.person
    for_test = replace(spec, label=label, person=person)
    if train.has_columns:
        for_test = replace(for_test, task=train.task, classes=train.classes)
        spec = replace(spec, task=train.task, classes=train.classes)
    if not apart:
        return train, None, for_test, messages
    columns = read_samples(table, found, apart, spec, training=False, **checks)
    columns = without_placeholder_labels(columns, spec.test_labels, None if train.has_columns else train.classes)
    test = _built(
        columns,
        spec,
        messages,
        training=False,
        classes=train.classes,
        class_attributes=train.class_attributes,
        need_images=need_images,
        find_images=find_images,
    )
    return train, test, for_test, messages


def _parts(table: CsvTable, spec: DataSpec, messages: Messages) -> tuple[list[int] | None, list[int]]:
    """Return the rows for training (None: all) and those for testing, by the column `split`."""
    if spec.split is None:
        return None, []
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
    messages.notes.append(
        f"rows of {table.source} by column '{spec.split}': {listed}; rows with test are test samples, all others "
        "training samples"
    )
    return kept, apart


def _built(
    columns: RawColumns,
    spec: DataSpec,
    messages: Messages,
    *,
    training: bool,
    classes: Sequence[str] | None,
    class_attributes: Mapping[str, Mapping[str, str]] | None = None,
    need_images: bool = False,
    find_images: bool = False,
) -> SampleTable:
    """Return the sample table of columns: spellings and missing persons resolved, unusable images left out if asked."""
    if not training and spec.task in COLUMN_TASKS:
        columns.task, columns.names = str(spec.task), tuple(classes or spec.classes or columns.names)
    if spec.label_of == PERSON:
        prepare_persons(columns, spec.missing_persons, bool(spec.merge_spellings))
        label_by_person(columns, bool(spec.merge_spellings), training)
    prepare_names(columns, spec.missing_persons, bool(spec.merge_spellings), classes)
    skip = bool(spec.skip_unusable) and columns.paths is not None
    grouped = training and spec.person == AUTO_COPIES and columns.persons is None
    table = build_table(
        columns,
        training=training,
        classes=classes,
        class_attributes=class_attributes,
        need_images=(need_images or grouped) and not skip,
        find_images=find_images or skip,
    )
    if skip:
        from folds.data.unusable import without_unusable

        rows = len(table)
        table = without_unusable(table, spec.max_pixels, columns.warnings)
        messages.left_out += rows - len(table)
    if grouped:
        from folds.data.copies import with_copy_groups

        table = with_copy_groups(table, spec.max_pixels, columns)
    messages.notes += columns.notes
    messages.warnings += columns.warnings
    return table


def _leaks(train: SampleTable, test: SampleTable | None) -> list[str]:
    """Return warnings if no person has two images, or if people or images appear in both training and test."""
    warnings = []
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
            warnings += spelled_leaks(people, test.factorized_persons[0])
    if test is not None and train.paths is not None and test.paths is not None:
        same = set(map(normal_path, train.paths)) & set(map(normal_path, test.paths))
        if same:
            warnings.append(
                f"{len(same):,} images appear in both training and test (first {shown_path(min(same))}): test scores "
                "will be optimistic"
            )
    return warnings
