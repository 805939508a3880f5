"""Read training data in all supported forms, with the test samples that they name or hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from folds.data import mask_competition as mask_layout
from folds.data.building import Messages, built_table
from folds.data.csv_samples import read_samples, without_placeholder_labels
from folds.data.doubts import name_warnings
from folds.data.image_folder import find_images as read_folder
from folds.data.image_folder import read_class_folders, read_split_folders, split_folders
from folds.data.images_to_predict import evaluation_samples, read_test_of
from folds.data.layouts import ignored_tables, only_table, table_beside_images, unread_test
from folds.data.leaks import leak_warnings
from folds.data.raw_columns import build_table
from folds.data.reading_errors import check_form_has_columns, check_unused_options, not_there
from folds.data.sample_columns import find_sample_columns, unused_split_note
from folds.data.table import AUTO_COPIES, Dataset, DataSpec, SampleTable
from folds.errors import EnsembleError, UsageError
from folds.utils.csv_table import CsvTable
from folds.utils.frames import FRAME, frame_columns
from folds.utils.tables import read_table_file

if TYPE_CHECKING:
    import pandas


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
        check_form_has_columns(spec, "the mask-competition layout")
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
        test, more = read_test_of(spec.test, for_test, train, need_images, find_images)
        messages.notes += more.notes
        messages.warnings += more.warnings
        messages.left_out += more.left_out
    messages.warnings += name_warnings(train) + leak_warnings(train, test)
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
    check_unused_options(spec, "the mask-competition layout", person_regex=spec.person_regex, person=copies)
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
    test, more = evaluation_samples(evaluation, train.classes, train.class_attributes, need_images)
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
    check_form_has_columns(spec, "a folder of class folders")
    if splits is None:
        columns, of_test = read_class_folders(images, spec, str(data)), None
        check_unused_options(spec, "a folder of class folders")
        messages.notes += ignored_tables(data)
    else:
        columns, of_test = read_split_folders(images, spec, str(data), splits)
        messages.notes += ignored_tables(data)
        check_unused_options(spec, "a folder of splits")
    train = built_table(columns, spec, messages, training=True, classes=spec.classes)
    test = None
    if of_test is not None:
        test = built_table(of_test, spec, messages, training=False, classes=train.classes)
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
        test, more = read_test_of(spec.test, for_test, train, need_images, False)
        messages.notes += more.notes
        messages.warnings += more.warnings
    messages.warnings += name_warnings(train) + leak_warnings(train, test)
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
    return built_table(columns, spec, Messages(), training=training, classes=classes, need_images=need_images)


def _csv_data(
    table: CsvTable, spec: DataSpec, need_images: bool, find_images: bool
) -> tuple[SampleTable, SampleTable | None, DataSpec, Messages]:
    """Return the training samples, the test samples if a column marks them, and the `spec` for a test table."""
    found = find_sample_columns(table, spec, training=True)
    messages = Messages([*found.notes, *unused_split_note(table, spec)], list(found.warnings))
    kept, apart = _parts(table, spec, messages)
    checks = {"need_images": need_images, "find_images": find_images}
    columns = read_samples(table, found, kept, spec, training=True, **checks)
    train = built_table(
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
    test = built_table(
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
