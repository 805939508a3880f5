"""Write and read ``expected.npz``: synthetic images and the probabilities that a model gives them."""

from __future__ import annotations

import ast
import io
import math
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ensemble.model_files.container import open_zip, refused

_MAX_BYTES = 1 << 28
MAX_IMAGES = 32
_KINDS = {"images": ("|u1", 4), "probabilities": ("<f4", 2), "members": ("<f4", 2)}
HEIGHT, WIDTH = 96, 128
# Largest difference of a probability by number format and device; those of GPUs and of fp16 are not measured.
TOLERANCE = {"cpu": 1e-4, "gpu": 5e-3, "fp16": 2e-2, "bf16": 8e-2}
# A head that sees all images of a person reads float16 features, which rounding on another machine can change.
TOLERANCE_OF_HEADS = {**TOLERANCE, "cpu": 2e-3}


@dataclass(frozen=True)
class Expected:
    """Images, and what a model answers.

    Attributes
    ----------
    images : (n, height, width, 3) uint8.
    probabilities : (n, classes) float32 of the whole model; of a model for people (people, classes), of made-up people
        (`ensemble.model_files.made_up_rows`).
    members : (n, columns) float32 of every fold model with its views merged, one after another.
    """

    images: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    members: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.images)


def synthetic_images(seed: int, count: int) -> NDArray[np.uint8]:
    """Return (count, 96, 128, 3) images of smooth random colors with some noise; the same for the same seed."""
    random = np.random.default_rng(seed)
    images = np.empty((count, HEIGHT, WIDTH, 3), np.uint8)
    for i in range(count):
        cells = random.integers(0, 256, (3 + i % 4, 4 + i % 3, 3), np.uint8)
        smooth = np.asarray(Image.fromarray(cells).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float64)
        images[i] = (smooth + random.normal(0, 12, smooth.shape)).clip(0, 255).astype(np.uint8)
    return images


def pack_expected(expected: Expected) -> bytes:
    """Return the content of ``expected.npz``; the same bytes for the same arrays."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, (kind, _) in _KINDS.items():
            array = io.BytesIO()
            values = np.ascontiguousarray(getattr(expected, name), np.dtype(kind))
            np.lib.format.write_array(array, values, version=(1, 0), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), array.getvalue())
    return file.getvalue()


def unpack_expected(data: bytes, path: Path, classes: int, columns: int, answers: int | None = None) -> Expected:
    """Return the arrays of an ``expected.npz``.

    Parameters
    ----------
    path : name in errors.
    columns : of `Expected.members`.
    answers : rows of `Expected.probabilities`; None for one per image.

    Raises
    ------
    EnsembleError : it is not such a file, or its arrays have other types or shapes.
    """
    if len(data) > _MAX_BYTES:
        raise refused(path, f"it has more than {_MAX_BYTES:,} bytes")
    names = {f"{name}.npy" for name in _KINDS}
    with open_zip(io.BytesIO(data), path, names, len(names)) as archive:
        missing = names - set(archive.namelist())
        if missing:
            raise refused(path, f"{', '.join(sorted(missing))} is missing")
        try:
            arrays = {name: _array(archive.read(f"{name}.npy"), *kind) for name, kind in _KINDS.items()}
        except (ValueError, zipfile.BadZipFile) as error:
            raise refused(path, str(error)) from None
    found = Expected(**arrays)
    rows = len(found) if answers is None else answers
    shapes = (found.probabilities.shape, found.members.shape, found.images.shape[3:])
    if len(found) > MAX_IMAGES:
        raise refused(path, f"it has {len(found):,} images, at most {MAX_IMAGES} are read")
    if len(found) < 1 or 0 in found.images.shape or shapes != ((rows, classes), (len(found), columns), (3,)):
        raise refused(path, f"its arrays do not belong together, or not to {classes} classes")
    if not (np.isfinite(found.probabilities).all() and np.isfinite(found.members).all()):
        raise refused(path, "its probabilities are not finite")
    return found


def _array(data: bytes, kind: str, dimensions: int) -> NDArray[Any]:
    """Return the array of a ``.npy`` of one type; raise ValueError for any other."""
    if data[:8] != b"\x93NUMPY\x01\x00" or len(data) < 10:
        raise ValueError("it holds something else than arrays")
    length = struct.unpack_from("<H", data, 8)[0]
    try:
        header = ast.literal_eval(data[10 : 10 + length].decode("latin1").strip())
        shape = header["shape"]
        plain = header["descr"] == kind and header["fortran_order"] is False
    except (SyntaxError, KeyError, TypeError, MemoryError, RecursionError):
        raise ValueError("the header of an array is damaged") from None
    plain = plain and type(shape) is tuple and all(type(size) is int and 0 <= size < 2**31 for size in shape)
    body = data[10 + length :]
    if not plain or len(shape) != dimensions or math.prod(shape) * np.dtype(kind).itemsize != len(body):
        raise ValueError("an array has another type or size than expected")
    return np.frombuffer(body, kind).reshape(shape)
