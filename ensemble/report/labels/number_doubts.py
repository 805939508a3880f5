"""Show the numbers of the table that out-of-fold predictions contradict most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ensemble.analysis.columns import Column, decimals_for
from ensemble.label_check.column_doubts import FENCE, NumberError, doubtful_numbers, usual_differences
from ensemble.report.evidence.evidence import Evidence, Part, Predicted
from ensemble.report.labels.column_doubts import doubts_section
from ensemble.report.mistakes.column_pictures import error_pictures, judged_columns
from ensemble.report.page.blocks import Block, Cells, Gallery, Section, Table, Text
from folds.utils.text import counted

MAX_CELLS, MAX_PICTURES = 60, 40


def labels_section(evidence: Evidence) -> Section:
    """Return the numbers whose difference from the out-of-fold predictions of the recommended member is unusual."""
    lead = "Which numbers of the table the out-of-fold predictions contradict most."
    return doubts_section(evidence, "number", lead, _blocks)


def _blocks(evidence: Evidence, part: Part, member: Predicted, columns: Sequence[Column]) -> Sequence[Block]:
    columns = [one for one in columns if len(one.labels)]
    found, known = doubtful_numbers(columns), sum(len(one.labels) for one in columns)
    lines = [
        f"{counted(len(found), 'number')} of {known:,} {'is' if len(found) == 1 else 'are'} in doubt by "
        f"`{member.name}`: the difference of prediction and table is unusual. A doubt is a reason to look, not proof.",
        *(_usual(one, len(columns) > 1) for one in columns[:MAX_CELLS]),
    ]
    if not found:
        return [Text(("No number is contradicted.", *lines[1:]))]
    rows = judged_columns(evidence, part, member)
    pictures = error_pictures(found[:MAX_PICTURES], rows, columns, evidence.thumbnail, part.persons_known)
    gallery = Gallery(
        "labels-doubts",
        "Numbers that predictions contradict most.",
        pictures,
        "The farthest from the usual differences first.",
    )
    return [Text(tuple(lines)), gallery, _list(part, found, columns)]


def _usual(column: Column, named: bool) -> str:
    """Return the interval of the usual differences of a number in a sentence."""
    low, high = usual_differences(column.errors)
    digits = _digits(column)
    start = f"{column.name}: usual" if named else "Usual"
    return (
        f"{start} differences (predicted minus true) are from {low:+,.{digits}f} to {high:+,.{digits}f}: the "
        f"quartiles, and {FENCE:g} times their distance beyond them."
    )


def _digits(column: Column) -> int:
    return decimals_for(float(np.abs(column.errors).mean()))


def _list(part: Part, found: Sequence[NumberError], columns: Sequence[Column]) -> Table:
    digits, several = {one.name: _digits(one) for one in columns}, len(columns) > 1
    rows: list[Cells] = []
    for one in found[:MAX_CELLS]:
        n = digits[one.number]
        rows.append(
            [
                str(part.ids[one.row]),
                *([str(part.persons[one.row])] if part.persons_known else []),
                *([one.number] if several else []),
                f"{one.true:,.{n}f}",
                f"{one.predicted:,.{n}f}",
                f"{one.error:+,.{n}f}",
            ]
        )
    header = ["image", *(["person"] if part.persons_known else []), *(["number"] if several else [])]
    more = f" The first {MAX_CELLS} of {len(found):,}." if len(found) > MAX_CELLS else ""
    return Table(
        "labels-list",
        "Numbers in doubt, the farthest from the usual differences first.",
        [*header, "in the table", "predicted", "difference"],
        rows,
        len(header),
        "Predicted: by a model that has not seen the person. Difference: predicted minus the number of the table."
        f"{more}",
    )
