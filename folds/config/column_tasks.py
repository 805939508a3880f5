"""Settings for several labels and for numbers: their defaults, and which settings these tasks do not support."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from folds.config.frozen import LINEAR, LOGISTIC
from folds.config.setting import Usual
from folds.errors import UsageError
from folds.optim.loss_spec import COLUMN_LOSSES
from folds.predictions.label_columns import COLUMN_TASKS, MULTILABEL, REGRESSION

USUAL_LOSS, USUAL_METRIC = Usual("ce"), Usual("macro_f1")
_METRICS = {MULTILABEL: "roc_auc", REGRESSION: "mae"}

# Setting → the tasks of columns that support it. Other settings are supported by all.
_ONE_CLASS = "an image has no class there"
SUPPORTED: Mapping[str, tuple[tuple[str, ...], str]] = {
    "target": ((), "attributes are those of a class"),
    "positive": ((), _ONE_CLASS),
    "class_order": ((), _ONE_CLASS),
    "head_loss": ((), "there is one head"),
    "rebin": ((), _ONE_CLASS),
    "relabel": ((), "a new label is one class"),
    "soften": ((), "votes are shares of the classes"),
    "soft_columns": ((), "the shares are those of the classes"),
    "soft_labels": ((), "soft labels are class probabilities"),
    "pseudo": ((), "pseudo-labels are classes"),
    "augment_more": ((), "it is chosen by the class of an image"),
    "sampler": ((), "it balances classes; weights=inverse of the losses bce and focal balances several labels"),
    "sample_counts": ((), "they are those of the classes"),
    "per_person": ((), "the images of a person are counted by class"),
    "label_smoothing": ((MULTILABEL,), "a number has no share to spread"),
}
_HEADS = (None, LINEAR, LOGISTIC, "mlp", "attention")
_OWN_HEADS = {REGRESSION: ("number", "gaussian")}


def with_task_defaults(recipe: Any) -> Any:
    """Return a recipe with the loss and the metric of its task, where they were not given."""
    if recipe.task not in COLUMN_TASKS:
        return recipe
    fitted = recipe.features and recipe.head in (None, LOGISTIC)
    loss = "mse" if fitted and recipe.task == REGRESSION else COLUMN_LOSSES[recipe.task][0]
    return replace(
        recipe,
        loss=loss if isinstance(recipe.loss, Usual) else recipe.loss,
        metric=_METRICS[recipe.task] if isinstance(recipe.metric, Usual) else recipe.metric,
    )


def with_task_of_table(recipe: Any, task: str, source: str) -> Any:
    """Return a recipe with the task of a table, and the defaults of this task.

    Parameters
    ----------
    task : of the table, which decides what the labels of its rows are.
    source : the table, for messages.

    Raises
    ------
    UsageError : the recipe has another task, or settings that the task does not support.
    """
    if (recipe.task in COLUMN_TASKS or task in COLUMN_TASKS) and recipe.task not in (None, task):
        found = {MULTILABEL: "several labels of an image", REGRESSION: "numbers"}.get(task, "classes")
        raise UsageError(f"`task={recipe.task}` does not fit {source}, whose labels were read as {found}")
    recipe = with_task_defaults(replace(recipe, task=task) if task in COLUMN_TASKS else recipe)
    check_column_task(recipe)
    return recipe


def check_column_task(recipe: Any) -> None:
    """Raise UsageError if a recipe has a task of columns and a setting that this task does not support."""
    if recipe.task not in COLUMN_TASKS:
        if recipe.head in _OWN_HEADS[REGRESSION]:
            raise UsageError(f"`head={recipe.head}` is for numbers", hint="`task=regression`")
        return
    for name, (tasks, reason) in SUPPORTED.items():
        default = {"target": "label", "sampler": "none"}.get(name)
        if getattr(recipe, name) not in (None, {}, False, 0, (), default) and recipe.task not in tasks:
            require_classes(recipe.task, f"`{name}`", reason)
    heads = (*_HEADS, *_OWN_HEADS.get(recipe.task, ()))
    if recipe.head not in heads:
        raise UsageError(
            f"`head={recipe.head}` does not work with `task={recipe.task}`",
            hint=f"`head={LINEAR}`, which is the default, or a head on frozen features",
        )


def require_classes(task: str, what: str, reason: str = "") -> None:
    """Raise UsageError if a task has several labels or numbers, because `what` does not support them.

    Parameters
    ----------
    what : a setting or a command.
    """
    if task in COLUMN_TASKS:
        why = f": {reason}" if reason else ""
        raise UsageError(f"{what} does not work with `task={task}`{why}", hint="leave it out")
