"""An original image whole and upright, with the hash of its bytes; read as the training reads it, at its own size."""

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
from folds.images.decode import FORMATS, decode_image, identify_image
from folds.images.settings import ImageSettings
from folds.utils.parallel import map_threads
from folds.utils.progress import Advance

_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # EXIF


@dataclass(frozen=True)
class Original:
    """`digest` of the file's bytes; `size` (width, height) of the upright image; `depth` where the file has more than 8
    bits.
    """

    digest: str
    size: tuple[int, int]
    depth: Depth | None


def read_original(path: Path, window: tuple[float, float] | None = None) -> tuple[NDArray[np.uint8], Original]:
    """Return the pixels, (height, width, 3) uint8, and what the file is.

    Nothing is resized. Grey, transparency, rotation and more than 8 bits are treated as in `decode_image`.

    Raises
    ------
    Unreadable : the file cannot be used.
    """
    content = read_content(path)
    height, width = _upright_size(content.data)
    decoded = decode_image(content.data, ImageSettings(height, width, window=window))
    return decoded.pixels, Original(content.digest, (width, height), decoded.depth)


def survey(
    paths: Sequence[Path],
    where: Sequence[str],
    window: tuple[float, float] | None,
    threads: int | None = None,
    progress: Advance | None = None,
) -> list[Original]:
    """Return what each file is; every one is decoded, so that no later step meets one that cannot be used.

    Raises
    ------
    EnsembleError : images that cannot be used, all of them in one error.
    """

    def one(at: int) -> Original | UnreadableImageError:
        try:
            return read_original(paths[at], window)[1]
        except UnreadableImageError as problem:
            return problem

    results = map_threads(one, len(paths), threads, progress)
    problems = [(at, result) for at, result in enumerate(results) if isinstance(result, UnreadableImageError)]
    if problems:
        raise refusal(problems, paths, where)
    return [result for result in results if not isinstance(result, UnreadableImageError)]


def _upright_size(data: bytes) -> tuple[int, int]:
    """Return (height, width) as the image is meant to be looked at."""
    height, width = identify_image(io.BytesIO(data))
    # Unreadable metadata do not make the pixels unreadable, and unreadable pixels are met in decoding.
    with (
        contextlib.suppress(Exception),
        Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN]) as image,
    ):
        if image.format == "TIFF":
            image.load()  # Pillow turns a TIFF itself, then
            return image.height, image.width
        if image.getexif().get(_ORIENTATION) in _TURNED:
            return width, height
    return height, width
