"""Render mistakes and labels in doubt as text."""

from __future__ import annotations

from typing import Any

from ensemble.analysis.mistakes import LabeledRows, people_mistakes
from ensemble.blending.labeled_predictions import LabeledPredictions
from ensemble.cli.terminal import console
from ensemble.label_check.doubts import LabelDoubts
from folds.utils.text import counted

_LONGEST = 40  # characters of an id in a table


def mistakes_report(found: LabeledPredictions, most: int, people: int) -> str:
    """Return the worst mistakes, and the people with the most wrong images."""
    rows = found.rows
    of_people = people_mistakes(rows, people)
    title = (
        f"{found.name}: {int(rows.wrong.sum()):,} of {counted(len(rows), 'image')} of "
        f"{counted(of_people.people, 'person', 'people')} are predicted wrong ({found.kind})"
    )
    order = rows.worst()[:most].tolist()
    parts = [title]
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
    if of_people.worst and found.persons_known:
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


def mistakes_record(found: LabeledPredictions, most: int, people: int) -> dict[str, Any]:
    """Return the same as plain values, for ``--json``."""
    rows = found.rows
    of_people = people_mistakes(rows, people)
    return {
        "name": found.name,
        "split": found.split,
        "images": len(rows),
        "people": of_people.people if found.persons_known else None,
        "wrong": int(rows.wrong.sum()),
        "mistakes": [
            {
                "id": str(rows.ids[row]),
                "person": str(rows.persons[row]),
                "label": rows.classes[rows.labels[row]],
                "predicted": rows.classes[rows.predicted[row]],
                "confidence": float(rows.confidence[row]),
                "members": {
                    name: None if answers[row] < 0 else rows.classes[answers[row]]
                    for name, answers in rows.answers.items()
                },
            }
            for row in rows.worst()[:most].tolist()
        ],
        "always_wrong": {"people": of_people.always, "by_chance": of_people.always_by_chance},
        "worst_people": [vars(one) for one in of_people.worst] if found.persons_known else [],
    }


def _right(rows: LabeledRows, row: int) -> str:
    return ", ".join(name for name, answers in rows.answers.items() if answers[row] == rows.labels[row]) or "none"


def labels_report(found: LabelDoubts, name: str, most: int) -> str:
    """Return the labels in doubt."""
    rows, order = found.rows, found.order
    unit = "each person counts once" if found.unit == "person" else "each image by its own vote"
    title = (
        f"{name}: {counted(len(order), 'label')} of {counted(len(rows), 'image')} of "
        f"{counted(len(rows.people[0]), 'person', 'people')} in doubt (out-of-fold votes; {unit})"
    )
    parts = [title]
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


def labels_record(found: LabelDoubts, name: str, most: int) -> dict[str, Any]:
    """Return the same as plain values, for ``--json``."""
    rows = found.rows
    return {
        "name": name,
        "unit": found.unit,
        "images": len(rows),
        "people": len(rows.people[0]),
        "in_doubt": len(found.order),
        "labels": [
            {
                "id": str(rows.ids[row]),
                "person": str(rows.persons[row]),
                "label": rows.classes[rows.labels[row]],
                "suggested": rows.classes[found.suggested[row]],
                "confidence": float(found.confidence[row]),
                "vote": float(found.vote[row]),
                "agreement": int(found.agreement[row]),
            }
            for row in found.order[:most].tolist()
        ],
        "attributes": [vars(one) for one in found.attributes],
    }


def _short(name: object) -> str:
    text = str(name)
    return text if len(text) <= _LONGEST else f"…{text[1 - _LONGEST :]}"
