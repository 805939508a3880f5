"""Read the pixels of a ``.npy`` file: (height, width) or (height, width, channels) numbers, never objects."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.images.content_index import UnreadableImageError

START = b"\x93NUMPY"
_HEADER = 4_096  # bytes of a header at most


def numpy_shape(data: bytes) -> tuple[int, int, int]:
    """Return (height, width, channels) of the array in a file, of which the first bytes are enough.

    Raises
    ------
    UnreadableImageError : it is not an array of numbers with two or three axes.
    """
    shape, _, _, _ = _header(data)
    height, width, channels = (shape[1], shape[2], shape[0]) if _channels_first(shape) else (*shape, 1)[:3]
    return height, width, channels


def numpy_pixels(data: bytes) -> NDArray[Any]:
    """Return (height, width, channels), a view of the bytes of the file; of (channels, height, width) the axes are
    moved.

    Raises
    ------
    UnreadableImageError : it is not an array of numbers with two or three axes, or is cut off.
    """
    shape, fortran, dtype, start = _header(data)
    expected = math.prod(shape) * dtype.itemsize
    if len(data) - start < expected:
        raise UnreadableImageError(f"is cut off: {len(data) - start:,} of {expected:,} bytes of the array")
    values = np.frombuffer(data, dtype, math.prod(shape), start).reshape(shape, order="F" if fortran else "C")
    if values.ndim == 2:
        return values[:, :, None]
    return values.transpose(1, 2, 0) if _channels_first(shape) else values


def _channels_first(shape: tuple[int, ...]) -> bool:
    """Return whether the first of three axes has the channels: it is shorter than the last one."""
    return len(shape) == 3 and shape[0] < shape[2]


def _header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    file = io.BytesIO(data[: _HEADER + 16])
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=_HEADER)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file, max_header_size=_HEADER)
        else:
            raise ValueError(f"version {version[0]}.{version[1]} of the format is not read")
    except Exception as error:  # of a damaged header: also of Python's parser of literals
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UnreadableImageError(f"has a damaged header of .npy: {reason}") from None
    if dtype.kind not in "buif" or dtype.itemsize > 8:
        raise UnreadableImageError(f"is a .npy of {str(dtype)[:80]}, expected numbers: integers, floats or booleans")
    if len(shape) not in (2, 3) or not all(0 < side < 2**31 for side in shape):
        listed = " × ".join(map(str, shape))[:80]
        raise UnreadableImageError(
            f"is a .npy of shape {listed}, expected (height, width) or (height, width, channels)"
        )
    return tuple(shape), fortran, dtype, file.tell()
