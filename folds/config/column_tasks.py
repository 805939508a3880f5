"""Settings for several labels and for numbers: their defaults, and which settings these tasks do not support."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from folds.config.frozen import FROZEN_HEADS, LINEAR, LOGISTIC
from folds.config.setting import Usual
from folds.errors import UsageError
from folds.metrics.task_names import COLUMN_TASKS, MULTILABEL, REGRESSION, default_metric
from folds.optim.loss_spec import COLUMN_LOSSES

USUAL_LOSS, USUAL_METRIC = Usual("ce"), Usual("macro_f1")

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
    "soft_columns": ((MULTILABEL,), "a number is soft by nature: its column can have the mean of several raters"),
    "soft_temperature": ((MULTILABEL,), "a number is no probability, which could be sharpened"),
    "pseudo_confidence": ((MULTILABEL,), "a number has no probability; pseudo_spread compares several teachers"),
    "pseudo_per_class": ((MULTILABEL,), "a number has no class"),
    "pseudo_soft": ((MULTILABEL,), "a number is soft by nature: it is learned as it is predicted"),
    "pseudo_spread": ((REGRESSION,), "pseudo_confidence chooses by the probability of a label"),
    "augment_more": ((), "it is chosen by the class of an image"),
    "sampler": ((), "it balances classes; weights=inverse of the losses bce and focal balances several labels"),
    "sample_counts": ((), "they are those of the classes"),
    "per_person": ((), "the images of a person are counted by class"),
    "label_smoothing": ((MULTILABEL,), "a number has no share to spread"),
}
_UNUSED = {"target": "label", "sampler": "none", "soft_temperature": 1.0}
_HEADS = (None, *FROZEN_HEADS)
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
        metric=default_metric(recipe.task) if isinstance(recipe.metric, Usual) else recipe.metric,
    )


def check_column_task(recipe: Any) -> None:
    """Raise UsageError if a recipe has a task of columns and a setting that this task does not support."""
    if recipe.task not in COLUMN_TASKS:
        if recipe.head in _OWN_HEADS[REGRESSION]:
            raise UsageError(f"`head={recipe.head}` is for numbers", hint="`task=regression`")
        return
    for name, (tasks, reason) in SUPPORTED.items():
        value, unused = getattr(recipe, name), _UNUSED.get(name)
        if value in (None, {}, 0, (), unused) or recipe.task in tasks:
            continue
        text = ",".join(map(str, value)) if isinstance(value, list | tuple | dict) else value
        kind = "about exclusive classes" if not tasks else f"for {' and '.join(tasks)}"
        raise UsageError(
            f"`{name}={text}` is {kind}, and the labels are read with `task={recipe.task}`: {reason}",
            hint=f"leave out `{name}`" + ("" if tasks else ", or read classes with `task=classes`"),
        )
    heads = (*_HEADS, *_OWN_HEADS.get(recipe.task, ()))
    if recipe.head not in heads:
        raise UsageError(
            f"`head={recipe.head}` does not work with `task={recipe.task}`",
            hint=f"`head={LINEAR}`, which is the default; on frozen features also "
            f"{', '.join(head for head in FROZEN_HEADS if head != LINEAR)}",
        )
