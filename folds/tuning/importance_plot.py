"""Draw ``importance.png``: the importance of each setting, and the score of every trial over each setting."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from folds.tuning.importance import Importance, encode_values
from folds.tuning.space import Parameter, TuneOptions
from folds.tuning.trials import FINISHED, Trial, best_of, cell
from folds.utils.drawing import drawable
from folds.utils.files import write_atomic

_WIDTH, _MARGIN, _ROW = 1020, 24, 30  # pixels
_PANELS_PER_ROW, _PANEL_HEIGHT = 3, 250
_BLUE, _PALE, _RED, _GRAY, _LINE = "#2f6db5", "#a9c5e6", "#c23b22", "#555555", "#dddddd"


def draw_importance(
    path: Path, space: Sequence[Parameter], trials: Sequence[Trial], importance: Importance | None, options: TuneOptions
) -> Path | None:
    """Write the PNG and return its path; without a trial with a score, write nothing and return None.

    Full circles are finished trials, hollow circles are trials that were stopped early; the best is red.
    """
    scored = [one for one in trials if one.score is not None]
    if not scored:
        return None
    bars = [] if importance is None else list(importance.share.items())
    top = 2 * _MARGIN + 44 + _ROW * len(bars)
    rows = -(-len(space) // _PANELS_PER_ROW)
    sheet = Image.new("RGB", (_WIDTH, top + rows * _PANEL_HEIGHT + _MARGIN), "white")
    pen = _Pen(sheet)
    pen.text((_MARGIN, 14), f"share of the variance of {options.metric} explained by each setting", size=17)
    verdict = f"not estimated: {len(scored)} trials with a score" if importance is None else importance.verdict
    pen.text((_MARGIN, 38), verdict, _GRAY)
    for number, (key, share) in enumerate(bars):
        assert importance is not None  # noqa: S101 - there are no bars without it
        _bar(pen, 68 + number * _ROW, key, share, importance.spread[key], faint=importance.r_squared <= 0)
    width = (_WIDTH - 2 * _MARGIN) // _PANELS_PER_ROW
    order = [key for key, _ in bars] or [axis.key for axis in space]
    best = best_of(trials, options)
    for number, axis in enumerate(sorted(space, key=lambda axis: order.index(axis.key))):
        corner = (_MARGIN + number % _PANELS_PER_ROW * width, top + number // _PANELS_PER_ROW * _PANEL_HEIGHT)
        _panel(pen, corner, (width, _PANEL_HEIGHT), axis, scored, None if best is None else best.number, options)
    pen.text(
        (_MARGIN, sheet.height - 20),
        "full: finished; hollow: stopped early, with its last score; red: best of the finished trials",
        _GRAY,
        12,
    )
    png = io.BytesIO()
    sheet.save(png, "PNG")
    return write_atomic(path, png.getvalue())


class _Pen:
    """A sheet to draw on, with text in the characters that the font has."""

    def __init__(self, sheet: Image.Image) -> None:
        self.draw = ImageDraw.Draw(sheet)

    def text(
        self, position: tuple[float, float], text: str, color: str = "black", size: int = 14, anchor: str = "left"
    ) -> None:
        """Draw text with its left end, middle or right end (`anchor`) at `position`, the upper edge of the text."""
        try:
            font: Any = ImageFont.load_default(size)
        except (ImportError, OSError):  # Pillow without FreeType has only one size
            font = ImageFont.load_default()
        shown = drawable(text)
        share = {"left": 0.0, "middle": 0.5, "right": 1.0}[anchor]
        left = position[0] - share * self.draw.textlength(shown, font=font)
        self.draw.text((left, position[1]), shown, color, font=font)


def _bar(pen: _Pen, top: int, key: str, share: float, spread: float, faint: bool) -> None:
    left, max_length = 220, _WIDTH - 220 - 110
    pen.text((left - 12, top + 3), key, anchor="right")
    pen.draw.rectangle((left, top, left + max(1, round(share * max_length)), top + 20), fill=_PALE if faint else _BLUE)
    low, high = (left + min(max(share + sign * spread, 0), 1) * max_length for sign in (-1, 1))
    pen.draw.line((low, top + 10, high, top + 10), fill="black", width=2)
    pen.text((high + 10, top + 3), f"{share:.0%} ± {spread:.0%}", _GRAY)


def _panel(
    pen: _Pen,
    corner: tuple[int, int],
    size: tuple[int, int],
    axis: Parameter,
    trials: Sequence[Trial],
    best: int | None,
    options: TuneOptions,
) -> None:
    left, right, top, bottom = corner[0] + 58, corner[0] + size[0] - 16, corner[1] + 26, corner[1] + size[1] - 44
    scores = [float(one.score or 0) for one in trials]
    low, high = min(scores), max(scores)
    margin = (high - low) * 0.06 or 0.01
    low, high = low - margin, high + margin
    pen.draw.rectangle((left, top, right, bottom), outline=_LINE)
    for share in (0.0, 0.5, 1.0):
        y = bottom - share * (bottom - top)
        pen.draw.line((left, y, right, y), fill=_LINE)
        pen.text((left - 6, y - 8), f"{low + share * (high - low):.3f}", _GRAY, 12, "right")
    pen.text(((left + right) / 2, corner[1] + 4), axis.key + (" (logarithmic)" if axis.log else ""), anchor="middle")
    shares, ticks = _positions(axis, [one.settings[axis.key] for one in trials])
    for share, text in ticks:
        pen.text((left + (0.06 + 0.88 * share) * (right - left), bottom + 6), text[:12], _GRAY, 12, "middle")
    for one, share, score in sorted(zip(trials, shares, scores), key=lambda each: each[0].number == best):
        x, y = left + (0.06 + 0.88 * share) * (right - left), bottom - (score - low) / (high - low) * (bottom - top)
        color = _RED if one.number == best else _BLUE
        pen.draw.ellipse(
            (x - 4, y - 4, x + 4, y + 4), outline=color, fill=color if one.state == FINISHED else "white", width=2
        )


def _positions(axis: Parameter, values: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Return the position of each value on the axis, in [0, 1], and the ticks of the axis (position, label)."""
    if axis.choices:
        codes = encode_values(list(axis.choices))
        order = sorted(range(len(codes)), key=lambda i: codes[i])
        position = {cell(axis.choices[i]): rank / (len(order) - 1) for rank, i in enumerate(order)}
        ticks = [(position[cell(value)], cell(value)) for value in axis.choices]
        return [position[cell(value)] for value in values], ticks
    scale = math.log if axis.log else float
    low, high = scale(axis.low), scale(axis.high)
    middle = math.sqrt(axis.low * axis.high) if axis.log else (axis.low + axis.high) / 2
    ticks = [(0.0, f"{axis.low:g}"), (0.5, f"{middle:.3g}"), (1.0, f"{axis.high:g}")]
    return [(scale(value) - low) / (high - low) for value in values], ticks
