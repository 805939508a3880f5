"""Measure how well a run agrees with the labels or with the other runs, against chance, over people."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.split import RunPredictions

_AT_CHANCE, _ABOVE_CHANCE = 3, 4  # standard errors over chance
_WEAK = 1.645  # a run without any skill is further above chance with a probability of 5%


@dataclass(frozen=True)
class Agreement:
    """How well a run fits a reference (the labels, or the mean of the other runs).

    Attributes
    ----------
    codes, reference : (m,) predicted and reference classes, −1 where one is unknown.
    accuracy, chance : share of equal classes, and what it would be if both were independent.
    rows : number of rows that both have.
    standard_error : of the accuracy of a run without skill, over people: rows of one person are not independent.
    """

    run: RunPredictions
    codes: NDArray[np.int64]
    reference: NDArray[np.int64]
    accuracy: float
    chance: float
    rows: int
    standard_error: float = 0.0

    @property
    def at_chance(self) -> bool:
        """Return whether the run is hardly better than chance."""
        return self.accuracy <= self.chance + _AT_CHANCE * self.standard_error

    @property
    def above_chance(self) -> bool:
        """Return whether the run is clearly better than chance."""
        return self.accuracy > self.chance + _ABOVE_CHANCE * self.standard_error

    @property
    def may_be_weak(self) -> bool:
        """Return whether the run is better than chance (5% level): then it may be weak instead of permuted."""
        return self.accuracy > self.chance + _WEAK * self.standard_error


def agreement(
    run: RunPredictions,
    codes: NDArray[np.int64],
    reference: NDArray[np.int64],
    classes: int,
    persons: NDArray[np.str_] | None = None,
) -> Agreement:
    """Return how well the predicted classes (m,) fit a reference (m,).

    Parameters
    ----------
    persons : (m,) the person of each row; None if each row is independent.
    """
    both = (codes >= 0) & (reference >= 0)
    rows = int(both.sum())
    if not rows:
        return Agreement(run, codes, reference, 0.0, 1.0, 0)
    own = np.bincount(codes[both], minlength=classes) / rows
    other = np.bincount(reference[both], minlength=classes) / rows
    equal = codes[both] == reference[both]
    accuracy, chance = float(equal.mean()), float(own @ other)
    error = float(np.sqrt(chance * (1 - chance) / rows))
    if persons is not None:
        error *= np.sqrt(_design_effect(equal - accuracy, persons[both]))
    return Agreement(run, codes, reference, accuracy, chance, rows, float(error))


def _design_effect(residuals: NDArray[np.float64], persons: NDArray[np.str_]) -> float:
    """Return by how much rows of one person that are alike raise the variance of a mean; 1 if they are not alike."""
    total = float((residuals**2).sum())
    _, codes = np.unique(persons, return_inverse=True)
    clustered = float((np.bincount(codes, weights=residuals) ** 2).sum())
    return max(1.0, clustered / total) if total else 1.0
