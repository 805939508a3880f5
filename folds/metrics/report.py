"""A score with its interval over people, as every command prints it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.metrics.classification import accuracy, argmax_classes
from folds.metrics.custom import find_metric
from folds.metrics.grouping import average_by_person
from folds.metrics.intervals import Interval, interval_over_people


@dataclass(frozen=True)
class Score:
    """A score with its interval over people, and the accuracy beside it.

    `rows` are images, or people if scored per person; `mixed_people` carry several labels and are scored by their most frequent one.
    """

    metric: str
    headline: Interval
    accuracy: float
    rows: int
    mixed_people: int = 0

    def as_json(self) -> dict[str, Any]:
        """For --json and blend.json."""
        interval: dict[str, Any] = self.headline.as_json() | ({"warning": self.headline.warning} if self.headline.warning else {})
        return {self.metric: interval, "accuracy": self.accuracy, "rows": self.rows, "people": self.headline.people}


def score(
    labels: NDArray[np.int64], probabilities: NDArray[np.floating], persons: NDArray[Any], metric: str = "macro_f1", per_person: bool = False
) -> Score:
    """Score probabilities (n, classes) on class indices (n,); with `per_person` a person's images are averaged first."""
    mixed = 0
    if per_person:
        labels, probabilities, persons, mixed = average_by_person(labels, probabilities, persons, np.shape(probabilities)[1])
    predicted = argmax_classes(probabilities)
    headline = interval_over_people(find_metric(metric), labels, probabilities, persons, predicted=predicted)
    return Score(metric, headline, accuracy(labels, predicted), len(labels), mixed)
