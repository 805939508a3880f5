"""Tell which metrics fit a task, and which one is its default."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from folds.errors import UsageError, unknown_name
from folds.metrics.classification import COLUMN_METRICS, METRICS, Metric, metric_form
from folds.metrics.custom import metric_of
from folds.metrics.task_names import ALL_TASKS, BINARY, CLASSES, MULTILABEL, ORDINAL, REGRESSION

_DEFAULTS = {
    CLASSES: "macro_f1",
    BINARY: "macro_f1",
    ORDINAL: "macro_f1",
    MULTILABEL: "roc_auc",
    REGRESSION: "mae",
}


def default_metric(task: str) -> str:
    """Return the name of the metric of a task if none is given.

    Raises
    ------
    UsageError : the task is unknown.

    Examples
    --------
    >>> default_metric("multilabel"), default_metric("regression")
    ('roc_auc', 'mae')
    """
    _check_task(task)
    return _DEFAULTS[task]


def metrics_of_task(task: str) -> list[str]:
    """Return the names of the built-in metrics that fit a task.

    Raises
    ------
    UsageError : the task is unknown.
    """
    _check_task(task)
    return [name for name, metric in (METRICS | COLUMN_METRICS).items() if task in metric.tasks]


def metric_for_task(metric: str | Metric | Callable[..., Any] | None, task: str) -> Metric:
    """Return a metric that fits a task.

    Parameters
    ----------
    metric : a name with settings, ``module:function``, a `Metric`, or a function of (labels, predictions), which fits
        every task; None for the default of the task.
    task : one of `folds.metrics.task_names.ALL_TASKS`.

    Raises
    ------
    UsageError : the metric or the task is unknown, or the metric does not fit the task.

    Examples
    --------
    >>> metric_for_task("within:error=10", "regression").title
    'share within 10'
    >>> metric_for_task(None, "multilabel").name
    'roc_auc'
    """
    _check_task(task)
    found = metric_of(default_metric(task) if metric is None else metric)
    if task not in found.tasks:
        known = ", ".join(map(metric_form, metrics_of_task(task)))
        raise UsageError(
            f"`metric={found.name}` does not fit `task={task}`: it scores {', '.join(found.tasks)}",
            hint=f"those that fit: {known}, or your own module:function",
        )
    return found


def _check_task(task: str) -> None:
    if task not in ALL_TASKS:
        raise unknown_name("`task`", task, list(ALL_TASKS))
