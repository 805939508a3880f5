"""Show what is predicted wrong, for whom, under which conditions, and what each member said."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ensemble.analysis.mistakes import (
    Agreement,
    Confusion,
    GroupAccuracy,
    LabeledRows,
    agreement_of,
    confusion_of,
    group_accuracies,
    member_mistakes,
    people_mistakes,
    quantile_groups,
)
from ensemble.report.blocks import Block, Gallery, Matrix, Missing, Picture, Section, Table, Text
from ensemble.report.evidence import Evidence, TableRecord
from ensemble.report.mistakes_data import (
    change_text,
    class_values,
    column_values,
    image_properties,
    labeled_rows,
    places_in_table,
    with_titles,
)
from ensemble.report.scoring import changed_note, main_predictions
from folds.metrics.classification import METRICS, Metric
from folds.metrics.confusion import argmax_classes
from folds.metrics.intervals import interval_over_people
from folds.metrics.per_class import attribute_scores, class_scores
from folds.metrics.task_names import ORDINAL
from folds.utils.text import counted, natural_order

MAX_CLASSES = 30  # of the confusion matrix
COMPACT = 7  # classes; in a matrix of more, the cells have no room for shares
MANY, FEW = 0.5, 0.2  # of the share of the attribute that is wrong most often: confused as well, hardly ever
MAX_PAIRS, MAX_PEOPLE, MAX_PICTURES = 15, 25, 60
GALLERY = "mistakes-worst"
_PEOPLE_CI = "95% CI over people (jackknife)."
_FAR = Metric(
    "off_by_more_than_one",
    "off by more than one grade",
    greater_is_better=False,
    per_row=lambda labels, values: (np.abs(argmax_classes(values) - labels) > 1).astype(np.float64),
)
# Property → the words for its lowest and its highest quarter, and the form of its values.
_WORDS = {"brightness": ("dark", "bright", "{:.0f}"), "sharpness": ("blurred", "sharp", "{:.1f}")}
_WORDS["size"] = ("small", "large", "{:.2f} MP")


def mistakes_section(evidence: Evidence, pictures: int = MAX_PICTURES) -> Section:
    """Return the section about mistakes: of the recommended member, out of fold if there are such predictions.

    Parameters
    ----------
    pictures : the number of mistakes that are shown as pictures, those with the highest confidence.
    """
    lead = "What is predicted wrong, for whom, and what the members said."
    found = main_predictions(evidence)
    if found is None:
        missing = Missing(
            "the mistakes: true and predicted classes, people, and the worst mistakes as pictures",
            "`ensemble kfold` trains runs with out-of-fold predictions; predictions of other programs need the labels: "
            "a column `label`, or `ensemble blend … --labels FILE.csv`",
        )
        return Section("mistakes", "Mistakes", lead, (missing,))
    part, main = found
    rows = with_titles(labeled_rows(evidence, part, main, scored=True), evidence)
    values = class_values(evidence)
    kind = "out-of-fold predictions" if part.name == "oof" else "test predictions"
    wrong, people = int(rows.wrong.sum()), len(rows.people[0])
    facts = (
        f"{wrong:,} of {counted(len(rows), 'image')} of {counted(people, 'person', 'people')} are predicted wrong by "
        f"{main.name} ({kind})."
    )
    if note := changed_note(part, main):
        facts += f" They are {note}."
    if evidence.unit_of(part).is_person:
        facts += " Here each image is judged by itself, while the scores of the page are by person."
    if not part.persons_known:
        facts += " People are unknown, so each image counts as one: intervals are too narrow if people have several."
    if evidence.task == ORDINAL:
        facts += f" {grades_line(rows)}"
    at = None if evidence.table is None else places_in_table(evidence.table, rows.ids)
    blocks: list[Block] = [
        Text((answer(rows, values), facts)),
        *_confusion(rows, values, evidence.classes),
        *_classes(rows, evidence),
        *people_blocks(rows, part.persons_known),
        *_columns(rows, evidence, at),
        *_properties(rows, evidence.table, at),
        *_members(rows, main.name),
        *_agreement(agreement_of(rows), main.name),
        *mistake_pictures(rows, evidence.thumbnail, pictures, values),
    ]
    return Section("mistakes", "Mistakes", lead, tuple(blocks))


def grades_line(rows: LabeledRows) -> str:
    """Return by how many grades the predictions are off, and the share that is off by more than one."""
    error, far = (
        interval_over_people(metric, rows.labels, rows.probabilities, rows.persons)
        for metric in (METRICS["grade_mae"], _FAR)
    )
    return (
        f"The classes are grades, in the order {', '.join(rows.classes)}: the mean error is {error.text()} grades, and "
        f"{far.text()} of the images are off by more than one grade, each with its {_PEOPLE_CI}"
    )


def answer(rows: LabeledRows, values: Mapping[str, Sequence[str]]) -> str:
    """Return in one or two sentences what is confused.

    Parameters
    ----------
    values : of `class_values`.
    """
    wrong = np.flatnonzero(rows.wrong)
    if not len(wrong):
        return "No image is predicted wrong."
    pairs, counts = np.unique(np.stack([rows.labels[wrong], rows.predicted[wrong]]), axis=1, return_counts=True)
    first = int(np.argmax(counts))
    true, predicted = (int(one) for one in pairs[:, first])
    most = (
        f"The most frequent confusion is {rows.classes[true]} → {rows.classes[predicted]}: "
        f"{counted(int(counts[first]), 'image')} of {len(wrong):,}."
    )
    shares = {
        name: float(np.mean(np.array(of)[rows.labels[wrong]] != np.array(of)[rows.predicted[wrong]]))
        for name, of in values.items()
        if len(set(of)) > 1
    }
    if len(shares) < 2:
        return most
    ordered = sorted(shares, key=lambda name: -shares[name])
    most_wrong = shares[ordered[0]]
    confused = [name for name in ordered if shares[name] >= MANY * most_wrong]
    spared = [name for name in ordered if shares[name] <= FEW * most_wrong]
    named = _listed(confused)
    line = f"{named[0].upper()}{named[1:]} {'is' if len(confused) == 1 else 'are'} confused"
    line += f", {_listed(spared)} hardly ever" if spared else ""
    by_name = ", ".join(f"{name} in {shares[name]:.0%}" for name in ordered)
    return f"{line}. Wrong in the {counted(len(wrong), 'mistake')}: {by_name}; several may be wrong in one. {most}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _confusion(rows: LabeledRows, values: Mapping[str, Sequence[str]], heads: Sequence[str]) -> list[Block]:
    confusion = confusion_of(rows)
    return [
        *_attribute_matrices(rows, values),
        confusion_block(rows, confusion, heads=heads),
        *_pairs(rows, confusion, values),
    ]


def _attribute_matrices(rows: LabeledRows, values: Mapping[str, Sequence[str]]) -> list[Block]:
    """Return a confusion matrix of each attribute that the classes are made of, if there are several."""
    found: list[Block] = []
    for number, (name, of) in enumerate(values.items(), start=1):
        distinct = natural_order(of)
        if not 1 < len(distinct) <= COMPACT or len(distinct) == len(of):
            continue
        column = np.array([distinct.index(value) for value in of])
        pooled = np.asarray(rows.probabilities, np.float64) @ np.eye(len(distinct))[column]
        by_value = replace(rows, labels=column[rows.labels], classes=tuple(distinct), probabilities=pooled, members={})
        block = confusion_block(by_value, confusion_of(by_value))
        note = f"By the sum of the probabilities of the classes with each value. {block.note}"
        found.append(
            replace(block, name=f"mistakes-confusion-{number}", caption=f"Confusion of {name}.", opens="", note=note)
        )
    return found


def confusion_block(
    rows: LabeledRows, confusion: Confusion, most: int = MAX_CLASSES, heads: Sequence[str] = ()
) -> Matrix:
    """Return the confusion matrix of the `most` classes with the most mistakes.

    Parameters
    ----------
    heads : (classes,) short names for the columns of a matrix of many classes.
    """
    shown = list(range(len(rows.classes)))
    compact = len(shown) > COMPACT
    note = f"Rows are true classes. The share is that of the row, with its {_PEOPLE_CI}"
    if compact:
        note = (
            "Rows are true classes, columns predicted ones. A cell is a number of images; the share of the row, with "
            "its 95% CI over people (jackknife), is shown when the pointer rests on it."
        )
    if len(shown) > most:
        wrong = confusion.counts.sum(axis=1) - np.diag(confusion.counts)
        missed = confusion.counts.sum(axis=0) - np.diag(confusion.counts)
        shown = sorted(np.argsort(-(wrong + missed), kind="stable")[:most].tolist())
        note += f" Only the {most} classes with the most mistakes of {len(rows.classes)} are shown."
    return Matrix(
        "mistakes-confusion",
        "Confusion matrix: images of each true class by predicted class.",
        tuple(rows.classes[one] for one in shown),
        tuple(tuple(int(confusion.counts[one, other]) for other in shown) for one in shown),
        tuple(tuple(confusion.text(one, other) for other in shown) for one in shown),
        GALLERY if rows.wrong.any() else "",
        note,
        compact,
        tuple(heads[one] for one in shown) if compact and heads else (),
    )


def _pairs(rows: LabeledRows, confusion: Confusion, values: Mapping[str, Sequence[str]]) -> list[Block]:
    pairs = confusion.pairs()
    if not pairs:
        return []
    cells: list[list[str | int | float | None]] = []
    for true, predicted in pairs[:MAX_PAIRS]:
        mine = (rows.labels == true) & (rows.predicted == predicted)
        people = len(np.unique(rows.persons[mine]))
        cells.append(
            [
                rows.classes[true],
                rows.classes[predicted],
                *([change_text(values, true, predicted)] if values else []),
                int(mine.sum()),
                people,
                confusion.text(true, predicted),
            ]
        )
    differs = ("what differs",) if values else ()
    return [
        Table(
            "mistakes-pairs",
            "The most frequent confusions.",
            ("true class", "predicted class", *differs, "images", "people", "share of class"),
            cells,
            2 + len(differs),
            f"Share of the images of the true class, with its {_PEOPLE_CI}"
            + (f" {len(pairs) - MAX_PAIRS} more kinds of confusion are rarer." if len(pairs) > MAX_PAIRS else ""),
        )
    ]


def _classes(rows: LabeledRows, evidence: Evidence) -> list[Block]:
    scores = class_scores(rows.labels, rows.probabilities, rows.persons, rows.classes)
    header = ("images", "people", "F1", "precision", "recall", "ROC-AUC")
    note = f"F1 with its {_PEOPLE_CI} A class of one person has no interval."

    def cells(found: Sequence) -> list[list[str | int | None]]:
        return [
            [
                one.name,
                one.rows,
                one.people,
                one.f1.text(),
                f"{one.precision:.3f}",
                f"{one.recall:.3f}",
                None if one.roc_auc is None else f"{one.roc_auc:.3f}",
            ]
            for one in found
        ]

    blocks: list[Block] = [
        Table("mistakes-classes", "Scores of each class.", ("class", *header), cells(scores), 1, note)
    ]
    attributes = attribute_scores(
        rows.labels, rows.probabilities, rows.persons, evidence.classes, evidence.class_attributes
    )
    if attributes:
        order = natural_order(value.name for one in attributes for value in one.values)
        table = [
            [one.name, *line]
            for one in attributes
            for line in sorted(cells(one.values), key=lambda line: order.index(str(line[0])))
        ]
        blocks.append(
            Table(
                "mistakes-attributes",
                "Scores of each value of the attributes that make up the classes.",
                ("attribute", "value", *header),
                table,
                2,
                f"The probability of a value is the sum over its classes. {note} Accuracy: "
                + "; ".join(f"{one.name} {one.accuracy.text()}" for one in attributes)
                + ".",
            )
        )
    return blocks


def people_blocks(rows: LabeledRows, known: bool, most: int = MAX_PEOPLE) -> list[Block]:
    """Return the people with the most wrong images, and whether there are more than chance explains."""
    if not known:
        return [
            Missing(
                "mistakes by person",
                "a column `person` in the table or `--labels FILE.csv` with id, label, person, says who is in an image",
            )
        ]
    found = people_mistakes(rows, most)
    if not found.worst:
        return []
    clustered = [one.person for one in found.worst if one.clustered]
    by_chance = found.always_by_chance
    expected = "fewer than one" if by_chance < 1 else f"at most {by_chance:.0f}"
    lines = [
        f"{counted(found.always, 'person', 'people')} of {found.people:,} with two images or more "
        f"{'is' if found.always == 1 else 'are'} wrong in every image; {expected} would be expected if mistakes were "
        "independent of the person."
    ]
    lines.append(
        "More mistakes than chance explains, corrected for the number of people: "
        + (
            ", ".join(clustered[:10]) + (f" and {len(clustered) - 10} more" if len(clustered) > 10 else "") + "."
            if clustered
            else "none of those with the most mistakes."
        )
    )
    cells: list[list[str | int | float | None]] = [
        [
            one.person,
            one.wrong,
            one.images,
            f"{one.wrong / one.images:.3f} [{one.low:.3f}, {one.high:.3f}]",
            f"{one.expected:.1f}",
            _p_text(one.p_value),
            "yes" if one.clustered else "no",
        ]
        for one in found.worst
    ]
    return [
        Text(tuple(lines)),
        Table(
            "mistakes-people",
            "People with the most wrong images.",
            ("person", "wrong", "images", "wrong share", "by chance", "p-value", "above chance"),
            cells,
            1,
            "Wrong share with its exact 95% CI over the person's images (Clopper–Pearson). By "
            "chance: wrong images that "
            "other people's rate in the same classes would give. The p-value is that of this number or more "
            f"(binomial); above chance is corrected for {found.people:,} people (Bonferroni): the p-value must be at "
            f"most {0.05 / max(found.people, 1):.1g}.",
        ),
    ]


def _p_text(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def _columns(rows: LabeledRows, evidence: Evidence, at: NDArray[np.int64] | None) -> list[Block]:
    """Return the accuracy by the values of the columns of the table."""
    if evidence.table is None or at is None:
        return []
    columns = column_values(evidence.table, at, evidence.class_attributes)
    found = [(name, group_accuracies(rows, groups, values)) for name, (groups, values) in columns.items()]
    found = [(name, scores) for name, scores in found if len(scores) > 1]
    if not found:
        return []
    among = _comparisons(scores for _, scores in found)
    return [
        Table(
            "mistakes-columns",
            "Accuracy by the columns of the table.",
            ("column", "value", "images", "people", "accuracy", "against others"),
            [[name, *line] for name, scores in found for line in _group_cells(scores, among)],
            2,
            _group_note(among),
        )
    ]


def _comparisons(groups: Iterable[Sequence[GroupAccuracy]]) -> int:
    """Return the number of comparisons; that of two groups is one."""
    return sum(1 if len(scores) == 2 else len(scores) for scores in groups)


def _group_cells(scores: Sequence[GroupAccuracy], among: int) -> list[list[str | int | None]]:
    return [
        [
            one.name,
            one.images,
            one.people,
            one.accuracy.text(),
            None
            if one.against_others is None
            else one.against_others.text(among).replace(f" among {among} comparisons", ""),
        ]
        for one in scores
    ]


def _group_note(among: int) -> str:
    return (
        f"Accuracy with its {_PEOPLE_CI} Against others: the difference to the accuracy of all other "
        "images, its 95% CI, "
        f"and whether it is significant among {among} comparisons (Bonferroni)."
    )


def _properties(rows: LabeledRows, table: TableRecord | None, at: NDArray[np.int64] | None) -> list[Block]:
    """Return the accuracy by brightness, sharpness and size of the images."""
    how = "the images of the table must be readable where the table says; `--data PATH` names another place"
    missing = Missing("mistakes by image property: dark, blurred and small images", how)
    if table is None or at is None:
        return [missing]
    properties = image_properties(table, at)
    if not properties:
        return [missing]
    cells, texts, found = [], [], []
    for name, values in properties.items():
        low, high, form = _WORDS[name]
        groups, ends = quantile_groups(values)
        if len(ends) < 2:
            texts.append(f"All images have the same {name}.")
            continue
        names = [f"{form.format(a)} to {form.format(b)}" for a, b in ends]
        names[0], names[-1] = f"{low}: {names[0]}", f"{high}: {names[-1]}"
        found.append((name, group_accuracies(rows, groups, names)))
    among = _comparisons(scores for _, scores in found)
    for name, scores in found:
        cells += [[name, *line] for line in _group_cells(scores, among)]
        named = [
            f"{one.name} {one.against_others.difference.signed_text()}"
            for one in scores
            if one.against_others is not None and one.against_others.is_significant_among(among)
        ]
        texts.append(
            f"Accuracy differs with {name}: {'; '.join(named)} against all other images."
            if named
            else f"By {name}, no quarter of the images differs significantly from the others."
        )
    blocks: list[Block] = [Text(tuple(texts))]
    if cells:
        blocks.append(
            Table(
                "mistakes-properties",
                "Accuracy by image property, in quarters of the images.",
                ("property", "images with", "images", "people", "accuracy", "against others"),
                cells,
                2,
                f"{_group_note(among)} Brightness: mean of the decoded image, 0 to 255. Sharpness: "
                "mean absolute value of "
                "its Laplacian. Size: megapixels of the file.",
            )
        )
    return blocks


def _members(rows: LabeledRows, main: str) -> list[Block]:
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
            f"On the {images:,} images that all members predict. Alone right, alone wrong: images "
            "that only this member "
            f"predicts right or wrong. Right instead: images that {main} predicts wrong and the "
            "member right, and their "
            f"share of the mistakes ({wrong:,}), with its {_PEOPLE_CI}",
        )
    ]


def _agreement(found: Agreement | None, main: str) -> list[Block]:
    if found is None:
        return []
    cells: list[list[str | int | float | None]] = [
        [f"{one.agreeing} of {found.members}", one.images, one.people, one.accuracy.text()] for one in found.levels
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
            ("agreeing members", "images", "people", "accuracy"),
            cells,
            1,
            f"Accuracy of {main} with its {_PEOPLE_CI}",
        ),
        *([Text(tuple(lines))] if lines else []),
    ]


def mistake_pictures(
    rows: LabeledRows, thumbnail: Callable[[str], str], most: int, values: Mapping[str, Sequence[str]] | None = None
) -> list[Block]:
    """Return the worst mistakes as pictures; [] without a mistake.

    Parameters
    ----------
    values : of `class_values`, to say what differs.
    """
    order = rows.worst()
    if not len(order):
        return []
    pictures = tuple(_picture(rows, thumbnail, row, values or {}) for row in order[:most].tolist())
    note = "Sorted by the probability of the wrong class. A mistake of high confidence may be a wrong label."
    if len(order) > most:
        note += (
            f" {len(order) - most:,} more mistakes are not shown; ensemble mistakes RUN -o "
            "mistakes.csv lists all of them."
        )
    return [Gallery(GALLERY, "The worst mistakes: the highest confidence in a wrong class.", pictures, note)]


def _picture(
    rows: LabeledRows, thumbnail: Callable[[str], str], row: int, values: Mapping[str, Sequence[str]]
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
    ]
    tags = {"true": classes[label], "predicted": classes[predicted], "person": person}
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
