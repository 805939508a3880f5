"""Render mistakes and labels in doubt as text."""

from __future__ import annotations

from ensemble.analysis.mistakes import LabeledRows
from ensemble.cli.terminal import console
from ensemble.review.column_labels import DoubtfulColumns
from ensemble.review.column_list import ColumnList
from ensemble.review.column_mistakes import ColumnMistakes
from ensemble.review.labels import DoubtfulLabels
from ensemble.review.mistakes import Mistakes
from folds.utils.display import Table
from folds.utils.text import counted

_LONGEST = 40  # characters of an id in a table


def mistakes_report(found: Mistakes | ColumnMistakes) -> str:
    """Return the worst mistakes, and the people with the most wrong images."""
    if isinstance(found, ColumnMistakes):
        return _column_list(found, found.people_table())
    rows, of_people = found.judged.rows, found.worst_people()
    order = rows.worst()[: found.most].tolist()
    parts = [found.title()]
    if order:
        header = ["image", "label", "predicted", "confidence", "person"]
        cells = [
            [
                _short(rows.ids[row]),
                rows.classes[rows.labels[row]],
                rows.classes[rows.predicted[row]],
                f"{rows.confidence[row]:.3f}",
                _short(rows.persons[row]),
            ]
            for row in order
        ]
        if len(rows.members) > 1:
            header += ["agreeing", "members right"]
            cells = [
                [*line, f"{rows.agreement[row]} of {len(rows.members)}", _right(rows, row)]
                for line, row in zip(cells, order, strict=True)
            ]
        parts.append(
            "\n".join(
                [
                    "worst mistakes: highest confidence in a wrong class",
                    console.table(header, cells, 3, ["members right", "person"]),
                ]
            )
        )
    if of_people.worst and found.judged.persons_known:
        cells = [
            [
                _short(one.person),
                one.wrong,
                one.images,
                f"{one.wrong / one.images:.3f} [{one.low:.3f}, {one.high:.3f}]",
                f"{one.expected:.1f}",
                "yes" if one.clustered else "no",
            ]
            for one in of_people.worst
        ]
        header = ["person", "wrong", "images", "wrong share, 95% CI", "by chance", "above chance"]
        always = (
            f"{counted(of_people.always, 'person', 'people')} of two images or more with every image wrong; "
            f"at most {of_people.always_by_chance:.1f} expected by chance"
        )
        parts.append("\n".join(["people with the most wrong images", console.table(header, cells), always]))
    return "\n\n".join(parts)


def _right(rows: LabeledRows, row: int) -> str:
    return ", ".join(name for name, answers in rows.answers.items() if answers[row] == rows.labels[row]) or "none"


def labels_report(labels: DoubtfulLabels | DoubtfulColumns) -> str:
    """Return the labels in doubt."""
    if isinstance(labels, DoubtfulColumns):
        return _column_list(labels)
    found, most = labels.doubts, labels.most
    rows, order, parts = found.rows, found.order, [labels.title()]
    if len(order):
        header = ["image", "label", "suggested", "confidence", "vote for label", "agreeing", "person"]
        cells = [
            [
                _short(rows.ids[row]),
                rows.classes[rows.labels[row]],
                rows.classes[found.suggested[row]],
                f"{found.confidence[row]:.3f}",
                f"{found.vote[row]:.3f}",
                f"{found.agreement[row]} of {len(rows.members)}",
                _short(rows.persons[row]),
            ]
            for row in order[:most].tolist()
        ]
        parts.append(console.table(header, cells, 3, ["person", "agreeing"]))
    if found.attributes:
        cells = [
            [
                one.attribute,
                _short(one.person),
                one.given,
                one.suggested,
                f"{one.vote:.3f}",
                f"{one.suggested_vote:.3f}",
            ]
            for one in found.attributes[:most]
        ]
        header = ["attribute", "person", "given", "suggested", "vote for given", "vote for suggested"]
        parts.append("\n".join(["attributes that all images of a person share", console.table(header, cells, 4)]))
    return "\n\n".join(parts)


def _column_list(found: ColumnList, people: Table | None = None) -> str:
    """Return the labels or numbers that predictions contradict, a table of each label or number, and how to read it."""
    shown, each = found.display_table(), found.column_table()
    parts = [shown.title]
    if len(found):
        cells = [[_short(cell) for cell in row] for row in shown.rows]
        parts.append(console.table(shown.header, cells, shown.left, ["person", "agreeing", "usual"]))
    parts.append("\n".join([each.title, console.table(each.header, [[_short(row[0]), *row[1:]] for row in each.rows])]))
    if people is not None and people.rows:
        cells = [[_short(row[0]), *map(str, row[1:])] for row in people.rows]
        parts.append("\n".join([people.title, console.table(people.header, cells)]))
    own = [line for line in shown.notes if line not in found.notes and not line.startswith("people with")]
    return "\n\n".join([*parts, "\n".join(own)])


def _short(name: object) -> str:
    text = str(name)
    return text if len(text) <= _LONGEST else f"…{text[1 - _LONGEST :]}"
