"""Break down the score of a blend by label or number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.alignment.split import AlignedSplit
from ensemble.alignment.truth import GroundTruth
from ensemble.voting.base import Vote
from folds.metrics.classification import Metric
from folds.metrics.grouping import people_with_label
from folds.metrics.intervals import Interval, interval_over_people
from folds.metrics.task_names import MULTILABEL, REGRESSION
from folds.metrics.tasks import metric_for_task

# What is shown of each column beside the metric of the blend.
_BESIDE = {MULTILABEL: ("roc_auc", "average_precision", "macro_f1", "brier"), REGRESSION: ("mae", "rmse", "r2")}


@dataclass(frozen=True)
class ColumnScore:
    """The scores of one label or number.

    Attributes
    ----------
    rows, people : rows with a known value, and their people.
    share : of the rows that have the label; None for a number.
    people_with : people with a row that has the label; None for a number.
    true_mean, mean : of the known values, and of the predictions of these rows.
    score : the metric of the blend.
    others : title of another metric → its value.
    """

    name: str
    rows: int
    people: int
    share: float | None
    people_with: int | None
    true_mean: float
    mean: float
    score: Interval
    others: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``--json`` and blend.json."""
        record = {"name": self.name, "rows": self.rows, "people": self.people, "share": self.share}
        record |= {"people_with": self.people_with, "true_mean": _known(self.true_mean), "mean": _known(self.mean)}
        others = {title: _known(value) for title, value in self.others.items()}
        return record | {"score": self.score.to_dict(), "others": others}


@dataclass(frozen=True)
class ColumnDetails:
    """Scores of the votes on the samples of one split with a known value, for each label or number, per image."""

    split: str
    task: str
    metric: Metric
    columns: tuple[ColumnScore, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``--json`` and blend.json."""
        return {"metric": self.metric.name, "task": self.task, "columns": [one.to_dict() for one in self.columns]}


def column_details(
    splits: Mapping[str, AlignedSplit], votes: Mapping[str, Vote], truths: Mapping[str, GroundTruth], metric: Metric
) -> dict[str, ColumnDetails]:
    """Return split → scores of each label or number, for splits with known values."""
    found = {}
    for name, truth in truths.items():
        split = splits[name]
        values = votes[name].probabilities
        columns = tuple(
            _score(split, column, values[:, [column]], truth, metric) for column in range(len(split.classes))
        )
        found[name] = ColumnDetails(name, split.task, metric, columns)
    return found


def _score(split: AlignedSplit, column: int, values: Any, truth: GroundTruth, metric: Metric) -> ColumnScore:
    rows = np.flatnonzero(~np.isnan(truth.labels[:, column]))
    labels, values, persons = truth.labels[rows][:, [column]], values[rows], truth.persons[rows]
    beside = [metric_for_task(name, split.task) for name in _BESIDE[split.task] if name != metric.name]
    is_label = split.task == MULTILABEL
    return ColumnScore(
        split.classes[column],
        len(rows),
        len(np.unique(persons)),
        float(labels.mean()) if is_label and len(rows) else None,
        int(people_with_label(labels, persons)[0]) if is_label else None,
        float(labels.mean()) if len(rows) else math.nan,
        float(values.mean(dtype=np.float64)) if len(rows) else math.nan,
        interval_over_people(metric, labels, values, persons),
        {_title(one): one(labels, values) if len(rows) else math.nan for one in beside},
    )


def _title(metric: Metric) -> str:
    return "F1" if metric.name == "macro_f1" else metric.title


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
