"""Read images to predict: a table, a folder, a single image, or the evaluation set of the competition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from folds.data import mask_competition as mask_layout
from folds.data.building import Messages, built_table
from folds.data.csv_samples import read_samples, without_placeholder_labels
from folds.data.image_folder import is_image, read_plain_folder
from folds.data.layouts import only_table
from folds.data.raw_columns import RawColumns, build_table
from folds.data.reading_errors import no_stack, not_there
from folds.data.sample_columns import find_sample_columns
from folds.data.table import DataSpec, SampleTable
from folds.metrics.task_names import COLUMN_TASKS
from folds.utils.tables import read_table_file


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


def read_test_of(
    path: Path, spec: DataSpec, train: SampleTable, need_images: bool, find_images: bool
) -> tuple[SampleTable, Messages]:
    """Return the test images beside training data, as `read_test` reads them, and what is to be known about them."""
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
        samples, notes = evaluation_samples(evaluation, classes, class_attributes, need_images)
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
    samples = built_table(
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


def evaluation_samples(
    folder: Path,
    classes: Sequence[str] | None,
    class_attributes: Mapping[str, Mapping[str, str]] | None,
    need_images: bool,
) -> tuple[SampleTable, tuple[str, ...]]:
    """Return the evaluation set of the competition, and notes."""
    columns, notes = mask_layout.read_evaluation(folder, str(folder / "info.csv"), need_images)
    if classes is None:
        classes, class_attributes = mask_layout.CLASSES, mask_layout.CLASS_ATTRIBUTES
    table = build_table(
        columns, training=False, classes=classes, class_attributes=class_attributes, need_images=need_images
    )
    return table, tuple(notes)
