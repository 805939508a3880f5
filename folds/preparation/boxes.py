"""Where a face is, which of several is meant, and the part of the image to cut out round it; numpy only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from folds.errors import UsageError

Window = tuple[int, int, int, int]  # left, top, right, bottom in pixels; right and bottom are outside


@dataclass(frozen=True)
class Box:
    """A face: pixels of the upright image, whole numbers; it may reach beyond the image. `confidence` from 0 to 1, of
    its detector's own scale.
    """

    left: int
    top: int
    width: int
    height: int
    confidence: float


def _centrality(box: Box, size: tuple[int, int]) -> float:
    """1 in the middle of the image, 0 in a corner."""
    across = math.hypot(box.left + (box.width - size[0]) / 2, box.top + (box.height - size[1]) / 2)
    return max(0.0, 1 - across / (math.hypot(*size) / 2))


# Size and place are weighed with the confidence: a doubtful box must be much larger to be taken for the face.
CHOICES: dict[str, Callable[[Box, tuple[int, int]], float]] = {
    "largest": lambda box, size: box.confidence * math.sqrt(box.width * box.height),
    "central": lambda box, size: box.confidence * _centrality(box, size),
    "confident": lambda box, size: box.confidence,
}


def choose(boxes: Sequence[Box], size: tuple[int, int], by: str = "largest") -> Box | None:
    """Return the box that is meant among several, None where there is none.

    Parameters
    ----------
    size : (width, height) of the image in pixels.
    by : a name of `CHOICES`. Equal boxes are told apart by their place, so that the order in which they were found
        decides nothing.
    """
    rate = CHOICES[by]
    ordered = sorted(
        boxes, key=lambda box: (-rate(box, size), -box.confidence, box.top, box.left, box.width, box.height)
    )
    return ordered[0] if ordered else None


def window_round(box: Box, size: tuple[int, int], margin: float, aspect: float) -> Window:
    """Return the part of the image to keep round a box.

    The box is enlarged by `margin` of its width and height on each side, then widened or heightened to `aspect` about
    its centre. What
    reaches over an edge is moved inside; what is larger than the image is made smaller in proportion. So nothing is
    padded, and every window has the aspect (to the pixel).

    Parameters
    ----------
    size : (width, height) of the image in pixels.
    aspect : width / height of the window.
    """
    width, height = box.width * (1 + 2 * margin), box.height * (1 + 2 * margin)
    width, height = max(width, height * aspect), max(height, width / aspect)
    return _placed(box.left + box.width / 2, box.top + box.height / 2, width, height, size)


def centre_window(size: tuple[int, int], aspect: float) -> Window:
    """Return the largest window of an aspect (width / height) in the middle of an image of `size` (width, height)."""
    return _placed(size[0] / 2, size[1] / 2, size[1] * aspect * size[0], size[1] * size[0], size)


def typical_window(
    windows: Sequence[Window], sizes: Sequence[tuple[int, int]], size: tuple[int, int], aspect: float
) -> Window:
    """Return where the windows of other images lie, in an image of `size`: the median centre and the median width, as
    shares of the image.

    The width is measured against the shorter side of its image. Without windows it is `centre_window`.
    """
    if not windows:
        return centre_window(size, aspect)
    of = np.array(sizes, float)
    lines = np.array(windows, float)
    across, down = (np.median((lines[:, i] + lines[:, i + 2]) / 2 / of[:, i]) for i in (0, 1))
    width = float(np.median((lines[:, 2] - lines[:, 0]) / of.min(axis=1))) * min(size)
    return _placed(float(across) * size[0], float(down) * size[1], width, width / aspect, size)


def _placed(x: float, y: float, width: float, height: float, size: tuple[int, int]) -> Window:
    """Return a window about (x, y): made smaller until it fits, rounded, moved inside."""
    scale = min(1.0, size[0] / width, size[1] / height)
    wide, high = max(1, round(width * scale)), max(1, round(height * scale))
    left = min(max(0, round(x - wide / 2)), size[0] - wide)
    top = min(max(0, round(y - high / 2)), size[1] - high)
    return left, top, left + wide, top + high


def parse_aspect(text: str) -> float:
    """Return ``"1"`` → 1.0, ``"3:4"`` → 0.75: width / height.

    Raises
    ------
    UsageError : it is neither, or beyond 1:10 or 10:1.
    """
    try:
        parts = [float(part) for part in text.split(":")]
        aspect = parts[0] / (parts[1] if len(parts) == 2 else 1.0)
    except (ValueError, ZeroDivisionError):
        aspect, parts = math.nan, []
    if not 1 <= len(parts) <= 2 or not 0.1 <= aspect <= 10:
        raise UsageError(
            f"--aspect {text}: expected width:height or their ratio, from 1:10 to 10:1", hint="--aspect 3:4, --aspect 1"
        )
    return aspect
