"""Show which classes are confused, and the scores of each class and of each value of its attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ensemble.analysis.mistakes import Confusion, LabeledRows, confusion_of
from ensemble.analysis.units import IMAGE, Unit
from ensemble.report.evidence.evidence import Evidence
from ensemble.report.evidence.mistakes_data import change_text
from ensemble.report.page.blocks import Block, Matrix, Table
from folds.metrics.per_class import attribute_scores, class_scores
from folds.utils.text import natural_order

MAX_CLASSES = 30  # of the confusion matrix
COMPACT = 7  # classes; in a matrix of more, the cells have no room for shares
MAX_PAIRS = 15
GALLERY = "mistakes-worst"  # the pictures that a cell of the matrix opens
PEOPLE_CI = "95% CI over people (jackknife)."


def confusion_blocks(
    rows: LabeledRows, values: Mapping[str, Sequence[str]], heads: Sequence[str], unit: Unit = IMAGE
) -> list[Block]:
    """Return the confusion matrices of the attributes of the classes and of the classes, and the frequent confusions.

    Parameters
    ----------
    values : attribute → its value for each class.
    heads, unit : as in `confusion_block`.
    """
    confusion = confusion_of(rows)
    return [
        *_attribute_matrices(rows, values, unit),
        confusion_block(rows, confusion, heads=heads, unit=unit),
        *_pairs(rows, confusion, values, unit),
    ]


def _attribute_matrices(rows: LabeledRows, values: Mapping[str, Sequence[str]], unit: Unit) -> list[Block]:
    """Return a confusion matrix of each attribute that the classes are made of, if there are several."""
    found: list[Block] = []
    for number, (name, of) in enumerate(values.items(), start=1):
        distinct = natural_order(of)
        if not 1 < len(distinct) <= COMPACT or len(distinct) == len(of):
            continue
        column = np.array([distinct.index(value) for value in of])
        pooled = np.asarray(rows.probabilities, np.float64) @ np.eye(len(distinct))[column]
        by_value = replace(rows, labels=column[rows.labels], classes=tuple(distinct), probabilities=pooled, members={})
        block = confusion_block(by_value, confusion_of(by_value), unit=unit)
        note = f"By the sum of the probabilities of the classes with each value. {block.note}"
        found.append(
            replace(block, name=f"mistakes-confusion-{number}", caption=f"Confusion of {name}.", opens="", note=note)
        )
    return found


def confusion_block(
    rows: LabeledRows,
    confusion: Confusion,
    most: int = MAX_CLASSES,
    heads: Sequence[str] = (),
    unit: Unit = IMAGE,
) -> Matrix:
    """Return the confusion matrix of the `most` classes with the most mistakes.

    Parameters
    ----------
    heads : (classes,) short names for the columns of a matrix of many classes.
    unit : what a row of predictions is.
    """
    shown = list(range(len(rows.classes)))
    compact = len(shown) > COMPACT
    note = f"Rows are true classes. The share is that of the row, with its {PEOPLE_CI}"
    if compact:
        note = (
            f"Rows are true classes, columns predicted ones. A cell is a number of {unit.many}; the share of the row, "
            "with its 95% CI over people (jackknife), is shown when the pointer rests on it."
        )
    if len(shown) > most:
        wrong = confusion.counts.sum(axis=1) - np.diag(confusion.counts)
        missed = confusion.counts.sum(axis=0) - np.diag(confusion.counts)
        shown = sorted(np.argsort(-(wrong + missed), kind="stable")[:most].tolist())
        note += f" Only the {most} classes with the most mistakes of {len(rows.classes)} are shown."
    return Matrix(
        "mistakes-confusion",
        f"Confusion matrix: {unit.many} of each true class by predicted class.",
        tuple(rows.classes[one] for one in shown),
        tuple(tuple(int(confusion.counts[one, other]) for other in shown) for one in shown),
        tuple(tuple(confusion.text(one, other) for other in shown) for one in shown),
        GALLERY if rows.wrong.any() else "",
        note,
        compact,
        tuple(heads[one] for one in shown) if compact and heads else (),
    )


def _pairs(rows: LabeledRows, confusion: Confusion, values: Mapping[str, Sequence[str]], unit: Unit) -> list[Block]:
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
                *unit.cells(int(mine.sum()), people),
                confusion.text(true, predicted),
            ]
        )
    differs = ("what differs",) if values else ()
    return [
        Table(
            "mistakes-pairs",
            "The most frequent confusions.",
            ("true class", "predicted class", *differs, *unit.columns(), "share of class"),
            cells,
            2 + len(differs),
            f"Share of the {unit.many} of the true class, with its {PEOPLE_CI}"
            + (f" {len(pairs) - MAX_PAIRS} more kinds of confusion are rarer." if len(pairs) > MAX_PAIRS else ""),
        )
    ]


def class_blocks(rows: LabeledRows, evidence: Evidence, unit: Unit = IMAGE) -> list[Block]:
    """Return the scores of each class, and of each value of the attributes of the classes."""
    scores = class_scores(rows.labels, rows.probabilities, rows.persons, rows.classes)
    header = (*unit.columns(), "F1", "precision", "recall", "ROC-AUC")
    note = f"F1 with its {PEOPLE_CI} A class of one person has no interval."

    def cells(found: Sequence) -> list[list[str | int | None]]:
        return [
            [
                one.name,
                *unit.cells(one.rows, one.people),
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
