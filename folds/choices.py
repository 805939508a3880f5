"""What the settings of a recipe mean for the classes of a table: what an epoch shows, how it is augmented, what cannot be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from folds.augment import preset
from folds.criterion import check_head_losses
from folds.errors import UsageError, unknown
from folds.loss_terms import parse_loss
from folds.recipe import Recipe
from folds.samples import SampleTable
from folds.targets import Meaning, Target, rebinned, resolve_target


def check_choices(recipe: Recipe) -> None:
    """Refuse what can be seen to be wrong before any table is read: names of losses, presets, samplers, the transform.

    Raises
    ------
    UsageError : an unknown name (the nearest are offered), or an impossible value.
    """
    preset(recipe.augment or "none")
    for loss in (recipe.loss, *recipe.head_loss.values()):
        parse_loss(loss, recipe.label_smoothing)


def check_for_classes(recipe: Recipe, classes: Sequence[str], meaning: Meaning) -> Target:
    """Refuse what does not fit these classes; the target of the recipe."""
    target = resolve_target(recipe.target, classes, meaning)
    check_head_losses(target, recipe.head_loss)
    return target


def trained_labels(recipe: Recipe, table: SampleTable) -> list[str] | None:
    """The label that each sample is trained on, where that is not the one it is scored by."""
    if not recipe.rebin or table.labels is None:
        return None
    labels: list[str] = table.labels.tolist()
    for attribute, how in recipe.rebin.items():
        if not isinstance(how, Mapping) or set(how) != {"column", "cuts"} or not isinstance(how["cuts"], list | tuple):
            hint = 'rebin = {age = {column = "years", cuts = [30, 58]}}'
            raise UsageError(f"rebin of {attribute}: expected a column and cuts, found {how}", hint=hint)
        if how["column"] not in table.attributes:
            raise unknown(f"column of rebin of {attribute}", str(how["column"]), list(table.attributes))
        numbers = table.attributes[how["column"]].tolist()
        labels = rebinned(labels, table.class_attributes, attribute, numbers, how["cuts"], table.where)
    return labels
