"""Score predictions with an interval over people, for all commands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.metrics.classification import Metric, accuracy, argmax_classes
from folds.metrics.custom import metric_of
from folds.metrics.grouping import average_by_person
from folds.metrics.intervals import Interval, interval_over_people
from folds.metrics.scored_rows import ScoredRows


@dataclass(frozen=True)
class ScoreReport:
    """A score with its interval over people, and the accuracy.

    Attributes
    ----------
    rows : number of images, or of people if scored per person.
    people_with_several_labels : people scored by their most frequent label.
    """

    metric: str
    interval: Interval
    accuracy: float
    rows: int
    people_with_several_labels: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``--json`` and blend.json."""
        return {
            self.metric: self.interval.to_dict(),
            "accuracy": self.accuracy,
            "rows": self.rows,
            "people": self.interval.people,
        }


def score_predictions(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.floating],
    persons: NDArray[Any],
    metric: str | Metric = "macro_f1",
    per_person: bool = False,
    rows: ScoredRows | None = None,
) -> ScoreReport:
    """Score probabilities (n, classes) against class indices (n,); `per_person` averages each person's images first.

    Parameters
    ----------
    rows : the same labels and persons, if other predictions of them are scored as well.
    """
    mixed = 0
    if per_person:
        rows = None
        labels, probabilities, persons, mixed = average_by_person(
            labels, probabilities, persons, np.shape(probabilities)[1]
        )
    predicted, resolved = argmax_classes(probabilities), metric_of(metric)
    interval = interval_over_people(resolved, labels, probabilities, persons, predicted=predicted, rows=rows)
    return ScoreReport(
        resolved.name if resolved.function is None or not isinstance(metric, str) else metric,
        interval,
        accuracy(labels, predicted),
        len(labels),
        mixed,
    )
