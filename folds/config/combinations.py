"""Check settings of a recipe that exclude or need each other."""

from __future__ import annotations

from typing import Any

from folds.config.stages import parse_stages
from folds.errors import UsageError

_NEEDS = {
    "ema_warmup": ("ema",),
    "soft_weight": ("soft_labels", "soft_columns"),
    "soft_temperature": ("soft_labels", "soft_columns"),
    "soften_weight": ("soften",),
    "pseudo_confidence": ("pseudo",),
    "pseudo_per_class": ("pseudo",),
    "pseudo_soft": ("pseudo",),
    "pseudo_weight": ("pseudo",),
    "pseudo_spread": ("pseudo",),
}
_EXAMPLES = {
    "ema": "`ema=0.999`",
    "soft_labels": "`soft_labels=FILE.npy`",
    "soften": "`soften=FILE`",
    "pseudo": "`pseudo=RUN`",
}
_OF_THE_TABLE = "soft labels are of the classes of the table"
_EXCLUDE = {
    ("soft_labels", "rebin"): _OF_THE_TABLE,
    ("soft_columns", "rebin"): _OF_THE_TABLE,
    ("pseudo", "rebin"): "pseudo-labels are of the classes of the table",
    ("soft_labels", "soft_columns"): "both are the soft labels of the training images",
    ("relabel", "rebin"): "both change the labels that are learned",
    ("soften", "rebin"): "the votes are of the classes of the table",
    ("relabel", "soft_columns"): "the shares are learned, not the labels",
    ("soften", "soft_columns"): "both are shares of the classes",
    ("soften", "soft_labels"): "both are probabilities to learn",
    ("soften", "pseudo"): "both make the targets of the images",
    ("average_last", "ema"): "both average weights, and one model is kept",
    ("average_last", "patience"): "which epochs are the last is not known before they are trained",
}


def check_combinations(recipe: Any) -> None:
    """Raise UsageError if settings of a `Recipe` exclude each other, or need one that is not given."""
    for name, needed in _NEEDS.items():
        if getattr(recipe, name) not in (None, False) and not any(getattr(recipe, one) for one in needed):
            raise UsageError(f"`{name}` needs `{needed[0]}`, which is not given", hint=_EXAMPLES[needed[0]])
    for (one, other), reason in _EXCLUDE.items():
        if getattr(recipe, one) and getattr(recipe, other):
            raise UsageError(f"`{one}` and `{other}` contradict each other: {reason}", hint="give one of them")
    if recipe.average_last and recipe.keep == "best":
        raise UsageError(
            "`average_last` and `select=best` contradict each other: the mean of the last epochs is no single epoch",
            hint="give one of them",
        )
    if recipe.average_last and not 2 <= recipe.average_last <= recipe.epochs:
        raise UsageError(
            f"`average_last` must be from 2 to the number of epochs ({recipe.epochs}), found {recipe.average_last}",
            hint="0 keeps the weights of the last epoch",
        )
    below = sum(stage.epochs for stage in parse_stages(recipe.progressive))
    if recipe.average_last and recipe.average_last > recipe.epochs - below:
        raise UsageError(
            f"`average_last={recipe.average_last}` would average epochs at several image sizes: "
            f"`progressive_resizing={recipe.progressive}` leaves {recipe.epochs - below} at the final one",
            hint=f"`average_last={max(2, recipe.epochs - below)}` at most, or more `epochs`",
        )
    if recipe.drop_path is not None and "drop_path_rate" in recipe.model_args:
        raise UsageError("`drop_path` and drop_path_rate in model_args contradict each other", hint="give one of them")
