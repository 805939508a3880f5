"""Turn a split of images into a split of people: one row per person, in the order of their names; numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.attributes import JointRun
from ensemble.alignment.split import AlignedFile, AlignedSplit, RunPredictions
from ensemble.pooling.bags import Bags, bags_of
from ensemble.pooling.columns import ColumnPooling
from ensemble.pooling.pooling import Pooling
from folds.errors import EnsembleError, UsageError
from folds.metrics.grouping import columns_by_person
from folds.predictions.label_columns import encode_labels, label_texts
from folds.predictions.rows import SampleRows
from folds.utils.cells import as_number, cleaned


@dataclass(frozen=True)
class PeopleRows:
    """The people of a split: their rows, their images, and what is to be said about them.

    Attributes
    ----------
    rows : of people; the id is the person.
    bags : the images of each person.
    mixed : people whose images have several labels, or different values in a column.
    """

    rows: SampleRows
    bags: Bags
    mixed: int


def people_rows(rows: SampleRows, classes: Sequence[str], name: str, pooling: Pooling | None = None) -> PeopleRows:
    """Return one row per person: the most frequent label of the images (the first class among equals), and of every
    other column the mean of its numbers, or its most frequent text; marks of missing cells count as empty.

    With a rule that asks whether any image shows something, the label is the positive class, or the highest grade, of
    the images (`Pooling.takes_highest`).

    Of several labels a person has those that any image has, and lacks those that all images with a known value lack; of
    numbers a person has the mean of the known ones. So it is for every rule.

    Parameters
    ----------
    name : of the samples, for errors.
    pooling : how the predictions of the images are pooled; None for their mean.

    Raises
    ------
    EnsembleError : the person of an image is not known.
    """
    if rows.persons is None:
        raise EnsembleError(
            f"one prediction per person needs the persons of the {name} samples, which are unknown",
            hint="pass `labels=FILE.csv` with columns id, label, person",
        )
    unknown = np.flatnonzero(rows.persons == "")
    if len(unknown):
        raise EnsembleError(
            f"{len(unknown):,} {name} samples have no person, e.g. '{rows.ids[unknown[0]]}'",
            hint="name the person of every image, or remove these images",
        )
    names, bags = bags_of(rows.persons)
    labels, mixed = None, 0
    if rows.labels is not None and isinstance(pooling, ColumnPooling):
        labels, mixed = _columns_of_people(rows.labels, bags, classes, pooling.task)
    elif rows.labels is not None:
        order = [*classes, *sorted(set(rows.labels.tolist()) - {*classes, ""})]
        labels, mixed = _most_frequent(rows.labels, bags, order)
        if pooling is not None and pooling.takes_highest(len(classes)):
            labels = _highest(rows.labels, bags, classes, labels)
    attributes = {key: _of_person(values, bags) for key, values in rows.attributes.items()}
    return PeopleRows(SampleRows(names, labels, names, attributes), bags, mixed)


def _columns_of_people(
    texts: NDArray[np.str_], bags: Bags, columns: Sequence[str], task: str
) -> tuple[NDArray[np.str_], int]:
    """Return (people,) the text of each person's labels or numbers, and the number of people with different ones."""
    values, several = columns_by_person(encode_labels(texts, columns, task), bags.codes, bags.people, task)
    return label_texts(values, columns, task), several


def _most_frequent(
    values: NDArray[np.str_], bags: Bags, order: Sequence[str] | None = None
) -> tuple[NDArray[np.str_], int]:
    """Return (people,) the most frequent text that is not empty, and the number of people with several."""
    known = np.flatnonzero(values != "")
    texts = sorted(set(values[known].tolist())) if order is None else list(order)
    if not texts:
        return np.full(bags.people, "", dtype=values.dtype), 0
    code = {text: i for i, text in enumerate(texts)}
    codes = np.array([code[text] for text in values[known].tolist()], dtype=np.int64)
    pairs, counts = np.unique(bags.codes[known] * len(texts) + codes, return_counts=True)
    owner, text = np.divmod(pairs, len(texts))
    best = np.lexsort((text, -counts, owner))
    first = best[np.flatnonzero(np.diff(owner[best], prepend=-1))]
    out = np.full(bags.people, "", dtype=values.dtype)
    out[owner[first]] = np.array(texts)[text[first]]
    return out, int((np.bincount(owner, minlength=bags.people) > 1).sum())


def _highest(
    values: NDArray[np.str_], bags: Bags, classes: Sequence[str], others: NDArray[np.str_]
) -> NDArray[np.str_]:
    """Return (people,) the last class that an image of the person has; `others` (people,) for people without one."""
    code = {text: i for i, text in enumerate(classes)}
    highest = np.full(bags.people, -1, np.int64)
    np.maximum.at(highest, bags.codes, np.array([code.get(text, -1) for text in values.tolist()], dtype=np.int64))
    return np.where(highest >= 0, np.array(list(classes))[np.maximum(highest, 0)], others)


def _of_person(values: NDArray[np.str_], bags: Bags) -> NDArray[np.str_]:
    """Return (people,) one value per person: the value itself where all agree, else the mean or the most frequent."""
    values = np.array([cleaned(text) for text in values.tolist()], dtype=str)
    common, several = _most_frequent(values, bags)
    if not several:
        return common
    known = np.flatnonzero(values != "")
    numbers = [as_number(text) for text in values[known].tolist()]
    if None in numbers:
        return common
    part = bags.take(known)
    means = part.mean(np.array(numbers, dtype=np.float64)[:, None])[:, 0]
    # 15 digits: means of large numbers, such as times, stay different.
    return np.array([f"{mean:.15g}" if n else "" for mean, n in zip(means.tolist(), part.counts.tolist(), strict=True)])


def split_by_person(split: AlignedSplit, pooling: Pooling) -> AlignedSplit:
    """Return the split with one row per person, where each model's predictions of a person's images are pooled.

    A run's fold models are averaged after pooling, as they were scored: each model is pooled as it was out of fold.

    Raises
    ------
    EnsembleError : persons are not known, or the rule was not fitted to a run.
    UsageError : a run has hard labels only, or joins predictions of attributes.
    """
    for run in split.runs:
        if run.hard or isinstance(run, JointRun):
            found = "hard labels only" if run.hard else "joined predictions of attributes"
            raise UsageError(
                f"`pool` needs probabilities of the label, {run.name} has {found}",
                hint="exclude the run with `runs`, or leave out `pool`",
            )
    if isinstance(pooling, ColumnPooling):
        pooling = pooling.in_order(split.classes)
    people = people_rows(split.rows, split.classes, split.name, pooling)
    first = np.zeros(people.bags.people, np.int64)
    first[people.bags.codes[::-1]] = np.arange(len(split))[::-1]
    runs = tuple(_pooled_run(run, people.bags, pooling, first, len(split)) for run in split.runs)
    fold = None if split.fold is None else split.fold[first]
    return replace(split, rows=people.rows, runs=runs, fold=fold, table_rows=len(people.rows), numbered=False)


def _pooled_run(run: RunPredictions, bags: Bags, pooling: Pooling, first: NDArray[np.int64], n: int) -> RunPredictions:
    parts, covered = [], np.zeros(bags.people, bool)
    for part in run.parts:
        present = part.present(0, n)
        rows = np.arange(n) if present is None else np.flatnonzero(present)
        own = bags if present is None else bags.take(rows)
        values = part.probabilities(0, n)[rows]
        pooled = pooling.apply(run.name, values, own).astype(np.float32)
        index = None if (own.counts > 0).all() else np.where(own.counts > 0, np.arange(bags.people), -1)
        covered |= own.counts > 0
        fold = part.fold
        if isinstance(fold, np.ndarray):
            fold = np.where(own.counts > 0, _fold_of(fold, own, rows, first), -1)
        member = replace(part.member, values=pooled, answers=None, logit=False)
        parts.append(AlignedFile(member, index, None, None, fold))
    return replace(run, parts=tuple(parts), rows=int(covered.sum()))


def _fold_of(
    fold: NDArray[np.int64], own: Bags, rows: NDArray[np.int64], first: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return (people,) the fold of each person's first image that the file has."""
    at = first.copy()
    at[own.codes[::-1]] = rows[::-1]
    return fold[at]
