"""Build the sample table of columns that were read: spellings, missing persons, unusable images, groups of copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from folds.data.doubts import prepare_names, prepare_persons
from folds.data.person_labels import PERSON, label_by_person
from folds.data.raw_columns import RawColumns, build_table
from folds.data.table import AUTO_COPIES, DataSpec, SampleTable
from folds.metrics.task_names import COLUMN_TASKS


@dataclass
class Messages:
    """Notes and warnings for the user, collected while data are read."""

    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    left_out: int = 0  # images that cannot be used


def built_table(
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
