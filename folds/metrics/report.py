"""Score predictions with an interval over people, for all commands."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.metrics.classification import METRICS, Metric
from folds.metrics.confusion import accuracy, argmax_classes
from folds.metrics.custom import metric_of
from folds.metrics.intervals import Interval, interval_over_people
from folds.metrics.scored_rows import ScoredRows
from folds.metrics.scored_units import scored_units
from folds.metrics.task_names import CLASSES, COLUMN_TASKS, MULTILABEL
from folds.utils.text import counted


@dataclass(frozen=True)
class ScoreReport:
    """A score with its interval over people, and the accuracy.

    Attributes
    ----------
    accuracy : of several labels, the mean over the labels; nan for numbers.
    rows : number of images, or of people if scored per person.
    people_with_several_labels : people scored by their most frequent label.
    changed_people : people of whom the run has changed training labels.
    left_out : whether these people are left out; they are not if fewer than two others remain.
    """

    metric: str
    interval: Interval
    accuracy: float
    rows: int
    people_with_several_labels: int = 0
    changed_people: int = 0
    left_out: bool = False

    def changed_line(self) -> str:
        """Return in one line who is scored if the run has changed training labels; "" if it has changed none."""
        return changed_line(self.changed_people, self.interval.people, self.left_out)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``--json`` and blend.json."""
        return {
            self.metric: self.interval.to_dict(),
            **({} if math.isnan(self.accuracy) else {"accuracy": self.accuracy}),
            "rows": self.rows,
            "people": self.interval.people,
            **({"changed_people": self.changed_people, "left_out": self.left_out} if self.changed_people else {}),
        }


def changed_line(changed: int, people: int, left_out: bool) -> str:
    """Return who is scored, for a run that has changed the training labels of some people; "" if it has changed none.

    Parameters
    ----------
    changed : people of whom it has changed labels.
    people : people who are scored.
    left_out : whether those people are left out of the score.
    """
    if not changed:
        return ""
    of = counted(changed, "person", "people")
    if left_out:
        return f"scored on the {people:,} people whose training labels were not changed, without {of}"
    return (
        f"scored on all people, although training labels of {of} were changed: fewer than two others are left, so this "
        "says nothing about the change"
    )


def score_predictions(
    labels: NDArray[Any],
    probabilities: NDArray[np.floating],
    persons: NDArray[Any],
    metric: str | Metric = "macro_f1",
    per_person: bool = False,
    rows: ScoredRows | None = None,
    task: str = CLASSES,
) -> ScoreReport:
    """Score probabilities (n, classes) against class indices (n,); `per_person` averages each person's images first.

    Images without a known label count only in the mean of their person (`folds.metrics.scored_units`).

    Parameters
    ----------
    labels, probabilities : labels are −1 where one is not known. Of several labels or numbers, both are (n, columns),
        and labels are nan where one is not known.
    rows : the images with a known label, if other predictions of them are scored as well.
    task : one of `folds.metrics.task_names.ALL_TASKS`; of labels (n, columns) multilabel or regression.

    Raises
    ------
    ValueError : the task does not have labels of this shape.
    """
    resolved = metric_of(metric)
    of_columns = np.ndim(labels) == 2
    if of_columns != (task in COLUMN_TASKS):
        raise ValueError(f"labels of shape {np.shape(labels)} are not of the task {task}")
    units = scored_units(labels, [probabilities], persons, per_person, task)
    labels, (probabilities,), persons = units.labels, units.predictions, units.persons
    rows = None if per_person else rows
    if of_columns:
        interval = interval_over_people(resolved, labels, probabilities, persons, rows=rows)
        right = METRICS["accuracy"](labels, probabilities) if task == MULTILABEL else math.nan
    else:
        predicted = argmax_classes(probabilities)
        interval = interval_over_people(resolved, labels, probabilities, persons, predicted=predicted, rows=rows)
        right = accuracy(labels, predicted)
    return ScoreReport(
        resolved.name if resolved.function is None or not isinstance(metric, str) else metric,
        interval,
        right,
        len(labels),
        units.several,
    )
