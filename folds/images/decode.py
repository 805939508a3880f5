"""One encoded image file → one (height, width, 3) uint8 array, whatever its format, mode, depth or rotation.

JPEG, PNG, WebP, TIFF, BMP, GIF, JPEG 2000, PNM and AVIF are read, and nothing else: Pillow also knows formats that
start
other programs (EPS starts Ghostscript).
Of an animation or a file of several pages the first is taken. Colour profiles are not applied, as in the usual training
pipelines.
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from folds.images.bit_depth import Depth, colour_depth, windowed
from folds.images.content_index import UnreadableImageError
from folds.images.settings import ImageSettings

DECODER_VERSION = 1  # part of every cache's key: raise it when the same file would give other pixels
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "PPM", "AVIF")
# Mid-grey stands behind transparent pixels and beside letterboxed ones: neither black nor white drawings vanish on it,
# and it is near zero once normalised.
BACKGROUND = (128, 128, 128)
# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size as long as that leaves this many times the pixels wanted along each
# side.
DRAFT_MARGIN = 2
# Other large images are first averaged in whole blocks down to this many times the size wanted.
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
    """`pixels` (height, width, 3) uint8; `depth` where the file has more than 8 bits."""

    pixels: NDArray[np.uint8]
    depth: Depth | None


def decode_image(data: bytes, settings: ImageSettings) -> Decoded:
    """Decode the bytes of one image file.

    Grey stays grey in three equal channels, CMYK and palettes become RGB, transparency is laid over `BACKGROUND`, an
    EXIF rotation is applied.
    Grey of more than 8 bits is scaled linearly by the window, before it is resized and rounded. Pillow gives 16-bit
    colour as its
    high byte, which is the window 0 to 65535. Resized with Pillow's antialiased bicubic filter.

    Raises
    ------
    Unreadable : empty, not an image, truncated or damaged, too many pixels, or in need of a window.
    """
    with _reasons(data[:12]):
        if not data:
            raise UnreadableImageError("is empty (0 bytes)")
        image = Image.open(io.BytesIO(data), formats=_formats())
        deep_colour = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
        stored = image.width
        extent = _draft(image, settings)
        image.load()
        orientation = _orientation(image)
        depth: Depth | None = None
        if image.mode.startswith("I") or image.mode == "F":
            plain, depth = windowed(image, settings.window)
        else:
            depth = colour_depth(image) if deep_colour else None
            plain = _plain(image)
    drafted = extent[0] / stored if extent else 1.0
    return Decoded(_fit(plain, extent or plain.size, drafted, orientation, settings), depth)


def identify_image(file: IO[bytes]) -> tuple[int, int]:
    """Return (height, width) from the header alone, as the file stores them; `Unreadable` where no image can be made
    out.
    """
    start = file.read(12)
    with _reasons(start):
        if not start:
            raise UnreadableImageError("is empty (0 bytes)")
        width, height = Image.open(file, formats=_formats()).size
    return height, width


@contextlib.contextmanager
def _reasons(start: bytes) -> Iterator[None]:
    try:
        yield
    except UnreadableImageError:
        raise
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise UnreadableImageError(
            f"has more than {limit:,} pixels, which is not decoded (a decompression bomb?)"
        ) from None
    except UnidentifiedImageError:
        raise UnreadableImageError(
            f"is not an image of a known format ({', '.join(_formats())}); it begins with {start!r}"
        ) from None
    except MemoryError:
        raise UnreadableImageError("needs more memory than there is") from None
    except Exception as error:  # damaged files make Pillow raise nearly anything
        raise UnreadableImageError(f"cannot be decoded: {error or type(error).__name__}") from error


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)  # a build of Pillow may lack one


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8. Pillow applies that of a TIFF itself on loading and drops the tag."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
        return value if value in _UPRIGHT else 1
    except Exception:  # unreadable metadata do not make the pixels unreadable
        return 1


def _placed(
    size: tuple[float, float], settings: ImageSettings, turned: bool, drafted: float = 1.0
) -> tuple[tuple[float, float, float, float], tuple[int, int]]:
    """Return the box of the stored image that is kept, and the (width, height) it is resized to, both before it is
    turned upright.

    `drafted` is the share of its size at which it was decoded.
    """
    fit, _, pixels = settings.fit.partition(":")
    most = float(pixels) * drafted if pixels else math.inf
    width, height = min(size[0], most), min(size[1], most)
    target = (settings.height, settings.width) if turned else (settings.width, settings.height)
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
    """Return ask a JPEG to be decoded at a fraction of its size. Returns the (width, height) its content then covers,
    which can end within a pixel.
    """
    if image.format not in ("JPEG", "MPO"):
        return None
    box, target = _placed(image.size, settings, turned=_orientation(image) >= 5)
    # What the whole image would measure at the scale of the part that is kept.
    wanted = (
        math.ceil(DRAFT_MARGIN * image.width * target[0] / (box[2] - box[0])),
        math.ceil(DRAFT_MARGIN * image.height * target[1] / (box[3] - box[1])),
    )
    drafted = image.draft(None, wanted)
    return None if drafted is None else (drafted[1][2], drafted[1][3])


def _fit(
    image: Image.Image, extent: tuple[float, float], drafted: float, orientation: int, settings: ImageSettings
) -> NDArray[np.uint8]:
    # Resized first and turned after: turning a small image is cheaper.
    box, target = _placed(extent, settings, turned=orientation >= 5, drafted=drafted)
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


def _plain(image: Image.Image) -> Image.Image:
    """Return an image of 8 bits a channel as L or RGB."""
    if image.has_transparency_data:
        coloured = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (*BACKGROUND, 255)), coloured).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")
