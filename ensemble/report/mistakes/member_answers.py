"""Show what each member said: who is right where others are wrong, agreement, and the worst mistakes as pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from ensemble.analysis.mistakes import Agreement, LabeledRows, member_mistakes
from ensemble.analysis.units import Unit
from ensemble.report.evidence.mistakes_data import change_text
from ensemble.report.mistakes.column_pictures import OfPerson
from ensemble.report.mistakes.confusion import GALLERY, PEOPLE_CI
from ensemble.report.page.blocks import Block, Gallery, Missing, Picture, Table, Text


def member_blocks(rows: LabeledRows, main: str, unit: Unit) -> list[Block]:
    """Return which member is right where others, or the judged predictions, are wrong."""
    if len(rows.members) < 2:
        return [
            Missing(
                "which member is right where others are wrong, and agreement as a sign of uncertainty",
                "`ensemble kfold --arch A,B` trains several models; `ensemble report A B` shows them together",
            )
        ]
    found, images = member_mistakes(rows)
    if not found:
        return []
    wrong = int(rows.wrong.sum())
    cells: list[list[str | int | float | None]] = [
        [
            one.name,
            one.accuracy.text(),
            one.alone_right,
            one.alone_wrong,
            one.rescues,
            None if one.rescued_share is None else one.rescued_share.text(),
        ]
        for one in sorted(found, key=lambda one: (-one.rescues, one.name))
    ]
    return [
        Table(
            "mistakes-members",
            f"Which member is right where others, or {main}, are wrong.",
            ("member", "accuracy", "alone right", "alone wrong", "right instead", "share of mistakes"),
            cells,
            1,
            f"On the {unit.counted(images)} that all members predict. Alone right, alone wrong: {unit.many} "
            "that only this member "
            f"predicts right or wrong. Right instead: {unit.many} that {main} predicts wrong and the "
            "member right, and their "
            f"share of the mistakes ({wrong:,}), with its {PEOPLE_CI}",
        )
    ]


def agreement_blocks(found: Agreement | None, main: str, unit: Unit) -> list[Block]:
    """Return the accuracy by the number of members that agree, and how well disagreement finds mistakes."""
    if found is None:
        return []
    cells: list[list[str | int | float | None]] = [
        [f"{one.agreeing} of {found.members}", *unit.cells(one.images, one.people), one.accuracy.text()]
        for one in found.levels
    ]
    lines = []
    if found.disagreement is not None and found.doubt is not None and found.difference is not None:
        lines.append(
            f"ROC-AUC for finding mistakes of {main}: {found.disagreement.text()} by the share of "
            "members that disagree, "
            f"{found.doubt.text()} by 1 − confidence of {main} (95% CI over people); difference "
            f"{found.difference.text()}. 0.5 is chance."
        )
    return [
        Table(
            "mistakes-agreement",
            f"Accuracy by the number of members that agree with {main}.",
            ("agreeing members", *unit.columns(), "accuracy"),
            cells,
            1,
            f"Accuracy of {main} with its {PEOPLE_CI}",
        ),
        *([Text(tuple(lines))] if lines else []),
    ]


def mistake_pictures(
    rows: LabeledRows,
    thumbnail: Callable[[str], str],
    most: int,
    values: Mapping[str, Sequence[str]] | None = None,
    of_person: OfPerson | None = None,
) -> list[Block]:
    """Return the worst mistakes as pictures; [] without a mistake.

    Parameters
    ----------
    values : of `class_values`, to say what differs.
    of_person : of rows that are people, (person, class) → what is known of the images; None if rows are images.
    """
    order = rows.worst()
    if not len(order):
        return []
    pictures = tuple(_picture(rows, thumbnail, row, values or {}, of_person) for row in order[:most].tolist())
    note = "Sorted by the probability of the wrong class. A mistake of high confidence may be a wrong label."
    if len(order) > most:
        note += f" {len(order) - most:,} more mistakes are not shown"
        # That command is about images: of blends for people it lists nothing.
        note += "." if of_person is not None else "; ensemble mistakes RUN -o mistakes.csv lists all of them."
    title, wide = "The worst mistakes: the highest confidence in a wrong class.", of_person is not None
    return [Gallery(GALLERY, title, pictures, note, wide=wide)]


def _picture(
    rows: LabeledRows,
    thumbnail: Callable[[str], str],
    row: int,
    values: Mapping[str, Sequence[str]],
    of_person: OfPerson | None,
) -> Picture:
    classes, predicted, label = rows.classes, int(rows.predicted[row]), int(rows.labels[row])
    identifier, person = str(rows.ids[row]), str(rows.persons[row])
    differs = change_text(values, label, predicted)
    lines = [
        *([differs] if differs else []),
        f"true {classes[label]} (probability {rows.probabilities[row, label]:.3f})",
        f"predicted {classes[predicted]} (probability {rows.probabilities[row, predicted]:.3f})",
        *([] if person in identifier else [f"person {person}"]),
        *member_lines(rows, row),
        *(() if of_person is None else of_person(identifier, predicted)),
    ]
    tags = {"true": classes[label], "predicted": classes[predicted]} | ({} if of_person else {"person": person})
    if len(rows.members) > 1:
        tags["agreement"] = f"{rows.agreement[row]} of {len(rows.members)}"
    return Picture(thumbnail(identifier), identifier, tuple(lines), tags)


def member_lines(rows: LabeledRows, row: int) -> list[str]:
    """Return what each member said about an image, one line each; [] with a single member."""
    if len(rows.members) < 2:
        return []
    lines = []
    for name, answers in rows.answers.items():
        value = -1 if answers[row] < 0 else float(rows.members[name][row, answers[row]])
        text = "no prediction" if answers[row] < 0 or math.isnan(value) else f"{rows.classes[answers[row]]} {value:.3f}"
        lines.append(f"{name}: {text}")
    return lines
