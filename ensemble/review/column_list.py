"""Show labels of several, or numbers, that predictions contradict, one row for each: the base of both lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ensemble.analysis.columns import Column, decimals_for
from ensemble.analysis.labeled_columns import LabeledColumns
from ensemble.blending.labeled_predictions import ColumnPredictions
from ensemble.label_check.column_doubts import Answer, NumberError
from ensemble.review.inputs import PICTURES, thumbnails_of
from folds.metrics.label_scores import is_predicted
from folds.metrics.task_names import REGRESSION
from folds.utils.csv_table import csv_text
from folds.utils.display import Displayed, Table
from folds.utils.files import check_not_existing, write_atomic
from folds.utils.spreadsheet import guarded_columns

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class ColumnList(Displayed):
    """Labels or numbers of images that predictions contradict.

    Attributes
    ----------
    judged : the labeled predictions, and what their members predict.
    most : the number of rows that are shown.
    sources : names and files, by which the images are found.
    root : the folder that holds ``runs/``.
    """

    judged: ColumnPredictions
    most: int = 40
    sources: tuple[str | Path, ...] = ()
    root: Path = Path()

    what: ClassVar[str] = "the table"  # in errors, if a file exists

    @property
    def name(self) -> str:
        """Return the name of the run or the blend, or ``soft vote of A, B``."""
        return self.judged.name

    @property
    def task(self) -> str:
        """Return ``multilabel`` or ``regression``."""
        return self.rows.task

    @property
    def images(self) -> int:
        """Return the number of images of which a label or a number is known."""
        return len(self.rows)

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what the user should know about the files; warnings begin with ``warning: ``."""
        return self.judged.notes

    @property
    def rows(self) -> LabeledColumns:
        """Return the images, their labels or numbers, and the predictions."""
        return self.judged.rows

    @cached_property
    def answers(self) -> Sequence[Answer]:
        """Return the contradicted labels, the least probable first; of numbers ()."""
        return ()

    @cached_property
    def errors(self) -> Sequence[NumberError]:
        """Return the differences of predicted and true numbers, the largest first; of labels ()."""
        return ()

    @property
    def listed(self) -> list[Answer | NumberError]:
        """Return all rows of the list, the worst first."""
        return [*self.answers, *self.errors]

    def __len__(self) -> int:
        return len(self.answers) + len(self.errors)

    @property
    def _of_numbers(self) -> bool:
        return self.task == REGRESSION

    def frame(self) -> pd.DataFrame:
        """Return one row per label or number, the worst first, as `save` writes them."""
        import pandas as pd

        found = pd.DataFrame(self._csv())
        texts = ("id", "person", "label", "number", "in_table", "unusual")
        return found.assign(**{name: pd.to_numeric(found[name]) for name in found if name not in texts})

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write all rows, with what each member predicts, as a CSV; return the file.

        Raises
        ------
        EnsembleError : the file exists and `force` is false.
        """
        check_not_existing(Path(path), self.what, force)
        write_atomic(Path(path), csv_text(guarded_columns(self._csv())))
        return Path(path)

    def _csv(self) -> dict[str, list[str]]:
        found, rows = self.listed, self.rows
        at = [one.row for one in found]
        columns = {
            "rank": list(map(str, range(1, len(found) + 1))),
            "id": rows.ids[at].tolist(),
            "person": rows.persons[at].tolist(),
        }
        if self._of_numbers:
            columns |= {
                "number": [one.number for one in self.errors],
                "true": [f"{one.true:.10g}" for one in self.errors],
                "predicted": [f"{one.predicted:.7g}" for one in self.errors],
                "difference": [f"{one.error:.7g}" for one in self.errors],
                "usual_low": [f"{one.low:.7g}" for one in self.errors],
                "usual_high": [f"{one.high:.7g}" for one in self.errors],
                "unusual": [_yes(one.is_unusual) for one in self.errors],
            }
        else:
            columns |= {
                "label": [one.label for one in self.answers],
                "in_table": [_yes(one.given) for one in self.answers],
                "probability": [f"{one.probability:.4f}" for one in self.answers],
            }
        form, word = ("{:.7g}", "predicted") if self._of_numbers else ("{:.4f}", "probability")
        for name in rows.members if len(rows.members) > 1 else ():
            values = [self._said(name, one) for one in found]
            columns[f"{name}: {word}"] = ["" if np.isnan(value) else form.format(value) for value in values]
        return columns

    def _said(self, member: str, one: Answer | NumberError) -> float:
        """Return what a member predicts; nan if it does not predict the image."""
        name = one.label if isinstance(one, Answer) else one.number
        return float(self.rows.members[member][one.row, self.rows.names.index(name)])

    def _agreeing(self, one: Answer) -> int:
        """Return the number of members that contradict the label as well."""
        values = np.array([self._said(name, one) for name in self.rows.members])
        return int(np.sum(is_predicted(values[~np.isnan(values)]) != bool(one.given)))

    def title(self) -> str:
        """Return how many labels or numbers are listed, in one line."""
        raise NotImplementedError

    def display_table(self) -> Table:
        """Return the table to display: the first rows."""
        rows, several = self.rows, len(self.rows.members) > 1
        if self._of_numbers:
            header = ["image", "number", "true", "predicted", "difference", "usual", "person"]
            cells: list[list[object]] = []
            digits = {one.name: digits_of(one) for one in rows.columns if len(one.labels)}
            for error in self.errors[: self.most]:
                n = digits[error.number]
                usual = f"{error.low:+,.{n}f} to {error.high:+,.{n}f}"
                numbers = f"{error.true:,.{n}f}", f"{error.predicted:,.{n}f}", f"{error.error:+,.{n}f}"
                cells.append([rows.ids[error.row], error.number, *numbers, usual, rows.persons[error.row]])
            if len(rows.names) == 1:
                header, cells = [header[0], *header[2:]], [[one[0], *one[2:]] for one in cells]
            return Table(self.title(), header, cells, self._notes(), len(header) - 5)
        header = ["image", "label", "in table", "probability", *(["agreeing"] if several else []), "person"]
        cells = [
            [
                rows.ids[one.row],
                one.label,
                _yes(one.given),
                f"{one.probability:.3f}",
                *([f"{self._agreeing(one)} of {len(rows.members)}"] if several else []),
                rows.persons[one.row],
            ]
            for one in self.answers[: self.most]
        ]
        return Table(self.title(), header, cells, self._notes(), 3)

    def caption(self) -> str:
        """Return what the pictures show, in one line."""
        raise NotImplementedError

    def _notes(self) -> tuple[str, ...]:
        return self.notes

    def column_table(self) -> Table:
        """Return one row per label or number: on how many images it is known, and how often it is contradicted."""
        raise NotImplementedError

    def display_parts(self) -> Sequence[str]:
        """Return the first images as pictures, as in the report."""
        from ensemble.report.mistakes.column_pictures import answer_pictures, error_pictures
        from ensemble.report.page.blocks import Gallery
        from ensemble.report.page.page import markup

        samples = [str(self.rows.ids[one.row]) for one in self.listed[:PICTURES]]
        pictures = thumbnails_of(list(dict.fromkeys(samples)), self.sources, self.root)
        if not pictures:  # the table says the same
            return ()

        def thumbnail(sample: str) -> str:
            return pictures.get(sample, "")

        known = self.judged.persons_known
        if self._of_numbers:
            columns = [one for one in self.rows.columns if len(one.labels)]
            made = error_pictures(self.errors[:PICTURES], self.rows, columns, thumbnail, known)
        else:
            made = answer_pictures(self.answers[:PICTURES], self.rows, thumbnail, known)
        return (markup(Gallery("column-list", self.caption(), made), live=False),)

    def records(self) -> list[dict[str, Any]]:
        """Return the first rows as plain values."""
        rows, several = self.rows, len(self.rows.members) > 1
        found = []
        for one in self.listed[: self.most]:
            record: dict[str, Any] = {"id": str(rows.ids[one.row]), "person": str(rows.persons[one.row])}
            if isinstance(one, Answer):
                record |= {"label": one.label, "in_table": one.given, "probability": one.probability}
            else:
                record |= {"number": one.number, "true": one.true, "predicted": one.predicted}
                record |= {"difference": one.error, "usual": [one.low, one.high], "unusual": one.is_unusual}
            if several:
                values = {name: self._said(name, one) for name in rows.members}
                record["members"] = {name: None if np.isnan(value) else value for name, value in values.items()}
            found.append(record)
        return found

    def facts(self) -> dict[str, Any]:
        """Return the plain values that both lists begin with."""
        people = len(self.rows.people[0]) if self.judged.persons_known else None
        return {
            "name": self.name,
            "split": self.judged.split,
            "task": self.task,
            "images": self.images,
            "people": people,
            "known": sum(len(one.labels) for one in self.rows.columns),
        }


def digits_of(column: Column) -> int:
    """Return with how many decimals the errors of a number are written."""
    return decimals_for(float(np.abs(column.errors).mean()))


def _yes(true: object) -> str:
    return "yes" if true else "no"
