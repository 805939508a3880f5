"""Define how images are read: size, fit, range of values, channels, frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from folds.errors import UsageError, unknown_name


@dataclass(frozen=True)
class ImageSettings:
    """The size and scaling of decoded images.

    Attributes
    ----------
    height, width : pixels.
    fit : ``squash`` (the whole image, without keeping proportions), ``crop`` (scaled to cover, keeping the center),
        ``crop:380`` (the same for the central 380 × 380 pixels of the file, or fewer if it is smaller) or ``letterbox``
        (the whole image, padded with `BACKGROUND`).
    window : for gray images of more than 8 bits, the values in the file that become 0 and 255; values outside are
        clipped. None is the full range of the file's type, 0 to 65535 for 16 bits. Images of 32 bits or of floats have
        no such range and need a window.
    max_pixels : height × width of the largest image that is decoded; None: `MAX_PIXELS`.
    margin : (rows, columns) that are cut off at each side: the image is decoded larger by twice the margin, and its
        center is kept.
    channels : the channels of a file that are read, counted from 0, in this order; () for the colors red, green and
        blue, which gray files have three times.
    frame : the frame of a file of several that is read, counted from 0, or ``middle``; None for the first.
    stack : the columns of the table that name the files of a sample, each of which is one channel; () for one file.
    preview : whether an image of another number of channels is shown by its first ones, in place of an error.

    Raises
    ------
    UsageError : an unknown fit, a size below 1, a margin below 0, a window that is not LO < HI, or channels or a frame
        that cannot be.
    """

    height: int
    width: int
    fit: str = "squash"
    window: tuple[float, float] | None = None
    max_pixels: int | None = None
    margin: tuple[int, int] = (0, 0)
    channels: tuple[int, ...] = ()
    frame: int | str | None = None
    stack: tuple[str, ...] = ()
    preview: bool = False

    def __post_init__(self) -> None:
        check_fit(self.fit)
        if min(self.margin) < 0 or 2 * self.margin[0] > self.height or 2 * self.margin[1] > self.width:
            rows, columns = self.margin
            raise UsageError(f"the margin must be 0 pixels to half the side, found {rows} and {columns}")
        if min(self.height, self.width) < 1:
            raise UsageError(f"images must be at least 1 pixel high and wide, found {self.height}×{self.width}")
        if self.window is not None:
            low, high = self.window
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise UsageError(
                    f"`window` must be two values LO,HI with LO < HI, found {low:g},{high:g}",
                    hint="for example `window=0,4095`",
                )

        check_channels(self.channels, self.stack)
        if self.frame is not None:
            parse_frame(str(self.frame))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (height, width, channels)."""
        return (self.height, self.width, self.depth)

    @property
    def depth(self) -> int:
        """Return the number of channels of a decoded image: 3 unless others are chosen."""
        return channel_count(self.channels, self.stack)

    @property
    def enlarged(self) -> ImageSettings:
        """Return the settings of the image with its margin, before that is cut off."""
        rows, columns = self.margin
        return replace(self, height=self.height + 2 * rows, width=self.width + 2 * columns, margin=(0, 0))

    def as_dict(self) -> dict[str, Any]:
        """Return the settings that determine the pixels as plain values for JSON; equal settings give equal dicts."""
        window = None if self.window is None else [float(value) for value in self.window]
        later: dict[str, Any] = {"margin": list(self.margin)} if any(self.margin) else {}
        later |= {"channels": list(self.channels)} if self.channels else {}
        later |= {} if self.frame is None else {"frame": self.frame}
        later |= {"stack": list(self.stack)} if self.stack else {}
        later |= {"preview": True} if self.preview else {}  # earlier caches have none of these keys
        return {"height": self.height, "width": self.width, "fit": self.fit, "window": window, **later}

    def describe(self) -> str:
        """Return in words how an image is resized: ``squash``, or ``squash to 256×256, the central 224×224 kept``."""
        if not any(self.margin):
            return self.fit
        large = self.enlarged
        return f"{self.fit} to {large.width}×{large.height}, the central {self.width}×{self.height} kept"


MAX_PIXELS = 178_956_970  # twice Pillow's `MAX_IMAGE_PIXELS`, above which it refuses an image
FITS = ("squash", "crop", "letterbox")


def check_fit(fit: str) -> None:
    """Raise UsageError if `fit` is neither one of `FITS` nor ``crop:PIXELS``."""
    name, colon, pixels = fit.partition(":")
    if name not in FITS or (colon and name != "crop"):
        raise unknown_name("`resize`", fit, FITS, hint="squash, crop, crop:PIXELS (of the center) or letterbox")
    if colon and not (pixels.isdecimal() and len(pixels) < 9 and 1 <= int(pixels) <= 2**16):
        raise UsageError(
            f"`resize={fit}`: expected a number of pixels after crop:",
            hint="`resize=crop:380` takes the central 380 × 380 pixels",
        )


MAX_CHANNELS = 512  # of a sample
_MAX_CHANNEL = 9_999
MIDDLE = "middle"


def channel_count(channels: Sequence[int], stack: Sequence[str]) -> int:
    """Return the number of channels of a decoded image, of which 3 are those of color."""
    return len(stack) or len(channels) or 3


def check_channels(channels: Sequence[int], stack: Sequence[str]) -> None:
    """Raise UsageError if channels are not 0 or more, are repeated, or are several for each file of a stack."""
    wrong = any(type(one) is not int or not 0 <= one <= _MAX_CHANNEL for one in channels)
    if wrong or len(set(channels)) < len(channels) or max(len(channels), len(stack)) > MAX_CHANNELS:
        raise UsageError(
            f"`channels={','.join(map(str, channels))[:100]}`: expected different channels, counted from 0, at most "
            f"{MAX_CHANNELS}",
            hint="`channels=0,3,5`",
        )
    if len(stack) == 1 or len(set(stack)) < len(stack):
        raise UsageError(
            f"`stack={','.join(stack)[:100]}`: expected two different columns or more",
            hint="`path=COLUMN` names the column of one file",
        )
    if stack and len(channels) > 1:
        raise UsageError(
            f"`stack` makes each file one channel, and `channels` names {len(channels)} of each file",
            hint="`channels=0` takes the first channel of each file; without `channels` it is the gray value",
        )


def parse_channels(text: str) -> tuple[int, ...]:
    """Parse the channels of a file: ``"0,3,5"`` → (0, 3, 5).

    Raises
    ------
    UsageError : they are not numbers from 0, or are repeated.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and len(part) < 5 for part in parts):
        raise UsageError(
            f"`channels={text[:100]}`: expected numbers of channels, counted from 0", hint="`channels=0,3,5`"
        )
    found = tuple(map(int, parts))
    check_channels(found, ())
    return found


def parse_frame(text: str) -> int | str:
    """Parse the frame of a file: ``"0"`` → 0, ``"middle"`` → ``middle``.

    Raises
    ------
    UsageError : it is neither.
    """
    if text == MIDDLE:
        return text
    if not (text.isascii() and text.isdecimal() and len(text) < 8):
        raise UsageError(
            f"`frame={text[:100]}`: expected the number of a frame, counted from 0, or {MIDDLE}", hint="`frame=middle`"
        )
    return int(text)


def margin_of(height: int, width: int, scale: float) -> tuple[int, int]:
    """Return the (rows, columns) at each side of an image that is `scale` times as large, rounded to whole pixels."""
    return round(height * (scale - 1) / 2), round(width * (scale - 1) / 2)


def parse_size(text: str) -> tuple[int, int]:
    """Parse a size in pixels: ``"224"`` → (224, 224), ``"288x384"`` → (288, 384), height first."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and len(part) < 9 and 8 <= int(part) <= 4096 for part in parts):
        raise UsageError(
            f"`img_size={text[:100]}`: expected a number of pixels (8–4096) or HEIGHTxWIDTH",
            hint="`img_size=224`, `img_size=288x384`",
        )
    return int(parts[0]), int(parts[-1])


def parse_window(text: str) -> tuple[float, float]:
    """Parse a range of values: ``"0,4095"`` → (0.0, 4095.0)."""
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise UsageError(f"`window={text}`: expected two numbers", hint="`window=0,4095` for 12-bit images") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(
            f"`window={text}`: the first number must be below the second", hint="`window=0,4095` for 12-bit images"
        )
    return low, high


CACHE = Path(".ensemble")
