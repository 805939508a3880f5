"""Which metrics are always measured beside the one that was asked for, by task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from folds.metrics.custom import find_metric
from folds.metrics.task_names import CLASSES, MULTILABEL, REGRESSION

_OF_CLASSES = ("macro_f1", "accuracy", "log_loss")
_OF_COLUMNS: Mapping[str, tuple[str, ...]] = {
    MULTILABEL: ("roc_auc", "macro_f1", "log_loss"),
    REGRESSION: ("mae", "rmse", "r2"),
}


def recorded_metrics(task: str) -> tuple[str, ...]:
    """Return the metrics of every training of a task: of each epoch, of each fold and in the ledger."""
    return _OF_COLUMNS.get(task, _OF_CLASSES)


def epoch_column(metric: str, by_person: bool = False) -> str:
    """Return the column of history.csv with the validation score of an epoch by a metric, by image or by person."""
    return f"validation_{metric}{'_by_person' if by_person else ''}"


def main_score(scores: Mapping[str, Any]) -> tuple[str, Mapping[str, Any] | None]:
    """Return the title of the first metric of a task, and its entry in scores of the ledger; None if it is undefined.

    Parameters
    ----------
    scores : of a line of the ledger, whose ``task`` is that of several labels or numbers.
    """
    name = recorded_metrics(scores.get("task", "classes"))[0]
    return find_metric(name).title, scores.get(name)


def shown_score(event: Mapping[str, Any], task: str | None) -> str | None:
    """Return the metric of the score that the line of an epoch shows: macro F1 of classes, and the first one of several
    labels or numbers; None if the epoch was not validated.

    Parameters
    ----------
    event : the scores of the epoch, as in history.csv.
    task : that of the recipe; None for classes.
    """
    name = recorded_metrics(task or CLASSES)[0]
    return name if f"validation_{name}" in event else None
