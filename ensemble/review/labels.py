"""`ensemble.labels`: labels that out-of-fold votes contradict, as a table to fill in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemble.blending.labeled_predictions import ColumnPredictions
from ensemble.label_check.doubts import LabelDoubts, columns_of, find_doubts
from ensemble.review.column_labels import DoubtfulColumns
from ensemble.review.inputs import PICTURES, read_judged, thumbnails_of
from folds.errors import EnsembleError
from folds.utils.arguments import PATH, PROGRESS, check_arguments, whole
from folds.utils.bars import log_in_notebook, progress_of
from folds.utils.csv_table import csv_text
from folds.utils.display import Displayed, Table
from folds.utils.files import check_not_existing, write_atomic
from folds.utils.progress import Progress
from folds.utils.spreadsheet import guarded_columns
from folds.utils.text import counted

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class DoubtfulLabels(Displayed):
    """Labels in doubt. A doubt is a reason to look at an image, no proof that its label is wrong.

    Attributes
    ----------
    doubts : which labels are in doubt, and what the votes suggest.
    name : the name of the run or the blend, or ``soft vote of A, B``.
    most : the number of labels that are shown.
    notes : what the user should know about the files; warnings begin with ``warning: ``.
    sources : names and files, by which the images are found.
    root : the folder that holds ``runs/``.
    """

    doubts: LabelDoubts
    name: str
    most: int = 20
    notes: tuple[str, ...] = ()
    sources: tuple[str | Path, ...] = ()
    root: Path = Path()

    def __len__(self) -> int:
        return len(self.doubts.order)

    def frame(self) -> pd.DataFrame:
        """Return one row per label in doubt, the smallest vote for the label first, as `save` writes them."""
        import pandas as pd

        found = pd.DataFrame(columns_of(self.doubts))
        numbers = [name for name in found if name in ("confidence", "vote") or str(name).startswith("vote_")]
        return found.assign(**{name: pd.to_numeric(found[name]) for name in numbers})

    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write a table to fill in (new_label, and decision: drop, soften or keep), for `kfold`; return the file.

        Raises
        ------
        EnsembleError : the file exists and `force` is false.
        """
        check_not_existing(Path(path), "the table", force)
        write_atomic(Path(path), csv_text(guarded_columns(columns_of(self.doubts))))
        return Path(path)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain values that ``ensemble labels --json`` prints."""
        found, rows = self.doubts, self.doubts.rows
        return {
            "name": self.name,
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
                for row in found.order[: self.most].tolist()
            ],
            "attributes": [vars(one) for one in found.attributes],
        }

    def title(self) -> str:
        """Return how many labels are in doubt, in one line."""
        rows, unit = self.doubts.rows, "each image by its own vote"
        unit = "each person counts once" if self.doubts.unit == "person" else unit
        return (
            f"{self.name}: {counted(len(self), 'label')} of {counted(len(rows), 'image')} of "
            f"{counted(len(rows.people[0]), 'person', 'people')} in doubt (out-of-fold votes; {unit})"
        )

    def display_table(self) -> Table:
        """Return the table to display: the labels in doubt."""
        found, rows = self.doubts, self.doubts.rows
        header = ["image", "label", "suggested", "confidence", "vote for label", "agreeing", "person"]
        cells: list[list[object]] = [
            [
                rows.ids[row],
                rows.classes[rows.labels[row]],
                rows.classes[found.suggested[row]],
                f"{found.confidence[row]:.3f}",
                f"{found.vote[row]:.3f}",
                f"{found.agreement[row]} of {len(rows.members)}",
                rows.persons[row],
            ]
            for row in found.order[: self.most].tolist()
        ]
        notes = ["a doubt is a reason to look at an image, no proof that its label is wrong"]
        if found.attributes:
            notes.append(f"{counted(len(found.attributes), 'attribute')} of people in doubt: .to_dict()['attributes']")
        return Table(self.title(), header, cells, (*notes, *self.notes), 3)

    def display_parts(self) -> Sequence[str]:
        """Return the doubtful images as pictures, as in the report."""
        from ensemble.report.labels.labels import doubt_pictures
        from ensemble.report.page.page import markup

        if not len(self):
            return ()
        samples = [str(self.doubts.rows.ids[row]) for row in self.doubts.order[:PICTURES].tolist()]
        pictures = thumbnails_of(samples, self.sources, self.root)
        if not pictures:  # the table says the same
            return ()
        block = doubt_pictures(self.doubts, lambda sample: pictures.get(sample, ""), PICTURES)
        return (markup(block, live=False),)


_KINDS = {"most": whole(1), "root": PATH, "progress": PROGRESS}


def labels(
    what: Any, *, most: int = 20, root: str | Path = ".", progress: bool | Progress = True
) -> DoubtfulLabels | DoubtfulColumns:
    """Return the labels that out-of-fold votes contradict; nothing is changed.

    The same as the command ``ensemble labels``. Needs cleanlab. Where all images of each person have one label, each
    person counts once. ``kfold(..., relabel=, drop=, soften=)`` trains with the table that you fill in.

    Of several labels each is judged by itself, and numbers are in doubt if their difference is unusual. The result is
    then a `DoubtfulColumns`, whose table is not for training, and cleanlab is not needed.

    Parameters
    ----------
    what : a run or runs (from `kfold` or `load_run`), a blend, names of these, or prediction files, as in `mistakes`.
    most : number of labels to show; `DoubtfulLabels.frame` has all that are in doubt.
    root : the folder that holds ``runs/``.
    progress : False for no progress output.

    Raises
    ------
    UsageError : an argument of a wrong type.
    EnsembleError : cleanlab is not installed, files cannot be read or aligned, there are no out-of-fold predictions,
        or no label is known.

    Examples
    --------
    Write the table, fill it in, and train with it::

        en.labels(["swin", "resnet18"]).save("labels.csv")
        en.kfold(data, arch=["swin"], name="clean", relabel="labels.csv", drop="labels.csv")

    What does not exist is named:

    >>> import ensemble as en
    >>> en.labels("swim.npy")
    Traceback (most recent call last):
    ...
    folds.errors.EnsembleError: file not found: swim.npy
    """
    log_in_notebook()
    check_arguments(locals(), _KINDS)
    judged, sources, place = read_judged(what, None, Path(root), progress_of(progress))
    if judged.split != "oof":
        raise EnsembleError(
            f"labels are checked by out-of-fold predictions, found {judged.kind} of {judged.name}",
            hint="test labels are never changed: a score on changed labels measures the changes",
        )
    if isinstance(judged, ColumnPredictions):
        return DoubtfulColumns(judged, most, sources, place)
    found = find_doubts(judged.rows, judged.class_attributes)
    return DoubtfulLabels(found, judged.name, most, judged.notes, sources, place)
