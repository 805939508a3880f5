"""Represent faces as boxes, choose one of several, and compute the part of the image to crop; numpy only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from folds.errors import UsageError

Window = tuple[int, int, int, int]  # left, top, right, bottom in pixels; right and bottom are outside


@dataclass(frozen=True)
class Box:
    """A face, in whole pixels of the upright image; it may extend beyond the image.

    `confidence` is from 0 to 1, on the scale of its detector.
    """

    left: int
    top: int
    width: int
    height: int
    confidence: float


def _centrality(box: Box, size: tuple[int, int]) -> float:
    """Return 1 for a box in the center of the image, down to 0 in a corner."""
    across = math.hypot(box.left + (box.width - size[0]) / 2, box.top + (box.height - size[1]) / 2)
    return max(0.0, 1 - across / (math.hypot(*size) / 2))


# Size and position are weighted by the confidence, so an uncertain box must be much larger to be chosen.
CHOICES: dict[str, Callable[[Box, tuple[int, int]], float]] = {
    "largest": lambda box, size: box.confidence * math.sqrt(box.width * box.height),
    "central": lambda box, size: box.confidence * _centrality(box, size),
    "confident": lambda box, size: box.confidence,
}


def choose(boxes: Sequence[Box], size: tuple[int, int], by: str = "largest") -> Box | None:
    """Return the best of several boxes, None if there are none.

    Parameters
    ----------
    size : (width, height) of the image in pixels.
    by : a key of `CHOICES`. Ties are broken by position, so the result does not depend on the order of `boxes`.
    """
    rate = CHOICES[by]
    best_first = sorted(
        boxes, key=lambda box: (-rate(box, size), -box.confidence, box.top, box.left, box.width, box.height)
    )
    return best_first[0] if best_first else None


def window_round(box: Box, size: tuple[int, int], margin: float, aspect: float) -> Window:
    """Return the part of the image to keep around a box.

    The box is enlarged by `margin` of its width and height on each side, then extended to `aspect` about its center. A
    window that extends beyond an edge is shifted inside; one that is larger than the image is scaled down. So there is
    no padding, and every window has the aspect ratio (to the pixel).

    Parameters
    ----------
    size : (width, height) of the image in pixels.
    aspect : width / height of the window.
    """
    width, height = box.width * (1 + 2 * margin), box.height * (1 + 2 * margin)
    width, height = max(width, height * aspect), max(height, width / aspect)
    return _placed(box.left + box.width / 2, box.top + box.height / 2, width, height, size)


def center_window(size: tuple[int, int], aspect: float) -> Window:
    """Return the largest window of an aspect (width / height) in the center of an image of `size` (width, height)."""
    return _placed(size[0] / 2, size[1] / 2, size[1] * aspect * size[0], size[1] * size[0], size)


def typical_window(
    windows: Sequence[Window], sizes: Sequence[tuple[int, int]], size: tuple[int, int], aspect: float
) -> Window:
    """Return the typical window of other images, scaled to an image of `size`: their median center and median width.

    Centers are fractions of the image size, widths are fractions of its shorter side. Without `windows`, the result is
    `center_window`.
    """
    if not windows:
        return center_window(size, aspect)
    of = np.array(sizes, float)
    lines = np.array(windows, float)
    across, down = (np.median((lines[:, i] + lines[:, i + 2]) / 2 / of[:, i]) for i in (0, 1))
    width = float(np.median((lines[:, 2] - lines[:, 0]) / of.min(axis=1))) * min(size)
    return _placed(float(across) * size[0], float(down) * size[1], width, width / aspect, size)


def _placed(x: float, y: float, width: float, height: float, size: tuple[int, int]) -> Window:
    """Return a window centered at (x, y), scaled down to fit, rounded and shifted inside the image."""
    scale = min(1.0, size[0] / width, size[1] / height)
    wide, high = max(1, round(width * scale)), max(1, round(height * scale))
    left = min(max(0, round(x - wide / 2)), size[0] - wide)
    top = min(max(0, round(y - high / 2)), size[1] - high)
    return left, top, left + wide, top + high


def parse_aspect(text: str) -> float:
    """Return width / height of an aspect ratio: ``"1"`` → 1.0, ``"3:4"`` → 0.75.

    Raises
    ------
    UsageError : `text` is not an aspect ratio from 1:10 to 10:1.
    """
    try:
        parts = [float(part) for part in text.split(":")]
        aspect = parts[0] / (parts[1] if len(parts) == 2 else 1.0)
    except (ValueError, ZeroDivisionError):
        aspect, parts = math.nan, []
    if not 1 <= len(parts) <= 2 or not 0.1 <= aspect <= 10:
        raise UsageError(
            f"`aspect` must be width:height or their ratio, from 1:10 to 10:1, found '{text}'",
            hint="`aspect=3:4`, `aspect=1`",
        )
    return aspect
