"""The mistakes of several labels, and the largest differences of numbers, as a result of `ensemble.mistakes`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from ensemble.analysis.columns import number_text
from ensemble.label_check.column_doubts import (
    Answer,
    NumberError,
    number_errors,
    usual_differences,
    wrong_answers,
)
from ensemble.review.column_list import ColumnList, digits_of
from folds.metrics.label_scores import THRESHOLD, is_predicted
from folds.utils.display import Table
from folds.utils.text import counted


@dataclass(frozen=True, eq=False, repr=False)
class ColumnMistakes(ColumnList):
    """What is predicted wrong of several labels, each a decision of its own; of numbers, how far predictions are off.

    Labels with the least probable answer come first; of several numbers those that are far off for the number.
    """

    people: int = 10
    what: ClassVar[str] = "the file"

    @cached_property
    def answers(self) -> Sequence[Answer]:
        """Return the labels that are predicted wrong, the least probable first; of numbers ()."""
        return () if self._of_numbers else wrong_answers(self.rows.columns)

    @cached_property
    def errors(self) -> Sequence[NumberError]:
        """Return the differences of predicted and true numbers, the largest first; of labels ()."""
        return [one for one in number_errors(self.rows.columns) if one.error] if self._of_numbers else ()

    def title(self) -> str:
        """Return how many labels are predicted wrong, or how far numbers are off, in one line."""
        people = counted(len(self.rows.people[0]), "person", "people")
        whose = f"{counted(self.images, 'image')} of {people} ({self.judged.kind})"
        if not self._of_numbers:
            known = sum(len(one.labels) for one in self.rows.columns)
            return f"{self.name}: {len(self.answers):,} of {counted(known, 'label')} of {whose} are predicted wrong"
        sizes = [f"{one.name} {number_text(one.size, digits_of(one))}" for one in self._known()]
        return f"{self.name}: mean absolute error {', '.join(sizes[:6])}; {whose}"

    def caption(self) -> str:
        """Return what the pictures show, in one line."""
        return "The largest errors." if self._of_numbers else "The worst mistakes."

    def _known(self) -> list[Any]:
        return [one for one in self.rows.columns if len(one.labels)]

    def column_table(self) -> Table:
        """Return one row per label (known, wrong, not found, found without being there) or number (its errors)."""
        if not self._of_numbers:
            cells: list[list[object]] = []
            for one in self.rows.columns:
                has, predicted = one.labels > 0, is_predicted(one.values)
                missed, added = int((has & ~predicted).sum()), int((~has & predicted).sum())
                cells.append([one.name, len(one.labels), int(has.sum()), missed + added, missed, added])
            header = ["label", "known images", "with it", "wrong", "missed", "added"]
            return Table(f"wrong: above a probability of {THRESHOLD:g}, or not", header, cells)
        cells = []
        for one, found in zip(self._known(), self._error_sizes(), strict=True):
            n, (low, high) = digits_of(one), found["usual"]
            half, most = (f"{found[name]:,.{n}f}" for name in ("half_within", "90_percent_within"))
            mean, usual = number_text(one.size, n), f"{low:+,.{n}f} to {high:+,.{n}f}"
            cells.append([one.name, found["known_images"], mean, half, most, usual, found["unusual"]])
        header = ["number", "known images", "mean size", "half within", "90% within", "usual", "unusual"]
        return Table("differences: predicted minus true", header, cells)

    def _error_sizes(self) -> list[dict[str, Any]]:
        """Return the sizes of the errors of each number that is known, as plain values in the unit of the number."""
        found = []
        for one in self._known():
            low, high = usual_differences(one.errors)
            half, most = np.quantile(np.abs(one.errors), (0.5, 0.9)).tolist()
            record = {"number": one.name, "known_images": len(one.labels), "mean_size": one.size.to_dict()}
            record |= {"half_within": half, "90_percent_within": most, "usual": [low, high]}
            found.append(record | {"unusual": int(((one.errors < low) | (one.errors > high)).sum())})
        return found

    def worst_people(self) -> list[tuple[str, int, int]] | list[tuple[str, float, int]]:
        """Return (person, wrong labels, known labels) of those with the most wrong labels, at most `people`; of
        numbers (person, mean size of the errors in mean sizes of all, known numbers).
        """
        names, persons = self.rows.people
        known, size = np.zeros(len(names)), np.zeros(len(names))
        for one in self._known():
            codes = persons[one.rows]
            known += np.bincount(codes, minlength=len(names))
            if self._of_numbers:
                errors = np.abs(one.errors)
                size += np.bincount(codes, errors / (errors.mean() or 1.0), len(names))
            else:
                size += np.bincount(codes, is_predicted(one.values) != (one.labels > 0), len(names))
        if self._of_numbers:
            size = size / np.maximum(known, 1)
        order = [at for at in np.argsort(-size, kind="stable")[: self.people].tolist() if size[at] > 0]
        if self._of_numbers:
            return [(names[at], float(size[at]), int(known[at])) for at in order]
        return [(names[at], int(size[at]), int(known[at])) for at in order]

    def people_table(self) -> Table:
        """Return one row per person with the most wrong labels, or the largest errors; none if people are unknown."""
        found = self.worst_people() if self.judged.persons_known else []
        if self._of_numbers:
            cells: list[list[object]] = [[name, f"{size:.1f}", known] for name, size, known in found]
            return Table("people with the largest errors", ["person", "times the mean error", "known numbers"], cells)
        cells = [[name, wrong, known] for name, wrong, known in found]
        return Table("people with the most wrong labels", ["person", "wrong labels", "known labels"], cells)

    def _notes(self) -> tuple[str, ...]:
        found = self.worst_people()[:3] if self.judged.persons_known else []
        if self._of_numbers:
            notes = ["usual: the quartiles of the differences, and 1.5 times their distance beyond them"]
            texts = [f"{name} ({size:.1f} times the mean error)" for name, size, _ in found]
            word = "people with the largest errors"
        else:
            notes = ["probability: that the image has the label; in table: what the table says"]
            texts = [f"{name} ({wrong} of {known})" for name, wrong, known in found]
            word = "people with the most wrong labels"
        return (*notes, *([f"{word}: {', '.join(texts)}"] if texts else []), *self.notes)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain values that ``ensemble mistakes --json`` prints."""
        table, found = self.column_table(), self.worst_people() if self.judged.persons_known else []
        word = "relative_size" if self._of_numbers else "wrong"
        people = [{"person": name, word: size, "known": known} for name, size, known in found]
        keys = [name.replace(" ", "_") for name in table.header]
        columns = [dict(zip(keys, row, strict=True)) for row in table.rows]
        columns = self._error_sizes() if self._of_numbers else columns
        count = {} if self._of_numbers else {"wrong": len(self.answers)}
        return self.facts() | count | {"mistakes": self.records(), "columns": columns, "worst_people": people}
