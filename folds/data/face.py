"""Provide the public `read_table` for a CSV, a folder or a DataFrame, and pass its samples to commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from folds.config.lookup import all_settings
from folds.data.readers import read_data, read_frame
from folds.data.sources import find_data, log_notes, log_warnings
from folds.data.table import Dataset, DataSpec, SampleTable, folder_names
from folds.data.written_labels import columns_of_labels, label_cells
from folds.errors import UsageError
from folds.images.settings import check_channels
from folds.images.stacks import may_be_stacks
from folds.utils.arguments import CLASSES, FLAG, NAME, NAMES, PATH, check_arguments, described
from folds.utils.csv_table import csv_text
from folds.utils.files import write_atomic
from folds.utils.schema import named, optional

if TYPE_CHECKING:
    import pandas as pd

    Data: TypeAlias = Dataset | SampleTable | pd.DataFrame | str | Path

_KINDS = {
    **dict.fromkeys(("path", "person"), NAME),
    "label": NAMES,
    **dict.fromkeys(("id", "split", "person_regex"), optional(NAME)),
    **dict.fromkeys(("missing_persons", "task", "label_of", "uncertain"), optional(NAME)),
    "stack": optional(named(CLASSES, "a list of columns")),
    "test": optional(PATH),
    "classes": optional(named(CLASSES, "a list of names")),
    **dict.fromkeys(("need_images", "merge_spellings", "skip_unusable"), FLAG),
    "root": PATH,
}


def read_table(
    source: str | Path | pd.DataFrame | None = None,
    *,
    path: str = "path",
    label: str | Sequence[str] = "label",
    person: str = "person",
    id: str | None = None,
    split: str | None = None,
    person_regex: str | None = None,
    test: str | Path | None = None,
    classes: Sequence[str] | None = None,
    images: str | Path | Sequence[str | Path] | None = None,
    test_images: str | Path | Sequence[str | Path] | None = None,
    test_labels: bool | None = None,
    missing_persons: str | None = None,
    merge_spellings: bool = False,
    skip_unusable: bool = False,
    max_pixels: int | None = None,
    stack: Sequence[str] | None = None,
    task: str | None = None,
    label_of: str | None = None,
    uncertain: str | None = None,
    need_images: bool = True,
    root: str | Path = ".",
) -> Dataset:
    """Return the training samples, and the test samples if there are any: image, class and person (group) of each.

    Parameters
    ----------
    source : a CSV or Parquet file, a folder with a CSV or with class folders, the mask-competition layout, or a
        DataFrame. Default: ``data`` in the folder `root`, or else synthetic faces, which are generated there.
    path, label, person, id : column names. Other known names of a column (``image_id``, ``target``, ``patient_id``) are
        found and noted, if there is no column of the default name. Without `id`, the ids are the column ``id`` if there
        is one, else the paths. `label` may list one-hot columns, columns of 0 and 1 of several labels, or numbers:
        ``"MEL,NV,BCC"``, or a list of their names.
        ``person="auto-copies"`` makes groups of the images that are copies of each other, where nothing tells the
        person: it protects from copies in several folds, not from different photographs of one person.
    split : a column whose value ``test`` marks test rows, which are not used for training.
    person_regex : extracts the person from the image path if no column holds it.
    test : further images to predict: a CSV or a folder.
    classes : the declared classes, in order; by default those that occur.
    images, test_images : folder (or folders) of the images named in the table, if they are not relative to the table;
        suffixes that the table lacks are found. `test_images` are those of `test`, by default the same folders.
    test_labels : whether the labels of `test` are labels; None: unless all are equal, as in a sample submission.
    missing_persons : what to do if a person is empty or a text such as ``unknown``: ``"own"`` makes each such image its
        own person, ``"keep"`` keeps the text as a person; None is an error.
    merge_spellings : whether spellings of one name (12 and 12.0, Cat and cat) are one person or class.
    skip_unusable : whether to leave out images that cannot be decoded, with a warning that names them.
    max_pixels : number of pixels above which an image is not decoded.
    stack : columns of the files of one sample, in place of `path`; each file is one channel, in this order.
    task : ``"multilabel"`` for several labels of a sample, in columns of 0 and 1 or as names in one column
        (``hat|beard``); ``"regression"`` for numbers; ``"classes"`` for one class. By default it is decided by the
        columns, with a note.
    label_of : ``"person"`` if only persons are labeled: every image takes the label of its person, and scores of runs
        are by person.
    uncertain : what -1 in columns of several labels means: ``"unknown"`` reads it as an empty cell, ``"absent"`` as 0,
        ``"present"`` as 1; None is an error.
    need_images : whether every image file must exist; splitting and scoring do not need them.

    Raises
    ------
    EnsembleError : invalid data; one kind of problem at a time, with the first rows that have it.
    UsageError : an unknown column, or arguments that contradict each other.

    Examples
    --------
    >>> import folds, pandas as pd
    >>> frame = pd.DataFrame({"path": ["a.jpg", "b.jpg"], "label": ["cat", "dog"], "patient": ["ann", "bob"]})
    >>> data = folds.read_table(frame, person="patient", need_images=False)
    >>> len(data.train), data.train.classes
    (2, ('cat', 'dog'))
    """
    check_arguments(locals(), _KINDS)
    if task is not None:
        all_settings()["task"].check(task)
    declared = None if classes is None else tuple(map(str, classes))
    frame = None
    if source is None:
        source = find_data(None, Path(root))
    elif not isinstance(source, str | Path):
        if not hasattr(source, "iloc"):
            raise UsageError(f"expected a path, a DataFrame or the result of `read_table`, found {described(source)}")
        frame, source = source, Path("the DataFrame")
    test_path = None if test is None else Path(test)
    spec = DataSpec(
        Path(source),
        path,
        _label_names(label),
        person,
        id,
        split,
        person_regex,
        test_path,
        declared,
        images=folder_names(images),
        test_images=folder_names(test_images),
        test_labels=test_labels,
        missing_persons=missing_persons,
        merge_spellings=merge_spellings or None,
        skip_unusable=skip_unusable or None,
        max_pixels=max_pixels,
        stack=None if stack is None else (stack,) if isinstance(stack, str) else tuple(stack),
        task=task,
        label_of=label_of,
        uncertain=uncertain,
    )
    check_channels((), spec.stack or ())
    for name in ("label_of", "missing_persons", "task", "uncertain"):
        all_settings()[name].check(getattr(spec, name))
    if frame is not None:
        return read_frame(frame, replace(spec, data=Path()), need_images=need_images)
    return replace(read_data(spec, need_images=need_images), spec=spec)


def _label_names(label: str | Sequence[str]) -> str:
    """Return the columns of labels as `DataSpec` holds them."""
    names = [label] if isinstance(label, str) else list(map(str, label))
    if len(names) > 1 and any("," in name for name in names):
        raise UsageError(f"names of several columns of labels have no comma, found {', '.join(map(repr, names))}")
    return ",".join(names)


def training_table(data: Data | None = None, *, root: str | Path = ".") -> SampleTable:
    """Return the training samples of a table, data set, DataFrame or path; image files need not exist."""
    if isinstance(data, Dataset | SampleTable):
        return data if isinstance(data, SampleTable) else data.train
    read = read_table(data, need_images=False, root=root)
    log_warnings(read)
    return read.train


def as_dataset(data: Data | None = None, *, root: str | Path = ".", need_images: bool = True) -> Dataset:
    """Return training and test samples of a table, data set, DataFrame or path; log the notes of data read here."""
    if isinstance(data, Dataset):
        return data
    if isinstance(data, SampleTable):
        return Dataset(data)
    read = read_table(data, root=root, need_images=need_images)
    log_notes(read)
    return read


def data_settings(data: Data | None, root: Path) -> dict[str, Any]:
    """Return the settings (``data``, ``person``, ``test``, …) with which a command reads these samples.

    Data from files are read from the same files. A DataFrame is written under ``.ensemble/tables``, with a hash of its
    content in the file name, because training processes read files.

    Raises
    ------
    UsageError : the table declares a class without a sample, or has no image paths.
    """
    if data is None:
        return {}
    if isinstance(data, str | Path):
        return {"data": Path(data)}
    dataset = as_dataset(data, need_images=False)
    spec = dataset.spec or _written(dataset, root)
    if dataset.train.has_columns:
        spec = replace(spec, task=dataset.train.task)
    elif spec.classes is not None and set(spec.classes) != set(
        dataset.train.classes if dataset.train.labels is None else dataset.train.labels.tolist()
    ):
        raise UsageError(
            "expected a sample of every class in `classes`, found classes without one, which cannot be trained",
            hint="omit `classes`",
        )
    plain = DataSpec(spec.data)
    given = {one.name: getattr(spec, one.name) for one in fields(DataSpec) if one.name != "classes"}
    return {name: value for name, value in given.items() if name == "data" or value != getattr(plain, name)}


def _written(dataset: Dataset, root: Path) -> DataSpec:
    """Write both parts to one CSV with absolute paths, named by a hash of its content; return its `DataSpec`."""
    tables = [(name, table) for name, table in (("train", dataset.train), ("test", dataset.test)) if table is not None]
    names = list(dict.fromkeys(name for _, table in tables for name in table.attributes))
    labels = columns_of_labels(dataset.train, names)
    columns: dict[str, list[str]] = {name: [] for name in ("id", "path", *labels, "person", *names, "split")}
    for part, table in tables:
        n = len(table)
        if table.paths is None:
            raise UsageError(
                "the table has no image paths, which training needs",
                hint="add a column 'path', or name the column with `path`",
            )
        if may_be_stacks(table.paths):
            raise UsageError(
                "a DataFrame of stacks of files is not written to a table for training",
                hint="save it as a CSV, and name it with `data` and `stack`",
            )
        parts = {"id": table.ids, "person": table.persons, **table.attributes, **label_cells(table, labels)}
        for name in columns:
            values = parts.get(name)
            columns[name] += [""] * n if values is None else values.tolist()
        columns["path"][-n:] = list(map(str, table.paths))
        columns["split"][-n:] = [part] * n
    content = csv_text(columns)
    sha = "".join(table.sha[:6] for _, table in tables)
    path = root / ".ensemble" / "tables" / f"table-{sha}.csv"
    if not path.exists() or path.read_text(encoding="utf-8") != content:
        write_atomic(path, content)
    task = dataset.train.task if dataset.train.has_columns else None
    split = "split" if dataset.test is not None else None
    return DataSpec(path, label=",".join(labels), id="id", split=split, task=task, label_of=dataset.label_of)
