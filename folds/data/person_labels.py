"""Give every image the label of its person, for tables in which only the person is labeled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from folds.data.column_labels import cell_lines
from folds.data.doubts import is_no_label
from folds.data.raw_columns import MISSING, RawColumns
from folds.errors import EnsembleError, UsageError, combine_errors
from folds.metrics.task_names import COLUMN_TASKS
from folds.predictions.label_columns import label_matrix, label_texts
from folds.utils.numeric import factorize
from folds.utils.spelling import spelling_key
from folds.utils.text import counted

PERSON = "person"  # the value of the setting `label_of`


def label_by_person(columns: RawColumns, merge: bool, training: bool) -> None:
    """Fill in the labels of all images by those of their persons, in place; what is done is added to the notes.

    Several labels and numbers are filled in one by one: a person has each from the rows where it is known.

    Parameters
    ----------
    merge : whether labels that are spellings of one name are the same.
    training : whether a person without a label is an error; the labels of test images are unknown then.

    Raises
    ------
    UsageError : the table names no persons.
    EnsembleError : the rows of a person have different labels, or a person of the training has none.
    """
    if columns.labels is None:
        return
    if columns.persons is None:
        if not training:  # those of images are not known
            columns.labels = None if any(map(_is_missing, set(columns.labels))) else columns.labels
            return
        raise UsageError(
            f"`label_of={PERSON}` needs the persons of {columns.source}, which are unknown",
            hint="name their column with `person`, or find them in the paths with `person_regex`",
        )
    of_columns = columns.task in COLUMN_TASKS and bool(columns.names)
    found = (_cells_of_people if of_columns else _classes_of_people)(columns, columns.persons, merge)
    if found.lines:
        raise combine_errors(
            found.lines,
            f"rows of {columns.source} give another label than other rows of the same person, with `label_of={PERSON}`",
            "write one label per person, or leave out `label_of` if images have labels of their own",
        )
    without = sorted(person for person, label in found.labels.items() if not label)
    if without and not training:
        columns.labels = None
        return
    if without:
        raise EnsembleError(
            f"{columns.source}: {counted(len(without), 'person has', 'people have')} no label in any row, e.g. "
            f"'{without[0]}'",
            hint="label one row of each person, or remove these people",
        )
    columns.labels = [found.labels[person] for person in columns.persons]
    columns.notes.append(
        f"{columns.source}: labels are those of {counted(len(found.labels), 'person', 'people')}, not of images"
        + (f"; {found.filled:,} images without a label of their own take that of their person" if found.filled else "")
        + "; scores are by person"
    )


@dataclass(frozen=True)
class _OfPeople:
    """What the rows of people say.

    Attributes
    ----------
    labels : person → label, "" if no row has one.
    filled : number of images that take a label (or one of several) from their person.
    lines : a line for each row that contradicts another one.
    """

    labels: dict[str, str]
    filled: int
    lines: list[str]


def _classes_of_people(columns: RawColumns, persons: Sequence[str], merge: bool) -> _OfPeople:
    labels, lines, filled = dict.fromkeys(persons, ""), [], 0
    for at, (person, label) in enumerate(zip(persons, columns.labels or (), strict=True)):
        if _is_missing(label):
            filled += 1
            continue
        known = labels[person] or label
        labels[person] = known
        if known != label and not (merge and spelling_key(known) == spelling_key(label)):
            lines.append(f"{columns.locations[at]}: '{label}', and '{known}' in another row of person '{person}'")
    return _OfPeople(labels, filled, lines)


def _cells_of_people(columns: RawColumns, persons: Sequence[str], merge: bool) -> _OfPeople:
    """Return several labels or numbers of people: each from the rows where it is known."""
    names, task, source = columns.names, columns.task, columns.source
    values = label_matrix(np.array(columns.labels, dtype=str), names, task)
    people, codes = factorize(persons)
    low, high = np.full((len(people), len(names)), np.inf), np.full((len(people), len(names)), -np.inf)
    known = ~np.isnan(values)
    np.minimum.at(low, codes, np.where(known, values, np.inf))
    np.maximum.at(high, codes, np.where(known, values, -np.inf))
    lines = []
    for person, column in np.argwhere(high > low).tolist():
        rows = np.flatnonzero((codes == person) & known[:, column])
        first = values[rows[0], column]
        at = next(row for row in rows.tolist() if values[row, column] != first)
        other = f"and {first:.15g} in another row of person '{people[person]}'"
        lines.append(f"{columns.locations[at]}: {names[column]} is {values[at, column]:.15g}, {other}")
    merged = np.where(high >= low, high, np.nan)
    before, after = cell_lines(values, names, task, source), cell_lines(merged[codes], names, task, source)
    columns.notes[:] = [line for line in columns.notes if line not in before[0]] + after[0]
    columns.warnings[:] = [line for line in columns.warnings if line not in before[1]] + after[1]
    filled = int((~known & ~np.isnan(merged[codes])).any(axis=1).sum())
    return _OfPeople(dict(zip(people, label_texts(merged, names, task).tolist(), strict=True)), filled, lines)


def _is_missing(label: str) -> bool:
    return label in MISSING or is_no_label(label)
