"""Score the validation part of a fold: after an epoch, and for the record of the fold."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.metrics.confusion import accuracy, argmax_classes, macro_f1
from folds.metrics.custom import find_metric
from folds.metrics.row_scores import log_loss
from folds.metrics.scored_units import scored_units
from folds.predictions.links import predictions_of
from folds.predictions.task_scores import epoch_column, recorded_metrics
from folds.training.context import FoldContext


def validation_scores(context: FoldContext, logits: NDArray[np.float32]) -> dict[str, float]:
    """Return the scores of the validation part from its outputs (n, classes), as history.csv has them: of images, and
    that of people if the job asks for one.
    """
    labels, task = context.labels[context.validation], context.target.task
    values, name = predictions_of(task, logits), f"validation_{context.recipe.metric}"
    if context.target.has_columns:
        scores = {f"validation_{one}": find_metric(one)(labels, values) for one in recorded_metrics(task)}
    else:
        predicted = argmax_classes(logits)
        scores = {
            "validation_macro_f1": macro_f1(labels, predicted, len(context.target.classes)),
            "validation_accuracy": accuracy(labels, predicted),
            "validation_log_loss": log_loss(labels, values),
        }
    if name not in scores:
        scores[name] = find_metric(context.recipe.metric)(labels, values)
    metric = context.job.person_metric
    if metric is not None and context.persons is not None:
        persons = context.persons[context.validation]
        scores[epoch_column(metric, True)] = score_of_part(metric, labels, values, persons, task)
    return scores


def score_of_part(
    metric: str, labels: NDArray, values: NDArray[np.floating], persons: NDArray[np.str_] | None, task: str
) -> float:
    """Return the score of a fold's validation part: of its people if `persons` (n,) are given, else of its images.

    Parameters
    ----------
    labels, values : as metrics take them, (n,) or (n, columns), and (n, classes).
    """
    if persons is None:
        return float(find_metric(metric)(labels, values))
    units = scored_units(labels, [values], persons, True, task)
    return float(find_metric(metric)(units.labels, units.predictions[0]))


def fold_scores(context: FoldContext, logits: NDArray[np.float32]) -> dict[str, Any]:
    """Return the fold and its scores on the validation part, as done.json has them."""
    labels, chosen = context.labels[context.validation], context.recipe.metric
    task = context.target.task
    if context.target.has_columns:
        scores = column_scores(task, labels, predictions_of(task, logits), chosen)
        return {"fold": context.job.fold, "task": task, "scores": scores}
    predicted = argmax_classes(logits)
    own = chosen not in ("macro_f1", "accuracy")
    scores = {chosen: find_metric(chosen)(labels, predictions_of(task, logits))} if own else {}
    return {
        "fold": context.job.fold,
        "macro_f1": macro_f1(labels, predicted, len(context.target.classes)),
        "accuracy": accuracy(labels, predicted),
        **({"scores": scores} if scores else {}),
    }


def column_scores(task: str, labels: NDArray, values: NDArray[np.floating], metric: str) -> dict[str, float | None]:
    """Return metric → score of several labels or numbers, that of the run first; None where it is undefined.

    A metric is undefined where a fold lacks one kind of rows, and JSON has no nan.

    Parameters
    ----------
    labels, values : (n, columns); labels are nan where they are not known.
    metric : of the run.
    """
    found = {
        name: float(find_metric(name)(labels, values)) for name in dict.fromkeys((metric, *recorded_metrics(task)))
    }
    return {name: None if np.isnan(score) else score for name, score in found.items()}
