"""Find the labels of several, and the numbers, that predictions contradict most.

Of labels, each answer (the image has the label, or has it not) is compared with the probability that models give it
which have not seen the person. Of numbers, the difference of prediction and table is compared with the usual ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.analysis.columns import MIN_PEOPLE, Column
from folds.metrics.label_scores import is_predicted

CHANCE = 0.5  # ROC-AUC
FENCE = 1.5  # interquartile ranges beyond the quartiles (Tukey, 1977) from which a difference is unusual


@dataclass(frozen=True)
class Answer:
    """A label of an image that its prediction contradicts.

    Attributes
    ----------
    row : of the images.
    given : the label, 0 or 1.
    probability : that the image has the label.
    """

    row: int
    label: str
    given: int
    probability: float

    @property
    def of_given(self) -> float:
        """Return the probability of the given answer."""
        return self.probability if self.given else 1 - self.probability


@dataclass(frozen=True)
class NumberError:
    """A number of an image and its prediction.

    Attributes
    ----------
    row : of the images.
    true, predicted : in the unit of the table.
    low, high : the interval of the usual differences, predicted minus true.
    """

    row: int
    number: str
    true: float
    predicted: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """Return predicted minus true."""
        return self.predicted - self.true

    @property
    def is_unusual(self) -> bool:
        """Return whether the difference is outside the interval of the usual ones."""
        return not self.low <= self.error <= self.high

    @property
    def distance(self) -> float:
        """Return the distance from the middle of the usual differences, in half widths of their interval."""
        half = (self.high - self.low) / 2
        return abs(self.error - (self.low + self.high) / 2) / half if half > 0 else float(self.is_unusual)


def find_doubts(columns: Sequence[Column]) -> list[Answer]:
    """Return the labels in doubt, the least probable first.

    An answer is in doubt if the other one is at least as probable as it is, on average, where it is the given one
    (confident learning; Northcutt et al., 2021). So rare labels, whose probabilities are low, are judged by their own
    measure. Labels that are not recognized are left out: their predictions say nothing about them.
    """
    found = []
    for one in columns:
        has = one.labels > 0
        if not is_recognized(one):
            continue
        with_it, without_it = one.values[has].mean(), (1 - one.values[~has]).mean()
        found += _answers(one, np.where(has, 1 - one.values >= without_it, one.values >= with_it))
    return _least_probable_first(found)


def wrong_answers(columns: Sequence[Column]) -> list[Answer]:
    """Return the labels whose prediction is wrong, above a probability of a half or not, the least probable first."""
    found = [answer for one in columns for answer in _answers(one, is_predicted(one.values) != (one.labels > 0))]
    return _least_probable_first(found)


def _answers(column: Column, chosen: NDArray[np.bool_]) -> list[Answer]:
    return [
        Answer(int(column.rows[at]), column.name, int(column.labels[at] > 0), float(column.values[at]))
        for at in np.flatnonzero(chosen)
    ]


def _least_probable_first(found: list[Answer]) -> list[Answer]:
    return sorted(found, key=lambda one: (one.of_given, one.row, one.label))


def is_recognized(column: Column) -> bool:
    """Return whether a label has enough people, and a ROC-AUC above chance with its whole CI."""
    score = column.score("roc_auc") if column.fewest >= MIN_PEOPLE else None
    return score is not None and score.low > CHANCE


def usual_differences(errors: NDArray[np.float64]) -> tuple[float, float]:
    """Return the interval of the usual differences of predicted and true numbers: the quartiles and `FENCE` times
    their distance beyond them. A few wrong numbers of a table do not move it.

    Parameters
    ----------
    errors : (n,) predicted minus true numbers, n at least 1.
    """
    first, last = np.quantile(errors, (0.25, 0.75)).tolist()
    return first - FENCE * (last - first), last + FENCE * (last - first)


def number_errors(columns: Sequence[Column]) -> list[NumberError]:
    """Return all differences of predicted and true numbers, the largest first.

    Several numbers of an image are compared by their size relative to the mean size of the errors of the number.
    """
    found = []
    for one in columns:
        if not len(one.labels):
            continue
        low, high = usual_differences(one.errors)
        mean = float(np.abs(one.errors).mean()) or 1.0
        for row, true, value in zip(one.rows.tolist(), one.labels.tolist(), one.values.tolist(), strict=True):
            found.append((abs(value - true) / mean, NumberError(row, one.name, true, value, low, high)))
    return [error for _, error in sorted(found, key=lambda entry: (-entry[0], entry[1].row, entry[1].number))]


def doubtful_numbers(columns: Sequence[Column]) -> list[NumberError]:
    """Return the numbers whose difference from the prediction is unusual, the farthest first."""
    found = [one for one in number_errors(columns) if one.is_unusual]
    return sorted(found, key=lambda one: (-one.distance, one.row, one.number))
