"""Collect the true labels and the people of a split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.split import AlignedSplit
from folds.errors import EnsembleError, close_matches
from folds.metrics.scored_units import known_rows, unlabeled_of_known_people, unlabeled_text
from folds.predictions.label_columns import encode_labels
from folds.utils.numeric import factorize


@dataclass(frozen=True)
class GroundTruth:
    """True labels: (n,) the class index of each row, −1 if unknown, and (n,) the index of its person (group).

    Of several labels or numbers, (n, columns) float64, nan where a value is unknown.
    """

    labels: NDArray[Any]
    persons: NDArray[np.int64]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Return (n,) whether the label of each row is known; of several labels or numbers, any of them."""
        return known_rows(self.labels)

    def take(self, index: NDArray[np.int64]) -> GroundTruth:
        """Return the rows at `index`."""
        return GroundTruth(self.labels[index], self.persons[index])


def labels_and_groups(split: AlignedSplit, per_person: bool = False) -> GroundTruth | None:
    """Return the true classes and the people of a split; None if no label is known.

    Raises
    ------
    EnsembleError : a label is not one of the classes, or `per_person` is True and persons are unknown.
    """
    labels = split.rows.labels
    if labels is None or not (labels != "").any():
        return None
    if split.has_columns:
        return GroundTruth(encode_labels(labels, split.classes, split.task), _people(split, per_person))
    code: dict[str, int] = {name: i for i, name in enumerate(split.classes)} | {"": -1}
    unknown = sorted(set(labels.tolist()) - set(code))
    if unknown:
        close = close_matches(unknown[0], split.classes)
        raise EnsembleError(
            f"{int(np.isin(labels, unknown).sum()):,} {split.name} labels are not among the "
            f"{len(split.classes)} classes, e.g. '{unknown[0]}'"
            + (f"; did you mean {' or '.join(close)}?" if close else ""),
            hint=f"the classes are {', '.join(split.classes[:30])}; pass the right labels with `labels=FILE.csv`",
        )
    people = _people(split, per_person)
    return GroundTruth(np.array([code[name] for name in labels.tolist()], dtype=np.int64), people)


def _people(split: AlignedSplit, per_person: bool) -> NDArray[np.int64]:
    """Return (n,) the index of the person of each row; raise EnsembleError if `per_person` and persons are unknown."""
    persons = split.rows.persons
    if persons is None and per_person:
        raise EnsembleError(
            f"`per_person` needs the persons of the {split.name} samples, which are unknown",
            hint="pass `labels=FILE.csv` with columns id, label, person",
        )
    return factorize(split.rows.ids if persons is None else persons)[1]


def truth_notes(split: AlignedSplit, truth: GroundTruth, by_person: bool = False) -> list[str]:
    """Return notes on missing labels and people of a split, which affect its score.

    Parameters
    ----------
    by_person : whether people are scored, and not images.
    """
    notes = []
    if split.rows.persons is None:
        notes.append(
            f"persons of the {split.name} samples are unknown: the 95% CI is over images, "
            "and is too narrow if people have several images"
        )
    unlabeled = int((~truth.known).sum())
    if unlabeled:
        what = f"{unlabeled:,} of {len(truth.labels):,} {split.name} samples have no label and "
        inside = unlabeled_of_known_people(truth.labels, truth.persons) if by_person else 0
        notes.append(what + unlabeled_text(unlabeled, inside))
    return notes
