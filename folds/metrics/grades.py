"""Turn probabilities of grades, which are ordered classes, into an expected grade, and decisions into probabilities.

A grade is the position of its class in the order of the classes: 0, 1, …, classes − 1, whatever the names.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from folds.metrics.confusion import Labels, Probabilities

Floats = NDArray[np.float64]


def expected_grades(probabilities: Probabilities) -> Floats:
    """Return (n,) the expected grade Σ p·g of each row of (n, classes) probabilities."""
    values = np.asarray(probabilities, np.float64)
    return np.asarray(values @ np.arange(values.shape[1], dtype=np.float64))


def decided_as(decided: Labels, classes: int) -> Floats:
    """Return (n, classes) probabilities whose decisions are `decided` (n,): 1 for the decided class."""
    return np.asarray(np.eye(classes)[np.asarray(decided, np.int64)])
