"""Check a split: classes missing from folds, people in several folds, counts of images and people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError, combine_errors
from folds.metrics.columns import counted_cells, units_with
from folds.metrics.task_names import COLUMN_TASKS, MULTILABEL
from folds.predictions.label_columns import label_matrix
from folds.utils.numeric import distinct_numbers, groups_in_several_folds


class Assigned(Protocol):
    """The attributes of a `folds.splits.assignment.FoldAssignment` used here; it calls these functions itself."""

    @property
    def ids(self) -> NDArray[np.str_]:
        """Return (n,) the ids of the samples."""

    @property
    def labels(self) -> NDArray[np.str_]:
        """Return (n,) the classes."""

    @property
    def persons(self) -> NDArray[np.str_]:
        """Return (n,) the persons."""

    @property
    def fold(self) -> NDArray[np.int64]:
        """Return (n,) the fold of each sample."""

    @property
    def k(self) -> int:
        """Return the number of folds."""

    @property
    def factorized_persons(self) -> tuple[list[str], NDArray[np.int64]]:
        """Return the people, and (n,) the index of each sample's person among them."""

    @property
    def factorized_labels(self) -> tuple[list[str], NDArray[np.int64]]:
        """Return the labels that occur, and (n,) the index of each sample's label among them."""

    @property
    def task(self) -> str:
        """Return what the labels are."""

    @property
    def held_out(self) -> bool:
        """Return whether this is one held-out part instead of k folds."""


def check_folds(
    assignment: Assigned, classes: Sequence[str], class_attributes: Mapping[str, Mapping[str, str]] | None = None
) -> list[str]:
    """Return warnings about an assignment; raise an error if its scores would be invalid.

    Returns
    -------
    warnings : a line for each class that is missing from the training or validation part of a fold, with its number of
        people.

    Raises
    ------
    EnsembleError : a person is in two folds, a fold number is outside 0 … k-1, or a fold is empty.
    """
    fold, k = assignment.fold, assignment.k
    lowest = -1 if assignment.held_out else 0
    outside = np.flatnonzero((fold < lowest) | (fold >= k))
    if len(outside):
        raise combine_errors(
            [f"id {assignment.ids[i]}: fold {fold[i]}" for i in outside],
            f"samples are in none of the folds {lowest} to {k - 1}",
        )
    _check_persons(assignment)
    empty = sorted(set(range(lowest, k)) - set(fold.tolist()))
    if assignment.held_out and empty:
        raise EnsembleError(
            f"all {len(fold):,} samples are in fold {-1 - empty[0]}",
            hint="expected samples both in fold 0 (held out) and in fold -1 (training)",
        )
    if empty:
        raise EnsembleError(
            f"{'folds' if len(empty) > 1 else 'fold'} {_listed(empty)} of {k} {'are' if len(empty) > 1 else 'is'} "
            "empty",
            hint="folds are counted from 0 without gaps; for fewer folds: ensemble folds --k",
        )
    found = []
    for subject, everywhere in _presence(assignment, classes, class_attributes):
        people, total = everywhere[:k], int(everywhere.sum())
        missing = [f"validation of {_folds(empty)}" for empty in [np.flatnonzero(people == 0)] if len(empty)]
        missing += [f"training of {_folds(empty)}" for empty in [np.flatnonzero(people == total)] if len(empty)]
        if total == 0:
            found.append(f"{subject}: no person has it")
        elif missing:
            parts = 2 if assignment.held_out else k
            advice = "; another seed may spread it" if total >= parts else ""
            counted = (
                f"{total:,} {'person' if total == 1 else 'people'} for "
                f"{'the held-out part' if assignment.held_out else f'{k} folds'}"
            )
            found.append(f"{subject}: {counted}: absent from {' and from '.join(missing)}{advice}")
    return found


def _check_persons(assignment: Assigned) -> None:
    """Raise EnsembleError if a person is in several folds."""
    people, codes = assignment.factorized_persons
    people_in_several_folds = groups_in_several_folds(
        codes, assignment.fold + 1
    )  # + 1, because fold -1 (training only) counts as a fold
    if not len(people_in_several_folds):
        return
    lines = []
    rows = np.flatnonzero(np.isin(codes, people_in_several_folds))
    pairs, samples = np.unique(np.stack([codes[rows], assignment.fold[rows]]), axis=1, return_counts=True)
    for code, mine in groupby(zip(*pairs.tolist(), samples.tolist(), strict=True), key=itemgetter(0)):
        lines.append(
            f"{people[code]}: " + ", ".join(f"fold {f} ({n} sample{'s' if n > 1 else ''})" for _, f, n in mine)
        )
    raise combine_errors(
        lines,
        f"of {len(people):,} people are in more than one fold: models would be scored on people they were trained on",
        hint="split by person: ensemble folds -o folds.csv",
    )


def _pair(first: NDArray[np.int64], second: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Return (n,) one number for each pair of `first` and `second`, where `second` is below `width`."""
    return first * width + second


def _described(name: str, class_attributes: Mapping[str, Mapping[str, str]] | None) -> str:
    meaning = " ".join((class_attributes or {}).get(name, {}).values())
    return f"{name} ({meaning})" if meaning and meaning != name else name


def _listed(numbers: Sequence[int] | NDArray[np.integer]) -> str:
    return ", ".join(map(str, numbers))


def _folds(numbers: NDArray[np.integer]) -> str:
    return f"fold{'s' if len(numbers) > 1 else ''} {_listed(numbers)}"


def _codes(assignment: Assigned, classes: Sequence[str]) -> NDArray[np.int64]:
    code = {name: i for i, name in enumerate(classes)}
    names, codes = assignment.factorized_labels
    outside = sorted(set(names) - set(code))
    if outside:
        raise EnsembleError(
            f"labels of the folds are not among the declared classes: {', '.join(outside[:10])}",
            hint=f"declared classes: {', '.join(classes)}",
        )
    return np.array([code[name] for name in names], dtype=np.int64)[codes]


def _presence(
    assignment: Assigned, classes: Sequence[str], class_attributes: Mapping[str, Mapping[str, str]] | None
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield what every fold should have, as text, and (k + 1,) the people with it; the last is fold -1."""
    if assignment.task not in COLUMN_TASKS:
        for name, people in zip(classes, _people(assignment, classes), strict=True):
            yield f"class {_described(name, class_attributes)}", people
        return
    values = label_matrix(assignment.labels, classes, assignment.task)
    folds = assignment.k + 1
    owners, fold = assignment.factorized_persons[1], assignment.fold % folds

    def people_in_folds(rows: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(distinct_numbers(_pair(owners[rows], fold[rows], folds)) % folds, minlength=folds)

    what = "label" if assignment.task == MULTILABEL else "number"
    counted = counted_cells(values, assignment.task)
    for name, column, rows in zip(classes, values.T, counted.T, strict=True):
        yield f"{what} {name}", people_in_folds(rows)
        if assignment.task == MULTILABEL and (without := people_in_folds(column == 0)).any():
            yield f"images known to be without {name}", without


def _people(assignment: Assigned, classes: Sequence[str]) -> NDArray[np.int64]:
    """Return (classes, k + 1): people with each class in each fold; the last column is fold -1 (training only)."""
    width, folds = len(classes), assignment.k + 1
    seen = _pair(assignment.factorized_persons[1], _codes(assignment, classes), width)
    # Fold -1 (training only) becomes the last column.
    unique = distinct_numbers(_pair(seen, assignment.fold % folds, folds))
    counts = np.bincount(unique % (width * folds), minlength=width * folds)
    return counts.reshape(width, folds)


def people_per_class(assignment: Assigned, classes: Sequence[str]) -> list[int]:
    """Return the number of people with at least one sample of each class, label or known number."""
    if assignment.task in COLUMN_TASKS:
        values = label_matrix(assignment.labels, classes, assignment.task)
        return units_with(counted_cells(values, assignment.task), assignment.factorized_persons[1]).tolist()
    names, codes = assignment.factorized_labels
    unique = distinct_numbers(_pair(assignment.factorized_persons[1], codes, len(names)))
    people = dict(zip(names, np.bincount(unique % len(names), minlength=len(names)).tolist(), strict=True))
    return [people.get(name, 0) for name in classes]


def fold_counts(assignment: Assigned, classes: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return counts of images and people, for printing.

    Returns
    -------
    images : (classes, k) images of each class in each fold; those with each label, or with a known number.
    people : (k,) people in each fold.
        With one held-out part, both have a second column: samples used only for training.
    """
    columns = 2 if assignment.held_out else assignment.k
    images = np.zeros((len(classes), columns), dtype=np.int64)
    fold = assignment.fold % columns  # fold -1 becomes the last column
    if assignment.task in COLUMN_TASKS:
        counted = counted_cells(label_matrix(assignment.labels, classes, assignment.task), assignment.task)
        for at, column in enumerate(counted.T):
            images[at] = np.bincount(fold[column], minlength=columns)
    else:
        np.add.at(images, (_codes(assignment, classes), fold), 1)
    names, codes = assignment.factorized_persons
    fold_of = np.zeros(len(names), dtype=np.int64)
    fold_of[codes[::-1]] = fold[::-1]  # the fold of the first sample, if a person is in several folds
    return images, np.bincount(fold_of, minlength=columns)
