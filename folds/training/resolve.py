"""Resolve a recipe against the classes of a data set: sampler, augmentation, target; reject invalid combinations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.augmentation.custom import load_transform
from folds.augmentation.mixup import MixupCutmix
from folds.augmentation.presets import Augmentation, choose_presets, preset, without_colors
from folds.config.column_tasks import check_column_task, with_task_defaults
from folds.config.frozen import LINEAR, LOGISTIC
from folds.config.recipe import Recipe
from folds.data.table import SampleTable
from folds.data.targets import ClassAttributes, Target, determined_attributes, rebinned, resolve_target
from folds.errors import UsageError, unknown_name
from folds.metrics.custom import find_metric
from folds.metrics.task_names import ORDINAL, REGRESSION
from folds.models.head_spec import GAUSSIAN, cosine_scale, head_of, number_head_for
from folds.optim.loss_spec import ORDERED, LossSpec, parse_loss
from folds.predictions.files import LABEL
from folds.training.criterion import check_head_losses
from folds.training.label_changes import relabeled_labels
from folds.training.sampler import EpochSampler, SamplerConfig, parse_sampler, parse_sampling
from folds.utils.schema import NUMBER, list_of, shown


def validate_recipe(recipe: Recipe) -> None:
    """Raise UsageError for errors that do not depend on a table: losses, presets, samplers, the transform."""
    for key, named in (("head_loss", recipe.head_loss), ("augment_more", recipe.augment_more)):
        wrong = next((name for name, value in named.items() if not isinstance(value, str)), None)
        if wrong is not None:
            raise UsageError(
                f"{key} of '{wrong}': expected a name, found {shown(named[wrong])}",
                hint=f'{key} = {{"{wrong}" = "NAME"}}',
            )
    preset(recipe.augment or "none")
    recipe = with_task_defaults(recipe)
    check_column_task(recipe)
    _check_task(recipe)
    scale = cosine_scale(head_of(recipe.head, recipe.features, recipe.hidden))
    for loss in (recipe.loss, *recipe.head_loss.values()):
        _check_for_head(loss, parse_loss(loss, recipe.label_smoothing), scale)
    parse_sampler(recipe.sampler)
    MixupCutmix(recipe.mixup, recipe.cutmix)
    find_metric(recipe.metric)
    if recipe.transform is not None:
        load_transform(recipe.transform)


def with_ordered_head(recipe: Recipe) -> Recipe:
    """Return the recipe with the head that its loss needs, if it is one of grades or numbers and `head` is open."""
    if recipe.features:
        return recipe
    spec = parse_loss(recipe.loss)
    if recipe.task == REGRESSION and recipe.head in (None, LINEAR):  # it is a linear layer, with units
        return replace(recipe, head=number_head_for(spec))
    if recipe.head is not None:
        return recipe
    link = spec.ordered_head
    return recipe if link is None else replace(recipe, head=link)


def _check_task(recipe: Recipe) -> None:
    """Raise UsageError if losses of grades and the task, the head or the targets do not fit."""
    ordinal = recipe.task == ORDINAL
    if recipe.class_order and not ordinal:
        raise UsageError("`class_order` is for grades", hint="`task=ordinal`")
    if ordinal and "+" in recipe.target:
        raise UsageError(
            f"`task=ordinal` is for one order of classes, found `target={recipe.target}`",
            hint="train each attribute by itself: `target=age`",
        )
    spec = parse_loss(recipe.loss)
    if recipe.task is not None:  # else the table says it (`check_for_classes`)
        spec.check_task(recipe.task)
    link = spec.ordered_head
    if spec.has_spread and (recipe.features or recipe.head not in (None, LINEAR, GAUSSIAN)):
        raise UsageError(
            f"`loss={recipe.loss}` has a head of its own, for a model that is trained",
            hint="leave out `head` and `features`, or `loss=huber`",
        )
    for loss, where in ((recipe.loss, "loss"), *((one, "head_loss") for one in recipe.head_loss.values())):
        own = parse_loss(loss)
        if own.is_of_grades and not ordinal:
            raise UsageError(f"`{where}={loss}` is a loss of grades, whose order it uses", hint="`task=ordinal`")
        if own.ordered_head is not None and own.ordered_head != link:
            raise UsageError(f"`head_loss` cannot be {own.ordered_head}", hint=f"`loss={own.ordered_head}`")
    if link is not None and recipe.features:
        raise UsageError(
            f"`loss={recipe.loss}` trains a model of its own outputs, not a head on frozen features",
            hint="`loss=ce:ordinal=1.5` with `head=linear`, or leave out `features`",
        )
    if spec.is_of_grades and recipe.features and recipe.head in (None, LOGISTIC):
        raise UsageError(
            f"`head=logistic` is fitted with ce or wce, found the loss {recipe.loss}", hint="`head=linear` takes it"
        )
    if link is not None and recipe.head not in (None, link):
        raise UsageError(
            f"`loss={recipe.loss}` has a head of its own, found `head={recipe.head}`", hint="leave out `head`"
        )
    if link is not None and recipe.head_loss:
        raise UsageError(
            f"`loss={recipe.loss}` and `head_loss` contradict each other: the head is made for {link}",
            hint="give the loss as `loss` alone",
        )
    if recipe.head in ORDERED and link is None:
        raise UsageError(f"`head={recipe.head}` needs the loss {recipe.head}", hint=f"`loss={recipe.head}`")
    if recipe.head == GAUSSIAN and not spec.has_spread:
        raise UsageError(f"`head={recipe.head}` needs the loss {GAUSSIAN}", hint="leave out `head`")


def task_hint(recipe: Recipe) -> str:
    """Return the suggestion of `task=ordinal` where the metric is one of grades; "" where there is none to make."""
    if recipe.task is not None or recipe.metric not in ("quadratic_kappa", "grade_mae"):
        return ""
    return (
        f"`metric={recipe.metric}` measures how many grades a prediction is off: `task=ordinal` tells the training "
        "that the classes are grades"
    )


def _check_for_head(expression: str, loss: LossSpec, scale: float | None) -> None:
    """Raise UsageError if the loss has a scale or margins that do not fit a cosine head."""
    for term in loss.terms:
        if term.name != "ldam" or scale is None:
            continue
        if term.s != 1:
            raise UsageError(
                f"`loss={expression}`: with a cosine head the scale is that of the head, found s={term.s:g} as well",
                hint=f"`head=cosine:{term.s:g}` and ldam without s is the loss of the paper",
            )
        if term.margin > 2:
            raise UsageError(
                f"`loss={expression}`: with a cosine head margins are of cosines, from 0 to 2, found {term.margin:g}",
                hint="the paper has margin=.5",
            )


def recipe_warnings(recipe: Recipe) -> list[str]:
    """Return warnings about valid settings that are probably unintended, a line each."""
    lines = []
    losses = [parse_loss(loss, recipe.label_smoothing) for loss in (recipe.loss, *recipe.head_loss.values())]
    if recipe.accumulate > 1 and any(term.name == "f1" for loss in losses for term in loss.terms):
        lines.append(
            f"`grad_accum={recipe.accumulate}` with the loss f1: F1 is computed on each part of a batch, not on the "
            "whole batch"
        )
    return lines


def target_of(recipe: Recipe, classes: Sequence[str], attributes: ClassAttributes) -> Target:
    """Return the target of the recipe for a table with these classes, or columns."""
    return resolve_target(recipe.target, classes, attributes, recipe.class_order or (), recipe.task)


def check_for_classes(recipe: Recipe, classes: Sequence[str], attributes: ClassAttributes) -> Target:
    """Return the target of the recipe; raise UsageError if the recipe does not fit the classes."""
    target = target_of(recipe, classes, attributes)
    for loss in (recipe.loss, *recipe.head_loss.values()):
        parse_loss(loss).check_task(target.task)
    if target.has_columns:
        return target
    scored = find_metric(recipe.metric)
    if scored.per_row is not None:  # it refuses a number of classes for which it says nothing
        scored.per_row(np.zeros(1, np.int64), np.full((1, len(target.classes)), 1 / len(target.classes)))
    check_head_losses(target, recipe.head_loss)
    sampling_of(recipe, target, classes, attributes)
    augmentations(recipe, classes, attributes)
    return target


def sampling_of(recipe: Recipe, target: Target, classes: Sequence[str], attributes: ClassAttributes) -> SamplerConfig:
    """Return the settings of the sampler.

    Sampling for a model of one attribute refers to the values of the attribute, otherwise to the classes of the label.
    """
    if _by_attribute(recipe, target):
        classes, attributes = target.classes, {value: {target.name: value} for value in target.classes}
    return parse_sampling(
        recipe.sampler,
        list(classes),
        counts=recipe.sample_counts,
        per_person=recipe.per_person,
        fixed=recipe.per_person_fixed,
        class_attributes=attributes,
    )


def epochs_of(
    recipe: Recipe,
    target: Target,
    classes: Sequence[str],
    attributes: ClassAttributes,
    training: NDArray[np.int64],
    codes: NDArray[np.int64],
    persons: NDArray[Any],
    seed: tuple[Any, ...],
) -> EpochSampler:
    """Return the sampler of the epochs of a fold.

    Parameters
    ----------
    training : rows of the table to train on.
    codes, persons : class index and person of each row of the table.
    """
    if target.has_columns:  # no class is drawn more often than another
        return SamplerConfig(1).over(training, np.zeros(len(codes), np.int64), persons, seed)
    sampled = target.encode_scored(codes) if _by_attribute(recipe, target) else codes
    return sampling_of(recipe, target, classes, attributes).over(training, sampled, persons, seed)


def _by_attribute(recipe: Recipe, target: Target) -> bool:
    return target.name != LABEL and parse_sampler(recipe.sampler) != 1


def presets_of(
    recipe: Recipe, classes: Sequence[str], attributes: ClassAttributes
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the augmentation presets in use, and (classes,) the index of the preset of each class."""
    values = {
        name: [attributes[label][name] for label in classes] for name in determined_attributes(classes, attributes)
    }
    return choose_presets(recipe.augment or "none", recipe.augment_more, list(classes), values)


def augmentations(
    recipe: Recipe, classes: Sequence[str], attributes: ClassAttributes, colors: bool = True
) -> tuple[tuple[Augmentation, ...], NDArray[np.int64]]:
    """Return the augmentations in use, and (classes,) the index of the augmentation of each class.

    Parameters
    ----------
    colors : whether the channels of the images are red, green and blue.
    """
    names, index = presets_of(recipe, classes, attributes)
    found = tuple(preset(name, recipe.erase, recipe.crop_scale, recipe.crop_ratio) for name in names)
    return found if colors else tuple(map(without_colors, found)), index


def augmentation_index(class_index: NDArray[np.int64], codes: NDArray) -> NDArray[np.int64]:
    """Return (n,) the index of the augmentation of each row; of columns, all rows have the first.

    Parameters
    ----------
    class_index : (classes,) index of the augmentation of each class.
    codes : (n,) classes, or (n, columns).
    """
    return class_index[codes] if codes.ndim == 1 else np.zeros(len(codes), np.int64)


def trained_labels(recipe: Recipe, table: SampleTable) -> list[str] | None:
    """Return the training label of each sample, or None if training uses the scored labels.

    Raises
    ------
    UsageError, EnsembleError : `rebin` is invalid, or the file of `relabel` is.
    """
    if recipe.relabel is not None:  # which excludes `rebin`
        return relabeled_labels(recipe, table)
    if not recipe.rebin or table.labels is None:
        return None
    labels: list[str] = table.labels.tolist()
    for attribute, bins in recipe.rebin.items():
        if (
            not isinstance(bins, Mapping)
            or set(bins) != {"column", "cuts"}
            or not isinstance(bins["cuts"], list | tuple)
        ):
            hint = 'rebin = {age = {column = "years", cuts = [30, 58]}}'
            raise UsageError(f"rebin of {attribute}: expected a column and cuts, found {bins}", hint=hint)
        if not list_of(NUMBER).holds(bins["cuts"]):
            raise UsageError(
                f"rebin of {attribute}: expected numbers as cuts, found {bins['cuts']}", hint="cuts = [30, 58]"
            )
        if bins["column"] not in table.attributes:
            raise unknown_name(f"column of rebin of {attribute}", str(bins["column"]), list(table.attributes))
        numbers = table.attributes[bins["column"]].tolist()
        labels = rebinned(labels, table.class_attributes, attribute, numbers, bins["cuts"], table.locations)
    return labels
