"""Decide what the trials of a study are compared by: the task of its table, and the metric of that task."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace

from folds.config.column_tasks import with_task_defaults
from folds.config.recipe import Recipe
from folds.config.setting import Usual
from folds.data.readers import read_data
from folds.data.sources import HERE, spec_of
from folds.errors import UsageError
from folds.metrics.task_names import CLASSES, COLUMN_TASKS
from folds.metrics.tasks import metric_for_task
from folds.tuning.study import RECORD, Study
from folds.utils.files import read_json

logger = logging.getLogger(__name__)


def with_objective(study: Study, resume: bool = False) -> Study:
    """Return the study with the task of its table, and for several labels or numbers with the metric and the losses.

    The task is that of the settings, of the study that is resumed, or of the table, which is read without its images.
    For classes nothing else changes. A metric or a loss that was not given is that of the task.

    Raises
    ------
    UsageError : a metric, or a loss of a trial, does not fit the task.
    EnsembleError : the table cannot be read.
    """
    if study.task is not None:
        return study
    task = study.recipe.task or (_recorded_task(study) if resume else None) or _task_of_table(study)
    if task not in COLUMN_TASKS:
        return replace(study, task=task)
    from folds.training.resolve import validate_recipe

    given = study.options.metric
    found = metric_for_task(None if isinstance(given, Usual) else given, task)
    metric = given if found.function is not None else found.name

    def of_task(recipe: Recipe) -> Recipe:
        return with_task_defaults(replace(recipe, task=recipe.task or task, metric=metric))

    candidates = tuple(replace(one, recipe=of_task(one.recipe)) for one in study.candidates)
    for one in candidates:
        validate_recipe(one.recipe)
    options = replace(study.options, metric=metric)
    return replace(study, task=task, options=options, recipe=of_task(study.recipe), candidates=candidates)


def _recorded_task(study: Study) -> str | None:
    """Return the task of a study that exists; None if there is none."""
    path = study.folder / RECORD
    record = read_json(path) if path.is_file() else None
    settings = record.get("settings") if isinstance(record, dict) else None
    if not isinstance(settings, dict):
        return None
    task = settings.get("task")
    return task if task in COLUMN_TASKS else CLASSES


def _task_of_table(study: Study) -> str:
    """Return the task that the columns of the table say; that of synthetic faces without a table."""
    there = study.root / HERE
    data = study.settings.data or (there if there.exists() else None)
    if data is None:
        return CLASSES
    spec = replace(spec_of(study.settings, data), test=None, skip_unusable=None)
    found = read_data(spec, need_images=False)
    task = found.train.task
    if task in COLUMN_TASKS:  # the table is read with this task from here on, which does not say why
        logger.info(next((line for line in found.notes if f"`task={task}`" in line), f"task: {task}"))
    return task


def check_same_task(study: Study, tasks: Iterable[str | None]) -> None:
    """Raise UsageError if the trials of a study of classes would have several labels or numbers.

    Parameters
    ----------
    tasks : those of the recipes of the trials; None for classes.
    """
    other = next((task for task in tasks if task in COLUMN_TASKS and task != study.task), None)
    if other is not None:
        raise UsageError(
            f"the study {study.folder} was started with `task={study.task or CLASSES}`, and its table has the task "
            f"{other} now",
            hint="`name=NEW` starts another study, `force=True` deletes this one and starts again",
        )
