"""Draw what a person wears and shows in one image: a hat, a scarf, spots on the skin, and the colors of a site."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.data.synthetic.faces import Color, Face, mix, shade

_RED = (176.0, 34.0, 48.0)


@dataclass(frozen=True)
class Worn:
    """What is added to the portrait of a face.

    Attributes
    ----------
    hat, scarf : its color; None without it.
    spots : (x, y, radius) of each spot on the skin, in canvas units from the center of the face.
    strength : how much the color of the spots differs from the skin, 0 to 1.
    tint : factor of each color channel, as of the camera of a site.
    """

    hat: Color | None = None
    scarf: Color | None = None
    spots: tuple[tuple[float, float, float], ...] = ()
    strength: float = 0.0
    tint: Color = (1.0, 1.0, 1.0)


def draw_scarf(pen: Any, face: Face, color: Color, center: NDArray[np.float64]) -> None:
    """Draw a scarf around the neck with one end hanging down."""
    x, chin = center[0], center[1] + face.half_height
    wide = face.neck + 8
    pen.polygon(
        [(x - wide, chin + 3), (x + wide, chin + 3), (x + wide + 3, chin + 15), (x - wide - 3, chin + 15)], color
    )
    pen.polygon([(x + 3, chin + 12), (x + 14, chin + 12), (x + 15, chin + 46), (x + 4, chin + 46)], shade(color, 0.85))
    for level in (6.5, 11.0):
        pen.line([(x - wide - 1, chin + level), (x + wide + 1, chin + level)], 1.4, shade(color, 0.65))


def draw_hat(pen: Any, face: Face, color: Color, center: NDArray[np.float64]) -> None:
    """Draw a hat down to the forehead."""
    x, base = center[0], center[1] - 0.5 * face.half_height
    wide, high = face.half_width + 4.5, 0.5 * face.half_height + face.hair_volume + 7
    angles = np.linspace(0, np.pi, 20)
    crown = np.stack([x + wide * np.cos(angles), base - high * np.sin(angles) ** 0.6], axis=1)
    pen.polygon(crown, color)
    pen.polygon([(x - wide, base - 5), (x + wide, base - 5), (x + wide, base), (x - wide, base)], shade(color, 0.6))
    pen.polygon(
        [(x - wide - 6, base - 1.5), (x + wide + 6, base - 1.5), (x + wide + 5, base + 2), (x - wide - 5, base + 2)],
        shade(color, 0.85),
    )


def draw_spots(pen: Any, face: Face, worn: Worn, center: NDArray[np.float64]) -> None:
    """Draw red spots on the skin."""
    for x, y, radius in worn.spots:
        pen.ellipse(center[0] + x, center[1] + y, radius, radius, mix(face.skin, _RED, worn.strength))
