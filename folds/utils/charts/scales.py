"""Estimate the width of texts, choose ticks, and map values to units of a drawing."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

FONT, SMALL = 13.0, 12.0
STRONG = 1.12  # how much wider bold text is


def text_width(text: str, size: float = FONT) -> float:
    """Return the estimated width of a text in a sans-serif font, in the units of `size`; rather too wide than not."""
    return size * sum(map(_advance, text))


def _advance(letter: str) -> float:
    """Return the width of a letter in DejaVu Sans, one of the widest fonts of systems, rounded up."""
    if unicodedata.combining(letter):
        return 0.0
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.05
    if letter in "iljtfrI.,:;'|!()[]/ -":
        return 0.4
    if letter in "mwMW@%—…+<>=~#":
        return 0.95
    return 0.72 if letter.isupper() else 0.63


def shortened(text: str, width: float, size: float = FONT) -> str:
    """Return the text, or its beginning and end with ``…`` between, so that it fits into `width`."""
    if text_width(text, size) <= width:
        return text
    room = width - text_width("…", size)
    head, tail, used = 0, 0, 0.0
    while head + tail < len(text):
        front = head <= 2 * tail  # twice as much of the beginning as of the end
        letter = text[head] if front else text[-1 - tail]
        used += text_width(letter, size)
        if used > room:
            break
        head, tail = head + front, tail + (not front)
    return f"{text[:head].rstrip()}…{text[len(text) - tail :].lstrip() if tail else ''}"


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about `count` round numbers (1, 2 or 5 times a power of ten) from `low` to `high`, ascending.

    Both ends may be equal or in the wrong order; values that are not finite give [].
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return []
    low, high = min(low, high), max(low, high)
    span = high - low
    if span <= max(abs(low), abs(high)) * 1e-9 or span < 1e-300:
        return [low]
    step = _round_step(span / max(count, 1))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    if last - first < 1 and count < 20:  # an axis with one number has no scale
        return ticks(low, high, 2 * count + 1)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [round(i * step, decimals + 1) + 0.0 for i in range(first, last + 1)]


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    share = step / power
    return power * (1 if share <= 1.0001 else 2 if share <= 2.0001 else 5 if share <= 5.0001 else 10)


def log_ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Return round numbers from `low` to `high`, both above 0, for a logarithmic axis."""
    if not (0 < low <= high < math.inf):
        return []
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for shares in ((1, 2, 5), (1, 3), (1,)):
        found = [
            share * 10.0**power
            for power in exponents
            for share in shares
            if low * (1 - 1e-9) <= share * 10.0**power <= high * (1 + 1e-9)
        ]
        if len(found) <= count:
            break
    stride = -(-len(found) // count) if found else 1
    return found[::stride] if len(found) > 1 else [low, high] if low < high else [low]


def tick_texts(values: Sequence[float], signed: bool = False, log: bool = False) -> list[str]:
    """Return the ticks as texts with equally many decimals; on a logarithmic axis, each with its own."""
    if not values:
        return []
    if log:
        return [f"{value:,.0f}" if value >= 1 and float(value).is_integer() else f"{value:g}" for value in values]
    largest = max(abs(value) for value in values)
    gaps = [abs(b - a) for a, b in pairwise(values) if b != a]
    step = min(gaps) if gaps else largest or 1.0
    if largest >= 1e7 or (0 < largest < 1e-3):
        return [f"{value:{'+' if signed and value else ''}.2g}" if value else "0" for value in values]
    decimals = min(6, max(0, -math.floor(math.log10(step) + 1e-9)))
    if any(abs(round(value, decimals) - value) > step * 1e-3 for value in values):
        decimals = min(6, decimals + 1)
    return [f"{value:{'+' if signed and value else ''},.{decimals}f}" for value in values]


@dataclass(frozen=True)
class Scale:
    """Map data to the view box along one axis."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the position of a value; values outside the axis are put to its ends."""
        value = min(max(value, self.low), self.high)
        if self.high == self.low:
            return (self.start + self.end) / 2
        share = (
            math.log(value / self.low) / math.log(self.high / self.low)
            if self.log
            else (value - self.low) / (self.high - self.low)
        )
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int) -> list[float]:
        """Return the ticks of the axis."""
        return log_ticks(self.low, self.high, count) if self.log else ticks(self.low, self.high, count)


def known_values(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]


def axis_limits(values: Sequence[float], log: bool = False, room: float = 0.05) -> tuple[float, float]:
    """Return the ends of an axis for these values, with some room."""
    low, high = min(values), max(values)
    if log:
        return (low / 1.25, high * 1.25) if low < high else (low / 2, high * 2)
    if low == high:
        margin = abs(low) * 0.1 or 1.0
        return low - margin, high + margin
    return low - room * (high - low), high + room * (high - low)


def num(value: float) -> str:
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text
