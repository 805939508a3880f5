"""Resolve a recipe against the classes of a data set: sampler, augmentation, target; reject invalid combinations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.augmentation.custom import load_transform
from folds.augmentation.mixup import MixupCutmix
from folds.augmentation.presets import Augmentation, choose_presets, preset
from folds.config.recipe import Recipe
from folds.data.table import SampleTable
from folds.data.targets import ClassAttributes, Target, determined_attributes, rebinned, resolve_target
from folds.errors import UsageError, unknown_name
from folds.optim.loss_spec import parse_loss
from folds.predictions.files import LABEL
from folds.training.criterion import check_head_losses
from folds.training.sampler import EpochSampler, SamplerConfig, parse_sampler, parse_sampling
from folds.utils.schema import NUMBER, list_of


def validate_recipe(recipe: Recipe) -> None:
    """Refuse what can be seen to be wrong before any table is read: names of losses, presets, samplers, the transform.

    Raises
    ------
    UsageError : an unknown name (the nearest are offered), or an impossible value.
    """
    for key, named in (("head_loss", recipe.head_loss), ("augment_more", recipe.augment_more)):
        wrong = next((name for name, value in named.items() if not isinstance(value, str)), None)
        if wrong is not None:
            raise UsageError(
                f"{key} of '{wrong}': expected a name, found {named[wrong]!r}", hint=f'{key} = {{"{wrong}" = "NAME"}}'
            )
    preset(recipe.augment or "none")
    for loss in (recipe.loss, *recipe.head_loss.values()):
        parse_loss(loss, recipe.label_smoothing)
    parse_sampler(recipe.sampler)
    MixupCutmix(recipe.mixup, recipe.cutmix)
    if recipe.transform is not None:
        load_transform(recipe.transform)


def recipe_warnings(recipe: Recipe) -> list[str]:
    """Return what can be trained and is perhaps not meant, a line each."""
    lines = []
    losses = [parse_loss(loss, recipe.label_smoothing) for loss in (recipe.loss, *recipe.head_loss.values())]
    if recipe.accumulate > 1 and any(term.name == "f1" for loss in losses for term in loss.terms):
        lines.append(
            f"accumulate = {recipe.accumulate} with the loss f1: it is the F1 of each part of a batch, not of the "
            "whole batch"
        )
    return lines


def check_for_classes(recipe: Recipe, classes: Sequence[str], meaning: ClassAttributes) -> Target:
    """Refuse what does not fit these classes; the target of the recipe."""
    target = resolve_target(recipe.target, classes, meaning)
    check_head_losses(target, recipe.head_loss)
    sampling_of(recipe, target, classes, meaning)
    augmentations(recipe, classes, meaning)
    return target


def sampling_of(recipe: Recipe, target: Target, classes: Sequence[str], meaning: ClassAttributes) -> SamplerConfig:
    """Return what an epoch shows. A model of one attribute is balanced by its values, all else is by the label's
    classes.
    """
    if _by_attribute(recipe, target):
        classes, meaning = target.classes, {value: {target.name: value} for value in target.classes}
    return parse_sampling(
        recipe.sampler,
        list(classes),
        counts=recipe.sample_counts,
        per_person=recipe.per_person,
        fixed=recipe.per_person_fixed,
        class_attributes=meaning,
    )


def epochs_of(
    recipe: Recipe,
    target: Target,
    classes: Sequence[str],
    meaning: ClassAttributes,
    training: NDArray[np.int64],
    codes: NDArray[np.int64],
    persons: NDArray[Any],
    seed: tuple[Any, ...],
) -> EpochSampler:
    """Return the rows that each epoch of a fold shows.

    Parameters
    ----------
    training : rows of the table to train on.
    codes, persons : label class and person of each row of the table.
    """
    shown = target.encode_scored(codes) if _by_attribute(recipe, target) else codes
    return sampling_of(recipe, target, classes, meaning).over(training, shown, persons, seed)


def _by_attribute(recipe: Recipe, target: Target) -> bool:
    return target.name != LABEL and parse_sampler(recipe.sampler) != 1


def presets_of(
    recipe: Recipe, classes: Sequence[str], meaning: ClassAttributes
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the presets of augmentation in use, and for each class the position of its own."""
    attributes = {name: [meaning[label][name] for label in classes] for name in determined_attributes(classes, meaning)}
    return choose_presets(recipe.augment or "none", recipe.augment_more, list(classes), attributes)


def augmentations(
    recipe: Recipe, classes: Sequence[str], meaning: ClassAttributes
) -> tuple[tuple[Augmentation, ...], NDArray[np.int64]]:
    """Return the augmentations in use, and for each class the position of its own."""
    names, which = presets_of(recipe, classes, meaning)
    return tuple(preset(name, recipe.erase) for name in names), which


def trained_labels(recipe: Recipe, table: SampleTable) -> list[str] | None:
    """Return the label that each sample is trained on, where that is not the one it is scored by."""
    if not recipe.rebin or table.labels is None:
        return None
    labels: list[str] = table.labels.tolist()
    for attribute, how in recipe.rebin.items():
        if not isinstance(how, Mapping) or set(how) != {"column", "cuts"} or not isinstance(how["cuts"], list | tuple):
            hint = 'rebin = {age = {column = "years", cuts = [30, 58]}}'
            raise UsageError(f"rebin of {attribute}: expected a column and cuts, found {how}", hint=hint)
        if not list_of(NUMBER).holds(how["cuts"]):
            raise UsageError(
                f"rebin of {attribute}: expected numbers as cuts, found {how['cuts']}", hint="cuts = [30, 58]"
            )
        if how["column"] not in table.attributes:
            raise unknown_name(f"column of rebin of {attribute}", str(how["column"]), list(table.attributes))
        numbers = table.attributes[how["column"]].tolist()
        labels = rebinned(labels, table.class_attributes, attribute, numbers, how["cuts"], table.locations)
    return labels
