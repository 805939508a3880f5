"""Check the values of all settings together, and note what a head on frozen features does not use."""

from __future__ import annotations

from dataclasses import asdict, replace

from folds.config.column_tasks import check_column_task
from folds.config.combinations import check_combinations
from folds.config.command_settings import Settings
from folds.config.contradictions import check_contradictions
from folds.config.frozen import ATTENTION_PERSON, LOGISTIC, check_features
from folds.config.lookup import all_settings, spelling_of
from folds.config.recipe import Recipe
from folds.config.stages import check_stages
from folds.errors import UsageError
from folds.images.settings import channel_count, check_channels, check_fit
from folds.metrics.task_names import MULTILABEL, REGRESSION
from folds.optim.schedules import check_schedule

MAX_TRAININGS = 10_000  # of one command


def check(settings: Settings, recipe: Recipe) -> None:
    """Raise UsageError for impossible values, before data are read or models trained."""
    values = asdict(settings) | asdict(recipe)
    if settings.k == 1 and {settings.folds, settings.holdout, settings.fold_column} != {None}:
        values["k"] = 2  # the record of a run with `holdout` or `folds`, given again: k is not used
    for key, described in all_settings().items():
        described.check(values[key])
    given = {"folds": settings.folds is not None, "holdout": settings.holdout is not None}
    given |= {"fold_column": settings.fold_column is not None}
    given |= {"stratify": bool(settings.stratify), "repeats": settings.repeats > 1}
    given |= {name: getattr(settings, name) is not None for name in ("group_within", "leave_out")}
    check_contradictions(given)
    if settings.name is not None and (settings.name.startswith(".") or not {"/", "\\"}.isdisjoint(settings.name)):
        raise UsageError(
            f"`name={settings.name}`: expected a name of letters, digits, '-', '_' or '.', found a path",
            hint="`name=first` writes runs/first",
        )
    if recipe.seed + settings.seeds > 2**32:
        raise UsageError(f"`seeds={settings.seeds}` from `seed={recipe.seed}` on go beyond 2**32")
    trainings = settings.seeds * settings.repeats * len(settings.arch) * (1 if settings.holdout else settings.k)
    if trainings > MAX_TRAININGS and settings.seeds * settings.repeats > 1:
        raise UsageError(
            f"{settings.repeats:,} repeats × {settings.seeds:,} seeds × {len(settings.arch):,} models of "
            f"{settings.k:,} folds are {trainings:,} trainings, more than {MAX_TRAININGS:,}",
            hint="fewer `repeats`, `seeds` or `k`, or several commands",
        )
    if recipe.batch_size is not None and recipe.accumulate > recipe.batch_size:
        raise UsageError(
            f"`grad_accum` must not exceed `batch_size` ({recipe.batch_size}), found {recipe.accumulate}",
            hint=f"`grad_accum={recipe.batch_size}` at most",
        )
    check_fit(recipe.fit)
    check_schedule(recipe.schedule, recipe.schedule_args)
    recipe.size()
    recipe.value_window()
    recipe.chosen_frame()
    _check_channels(recipe, settings.stack or ())
    check_stages(recipe.progressive, recipe.epochs)
    if recipe.init is not None and recipe.pretrained is False:
        raise UsageError("`init_weights=FILE` and `pretrained=False` contradict each other", hint="give one of them")
    check_combinations(recipe)
    check_column_task(recipe)
    check_features(recipe)
    if recipe.init is not None and recipe.init_run is not None:
        raise UsageError("`init_weights=FILE` and `init_run=RUN` contradict each other", hint="give one of them")
    if not settings.arch:
        raise UsageError("`arch` names no architecture", hint="`arch=swin` or `arch=swin,resnet18`")


def _check_channels(recipe: Recipe, stack: tuple[str, ...]) -> None:
    """Raise UsageError if the channels of images do not fit each other, or the other settings."""
    channels = recipe.chosen_channels()
    check_channels(channels, stack)
    count = channel_count(channels, stack)
    if count != 3 and recipe.normalise == "imagenet":
        raise UsageError(
            f"`normalize=imagenet` has the mean and std of 3 channels, and the images have {count}",
            hint="`normalize=data`, which is used without `normalize`, too",
        )
    if count != 3 and recipe.transform is not None:
        raise UsageError(
            f"`transform` changes images of 3 channels, and these have {count}",
            hint="leave it out, or choose 3 channels",
        )


# Settings of fine-tuning that a head on frozen features has no use for.
UNUSED_BY_HEADS = (
    *("augment", "erase", "mixup", "cutmix", "augment_more", "transform", "layer_decay", "accumulate"),
    *("grad_checkpointing", "compile", "ema", "ema_warmup", "freeze", "head_lr"),
    *("cache_scale", "crop_scale", "crop_ratio", "progressive"),
)
OF_GRADIENTS = ("epochs", "batch_size", "lr", "weight_decay", "warmup", "opt", "opt_args", "schedule", "schedule_args")


# What one prediction per person learns, where the images of a person may differ.
_LABELS_OF_PEOPLE = {
    MULTILABEL: "; it learns that a person has the labels of any of the images",
    REGRESSION: "; it learns the mean of the numbers of the images",
}


def features_notes(recipe: Recipe) -> list[str]:
    """Return what a user should know about the settings of a head on frozen features, a line each; [] without one."""
    if not recipe.features:
        return []
    lines = []
    unused = list(UNUSED_BY_HEADS)
    if recipe.head in (None, LOGISTIC):
        unused += [*OF_GRADIENTS, "label_smoothing", "clip"]
    default = {name: all_settings()[name].default for name in unused}
    decided = replace(recipe, **default).completed({})[0]  # what a record of a run has, although it was not asked for
    given = [
        spelling_of(name) for name in unused if getattr(recipe, name) not in (default[name], getattr(decided, name))
    ]
    if recipe.head == ATTENTION_PERSON:
        lines.append(
            f"`head={ATTENTION_PERSON}`: one prediction per person, written for each of the person's images, so that "
            "files stay aligned; scores by person (`per_person`) are its own"
            + _LABELS_OF_PEOPLE.get(recipe.task or "", "")
        )
    if given:
        lines.append(
            f"not used by {recipe.head or LOGISTIC} on frozen features: {', '.join(f'`{name}`' for name in given)}; of "
            f"each image only the views {', '.join(decided.views)} are used"
        )
    if not (recipe.pretrained or recipe.init or recipe.init_run):
        lines.append(
            "the frozen model has random weights: its features are near random. `init_weights=FILE`, `init_run=RUN` or "
            "`pretrained=True` gives it trained ones"
        )
    return lines
