"""Show the labels in doubt: by out-of-fold votes, person by person, with pictures and how sure the votes are."""

from __future__ import annotations

from collections.abc import Callable

from ensemble.analysis.mistakes import share_over_people
from ensemble.label_check.doubts import LabelDoubts, find_doubts
from ensemble.report.blocks import Block, Gallery, Missing, Picture, Section, Table, Text
from ensemble.report.evidence import Evidence
from ensemble.report.mistakes import member_lines
from ensemble.report.mistakes_data import labeled_rows
from folds.errors import EnsembleError
from folds.utils.text import counted

MAX_IMAGES, MAX_PEOPLE, MAX_PICTURES = 50, 25, 40
SURE = 0.9  # confidence from which a doubt counts as strong
_CI = "(95% CI over people)"


def labels_section(evidence: Evidence) -> Section:
    """Return the section about labels in doubt, by the out-of-fold predictions of the recommended member.

    Test labels are never doubted: a score on changed test labels measures the changes.
    """
    lead = "Which labels the out-of-fold votes contradict, and how to check and correct them."
    title = "Labels in doubt"
    part = evidence.oof
    if part is None or not part.members or not (part.labels >= 0).any():
        missing = Missing(
            "labels that out-of-fold votes contradict",
            "ensemble kfold … trains runs with out-of-fold predictions; test labels are never changed",
        )
        return Section("labels", title, lead, (missing,))
    main = evidence.main or part.members[0]
    rows = labeled_rows(evidence, part, main)
    try:
        found = find_doubts(rows, evidence.class_attributes)
    except EnsembleError as error:
        return Section("labels", title, lead, (Missing("labels that out-of-fold votes contradict", _text(error)),))
    blocks: list[Block] = [Text(tuple(_facts(found, main.name, part.persons_known)))]
    if len(found.order):
        blocks += [
            *_people(found, part.persons_known),
            *_attributes(found),
            _images(found),
            doubt_pictures(found, evidence.thumbnail),
            Text(
                (
                    "To correct labels: ensemble labels RUN -o labels.csv writes all doubts. Look at "
                    "each image, then fill "
                    "in new_label, or write drop or soften into decision. ensemble kfold --relabel labels.csv --drop "
                    "labels.csv --soften labels.csv uses what is filled in, for training only; "
                    "ensemble runs diff scores "
                    "the gain on people whose labels were not changed.",
                )
            ),
        ]
    return Section("labels", title, lead, tuple(blocks))


def _text(error: EnsembleError) -> str:
    return f"{error}: {error.hint}" if error.hint else str(error)


def _facts(found: LabelDoubts, name: str, known: bool) -> list[str]:
    rows, order = found.rows, found.order
    right = share_over_people(~rows.wrong, rows.persons)
    fed = (
        "All images of each person have one label, so each person counts once, with the mean vote of the images."
        if found.unit == "person"
        else "Labels differ between the images of a person, so each image is judged by its own vote."
        if known and len(rows.people[0]) < len(rows)
        else "Each image is judged by its own vote."
    )
    lines = [
        f"{counted(len(order), 'label')} of {counted(len(rows), 'image')} of "
        f"{counted(len(rows.people[0]), 'person', 'people')} {'is' if len(order) == 1 else 'are'} in doubt, by the "
        f"out-of-fold votes of {name} and confident learning (cleanlab). {fed}"
    ]
    if found.unjudged:
        lines.append(f"Not judged, because no model that votes has learned them: {_unjudged(found)}.")
    if len(order):
        sure = int((found.confidence[order] >= SURE).sum())
        lines.append(
            f"In {sure:,} of them the vote gives another class a probability of {SURE} or more. The votes agree with "
            f"{right.text()} {_CI} of all labels: where that is low, many doubts are mistakes of the "
            "models. A doubt is a "
            "reason to look, no proof."
        )
    return lines


def _unjudged(found: LabelDoubts) -> str:
    """Return ``labels of 2 classes of a single person (a, b)``."""
    names = found.unjudged
    listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"labels of {counted(len(names), 'class', 'classes')} of a single person ({listed})"


def _people(found: LabelDoubts, known: bool) -> list[Block]:
    if not known or len(found.rows.people[0]) == len(found.rows):
        return []
    people = found.people
    cells: list[list[str | int | float | None]] = [
        [one.person, one.doubtful, one.images, ", ".join(one.labels), ", ".join(one.suggested), f"{one.vote:.3f}"]
        for one in people[:MAX_PEOPLE]
    ]
    return [
        Table(
            "labels-people",
            "People with labels in doubt.",
            ("person", "in doubt", "images", "label", "suggested", "vote for label"),
            cells,
            1,
            "Vote for label: mean probability of the given labels that are in doubt; the smallest come first."
            + (f" {len(people) - MAX_PEOPLE:,} more people are in labels.csv." if len(people) > MAX_PEOPLE else ""),
        )
    ]


def _attributes(found: LabelDoubts) -> list[Block]:
    if not found.attributes:
        return []
    cells: list[list[str | int | float | None]] = [
        [
            one.attribute,
            one.person,
            one.images,
            one.given,
            one.suggested,
            f"{one.vote:.3f}",
            f"{one.suggested_vote:.3f}",
        ]
        for one in found.attributes[:MAX_PEOPLE]
    ]
    return [
        Table(
            "labels-attributes",
            "Attributes in doubt that all images of a person share.",
            ("attribute", "person", "images", "given", "suggested", "vote for given", "vote for suggested"),
            cells,
            2,
            "Each person counts once, with the mean vote of the images; a wrong value makes all "
            "labels of the person wrong.",
        )
    ]


def _images(found: LabelDoubts) -> Table:
    rows, order = found.rows, found.order
    cells: list[list[str | int | float | None]] = [
        [
            str(rows.ids[row]),
            str(rows.persons[row]),
            rows.classes[rows.labels[row]],
            rows.classes[found.suggested[row]],
            f"{found.confidence[row]:.3f}",
            f"{found.vote[row]:.3f}",
            f"{found.agreement[row]} of {len(rows.members)}",
        ]
        for row in order[:MAX_IMAGES].tolist()
    ]
    return Table(
        "labels-images",
        "Images with labels in doubt, the smallest vote for the label first.",
        ("image", "person", "label", "suggested", "confidence", "vote for label", "agreeing members"),
        cells,
        4,
        "Confidence: probability of the suggested class. Agreeing members: those that predict it."
        + (f" {len(order) - MAX_IMAGES:,} more are in labels.csv." if len(order) > MAX_IMAGES else ""),
    )


def doubt_pictures(found: LabelDoubts, thumbnail: Callable[[str], str], most: int = MAX_PICTURES) -> Gallery:
    """Return the images with labels in doubt."""
    rows = found.rows
    pictures = []
    for row in found.order[:most].tolist():
        label, suggested = rows.classes[rows.labels[row]], rows.classes[found.suggested[row]]
        identifier = str(rows.ids[row])
        lines = (
            f"label {label} (vote {found.vote[row]:.3f})",
            f"suggested {suggested} (vote {found.confidence[row]:.3f})",
            f"person {rows.persons[row]}",
            *member_lines(rows, row),
        )
        tags = {"label": label, "suggested": suggested, "person": str(rows.persons[row])}
        pictures.append(Picture(thumbnail(identifier), identifier, lines, tags))
    note = "" if len(found.order) <= most else f"The first {most} of {len(found.order):,}."
    return Gallery("labels-doubted", "Images with labels in doubt.", tuple(pictures), note)
