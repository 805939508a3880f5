"""People who differ strongly in size and in what they have: hard to spread over folds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from folds.splits.strata import GroupCounts, count_strata


def skewed_people(seed: int, people: int = 30, classes: int = 18) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(labels, persons), an entry an image: 10 to 59 images a person, whose classes follow a Dirichlet(.3)."""
    random = np.random.default_rng(seed)
    persons = np.repeat(np.arange(people), random.integers(10, 60, people))
    mix = random.dirichlet(np.full(classes, 0.3), people)
    return np.array([random.choice(classes, p=mix[person]) for person in persons]), persons


def counted(labels: NDArray[np.int64], persons: NDArray[np.int64]) -> GroupCounts:
    """The matrix of these, without a table."""
    labels, persons = (np.unique(values, return_inverse=True)[1] for values in (labels, persons))
    counts = count_strata(persons, labels)
    return GroupCounts(persons, np.bincount(persons), counts, counts.shape[1])
