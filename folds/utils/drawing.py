"""Draw text on pictures, in the font that Pillow brings along."""

from __future__ import annotations


def drawable(text: str) -> str:
    """`text` in the letters of the built-in font."""
    # The built-in font of a Pillow without FreeType knows no more than this.
    return text.replace("…", "...").encode("latin-1", "replace").decode("latin-1")
