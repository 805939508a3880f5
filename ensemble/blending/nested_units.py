"""Hold what the nested scores of a blend are of: the labeled samples, or people with the mean of all their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.split import AlignedSplit
from ensemble.alignment.truth import GroundTruth
from ensemble.learning.apply import apply_combination
from ensemble.learning.nested import NestedResult
from ensemble.learning.stack import Stack
from folds.metrics.scored_units import ScoredUnits, rows_of_known_people, scored_units


@dataclass(frozen=True)
class NestedUnits:
    """The samples of a stack, and for scores by person the images without a known label of the same people.

    Nothing is fitted to those images, but they count in the mean of their person (`folds.metrics.scored_units`).

    Attributes
    ----------
    others : these images; None if there are none, or scores are by image.
    labels, persons : (n + others,) or (n + others, columns), the samples of the stack first.
    other_folds : (others,) the outer fold of each.
    """

    stack: Stack
    task: str
    by_person: bool
    others: AlignedSplit | None
    labels: NDArray
    persons: NDArray[np.int64]
    other_folds: NDArray[np.int64]

    def out_of_sample(self, *nested: NestedResult) -> ScoredUnits:
        """Return the units with the out-of-sample predictions of each."""
        return self._units([self._out_of_sample(one) for one in nested])

    def both(self, one: NestedResult) -> ScoredUnits:
        """Return the units with the out-of-sample and the in-sample predictions."""
        return self._units([self._out_of_sample(one), self._in_sample(one)])

    def _units(self, predictions: Sequence[NDArray[np.floating]]) -> ScoredUnits:
        return scored_units(self.labels, predictions, self.persons, self.by_person, self.task)

    def _in_sample(self, one: NestedResult) -> NDArray[np.float32]:
        if self.others is None:
            return one.in_sample
        return np.concatenate([one.in_sample, apply_combination(self.others, one.combination).probabilities])

    def _out_of_sample(self, one: NestedResult) -> NDArray[np.float32]:
        if self.others is None:
            return one.out_of_sample
        if not one.parts:  # nothing is fitted
            return self._in_sample(one)
        more = np.empty((len(self.others), one.out_of_sample.shape[1]), np.float32)
        for part, combination in zip(np.unique(self.stack.outer_folds), one.parts, strict=True):
            rows = np.flatnonzero(self.other_folds == part)
            if len(rows):
                more[rows] = apply_combination(self.others.take(rows), combination).probabilities
        return np.concatenate([one.out_of_sample, more])


def nested_units(
    stack: Stack, split: AlignedSplit, truth: GroundTruth, outer_folds: NDArray[np.int64], by_person: bool
) -> NestedUnits:
    """Return what the nested scores of a stack are of.

    Parameters
    ----------
    split, truth, outer_folds : what the stack was made of.
    """
    rows = np.zeros(0, np.int64)
    if by_person and not truth.known.all():
        rows = np.flatnonzero(rows_of_known_people(truth.labels, truth.persons) & ~truth.known)
    if not len(rows):
        return NestedUnits(stack, split.task, by_person, None, stack.labels, stack.persons, rows)
    labels = np.concatenate([stack.labels, truth.labels[rows]])
    persons = np.concatenate([stack.persons, truth.persons[rows]])
    return NestedUnits(stack, split.task, by_person, split.take(rows), labels, persons, outer_folds[rows])
