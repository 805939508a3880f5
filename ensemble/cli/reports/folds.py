"""Render a split as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ensemble.cli.terminal import console


def folds_text(assignment: Any, classes: Sequence[str], meaning: Mapping[str, Mapping[str, str]]) -> str:
    """Return the table classes × folds in images, with the number of people per class and per fold."""
    from folds.splits.checks import fold_counts, people_per_class

    images, people = fold_counts(assignment, classes)
    if assignment.has_columns:
        return _columns_text(assignment, classes, people)
    people_of_class = people_per_class(assignment, classes)
    rows: list[list[object]] = []
    for i, name in enumerate(classes):
        rows.append([name, " ".join(meaning.get(name, {}).values()), *_counts(images[i]), f"{people_of_class[i]:,}"])
    rows.append(["images", "", *_counts(images.sum(axis=0)), ""])
    rows.append(["people", "", *_counts(people), f"{people.sum():,}"])
    header = ["class", "", *assignment.part_names, "all", "people"]
    if not any(meaning.values()):
        header, rows = [header[0], *header[2:]], [[row[0], *row[2:]] for row in rows]
        left = 1
    else:
        left = 2
    return console.table(header, rows, left)


def _columns_text(assignment: Any, names: Sequence[str], people: Any) -> str:
    """Return the table of several labels (images and share in each fold), or of the means of numbers."""
    from folds.splits.column_counts import ColumnFolds

    counted = ColumnFolds(assignment, names)
    rows: list[list[object]] = [
        *counted.rows(),
        ["images", *_counts(counted.samples), "", ""],
        ["people", *_counts(people), "", ""],
    ]
    return console.table(counted.header(assignment.part_names), rows)


def sites_text(assignment: Any, column: str, names: Sequence[str], counts: Any) -> str:
    """Return the table sites × folds in images.

    Parameters
    ----------
    names, counts : of `folds.splits.sites.site_counts`.
    """
    rows: list[list[object]] = [[name or "(empty)", *_counts(own)] for name, own in zip(names, counts, strict=True)]
    return console.table([column, *assignment.part_names, "all"], rows)


def _counts(numbers: Any) -> list[str]:
    return [f"{int(n):,}" for n in [*numbers, numbers.sum()]]
