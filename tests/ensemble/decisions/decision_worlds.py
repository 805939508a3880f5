"""Labeled rows of a small world, for the tests of decision rules."""

from __future__ import annotations

import numpy as np

from ensemble.decisions.rows import LabeledRows

CLASSES = ("well", "sick")


def world(
    people: int, seed: int = 0, images: int = 3, skill: float = 3.0, effect: float = 1.0, classes: int = 2
) -> LabeledRows:
    """Rows of people with one class each, whose images share an effect; in five parts."""
    random = np.random.default_rng(seed)
    label = random.integers(0, classes, people)
    label[:classes] = np.arange(classes)
    persons = np.repeat(np.arange(people), images)
    logits = effect * random.normal(size=(people, classes))[persons] + random.normal(size=(len(persons), classes))
    logits[np.arange(len(persons)), label[persons]] += skill
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    names = CLASSES if classes == 2 else tuple(f"c{i}" for i in range(classes))
    return LabeledRows(
        odds / odds.sum(axis=1, keepdims=True),
        label[persons],
        persons,
        persons % 5,
        np.array([f"{seed}-{i}" for i in range(len(persons))]),
        names,
    )
