"""Draw heat over images, and images side by side with a caption."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Literal
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from folds.utils.drawing import drawable

# Inferno of matplotlib (CC0) in steps of 1/16: its lightness rises evenly, so it is read the same with any color vision
# and in gray.
_COLORS = np.array(
    [
        (0, 0, 4), (11, 7, 36), (33, 12, 74), (61, 9, 101), (87, 16, 110), (113, 25, 110), (138, 34, 106),
        (163, 44, 97), (188, 55, 84), (210, 70, 68), (228, 90, 49), (241, 115, 29), (249, 142, 9), (252, 172, 17),
        (249, 203, 53), (242, 234, 105), (252, 255, 164),
    ],
    np.float32,
)  # fmt: skip
STRONGEST = 0.75  # opacity of the largest heat: the image stays visible below it
_SIDE = 224  # pixels of the longer side of a panel, at least
_TEXT = 13
_GAP = 6
_INK, _PAPER = (20, 20, 20), (255, 255, 255)


def color_of(heat: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the color (…, 3) in 0–255 of each heat (…) in 0–1."""
    at = np.clip(np.nan_to_num(np.asarray(heat, np.float32)), 0, 1) * (len(_COLORS) - 1)
    low = np.minimum(at.astype(np.int64), len(_COLORS) - 2)
    part = (at - low)[..., None]
    colors: NDArray[np.float32] = _COLORS[low] * (1 - part) + _COLORS[low + 1] * part
    return colors


def overlay(pixels: NDArray[np.uint8], heat: NDArray[np.floating], strongest: float = STRONGEST) -> NDArray[np.uint8]:
    """Return an image (height, width, 3) uint8 with heat (height, width) in 0–1 drawn over it; no heat is clear."""
    alpha = np.clip(np.nan_to_num(np.asarray(heat, np.float32)), 0, 1)[..., None] * strongest
    mixed: NDArray[np.uint8] = np.rint(pixels * (1 - alpha) + color_of(heat) * alpha).astype(np.uint8)
    return mixed


def encode(pixels: NDArray[np.uint8], form: Literal["png", "jpeg"] = "png") -> bytes:
    """Return the bytes of a PNG or JPEG file of pixels (height, width, 3)."""
    file = io.BytesIO()
    options = {"quality": 85} if form == "jpeg" else {"optimize": True}
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, form.upper(), **options)
    return file.getvalue()


def enlarged(pixels: NDArray[np.uint8], aspect: float = 1.0, side: int = _SIDE) -> NDArray[np.uint8]:
    """Return an image (height, width, 3) uint8 in a width ÷ height, with a longer side of at least about `side` pixels.

    Models often read squashed images; in its own proportions, a picture is recognized.
    """
    height, width = pixels.shape[:2]
    longer = max(side, height, width)
    aspect = min(max(aspect, 0.25), 4.0)  # a strip of a few pixels shows nothing
    size = (longer, max(1, round(longer / aspect))) if aspect >= 1 else (max(1, round(longer * aspect)), longer)
    found: NDArray[np.uint8] = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    return found


def scale_svg(title: str, description: str, low: str, high: str) -> str:
    """Return the color scale of heat as an SVG, with the words for its ends."""
    steps = len(_COLORS)
    boxes = "".join(
        f'<rect x="{8 + 12 * at}" y="4" width="12.5" height="16" fill="rgb({red:.0f},{green:.0f},{blue:.0f})"/>'
        for at, (red, green, blue) in enumerate(_COLORS)
    )
    words = "".join(
        f'<text x="{x}" y="36" font-size="13" fill="currentColor" text-anchor="{anchor}">{escape(text)}</text>'
        for x, anchor, text in ((8, "start", low), (8 + 12 * steps, "end", high))
    )
    return (
        f'<svg role="img" width="{16 + 12 * steps}" height="42" viewBox="0 0 {16 + 12 * steps} 42" '
        f'font-family="system-ui, sans-serif" xmlns="http://www.w3.org/2000/svg"><title>{escape(title)}</title>'
        f"<desc>{escape(description)}</desc>{boxes}{words}</svg>"
    )


def side_by_side(panels: Sequence[tuple[str, NDArray[np.uint8]]], caption: Sequence[str]) -> NDArray[np.uint8]:
    """Return titled images (height, width, 3) in a row, a color scale, and lines of text below them.

    Small images are enlarged to about 224 pixels. All panels have the same size.
    """
    height, width = panels[0][1].shape[:2]
    scale = max(1, -(-_SIDE // max(height, width)))
    height, width = height * scale, width * scale
    font = ImageFont.load_default(_TEXT)
    line = _TEXT + 5
    lines = _fitted(caption, font, len(panels) * (width + _GAP) - _GAP)
    size = (len(panels) * (width + _GAP) + _GAP, height + line * (len(lines) + 2) + 2 * _GAP)
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    for at, (title, pixels) in enumerate(panels):
        left = _GAP + at * (width + _GAP)
        draw.text((left, 2), drawable(title), _INK, font)
        sheet.paste(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC), (left, line))
    top = line + height + _GAP
    bar = np.broadcast_to(color_of(np.linspace(0, 1, 120)), (_TEXT - 3, 120, 3)).astype(np.uint8)
    draw.text((_GAP, top), "0", _INK, font)
    sheet.paste(Image.fromarray(bar), (_GAP + 14, top + 3))
    draw.text((_GAP + 140, top), "1   heat of each image, relative to its hottest place", _INK, font)
    for at, text in enumerate(lines):
        draw.text((_GAP, top + line * (at + 1)), text, _INK, font)
    found: NDArray[np.uint8] = np.asarray(sheet)
    return found


def _fitted(lines: Sequence[str], font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Return the lines, each cut to what fits into a width in pixels."""
    kept = []
    for text in map(drawable, lines):
        while text and font.getlength(text) > width:
            text = text[: -4 if text.endswith("...") else -1].rstrip(".") + "..." if len(text) > 4 else ""
        kept.append(text)
    return kept
