"""Show the labels in doubt: by out-of-fold votes, person by person, with pictures and how sure the votes are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ensemble.analysis.mistakes import share_over_people
from ensemble.label_check.doubts import LabelDoubts
from ensemble.report.evidence.evidence import Evidence
from ensemble.report.evidence.scoring import labeled
from ensemble.report.labels.doubtful_people import SURE, DoubtfulPerson, doubtful_people, doubts_of, suggestion_text
from ensemble.report.mistakes.member_answers import member_lines
from ensemble.report.page.blocks import Block, Gallery, Missing, Picture, Section, Table, Text
from folds.errors import EnsembleError
from folds.utils.text import counted

MAX_IMAGES, MAX_PEOPLE, MAX_PICTURES = 50, 25, 40
GAP = 0.02  # accuracy minus mean confidence that is not reported
_CI = "(95% CI over people)"
_ALL = "`ensemble labels RUN -o labels.csv` writes all of them."


def labels_section(evidence: Evidence) -> Section:
    """Return the section about labels in doubt, by the out-of-fold predictions of the recommended member.

    Test labels are never doubted: a score on changed test labels measures the changes.
    """
    lead = "Which labels the out-of-fold votes contradict, and how to check and correct them."
    title = "Labels in doubt"
    part = labeled(evidence.oof)
    if part is None:
        missing = Missing(
            "labels that out-of-fold votes contradict",
            "`ensemble kfold …` trains runs with out-of-fold predictions; test labels are never changed",
        )
        return Section("labels", title, lead, (missing,))
    try:
        found = doubts_of(evidence)
    except EnsembleError as error:
        return Section("labels", title, lead, (Missing("labels that out-of-fold votes contradict", _text(error)),))
    if found is None:
        return Section("labels", title, lead, ())
    name, meaning = (evidence.main or part.members[0]).name, evidence.class_attributes
    people = doubtful_people(found, meaning)
    by_person = part.persons_known and len(found.rows.people[0]) < len(found.rows)
    blocks: list[Block] = [Text(tuple(_facts(found, name, part.persons_known, people, by_person)))]
    if people:
        if by_person:
            order = [row for one in people for row in one.rows]
            blocks += [_people(found, people), _pictures(found, evidence.thumbnail, people)]
        else:
            order = found.order.tolist()
            blocks.append(doubt_pictures(found, evidence.thumbnail))
        blocks += [
            _images(found, order, meaning, by_person),
            Text(
                (
                    "To correct labels:",
                    "1. `ensemble labels RUN -o labels.csv` writes all doubts.",
                    "2. Look at each image, then fill in `new_label`, or write `drop` or `soften` into `decision`.",
                    "3. `ensemble kfold --relabel labels.csv --drop labels.csv --soften labels.csv` uses what is "
                    "filled in, for training only. `ensemble runs diff` scores the gain on people whose labels were "
                    "not changed.",
                )
            ),
        ]
    return Section("labels", title, lead, tuple(blocks))


def _text(error: EnsembleError) -> str:
    hint = error.hint or ""
    return f"{error}: `{hint}`" if hint.startswith("pip ") else f"{error}: {hint}" if hint else str(error)


def _facts(found: LabelDoubts, name: str, known: bool, people: Sequence[DoubtfulPerson], by_person: bool) -> list[str]:
    rows, order = found.rows, found.order
    fed = (
        "All images of each person have one label, so each person counts once, with the mean vote of the images."
        if found.unit == "person"
        else "Labels differ between the images of a person, so each image is judged by its own vote."
        if known and len(rows.people[0]) < len(rows)
        else "Each image is judged by its own vote."
    )
    if found.attributes:
        named = " and ".join(dict.fromkeys(one.attribute for one in found.attributes))
        fed += (
            f" All images of a person share {named}: there each person counts once, with the mean vote of the images."
        )
    lines = [
        f"{counted(len(order), 'label')} of {counted(len(rows), 'image')} of "
        f"{counted(len(rows.people[0]), 'person', 'people')} {'is' if len(order) == 1 else 'are'} in doubt, by the "
        f"out-of-fold votes of {name} and confident learning (cleanlab). {fed}"
    ]
    whole = [one for one in people if one.whole]
    if by_person and people:
        who = f"{counted(len(whole), 'person is', 'people are')} contradicted in all images"
        lines.append(
            f"{who}: look at {', '.join(one.person for one in whole[:3])} first."
            if whole
            else "No person is contradicted in all images."
        )
    if found.unjudged:
        lines.append(f"Not judged, because no model that votes has learned them: {_unjudged(found)}.")
    if len(order):
        right = share_over_people(~rows.wrong, rows.persons)
        lines.append(
            f"{_strength(found)} The votes agree with {right.text()} {_CI} of all labels: where that is low, many "
            "doubts are mistakes of the models. A doubt is a reason to look, not proof."
        )
    return lines


def _strength(found: LabelDoubts) -> str:
    """Return how sure the votes are of what they suggest, and why their probabilities may be low."""
    confidence = found.confidence[found.order]
    sure = int((confidence >= SURE).sum())
    if sure:
        text = f"In {sure:,} of them the vote gives another class a probability of {SURE} or more."
    else:
        text = f"The largest probability that the vote gives to another class is {confidence.max():.3f}"
        split = f"split over {len(found.rows.classes)} classes" if len(found.rows.classes) > 2 else ""
        mean, right = float(found.rows.confidence.mean()), float((~found.rows.wrong).mean())
        unsure = "underconfident (section Calibration)" if mean < right - GAP else ""
        why = " and ".join(filter(None, (split, unsure)))
        text += f"; it is {why}, so that a small probability does not make a doubt weak." if why else "."
    if found.attributes:
        largest = max(one.suggested_vote for one in found.attributes)
        text += f" The largest for another value of an attribute is {largest:.3f}."
    return text


def _unjudged(found: LabelDoubts) -> str:
    """Return ``labels of 2 classes of a single person (a, b)``."""
    names = found.unjudged
    listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"labels of {counted(len(names), 'class', 'classes')} of a single person ({listed})"


def _people(found: LabelDoubts, people: Sequence[DoubtfulPerson]) -> Table:
    cells: list[list[str | int | float | None]] = [
        [
            one.person,
            one.change,
            f"{one.doubtful} of {one.images}",
            f"{one.vote:.3f}",
            f"{one.suggested_vote:.3f}",
            f"{one.agreeing} of {len(found.rows.members)}",
        ]
        for one in people[:MAX_PEOPLE]
    ]
    more = len(people) - MAX_PEOPLE
    return Table(
        "labels-people",
        "People with labels in doubt.",
        ("person", "given → suggested", "images in doubt", "vote for label", "vote for suggested", "agreeing members"),
        cells,
        2,
        "A person is in this list if cleanlab doubts a label of theirs, or a value that all their images share. First "
        "come people of whom such a shared label or value is contradicted, then those with doubts about single images; "
        "in both, those with the smallest vote for their labels come first. Vote for label: mean probability of the "
        "given labels in doubt. Vote for suggested: that of the first suggested value if all images share it, else of "
        "the suggested classes. Agreeing members: those that suggest the same in at "
        "least half of the images in doubt." + (f" {more:,} more people are not shown: {_ALL}" if more > 0 else ""),
    )


def _images(
    found: LabelDoubts, order: Sequence[int], meaning: Mapping[str, Mapping[str, str]], by_person: bool
) -> Table:
    rows = found.rows
    cells: list[list[str | int | float | None]] = [
        [
            str(rows.ids[row]),
            str(rows.persons[row]),
            suggestion_text(rows.classes[rows.labels[row]], rows.classes[found.suggested[row]], meaning),
            f"{found.confidence[row]:.3f}",
            f"{found.vote[row]:.3f}",
            f"{found.agreement[row]} of {len(rows.members)}",
        ]
        for row in order[:MAX_IMAGES]
    ]
    more = len(order) - MAX_IMAGES
    return Table(
        "labels-images",
        "Images with labels in doubt, "
        + ("in the order of the people." if by_person else "the smallest vote for the label first."),
        ("image", "person", "given → suggested", "confidence", "vote for label", "agreeing members"),
        cells,
        3,
        "Confidence: probability of the suggested class. Agreeing members: those that predict it."
        + (f" {more:,} more are not shown: {_ALL}" if more > 0 else ""),
    )


def _pictures(found: LabelDoubts, thumbnail: Callable[[str], str], people: Sequence[DoubtfulPerson]) -> Gallery:
    """Return one picture of each person of the list, in its order."""
    rows, pictures = found.rows, []
    for one in people[:MAX_PICTURES]:
        row = one.rows[0]
        lines = (
            one.change,
            f"{one.doubtful} of {counted(one.images, 'image')} in doubt, {one.agreeing} of "
            f"{counted(len(rows.members), 'member')} agree",
            f"person {one.person}",
            *member_lines(rows, row),
        )
        tags = {"person": one.person, "given → suggested": one.changes[0]}
        pictures.append(Picture(thumbnail(str(rows.ids[row])), str(rows.ids[row]), lines, tags))
    more = "" if len(people) <= MAX_PICTURES else f" The first {MAX_PICTURES} of {len(people):,} people."
    note = f"The image with the smallest vote for its label, of each person, in the order of the list.{more}"
    return Gallery("labels-doubted", "People with labels in doubt, one image each.", tuple(pictures), note)


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
