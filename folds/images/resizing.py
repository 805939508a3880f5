"""Resize an opened image to the size of the model: crop, letterbox, margin, rotation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from folds.images.bit_depth import Depth
from folds.images.settings import ImageSettings

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
class OpenedImage:
    """An image before it is resized.

    Attributes
    ----------
    images : one of mode L, RGB or F; or one of mode L or F for each chosen channel.
    extent, drafted : of a JPEG that was decoded at a share of its size: what its content covers, and the share.
    """

    images: tuple[Image.Image, ...]
    depth: Depth | None = None
    orientation: int = 1
    extent: tuple[float, float] | None = None
    drafted: float = 1.0
    remarks: tuple[str, ...] = ()


def orientation_of(image: Image.Image) -> int:
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


def draft(image: Image.Image, settings: ImageSettings) -> tuple[float, float] | None:
    """Decode a JPEG at a fraction of its size if possible.

    Returns
    -------
    The (width, height) that its content then covers, which can end within a pixel; None if the image is decoded in
    full.
    """
    if image.format not in ("JPEG", "MPO"):
        return None
    box, target = _crop_box(image.size, settings, rotated=orientation_of(image) >= 5)
    # The size of the whole image at the scale of the part that is kept.
    wanted = (
        math.ceil(DRAFT_MARGIN * image.width * target[0] / (box[2] - box[0])),
        math.ceil(DRAFT_MARGIN * image.height * target[1] / (box[3] - box[1])),
    )
    drafted = image.draft(None, wanted)
    return None if drafted is None else (drafted[1][2], drafted[1][3])


def fit_opened(opened: OpenedImage, settings: ImageSettings) -> NDArray[np.uint8]:
    """Return the pixels (height, width, channels) of an image, resized, upright and on its canvas."""
    # Resize before rotating, because rotating a small image is faster.
    first, orientation = opened.images[0], opened.orientation
    box, target = _crop_box(opened.extent or first.size, settings, rotated=orientation >= 5, drafted=opened.drafted)
    planes = []
    for image in opened.images:
        image = image.resize(target, Image.Resampling.BICUBIC, box=box, reducing_gap=REDUCING_GAP)
        if orientation != 1:
            image = image.transpose(_UPRIGHT[orientation])
        plane = np.asarray(image)
        planes.append(np.rint(plane).clip(0, 255).astype(np.uint8) if image.mode == "F" else plane)
    pixels = planes[0] if len(planes) == 1 else np.stack(planes, axis=2)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], settings.depth, axis=2)
    if pixels.shape == settings.shape:
        return pixels
    canvas = np.empty(settings.shape, np.uint8)
    canvas[:] = BACKGROUND[0]  # the same in every channel
    top, left = (settings.height - pixels.shape[0]) // 2, (settings.width - pixels.shape[1]) // 2
    canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return canvas


def without_margin(pixels: NDArray[np.uint8], settings: ImageSettings) -> NDArray[np.uint8]:
    """Return the part (height, width, channels) of the pixels that lies within the margin of the settings."""
    rows, columns = settings.margin
    if not (rows or columns):
        return pixels
    return np.ascontiguousarray(pixels[rows : rows + settings.height, columns : columns + settings.width])
