"""Score decisions about grades, which are ordered classes: how far they are off; numpy only.

A grade is the position of its class in the order of the classes: 0, 1, …, classes − 1, whatever the names.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from folds.metrics.classification import Labels, Probabilities

Floats = NDArray[np.float64]


def expected_grades(probabilities: Probabilities) -> Floats:
    """Return (n,) the expected grade Σ p·g of each row of (n, classes) probabilities."""
    values = np.asarray(probabilities, np.float64)
    return np.asarray(values @ np.arange(values.shape[1], dtype=np.float64))


def decided_as(decided: Labels, classes: int) -> Floats:
    """Return (n, classes) probabilities whose decisions are `decided` (n,): 1 for the decided class."""
    return np.asarray(np.eye(classes)[np.asarray(decided, np.int64)])


def grade_errors(labels: Labels, predicted: Labels) -> NDArray[np.int64]:
    """Return (n,) by how many grades each prediction is off."""
    return np.abs(np.asarray(labels, np.int64) - np.asarray(predicted, np.int64))


def mean_grade_error(labels: Labels, predicted: Labels) -> float:
    """Return the mean number of grades by which predictions (n,) are off labels (n,)."""
    return float(grade_errors(labels, predicted).mean())


def quadratic_kappa(labels: Labels, predicted: Labels, classes: int) -> float:
    """Return quadratic weighted kappa (Cohen, 1968) of predicted grades (n,).

    It is 1 − (mean squared error in grades) / (that of independent draws with the same frequencies), and 0 where the
    latter is 0: where all labels and predictions are one grade. It equals ``cohen_kappa_score(weights="quadratic")``.
    """
    grades = np.arange(classes)
    squares = np.subtract.outer(grades, grades).astype(np.float64) ** 2
    true, decided = np.bincount(labels, minlength=classes), np.bincount(predicted, minlength=classes)
    expected = float(true @ squares @ decided) / max(len(labels), 1)
    return 1 - float((grade_errors(labels, predicted) ** 2).sum()) / expected if expected > 0 else 0.0
