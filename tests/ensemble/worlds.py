"""Draw stacks for the tests of fitted methods: runs whose errors are correlated within a person."""

from __future__ import annotations

import numpy as np

from ensemble.learning.stack import Stack


def world(
    seed: int = 0,
    people: int = 60,
    per_person: int = 5,
    classes: int = 4,
    runs: int = 3,
    skill: float = 1.5,
    outer_folds: int = 5,
) -> Stack:
    """Return a stack of runs of decreasing skill; a person's images share half of the error."""
    random = np.random.default_rng(seed)
    persons = np.repeat(np.arange(people), per_person)
    n = len(persons)
    labels = random.integers(0, classes, n)
    common = random.normal(size=(people, classes))[persons] * 0.7 + random.normal(size=(n, classes)) * 0.7
    members = np.empty((runs, n, classes), np.float32)
    for i in range(runs):
        logits = common + random.normal(size=(n, classes))
        logits[np.arange(n), labels] += skill * (1 - i / (2 * runs))
        values = np.exp(logits - logits.max(axis=1, keepdims=True))
        members[i] = values / values.sum(axis=1, keepdims=True)
    return Stack(tuple(f"run{i}" for i in range(runs)), members, None, labels, persons, persons % outer_folds)
