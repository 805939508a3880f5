"""Check the columns that a reader found, and build the sample table of them; numpy only.

All readers (CSV, class folders, the mask-competition layout) call `build_table`, so every table passes the same checks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from folds.data.column_labels import check_columns, may_be_numbers
from folds.data.image_files import locate_images
from folds.data.image_paths import ImagePaths, normal_path
from folds.data.table import SampleTable
from folds.errors import EnsembleError, combine_errors
from folds.images.stacks import stack_path
from folds.metrics.task_names import CLASSES, COLUMN_TASKS
from folds.utils.csv_table import LazySequence
from folds.utils.numeric import factorize
from folds.utils.text import sort_classes

# Cells of a CSV that count as missing. "NA" and "None" are not among them, because classes and people have such names.
MISSING = frozenset({"", "nan", "NaN", "NAN"})
_NO_LABEL_HINT = (
    "an empty cell means that a label is not known, and so does -1 with `uncertain=unknown`; where an image has none "
    "of the labels, write 0 in each of their columns, or - in a column of names; remove rows of which nothing is known"
)


@dataclass
class RawColumns:
    """Unchecked columns of a reader; every list has one entry per sample.

    Attributes
    ----------
    folders : folders in which the images may be, if they are not relative to ``paths.folder`` alone.
    folders_option : the parameter that names `folders`, for hints.
    stacked : column → the names of the files in it, if each sample is a stack of files; `paths` are those of stacks.
    task : as in `SampleTable`.
    names : names of several labels or numbers; () for classes.
    notes, warnings : lines for the user, found while the columns were read and checked.
    """

    source: str
    ids: list[str]
    locations: Sequence[str]
    paths: Sequence[Path] | None = None
    labels: list[str] | None = None
    persons: list[str] | None = None
    attributes: dict[str, list[str]] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()
    folders_option: str = "images"
    stacked: dict[str, Sequence[Path]] = field(default_factory=dict)
    task: str = CLASSES
    names: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def build_table(
    columns: RawColumns,
    *,
    training: bool,
    classes: Sequence[str] | None = None,
    class_attributes: Mapping[str, Mapping[str, str]] | None = None,
    need_images: bool = True,
    find_images: bool = False,
) -> SampleTable:
    """Check the columns of a reader and return their sample table.

    Parameters
    ----------
    training : whether at least two classes are required.
    classes : the declared classes; a label outside them is an error. None: the labels that occur.
    class_attributes : attributes of each class; None: the attributes that the labels determine in these samples.
    need_images : whether the image files must exist.
    find_images : whether to look for the files, although they need not exist: names may lack the suffix, or have
        another Unicode form or case (`folds.data.image_files`). What was found is added to the notes of `columns`.

    Raises
    ------
    EnsembleError : one kind of problem at a time, with the location of its first ten cases.
    """
    source, locations = columns.source, columns.locations
    if not columns.ids:
        raise EnsembleError(f"{source} has no samples", hint="expected at least one image")
    _check_text(columns.ids, source)
    _check_present(columns.ids, "id", columns)
    if columns.labels is not None:
        _check_present(columns.labels, "label", columns, _NO_LABEL_HINT if columns.names else None)
    if columns.persons is not None:
        _check_present(
            columns.persons,
            "person",
            columns,
            "name the person (group) of every image; an image whose person is unknown needs a unique name",
        )
    _check_unique(columns)
    labels = columns.labels
    by_columns = columns.task in COLUMN_TASKS
    declared = tuple(classes) if classes is not None else columns.names or sort_classes(labels or ())
    if by_columns:
        class_attributes = {}
        check_columns(labels if training else None, columns.names, declared, columns.task, source)
    elif labels is not None:
        _check_classes(labels, declared, source, locations, training)
    if (need_images or find_images) and columns.paths is not None:
        found = (
            _located_stacks(columns, need_images)
            if columns.stacked
            else locate_images(
                columns.paths, columns.folders, source, locations, need_images, columns.notes, columns.folders_option
            )
        )
        if found is not columns.paths:
            columns.paths = found
            _check_same_image(columns, _path_keys(found))
    if class_attributes is None:
        class_attributes = _determined(labels, columns.attributes, declared) if labels is not None else {}
        columns.notes += _attribute_notes(source, class_attributes)
    ids = np.array(columns.ids, dtype=str)
    people = None if columns.persons is None else factorize(columns.persons)
    table = SampleTable(
        source=source,
        ids=ids,
        paths=None if columns.paths is None else _stored_paths(columns.paths, columns.ids, ids),
        labels=None if labels is None else _text_array(*factorize(labels)),
        persons=None if people is None else _text_array(*people),
        classes=declared,
        attributes={name: _column_array(values) for name, values in columns.attributes.items()},
        class_attributes=class_attributes,
        locations=locations if isinstance(locations, LazySequence) else tuple(locations),
        task=columns.task,
    )
    if people is not None:
        table.__dict__["factorized_persons"] = people
    return table


def _located_stacks(columns: RawColumns, required: bool) -> Sequence[Path]:
    """Return the paths of the stacks of files that were found; `columns.paths` if all names are those of the files."""
    located = [
        locate_images(
            paths, columns.folders, f"{columns.source}, column '{name}'", columns.locations, required, columns.notes
        )
        for name, paths in columns.stacked.items()
    ]
    same = all(one is other for one, other in zip(located, columns.stacked.values(), strict=True))
    return columns.paths or () if same else tuple(map(stack_path, zip(*located, strict=True)))


def _text_array(names: Sequence[str], codes: NDArray[np.int64]) -> NDArray[np.str_]:
    """Return (n,) str from the unique texts and the index of each sample's text among them."""
    return np.array(names, dtype=str)[codes]


def _column_array(cells: Sequence[str]) -> NDArray[np.str_]:
    """Return a column as (n,) str; repeated texts are converted once, which halves the time."""
    seen = cells[: 1 << 16]
    return np.array(cells, dtype=str) if 2 * len(set(seen)) > len(seen) else _text_array(*factorize(cells))


def _stored_paths(paths: Sequence[Path], named: Sequence[str], ids: NDArray[np.str_]) -> Sequence[Path]:
    """Return absolute paths; names that equal the ids share their array, because a million texts take 90 MB."""
    if isinstance(paths, ImagePaths):
        return ImagePaths(paths.folder, ids) if paths.names is named else paths
    return tuple(path if path.is_absolute() else path.absolute() for path in paths)


def _check_text(ids: list[str], source: str) -> None:
    # File names are bytes. Names with line breaks or invalid UTF-8 cannot be written to CSV files of ids.
    everything = "".join(ids)
    if everything.isascii() and "\r" not in everything:
        return
    lines = [ascii(name) for name in ids if "\r" in name or any("\ud800" <= letter <= "\udfff" for letter in name)]
    if lines:
        raise combine_errors(
            lines, f"file names of {source} are not UTF-8 or contain a line break", "rename these files"
        )


def _check_present(values: list[str], what: str, columns: RawColumns, hint: str | None = None) -> None:
    if not MISSING.isdisjoint(values):
        empty = [i for i, value in enumerate(values) if value in MISSING]
        lines = [
            f"{columns.locations[i]}: '{values[i]}'" + ("" if what == "id" else f" (id {columns.ids[i]})")
            for i in empty
        ]
        raise combine_errors(
            lines,
            f"of {len(values):,} rows of {columns.source} have no {what}",
            hint or f"fill in the {what} or remove the rows",
        )


def _check_unique(columns: RawColumns) -> None:
    locations, ids = columns.locations, columns.ids
    files = None if columns.paths is None else _path_keys(columns.paths)
    unique = len(set(ids)) == len(ids)
    if files is not None and not (files is ids and unique) and len(set(files)) < len(files):
        _check_same_image(columns, files)
    if not unique:
        seen: dict[str, int] = {}
        lines = [
            f"{locations[i]}: '{name}' is also in {locations[j]}"
            for i, name in enumerate(ids)
            if (j := seen.setdefault(name, i)) != i
        ]
        raise combine_errors(
            lines,
            f"ids of {columns.source} are not unique",
            "every sample needs its own id: remove the repeated rows, or name another column with `id`",
        )


def _check_same_image(columns: RawColumns, files: Sequence[str]) -> None:
    """Raise EnsembleError if rows with the same image (`files`: a text per row) differ in label or person."""
    locations, first = columns.locations, dict[str, int]()
    lines = []
    for i, file in enumerate(files):
        j = first.setdefault(file, i)
        wrong = [
            f"{what} '{values[i]}', in {locations[j]} '{values[j]}'"
            for what, values in (("label", columns.labels), ("person", columns.persons))
            if j != i and values is not None and values[i] != values[j]
        ]
        if wrong:
            name = columns.paths[i].name if columns.paths is not None else file
            lines.append(f"{locations[i]}: {name} has {', and '.join(wrong)}")
    if lines:
        raise combine_errors(
            lines,
            f"rows of {columns.source} contradict an earlier row about the same image",
            "keep only the correct row",
        )


def _path_keys(paths: Sequence[Path]) -> Sequence[str]:
    return paths.keys() if isinstance(paths, ImagePaths) else list(map(normal_path, paths))


def _check_classes(
    labels: list[str], classes: tuple[str, ...], source: str, locations: Sequence[str], training: bool
) -> None:
    counts = Counter(labels)
    outside = sort_classes([label for label in counts if label not in set(classes)])
    if outside:
        lines = [f"'{name}': {counts[name]:,} samples, first {locations[labels.index(name)]}" for name in outside]
        known = ", ".join(classes[:20]) + (" …" if len(classes) > 20 else "")
        numbers = "; `task=regression` predicts the number" if may_be_numbers({*classes, *outside}) else ""
        raise combine_errors(
            lines,
            f"labels of {source} are not among the {len(classes)} declared classes",
            f"declared classes: {known}; correct or remove the rows{numbers}",
        )
    if training and len(counts) < 2:
        raise EnsembleError(
            f"expected at least 2 classes in {source}, found the label '{labels[0]}' in all {len(labels):,} samples",
            hint="is `label` the right column?",
        )


def _determined(
    labels: list[str], attributes: Mapping[str, list[str]], classes: tuple[str, ...]
) -> dict[str, dict[str, str]]:
    """Return class → {attribute: value} for the attributes with one value per class and several values in total."""
    found: dict[str, dict[str, str]] = {name: {} for name in classes}
    for attribute, values in attributes.items():
        pairs = set(zip(labels, values))
        unique = {value for _, value in pairs}
        if (
            len(pairs) == len({label for label, _ in pairs}) == len(classes)
            and len(unique) > 1
            and not unique & MISSING
        ):
            for label, value in pairs:
                found[label][attribute] = value
    return found if any(found.values()) else {}


def _attribute_notes(source: str, class_attributes: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return a line about the columns that became attributes of the classes, and which tell the same as the label."""
    names = list(dict.fromkeys(name for values in class_attributes.values() for name in values))
    if not names:
        return []
    values = {name: {own[name] for own in class_attributes.values() if name in own} for name in names}
    same = [name for name in names if len(values[name]) == len(class_attributes)]
    more = f" and {len(names) - 8:,} more" if len(names) > 8 else ""
    equal = f"; {', '.join(same[:8])}: another name of each class" if same else ""
    return [
        f"{source}: columns with one value for each class are attributes of the classes, not labels: "
        f"{', '.join(names[:8])}{more}{equal}"
    ]
