"""Limit the pixels of a file that is decoded, and say in one line why it cannot be."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator

from PIL import Image, UnidentifiedImageError

from folds.errors import EnsembleError
from folds.images.content_index import UnreadableImageError
from folds.images.settings import MAX_PIXELS, ImageSettings

# Pillow supports more, among them some that start other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "PPM", "AVIF")
_MAX_NUMBERS = 4  # of the chosen channels of a pixel, for the largest image
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


def check_pixels(image: Image.Image, max_pixels: int | None) -> None:
    """Raise DecompressionBombError if an image has more pixels than this; None is checked by Pillow."""
    if max_pixels is not None and image.width * image.height > max_pixels:
        raise Image.DecompressionBombError


def check_size(height: int, width: int, settings: ImageSettings) -> None:
    """Raise DecompressionBombError if an array has too many pixels, or too many numbers in the chosen channels."""
    limit = settings.max_pixels or MAX_PIXELS
    if height * width > limit or height * width * len(settings.channels) > _MAX_NUMBERS * limit:
        raise Image.DecompressionBombError


@contextlib.contextmanager
def unreadable_reasons(start: bytes, max_pixels: int | None = None) -> Iterator[None]:
    """Let what goes wrong while a file is decoded be an UnreadableImageError with its reason.

    Parameters
    ----------
    start : the first bytes of the file, for the message.
    max_pixels : the limit that the message names; None for Pillow's.
    """
    try:
        yield
    except (UnreadableImageError, EnsembleError):
        raise
    except Image.DecompressionBombError:
        limit = max_pixels or 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise UnreadableImageError(
            f"has more than {limit:,} pixels and is not decoded (it may be a decompression bomb; `max_pixels` raises "
            "the limit)"
        ) from None
    except UnidentifiedImageError:
        raise UnreadableImageError(
            f"is not an image of a known format ({', '.join(known_formats())}, DICOM, NPY); it begins with {start!r}"
        ) from None
    except MemoryError:
        raise UnreadableImageError("needs more memory than is available") from None
    except Exception as error:  # damaged files make Pillow raise many kinds of exceptions
        raise UnreadableImageError(f"cannot be decoded: {error or type(error).__name__}") from error


@functools.cache
def known_formats() -> tuple[str, ...]:
    """Return the formats that Pillow may read here, by their names in Pillow."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)  # a build of Pillow may lack a format
