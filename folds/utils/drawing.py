"""Draw text on images, in the font that Pillow includes, and put images into HTML."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

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
