"""Folds by person: made as scikit-learn's StratifiedGroupKFold makes them, repaired, checked and counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from folds.data.table import SampleTable
from folds.errors import EnsembleError, UsageError, collected
from folds.splits.assignment import FoldAssignment, load_folds, read_folds, save_folds
from folds.splits.greedy import fill_empty, greedy_folds
from folds.splits.repair import balance, repair
from folds.splits.strata import People, people_of

__all__ = [
    "FoldAssignment",
    "check_folds",
    "fold_table",
    "hold_out",
    "load_folds",
    "people_for_folds",
    "people_per_class",
    "read_folds",
    "save_folds",
    "split_by_person",
]
Columns = Sequence[NDArray[np.str_]]


def split_by_person(
    table: SampleTable, k: int, seed: int = 0, stratify: NDArray[np.str_] | Columns | None = None, repaired: bool = True
) -> FoldAssignment:
    """Give every person a fold so that the classes are spread evenly.

    The assignment is that of ``sklearn.model_selection.StratifiedGroupKFold(k, shuffle=True, random_state=seed)``, save
    that no fold is left empty, and that it is improved where a fold lacks a class that it could have, or the balance is
    poor (`folds.splits.repair.repair` has the rule). It depends on the persons' names and samples, not on the order of the rows.

    Parameters
    ----------
    stratify : (n,) str, or several such columns: what to spread evenly instead of the labels (`folds.splits.strata.people_of`).
    repaired : False leaves the assignment as scikit-learn makes it.

    Raises
    ------
    UsageError : k is below 2, or the seed is none that NumPy takes.
    EnsembleError : the table has no labels or persons, or fewer people than folds.
    """
    people = people_for_folds(table, k, seed, stratify)
    fold, changes = fill_empty(greedy_folds(people.counts, people.sizes, k, seed), people.sizes, k), None
    if repaired:
        fold, changes = repair(people, fold, [1 / k] * k, seed)
    return assigned(table, fold[people.groups], k, seed, repair=changes)


def assigned(table: SampleTable, fold: NDArray[np.int64], k: int, seed: int, **more: object) -> FoldAssignment:
    """The assignment of the rows of a labelled `table`; fold (n,)."""
    assert table.labels is not None  # noqa: S101 - people_of has seen to it
    assert table.persons is not None  # noqa: S101
    return FoldAssignment(table.ids, table.labels, table.persons, fold, k, seed, table_sha=table.sha, **more)  # type: ignore[arg-type]


def people_for_folds(table: SampleTable, k: int, seed: int, stratify: NDArray[np.str_] | Columns | None = None) -> People:
    """The people of `table`, where k folds of them can be made; raises what `split_by_person` says."""
    if k < 2:
        raise UsageError(f"--k must be 2 or more, found {k}", hint="each fold is predicted by a model trained on the others")
    _check_seed(seed)
    people = people_of(table, [stratify] if isinstance(stratify, np.ndarray) else stratify, k)
    if k > len(people):
        raise EnsembleError(f"{k} folds need at least {k} people, {table.source} has {len(people)}", hint=f"try --k {min(5, len(people))}")
    return people


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise UsageError(f"--seed must be 0 to {2**32 - 1}, found {seed}")


def hold_out(
    table: SampleTable, share: float, seed: int = 0, stratify: NDArray[np.str_] | Columns | None = None, repaired: bool = True
) -> FoldAssignment:
    """One split by person: about `share` of the samples in fold 0, held out; the others in fold -1, only ever trained on.

    The rule that makes k folds, with two of unequal size; with `repaired`, moves and swaps bring the size within a
    twentieth of what was asked, where people allow, and the classes nearer to their shares.

    Raises
    ------
    UsageError : `share` is not between 0 and 1, or the seed is none that NumPy takes.
    EnsembleError : the table has no labels or persons, or one person only.
    """
    if not 0 < share < 1:
        raise UsageError(f"--holdout must be above 0 and below 1, found {share:g}", hint="--holdout .1 holds out a tenth of the images")
    _check_seed(seed)
    # A joint value of p people can be on both sides if p · share is a person or more.
    people = people_of(table, [stratify] if isinstance(stratify, np.ndarray) else stratify, max(2, min(round(1 / share), len(table))))
    shares = (share, 1 - share)
    part = fill_empty(greedy_folds(people.counts, people.sizes, shares, seed), people.sizes, 2)
    if repaired:
        part = balance(people, part, shares, np.random.default_rng([seed, len(people)]))
    return assigned(table, -part[people.groups], 1, seed)


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
    least = -1 if assignment.held_out else 0
    outside = np.flatnonzero((fold < least) | (fold >= k))
    if len(outside):
        raise collected([f"id {assignment.ids[i]}: fold {fold[i]}" for i in outside], f"samples are in none of the folds {least} to {k - 1}")
    _check_persons(assignment)
    empty = sorted(set(range(least, k)) - set(fold.tolist()))
    if assignment.held_out and empty:
        raise EnsembleError(
            f"all {len(fold):,} samples are in fold {-1 - empty[0]}", hint="fold 0 is held out, fold -1 is trained on: neither is empty"
        )
    if empty:
        raise EnsembleError(
            f"{'folds' if len(empty) > 1 else 'fold'} {_listed(empty)} of {k} {'are' if len(empty) > 1 else 'is'} empty",
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
            counted = f"{total:,} {'person' if total == 1 else 'people'} for {'the held-out part' if assignment.held_out else f'{k} folds'}"
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
    """(classes, k + 1): the people who have the class, by fold; in the last column those who are only trained on (fold -1)."""
    _, persons = np.unique(assignment.persons, return_inverse=True)
    unique = np.unique(np.stack([persons, _codes(assignment, classes), assignment.fold]), axis=1)
    counts = np.zeros((len(classes), assignment.k + 1), dtype=np.int64)
    np.add.at(counts, (unique[1], unique[2]), 1)  # fold -1 counts from the end
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
        Where one part is held out, both have a second column: what is only trained on.
    """
    columns = 2 if assignment.held_out else assignment.k
    images = np.zeros((len(classes), columns), dtype=np.int64)
    fold = assignment.fold % columns  # -1 is the last
    np.add.at(images, (_codes(assignment, classes), fold), 1)
    _, first = np.unique(assignment.persons, return_index=True)
    return images, np.bincount(fold[first], minlength=columns)
