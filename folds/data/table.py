"""The sample table: which images there are, what they show and whose they are; numpy only.

The readers (CSV, class folders, the mask-competition layout) all end in `build_table`, so that every table, however it
was written down, has passed the same checks.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError, combine_errors
from folds.predictions.files import SampleRows
from folds.utils.text import sort_classes

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
# What an absent value looks like in a CSV. Only these: "NA" and "None" are names that classes and people have.
MISSING = frozenset({"", "nan", "NaN", "NAN"})


@dataclass(frozen=True, eq=False)
class SampleTable:
    """n samples: one image each, in the order in which they were read.

    Attributes
    ----------
    source : what was read, as the user named it (``people/train/train.csv``).
    ids : (n,) str, unique.
    paths : n absolute image files, or None where the table names none.
    labels, persons : (n,) str, or None where unknown (test images).
    classes : the declared classes in order; a class may have no sample.
    attributes : name → (n,) str; parts of the label (mask, gender, age) and whatever else the table says.
    class_attributes : class → {attribute: value} for the attributes that the class determines.
    where : where each sample is written down (``train.csv row 3``), for messages.
    """

    source: str
    ids: NDArray[np.str_]
    paths: tuple[Path, ...] | None
    labels: NDArray[np.str_] | None
    persons: NDArray[np.str_] | None
    classes: tuple[str, ...]
    attributes: Mapping[str, NDArray[np.str_]]
    class_attributes: Mapping[str, Mapping[str, str]]
    locations: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def label_codes(self) -> NDArray[np.int64]:
        """(n,) the position of each sample's label in `classes`."""
        if self.labels is None:
            raise EnsembleError(f"{self.source} has no labels")
        code = {name: i for i, name in enumerate(self.classes)}
        return np.array([code[label] for label in self.labels.tolist()], dtype=np.int64)

    def rows(self) -> SampleRows:
        """What a prediction file says about these samples."""
        return SampleRows(self.ids, self.labels, self.persons, dict(self.attributes))

    def take(self, index: NDArray[np.integer]) -> SampleTable:
        """The samples at `index`, in that order; the declared classes stay."""
        index = np.asarray(index, dtype=np.int64)

        def of(column: NDArray[np.str_] | None) -> NDArray[np.str_] | None:
            return None if column is None else column[index]

        positions = index.tolist()
        return SampleTable(
            self.source,
            self.ids[index],
            None if self.paths is None else tuple(self.paths[i] for i in positions),
            of(self.labels),
            of(self.persons),
            self.classes,
            {name: values[index] for name, values in self.attributes.items()},
            self.class_attributes,
            tuple(self.locations[i] for i in positions),
        )

    @cached_property
    def sha(self) -> str:
        """SHA-256 over ids, labels, persons and classes in their order; not over paths, so a moved folder is the same table."""
        columns = [None if column is None else column.tolist() for column in (self.ids, self.labels, self.persons)]
        return hashlib.sha256(json.dumps([*columns, self.classes], ensure_ascii=True).encode()).hexdigest()


@dataclass(frozen=True)
class DataSpec:
    """What the user said about the data.

    Attributes
    ----------
    data : a CSV, a folder of class folders, or a folder in the mask-competition layout.
    path, label, person, id : names of the columns of a CSV; without `id` a column named ``id``, else the path, is the id.
    split : a column whose value ``test`` keeps a row apart from training.
    person_regex : takes the person from an image's path where no column names it.
    test : further images to predict.
    classes : the declared classes; without them, those that occur.
    """

    data: Path
    path: str = "path"
    label: str = "label"
    person: str = "person"
    id: str | None = None
    split: str | None = None
    person_regex: str | None = None
    test: Path | None = None
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """What was read: the training samples, the test samples where there are any, and what the user should be told."""

    train: SampleTable
    test: SampleTable | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass
class RawColumns:
    """What a reader found, before it is checked; every list has one entry a sample."""

    source: str
    ids: list[str]
    locations: list[str]
    paths: list[Path] | None = None
    labels: list[str] | None = None
    persons: list[str] | None = None
    attributes: dict[str, list[str]] = field(default_factory=dict)


def build_table(
    columns: RawColumns,
    *,
    training: bool,
    classes: Sequence[str] | None = None,
    class_attributes: Mapping[str, Mapping[str, str]] | None = None,
    need_images: bool = True,
) -> SampleTable:
    """Check what a reader found and make the table of it.

    Parameters
    ----------
    training : labels and persons must be there, and more than one class.
    classes : the declared classes; a label outside them is an error. Without them, the labels that occur.
    class_attributes : what each class means; without it, the attributes that the labels turn out to determine.
    need_images : the image files must exist.

    Raises
    ------
    EnsembleError : one kind of problem at a time, its first ten cases with their place in the table.
    """
    source, where = columns.source, columns.locations
    if not columns.ids:
        raise EnsembleError(f"{source} holds no samples")
    _check_text(columns.ids, source)
    _check_present(columns.ids, "id", columns)
    if columns.labels is not None:
        _check_present(columns.labels, "label", columns)
    if columns.persons is not None:
        _check_present(
            columns.persons,
            "person",
            columns,
            "give every image the person it shows; an image of nobody else gets a name of its own",
        )
    _check_unique(columns)
    labels = columns.labels
    declared = tuple(classes) if classes is not None else sort_classes(labels or ())
    if labels is not None:
        _check_classes(labels, declared, source, where, training)
    if need_images and columns.paths is not None:
        _check_images(columns.paths, source, where)
    attributes = {name: np.array(values, dtype=str) for name, values in columns.attributes.items()}
    if class_attributes is None:
        class_attributes = _determined(labels, columns.attributes, declared) if labels is not None else {}
    return SampleTable(
        source=source,
        ids=np.array(columns.ids, dtype=str),
        paths=None
        if columns.paths is None
        else tuple(path if path.is_absolute() else path.absolute() for path in columns.paths),
        labels=None if labels is None else np.array(labels, dtype=str),
        persons=None if columns.persons is None else np.array(columns.persons, dtype=str),
        classes=declared,
        attributes=attributes,
        class_attributes=class_attributes,
        locations=tuple(where),
    )


def _check_text(ids: list[str], source: str) -> None:
    # File names are bytes; what is not UTF-8, or breaks a line, cannot stand in the files that name samples.
    everything = "".join(ids)
    if everything.isascii() and "\r" not in everything:
        return
    lines = [ascii(name) for name in ids if "\r" in name or any("\ud800" <= letter <= "\udfff" for letter in name)]
    if lines:
        raise combine_errors(lines, f"file names of {source} are not UTF-8 or hold a line break", "rename these files")


def _check_present(values: list[str], what: str, columns: RawColumns, hint: str | None = None) -> None:
    empty = [i for i, value in enumerate(values) if value in MISSING]
    if empty:
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
    where, ids = columns.locations, columns.ids
    if columns.paths is not None:
        first: dict[str, int] = {}
        lines = []
        for i, path in enumerate(columns.paths):
            j = first.setdefault(normal_path(path), i)
            for what, values in (("label", columns.labels), ("person", columns.persons)):
                if j != i and values is not None and values[i] != values[j]:
                    lines.append(f"{where[i]}: {path.name} has {what} '{values[i]}', in {where[j]} '{values[j]}'")
        if lines:
            raise combine_errors(
                lines,
                f"rows of {columns.source} contradict an earlier row about the same image",
                "keep the right one of the rows",
            )
    if len(set(ids)) < len(ids):
        seen: dict[str, int] = {}
        lines = [
            f"{where[i]}: '{name}' stands in {where[j]} too"
            for i, name in enumerate(ids)
            if (j := seen.setdefault(name, i)) != i
        ]
        raise combine_errors(
            lines,
            f"ids of {columns.source} are not unique",
            "an id names one sample: remove the repeated rows, or name another column with --id",
        )


def normal_path(path: Path) -> str:
    """One spelling for one file; links are not followed."""
    text = str(path)
    return os.path.normpath(text) if ".." in text else text


def _check_classes(labels: list[str], classes: tuple[str, ...], source: str, where: list[str], training: bool) -> None:
    counts = Counter(labels)
    outside = sort_classes([label for label in counts if label not in set(classes)])
    if outside:
        lines = [f"'{name}': {counts[name]:,} samples, first {where[labels.index(name)]}" for name in outside]
        known = ", ".join(classes[:20]) + (" …" if len(classes) > 20 else "")
        raise combine_errors(
            lines,
            f"labels of {source} are none of the {len(classes)} declared classes",
            f"the classes are {known}; correct or remove the rows",
        )
    if training and len(counts) < 2:
        hint = "two classes at least are needed; is --label the right column?"
        raise EnsembleError(
            f"all {len(labels):,} samples of {source} have the label '{labels[0]}': nothing to learn", hint=hint
        )


def _check_images(paths: Sequence[Path], source: str, where: list[str]) -> None:
    # One listing a folder, not one stat a file: 200,000 stats on a network drive take minutes.
    listed: dict[str, set[str]] = {}
    lines: list[str] = []
    for i, path in enumerate(paths):
        folder, name = os.path.split(path)
        if folder not in listed:
            listed[folder] = _file_names(folder)
        # The second look: names can differ in their Unicode form and still be the same file.
        if name not in listed[folder] and not path.is_file():
            other = (
                next((n for n in listed[folder] if n.startswith(f"{path.stem}.")), None) if len(lines) < 10 else None
            )
            lines.append(f"{where[i]}: {path}" + (f" (there is {other})" if other else ""))
    if lines:
        hint = f"paths are taken relative to the folder of {source}; is --path the right column?"
        raise combine_errors(lines, f"of {len(paths):,} images named by {source} are not there", hint)


def _file_names(folder: str) -> set[str]:
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return set()


def _determined(
    labels: list[str], attributes: Mapping[str, list[str]], classes: tuple[str, ...]
) -> dict[str, dict[str, str]]:
    """Class → {attribute: value} for attributes with one value in each class, and more than one over all."""
    meaning: dict[str, dict[str, str]] = {name: {} for name in classes}
    for attribute, values in attributes.items():
        pairs = set(zip(labels, values))
        distinct = {value for _, value in pairs}
        if (
            len(pairs) == len({label for label, _ in pairs}) == len(classes)
            and len(distinct) > 1
            and not distinct & MISSING
        ):
            for label, value in pairs:
                meaning[label][attribute] = value
    return meaning if any(meaning.values()) else {}
