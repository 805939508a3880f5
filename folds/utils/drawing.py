"""Draw text on images, in the font that Pillow includes, and show images of any number of channels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def drawable(text: str) -> str:
    """Return `text` with only the characters of the built-in font."""
    # The built-in font of Pillow without FreeType has only Latin-1.
    return text.replace("…", "...").encode("latin-1", "replace").decode("latin-1")


def shown_colors(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images (…, channels) as (…, 3): the first three channels, or the first one as gray."""
    channels = pixels.shape[-1]
    if channels == 3:
        return pixels
    return pixels[..., :3] if channels > 3 else np.repeat(pixels[..., :1], 3, axis=-1)
