"""Make the small pictures of a page: decoded as in training, upright, only those that are shown, within a budget of
bytes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from folds.errors import EnsembleError
from folds.images.content_index import UnreadableImageError, read_content
from folds.images.decode import decode_image, identify_image
from folds.images.resizing import BACKGROUND
from folds.images.settings import ImageSettings
from folds.utils.drawing import shown_colors
from folds.utils.parallel import map_threads
from folds.utils.progress import SILENT, Progress

SIDE = 160  # pixels of the longer side
QUALITY = 70
REFERENCE = "thumbnail:"  # + id: a picture that the page decodes when it knows everything it shows
TILE, TOGETHER = 104, 6  # pixels of the longer side of an image among those of a person, and how many are shown
_ABREAST, _GAP = 3, 4  # of these: images in a row, and pixels between them
_PAPER = 244  # gray between them
_PERSON = "\0"  # begins the reference of a person: no id of an image does
_AT_ONCE = 128  # pictures between two looks at the budget


class Thumbnails:
    """The images of samples, small.

    Parameters
    ----------
    paths : id → file.
    window, max_pixels, channels, frame : as in `folds.images.settings.ImageSettings`.
    people : person → the ids of the images that are shown together.
    """

    def __init__(
        self,
        paths: Mapping[str, Path],
        window: tuple[float, float] | None = None,
        max_pixels: int | None = None,
        channels: tuple[int, ...] = (),
        frame: int | str | None = None,
        people: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.people = people or {}
        self.paths, self.window, self.max_pixels, self.channels, self.frame = paths, window, max_pixels, channels, frame

    def reference(self, sample: str) -> str:
        """Return the source of a picture that the page decodes at the end, all in threads; "" for an unknown image."""
        return REFERENCE + sample if sample in self.paths else ""

    def reference_of_person(self, person: str) -> str:
        """Return the source of a picture of all images of a person, at most `TOGETHER`; "" if none is known."""
        known = any(sample in self.paths for sample in self.people.get(person, ()))
        return f"{REFERENCE}{_PERSON}{person}" if known else ""

    def data_uri(self, sample: str) -> str:
        """Return a JPEG of at most `SIDE` pixels as ``data:image/jpeg;base64,…``; "" if the image cannot be read."""
        if sample.startswith(_PERSON):
            return jpeg_uri(self._together(self.people.get(sample.removeprefix(_PERSON), ())))
        path = self.paths.get(sample)
        if path is None:
            return ""
        return jpeg_uri(small_pixels(path, SIDE, self.window, self.max_pixels, self.channels, self.frame))

    def _together(self, samples: Sequence[str]) -> NDArray[np.uint8] | None:
        """Return the images side by side, in rows of two or three; None if none can be read."""
        known = [self.paths[one] for one in samples if one in self.paths][:TOGETHER]
        reading = self.window, self.max_pixels, self.channels, self.frame
        made = [pixels for path in known if (pixels := small_pixels(path, TILE, *reading)) is not None]
        if not made:
            return None
        height, width = (max(one.shape[axis] for one in made) for axis in (0, 1))
        columns = 2 if len(made) == 4 else min(_ABREAST, len(made))
        rows = -(-len(made) // columns)
        sheet = np.full((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3), _PAPER, np.uint8)
        for at, one in enumerate(made):
            top, left = (at // columns) * (height + _GAP), (at % columns) * (width + _GAP)
            sheet[top : top + one.shape[0], left : left + one.shape[1]] = one
        return sheet

    def _uri_at(self, samples: Sequence[str], at: int) -> str:
        return self.data_uri(samples[at])

    def within(self, samples: Sequence[str], budget: int, progress: Progress = SILENT) -> dict[str, str]:
        """Return id → data URI for as many of the samples, in order, as fit into `budget` bytes; a sample that is
        listed twice is shown twice and counts twice.
        """
        found: dict[str, str] = {}
        distinct, rest = list(dict.fromkeys(samples)), iter(samples)
        with progress.step("making thumbnails") as advance:
            for start in range(0, len(distinct), _AT_ONCE):
                block = distinct[start : start + _AT_ONCE]
                made = map_threads(partial(self._uri_at, block), len(block), None, None)
                found |= dict(zip(block, made, strict=True))
                advance(min(start + _AT_ONCE, len(distinct)), len(distinct))
                if sum(map(len, found.values())) > budget:
                    break
        shown: dict[str, str] = {}
        for sample in rest:
            budget -= len(found.get(sample, ""))
            if budget < 0 or sample not in found:
                break
            shown[sample] = found[sample]
        return shown


def small_pixels(
    path: Path,
    side: int,
    window: tuple[float, float] | None = None,
    max_pixels: int | None = None,
    channels: tuple[int, ...] = (),
    frame: int | str | None = None,
) -> NDArray[np.uint8] | None:
    """Return (height, width, 3) the upright image with its proportions, at most `side` pixels long; None if it cannot
    be read. Of chosen channels it is the first three, or the first one as gray.
    """
    try:
        data = read_content(path).data
        height, width = identify_image(io.BytesIO(data), max_pixels)
        # Never enlarged. A letterbox keeps the proportions whatever the rotation is; its borders are cut off.
        longest = max(1, min(side, max(height, width)))
        shown = channels[:3] if len(channels) > 2 else channels[:1]
        settings = ImageSettings(
            longest, longest, "letterbox", window, max_pixels, channels=shown, frame=frame, preview=True
        )
        canvas = shown_colors(decode_image(data, settings).pixels)
    except (UnreadableImageError, EnsembleError):
        return None
    return _without_borders(canvas, height, width)


def _without_borders(canvas: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return the image inside of a letterbox, whose sides are as `height` to `width`, or rotated."""
    longest = len(canvas)
    short = max(1, round(longest * min(height, width) / max(height, width)))
    margin = (longest - short) // 2
    for inside in (
        (slice(None), slice(margin, margin + short)),
        (slice(margin, margin + short), slice(None)),
    ):
        outside = np.ones((longest, longest), bool)
        outside[inside] = False
        if (canvas[outside] == BACKGROUND).all():
            return canvas[inside]
    return canvas


def jpeg_uri(pixels: NDArray[np.uint8] | None) -> str:
    """Return an image (height, width, 3) as a data URI; "" for None."""
    if pixels is None:
        return ""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
