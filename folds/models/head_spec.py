"""Parse the setting `head`, and the names of heads as they stand in checkpoints. It does not import torch.

A trained model has a linear or a cosine head, or one for ordered classes (``corn``, ``cumulative``). On frozen features
a linear head is fitted (``logistic``) or trained (``linear``); the others are ``mlp:HIDDEN``,
``attention:DIM:HEADS``, ``attention-person:DIM`` and ``relative``. A trained model of numbers has the head
``number`` or ``gaussian``.
"""

from __future__ import annotations

import math
import re

from folds.config.frozen import (
    ATTENTION,
    ATTENTION_PERSON,
    COSINE,
    DEFAULT_HIDDEN,
    LINEAR,
    MAX_HIDDEN,
    MLP,
    RELATIVE,
    check_head_setting,
)
from folds.errors import UsageError
from folds.optim.loss_spec import GAUSSIAN, ORDERED, LossSpec
from folds.utils.schema import shown

NUMBER = "number"
NUMBER_HEADS = (NUMBER, GAUSSIAN)  # they come with `task=regression`
UNITS = ("center", "scale")  # what these have beside their weights
DEFAULT_SCALE = 30.0  # of Cao et al., 2019
_ATTENTION = f"{ATTENTION}:64:4"
_ATTENTION_PERSON = f"{ATTENTION_PERSON}:64"
_SIZED_HEADS = (f"{MLP}:HIDDEN", f"{ATTENTION}:DIM:HEADS", f"{ATTENTION_PERSON}:DIM")
_KNOWN = ", ".join((LINEAR, f"{COSINE}:SCALE", *ORDERED, *NUMBER_HEADS, *_SIZED_HEADS, RELATIVE))
_OF_SIZES = re.compile(rf"(?:{MLP}|{ATTENTION_PERSON}):([1-9]\d{{0,3}})|{ATTENTION}:([1-9]\d{{0,3}}):([1-9]\d?)")


def head_of(setting: str | None, features: bool | None, hidden: int | None = None) -> str:
    """Return the head of a recipe as an `Architecture` names it: ``linear``, ``cosine:30``, ``mlp:256``.

    Parameters
    ----------
    setting : the setting `head`; None for the usual one.
    features : whether the head is trained on frozen features.
    hidden : units of the hidden layer of an MLP.

    Raises
    ------
    UsageError : no such head, or one of the other kind of training.
    """
    check_head_setting(setting, features)
    if not features:
        if setting in (*ORDERED, *NUMBER_HEADS):
            return str(setting)
        scale = cosine_scale(setting or LINEAR)
        return LINEAR if scale is None else f"{COSINE}:{scale:g}"
    if setting == MLP:
        return f"{MLP}:{hidden or DEFAULT_HIDDEN}"
    named = {ATTENTION: _ATTENTION, ATTENTION_PERSON: _ATTENTION_PERSON, RELATIVE: RELATIVE}
    return named.get(setting or "", LINEAR)


def check_head(text: str) -> None:
    """Raise UsageError unless `text` names a head of an `Architecture`; a checkpoint may come from anywhere."""
    if text in (LINEAR, RELATIVE) or text in ORDERED or text in NUMBER_HEADS:
        return
    found = _OF_SIZES.fullmatch(text)
    if found is None:
        _scale(text)
        return
    sizes = [int(size) for size in found.groups() if size is not None]
    if sizes[0] > MAX_HIDDEN or (len(sizes) == 2 and sizes[0] % sizes[1]):
        raise UsageError(f"unknown head {shown(text)}", hint=f"known: {_KNOWN}")


def cosine_scale(text: str) -> float | None:
    """Return the scale of the logits of a cosine head, ``cosine`` or ``cosine:S``; None for another head.

    Raises
    ------
    UsageError : an unknown head, or a scale that is not above 0.
    """
    check_head(text)
    return _scale(text) if text.startswith(COSINE) else None


def ordinal_link(text: str) -> str | None:
    """Return the link of a head for ordered classes, ``corn`` or ``cumulative``; None for another head."""
    return text if text in ORDERED else None


def number_head_for(loss: LossSpec) -> str:
    """Return the head of a model of numbers that is trained with a loss."""
    return GAUSSIAN if loss.has_spread else NUMBER


def is_of_numbers(text: str) -> bool:
    """Return whether a head predicts numbers in their own unit."""
    return text in NUMBER_HEADS


def is_of_layers(text: str) -> bool:
    """Return whether a head has several layers, so that it takes the place of the classifier of the model."""
    return text.startswith((MLP, ATTENTION, RELATIVE))


def is_of_person(text: str) -> bool:
    """Return whether a head predicts an image from all images of its person, so that one image is not enough."""
    return text.startswith((ATTENTION, RELATIVE))


def require_image_head(head: str, what: str, whose: str) -> None:
    """Raise UsageError if a head predicts an image from all images of its person.

    Parameters
    ----------
    what : what has one image at a time: "test-time augmentation".
    whose : the run, checkpoint or blend that has the head.
    """
    if is_of_person(head):
        raise UsageError(
            f"{what} sees one image at a time, and {whose} predicts an image from all images of its person (head "
            f"{head.partition(':')[0]})",
            hint="ensemble predict predicts a table with the persons of its images; or train a head that needs one "
            "image: `head=logistic`, `head=linear` or `head=mlp`",
        )


def _scale(text: str) -> float | None:
    """Return the scale of a cosine head; None for a linear one."""
    if text == LINEAR:
        return None
    name, colon, number = text.partition(":")
    try:
        scale = float(number) if colon else DEFAULT_SCALE
    except ValueError:
        scale = math.nan
    if name != COSINE or not 0 < scale <= 1000:
        raise UsageError(
            f"`head`: expected {LINEAR}, {COSINE} or {COSINE}:SCALE (above 0, up to 1000), found {text[:60]!r}",
            hint=f"`head={COSINE}` has the scale {DEFAULT_SCALE:g}; heads of ordered classes come with `loss=corn`; "
            f"known: {_KNOWN}",
        )
    return scale
