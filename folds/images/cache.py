"""Decode once: all images of a table as one uint8 array on disk, keyed by content and settings, memory-mapped by
whoever trains or predicts.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import math
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import PIL
from numpy.typing import NDArray

from folds.errors import EnsembleError
from folds.images.bit_depth import Depth, DepthGroup, depth_notes, group_depths
from folds.images.checks import check_images, refusal, unusable_images
from folds.images.content_index import (
    Entry,
    UnreadableImageError,
    add_to_index,
    load_index,
    read_content,
    unchanged_digest,
)
from folds.images.decode import DECODER_VERSION, decode_image
from folds.images.settings import ImageSettings
from folds.utils.files import cannot_write, read_json, sha256_bytes, write_json
from folds.utils.locks import try_lock
from folds.utils.parallel import map_threads
from folds.utils.progress import Advance

__all__ = ["DecodedImages", "ImageSettings", "check_images", "load_images", "mean_std", "unusable_images"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DecodedImages:
    """The decoded images of one table.

    Attributes
    ----------
    pixels : (n, height, width, 3) uint8, memory-mapped and read-only, in the order of the paths.
    content : the hex SHA-256 of each file's bytes; equal files have equal digests.
    path : the .npy file; a .json of the same name beside it says what it was made from.
    depths : what the files of more than 8 bits held, and the windows applied.
    decoded : how many images were decoded for it now, 0 where it was there already.
    """

    pixels: np.memmap[Any, np.dtype[np.uint8]]
    content: tuple[str, ...]
    path: Path
    depths: tuple[DepthGroup, ...]
    decoded: int


def load_images(
    paths: Sequence[Path],
    settings: ImageSettings,
    *,
    cache_dir: Path,
    where: Sequence[str] | None = None,
    threads: int | None = None,
    progress: Advance | None = None,
) -> DecodedImages:
    """Return the images of a table, decoded at most once for the same contents in the same order under the same
    settings.

    A first run reads each file once. Later runs ask for sizes and times only. The pixels depend on the files, the
    settings and
    the version of Pillow, not on the number of threads. Processes that build the same cache at once each end with a
    whole one.
    What should be said about the images, e.g. the window applied to 16-bit ones, is logged.

    Parameters
    ----------
    where : where each path comes from, e.g. ``"train.csv row 3"``, for errors.
    threads : decoding threads; as many as there are cores unless given.
    progress : called with (images done, images in all), from the calling thread.

    Raises
    ------
    EnsembleError : images that cannot be used (all of them in one error); the cache cannot be written. Nothing is left
        behind.
    """
    if not paths:
        raise EnsembleError("no images are given", hint="check the table of samples")
    paths, cache_dir = [Path(path) for path in paths], Path(cache_dir)
    index = load_index(cache_dir)
    digests = [unchanged_digest(index, path) for path in paths]
    read: dict[str, Entry] = {}
    if None in digests and any(cache_dir.glob(f"{_settings_key(settings, len(paths))}-*.npy")):
        # A cache that may fit: hashing is far cheaper than decoding.
        digests = _hash_missing(paths, digests, read, threads)
    cache = _reuse(cache_dir, settings, digests)
    if cache is None:
        cache = _build(paths, settings, cache_dir, where, threads, progress, read)
    add_to_index(cache_dir, read)
    for line in depth_notes(cache.depths):
        logger.info(line)
    return cache


def mean_std(
    pixels: NDArray[np.uint8], index: NDArray[np.integer] | None = None, block: int = 256
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of each channel, in [0, 1], over the images `index` (all unless given).

    Sums are exact integers, so the result depends neither on the order of the images nor on `block`, the images read at
    a time.

    Parameters
    ----------
    pixels : (n, height, width, 3) uint8.

    Returns
    -------
    mean, std : (3,) float64 each; the standard deviation of the population (``ddof=0``).
    """
    rows = np.arange(len(pixels)) if index is None else np.asarray(index)
    if rows.dtype == bool:
        rows = np.flatnonzero(rows)
    if not len(rows):
        raise EnsembleError("the mean of no images is not defined")
    sums, squares = np.zeros((2, math.prod(pixels.shape[1:])), np.uint64)
    block = min(block, 65536)
    for start in range(0, len(rows), block):
        part = pixels[rows[start : start + block]].reshape(-1, sums.size)
        sums += part.sum(axis=0, dtype=np.uint32)
        squared = np.zeros(sums.size, np.uint32)  # has room for 66,051 × 255², and adds up faster than 64 bits
        for image in part:
            squared += np.square(image, dtype=np.uint16)
        squares += squared
    count = len(rows) * sums.size // 3
    mean, std = np.empty(3), np.empty(3)
    for channel in range(3):
        # Python's integers: no rounding before the last division, no overflow.
        first, second = int(sums[channel::3].sum()), int(squares[channel::3].sum())
        mean[channel] = first / (255 * count)
        std[channel] = math.sqrt((count * second - first * first) / (255 * count) ** 2)
    return mean, std


def _settings_key(settings: ImageSettings, count: int) -> str:
    # Other versions of Pillow may give slightly other pixels, and results must not depend on which version ran first.
    made_by = {"decoder": DECODER_VERSION, "pillow": PIL.__version__, "images": count, **settings.as_dict()}
    return sha256_bytes(json.dumps(made_by, sort_keys=True).encode())[:12]


def _cache_path(cache_dir: Path, settings: ImageSettings, digests: Sequence[str]) -> Path:
    content = hashlib.sha256("\n".join(digests).encode()).hexdigest()[:24]
    return cache_dir / f"{_settings_key(settings, len(digests))}-{content}.npy"


def _reuse(cache_dir: Path, settings: ImageSettings, digests: Sequence[str | None]) -> DecodedImages | None:
    known = tuple(digest for digest in digests if digest is not None)
    return (
        _open_cache(_cache_path(cache_dir, settings, known), settings, known, decoded=0)
        if len(known) == len(digests)
        else None
    )


def _open_cache(path: Path, settings: ImageSettings, digests: tuple[str, ...], decoded: int) -> DecodedImages | None:
    """Return the cache at `path` if it is whole and what its name says, else None."""
    try:
        record = read_json(path.with_suffix(".json"))
        depths = tuple(DepthGroup(**{**group, "window": tuple(group["window"])}) for group in record["depths"])
        pixels = np.lib.format.open_memmap(path, mode="r")  # refuses pickled arrays
        whole = (
            path.stat().st_size == pixels.offset + pixels.nbytes
            and pixels.flags.c_contiguous
            and pixels.dtype == np.uint8
        )
        if not whole or pixels.shape != (len(digests), *settings.shape) or tuple(record["content"]) != digests:
            return None
    except Exception:  # absent, or damaged in whatever way: it is built again
        return None
    return DecodedImages(pixels, digests, path, depths, decoded)


def _hash_missing(
    paths: Sequence[Path], digests: Sequence[str | None], read: dict[str, Entry], threads: int | None
) -> list[str | None]:
    missing = [at for at, digest in enumerate(digests) if digest is None]

    def one(at: int) -> str | None:
        try:
            return _remembered(paths[missing[at]], read)[1]
        except UnreadableImageError:
            return None  # building reads it again and says what is wrong, with all the others

    filled = list(digests)
    for at, digest in zip(missing, map_threads(one, len(missing), threads, None)):
        filled[at] = digest
    return filled


def _remembered(path: Path, read: dict[str, Entry]) -> tuple[bytes, str]:
    content = read_content(path)
    if content.entry is not None:
        read[str(path.absolute())] = content.entry
    return content.data, content.digest


def _build(
    paths: Sequence[Path],
    settings: ImageSettings,
    cache_dir: Path,
    where: Sequence[str] | None,
    threads: int | None,
    progress: Advance | None,
    read: dict[str, Entry],
) -> DecodedImages:
    """Read, hash and decode every file once, into a temporary file that is then named by what was found."""
    row_bytes = math.prod(settings.shape)
    path = cache_dir / f"{_settings_key(settings, len(paths))}-*.npy"  # the rest of the name is known at the end
    try:
        with _temporary_file(cache_dir) as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "|u1", "fortran_order": False, "shape": (len(paths), *settings.shape)}
            )
            file.flush()
            start = file.tell()
            _reserve(file.fileno(), start + len(paths) * row_bytes)

            def one(at: int) -> tuple[str, Depth | None] | UnreadableImageError:
                try:
                    data, digest = _remembered(paths[at], read)
                    image = decode_image(data, settings)
                except UnreadableImageError as problem:
                    return problem
                _write_at(file.fileno(), image.pixels.tobytes(), start + at * row_bytes)
                return digest, image.depth

            results = map_threads(one, len(paths), threads, progress)
            problems = [(at, result) for at, result in enumerate(results) if isinstance(result, UnreadableImageError)]
            if problems:
                raise refusal(problems, paths, where)
            good = [result for result in results if not isinstance(result, UnreadableImageError)]
            digests = tuple(digest for digest, _ in good)
            path = _cache_path(cache_dir, settings, digests)
            os.fsync(file.fileno())
            versions = {"decoder": DECODER_VERSION, "pillow": PIL.__version__}
            depths = [asdict(group) for group in group_depths(depth for _, depth in good if depth is not None)]
            write_json(
                path.with_suffix(".json"),
                {"schema": 1, **settings.as_dict(), "versions": versions, "depths": depths, "content": digests},
            )
            Path(file.name).replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    cache = _open_cache(path, settings, digests, decoded=len(paths))
    if cache is None:
        raise EnsembleError(f"{path} was written but cannot be read back", hint="check the disk it is on")
    return cache


@contextlib.contextmanager
def _temporary_file(folder: Path) -> Iterator[IO[bytes]]:
    """A new file in `folder`, removed unless it was renamed. Those of processes that were killed are removed first:
    they can be large.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".*.building"):
        with contextlib.suppress(OSError), open(left, "rb") as abandoned:
            if try_lock(abandoned):
                left.unlink()
    while True:
        path = folder / f".{uuid.uuid4().hex}.building"
        with open(path, "x+b") as file:
            # Between its creation and its lock another process may have taken it for abandoned.
            if try_lock(file) is False or not path.exists():
                continue
            try:
                yield file
            finally:
                path.unlink(missing_ok=True)
            return


def _reserve(handle: int, size: int) -> None:
    # A full disk shows now and not after minutes of decoding. Some systems cannot reserve; there the writing itself
    # fails.
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(handle, 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise


def _write_at(handle: int, data: bytes, offset: int) -> None:
    # Written, not assigned through a memory map: on a full disk that would be a bus error and not an exception.
    left = memoryview(data)
    while left:
        written = os.pwrite(handle, left, offset)
        left, offset = left[written:], offset + written
