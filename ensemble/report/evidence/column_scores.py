"""Take each label of several, and each number, from the evidence, on the rows where it is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ensemble.analysis.columns import Column
from ensemble.report.evidence.evidence import Evidence, Part, Predicted
from ensemble.report.evidence.mistakes_data import column_values, places_in_table
from ensemble.report.evidence.scoring import main_part, scored_part
from folds.utils.numeric import factorize


def columns_of(evidence: Evidence, part: Part, member: Predicted) -> list[Column]:
    """Return each column of the predictions, on the rows where it is known; the same ones to every section."""
    key = "columns", part.name, member.name
    kept = evidence.memory.get(key)
    if kept is None or kept[0] is not part or kept[1] is not member:
        kept = evidence.memory[key] = part, member, _columns_of(evidence, part, member)
    columns: list[Column] = kept[2]
    return columns


def _columns_of(evidence: Evidence, part: Part, member: Predicted) -> list[Column]:
    found = scored_part(part, [member], evidence.per_person, evidence.task)
    if found is None:
        return []
    values, rows = np.asarray(found.values[0], np.float64), found.rows
    rows = rows if len(rows) else np.arange(len(found.labels))  # each person's images were averaged
    made = []
    for at, name in enumerate(evidence.classes):
        known = np.isfinite(found.labels[:, at])
        persons = factorize(found.persons[known])[1] if known.any() else np.zeros(0, np.int64)
        labels = np.asarray(found.labels[known, at], np.float64)
        made.append(Column(name, rows[known], labels, values[known, at], persons, len(known), evidence.unit_of(part)))
    return made


def groups_of(evidence: Evidence, part: Part) -> dict[str, tuple[NDArray[np.int64], list[str]]]:
    """Return column of the table → (n,) index of the value of each row of the part, −1 if unknown, and the values."""
    if evidence.row_table is None or evidence.averages(part):
        return {}
    at = places_in_table(evidence.row_table, part.ids)
    found = column_values(evidence.row_table, at, evidence.class_attributes)
    return {name: one for name, one in found.items() if name not in evidence.classes}


def suggested_columns(evidence: Evidence) -> tuple[Part, Predicted, list[Column]] | None:
    """Return the labeled part, the suggested predictions, and their columns; None without them."""
    part = main_part(evidence)
    member = None if part is None or evidence.recommended is None else part.member(evidence.recommended)
    if part is None or member is None:
        return None
    return part, member, columns_of(evidence, part, member)
