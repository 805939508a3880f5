"""Read original images upright, at their own size, as training decodes them, with the hash of their bytes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from folds.images.bit_depth import Depth
from folds.images.checks import refusal
from folds.images.content_index import UnreadableImageError, read_content
from folds.images.decode import decode_image, identify_image
from folds.images.decoding_errors import FORMATS, pixel_limit
from folds.images.settings import ImageSettings
from folds.utils.parallel import map_threads
from folds.utils.progress import Advance

_ORIENTATION, _ROTATED = 0x0112, (5, 6, 7, 8)  # EXIF


@dataclass(frozen=True)
class Original:
    """Properties of an original image file.

    Attributes
    ----------
    digest : hash of the bytes of the file.
    size : (width, height) of the upright image in pixels.
    depth : bit depth, if the file has more than 8 bits; else None.
    """

    digest: str
    size: tuple[int, int]
    depth: Depth | None


def read_original(
    path: Path, window: tuple[float, float] | None = None, max_pixels: int | None = None
) -> tuple[NDArray[np.uint8], Original]:
    """Return the pixels, (height, width, 3) uint8, and the properties of the file.

    The image is not resized. Gray, transparency, rotation and more than 8 bits are treated as in `decode_image`.

    Raises
    ------
    UnreadableImageError : the file cannot be used.
    """
    content = read_content(path)
    height, width = _upright_size(content.data, max_pixels)
    decoded = decode_image(content.data, ImageSettings(height, width, window=window, max_pixels=max_pixels))
    return decoded.pixels, Original(content.digest, (width, height), decoded.depth)


def survey(
    paths: Sequence[Path],
    locations: Sequence[str],
    window: tuple[float, float] | None,
    threads: int | None = None,
    progress: Advance | None = None,
    max_pixels: int | None = None,
) -> list[Original]:
    """Return the properties of each file; all files are decoded, so that unusable ones are found before other steps.

    Parameters
    ----------
    locations : location of each image in its table, for messages.

    Raises
    ------
    EnsembleError : images that cannot be used, all of them in one error.
    """

    def one(at: int) -> Original | UnreadableImageError:
        try:
            return read_original(paths[at], window, max_pixels)[1]
        except UnreadableImageError as problem:
            return problem

    results = map_threads(one, len(paths), threads, progress)
    problems = [(at, result) for at, result in enumerate(results) if isinstance(result, UnreadableImageError)]
    if problems:
        raise refusal(problems, paths, locations)
    return [result for result in results if not isinstance(result, UnreadableImageError)]


def _upright_size(data: bytes, max_pixels: int | None) -> tuple[int, int]:
    """Return (height, width) of the upright image."""
    height, width = identify_image(io.BytesIO(data), max_pixels)
    # Errors are ignored: unreadable metadata do not affect the pixels, and decoding reports unreadable pixels.
    with (
        contextlib.suppress(Exception),
        pixel_limit(max_pixels),
        Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN]) as image,
    ):
        if image.format == "TIFF":
            image.load()  # Pillow rotates a TIFF when it loads it
            return image.height, image.width
        if image.getexif().get(_ORIENTATION) in _ROTATED:
            return width, height
    return height, width
