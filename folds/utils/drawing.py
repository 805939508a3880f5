"""Draw text on images, in the font that Pillow includes; put images into HTML, of any number of channels."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image


def drawable(text: str) -> str:
    """Return `text` with only the characters of the built-in font."""
    # The built-in font of Pillow without FreeType has only Latin-1.
    return text.replace("…", "...").encode("latin-1", "replace").decode("latin-1")


def picture_source(image: Image.Image, most: int) -> str:
    """Return an RGB image as ``data:image/jpeg;base64,…`` of at most about `most` characters: smaller if need be."""
    while True:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=75)
        source = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
        if len(source) <= most or min(image.size) < 32:
            return source
        shrink = max(0.5, min(0.9, (most / len(source)) ** 0.5))
        image = image.resize((max(1, round(image.width * shrink)), max(1, round(image.height * shrink))))


def shown_colors(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images (…, channels) as (…, 3): the first three channels, or the first one as gray."""
    channels = pixels.shape[-1]
    if channels == 3:
        return pixels
    return pixels[..., :3] if channels > 3 else np.repeat(pixels[..., :1], 3, axis=-1)
