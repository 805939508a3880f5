"""Labels of several, and numbers, that out-of-fold predictions contradict, as a result of `ensemble.labels`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ensemble.label_check.column_doubts import (
    Answer,
    NumberError,
    doubtful_numbers,
    find_doubts,
    is_recognized,
    usual_differences,
)
from ensemble.review.column_list import ColumnList, digits_of
from folds.utils.display import Table
from folds.utils.text import counted


@dataclass(frozen=True, eq=False, repr=False)
class DoubtfulColumns(ColumnList):
    """Labels of several, or numbers, in doubt. A doubt is a reason to look at an image, no proof that it is wrong.

    Labels with the least probable answer come first, and numbers that are farthest from the usual differences.
    """

    @cached_property
    def answers(self) -> Sequence[Answer]:
        """Return the labels in doubt, the least probable first; of numbers ()."""
        return () if self._of_numbers else find_doubts(self.rows.columns)

    @cached_property
    def errors(self) -> Sequence[NumberError]:
        """Return the numbers with an unusual difference, the farthest first; of labels ()."""
        return doubtful_numbers(self.rows.columns) if self._of_numbers else ()

    @cached_property
    def unjudged(self) -> list[str]:
        """Return the labels that are too rare, or not recognized better than by chance, so that none is in doubt."""
        return [] if self._of_numbers else [one.name for one in self.rows.columns if not is_recognized(one)]

    def title(self) -> str:
        """Return how many labels or numbers are in doubt, in one line."""
        judged = [one for one in self.rows.columns if one.name not in self.unjudged]
        known, noun = sum(len(one.labels) for one in judged), "number" if self._of_numbers else "label"
        return (
            f"{self.name}: {len(self):,} of {counted(known, noun)} of {counted(self.images, 'image')} of "
            f"{counted(len(self.rows.people[0]), 'person', 'people')} in doubt ({self.judged.kind})"
        )

    def caption(self) -> str:
        """Return what the pictures show, in one line."""
        return f"{'Numbers' if self._of_numbers else 'Labels'} that predictions contradict most."

    def _notes(self) -> tuple[str, ...]:
        notes = ["a doubt is a reason to look at an image, no proof that its label is wrong"]
        if self._of_numbers:
            notes = ["a doubt is a reason to look at an image, no proof that its number is wrong"]
            notes.append("in doubt: farther than 1.5 interquartile ranges from the quartiles of the differences")
        if self.unjudged:
            names = ", ".join(self.unjudged[:12]) + (" …" if len(self.unjudged) > 12 else "")
            notes.append(f"not judged, because too rare or not recognized better than by chance: {names}")
        return (*notes, *self.notes)

    def column_table(self) -> Table:
        """Return one row per label (how many may be missing, and may be wrong) or number (the usual differences)."""
        cells: list[list[object]] = []
        if self._of_numbers:
            for one in self.rows.columns:
                if len(one.labels):
                    (low, high), n = usual_differences(one.errors), digits_of(one)
                    count = sum(error.number == one.name for error in self.errors)
                    cells.append([one.name, len(one.labels), f"{low:+,.{n}f} to {high:+,.{n}f}", count])
            header = ["number", "known images", "usual differences", "in doubt"]
            return Table("differences: predicted minus true", header, cells)
        for one in self.rows.columns:
            own = [answer for answer in self.answers if answer.label == one.name]
            missing = sum(not answer.given for answer in own)
            counts = ["–", "–"] if one.name in self.unjudged else [missing, len(own) - missing]
            cells.append([one.name, len(one.labels), int((one.labels > 0).sum()), *counts])
        header = ["label", "known images", "with it", "may be missing", "may be wrong"]
        return Table("may be missing: not in the table, predicted; may be wrong: the reverse", header, cells)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain values that ``ensemble labels --json`` prints."""
        return self.facts() | {"in_doubt": len(self), "labels": self.records(), "unjudged": self.unjudged}
