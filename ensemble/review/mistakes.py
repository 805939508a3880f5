"""`ensemble.mistakes`: the worst mistakes, the people who are often wrong, and what each member said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemble.analysis.mistakes import PeopleMistakes, confusion_of, mistake_columns, people_mistakes
from ensemble.blending.labeled_predictions import ColumnPredictions, LabeledPredictions
from ensemble.review.column_mistakes import ColumnMistakes
from ensemble.review.inputs import PICTURES, read_judged, thumbnails_of
from folds.utils.arguments import PATH, PROGRESS, check_arguments, whole
from folds.utils.bars import log_in_notebook, progress_of
from folds.utils.csv_table import csv_text
from folds.utils.display import Displayed, Table
from folds.utils.files import check_not_existing, write_atomic
from folds.utils.progress import Progress
from folds.utils.schema import optional
from folds.utils.spreadsheet import guarded_columns
from folds.utils.text import counted

if TYPE_CHECKING:
    import pandas as pd

    from ensemble.report.page.blocks import Block

MAX_CLASSES = 12  # of the confusion matrix in a notebook


@dataclass(frozen=True, eq=False, repr=False)
class Mistakes(Displayed):
    """What is predicted wrong.

    Attributes
    ----------
    judged : the labeled predictions, and what their members said.
    most, people : the number of mistakes and of people that are shown.
    sources : names and files, by which the images are found.
    root : the folder that holds ``runs/``.
    """

    judged: LabeledPredictions
    most: int = 40
    people: int = 10
    sources: tuple[str | Path, ...] = ()
    root: Path = Path()

    @property
    def name(self) -> str:
        """Return the name of the run or the blend, or ``soft vote of A, B``."""
        return self.judged.name

    @property
    def images(self) -> int:
        """Return the number of labeled images."""
        return len(self.judged.rows)

    @property
    def wrong(self) -> int:
        """Return the number of images that are predicted wrong."""
        return int(self.judged.rows.wrong.sum())

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what the user should know about the files; warnings begin with ``warning: ``."""
        return self.judged.notes

    def __len__(self) -> int:
        return self.wrong

    def worst_people(self) -> PeopleMistakes:
        """Return the people with the most wrong images, at most `people`."""
        return people_mistakes(self.judged.rows, self.people)

    def frame(self) -> pd.DataFrame:
        """Return one row per mistake, the worst first: rank, id, person, label, predicted, confidence, and for each of
        several members what it predicts and how surely.
        """
        import pandas as pd

        found = pd.DataFrame(mistake_columns(self.judged.rows))
        numbers = [name for name in found if str(name).rpartition(": ")[2] in ("confidence", "label_probability")]
        return found.astype({"rank": int}).assign(**{name: pd.to_numeric(found[name]) for name in numbers})

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write all mistakes with what each member said as a CSV; return the file.

        Raises
        ------
        EnsembleError : the file exists and `force` is false.
        """
        check_not_existing(Path(path), "the file", force)
        write_atomic(Path(path), csv_text(guarded_columns(mistake_columns(self.judged.rows))))
        return Path(path)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain values that ``ensemble mistakes --json`` prints."""
        rows, of_people, known = self.judged.rows, self.worst_people(), self.judged.persons_known
        return {
            "name": self.name,
            "split": self.judged.split,
            "images": len(rows),
            "people": of_people.people if known else None,
            "wrong": self.wrong,
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
                for row in rows.worst()[: self.most].tolist()
            ],
            "always_wrong": {"people": of_people.always, "by_chance": of_people.always_by_chance},
            "worst_people": [vars(one) for one in of_people.worst] if known else [],
        }

    def title(self) -> str:
        """Return how many images are predicted wrong, in one line."""
        people = len(self.judged.rows.people[0])
        return (
            f"{self.name}: {self.wrong:,} of {counted(self.images, 'image')} of "
            f"{counted(people, 'person', 'people')} are predicted wrong ({self.judged.kind})"
        )

    def display_table(self) -> Table:
        """Return the table to display: the worst mistakes, and the people with the most of them."""
        rows = self.judged.rows
        header, several = ["image", "label", "predicted", "confidence", "person"], len(rows.members) > 1
        cells: list[list[object]] = [
            [
                rows.ids[row],
                rows.classes[rows.labels[row]],
                rows.classes[rows.predicted[row]],
                f"{rows.confidence[row]:.3f}",
                rows.persons[row],
                *([f"{rows.agreement[row]} of {len(rows.members)}"] if several else []),
            ]
            for row in rows.worst()[: self.most].tolist()
        ]
        notes = []
        found = self.worst_people()
        if found.worst and self.judged.persons_known:
            listed = ", ".join(f"{one.person} ({one.wrong} of {one.images})" for one in found.worst[:3])
            notes.append(f"people with the most wrong images: {listed}")
        return Table(self.title(), [*header, *(["agreeing"] if several else [])], cells, (*notes, *self.notes), 3)

    def display_parts(self) -> Sequence[str]:
        """Return the confusion matrix, the people and the worst mistakes as pictures, as in the report."""
        from ensemble.report.mistakes.confusion import confusion_block
        from ensemble.report.mistakes.member_answers import mistake_pictures
        from ensemble.report.mistakes.wrong_people import people_blocks
        from ensemble.report.page.page import markup

        rows = self.judged.rows
        samples = [str(rows.ids[row]) for row in rows.worst()[:PICTURES].tolist()]
        blocks: list[Block] = [confusion_block(rows, confusion_of(rows), MAX_CLASSES)] if len(rows) else []
        if self.judged.persons_known:
            blocks += people_blocks(rows, True, self.people)
        pictures = thumbnails_of(samples, self.sources, self.root)
        if pictures:  # without them, the table says the same
            blocks += mistake_pictures(rows, lambda sample: pictures.get(sample, ""), PICTURES)
        return [markup(block, live=False) for block in blocks]


_KINDS = {
    "most": whole(1),
    "people": whole(1),
    "labels": optional(PATH),
    "root": PATH,
    "progress": PROGRESS,
}


def mistakes(
    what: Any,
    *,
    most: int = 40,
    people: int = 10,
    labels: str | Path | None = None,
    root: str | Path = ".",
    progress: bool | Progress = True,
) -> Mistakes | ColumnMistakes:
    """Return the worst mistakes and the people with the most wrong images.

    The same as the command ``ensemble mistakes``. Out-of-fold predictions are judged if there are any, else test
    predictions. The worst mistakes are those with the highest confidence in a wrong class. Of several labels each is a
    decision of its own; of numbers the largest differences are listed: the result is then a `ColumnMistakes`.

    Parameters
    ----------
    what : a run or runs (from `kfold` or `load_run`), a blend, a result of `tta`, names of these, or prediction files.
        Several runs are judged by their soft vote; the members of a blend are the runs that it was made of.
    most, people : number of mistakes and of people to show; `Mistakes.frame` has all mistakes.
    labels : true labels by id, for predictions without labels: a table with id, label and preferably person.
    root : the folder that holds ``runs/``.
    progress : False for no progress output.

    Raises
    ------
    UsageError : an argument of a wrong type.
    EnsembleError : files cannot be read or aligned, or no label is known.

    Examples
    --------
    >>> import ensemble as en
    >>> import numpy as np
    >>> mine = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]])
    >>> hers = np.array([[0.8, 0.2], [0.3, 0.7], [0.9, 0.1], [0.1, 0.9]])
    >>> y, person = ["cat", "dog", "dog", "dog"], ["p1", "p2", "p3", "p3"]
    >>> found = en.mistakes(en.blend({"mine": mine, "hers": hers}, y=y, groups=person))
    >>> found.wrong, found.images
    (1, 4)
    >>> found.frame()[["person", "label", "predicted", "confidence"]].values.tolist()
    [['p3', 'dog', 'cat', 0.8]]
    """
    log_in_notebook()
    check_arguments(locals(), _KINDS)
    place = Path(root)
    judged, sources, place = read_judged(what, None if labels is None else Path(labels), place, progress_of(progress))
    if isinstance(judged, ColumnPredictions):
        return ColumnMistakes(judged, most, sources, place, people)
    return Mistakes(judged, most, people, sources, place)
