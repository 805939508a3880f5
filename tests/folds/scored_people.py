"""Predictions with known labels and people, for the tests of scores and intervals."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

CLASSES = 5
Data = tuple[NDArray, NDArray, NDArray]


@st.composite
def scored(draw: st.DrawFn) -> Data:
    """Labels, probabilities and persons; some classes neither occur nor are predicted."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 40))
    present = draw(st.lists(st.integers(0, CLASSES - 1), min_size=1, unique=True))
    labels = rng.choice(present, n)
    probabilities = rng.dirichlet(np.full(CLASSES, 0.3), n)
    # Only columns of classes that may be predicted are kept up.
    probabilities[
        :, ~np.isin(np.arange(CLASSES), draw(st.lists(st.integers(0, CLASSES - 1), min_size=1, unique=True)))
    ] *= 1e-3
    return labels, probabilities / probabilities.sum(1, keepdims=True), rng.integers(0, max(1, n // 3), n)


def people_data(people: int = 30, classes: int = 4, seed: int = 3) -> Data:
    """Persons with one to four images each, in no order; a model that is right more often than not."""
    rng = np.random.default_rng(seed)
    persons = rng.permutation(np.repeat(np.arange(people), rng.integers(1, 5, people)))
    labels = rng.integers(0, classes, len(persons))
    probabilities = rng.dirichlet(np.ones(classes), len(persons)) + 0.5 * np.eye(classes)[labels]
    return labels, probabilities / probabilities.sum(1, keepdims=True), persons
