"""Read cells of further columns of a table: whether a value is missing, and the one spelling of a number."""

from __future__ import annotations

import math

MISSING = frozenset({"", "nan", "na", "n/a", "<na>", "null", "nat"})  # in lower case


def cleaned(text: str) -> str:
    """Return the text without spaces around it; "" if it means that the value is missing."""
    text = text.strip()
    return "" if text.lower() in MISSING else text


def as_number(text: str) -> float | None:
    """Return the finite number that a text is; None if it is another text."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def number_text(value: float) -> str:
    """Return the one spelling of a number, without loss: ``10`` for 10.0."""
    text = repr(float(value) + 0.0)  # -0.0 is 0
    return text.removesuffix(".0")
