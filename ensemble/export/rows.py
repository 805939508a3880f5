"""Take the persons and further columns of images that a model needs: of parameters, or of a table of the images."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ensemble.decisions.rows import PERSON
from ensemble.learning.further_columns import encode
from ensemble.model_files.record import ModelRecord
from ensemble.prediction.source import PredictionSource, head_of_people
from folds.data.raw_columns import MISSING
from folds.data.table import SampleTable
from folds.errors import UsageError
from folds.metrics.arrays import as_array, check_same_index, frame_columns, names_of, texts_of
from folds.predictions.rows import SampleRows
from folds.utils.arguments import described


def needs_record(model: ModelRecord) -> dict[str, Any]:
    """Return plain values: ``unit``, ``pooling``, ``extra_columns``, ``person_head``; {} if it needs images alone."""
    record: dict[str, Any] = {}
    combination = model.combination
    if combination.pooling is not None:
        record |= {"unit": PERSON, "pooling": combination.pooling.text}
    if combination.extra is not None:
        record["extra_columns"] = list(combination.extra.names)
    if model.person_head is not None:
        record["person_head"] = model.person_head
    return record


def needs_text(model: ModelRecord) -> str:
    """Return what the model answers for, and what it needs beside the images."""
    combination = model.combination
    text = "images" if combination.pooling is None else f"people, by their images ({combination.pooling.text})"
    if model.person_head is not None and combination.pooling is None:
        text = f"{text}, each from all images of its person"
    return text if combination.extra is None else f"{text}, with the columns {', '.join(combination.extra.names)}"


def sample_rows(
    source: PredictionSource,
    n: int,
    images: Any,
    table: SampleTable | None,
    persons: ArrayLike | None,
    columns: Any,
) -> SampleRows:
    """Return the rows of images: their numbers, and the persons and columns that the model needs.

    Parameters
    ----------
    n : number of images.
    images : as they were given; a DataFrame must have the index of other Series and DataFrames.
    table : of the images, if they are one; parameters take precedence over its columns.
    persons : (n,) names, numbers as text (1.0 is ``1``).
    columns : mapping or DataFrame, name → (n,) values; None, nan and empty texts are not known.

    Raises
    ------
    UsageError : persons or columns are missing, are given to a model that does not use them, or have another length.
    EnsembleError : a cell of a column of numbers is another text.
    """
    made = source.combination
    check_same_index({"`images`": images, "`persons`": persons, **_with_index(columns)})
    names = None
    if made.pooling is not None or head_of_people(source) is not None:
        names = _persons(source, n, table, persons)
    elif persons is not None:
        raise UsageError(
            f"{source.name} answers for images, and `persons` are given",
            hint="leave them out; decide(images, persons) applies decision rules for people",
        )
    if made.extra is None:
        if columns is not None:
            raise UsageError(
                f"{source.name} uses no columns beside the images, and `columns` are given", hint="leave it out"
            )
        return SampleRows(np.arange(n).astype(str), None, names)
    given = {} if table is None else dict(table.attributes)
    given |= _columns(columns, made.extra.names, n)
    _check_given(source, given)
    taken = {name: given[name] for name in made.extra.names}
    encode(made.extra.encodings, taken, n)  # a cell that is no number is refused before an image is predicted
    return SampleRows(np.arange(n).astype(str), None, names, taken)


def _persons(
    source: PredictionSource, n: int, table: SampleTable | None, persons: ArrayLike | None
) -> NDArray[np.str_]:
    if persons is not None:
        names = names_of(persons, "persons", n)
        unknown = np.flatnonzero(np.isin(names, sorted(MISSING)))
        if len(unknown):
            raise UsageError(
                f"`persons` has '{names[unknown[0]]}' in row {unknown[0]}, which means that the person is not known",
                hint="name the person of every image, or remove these images",
            )
        return names
    if table is not None and table.persons is not None:
        return table.persons
    pooling = source.combination.pooling
    what = (
        f"predicts an image from all images of its person (head {head_of_people(source)})"
        if pooling is None
        else f"answers for people (images pooled by {pooling.text})"
    )
    raise UsageError(
        f"{source.name} {what}, and the persons of the images are not given",
        hint="persons=[…] with one name for each image, or a table of images with a column `person`",
    )


def _check_given(source: PredictionSource, given: Mapping[str, NDArray[np.str_]]) -> None:
    """Raise UsageError unless every column that the model needs is there."""
    extra = source.combination.extra
    assert extra is not None  # noqa: S101 - asked for such models
    absent = [name for name in extra.names if name not in given]
    if absent:
        found = f"found {', '.join(sorted(given)[:10])}" if given else "found none"
        raise UsageError(
            f"{source.name} needs the columns {', '.join(extra.names)} beside the images; {', '.join(absent)} "
            f"{'is' if len(absent) == 1 else 'are'} missing, {found}",
            hint="columns={name: values}, one value for each image, or a table of images with these columns; None is a "
            "value that is not known",
        )


def _with_index(columns: Any) -> dict[str, Any]:
    """Return parameter → value, whose index must be that of the images: a DataFrame, or each Series of a mapping."""
    if isinstance(columns, Mapping):
        return {f"`columns['{name}']`": values for name, values in columns.items()}
    return {"`columns`": columns}


def _columns(columns: Any, needed: Collection[str], n: int) -> dict[str, NDArray[np.str_]]:
    """Return the texts (n,) of each column that is needed, and an empty array for others."""
    if columns is None:
        return {}
    names = frame_columns(columns)
    if names is None and not isinstance(columns, Mapping):
        raise UsageError(
            f"`columns` must be a mapping or a DataFrame of one value for each image, found {described(columns)}",
            hint="columns={'age': [61, None]}",
        )
    if names is None:
        pairs = [(str(name), values) for name, values in columns.items()]
    else:
        pairs = [(name, columns.iloc[:, at]) for at, name in enumerate(names)]
    found: dict[str, NDArray[np.str_]] = {}
    for name, values in pairs:
        if name in found and name in needed:
            raise UsageError(f"`columns` has '{name}' twice", hint="give each column once")
        found[name] = _texts(f"columns['{name}']", values, n) if name in needed else np.zeros(0, str)
    return found


def _texts(name: str, values: Any, n: int) -> NDArray[np.str_]:
    """Return (n,) texts, "" for a value that is not known."""
    found = as_array(values, name)
    if found.shape != (n,):
        raise UsageError(f"`{name}` must be one value for each of {n:,} images, found the shape {found.shape}")
    return texts_of(values, found)
