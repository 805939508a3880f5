"""The names of heads on frozen features, as they stand in checkpoints."""

from __future__ import annotations

import re

from folds.errors import UsageError
from folds.utils.schema import shown

MAX_HIDDEN = 8192
ATTENTION = "attention"
_KNOWN = re.compile(r"mlp:([1-9]\d{0,3})|attention:([1-9]\d{0,3}):([1-9]\d?)")


def check_head(text: str) -> None:
    """Raise UsageError unless `text` names a head: "" (that of timm), ``mlp:HIDDEN`` or ``attention:DIM:HEADS``.

    It is part of a checkpoint, which may come from anywhere.
    """
    found = _KNOWN.fullmatch(text)
    sizes = [int(size) for size in found.groups() if size is not None] if found else []
    if text and (not sizes or sizes[0] > MAX_HIDDEN or (len(sizes) == 2 and sizes[0] % sizes[1])):
        raise UsageError(
            f"unknown head {shown(text)}", hint="known: mlp:HIDDEN, attention:DIM:HEADS, or none for a linear one"
        )


def is_of_person(text: str) -> bool:
    """Return whether a head predicts an image from all images of its person, so that one image is not enough."""
    return text.startswith(ATTENTION)
