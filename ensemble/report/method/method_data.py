"""Say for the methods of a paper what the data were: their parts, what is missing, and which labels were changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ensemble.report.evidence.image_table import people_per_class
from ensemble.report.evidence.scoring import changed_note
from ensemble.report.method.column_facts import counts_text, unknown_cells
from ensemble.report.method.method_runs import to_state
from ensemble.report.method.method_source import MethodSource, PartRows
from folds.utils.text import counted

MAX_CLASSES = 8  # that are counted in a sentence
MAX_VALUES = 12  # values of an attribute that are counted; more are numbers, or names of images


@dataclass(frozen=True, eq=False)
class DataFacts(MethodSource):
    """Sentences about the data."""

    def data(self) -> str:
        """Return how many images of how many people and classes each part has."""
        if self.train is None:
            return to_state("numbers of images, people and classes")
        whole, counts = self.train.whole, self._counts(self.train)
        lines = [f"The training data were {counts}." if whole else f"The out-of-fold predictions are of {counts}."]
        if self.test is not None:
            whole, counts = self.test.whole, self._counts(self.test)
            lines.append(f"The test data were {counts}." if whole else f"The test predictions are of {counts}.")
        return " ".join([*lines, *self._not_read("images, people and classes of the whole data")])

    def _counts(self, rows: PartRows) -> str:
        people = f" of {counted(rows.people, 'person', 'people')}" if rows.persons_known else ""
        found = f"{counted(len(rows), 'image')}{people}"
        if rows.unlabeled == len(rows):
            return f"{found}, without labels"
        if self.evidence.has_columns:
            task, names = self.evidence.task, self.evidence.classes
            return found + counts_text(task, names, rows.labels, rows.persons, rows.persons_known)
        classes = {name: one for name, one in people_per_class(rows.labels, rows.persons).items() if name}
        total = counted(len(self.evidence.classes) or len(classes), "class", "classes")
        if len(self.evidence.classes) > MAX_CLASSES:
            counts = [classes.get(name, (0, 0))[0] for name in self.evidence.classes]
            return f"{found} in {total} of {min(counts):,} to {max(counts):,} images (table of the parts)"
        each = [
            f"{name}, {counted(images, 'image')}"
            + (f" of {counted(count, 'person', 'people')}" if rows.persons_known else "")
            for name in self.evidence.classes
            for images, count in [classes.get(name, (0, 0))]
        ]
        return f"{found} in {total} ({'; '.join(each)})"

    def totals(self) -> str:
        """Return the numbers of people and images of each part, in short."""
        found = []
        for name, rows in self.parts:
            people = f"{counted(rows.people, 'person', 'people')}, " if rows.persons_known else ""
            found.append(f"{name}: {people}{counted(len(rows), 'image')}")
        return " ".join([f"{'; '.join(found).capitalize()}.", *self._not_read("numbers of the whole data")])

    def source(self) -> str:
        """Return the gaps about the source of the data."""
        return to_state(
            "source and dates of the images, setting, inclusion and exclusion criteria, how images were acquired"
        )

    def reference(self) -> str:
        """Return the gap about the reference standard."""
        return to_state("reference standard: how labels were obtained, by whom, and their agreement")

    def missing(self) -> str:
        """Return how much is missing: labels, values of attributes, image files."""
        lines = []
        for name, rows in self.parts:
            if not rows.whole:  # what is not there at all cannot be counted in predictions
                name = f"predicted {'training' if name == 'out of fold' else name}"
            if rows.unlabeled:
                lines.append(f"{rows.unlabeled:,} of {counted(len(rows), f'{name} image')} had no label (not scored).")
            if self.evidence.has_columns:
                unknown = unknown_cells(self.evidence.task, self.evidence.classes, rows.labels)
                if unknown:
                    lines.append(f"Of the other {name} images, {unknown:,} single values were not known.")
            gaps = {one: int((values == "").sum()) for one, values in rows.attributes.items()}
            gaps = {one: absent for one, absent in gaps.items() if absent}
            for attribute, absent in list(gaps.items())[:MAX_VALUES]:
                lines.append(f"`{attribute}` was missing for {absent:,} of {counted(len(rows), f'{name} image')}.")
            if len(gaps) > MAX_VALUES:
                lines.append(f"{len(gaps) - MAX_VALUES} further attributes of {name} images had missing values.")
        gaps_left = self._not_read("what is missing in the data")
        if not lines and self.train is not None and not gaps_left:
            with_attributes = " and no value of an attribute" if self.train.attributes else ""
            lines.append(f"No label{with_attributes} was missing.")
        return " ".join([*lines, *self._files(), *gaps_left])

    def _files(self) -> list[str]:
        table, lines = self.evidence.table, []
        if table is None:
            return []
        if table.left_out:
            lines.append(f"Images left out because they could not be used: {table.left_out:,}.")
        if table.width is not None and self.evidence.paths:
            found = np.array([sample in self.evidence.paths for sample in table.ids.tolist()])
            unreadable = int((found & (table.width == 0)).sum())
            absent = len(found) - int(found.sum())
            if absent:
                lines.append(f"{counted(absent, 'image file')} could not be found for this report.")
            if unreadable:
                lines.append(f"{counted(unreadable, 'image file')} could not be read.")
            if not (absent or unreadable or table.left_out):
                lines.append("Every image file could be read.")
        if any(run.config.get("missing_persons") == "own" for run in self.runs):
            lines.append(f"Images without a person counted as a person of their own {to_state('how many')}.")
        return lines

    def changed(self) -> str:
        """Return which training labels were changed."""
        part, member = self.evidence.oof, self.member
        if part is None or member is None or not member.changed:
            return ""
        images = counted(len(member.changed), "image")
        if self.evidence.pooled is not None:
            images = f"images of {counted(len(member.changed), 'person', 'people')}"
        note = changed_note(part, member)
        scored = f" Its out-of-fold predictions are {note}, by the labels of the table." if note else ""
        return f"For `{member.name}` the training labels of {images} were replaced, softened or not learned.{scored}"

    def external(self) -> str:
        """Return that a test set is there, whose origin only the authors know."""
        if self.test is None:
            return to_state("external test: none in these files")
        return (
            f"Test data: {counted(len(self.test), 'image')}. {to_state('whether they are from another center or time')}"
        )
