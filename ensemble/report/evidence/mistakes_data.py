"""Take from the evidence what the sections about mistakes and labels need: labeled rows, members, image facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ensemble.analysis.mistakes import LabeledRows
from ensemble.report.evidence.evidence import Evidence, Part, Predicted, TableRecord
from folds.utils.text import natural_order

MAX_VALUES = 12  # of an attribute whose values are compared


def voters_of(part: Part, main: Predicted) -> tuple[Predicted, ...]:
    """Return the members whose votes are compared: the runs, else the runs with views; without blends of them."""
    for kind in ("run", "tta"):
        found = tuple(one for one in part.members if one.kind == kind)
        if len(found) > 1 or (found and main in found):
            return found
    return tuple(one for one in part.members if one.kind != "blend")


def labeled_rows(evidence: Evidence, part: Part, main: Predicted, scored: bool = False) -> LabeledRows:
    """Return the rows with a label that the judged predictions have.

    Parameters
    ----------
    scored : whether people with changed training labels are left out, as they are from scores.
    """
    labels = (part.without_changed_labels([main]) or part).labels if scored else part.labels
    at = np.flatnonzero((labels >= 0) & main.present)
    whole = len(at) == len(part)

    def rows(values: NDArray) -> NDArray:
        return values if whole else values[at]

    return LabeledRows(
        rows(part.ids),
        rows(part.persons),
        rows(part.labels),
        evidence.classes,
        rows(main.probabilities),
        {one.name: rows(one.probabilities) for one in voters_of(part, main)},
    )


def with_titles(rows: LabeledRows, evidence: Evidence) -> LabeledRows:
    """Return the rows with names of classes that say what they mean (`Evidence.class_title`)."""
    return replace(rows, classes=tuple(map(evidence.class_title, evidence.classes)))


def class_values(evidence: Evidence) -> dict[str, list[str]]:
    """Return attribute → its value for each class, of the attributes that every class has."""
    return values_of(evidence.classes, evidence.class_attributes)


def values_of(classes: Sequence[str], class_attributes: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
    """Return attribute → its value for each of some classes, of the attributes that each of them has."""
    meanings = [class_attributes.get(name, {}) for name in classes]
    return {
        name: [one[name] for one in meanings]
        for name in (meanings[0] if meanings else ())
        if all(name in one for one in meanings)
    }


def change_text(values: Mapping[str, Sequence[str]], one: int, other: int) -> str:
    """Return in what two classes differ, ``gender: female → male; age: <30 → 30-59``; "" without attributes.

    Parameters
    ----------
    values : of `class_values`.
    one, other : class indices.
    """
    return "; ".join(f"{name}: {of[one]} → {of[other]}" for name, of in values.items() if of[one] != of[other])


def places_in_table(table: TableRecord, ids: NDArray[np.str_]) -> NDArray[np.int64]:
    """Return (n,) the row of each id in the table; −1 if it is not there."""
    position = {name: row for row, name in enumerate(table.ids.tolist())}
    return np.array([position.get(name, -1) for name in ids.tolist()], np.int64)


def image_properties(table: TableRecord, at: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Return property → (n,) its value for each image, NaN where it is unknown; only properties that are known.

    Parameters
    ----------
    at : (n,) rows of the table, −1 for none.
    """
    found: dict[str, NDArray[np.float64]] = {}
    if table.brightness is not None:
        found["brightness"] = _taken(table.brightness, at)
    if table.sharpness is not None:
        found["sharpness"] = _taken(table.sharpness, at)
    if table.width is not None and table.height is not None:
        pixels = np.asarray(table.width, np.float64) * np.asarray(table.height, np.float64)
        found["size"] = _taken(np.where(pixels > 0, pixels / 1e6, np.nan), at)
    return {name: values for name, values in found.items() if np.isfinite(values).any()}


def _taken(values: NDArray, at: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.where(at >= 0, np.asarray(values, np.float64)[np.maximum(at, 0)], np.nan)


def column_values(
    table: TableRecord, at: NDArray[np.int64], class_attributes: Mapping[str, Mapping[str, str]]
) -> dict[str, tuple[NDArray[np.int64], list[str]]]:
    """Return column → (n,) index of the value of each image, and the values, of columns with a few values each.

    Attributes of the classes are left out: they are scored as predictions.
    """
    of_classes = {name for meaning in class_attributes.values() for name in meaning}
    found = {}
    for name, cells in table.attributes.items():
        if name in of_classes:
            continue
        values = natural_order(set(np.asarray(cells)[at[at >= 0]].tolist()) - {""})
        if not 1 < len(values) <= MAX_VALUES:
            continue
        code = {value: i for i, value in enumerate(values)} | {"": -1}
        groups = np.array([code[cells[row]] if row >= 0 else -1 for row in at.tolist()], np.int64)
        found[name] = groups, values
    return found
