"""``importance.png``: what each setting explains of the score, and the score of every trial over each setting."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from folds.tuning.importance import Importance, encoded
from folds.tuning.space import Parameter, TuneOptions
from folds.tuning.trials import FINISHED, Trial, best_of, cell
from folds.utils.drawing import drawable
from folds.utils.files import write_atomic

_WIDTH, _EDGE, _ROW = 1020, 24, 30  # pixels
_ACROSS, _HIGH = 3, 250  # panels in a row, and the height of one
_BLUE, _PALE, _RED, _GREY, _LINE = "#2f6db5", "#a9c5e6", "#c23b22", "#555555", "#dddddd"


def draw_importance(
    path: Path, space: Sequence[Parameter], trials: Sequence[Trial], importance: Importance | None, options: TuneOptions
) -> Path | None:
    """Write the PNG; None, and no file, where no trial has a score.

    Full circles are trials that finished, hollow ones were stopped early; the best is red.
    """
    scored = [one for one in trials if one.score is not None]
    if not scored:
        return None
    bars = [] if importance is None else list(importance.share.items())
    top = 2 * _EDGE + 44 + _ROW * len(bars)
    rows = -(-len(space) // _ACROSS)
    sheet = Image.new("RGB", (_WIDTH, top + rows * _HIGH + _EDGE), "white")
    pen = _Pen(sheet)
    pen.text((_EDGE, 14), f"share of the variance of {options.metric} that each setting explains", size=17)
    verdict = f"{len(scored)} trials with a score are too few to say" if importance is None else importance.verdict
    pen.text((_EDGE, 38), verdict, _GREY)
    for number, (key, share) in enumerate(bars):
        assert importance is not None  # noqa: S101 - there are no bars without it
        _bar(pen, 68 + number * _ROW, key, share, importance.spread[key], faint=importance.explained <= 0)
    width = (_WIDTH - 2 * _EDGE) // _ACROSS
    order = [key for key, _ in bars] or [axis.key for axis in space]
    best = best_of(trials, options)
    for number, axis in enumerate(sorted(space, key=lambda axis: order.index(axis.key))):
        corner = (_EDGE + number % _ACROSS * width, top + number // _ACROSS * _HIGH)
        _panel(pen, corner, (width, _HIGH), axis, scored, None if best is None else best.number, options)
    pen.text(
        (_EDGE, sheet.height - 20),
        "full: finished, hollow: stopped early, with the score it had; red: the best that finished",
        _GREY,
        12,
    )
    png = io.BytesIO()
    sheet.save(png, "PNG")
    return write_atomic(path, png.getvalue())


class _Pen:
    """Draws on a sheet in the letters there are."""

    def __init__(self, sheet: Image.Image) -> None:
        self.draw = ImageDraw.Draw(sheet)

    def text(
        self, place: tuple[float, float], text: str, colour: str = "black", size: int = 14, anchor: str = "left"
    ) -> None:
        """`place` is the upper left corner, or where its middle or right end is to be."""
        try:
            font: Any = ImageFont.load_default(size)
        except (ImportError, OSError):  # a Pillow without FreeType has one size
            font = ImageFont.load_default()
        shown = drawable(text)
        share = {"left": 0.0, "middle": 0.5, "right": 1.0}[anchor]
        self.draw.text((place[0] - share * self.draw.textlength(shown, font=font), place[1]), shown, colour, font=font)


def _bar(pen: _Pen, top: int, key: str, share: float, spread: float, faint: bool) -> None:
    left, longest = 220, _WIDTH - 220 - 110
    pen.text((left - 12, top + 3), key, anchor="right")
    pen.draw.rectangle((left, top, left + max(1, round(share * longest)), top + 20), fill=_PALE if faint else _BLUE)
    low, high = (left + min(max(share + sign * spread, 0), 1) * longest for sign in (-1, 1))
    pen.draw.line((low, top + 10, high, top + 10), fill="black", width=2)
    pen.text((high + 10, top + 3), f"{share:.0%} ± {spread:.0%}", _GREY)


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
        pen.text((left - 6, y - 8), f"{low + share * (high - low):.3f}", _GREY, 12, "right")
    pen.text(((left + right) / 2, corner[1] + 4), axis.key + (" (logarithmic)" if axis.log else ""), anchor="middle")
    shares, marks = _placed(axis, [one.settings[axis.key] for one in trials])
    for share, text in marks:
        pen.text((left + (0.06 + 0.88 * share) * (right - left), bottom + 6), text[:12], _GREY, 12, "middle")
    for one, share, score in sorted(zip(trials, shares, scores), key=lambda each: each[0].number == best):
        x, y = left + (0.06 + 0.88 * share) * (right - left), bottom - (score - low) / (high - low) * (bottom - top)
        colour = _RED if one.number == best else _BLUE
        pen.draw.ellipse(
            (x - 4, y - 4, x + 4, y + 4), outline=colour, fill=colour if one.state == FINISHED else "white", width=2
        )


def _placed(axis: Parameter, values: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Return where values stand from left to right, in [0, 1], and what is written below the axis."""
    if axis.choices:
        numbers = encoded(list(axis.choices))
        order = sorted(range(len(numbers)), key=lambda i: numbers[i])
        place = {cell(axis.choices[i]): rank / (len(order) - 1) for rank, i in enumerate(order)}
        return [place[cell(value)] for value in values], [(place[cell(value)], cell(value)) for value in axis.choices]
    scale = math.log if axis.log else float
    low, high = scale(axis.low), scale(axis.high)
    middle = math.sqrt(axis.low * axis.high) if axis.log else (axis.low + axis.high) / 2
    marks = [(0.0, f"{axis.low:g}"), (0.5, f"{middle:.3g}"), (1.0, f"{axis.high:g}")]
    return [(scale(value) - low) / (high - low) for value in values], marks
