"""Settings of heads on frozen features: what they need and exclude, and the options `heads` and `join`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from folds.config.setting import Usual
from folds.errors import UsageError, unknown_name
from folds.metrics.task_names import CLASSES, MULTILABEL, REGRESSION
from folds.optim.loss_spec import ORDERED

LINEAR, COSINE, LOGISTIC, MLP, ATTENTION = "linear", "cosine", "logistic", "mlp", "attention"
ATTENTION_PERSON = "attention-person"  # one prediction per person, the same for each of its images
RELATIVE = "relative"  # linear, on the features and on their z-scores within the person
FROZEN_HEADS = (LOGISTIC, LINEAR, MLP, ATTENTION, ATTENTION_PERSON, RELATIVE)
DEFAULT_HIDDEN = 256
MAX_HIDDEN = 8192
FEATURE_VIEWS = ("plain", "hflip", "vflip", "rot180")
# The losses that a fitted head has.
FITTED_LOSSES = {CLASSES: ("ce", "wce"), MULTILABEL: ("bce",), REGRESSION: ("mse",)}
# Settings of the head on frozen features; a run without `features` does not record them.
OF_FEATURES = ("features", "l2", "inner_folds", "hidden", "feature_views")
_NEVER = {
    "weight_column": "images have equal weights there",
    "pseudo": "only images of the table are learned there",
    "soften": "a head learns one class of an image",
    "average_last": "a head keeps its last weights",
    "drop_path": "the frozen model is not trained",
}


def with_heads(
    given: Mapping[str, Any], heads: Sequence[str] | None, sweep: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """Return the settings and the sweeps with the heads: one is a setting, several are a sweep of it.

    Raises
    ------
    UsageError : `head` is given as well, or a sweep of it.
    """
    if not heads:
        return dict(given), list(sweep)
    if given.get("head") is not None or any(text.partition("=")[0].strip() == "head" for text in sweep):
        raise UsageError("`heads` and `head` contradict each other", hint="give one of them")
    own = {**given, "features": True if given.get("features") is None else given["features"]}
    if len(heads) == 1:
        return own | {"head": heads[0]}, list(sweep)
    return own, [f"head={','.join(heads)}", *sweep]


def joined_arch(arch: str | Sequence[str] | None, join: bool) -> Any:
    """Return the architectures; with `join` as one, whose features are joined: ``swin+resnet18``.

    Raises
    ------
    UsageError : `join` without several architectures.
    """
    if not join:
        return arch
    names = arch.split(",") if isinstance(arch, str) else list(arch or ())
    names = [name.strip() for name in names if name.strip()]
    if len(names) < 2:
        raise UsageError("`join` joins the features of several models", hint="`arch=swin,resnet18`")
    return "+".join(names)


def views_of(text: str | None) -> tuple[str, ...]:
    """Return the views of the setting `feature_views`, the image itself first; None: only the image."""
    names = [name.strip() for name in (text or "plain").split(",")]
    return tuple(dict.fromkeys(["plain", *filter(None, names)]))


def check_head_setting(head: str | None, features: bool | None) -> None:
    """Raise UsageError if a value of `head` belongs to the other kind of training; None is right for both."""
    if head is None:
        return
    if features and head not in FROZEN_HEADS:
        kind = head.partition(":")[0]
        why = f"; a {kind} head belongs to a model that is trained" if kind in (COSINE, *ORDERED) else ""
        raise UsageError(
            f"`head` on frozen features: expected {', '.join(FROZEN_HEADS)}, found {head[:60]!r}{why}",
            hint=f"`head={LOGISTIC}`, or leave out `features`",
        )
    if not features and head in FROZEN_HEADS and head != LINEAR:
        raise UsageError(
            f"`head={head}` needs `features`, which is not given",
            hint=f"`features=True`, or `freeze=all`; a model that is trained has `head={LINEAR}` or `head={COSINE}`",
        )


def check_features(recipe: Any) -> None:
    """Raise UsageError if the settings of frozen features contradict each other."""
    check_head_setting(recipe.head, recipe.features)
    for name in OF_FEATURES[1:]:
        if getattr(recipe, name) is not None and not recipe.features:
            raise UsageError(f"`{name}` needs `features`, which is not given", hint="`features=True`, or `freeze=all`")
    if not recipe.features:
        return
    head = recipe.head or LOGISTIC
    for name, reason in _NEVER.items():
        if getattr(recipe, name):
            raise UsageError(f"`{name}` and `features` contradict each other: {reason}", hint=f"leave out `{name}`")
    wrong = [name for name in recipe.views if name not in FEATURE_VIEWS]
    if wrong:
        raise unknown_name("view in `feature_views`", wrong[0], FEATURE_VIEWS)
    for name, owner in (("l2", LOGISTIC), ("inner_folds", LOGISTIC), ("hidden", MLP)):
        if getattr(recipe, name) is not None and head != owner:
            raise UsageError(f"`{name}` is for `head={owner}`, found `head={head}`", hint=f"leave out `{name}`")
    if recipe.l2 is not None and recipe.inner_folds is not None:
        raise UsageError("`l2` and `inner_folds` contradict each other: inner folds choose l2", hint="give one of them")
    if recipe.selected_on_validation:
        raise UsageError(
            "a head on frozen features keeps its last weights: `select=best` and `patience` would choose on the fold "
            "that is scored",
            hint="leave them out; compare `epochs` with `sweep`",
        )
    if head == LOGISTIC:
        check_fitted_losses(recipe, recipe.task)
        for name in ("soft_labels", "soft_columns"):
            if getattr(recipe, name):
                raise UsageError(f"`head=logistic` takes no `{name}`", hint="`head=linear` does")


def check_fitted_losses(recipe: Any, task: str | None) -> None:
    """Raise UsageError if a head is fitted, and not with the losses of a recipe.

    Parameters
    ----------
    task : None if it is not known before the table is read; then the losses of all tasks fit.
    """
    if not recipe.features or recipe.head not in (None, LOGISTIC):
        return
    own = FITTED_LOSSES.get(task or "", FITTED_LOSSES[CLASSES])
    fitting = own if task is not None else tuple(loss for every in FITTED_LOSSES.values() for loss in every)
    known = " or ".join(own) + ("" if task is not None else " (several labels with bce, numbers with mse)")
    for loss in (recipe.loss, *recipe.head_loss.values()):
        if isinstance(loss, Usual):  # that of the task, which fits
            continue
        if not isinstance(loss, str) or loss.partition(":")[0] not in fitting or "+" in loss:
            raise UsageError(
                f"`head=logistic` is fitted with {known}, found the loss {loss}",
                hint="`head=linear` takes every loss",
            )
