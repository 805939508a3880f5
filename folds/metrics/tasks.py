"""Tell which metrics fit a task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from folds.errors import UsageError
from folds.metrics.classification import COLUMN_METRICS, METRICS, Metric, metric_form
from folds.metrics.custom import metric_of
from folds.metrics.task_names import check_task
from folds.metrics.task_names import default_metric as default_metric


def metrics_of_task(task: str) -> list[str]:
    """Return the names of the built-in metrics that fit a task.

    Raises
    ------
    UsageError : the task is unknown.
    """
    check_task(task)
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
    check_task(task)
    found = metric_of(default_metric(task) if metric is None else metric)
    if task not in found.tasks:
        known = ", ".join(map(metric_form, metrics_of_task(task)))
        raise UsageError(
            f"`metric={found.name}` does not fit `task={task}`: it scores {', '.join(found.tasks)}",
            hint=f"those that fit: {known}, or your own module:function",
        )
    return found
