"""Decode one encoded image file to a (height, width, channels) uint8 array, for any format, mode, depth or rotation.

Only JPEG, PNG, WebP, TIFF, BMP, GIF, JPEG 2000, PNM and AVIF are read by Pillow, which also supports formats that start
other programs (EPS starts Ghostscript); DICOM, arrays of NumPy and TIFF of many channels have modules of their own. The
first frame of an animation or multi-page file is used, unless another one is chosen. Color profiles are not applied, as
in common training pipelines.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from folds.images import numpy_file
from folds.images.bit_depth import Depth, apply_window, color_depth, number_kind, scale_values, widest_depth
from folds.images.content_index import UnreadableImageError
from folds.images.decoding_errors import check_pixels, check_size, known_formats, pixel_limit, unreadable_reasons
from folds.images.dicom import dicom_size, is_dicom, read_dicom
from folds.images.frames import frame_of, frame_remark
from folds.images.resizing import BACKGROUND, OpenedImage, draft, fit_opened, orientation_of, without_margin
from folds.images.settings import MAX_PIXELS, ImageSettings
from folds.images.stacks import is_stack, split_contents
from folds.images.tiff_bands import TiffPage, page_pixels, read_page

DECODER_VERSION = 1  # part of every cache's key: increase it if the same file would give different pixels

_START = 8_192  # bytes that hold the header of an array, and the mark of DICOM


@dataclass(frozen=True)
class Decoded:
    """A decoded image: `pixels` (height, width, channels) uint8, its `depth` if the file has more than 8 bits, and
    `remarks` about what was chosen in the file.
    """

    pixels: NDArray[np.uint8]
    depth: Depth | None
    remarks: tuple[str, ...] = ()


def decode_image(data: bytes, settings: ImageSettings) -> Decoded:
    """Decode the bytes of one image file, or of the files of a stack.

    Gray becomes three equal channels, CMYK and palettes become RGB, transparency is blended with `BACKGROUND`, and an
    EXIF rotation is applied. Gray of more than 8 bits is scaled linearly by the window before resizing and rounding.
    Pillow reduces 16-bit color to its high byte, which is the window 0 to 65535. Images are resized with Pillow's
    antialiased bicubic filter. Chosen channels are those of the file, without blending.

    Raises
    ------
    UnreadableImageError : empty, not an image, truncated or damaged, too many pixels, or a window is required.
    EnsembleError : the format needs a package that is not installed.
    """
    kept, settings = settings, settings.enlarged
    with unreadable_reasons(data[:12], settings.max_pixels), pixel_limit(settings.max_pixels):
        if not data:
            raise UnreadableImageError("is empty (0 bytes)")
        files = split_contents(data)
        if files is not None and any(map(is_stack, files)):
            raise UnreadableImageError("is a stack of files that holds another stack")
        if files is not None or settings.stack:
            return _decode_stack(files, kept)
        opened = _open(data, settings)
    return Decoded(without_margin(fit_opened(opened, settings), kept), opened.depth, opened.remarks)


def _decode_stack(files: Sequence[bytes] | None, settings: ImageSettings) -> Decoded:
    """Return the gray values, or the chosen channel, of the files of a sample as its channels."""
    if files is None:
        raise UnreadableImageError(
            f"is one file, and a sample is a stack of {len(settings.stack)}: {', '.join(settings.stack)}"
        )
    names = settings.stack or tuple(f"file {at + 1}" for at in range(len(files)))
    if len(names) != len(files) or not (settings.stack or settings.preview):
        expected = f"a stack of {len(names)}" if settings.stack else "one file"
        raise UnreadableImageError(f"is a stack of {len(files)} files, expected {expected}")
    if settings.preview:
        files = files[:3] if len(files) > 2 else files[:1]
    planes, depths, remarks = [], [], dict[str, None]()
    for name, data in zip(names, files, strict=False):
        try:
            found = decode_image(data, replace(settings, stack=()))
        except UnreadableImageError as problem:
            raise UnreadableImageError(f"in '{name}' {problem.reason}", problem.values) from None
        pixels = found.pixels
        planes.append(pixels[:, :, 0] if pixels.shape[2] == 1 else np.asarray(Image.fromarray(pixels).convert("L")))
        depths += [] if found.depth is None else [found.depth]
        remarks |= dict.fromkeys(found.remarks)
    if len(planes) == 1 and settings.preview:
        planes *= 3
    return Decoded(np.stack(planes, axis=2), widest_depth(depths), tuple(remarks))


def _open(data: bytes, settings: ImageSettings) -> OpenedImage:
    if data.startswith(numpy_file.START):
        height, width, channels = numpy_file.numpy_shape(data)
        check_size(height, width, settings)
        index = _index(channels, settings)
        return _opened_array(numpy_file.numpy_pixels(data), index, settings)
    if is_dicom(data):
        found = read_dicom(data, settings.window, settings.frame, settings.max_pixels)
        images = _chosen(found.image, settings) if settings.channels else (found.image,)
        return OpenedImage(images, found.depth, remarks=found.remarks)
    page = read_page(data, settings.frame) if settings.channels else None
    if page is not None and not page.for_pillow:
        return _opened_page(data, page, settings)
    try:
        image = Image.open(io.BytesIO(data), formats=known_formats())
    except UnidentifiedImageError:
        page = read_page(data, settings.frame)
        if page is None:
            raise
        return _opened_page(data, page, settings)
    check_pixels(image, settings.max_pixels)
    if page is not None and page.pages > 1 and page.shape[2] == 1 and settings.frame is None:
        return _opened_pages(image, settings)
    remarks = _seek(image, settings)
    deep_color = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    stored_width = image.width
    extent = draft(image, settings)
    image.load()
    orientation = orientation_of(image)
    images, depth = _as_shown(image, settings)
    if deep_color and depth is None:
        depth = color_depth(image)
    return OpenedImage(images, depth, orientation, extent, extent[0] / stored_width if extent else 1.0, remarks)


def _as_shown(image: Image.Image, settings: ImageSettings) -> tuple[tuple[Image.Image, ...], Depth | None]:
    """Return a loaded image as one of mode L, RGB or F, or its chosen channels; and its depth if it was scaled."""
    if image.mode.startswith("I") or image.mode == "F":
        scaled, depth = apply_window(image, settings.window)
        return (_chosen(scaled, settings) if settings.channels else (scaled,)), depth
    return (_chosen(image, settings) if settings.channels else (_to_l_or_rgb(image),)), None


def _seek(image: Image.Image, settings: ImageSettings) -> tuple[str, ...]:
    """Go to the chosen frame of an image; return what is to be said about it."""
    if settings.frame is None:
        is_paged = image.format == "TIFF" and getattr(image, "is_animated", False)
        return frame_remark(None, 0, 2) if is_paged else ()
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    at = frame_of(settings.frame, frames)
    if at:
        image.seek(at)
        check_pixels(image, settings.max_pixels)
    return frame_remark(settings.frame, at, frames)


def _chosen(image: Image.Image, settings: ImageSettings) -> tuple[Image.Image, ...]:
    """Return the chosen channels of an image, as the file has them; palettes become colors."""
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    bands = image.split() if image.mode != "F" else (image,)
    return tuple(bands[at] for at in _index(len(bands), settings))


def _index(channels: int, settings: ImageSettings) -> tuple[int, ...]:
    """Return which of the channels of a file are read.

    Raises
    ------
    UnreadableImageError : the file has not all of them, or has other numbers than 1 and 3, and none are chosen.
    """
    if settings.channels:
        absent = [at for at in settings.channels if at >= channels]
        if absent:
            raise UnreadableImageError(
                f"has {channels} channel{'s' * (channels != 1)}, counted from 0, and `channels` names {absent[0]}"
            )
        return settings.channels
    if channels in (1, 3):
        return tuple(range(channels))
    if settings.preview:
        return (0, 1, 2) if channels > 2 else (0,)
    example = ",".join(map(str, range(min(channels, 3))))
    raise UnreadableImageError(f"has {channels} channels: `channels={example}` chooses those that are read")


def _opened_array(values: NDArray[Any], index: Sequence[int], settings: ImageSettings) -> OpenedImage:
    """Return channels of an array (height, width, channels), scaled to 8 bits if its numbers have more."""
    planes, depths = [], []
    kind, full = number_kind(values.dtype)
    for at in index:
        plane = values[:, :, at]
        if plane.dtype == bool:
            plane = plane.astype(np.uint8) * np.uint8(255)
        elif plane.dtype != np.uint8:
            scaled, depth = scale_values(plane, kind, full, settings.window)
            plane = scaled.astype(np.float32, copy=False)
            depths.append(depth)
        planes.append(np.ascontiguousarray(plane))
    if not settings.channels and len(planes) > 1 and not depths:
        return OpenedImage((Image.fromarray(np.stack(planes, axis=2)),))
    return OpenedImage(tuple(map(Image.fromarray, planes)), widest_depth(depths))


def _opened_page(data: bytes, page: TiffPage, settings: ImageSettings) -> OpenedImage:
    """Return channels of a page of a TIFF that Pillow does not read."""
    height, width, channels = page.shape
    if min(height, width, channels) < 1:
        raise UnreadableImageError("is a damaged TIFF without pixels")
    check_size(height, width, settings)
    index = _index(channels, settings)
    remarks = frame_remark(settings.frame, frame_of(settings.frame, page.pages), page.pages)
    values = page_pixels(data, page, index, settings.max_pixels or MAX_PIXELS)
    opened = _opened_array(values, range(len(index)), settings)
    return replace(opened, remarks=remarks)


def _opened_pages(image: Image.Image, settings: ImageSettings) -> OpenedImage:
    """Return pages of a TIFF of gray pages as channels."""
    pages = getattr(image, "n_frames", 1)
    images, depths = [], []
    for at in _index(pages, settings):
        image.seek(at)
        check_pixels(image, settings.max_pixels)
        image.load()
        if len(image.getbands()) > 1 or image.mode == "P":
            raise UnreadableImageError(
                f"has pages in color ({image.mode}), which cannot be channels of one image: `frame=N` chooses a page"
            )
        found, depth = _as_shown(image, replace(settings, channels=(0,)))
        images.append(found[0].copy())
        depths += [] if depth is None else [depth]
    if len({one.size for one in images}) > 1:
        raise UnreadableImageError("has pages of several sizes, which cannot be channels of one image")
    return OpenedImage(tuple(images), widest_depth(depths), remarks=("of several pages: the pages are the channels",))


def fit_image(image: Image.Image, settings: ImageSettings) -> NDArray[np.uint8]:
    """Return the pixels (height, width, channels) of an image that is open, converted and resized as one of a file.

    Raises
    ------
    UnreadableImageError : it is damaged, has too many pixels or too few channels, or needs a window.
    """
    kept, settings = settings, settings.enlarged
    with unreadable_reasons(b"image", settings.max_pixels), pixel_limit(settings.max_pixels):
        if settings.stack:
            _decode_stack(None, settings)
        check_pixels(image, settings.max_pixels)
        image.load()
        orientation = orientation_of(image)
        images, _ = _as_shown(image, settings)
    return without_margin(fit_opened(OpenedImage(images, orientation=orientation), settings), kept)


def fit_array(values: NDArray[Any], settings: ImageSettings) -> NDArray[np.uint8]:
    """Return the pixels (height, width, channels) of an array (height, width, channels) of the channels of a file, or
    of the files of a stack, resized as those of a file.

    Raises
    ------
    UnreadableImageError : it has too many pixels or too few channels, or needs a window.
    """
    if settings.stack:
        if values.shape[2] != len(settings.stack):
            raise UnreadableImageError(
                f"has {values.shape[2]} channels, expected those of the stack: {', '.join(settings.stack)}"
            )
        settings = replace(settings, stack=(), channels=tuple(range(values.shape[2])))
    kept, settings = settings, settings.enlarged
    with unreadable_reasons(b"array", settings.max_pixels):
        check_size(values.shape[0], values.shape[1], settings)
        opened = _opened_array(values, _index(values.shape[2], settings), settings)
    return without_margin(fit_opened(opened, settings), kept)


def fit_colors(image: Image.Image, settings: ImageSettings) -> NDArray[np.uint8]:
    """Return the pixels of an image of any mode for a model of any channels: its colors, again and again.

    It stands in for images of the channels of a model, e.g. to check that a model still predicts the same.
    """
    if not (settings.channels or settings.stack):
        return fit_image(image, settings)
    pixels = fit_image(image, replace(settings, channels=(), stack=(), frame=None))
    return np.ascontiguousarray(pixels[:, :, [at % 3 for at in range(settings.depth)]])


def identify_image(file: IO[bytes], max_pixels: int | None = None) -> tuple[int, int]:
    """Return (height, width) from the header, as stored; raise UnreadableImageError if the file is not an image.

    Of a stack of files it is that of the first one.
    """
    start = file.read(_START)
    with unreadable_reasons(start[:12], max_pixels), pixel_limit(max_pixels):
        if not start:
            raise UnreadableImageError("is empty (0 bytes)")
        files = split_contents(start + file.read()) if is_stack(start) else None
        if files is not None:
            if is_stack(files[0]):
                raise UnreadableImageError("is a stack of files that holds another stack")
            return identify_image(io.BytesIO(files[0]), max_pixels)
        file.seek(0)
        if start.startswith(numpy_file.START):
            height, width, _ = numpy_file.numpy_shape(start)
        elif is_dicom(start):
            height, width = dicom_size(file, max_pixels)
        else:
            return _identify(file, max_pixels)
        if height * width > (max_pixels or MAX_PIXELS):
            raise Image.DecompressionBombError
    return height, width


def _identify(file: IO[bytes], max_pixels: int | None) -> tuple[int, int]:
    try:
        image = Image.open(file, formats=known_formats())
    except UnidentifiedImageError:
        file.seek(0)
        is_tiff = file.read(2) in (b"II", b"MM")
        file.seek(0)
        page = read_page(file.read()) if is_tiff else None
        if page is None:
            raise
        height, width, _ = page.shape
        if height * width > (max_pixels or MAX_PIXELS):
            raise Image.DecompressionBombError from None
        return height, width
    check_pixels(image, max_pixels)
    return image.size[1], image.size[0]


def _to_l_or_rgb(image: Image.Image) -> Image.Image:
    """Return an 8-bit image as mode L or RGB."""
    if image.has_transparency_data:
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (*BACKGROUND, 255)), rgba).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")
