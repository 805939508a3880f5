"""Format text: sorted class names, durations, values of settings."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)", re.ASCII)


def sort_classes(names: Sequence[str]) -> tuple[str, ...]:
    """Return the distinct class names, sorted: integers as numbers (``"2"`` before ``"10"``), otherwise as text."""
    unique = set(names)
    try:
        return tuple(sorted(unique, key=lambda name: (int(name), name)))  # the name decides between "1" and "01"
    except ValueError:
        return tuple(sorted(unique))


def sort_by_number(names: Sequence[str]) -> tuple[str, ...]:
    """Return the distinct class names, sorted: as numbers, however they are written (``"2.0"`` before ``"10.0"``), if
    all are numbers; otherwise as text.
    """
    unique = set(names)
    if any("." in name for name in unique) and all(_NUMBER.fullmatch(name) for name in unique):
        return tuple(sorted(unique, key=lambda name: (float(name), name)))
    return sort_classes(names)


_PIECE = re.compile(r"(\d+)", re.ASCII)
_BOUND = re.compile(r"\s*([<≤>≥]?)=?\s*(\d+(?:\.\d+)?)", re.ASCII)


def natural_order(names: Iterable[str]) -> list[str]:
    """Return the distinct texts, sorted by the numbers in them: ``<30``, ``30-59``, ``>=60``; ``a2`` before ``a10``.

    A text that begins with a number, or with a limit such as ``<30``, stands by that number, before all others.
    """

    def key(name: str) -> tuple[bool, float, int, list[tuple[int, str]], str]:
        start = _BOUND.match(name)
        at = float(start[2]) if start else 0.0
        rank = {"": 0, "<": -1, "≤": -1, ">": 1, "≥": 1}[start[1]] if start else 0
        # Texts stand at even places and numbers at odd ones, so that only like is compared with like; a number may
        # have more digits than Python converts.
        pieces = [
            (len(one.lstrip("0")) if place % 2 else 0, one.lstrip("0") if place % 2 else one)
            for place, one in enumerate(_PIECE.split(name))
        ]
        return start is None, at, rank, pieces, name

    return sorted(set(names), key=key)


def value_text(value: Any) -> str:
    """Return a setting's value in one short line; ``–`` if it is not set."""
    if value is None:
        return "–"
    text = re.sub(
        r"\s+",
        " ",
        f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value),
    )
    return text if len(text) <= 40 else text[:39] + "…"


def duration(seconds: float) -> str:
    """Return ``45 s``, ``3 min``, ``2 h 10 min``; any time above 0 is at least ``1 s``."""
    if seconds < 90:
        return f"{max(seconds, min(1, math.ceil(seconds))):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Return ``1 fold``, ``5 folds``, ``2,000 folds``; `plural` is for nouns that do not take an s."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def size_text(size: int) -> str:
    """Return a number of bytes as ``900 B``, ``12 kB``, ``1.4 MB``."""
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"


def score_text(score: float | None) -> str:
    """Return a score with three decimals, or three digits where these are 0; ``undefined`` for None and nan.

    Examples
    --------
    >>> score_text(0.8125), score_text(12.5), score_text(0.000123), score_text(None)
    ('0.812', '12.500', '0.000123', 'undefined')
    """
    if score is None or score != score:
        return "undefined"
    return f"{score:.3f}" if abs(score) >= 0.0005 or score == 0 else f"{score:.3g}"
