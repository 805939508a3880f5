"""Show labels of several, and numbers, that predictions contradict, as pictures with what each model predicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ensemble.analysis.columns import Column, decimals_for
from ensemble.analysis.labeled_columns import LabeledColumns
from ensemble.label_check.column_doubts import Answer, NumberError
from ensemble.report.evidence.evidence import Evidence, Part, Predicted
from ensemble.report.page.blocks import Picture

OfPerson = Callable[[str, int], Sequence[str]]

MAX_MEMBERS = 5  # of a picture
PER_PERSON = 2  # images of a person and a label, which often show the same


def judged_columns(evidence: Evidence, part: Part, member: Predicted) -> LabeledColumns:
    """Return the rows of a part with the predictions of a member, and of the others that are no blends."""
    others = {one.name: one.probabilities for one in part.members if one.kind != "blend" and one is not member}
    return LabeledColumns(
        part.ids, part.persons, part.labels, evidence.classes, evidence.task, member.probabilities, others
    )


def few_of_each(found: Sequence[Answer], persons: NDArray[np.str_]) -> list[Answer]:
    """Return the first doubts, with a few images of a person and label, which often show the same."""
    seen: dict[tuple[str, str], int] = {}
    kept = []
    for one in found:
        key = str(persons[one.row]), one.label
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= PER_PERSON:
            kept.append(one)
    return kept


def answer_pictures(
    found: Sequence[Answer],
    rows: LabeledColumns,
    thumbnail: Callable[[str], str],
    persons_known: bool,
    of_person: OfPerson | None = None,
) -> tuple[Picture, ...]:
    """Return a picture for each label: what the table says, the probability, and that of each of several members.

    Parameters
    ----------
    of_person : as in `error_pictures`.
    """
    pictures = []
    for one in found:
        sample, person = str(rows.ids[one.row]), str(rows.persons[one.row])
        lines = [
            f"table: {_answer(one.given, one.label)}",
            f"predicted: {one.label} with probability {one.probability:.3f}",
            *([] if person in sample or not persons_known else [f"person {person}"]),
            *_said(rows, one.row, one.label, 3),
            *(() if of_person is None else of_person(sample, rows.names.index(one.label))),
        ]
        tags = {"label": one.label, "doubt": "may be wrong" if one.given else "may be missing"}
        tags |= {"person": person} if persons_known and of_person is None else {}
        pictures.append(Picture(thumbnail(sample), sample, tuple(lines), tags))
    return tuple(pictures)


def error_pictures(
    found: Sequence[NumberError],
    rows: LabeledColumns,
    columns: Sequence[Column],
    thumbnail: Callable[[str], str],
    persons_known: bool,
    of_person: OfPerson | None = None,
) -> tuple[Picture, ...]:
    """Return a picture for each number: the true one, the predicted one, and what each of several members predicts.

    Parameters
    ----------
    columns : the numbers that are known, whose errors say with how many decimals they are written.
    of_person : of rows that are people, (person, column) → what is known of the images; None if rows are images.
    """
    pictures, digits = [], {one.name: decimals_for(float(np.abs(one.errors).mean())) for one in columns}
    for one in found:
        sample, person, n = str(rows.ids[one.row]), str(rows.persons[one.row]), digits[one.number]
        start = f"{one.number}: " if len(digits) > 1 else ""
        lines = [
            f"{start}true {one.true:,.{n}f}, predicted {one.predicted:,.{n}f}",
            f"error {one.error:+,.{n}f}",
            *([] if person in sample or not persons_known else [f"person {person}"]),
            *_said(rows, one.row, one.number, n),
            *(() if of_person is None else of_person(sample, rows.names.index(one.number))),
        ]
        tags = {"direction": "too high" if one.error > 0 else "too low"}
        tags |= {"number": one.number} if len(digits) > 1 else {}
        tags |= {"person": person} if persons_known and of_person is None else {}
        pictures.append(Picture(thumbnail(sample), sample, tuple(lines), tags))
    return tuple(pictures)


def _answer(given: int, label: str) -> str:
    return f"has {label}" if given else f"no {label}"


def _said(rows: LabeledColumns, row: int, name: str, digits: int) -> list[str]:
    """Return what members predict for an image, one line each; [] with fewer than two."""
    if len(rows.members) < 2:
        return []
    found, column = [], rows.names.index(name)
    for member, values in list(rows.members.items())[:MAX_MEMBERS]:
        value = float(values[row, column])
        found.append(f"{member}: {'no prediction' if math.isnan(value) else f'{value:,.{digits}f}'}")
    return found
