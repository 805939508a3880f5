"""Folds by person: made by scikit-learn's StratifiedGroupKFold, checked and counted."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from folds.assignment import FoldAssignment, load_folds, read_folds, save_folds
from folds.errors import EnsembleError, UsageError, collected
from folds.samples import SampleTable

__all__ = ["FoldAssignment", "check_folds", "fold_table", "load_folds", "people_per_class", "read_folds", "save_folds", "split_by_person"]


def split_by_person(table: SampleTable, k: int, seed: int = 0, stratify: NDArray[np.str_] | None = None) -> FoldAssignment:
    """Give every person a fold so that the classes are spread evenly.

    The assignment is that of ``sklearn.model_selection.StratifiedGroupKFold(k, shuffle=True, random_state=seed)``, save
    that no fold is left empty. It depends on the persons' names and samples, not on the order of the rows.

    Parameters
    ----------
    stratify : (n,) str, what to spread evenly instead of the labels.

    Raises
    ------
    UsageError : k is below 2, or the seed is none that NumPy takes.
    EnsembleError : the table has no labels or persons, or fewer people than folds.
    """
    if k < 2:
        raise UsageError(f"--k must be 2 or more, found {k}", hint="each fold is predicted by a model trained on the others")
    if not 0 <= seed < 2**32:
        raise UsageError(f"--seed must be 0 to {2**32 - 1}, found {seed}")
    if table.labels is None or table.persons is None:
        missing = "labels" if table.labels is None else "persons"
        raise EnsembleError(f"{table.source} has no {missing}: it cannot be split by person")
    people, groups = np.unique(table.persons, return_inverse=True)
    if len(people) == 1:
        raise EnsembleError(
            f"all {len(table):,} samples of {table.source} are of one person, '{people[0]}': they cannot be split",
            hint="is --person the right column? --person-regex '(.+)' makes every image its own person",
        )
    if k > len(people):
        raise EnsembleError(f"{k} folds need at least {k} people, {table.source} has {len(people)}", hint=f"try --k {min(5, len(people))}")
    _, strata = np.unique(table.labels if stratify is None else stratify, return_inverse=True)
    fold = _stratified_group_folds(strata, groups, k, seed)
    return FoldAssignment(table.ids, table.labels, table.persons, fold, k, seed, 0, table.sha)


def _stratified_group_folds(strata: NDArray[np.integer], groups: NDArray[np.integer], k: int, seed: int) -> NDArray[np.int64]:
    from sklearn.model_selection import StratifiedGroupKFold

    if np.bincount(strata).max() < k:
        # scikit-learn refuses this; with so few rows of each class there is nothing to spread but their number.
        strata = np.zeros_like(strata)
    fold = np.full(len(strata), -1, dtype=np.int64)
    with warnings.catch_warnings():
        # It counts rows where people count; `check_folds` says it better.
        warnings.simplefilter("ignore", UserWarning)
        splitter = StratifiedGroupKFold(k, shuffle=True, random_state=seed)
        for i, (_, validation) in enumerate(splitter.split(np.zeros(len(strata)), strata, groups)):
            fold[validation] = i
    return _fill_empty(fold, groups, k)


def _fill_empty(fold: NDArray[np.int64], groups: NDArray[np.integer], k: int) -> NDArray[np.int64]:
    """`fold` with no empty fold: the person of the fewest rows moves in from the fold with the most people.

    scikit-learn 1.9 can leave a fold empty though there are people enough: it compares standard deviations that differ
    by rounding alone.
    """
    _, first, sizes = np.unique(groups, return_index=True, return_counts=True)
    for empty in sorted(set(range(k)) - set(fold.tolist())):
        people = np.bincount(fold[first], minlength=k)
        candidates = np.flatnonzero(fold[first] == people.argmax())
        fold[groups == candidates[sizes[candidates].argmin()]] = empty
    return fold


def check_folds(assignment: FoldAssignment, classes: Sequence[str], class_attributes: Mapping[str, Mapping[str, str]] | None = None) -> list[str]:
    """What is wrong with an assignment: an error for what makes its scores untrue, a warning for what weakens them.

    Returns
    -------
    warnings : a line for each class that is missing from a fold's training or validation part, counted in people.

    Raises
    ------
    EnsembleError : a person stands in two folds, a fold number is outside 0 … k-1, or a fold is empty.
    """
    fold, k = assignment.fold, assignment.k
    outside = np.flatnonzero((fold < 0) | (fold >= k))
    if len(outside):
        raise collected([f"id {assignment.ids[i]}: fold {fold[i]}" for i in outside], f"samples are in none of the folds 0 to {k - 1}")
    _check_persons(assignment)
    empty = sorted(set(range(k)) - set(fold.tolist()))
    if empty:
        raise EnsembleError(
            f"{'folds' if len(empty) > 1 else 'fold'} {_listed(empty)} of {k} {'are' if len(empty) > 1 else 'is'} empty",
            hint="folds are counted from 0 without a gap; make them again with fewer: ensemble folds --k",
        )
    presence = _people(assignment, classes)
    found = []
    for name, people in zip(classes, presence):
        total = int(people.sum())
        where = [f"validation of {_folds(absent)}" for absent in [np.flatnonzero(people == 0)] if len(absent)]
        where += [f"training of {_folds(absent)}" for absent in [np.flatnonzero(people == total)] if len(absent)]
        if total == 0:
            found.append(f"class {_meaning(name, class_attributes)}: nobody has it")
        elif where:
            advice = "; another --seed may spread it" if total >= k else ""
            counted = f"{total:,} {'person' if total == 1 else 'people'} for {k} folds"
            found.append(f"class {_meaning(name, class_attributes)}: {counted}: absent from {' and from '.join(where)}{advice}")
    return found


def _check_persons(assignment: FoldAssignment) -> None:
    people, codes = np.unique(assignment.persons, return_inverse=True)
    pairs, counts = np.unique(np.stack([codes, assignment.fold]), axis=1, return_counts=True)
    if pairs.shape[1] == len(people):
        return
    lines = []
    for code in np.flatnonzero(np.bincount(pairs[0]) > 1):
        mine = pairs[0] == code
        lines.append(f"{people[code]}: " + ", ".join(f"fold {f} ({n} samples)" for f, n in zip(pairs[1][mine], counts[mine])))
    raise collected(
        lines,
        f"of {len(people):,} people stand in more than one fold: what is trained on them is scored on them",
        hint="split by person: ensemble folds -o folds.csv",
    )


def _meaning(name: str, class_attributes: Mapping[str, Mapping[str, str]] | None) -> str:
    meaning = " ".join((class_attributes or {}).get(name, {}).values())
    return f"{name} ({meaning})" if meaning and meaning != name else name


def _listed(numbers: Sequence[int] | NDArray[np.integer]) -> str:
    return ", ".join(map(str, numbers))


def _folds(numbers: NDArray[np.integer]) -> str:
    return f"fold{'s' if len(numbers) > 1 else ''} {_listed(numbers)}"


def _codes(assignment: FoldAssignment, classes: Sequence[str]) -> NDArray[np.int64]:
    code = {name: i for i, name in enumerate(classes)}
    outside = sorted(set(assignment.labels.tolist()) - set(code))
    if outside:
        raise EnsembleError(f"labels of the folds are none of the declared classes: {', '.join(outside[:10])}", hint=f"classes: {', '.join(classes)}")
    return np.array([code[label] for label in assignment.labels.tolist()], dtype=np.int64)


def _people(assignment: FoldAssignment, classes: Sequence[str]) -> NDArray[np.int64]:
    """(classes, k): the people who have the class, by fold."""
    _, persons = np.unique(assignment.persons, return_inverse=True)
    unique = np.unique(np.stack([persons, _codes(assignment, classes), assignment.fold]), axis=1)
    counts = np.zeros((len(classes), assignment.k), dtype=np.int64)
    np.add.at(counts, (unique[1], unique[2]), 1)
    return counts


def people_per_class(assignment: FoldAssignment, classes: Sequence[str]) -> list[int]:
    """How many people have at least one sample of each class."""
    return [len(np.unique(assignment.persons[assignment.labels == name])) for name in classes]


def fold_table(assignment: FoldAssignment, classes: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Counts for printing.

    Returns
    -------
    images : (classes, k) the images of each class in each fold.
    people : (k,) the people in each fold.
    """
    images = np.zeros((len(classes), assignment.k), dtype=np.int64)
    np.add.at(images, (_codes(assignment, classes), assignment.fold), 1)
    _, first = np.unique(assignment.persons, return_index=True)
    return images, np.bincount(assignment.fold[first], minlength=assignment.k)
