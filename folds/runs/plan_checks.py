"""Check the recipes of a plan against the place where they run, and say what their settings mean there."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from folds.config.command_settings import Settings
from folds.config.recipe import Recipe
from folds.errors import UsageError
from folds.execution.placement import Execution
from folds.images.settings import channel_count
from folds.models.precision import amp_warning, resolve_amp
from folds.training.resolve import recipe_warnings, task_hint, validate_recipe
from folds.training.soft_labels import soft_label_warnings

logger = logging.getLogger(__name__)


def check_backend(recipes: Sequence[Recipe], execution: Execution) -> None:
    """Raise UsageError if heads on frozen features are to be trained on a cluster."""
    if execution.backend == "ray" and any(recipe.features for recipe in recipes):
        raise UsageError(
            "frozen features are computed and used on this machine, not on a cluster",
            hint="leave out `backend=ray`: after the features, a head takes seconds",
        )
    if (execution.gpus_per_job or 1) > 1 and any(recipe.features for recipe in recipes):
        raise UsageError("heads on frozen features train on the CPU, in seconds", hint="leave out `gpus_per_job`")


def check_shared_batches(recipes: Iterable[Recipe], gpus: int) -> None:
    """Raise UsageError if a fold cannot be trained by several GPUs with a recipe."""
    for recipe in recipes if gpus > 1 else ():
        if recipe.compile:
            raise UsageError(
                f"`compile=True` does not work with `gpus_per_job={gpus}`", hint="one of them: `compile=False`"
            )
        # The parts of a batch are of nearly equal sizes, so the smallest has at least half of the images.
        images = (recipe.batch_size or 1) // recipe.accumulate // 2
        if images < gpus:
            raise UsageError(
                f"`gpus_per_job={gpus}` needs at least {2 * gpus} images per forward pass, found "
                f"{(recipe.batch_size or 1) // recipe.accumulate}",
                hint="a larger `batch_size`" + (", or a smaller `grad_accum`" if recipe.accumulate > 1 else ""),
            )


def check_recipes(recipes: Sequence[Recipe], device: str) -> list[str]:
    """Raise if a recipe is invalid on this kind of device; return warnings, each once."""
    lines: list[str] = []
    for recipe in recipes:
        validate_recipe(recipe)
        lines += soft_label_warnings(recipe)
        if task_hint(recipe):
            logger.info(task_hint(recipe))
        resolve_amp(recipe.amp, device)
        slow = amp_warning(recipe.amp, device)
        lines += [slow] if slow else []
    return list(dict.fromkeys([*lines, *(line for recipe in recipes for line in recipe_warnings(recipe))]))


def channel_note(settings: Settings, recipe: Recipe) -> str:
    """Return a line about what is not used for images whose channels are not colors; "" for colors."""
    channels, stack = recipe.chosen_channels(), settings.stack or ()
    if not channels and not stack:
        return ""
    count = channel_count(channels, stack)
    what = f"the files {', '.join(stack)}" if stack else f"the channels {', '.join(map(str, channels))} of each file"
    without = [] if recipe.features else ["saturation and the operations of `augment=strong` are not used"]
    without += ["mean and std are those of each training part"] if count != 3 else []
    return f"images of {count} channel{'s' * (count != 1)}, {what}, which are not colors: {', '.join(without)}"
