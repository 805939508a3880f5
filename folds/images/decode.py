"""Decode one encoded image file to a (height, width, 3) uint8 array, for any format, mode, depth or rotation.

Only JPEG, PNG, WebP, TIFF, BMP, GIF, JPEG 2000, PNM and AVIF are read: Pillow also supports formats that start other
programs (EPS starts Ghostscript). The first frame of an animation or multi-page file is used. Color profiles are not
applied, as in common training pipelines.
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from folds.images.bit_depth import Depth, apply_window, color_depth
from folds.images.content_index import UnreadableImageError
from folds.images.settings import ImageSettings

DECODER_VERSION = 1  # part of every cache's key: increase it if the same file would give different pixels
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "PPM", "AVIF")
# Mid-gray fills transparent pixels and the borders of letterboxed images: black and white drawings stay visible on it,
# and it is near zero after normalization.
BACKGROUND = (128, 128, 128)
# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if each side is still this many times as long as required.
DRAFT_MARGIN = 2
# Other large images are first averaged in blocks down to this many times the required size.
REDUCING_GAP = 3.0

_ORIENTATION = 0x0112  # EXIF
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Decoded:
    """A decoded image: `pixels` (height, width, 3) uint8, and its `depth` if the file has more than 8 bits."""

    pixels: NDArray[np.uint8]
    depth: Depth | None


def decode_image(data: bytes, settings: ImageSettings) -> Decoded:
    """Decode the bytes of one image file.

    Gray becomes three equal channels, CMYK and palettes become RGB, transparency is blended with `BACKGROUND`, and an
    EXIF rotation is applied. Gray of more than 8 bits is scaled linearly by the window before resizing and rounding.
    Pillow reduces 16-bit color to its high byte, which is the window 0 to 65535. Images are resized with Pillow's
    antialiased bicubic filter.

    Raises
    ------
    UnreadableImageError : empty, not an image, truncated or damaged, too many pixels, or a window is required.
    """
    kept, settings = settings, settings.enlarged
    with _reasons(data[:12], settings.max_pixels), pixel_limit(settings.max_pixels):
        if not data:
            raise UnreadableImageError("is empty (0 bytes)")
        image = Image.open(io.BytesIO(data), formats=_formats())
        _check_pixels(image, settings.max_pixels)
        deep_color = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
        stored_width = image.width
        extent = _draft(image, settings)
        image.load()
        orientation = _orientation(image)
        depth: Depth | None = None
        if image.mode.startswith("I") or image.mode == "F":
            eight_bit, depth = apply_window(image, settings.window)
        else:
            depth = color_depth(image) if deep_color else None
            eight_bit = _to_l_or_rgb(image)
    drafted = extent[0] / stored_width if extent else 1.0
    pixels = _fit(eight_bit, extent or eight_bit.size, drafted, orientation, settings)
    return Decoded(_without_margin(pixels, kept), depth)


def fit_image(image: Image.Image, settings: ImageSettings) -> NDArray[np.uint8]:
    """Return the pixels (height, width, 3) of an image that is open, converted and resized as one of a file.

    Raises
    ------
    UnreadableImageError : it is damaged, has too many pixels, or needs a window.
    """
    kept, settings = settings, settings.enlarged
    with _reasons(b"image", settings.max_pixels), pixel_limit(settings.max_pixels):
        _check_pixels(image, settings.max_pixels)
        image.load()
        orientation = _orientation(image)
        deep = image.mode.startswith("I") or image.mode == "F"
        eight_bit = apply_window(image, settings.window)[0] if deep else _to_l_or_rgb(image)
    return _without_margin(_fit(eight_bit, eight_bit.size, 1.0, orientation, settings), kept)


def identify_image(file: IO[bytes], max_pixels: int | None = None) -> tuple[int, int]:
    """Return (height, width) from the header, as stored; raise UnreadableImageError if the file is not an image."""
    start = file.read(12)
    with _reasons(start, max_pixels), pixel_limit(max_pixels):
        if not start:
            raise UnreadableImageError("is empty (0 bytes)")
        image = Image.open(file, formats=_formats())
        _check_pixels(image, max_pixels)
        width, height = image.size
    return height, width


_LIMIT_LOCK = threading.Lock()
_limits: list[int] = []  # of the images being decoded
_own_limit: list[int | None] = []  # Pillow's, meanwhile


@contextlib.contextmanager
def pixel_limit(max_pixels: int | None) -> Iterator[None]:
    """Let Pillow open images of up to `max_pixels` pixels; None leaves its limit, a global variable, as it is."""
    if max_pixels is None:
        yield
        return
    with _LIMIT_LOCK:
        if not _limits:
            _own_limit.append(Image.MAX_IMAGE_PIXELS)
        _limits.append(max_pixels)
        Image.MAX_IMAGE_PIXELS = max(_limits)
    try:
        yield
    finally:
        with _LIMIT_LOCK:
            _limits.remove(max_pixels)
            Image.MAX_IMAGE_PIXELS = max(_limits) if _limits else _own_limit.pop()


def _check_pixels(image: Image.Image, max_pixels: int | None) -> None:
    if max_pixels is not None and image.width * image.height > max_pixels:
        raise Image.DecompressionBombError


@contextlib.contextmanager
def _reasons(start: bytes, max_pixels: int | None = None) -> Iterator[None]:
    try:
        yield
    except UnreadableImageError:
        raise
    except Image.DecompressionBombError:
        limit = max_pixels or 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise UnreadableImageError(
            f"has more than {limit:,} pixels and is not decoded (it may be a decompression bomb; `max_pixels` raises "
            "the limit)"
        ) from None
    except UnidentifiedImageError:
        raise UnreadableImageError(
            f"is not an image of a known format ({', '.join(_formats())}); it begins with {start!r}"
        ) from None
    except MemoryError:
        raise UnreadableImageError("needs more memory than is available") from None
    except Exception as error:  # damaged files make Pillow raise many kinds of exceptions
        raise UnreadableImageError(f"cannot be decoded: {error or type(error).__name__}") from error


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)  # a build of Pillow may lack a format


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8. Pillow applies that of a TIFF on loading and removes the tag."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
        return value if value in _UPRIGHT else 1
    except Exception:  # pixels can be readable although metadata are not
        return 1


def _crop_box(
    size: tuple[float, float], settings: ImageSettings, rotated: bool, drafted: float = 1.0
) -> tuple[tuple[float, float, float, float], tuple[int, int]]:
    """Return the box of the stored image that is kept, and the (width, height) it is resized to, both before rotation.

    Parameters
    ----------
    rotated : whether the rotation swaps height and width.
    drafted : the share of its size at which the image was decoded.
    """
    fit, _, pixels = settings.fit.partition(":")
    max_side = float(pixels) * drafted if pixels else math.inf
    width, height = min(size[0], max_side), min(size[1], max_side)
    target = (settings.height, settings.width) if rotated else (settings.width, settings.height)
    ratios = (target[0] / width, target[1] / height)
    box_width, box_height = width, height
    if fit == "letterbox":
        scale = min(ratios)
        target = (min(target[0], max(1, round(width * scale))), min(target[1], max(1, round(height * scale))))
    elif fit == "crop":
        scale = max(ratios)
        box_width, box_height = min(width, target[0] / scale), min(height, target[1] / scale)
    left, top = (size[0] - box_width) / 2, (size[1] - box_height) / 2
    return (left, top, min(size[0], left + box_width), min(size[1], top + box_height)), target


def _draft(image: Image.Image, settings: ImageSettings) -> tuple[float, float] | None:
    """Decode a JPEG at a fraction of its size if possible.

    Returns
    -------
    The (width, height) that its content then covers, which can end within a pixel; None if the image is decoded in
    full.
    """
    if image.format not in ("JPEG", "MPO"):
        return None
    box, target = _crop_box(image.size, settings, rotated=_orientation(image) >= 5)
    # The size of the whole image at the scale of the part that is kept.
    wanted = (
        math.ceil(DRAFT_MARGIN * image.width * target[0] / (box[2] - box[0])),
        math.ceil(DRAFT_MARGIN * image.height * target[1] / (box[3] - box[1])),
    )
    drafted = image.draft(None, wanted)
    return None if drafted is None else (drafted[1][2], drafted[1][3])


def _fit(
    image: Image.Image, extent: tuple[float, float], drafted: float, orientation: int, settings: ImageSettings
) -> NDArray[np.uint8]:
    # Resize before rotating, because rotating a small image is faster.
    box, target = _crop_box(extent, settings, rotated=orientation >= 5, drafted=drafted)
    image = image.resize(target, Image.Resampling.BICUBIC, box=box, reducing_gap=REDUCING_GAP)
    if orientation != 1:
        image = image.transpose(_UPRIGHT[orientation])
    pixels = np.asarray(image)
    if image.mode == "F":
        pixels = np.rint(pixels).clip(0, 255).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.shape == settings.shape:
        return pixels
    canvas = np.empty(settings.shape, np.uint8)
    canvas[:] = BACKGROUND
    top, left = (settings.height - pixels.shape[0]) // 2, (settings.width - pixels.shape[1]) // 2
    canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return canvas


def _without_margin(pixels: NDArray[np.uint8], settings: ImageSettings) -> NDArray[np.uint8]:
    rows, columns = settings.margin
    if not (rows or columns):
        return pixels
    return np.ascontiguousarray(pixels[rows : rows + settings.height, columns : columns + settings.width])


def _to_l_or_rgb(image: Image.Image) -> Image.Image:
    """Return an 8-bit image as mode L or RGB."""
    if image.has_transparency_data:
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (*BACKGROUND, 255)), rgba).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")
