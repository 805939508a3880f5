"""Show the labels of several that out-of-fold predictions contradict most."""

from __future__ import annotations

from collections.abc import Sequence

from ensemble.analysis.columns import Column
from ensemble.label_check.column_doubts import Answer, find_doubts, is_recognized
from ensemble.report.evidence.evidence import Evidence, Part, Predicted
from ensemble.report.labels.column_doubts import doubts_section
from ensemble.report.mistakes.column_pictures import PER_PERSON, answer_pictures, few_of_each, judged_columns
from ensemble.report.page.blocks import Block, Cells, Gallery, Section, Table, Text
from folds.utils.text import counted

MAX_CELLS, MAX_PICTURES = 60, 40


def labels_section(evidence: Evidence) -> Section:
    """Return the labels that the out-of-fold predictions of the recommended member contradict most."""
    lead = "Which labels the out-of-fold predictions contradict most."
    return doubts_section(evidence, "label", lead, _blocks)


def _blocks(evidence: Evidence, part: Part, member: Predicted, columns: Sequence[Column]) -> Sequence[Block]:
    found, cells = find_doubts(columns), sum(len(one.labels) for one in columns if is_recognized(one))
    unlisted = sum(one.given == 0 for one in found)
    lines = [
        f"{counted(len(found), 'label')} of {cells:,} that are judged {'is' if len(found) == 1 else 'are'} in doubt "
        f"by `{member.name}`: {unlisted:,} that may be missing (not given, predicted), {len(found) - unlisted:,} "
        "that may be wrong (given, not predicted). A doubt is a reason to look, not proof: where a label is weak, most "
        "doubts are mistakes of the model.",
    ]
    left = [one.name for one in columns if len(one.labels) and not is_recognized(one)]
    if left:
        lines.append(f"Not judged, because too rare or not recognized better than by chance: {', '.join(left[:12])}.")
    if not found:
        return [Text(("No label is contradicted.", *lines[1:]))]
    shown = few_of_each(found, part.persons)
    return [Text(tuple(lines)), _pictures(evidence, part, member, shown), _list(part, shown)]


def _pictures(evidence: Evidence, part: Part, member: Predicted, found: Sequence[Answer]) -> Gallery:
    rows = judged_columns(evidence, part, member)
    pictures = answer_pictures(found[:MAX_PICTURES], rows, evidence.thumbnail, part.persons_known)
    note = f"The least probable answers first, at most {PER_PERSON} images of a person and label."
    return Gallery("labels-doubts", "Labels that predictions contradict most.", pictures, note)


def _list(part: Part, found: Sequence[Answer]) -> Table:
    rows: list[Cells] = [
        [
            str(part.ids[one.row]),
            *([str(part.persons[one.row])] if part.persons_known else []),
            one.label,
            "yes" if one.given else "no",
            f"{one.probability:.3f}",
            f"{one.of_given:.3f}",
        ]
        for one in found[:MAX_CELLS]
    ]
    more = f" The first {MAX_CELLS} of {len(found):,}." if len(found) > MAX_CELLS else ""
    header = [
        "image",
        *(["person"] if part.persons_known else []),
        "label",
        "in the table",
        "probability",
        "of the answer",
    ]
    return Table(
        "labels-list",
        "Labels in doubt, the least probable answer first.",
        header,
        rows,
        len(header) - 2,
        "Probability: that the image has the label, by a model that has not seen the person. Of the answer: the "
        "probability of what the table says. An answer is in doubt if the other one is as probable as it is, on "
        f"average, where it is given.{more}",
    )
