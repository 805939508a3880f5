"""Scale images of more than 8 bits per channel to 8 bits, and report the window used."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from folds.images.content_index import UnreadableImageError

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
_COLOR = "16-bit colour"
_SHOWN = 8  # windows that are named
_LITTLE = 0.25  # if less of the window is used, images are nearly uniform


@dataclass(frozen=True)
class Depth:
    """The bit depth of a file of more than 8 bits.

    Attributes
    ----------
    kind : ``16-bit grey``, ``float grey``, …
    lowest, highest : the extreme values in the file.
    window : the values that became 0 and 255.
    """

    kind: str
    lowest: float
    highest: float
    window: tuple[float, float]


@dataclass(frozen=True)
class DepthGroup:
    """All files of one kind with the same window.

    Attributes
    ----------
    images : number of files.
    lowest, highest : the extreme values in any of them.
    """

    kind: str
    images: int
    lowest: float
    highest: float
    window: tuple[float, float]

    @property
    def is_color(self) -> bool:
        """Return whether they are color, to which no window applies."""
        return self.kind == _COLOR


def color_depth(image: Image.Image) -> Depth:
    """Return the depth of 16-bit color, which Pillow reduces to its high byte."""
    bands = [band for band in image.getextrema() if isinstance(band, tuple)][:3]
    return Depth(_COLOR, 257.0 * min(low for low, _ in bands), 257.0 * max(high for _, high in bands), (0.0, 65535.0))


def apply_window(image: Image.Image, window: tuple[float, float] | None) -> tuple[Image.Image, Depth]:
    """Return a gray image of more than 8 bits as mode F, 0 to 255, and its depth.

    Pillow's own `convert` would clip at 255 instead of scaling.

    Raises
    ------
    UnreadableImageError : a pixel is not finite, or the file needs a window and none is given.
    """
    values = np.asarray(image)
    kind, full = _gray_kind(image)
    if kind == "unsigned 32-bit grey":
        values = values.view(np.uint32)
    scaled, depth = scale_values(values, kind, full, window)
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:  # 0 is white: Pillow inverts only 8-bit images
        np.subtract(255, scaled, out=scaled)
    return Image.fromarray(scaled.astype(np.float32, copy=False)), depth


def scale_values(
    values: NDArray[Any], kind: str, full: tuple[float, float] | None, window: tuple[float, float] | None
) -> tuple[NDArray[np.floating], Depth]:
    """Return numbers of more than 8 bits as floats from 0 to 255, and their depth.

    Parameters
    ----------
    kind, full : of the numbers, and the range of their type; None for a type without a usual range.

    Raises
    ------
    UnreadableImageError : a number is not finite, or a window is needed and none is given.
    """
    lowest, highest = float(values.min()), float(values.max())
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise UnreadableImageError(f"has {np.count_nonzero(~np.isfinite(values)):,} pixels that are not finite numbers")
    used = window or full
    if used is None:
        raise UnreadableImageError(
            f"is {kind} (values {show(lowest)} to {show(highest)}) and needs a window: the values of black and white",
            (lowest, highest),
        )
    # float32 holds every 16-bit value exactly; 32-bit integers need the larger type.
    scaled: NDArray[np.floating] = values.astype(np.float32 if full else np.float64)
    scaled -= used[0]
    scaled *= 255 / (used[1] - used[0])
    np.clip(scaled, 0, 255, out=scaled)
    return scaled, Depth(kind, lowest, highest, used)


def number_kind(dtype: np.dtype[Any]) -> tuple[str, tuple[float, float] | None]:
    """Return the kind of the numbers of an array, and the full range of their type; None for types without a usual
    range.
    """
    if dtype.kind == "f":
        return "float grey", None
    bits, signed = 8 * dtype.itemsize, dtype.kind == "i"
    if bits > 16:
        return f"{'signed' if signed else 'unsigned'} {bits}-bit grey", None
    if signed:
        return f"signed {bits}-bit grey", (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1)
    return f"{bits}-bit grey", (0.0, 2.0**bits - 1)


def widest_depth(depths: Sequence[Depth]) -> Depth | None:
    """Return the depth of an image of several channels from those of its channels; None for one of 8 bits."""
    if not depths:
        return None
    lowest, highest = min(one.lowest for one in depths), max(one.highest for one in depths)
    return replace(depths[0], lowest=lowest, highest=highest)


def _gray_kind(image: Image.Image) -> tuple[str, tuple[float, float] | None]:
    """Return the kind of gray of more than 8 bits, and the full range of its type; None for types without a usual
    range.
    """
    if image.mode == "F":
        return "float grey", None
    tags = getattr(image, "tag_v2", None)
    if tags is None:  # PNG, JPEG 2000 and PGM: Pillow scales the declared range to 16 bits
        return "16-bit grey", (0.0, 65535.0)
    bits = tags.get(_BITS, (16,))[0]
    signed = tags.get(_SAMPLE_FORMAT, (1,))[0] == 2
    if bits > 16:
        return f"{'signed' if signed else 'unsigned'} {bits}-bit grey", None
    return (
        (f"signed {bits}-bit grey", (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1))
        if signed
        else (f"{bits}-bit grey", (0.0, 2.0**bits - 1))
    )


def group_depths(depths: Iterable[Depth]) -> tuple[DepthGroup, ...]:
    """Return the files' depths, grouped by kind and window, in alphabetical order."""
    groups: dict[tuple[str, tuple[float, float]], list[Depth]] = {}
    for depth in depths:
        groups.setdefault((depth.kind, depth.window), []).append(depth)
    return tuple(
        DepthGroup(
            kind, len(found), min(depth.lowest for depth in found), max(depth.highest for depth in found), window
        )
        for (kind, window), found in sorted(groups.items())
    )


def depth_notes(groups: Iterable[DepthGroup]) -> list[str]:
    """Return notes for the user: the window that was applied, and a warning if the values use little of it."""
    lines: list[str] = []
    groups = list(groups)
    if len(groups) > _SHOWN:  # windows of single files
        lines.append(f"{len(groups):,} windows were used; the first {_SHOWN} are")
    for group in groups[:_SHOWN]:
        low, high = group.window
        remedy = "`window` does not apply to color" if group.kind == _COLOR else "`window=LO,HI` sets it"
        images = f"{group.images:,} image{'s' if group.images > 1 else ''}"
        lines.append(f"{images} of {group.kind}: the values {show(low)} to {show(high)} become 0 to 255 ({remedy})")
        used = max(0.0, min(group.highest, high) - max(group.lowest, low)) / (high - low)
        if used < _LITTLE:
            found = (
                f"the values in the {group.kind} images are {show(group.lowest)} to {show(group.highest)}, "
                f"only {used:.1%} of that window"
            )
            advice = (
                "convert these files to 8 bits"
                if group.kind == _COLOR
                else f"use `window={show(group.lowest)},{show(group.highest)}`"
            )
            lines.append(f"{found}, so these images are nearly uniform: {advice}")
    return lines


def remark_lines(remarks: Mapping[str, int]) -> list[str]:
    """Return a line for each choice that was made in files, with the number of images."""
    return [f"{count:,} image{'s' if count > 1 else ''} {text}" for text, count in remarks.items()]


def show(value: float) -> str:
    """Return a pixel value as a user would write it: 65535, -1000, 0.25."""
    return f"{value:.9g}"
