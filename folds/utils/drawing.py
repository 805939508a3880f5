"""Draw text on images, in the font that Pillow includes."""

from __future__ import annotations


def drawable(text: str) -> str:
    """Return `text` with only the characters of the built-in font."""
    # The built-in font of Pillow without FreeType has only Latin-1.
    return text.replace("…", "...").encode("latin-1", "replace").decode("latin-1")
