"""Define the tasks: what the classes of a table are, and which of two is the positive one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from folds.config.column_tasks import check_column_task
from folds.config.recipe import Recipe
from folds.data.table import Dataset
from folds.errors import UsageError, unknown_name
from folds.metrics.custom import find_metric
from folds.metrics.positive import guess_positive, positive_last, positive_of
from folds.metrics.task_names import ALL_TASKS, BINARY, CLASSES, COLUMN_TASKS, ORDINAL
from folds.predictions.files import LABEL

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """What the classes are.

    Attributes
    ----------
    name : one of `ALL_TASKS`.
    positive : the positive class of a binary decision, the last one; None for another task.
    reason : how it was decided, for the reader; "" if there is nothing to say.
    """

    name: str = CLASSES
    positive: str | None = None
    reason: str = ""


def resolve_task(task: str | None, positive: str | None, classes: Sequence[str], wants_positive: bool = False) -> Task:
    """Return the task of a table with these classes, in the table's order.

    Without a `task`, two classes whose names say that the last one is positive (0 and 1, no and yes, benign and
    malignant) are a binary decision: nothing but the description of the predictions depends on it. If only one of the
    names is known, or if they say that the first one is positive, so that the columns would change, it is only
    proposed, unless a positive class is named or wanted.

    Parameters
    ----------
    task : one of `ALL_TASKS`; None to decide by the classes.
    positive : the positive class, which implies a binary decision; None to decide by the names.
    wants_positive : whether a score is that of the positive class.

    Raises
    ------
    UsageError : an unknown task or class, not two classes, or names that do not say which one is positive.
    """
    if task is not None and task not in ALL_TASKS:
        raise unknown_name("`task`", task, list(ALL_TASKS))
    if task in COLUMN_TASKS:
        if positive is not None:
            raise UsageError(f"`positive={positive}` is for two classes, found `task={task}`", hint="leave it out")
        return Task(task)
    if task in (CLASSES, ORDINAL) or (task is None and positive is None and len(classes) != 2):
        if positive is not None:
            raise UsageError(f"`positive={positive}` needs `task=binary`", hint="leave out one of them")
        return Task(task or CLASSES)
    if len(classes) != 2:
        asked = f"positive={positive}" if task is None else "task=binary"
        raise UsageError(
            f"`{asked}` is for two classes, found {len(classes)}: {', '.join(classes[:10])}",
            hint="leave it out: more classes are exclusive classes",
        )
    guess = guess_positive(classes) if positive is None else positive_of(classes, positive)
    if guess is None and task == BINARY:
        first, second = classes
        raise UsageError(
            f"`task=binary`: the names do not say which of {first} and {second} is the positive class",
            hint=f"`positive={second}` or `positive={first}`",
        )
    if guess is None:
        return Task()
    text = f"binary decision: {guess.name} is the positive class ({guess.reason})"
    if task == BINARY or positive is not None:
        return Task(BINARY, guess.name, text if positive is None else "")
    if (guess.name == classes[-1] and guess.is_sure) or wants_positive:
        return Task(BINARY, guess.name, f"{text}; `positive` names another, `task=classes` none")
    return Task(reason=f"`task=binary` would make {guess.name} the positive class ({guess.reason})")


def recorded_task(task: str | None, positive: str | None, target: str, classes: Sequence[str]) -> str:
    """Return the name of the task of predictions with these classes, in which a positive class is the last one.

    Parameters
    ----------
    task, positive : the settings of the training, by which the classes were ordered.
    target : the predicted variable; attributes of the label are exclusive classes.
    """
    if task == ORDINAL or task in COLUMN_TASKS:
        return str(task)
    if target != LABEL or task == CLASSES or len(classes) != 2:
        return CLASSES
    guess = guess_positive(classes)
    is_told = guess is not None and guess.is_sure and guess.name == classes[-1]
    return BINARY if task == BINARY or positive is not None or is_told else CLASSES


def with_task(data: Dataset, recipes: Sequence[Recipe]) -> Dataset:
    """Return the data with the positive one of two classes last, as the recipes of a command ask; log what was guessed.

    Raises
    ------
    UsageError : an error of `resolve_task`, the recipes have different tasks, or settings are about classes which the
        table does not have.
    """
    if data.train.has_columns:
        for recipe in recipes:
            check_column_recipe(recipe, data.train.task)
        return data
    found = list(dict.fromkeys(_task_of(recipe, data.train.classes) for recipe in recipes))
    if len({one.positive for one in found}) > 1:
        raise UsageError(
            "the recipes of one command must have one task, found "
            + " and ".join(one.name if one.positive is None else f"{one.name} ({one.positive})" for one in found),
            hint="train them by separate commands",
        )
    for line in dict.fromkeys(one.reason for one in found if one.reason):
        logger.info(line)
    return data if found[0].positive is None else _with_positive_last(data, found[0].positive)


def task_of(recipes: Sequence[Recipe]) -> str | None:
    """Return the task that the recipes of a command ask for, as far as the reading of their table depends on it.

    Raises
    ------
    UsageError : one has classes and another several labels or numbers.
    """
    tasks = list(dict.fromkeys(one.task for one in recipes))
    if len(tasks) > 1 and any(one in COLUMN_TASKS for one in tasks):
        raise UsageError(
            f"the recipes of one command must have one task, found {' and '.join(one or 'none' for one in tasks)}",
            hint="train them by separate commands",
        )
    return next((one for one in tasks if one is not None), None)


def check_column_recipe(recipe: Recipe, task: str) -> None:
    """Raise UsageError for settings about classes, with a table of several labels or numbers."""
    if recipe.task not in (None, task):
        raise UsageError(f"the table was read with `task={task}`, found `task={recipe.task}`", hint="leave out `task`")
    check_column_task(replace(recipe, task=task))


def _task_of(recipe: Recipe, classes: Sequence[str]) -> Task:
    if recipe.target == LABEL:
        return resolve_task(recipe.task, recipe.positive, classes, find_metric(recipe.metric).of_positive)
    if recipe.task == BINARY or recipe.positive is not None:
        raise UsageError(
            f"`task=binary` is for the label, found `target={recipe.target}`", hint="leave out one of them"
        )
    return Task()


def _with_positive_last(data: Dataset, positive: str) -> Dataset:
    classes = positive_last(data.train.classes, positive)
    if classes == tuple(data.train.classes):
        return data
    test = None if data.test is None else replace(data.test, classes=classes)
    return replace(data, train=replace(data.train, classes=classes), test=test)
