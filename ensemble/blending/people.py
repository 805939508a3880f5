"""Say what a blend for people is made of, and refuse what it does not support."""

from __future__ import annotations

from collections.abc import Mapping

from ensemble.alignment.split import AlignedSplit
from ensemble.pooling.people import people_rows
from ensemble.pooling.pooling import Pooling
from ensemble.pooling.spec import (
    ANY_IMAGE,
    AUTO,
    FIXED,
    LEARNED,
    LOG_ODDS,
    MAX,
    MEAN,
    MEDIAN,
    NOISY_OR,
    TOP_K,
    PoolSpec,
)
from folds.metrics.task_names import COLUMN_TASKS, MULTILABEL, ORDINAL, REGRESSION

_RULES = {
    MEAN: "the mean of the images",
    MEDIAN: "the median of the images",
    MAX: "the largest value of an image",
    TOP_K: "the mean of the largest values",
    NOISY_OR: "that at least one image shows it, if images are independent",
    LOG_ODDS: "the sum of the log-odds of the images, damped",
    LEARNED: "a regression on statistics of the images' log-odds",
    AUTO: "the rule that is best on other people",
}
_DIFFERENT = {
    MULTILABEL: "different labels, and a person has each that any image has",
    REGRESSION: "different numbers, and a person has their mean",
}
_OF_NUMBERS = {LEARNED: "a linear model of statistics of the images' numbers"}


def rule_text(name: str, task: str) -> str:
    """Return what a rule of `pool` takes of the images of a person, in a few words."""
    return (_RULES | (_OF_NUMBERS if task == REGRESSION else {}))[name]


def with_persons(splits: Mapping[str, AlignedSplit]) -> tuple[dict[str, AlignedSplit], list[str]]:
    """Return the splits whose persons are known, or all if none is, and a note on the others."""
    kept = {name: split for name, split in splits.items() if split.rows.persons is not None}
    if not kept or len(kept) == len(splits):
        return dict(splits), []
    absent = ", ".join(name for name in splits if name not in kept)
    return kept, [
        f"the persons of the {absent} samples are unknown: there is no {absent} prediction for people "
        "(`labels=FILE.csv` with id, label, person names them)"
    ]


def people_notes(
    spec: PoolSpec, images: Mapping[str, AlignedSplit], people: Mapping[str, AlignedSplit], pooling: Pooling
) -> list[str]:
    """Return what a row of the blend is, and which people have several labels."""
    first = next(iter(people.values()))
    of, rules = "", _RULES | (_OF_NUMBERS if first.task == REGRESSION else {})
    if spec.name in ANY_IMAGE and first.task not in COLUMN_TASKS:
        if first.task == ORDINAL and len(first.classes) > 2:
            of = ", of at least each grade"
        elif len(first.classes) == 2:
            of = f", of class {first.classes[1]} (`positive` names the other one)"
        else:
            of = ", of each class against the others, scaled to the sum 1"
    elif first.task == MULTILABEL:
        of = ", each label by itself"
    counts = ", ".join(f"{len(images[name]):,} {name} images of {len(one):,} people" for name, one in people.items())
    notes = [f"one prediction per person ({counts}): {spec.text}, {rules[spec.name]}{of}; learned and scored on people"]
    if spec.name not in FIXED:
        notes.append("the scores of the runs alone are of the mean of a person's images")
    for name, split in images.items():
        mixed = people_rows(split.rows, split.classes, name, pooling).mixed
        if not mixed:
            continue
        if first.task in COLUMN_TASKS:
            notes.append(f"the images of {mixed:,} {name} people have {_DIFFERENT[first.task]}")
        elif pooling.takes_highest(len(split.classes)):
            how = (
                f"are {split.classes[1]} if any image is"
                if len(split.classes) == 2
                else "count with the highest grade of their images"
            )
            notes.append(f"{mixed:,} {name} people have several labels and {how}, as `pool={spec.name}` asks")
        else:
            notes.append(f"{mixed:,} {name} people have several labels and count with their most frequent one")
    return notes


def people_warnings(spec: PoolSpec, images: Mapping[str, AlignedSplit], pooling: Pooling) -> list[str]:
    """Return a warning if a rule asks whether any image shows a class, and people have several labels in no order, or
    for the largest of different numbers.
    """
    found = []
    for name, split in images.items():
        if spec.name not in ANY_IMAGE or split.task == MULTILABEL or pooling.takes_highest(len(split.classes)):
            continue
        mixed = people_rows(split.rows, split.classes, name, pooling).mixed
        if mixed and split.task == REGRESSION:
            found.append(
                f"`pool={spec.name}` asks for the largest numbers of a person's images, but the images of {mixed:,} "
                f"{name} people have different numbers, and people are scored with their mean (`pool=mean` fits it)"
            )
        elif mixed:
            found.append(
                f"`pool={spec.name}` asks whether any image shows a class, but {mixed:,} {name} people have several "
                "labels, which have no order: they are scored with their most frequent one (`pool=mean` fits it)"
            )
    return found
