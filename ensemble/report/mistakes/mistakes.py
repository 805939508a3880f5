"""Show what is predicted wrong, for whom, under which conditions, and what each member said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ensemble.analysis.mistakes import LabeledRows, agreement_of
from ensemble.analysis.units import IMAGE, Unit
from ensemble.report.evidence.evidence import Evidence
from ensemble.report.evidence.mistakes_data import class_values, labeled_rows, places_in_table, with_titles
from ensemble.report.evidence.people import person_lines
from ensemble.report.evidence.scoring import changed_note, main_predictions
from ensemble.report.mistakes.confusion import PEOPLE_CI, class_blocks, confusion_blocks
from ensemble.report.mistakes.member_answers import agreement_blocks, member_blocks, mistake_pictures
from ensemble.report.mistakes.wrong_people import column_blocks, people_blocks, property_blocks
from ensemble.report.page.blocks import Block, Missing, Section, Text
from folds.metrics.classification import METRICS, Metric
from folds.metrics.confusion import argmax_classes
from folds.metrics.intervals import interval_over_people
from folds.metrics.task_names import ORDINAL
from folds.utils.text import counted

MANY, FEW = 0.5, 0.2  # of the share of the attribute that is wrong most often: confused as well, hardly ever
MAX_PICTURES = 60
_FAR = Metric(
    "off_by_more_than_one",
    "off by more than one grade",
    greater_is_better=False,
    per_row=lambda labels, values: (np.abs(argmax_classes(values) - labels) > 1).astype(np.float64),
)


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
    unit, averages = evidence.row_of(part), evidence.averages(part)
    of_people = "" if unit.is_person else f" of {counted(people, 'person', 'people')}"
    facts = f"{wrong:,} of {unit.counted(len(rows))}{of_people} are predicted wrong by {main.name} ({kind})."
    if note := changed_note(part, main):
        facts += f" They are {note}."
    if averages:
        facts += " Here each image is judged by itself, while the scores of the page are by person."
    if not part.persons_known:
        facts += " People are unknown, so each image counts as one: intervals are too narrow if people have several."
    if evidence.task == ORDINAL:
        facts += f" {grades_line(rows, unit)}"
    table = evidence.row_table
    at = None if table is None else places_in_table(table, rows.ids)
    blocks: list[Block] = [
        Text((answer(rows, values, unit), facts)),
        *confusion_blocks(rows, values, evidence.classes, unit),
        *class_blocks(rows, evidence, unit),
        *([] if unit.is_person else people_blocks(rows, part.persons_known)),
        *column_blocks(rows, evidence, at, unit),
        *property_blocks(rows, table, at, unit),
        *member_blocks(rows, main.name, unit),
        *agreement_blocks(agreement_of(rows), main.name, unit),
        *mistake_pictures(rows, evidence.picture, pictures, values, person_lines(evidence, part)),
    ]
    return Section("mistakes", "Mistakes", lead, tuple(blocks))


def grades_line(rows: LabeledRows, unit: Unit = IMAGE) -> str:
    """Return by how many grades the predictions are off, and the share that is off by more than one."""
    error, far = (
        interval_over_people(metric, rows.labels, rows.probabilities, rows.persons)
        for metric in (METRICS["grade_mae"], _FAR)
    )
    return (
        f"The classes are grades, in the order {', '.join(rows.classes)}: the mean error is {error.text()} grades, and "
        f"{far.text()} of the {unit.many} are off by more than one grade, each with its {PEOPLE_CI}"
    )


def answer(rows: LabeledRows, values: Mapping[str, Sequence[str]], unit: Unit = IMAGE) -> str:
    """Return in one or two sentences what is confused.

    Parameters
    ----------
    values : of `class_values`.
    """
    wrong = np.flatnonzero(rows.wrong)
    if not len(wrong):
        return f"No {unit.one} is predicted wrong."
    pairs, counts = np.unique(np.stack([rows.labels[wrong], rows.predicted[wrong]]), axis=1, return_counts=True)
    first = int(np.argmax(counts))
    true, predicted = (int(one) for one in pairs[:, first])
    most = (
        f"The most frequent confusion is {rows.classes[true]} → {rows.classes[predicted]}: "
        f"{unit.counted(int(counts[first]))} of {len(wrong):,}."
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
