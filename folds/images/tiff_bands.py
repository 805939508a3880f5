"""Read TIFF files that Pillow does not: of more than four channels, or of more than 8 bits in several channels.

Uncompressed and deflated data are read, in strips or tiles, interleaved or channel after channel, with or without the
horizontal predictor. Others have a reason that says what to save instead.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.images.content_index import UnreadableImageError
from folds.images.frames import frame_of

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WHOLE = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
_MAX_ENTRIES, _MAX_PAGES, _MAX_BLOCKS = 4_096, 100_000, 1 << 20
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_OFFSETS, _CHANNELS, _ROWS, _COUNTS, _PLANAR, _PREDICTOR = 273, 277, 278, 279, 284, 317
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS, _FORMAT = 322, 323, 324, 325, 339
_NONE, _DEFLATE = 1, (8, 32946)
_NAMES = {2: "CCITT", 3: "CCITT", 4: "CCITT", 5: "LZW", 6: "JPEG", 7: "JPEG", 32773: "PackBits", 34712: "JPEG 2000"}
_NAMES |= {34925: "LZMA", 50000: "Zstandard", 50001: "WebP"}
_KINDS = {1: "u", 2: "i", 3: "f"}
_USED = {_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _OFFSETS, _CHANNELS, _ROWS, _COUNTS, _PLANAR, _PREDICTOR}
_USED |= {_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS, _FORMAT}
# Bytes for each pixel of the largest image: in one strip or tile, and in all that are read. Strips may share their
# bytes in the file, so that a small file could ask for any number of them.
_BLOCK_BYTES, _ALL_BYTES = 8, 64
_LEAST = 1 << 20  # pixels, so that usual tiles of small images are read under any limit


@dataclass(frozen=True)
class TiffPage:
    """What a page of a TIFF says of itself.

    Attributes
    ----------
    tags : number of a tag that is used → its whole numbers, which stay in the bytes of the file.
    order : ``<`` or ``>``, of the bytes.
    pages : the number of pages of the file.
    """

    tags: dict[int, NDArray[np.unsignedinteger]]
    order: str
    pages: int

    def one(self, tag: int, default: int) -> int:
        """Return the first number of a tag."""
        return int(self.tags[tag][0]) if tag in self.tags else default

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (height, width, channels)."""
        return self.one(_HEIGHT, 0), self.one(_WIDTH, 0), self.one(_CHANNELS, 1)

    @property
    def bits(self) -> int:
        """Return the bits of a number."""
        return self.one(_BITS, 1)

    @property
    def for_pillow(self) -> bool:
        """Return whether Pillow reads all that the page holds: one channel, or up to four of 8 bits in color."""
        channels, photometric = self.shape[2], self.one(_PHOTOMETRIC, 1)
        usual = (photometric in (2, 5, 6) and channels <= 4) or (photometric in (0, 1, 3) and channels <= 2)
        return channels == 1 or (self.bits <= 8 and usual)


def read_page(data: bytes, frame: int | str | None = None) -> TiffPage | None:
    """Return what a page of a TIFF says of itself; None if the bytes are no TIFF.

    Parameters
    ----------
    frame : the page, counted from 0, or ``middle``; None for the first.

    Raises
    ------
    UnreadableImageError : the file is damaged, or has no such page.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    version = 0 if order is None or len(data) < 8 else struct.unpack_from(f"{order}H", data, 2)[0]
    if order is None or version not in (42, 43):
        return None
    big = version == 43
    try:
        starts = _starts(data, order, big)
        at = frame_of(frame, len(starts))
        return TiffPage(_tags(data, starts[at], order, big), order, len(starts))
    except (struct.error, IndexError, OverflowError, ValueError):
        raise UnreadableImageError("is a TIFF that is cut off or damaged") from None


def _starts(data: bytes, order: str, big: bool) -> list[int]:
    """Return where the directories of the pages start."""
    at = struct.unpack_from(f"{order}Q", data, 8)[0] if big else struct.unpack_from(f"{order}I", data, 4)[0]
    starts: list[int] = []
    seen: set[int] = set()
    while at and at not in seen and len(starts) < _MAX_PAGES:
        count = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, at)[0]
        if count > _MAX_ENTRIES:
            raise UnreadableImageError("is a damaged TIFF: a page has too many tags")
        starts.append(at)
        seen.add(at)
        end = at + (8 + 20 * count if big else 2 + 12 * count)
        at = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, end)[0]
    if not starts:
        raise UnreadableImageError("is a TIFF without a page")
    return starts


def _tags(data: bytes, start: int, order: str, big: bool) -> dict[int, NDArray[np.unsignedinteger]]:
    """Return the numbers of the tags that are used, without a copy: damaged files have many and long ones."""
    count = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, start)[0]
    head, size, room = (8, 20, 8) if big else (2, 12, 4)
    tags: dict[int, NDArray[np.unsignedinteger]] = {}
    for at in range(start + head, start + head + size * count, size):
        tag, kind = struct.unpack_from(f"{order}HH", data, at)
        numbers = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, at + 4)[0]
        if tag not in _USED or kind not in _WHOLE or not 0 < numbers <= _MAX_BLOCKS:
            continue
        place = at + size - room
        if numbers * _SIZES[kind] > room:
            place = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, place)[0]
        tags[tag] = np.frombuffer(data, f"{order}{_WHOLE[kind]}", numbers, place)
    return tags


def page_pixels(data: bytes, page: TiffPage, chosen: tuple[int, ...], max_pixels: int) -> NDArray[Any]:
    """Return (height, width, chosen) the numbers of these channels of a page, whose size is allowed.

    Parameters
    ----------
    max_pixels : of the largest image, which bounds the bytes of a strip or tile and of all of them.

    Raises
    ------
    UnreadableImageError : it is compressed in another way, its numbers are not of whole bytes, or it is damaged.
    """
    height, width, channels = page.shape
    bits = set(np.unique(page.tags[_BITS]).tolist()) if _BITS in page.tags else {1}
    kind = _KINDS.get(page.one(_FORMAT, 1))
    packing, planar = page.one(_COMPRESSION, _NONE), page.one(_PLANAR, 1) == 2 and channels > 1
    if packing != _NONE and packing not in _DEFLATE:
        name = _NAMES.get(packing, f"method {packing}")
        raise UnreadableImageError(
            f"is a TIFF of {channels} channels compressed by {name}; it is read without compression, by deflate, or as "
            ".npy"
        )
    if kind is None or len(bits) > 1 or not bits <= {8, 16, 32, 64} or (kind == "f" and bits == {8}):
        raise UnreadableImageError(f"is a TIFF of {channels} channels of {page.bits} bits, expected 8, 16, 32 or 64")
    predictor = page.one(_PREDICTOR, 1)
    if predictor not in (1, 2) or (predictor == 2 and kind == "f"):
        raise UnreadableImageError(
            f"is a TIFF of {channels} channels with predictor {predictor}; without a predictor it is read"
        )
    dtype = np.dtype(f"{page.order}{kind}{page.bits // 8}")
    tiled = _TILE_WIDTH in page.tags
    rows = page.one(_TILE_HEIGHT, 0) if tiled else min(page.one(_ROWS, height), height)
    columns = page.one(_TILE_WIDTH, 0) if tiled else width
    # A tile is at most as large as an image with a border of one tile of usual size.
    if not 0 < rows <= height + 4_096 or not 0 < columns <= width + 4_096:
        raise UnreadableImageError("is a damaged TIFF: its tiles are larger than the image")
    down, across = math.ceil(height / rows), math.ceil(width / columns)
    depth = 1 if planar else channels
    size, most = rows * columns * depth * dtype.itemsize, max(max_pixels, _LEAST)
    if size > _BLOCK_BYTES * most or size * down * across * (len(chosen) if planar else 1) > _ALL_BYTES * most:
        raise UnreadableImageError(
            f"is a TIFF of {channels} channels whose {'tiles' if tiled else 'strips'} of {size:,} bytes are too large "
            "to be read (it may be a decompression bomb); smaller strips, channel after channel, are read"
        )
    none = np.zeros(0, np.uint8)
    offsets = page.tags.get(_TILE_OFFSETS if tiled else _OFFSETS, none)
    counts = page.tags.get(_TILE_COUNTS if tiled else _COUNTS, none)
    if min(len(offsets), len(counts)) < down * across * (channels if planar else 1):
        raise UnreadableImageError("is a damaged TIFF: some of its strips are missing")
    pixels = np.empty((height, width, len(chosen)), dtype.newbyteorder("="))
    places: list[tuple[int | None, int]] = [(None, 0)]
    if planar:
        places = [*enumerate(chosen)]
    for to, plane in places:
        for block in range(down * across):
            top, left = block // across * rows, block % across * columns
            here = min(rows, height - top), min(columns, width - left)
            stored = rows if tiled else here[0]  # the last strip ends with the image
            at = plane * down * across + block
            raw = _block(data, int(offsets[at]), int(counts[at]), packing, stored * columns * depth * dtype.itemsize)
            values = np.frombuffer(raw, dtype).reshape(stored, columns, depth)
            if predictor == 2:
                values = np.cumsum(values, axis=1, dtype=dtype.newbyteorder("="))
            values = values[: here[0], : here[1]]
            target = pixels[top : top + here[0], left : left + here[1]]
            if to is None:
                target[...] = values[:, :, list(chosen)]
            else:
                target[:, :, to] = values[:, :, 0]
    return pixels


def _block(data: bytes, offset: int, count: int, packing: int, size: int) -> bytes:
    """Return the `size` bytes of a strip or tile; never more of them are inflated."""
    raw = data[offset : offset + count]
    if packing != _NONE:
        try:
            raw = zlib.decompressobj().decompress(raw, size)
        except zlib.error as error:
            raise UnreadableImageError(f"is a damaged TIFF: {error}") from None
    if len(raw) < size:
        raise UnreadableImageError("is a TIFF that is cut off")
    return raw[:size]
