"""What a vote is worth on rows with known labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.split import AlignedSplit
from folds.errors import EnsembleError, close_matches
from folds.utils.numeric import factorize


@dataclass(frozen=True)
class Truth:
    """(n,) the class index of each row, −1 where it is not known, and (n,) a number for each person."""

    labels: NDArray[np.int64]
    persons: NDArray[np.int64]

    def take(self, index: NDArray[np.int64]) -> Truth:
        """The rows at `index`."""
        return Truth(self.labels[index], self.persons[index])


def labels_and_groups(split: AlignedSplit, per_person: bool = False) -> Truth | None:
    """Return the true classes and the people of a split; None where no label is known.

    Raises
    ------
    EnsembleError : a label is no class; or persons are not known and `per_person`.
    """
    labels, persons = split.rows.labels, split.rows.persons
    if labels is None or not (labels != "").any():
        return None
    code: dict[str, int] = {name: i for i, name in enumerate(split.classes)} | {"": -1}
    strange = sorted(set(labels.tolist()) - set(code))
    if strange:
        close = close_matches(strange[0], split.classes)
        raise EnsembleError(
            f"{int(np.isin(labels, strange).sum()):,} {split.name} labels are none of the {len(split.classes)} classes, e.g. '{strange[0]}'"
            + (f"; did you mean {' or '.join(close)}?" if close else ""),
            hint=f"the classes are {', '.join(split.classes[:30])}; give the right labels with `labels=FILE.csv`",
        )
    if persons is None and per_person:
        raise EnsembleError(
            f"`per_person`: the persons of the {split.name} samples are not known",
            hint="`labels=FILE.csv` with id, label, person",
        )
    people = factorize(split.rows.ids if persons is None else persons)[1]
    return Truth(np.array([code[name] for name in labels.tolist()], dtype=np.int64), people)


def truth_notes(split: AlignedSplit, truth: Truth) -> list[str]:
    """Return what a reader of the score must know of the labels and the people of a split."""
    notes = []
    if split.rows.persons is None:
        notes.append(
            f"persons of the {split.name} samples are not known: the interval is over images, and too narrow if people have several"
        )
    unlabelled = int((truth.labels < 0).sum())
    if unlabelled:
        notes.append(f"{unlabelled:,} of {len(truth.labels):,} {split.name} samples have no label and are not scored")
    return notes
