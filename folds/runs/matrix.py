"""Expand a command into runs: architectures × variants × repeats × seeds, with names, folds and checked models."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from folds.augmentation.custom import load_transform
from folds.config.command_settings import Settings
from folds.config.defaults import Model
from folds.config.recipe import Recipe
from folds.config.stages import check_below
from folds.config.sweep import RequestedRecipe
from folds.data.table import SampleTable
from folds.data.targets import Target
from folds.errors import UsageError
from folds.experiments.paired_rows import check_comparable, require_run
from folds.images.settings import CACHE, channel_count, margin_of
from folds.models.factory import Architecture, check_forward, create_model
from folds.models.head_spec import head_of
from folds.models.heads import classifier_of
from folds.models.model_names import IMAGENET_MEAN, IMAGENET_STD, SMALL_VARIANTS, hub_model_of, resolve
from folds.models.pretrained import FOLDER, kept_weights, weights_for_features
from folds.models.size import count_parameters
from folds.optim.optimizers import build_optimizer
from folds.predictions.files import LABEL
from folds.runs.run import Run, file_safe
from folds.splits.assignment import FoldAssignment
from folds.training.stages import trained_architecture


@dataclass(frozen=True)
class RunVariant:
    """A recipe with its target and the suffix of its run name (empty for a single recipe).

    A variant with an `arch` is an independent run: `suffix` is its whole name, and it is not compared with other runs.
    `seeds` is the number of training seeds, None for that of the settings.
    """

    suffix: str
    recipe: Recipe
    target: Target
    arch: str | None = None
    seeds: int | None = None


def make_runs(
    settings: Settings,
    variants: Sequence[RunVariant],
    assignments: Sequence[FoldAssignment],
    small: bool,
    root: Path = Path(),
    check: Callable[[Run], None] = lambda run: None,
    anew: bool = False,
) -> tuple[Run, ...]:
    """Return all runs with unique names; raise if a model cannot be built or its weights cannot be loaded.

    Parameters
    ----------
    variants : one or more; each is compared with the first variant of the same architecture, repeat and seed, or with
        the first seed of a variant that has fewer.
    assignments : the folds of each repeat.
    small : use the small variants of the models (for synthetic data).
    root : folder with ``runs`` and ``checkpoints``.
    anew : whether existing runs are trained from scratch.
    check : called with each run before any model is built, which may load weights from a network; it may raise.
    """
    runs: list[Run] = []
    firsts: dict[tuple[int, int, int], str] = {}
    models, built = _Models(root / CACHE / FOLDER), list[tuple[Architecture, Recipe, Target]]()
    for group, arch, variant in _combinations(settings, variants):
        recipe = _with_hub_weights(arch, variant.recipe)
        architecture, recipe = _architecture_of(arch, recipe, settings.stack or (), small)
        base = _unused(file_safe(_name(settings, arch, variant, variant.target.name)), [run.base for run in runs])
        variant_settings = SMALL_VARIANTS[arch].recipe if small and arch in SMALL_VARIANTS else {}
        complete, why = recipe.completed(variant_settings, models.of(architecture, recipe))
        leads = (group, 0, recipe.seed) not in firsts
        for repeat, assignment in enumerate(assignments):
            for seed in range(recipe.seed, recipe.seed + (variant.seeds or settings.seeds)):
                # The first has no suffix, so that repeats and seeds can be added to an existing run.
                name = base + (f"-r{repeat}" if repeat else "") + (f"-s{seed}" if seed != recipe.seed else "")
                name = _unused(name, [run.name for run in runs])
                if leads:
                    firsts[group, repeat, seed] = name
                first = firsts.get((group, repeat, seed)) or firsts[group, repeat, recipe.seed]
                run = Run(
                    name,
                    architecture,
                    replace(complete, seed=seed),
                    assignment,
                    0,
                    variant.target,
                    why,
                    base,
                    root / "runs",
                    root / "checkpoints",
                    None if first == name else first,
                    settings.max_pixels,
                    settings.stack or (),
                )
                if not anew:
                    run = run.as_started(recipe, variant_settings)
                check(run)
                runs.append(run)
                built.append((architecture, recipe, variant.target))
    return tuple(replace(run, parameters=models.check(*model)) for run, model in zip(runs, built, strict=True))


def _architecture_of(arch: str, recipe: Recipe, stack: tuple[str, ...], small: bool) -> tuple[Architecture, Recipe]:
    """Return the architecture of a run, at its size, with its head and for its channels; and the recipe that fits it.

    Raises
    ------
    UsageError : an unknown name, a size that the model does not accept, or joined backbones that are to be fine-tuned.
    """
    drop_path = {} if recipe.drop_path is None else {"drop_path_rate": recipe.drop_path}
    arguments = recipe.model_args | drop_path
    head = head_of(recipe.head, recipe.features, recipe.hidden)
    architecture = resolve(arch, recipe.size(), small=small, arguments=arguments, head=head)
    if architecture.joined and not recipe.features:
        raise UsageError(
            f"joined backbones are not fine-tuned: {architecture.name}",
            hint="`features=True` trains a head on them",
        )
    if architecture.joined and recipe.normalise != "model":
        raise UsageError(
            f"joined backbones are each normalized as their model was, found `normalize={recipe.normalise}`",
            hint="leave `normalize` out",
        )
    if recipe.progressive is not None and not recipe.features:
        check_below(recipe.progressive, (architecture.height, architecture.width), architecture.name)
        trained_architecture(architecture, recipe)
    architecture, recipe = _for_channels(architecture, recipe, stack)
    if recipe.normalise == "imagenet":
        architecture = replace(architecture, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    return architecture, recipe


def _for_channels(architecture: Architecture, recipe: Recipe, stack: tuple[str, ...]) -> tuple[Architecture, Recipe]:
    """Return the architecture for the channels of the images, and the recipe, which then normalizes by the data.

    The mean and std of the model are those of colors; those of other channels are measured on each training part.

    Raises
    ------
    UsageError : joined backbones read other channels than those of color.
    """
    count = channel_count(recipe.chosen_channels(), stack)
    if count == 3:
        return architecture, recipe
    if architecture.joined:
        raise UsageError(
            f"joined backbones read images of 3 channels, and these have {count}", hint="one backbone reads any number"
        )
    mean, std = (sum(values) / 3 for values in (architecture.mean, architecture.std))
    return replace(architecture, mean=(mean,) * count, std=(std,) * count), replace(recipe, normalise="data")


def _with_hub_weights(arch: str, recipe: Recipe) -> Recipe:
    """Return the recipe with the weights of a model that is named by its repository or folder, unless others are given.

    timm's own names are not fetched here (`folds.models.pretrained`).
    """
    found = hub_model_of(arch) if recipe.pretrained and recipe.init is None and recipe.init_run is None else None
    return recipe if found is None else replace(recipe, init=found.weights, pretrained=False)


def _combinations(settings: Settings, variants: Sequence[RunVariant]) -> list[tuple[int, str, RunVariant]]:
    """Return (group, architecture, variant) of each run without repeats and seeds.

    The runs of a group are compared with its first run.
    """
    pairs = [
        (group, arch, variant)
        for (group, arch), variant in itertools.product(enumerate(settings.arch), variants)
        if variant.arch is None
    ]
    return pairs + [
        (len(settings.arch) + i, variant.arch, variant)
        for i, variant in enumerate(variants)
        if variant.arch is not None
    ]


def names_of(settings: Settings, variants: Sequence[RequestedRecipe]) -> list[str]:
    """Return the names of the runs of a command without repeats and seeds, before its table is read."""
    return [
        file_safe(_name(settings, arch, variant, variant.recipe.target))
        for variant in variants
        for arch in (settings.arch if variant.arch is None else (variant.arch,))
    ]


def _name(settings: Settings, arch: str, variant: RunVariant | RequestedRecipe, target: str) -> str:
    """Return the name of a run without repeat and seed; it may not be unique."""
    own = arch if target == LABEL else f"{arch}-{target}"
    own = f"{own}-frozen" if variant.recipe.features else own  # it can lie beside a fine-tuned run
    own = own if settings.leave_out is None else f"{own}-leave-out-{settings.leave_out}"  # beside folds by person
    if variant.arch is not None:
        return "-".join(filter(None, (settings.name, variant.suffix or own)))
    named = own if settings.name is None else settings.name if len(settings.arch) == 1 else f"{settings.name}-{arch}"
    return f"{named}-{variant.suffix}" if variant.suffix else named


class _Models:
    """A check that builds each model once, before anything is decoded or trained.

    Parameters
    ----------
    weights : folder of pretrained weights; those that it lacks are fetched from the hub.
    """

    def __init__(self, weights: Path) -> None:
        self._weights = weights
        self._key: object = None
        self._model: Any = None
        self._parameters: dict[str, int] = {}

    def of(self, architecture: Architecture, recipe: Recipe) -> Model | None:
        """Return what the defaults for fine-tuning depend on; None for random weights and for heads."""
        if not recipe.has_weights or recipe.features:
            return None
        key = repr((architecture.timm_name, sorted(architecture.arguments.items())))
        if key not in self._parameters:
            self._parameters[key] = count_parameters(architecture)
        return Model(architecture.timm_name, self._parameters[key])

    def check(self, architecture: Architecture, recipe: Recipe, target: Target) -> int:
        """Return the number of parameters; raise if the recipe does not work with its model."""
        pretrained = bool(recipe.pretrained) and recipe.init is None
        key = (architecture, target.outputs, pretrained, recipe.init)
        if self._key != key:  # most variants of a recipe share one model
            outputs = target.outputs
            weights_of = weights_for_features(architecture) if recipe.features else (architecture, outputs)
            kept = kept_weights(self._weights, *weights_of) if pretrained else None
            try:
                self._model = create_model(
                    architecture, outputs, pretrained=pretrained and kept is None, init=recipe.init
                )
            except UsageError as error:
                if recipe.drop_path is None or "drop_path_rate" not in error.message:
                    raise
                raise _no_drop_path(architecture.timm_name, "takes no drop_path_rate") from None
            if recipe.drop_path and not _drops_paths(self._model):
                raise _no_drop_path(architecture.timm_name, "has no block that can be skipped")
            if kept is not None and not recipe.features:
                kept.load_into(self._model)
            check_forward(self._model, architecture)
            self._key = key
        if recipe.transform is not None:
            rows, columns = margin_of(architecture.height, architecture.width, recipe.cache_scale)
            load_transform(recipe.transform).check(architecture.height + 2 * rows, architecture.width + 2 * columns)
        if recipe.features:
            classifier_of(self._model, architecture.name)
        build_optimizer(
            self._model, recipe.opt, recipe.weight_decay, recipe.layer_decay, recipe.opt_args, recipe.head_lr
        )
        if recipe.grad_checkpointing:
            _check_grad_checkpointing(self._model, architecture.timm_name)
        return sum(parameter.numel() for parameter in self._model.parameters())


def compared_with(baseline: str, runs: Sequence[Run], table: SampleTable) -> tuple[Run, ...]:
    """Return the runs with `baseline` as their baseline; it is one of them or an existing run.

    Raises
    ------
    EnsembleError : the baseline does not exist, or its scores are not comparable with those of these runs.
    """
    if baseline not in {run.name for run in runs}:
        require_run(baseline, runs[0].runs, "`baseline`")
        for run in runs:
            check_comparable(baseline, table.rows(), run.target.classes, run.target.name, run.runs, run.target.task)
    return tuple(replace(run, baseline=None if run.name == baseline else baseline) for run in runs)


def _drops_paths(model: Any) -> bool:
    """Return whether a part of a model skips blocks at random (timm's DropPath, under any of its names)."""
    return any(getattr(module, "drop_prob", 0) or getattr(module, "drop_path_rate", 0) for module in model.modules())


def _no_drop_path(timm_name: str, reason: str) -> UsageError:
    return UsageError(f"`drop_path` has no effect: {timm_name} {reason}", hint="leave out `drop_path`")


def _check_grad_checkpointing(model: Any, timm_name: str) -> None:
    """Raise UsageError if a model does not support gradient checkpointing (some have the method, but it asserts)."""
    try:
        model.set_grad_checkpointing(True)
        model.set_grad_checkpointing(False)  # other variants use the same model
    except (AttributeError, AssertionError):
        raise UsageError(
            f"grad_checkpointing is not supported by {timm_name}", hint="grad_checkpointing = false"
        ) from None


def _unused(name: str, used: Sequence[str]) -> str:
    """Return `name`, or `name` with the first number from 2 that makes it unique."""
    count, free = 1, name
    while free in used:
        count += 1
        free = f"{name}-{count}"
    return free
