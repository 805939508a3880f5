"""Parse the setting of the classifier of a model. It does not import torch."""

from __future__ import annotations

import math

from folds.errors import UsageError

LINEAR, COSINE = "linear", "cosine"
DEFAULT_SCALE = 30.0  # of Cao et al., 2019


def cosine_scale(text: str) -> float | None:
    """Return the scale of the logits of a cosine head, ``cosine`` or ``cosine:S``; None for a linear head.

    Raises
    ------
    UsageError : any other text, or a scale that is not above 0.
    """
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
            hint=f"`head={COSINE}` has the scale {DEFAULT_SCALE:g}",
        )
    return scale
