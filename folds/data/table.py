"""Define the sample table (image, class and person of each sample), and where a data set is; numpy only."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from folds.data.column_summary import column_rows, column_summary
from folds.data.image_paths import path_texts
from folds.errors import EnsembleError, without_marks
from folds.metrics.task_names import CLASSES, COLUMN_TASKS, MULTILABEL, require_classes
from folds.predictions.files import SampleRows
from folds.predictions.label_columns import encode_labels
from folds.utils.csv_table import LazySequence
from folds.utils.display import Displayed, Table
from folds.utils.numeric import factorize
from folds.utils.text import counted

if TYPE_CHECKING:
    import pandas

AUTO_COPIES = "auto-copies"  # in place of the column of the persons: groups of copies of an image


@dataclass(frozen=True, eq=False, repr=False)
class SampleTable(Displayed):
    """A table of n samples with one image each, in the order of the source.

    Attributes
    ----------
    source : path of the source, as the user named it (``people/train/train.csv``).
    ids : (n,) str, unique.
    paths : n absolute image paths (`ImagePaths`, or a tuple), or None if the table has none.
    labels, persons : (n,) str, or None if unknown (test images).
    classes : the declared classes in order; a class may have no sample.
    attributes : name → (n,) str; parts of the label (mask, gender, age) and all other columns of the table.
    class_attributes : class → {attribute: value} for the attributes that the class determines.
    locations : location of each sample in the source (``train.csv row 3``), for messages.
    task : ``classes``; or ``multilabel`` or ``regression``, whose `classes` are the names of the labels or numbers, and
        whose `labels` are texts of them (`folds.predictions.label_columns`).
    """

    source: str
    ids: NDArray[np.str_]
    paths: Sequence[Path] | None
    labels: NDArray[np.str_] | None
    persons: NDArray[np.str_] | None
    classes: tuple[str, ...]
    attributes: Mapping[str, NDArray[np.str_]]
    class_attributes: Mapping[str, Mapping[str, str]]
    locations: Sequence[str]
    task: str = CLASSES

    def __len__(self) -> int:
        return len(self.ids)

    def label_codes(self) -> NDArray[np.int64]:
        """Return (n,) the index in `classes` of each label.

        Raises
        ------
        EnsembleError : the table has no labels.
        UsageError : it has several labels or numbers for each sample.
        """
        require_classes(self.task, f"a count of the classes of {self.source}")
        if self.labels is None:
            raise EnsembleError(f"{self.source} has no labels")
        code = {name: i for i, name in enumerate(self.classes)}
        names, codes = factorize(self.labels)
        return np.array([code[name] for name in names], dtype=np.int64)[codes]

    @property
    def has_columns(self) -> bool:
        """Return whether a sample has several labels, or numbers, in place of one class."""
        return self.task in COLUMN_TASKS

    def label_values(self) -> NDArray:
        """Return the labels as metrics and losses take them.

        Returns
        -------
        (n,) int64 positions in `classes`; or (n, columns) float64, nan where a label or number is not known, of
        ``multilabel`` and ``regression``.

        Raises
        ------
        EnsembleError : the table has no labels.
        """
        if self.labels is None:
            raise EnsembleError(f"{self.source} has no labels")
        return encode_labels(self.labels, self.classes, self.task) if self.has_columns else self.label_codes()

    def rows(self) -> SampleRows:
        """Return the columns of these samples for a prediction file."""
        return SampleRows(self.ids, self.labels, self.persons, dict(self.attributes))

    def take(self, index: NDArray[np.integer]) -> SampleTable:
        """Return the samples at `index`, in that order, with the same declared classes."""
        index = np.asarray(index, dtype=np.int64)

        def select(column: NDArray[np.str_] | None) -> NDArray[np.str_] | None:
            return None if column is None else column[index]

        positions = index.tolist()
        return SampleTable(
            self.source,
            self.ids[index],
            None if self.paths is None else _take(self.paths, positions),
            select(self.labels),
            select(self.persons),
            self.classes,
            {name: values[index] for name, values in self.attributes.items()},
            self.class_attributes,
            _take(self.locations, positions),
            self.task,
        )

    @cached_property
    def factorized_persons(self) -> tuple[list[str], NDArray[np.int64]]:
        """Return the sorted names of the people, and (n,) the index of each sample's person among them.

        Raises
        ------
        EnsembleError : the table has no persons.
        """
        if self.persons is None:
            raise EnsembleError(f"{self.source} has no persons")
        return factorize(self.persons)

    def frame(self) -> pandas.DataFrame:
        """Return the table as a pandas DataFrame of text: id, path, label and person if known, then the attributes.

        Several labels, or numbers, follow the text of all of them in columns of their own, with nan if not known.

        Examples
        --------
        >>> from folds.data.raw_columns import RawColumns, build_table
        >>> rows = ["t.csv row 2", "t.csv row 3"]
        >>> build_table(RawColumns("t.csv", ["a", "b"], rows, None, ["x", "y"], ["p", "q"]), training=True).frame()
          id label person
        0  a     x      p
        1  b     y      q
        """
        import pandas

        paths = None if self.paths is None else list(path_texts(self.paths))
        known: dict[str, Any] = {"id": self.ids, "path": paths, "label": self.labels, "person": self.persons}
        columns = {name: values for name, values in known.items() if values is not None}
        if self.has_columns and self.labels is not None:
            values = self.label_values()
            columns |= {name: values[:, i] for i, name in enumerate(self.classes) if name not in columns}
        return pandas.DataFrame(columns | {name: v for name, v in self.attributes.items() if name not in columns})

    def to_dict(self) -> dict[str, Any]:
        """Return a summary as plain values: numbers of samples and people, and samples of each class."""
        if self.has_columns:
            return self._summary({"task": self.task, "columns": self._column_summary()})
        counts = None if self.labels is None else Counter(self.labels.tolist())
        return self._summary({"classes": {name: None if counts is None else counts[name] for name in self.classes}})

    def _column_summary(self) -> dict[str, dict[str, Any]]:
        owners = None if self.persons is None else self.factorized_persons[1]
        values = None if self.labels is None else self.label_values()
        return column_summary(values, owners, self.classes, self.task)

    def _summary(self, labels: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "source": self.source,
            "sha": self.sha,
            "samples": len(self),
            "people": None if self.persons is None else len(self.factorized_persons[0]),
            **labels,
        }

    def display_table(self) -> Table:
        """Return the table to display: samples and people of each class."""
        people = "" if self.persons is None else f" of {len(self.factorized_persons[0]):,} people"
        what = f"{len(self.classes)} classes"
        if self.has_columns:
            what = counted(len(self.classes), "label" if self.task == MULTILABEL else "number")
        title = f"{self.source}: {len(self):,} samples{people}, {what}"
        if self.labels is None:
            return Table(title)
        if self.has_columns:
            return Table(title, *column_rows(self._column_summary(), self.task))
        rows: list[list[object]] = []
        for name in self.classes:
            inside = self.labels == name
            owners = "" if self.persons is None else f"{len(set(self.persons[inside].tolist())):,}"
            attributes = " ".join(self.class_attributes.get(name, {}).values())
            rows.append([name, attributes, f"{int(inside.sum()):,}", owners])
        return Table(title, ["class", "meaning", "samples", "people"], rows, left=2)

    @cached_property
    def sha(self) -> str:
        """Return the SHA-256 of ids, labels, persons and classes, in order; paths are left out, so folders can move."""
        digest = hashlib.sha256()
        digest.update(b"[")
        for column in (self.ids, self.labels, self.persons):
            for text in _json_parts(column):
                digest.update(text.encode())
            digest.update(b", ")
        digest.update(json.dumps(self.classes, ensure_ascii=True).encode() + b"]")
        return digest.hexdigest()


def _json_parts(column: NDArray[np.str_] | None) -> Iterator[str]:
    """Yield ``json.dumps(column.tolist())`` in parts, because the whole text of a million rows takes 200 MB."""
    if column is None or not len(column):
        yield "null" if column is None else "[]"
        return
    for start in range(0, len(column), 1 << 14):
        part = json.dumps(column[start : start + (1 << 14)].tolist(), ensure_ascii=True)
        yield ("[" if start == 0 else ", ") + part[1:-1]
    yield "]"


def _take(values: Sequence[Any], index: Sequence[int]) -> Sequence[Any]:
    return values.take(index) if isinstance(values, LazySequence) else tuple(values[i] for i in index)


@dataclass(frozen=True)
class DataSpec:
    """Location and columns of the data, as given by the user.

    Attributes
    ----------
    data : a CSV, a folder of class folders, or a folder in the mask-competition layout.
    path, label, person, id : column names of a CSV. If there is no column of the default name, the only column with
        another known name is taken (`folds.predictions.columns`). Without `id`, the ids are the column ``id`` if there
        is one, else the paths. `label` may list one-hot columns: ``MEL,NV,BCC``.
        `person` ``auto-copies`` makes groups of the images that are copies of each other.
    task : what the labels are; None to decide by the columns. Only ``multilabel`` and ``regression`` change how a
        table is read, and others that columns are classes.
    split : a column whose value ``test`` marks test rows, which are not used for training.
    person_regex : extracts the person from the image path if no column holds it.
    test : further images to predict.
    classes : the declared classes; None for those that occur.
    images, test_images : folders that the names in the tables start from; None for the folder of the table, and for
        `test_images` those of `images`.
    test_labels : whether the labels of the test table are labels; None: unless all are equal.
    missing_persons : ``own`` (an image without a person is its own person), ``keep`` (``unknown``, ``-1``, … are
        persons like others) or None (an error).
    merge_spellings : whether spellings of one name are one person or class.
    skip_unusable : whether images that cannot be decoded are left out.
    max_pixels : as in `folds.images.settings.ImageSettings`.
    stack : columns of the files of a sample, in place of `path`; each file is one channel.
    label_of : ``person`` if only persons are labeled: every image takes the label of its person.
    uncertain : what labels of -1 are read as, one of `folds.metrics.task_names.UNCERTAIN`; None: they are an error.
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
    images: tuple[str, ...] | None = None
    test_images: tuple[str, ...] | None = None
    test_labels: bool | None = None
    missing_persons: str | None = None
    merge_spellings: bool | None = None
    skip_unusable: bool | None = None
    max_pixels: int | None = None
    stack: tuple[str, ...] | None = None
    task: str | None = None
    label_of: str | None = None
    uncertain: str | None = None

    def image_folders(self, training: bool) -> tuple[Path, ...]:
        """Return the absolute folders that names of images start from; () for the folder of the table."""
        named = self.images if training or self.test_images is None else self.test_images
        return tuple(Path(name).absolute() for name in named or ())


def folder_names(folders: str | Path | Sequence[str | Path] | None) -> tuple[str, ...] | None:
    """Return names of folders as `DataSpec` holds them."""
    if folders is None:
        return None
    return (str(folders),) if isinstance(folders, str | Path) else tuple(map(str, folders))


@dataclass(frozen=True, eq=False, repr=False)
class Dataset(Displayed):
    """A data set: training samples, test samples if there are any, and messages for the user.

    Attributes
    ----------
    notes, warnings : one line each; may mark parameters (see `folds.errors`).
    spec : location of the files the data were read from, as given; None for a DataFrame.
    found : ``label`` and ``person`` → the column of the table that was found by a known name (``target``); without
        those of the name in `spec`.
    left_out : number of images that cannot be used and were left out, as asked.
    label_of : of a DataFrame, as in `DataSpec`.
    """

    train: SampleTable
    test: SampleTable | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    spec: DataSpec | None = None
    found: Mapping[str, str] = field(default_factory=dict)
    left_out: int = 0
    label_of: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return summaries of both parts, notes and warnings, as plain values."""
        test = None if self.test is None else self.test.to_dict()
        notes, warnings = (list(map(without_marks, lines)) for lines in (self.notes, self.warnings))
        return {"train": self.train.to_dict(), "test": test, "notes": notes, "warnings": warnings}

    def display_table(self) -> Table:
        """Return the table to display: the training samples by class, and the number of test samples."""
        shown = self.train.display_table()
        test = () if self.test is None else (f"test: {len(self.test):,} samples of {self.test.source}",)
        return replace(shown, notes=(*shown.notes, *test, *(f"warning: {line}" for line in self.warnings)))
