"""Check a split: classes absent from folds, people in several folds, counts of images and people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError, combine_errors
from folds.utils.numeric import distinct_numbers, groups_in_several_folds


class Assigned(Protocol):
    """What is checked: a `folds.splits.assignment.FoldAssignment`, which itself calls these functions."""

    @property
    def ids(self) -> NDArray[np.str_]:
        """(n,) the samples."""

    @property
    def labels(self) -> NDArray[np.str_]:
        """(n,) their classes."""

    @property
    def persons(self) -> NDArray[np.str_]:
        """(n,) whose they are."""

    @property
    def fold(self) -> NDArray[np.int64]:
        """(n,) the fold of each."""

    @property
    def k(self) -> int:
        """How many folds."""

    @property
    def person_codes(self) -> tuple[list[str], NDArray[np.int64]]:
        """The people, and (n,) the position of each sample's person among them."""

    @property
    def label_codes(self) -> tuple[list[str], NDArray[np.int64]]:
        """The labels that occur, and (n,) the position of each sample's label among them."""

    @property
    def held_out(self) -> bool:
        """Whether this is one part held out, not k folds."""


def check_folds(
    assignment: Assigned, classes: Sequence[str], class_attributes: Mapping[str, Mapping[str, str]] | None = None
) -> list[str]:
    """What is wrong with an assignment: an error for what makes its scores untrue, a warning for what weakens them.

    Returns
    -------
    warnings : a line for each class that is missing from a fold's training or validation part, counted in people.

    Raises
    ------
    EnsembleError : a person stands in two folds, a fold number is outside 0 … k-1, or a fold is empty.
    """
    fold, k = assignment.fold, assignment.k
    least = -1 if assignment.held_out else 0
    outside = np.flatnonzero((fold < least) | (fold >= k))
    if len(outside):
        raise combine_errors(
            [f"id {assignment.ids[i]}: fold {fold[i]}" for i in outside],
            f"samples are in none of the folds {least} to {k - 1}",
        )
    _check_persons(assignment)
    empty = sorted(set(range(least, k)) - set(fold.tolist()))
    if assignment.held_out and empty:
        raise EnsembleError(
            f"all {len(fold):,} samples are in fold {-1 - empty[0]}",
            hint="fold 0 is held out, fold -1 is trained on: neither is empty",
        )
    if empty:
        raise EnsembleError(
            f"{'folds' if len(empty) > 1 else 'fold'} {_listed(empty)} of {k} {'are' if len(empty) > 1 else 'is'} "
            "empty",
            hint="folds are counted from 0 without a gap; make them again with fewer: ensemble folds --k",
        )
    presence = _people(assignment, classes)
    found = []
    for name, everywhere in zip(classes, presence):
        people, total = everywhere[:k], int(everywhere.sum())
        where = [f"validation of {_folds(absent)}" for absent in [np.flatnonzero(people == 0)] if len(absent)]
        where += [f"training of {_folds(absent)}" for absent in [np.flatnonzero(people == total)] if len(absent)]
        if total == 0:
            found.append(f"class {_meaning(name, class_attributes)}: nobody has it")
        elif where:
            parts = 2 if assignment.held_out else k
            advice = "; another --seed may spread it" if total >= parts else ""
            counted = (
                f"{total:,} {'person' if total == 1 else 'people'} for "
                f"{'the held-out part' if assignment.held_out else f'{k} folds'}"
            )
            found.append(
                f"class {_meaning(name, class_attributes)}: {counted}: absent from {' and from '.join(where)}{advice}"
            )
    return found


def _check_persons(assignment: Assigned) -> None:
    """Raise EnsembleError where a person stands in several folds."""
    people, codes = assignment.person_codes
    torn = groups_in_several_folds(codes, assignment.fold + 1)  # fold -1, only trained on, is one, too
    if not len(torn):
        return
    lines = []
    rows = np.flatnonzero(np.isin(codes, torn))
    pairs, samples = np.unique(np.stack([codes[rows], assignment.fold[rows]]), axis=1, return_counts=True)
    for code, mine in groupby(zip(*pairs.tolist(), samples.tolist(), strict=True), key=itemgetter(0)):
        lines.append(f"{people[code]}: " + ", ".join(f"fold {f} ({n} samples)" for _, f, n in mine))
    raise combine_errors(
        lines,
        f"of {len(people):,} people stand in more than one fold: what is trained on them is scored on them",
        hint="split by person: ensemble folds -o folds.csv",
    )


def _pair(first: NDArray[np.int64], second: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Return one number for each pair (n,) of `first` and `second`, which is below `width`."""
    return first * width + second


def _meaning(name: str, class_attributes: Mapping[str, Mapping[str, str]] | None) -> str:
    meaning = " ".join((class_attributes or {}).get(name, {}).values())
    return f"{name} ({meaning})" if meaning and meaning != name else name


def _listed(numbers: Sequence[int] | NDArray[np.integer]) -> str:
    return ", ".join(map(str, numbers))


def _folds(numbers: NDArray[np.integer]) -> str:
    return f"fold{'s' if len(numbers) > 1 else ''} {_listed(numbers)}"


def _codes(assignment: Assigned, classes: Sequence[str]) -> NDArray[np.int64]:
    code = {name: i for i, name in enumerate(classes)}
    names, codes = assignment.label_codes
    outside = sorted(set(names) - set(code))
    if outside:
        raise EnsembleError(
            f"labels of the folds are none of the declared classes: {', '.join(outside[:10])}",
            hint=f"classes: {', '.join(classes)}",
        )
    return np.array([code[name] for name in names], dtype=np.int64)[codes]


def _people(assignment: Assigned, classes: Sequence[str]) -> NDArray[np.int64]:
    """(classes, k + 1): the people who have the class, by fold; in the last column those who are only trained on (fold
    -1).
    """
    width, folds = len(classes), assignment.k + 1
    seen = _pair(assignment.person_codes[1], _codes(assignment, classes), width)
    # Fold -1, trained on only, is the last.
    unique = distinct_numbers(_pair(seen, assignment.fold % folds, folds))
    counts = np.bincount(unique % (width * folds), minlength=width * folds)
    return counts.reshape(width, folds)


def people_per_class(assignment: Assigned, classes: Sequence[str]) -> list[int]:
    """Return how many people have at least one sample of each class."""
    names, codes = assignment.label_codes
    unique = distinct_numbers(_pair(assignment.person_codes[1], codes, len(names)))
    people = dict(zip(names, np.bincount(unique % len(names), minlength=len(names)).tolist(), strict=True))
    return [people.get(name, 0) for name in classes]


def fold_counts(assignment: Assigned, classes: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Counts for printing.

    Returns
    -------
    images : (classes, k) the images of each class in each fold.
    people : (k,) the people in each fold.
        Where one part is held out, both have a second column: what is only trained on.
    """
    columns = 2 if assignment.held_out else assignment.k
    images = np.zeros((len(classes), columns), dtype=np.int64)
    fold = assignment.fold % columns  # -1 is the last
    np.add.at(images, (_codes(assignment, classes), fold), 1)
    names, codes = assignment.person_codes
    fold_of = np.zeros(len(names), dtype=np.int64)
    fold_of[codes[::-1]] = fold[::-1]  # of the first sample, should a person be in several folds
    return images, np.bincount(fold_of, minlength=columns)
