"""Decode the images of a table once into a memory-mapped uint8 array on disk, keyed by contents and settings."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import math
import os
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import PIL

from folds.errors import EnsembleError
from folds.images.bit_depth import Depth, DepthGroup, depth_notes, group_depths, remark_lines
from folds.images.channel_sums import mean_std
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
    pixels : (n, height, width, channels) uint8, memory-mapped and read-only, in the order of the paths.
    content : hex SHA-256 of each file's bytes; equal files have equal digests.
    path : the .npy file; a .json of the same name beside it records the settings and contents.
    depths : the depths of files of more than 8 bits, and the windows applied.
    decoded : number of images decoded in this call; 0 if the cache existed.
    remarks : what was chosen in the files (a frame, a window), and the number of images of which it was.
    """

    pixels: np.memmap[Any, np.dtype[np.uint8]]
    content: tuple[str, ...]
    path: Path
    depths: tuple[DepthGroup, ...]
    decoded: int
    remarks: Mapping[str, int] = field(default_factory=dict)


def load_images(
    paths: Sequence[Path],
    settings: ImageSettings,
    *,
    cache_dir: Path,
    locations: Sequence[str] | None = None,
    threads: int | None = None,
    progress: Advance | None = None,
) -> DecodedImages:
    """Return the images of a table, decoded at most once for the same contents, order and settings.

    The first run reads each file once. Later runs check only sizes and times. The pixels depend on the files, the
    settings and the version of Pillow, not on the number of threads. Processes that build the same cache at the same
    time all get a complete one. Notes about the images, e.g. the window applied to 16-bit ones, are logged.

    Parameters
    ----------
    locations : the source of each path, e.g. ``"train.csv row 3"``, for errors.
    threads : number of decoding threads; by default the number of cores.
    progress : called with (decoded images, all images) from the calling thread.

    Raises
    ------
    EnsembleError : some images are unusable (all of them are in one error), or the cache cannot be written. No partial
        files are left.
    """
    if not paths:
        raise EnsembleError("no images are given", hint="check the table of samples")
    paths, cache_dir = [Path(path) for path in paths], Path(cache_dir)
    index = load_index(cache_dir)
    digests = [unchanged_digest(index, path) for path in paths]
    read: dict[str, Entry] = {}
    if None in digests and any(cache_dir.glob(f"{_settings_key(settings, len(paths))}-*.npy")):
        # There may be a cache for these contents, and hashing is much faster than decoding.
        digests = _hash_missing(paths, digests, read, threads)
    cache = _reuse(cache_dir, settings, digests)
    if cache is None:
        cache = _build(paths, settings, cache_dir, locations, threads, progress, read)
    add_to_index(cache_dir, read)
    for line in [*remark_lines(cache.remarks), *depth_notes(cache.depths)]:
        logger.info(line)
    return cache


def cached_pixels(paths: Sequence[Path], cache_dir: Path) -> np.memmap[Any, np.dtype[np.uint8]] | None:
    """Return the pixels (n, height, width, 3) of images as they are kept for any settings, those of the fewest bytes;
    None if they are not kept, or a file has changed since. Nothing is decoded.
    """
    if not paths or not cache_dir.is_dir():
        return None
    index = load_index(cache_dir)
    digests = [unchanged_digest(index, Path(path)) for path in paths]
    known = [digest for digest in digests if digest is not None]
    if len(known) < len(digests):
        return None
    kept = []
    for path in sorted(cache_dir.glob(f"*-{_content_key(known)}.npy")):
        with contextlib.suppress(Exception):  # damaged
            pixels = np.lib.format.open_memmap(path, mode="r")
            if pixels.dtype == np.uint8 and pixels.ndim == 4 and len(pixels) == len(known) and pixels.shape[3] == 3:
                kept.append(pixels)
    return min(kept, key=lambda pixels: pixels.nbytes) if kept else None


def _settings_key(settings: ImageSettings, count: int) -> str:
    # Pixels can differ between versions of Pillow, and results must not depend on which version ran first.
    made_by = {"decoder": DECODER_VERSION, "pillow": PIL.__version__, "images": count, **settings.as_dict()}
    return sha256_bytes(json.dumps(made_by, sort_keys=True).encode())[:12]


def _cache_path(cache_dir: Path, settings: ImageSettings, digests: Sequence[str]) -> Path:
    return cache_dir / f"{_settings_key(settings, len(digests))}-{_content_key(digests)}.npy"


def _content_key(digests: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:24]


def _reuse(cache_dir: Path, settings: ImageSettings, digests: Sequence[str | None]) -> DecodedImages | None:
    known = tuple(digest for digest in digests if digest is not None)
    return (
        _open_cache(_cache_path(cache_dir, settings, known), settings, known, decoded=0)
        if len(known) == len(digests)
        else None
    )


def _open_cache(path: Path, settings: ImageSettings, digests: tuple[str, ...], decoded: int) -> DecodedImages | None:
    """Return the cache at `path` if it is complete and matches its name, else None."""
    try:
        record = read_json(path.with_suffix(".json"))
        depths = tuple(DepthGroup(**{**group, "window": tuple(group["window"])}) for group in record["depths"])
        remarks = {str(text): int(count) for text, count in record.get("remarks", {}).items()}
        pixels = np.lib.format.open_memmap(path, mode="r")  # refuses pickled arrays
        is_complete = (
            path.stat().st_size == pixels.offset + pixels.nbytes
            and pixels.flags.c_contiguous
            and pixels.dtype == np.uint8
        )
        if not is_complete or pixels.shape != (len(digests), *settings.shape) or tuple(record["content"]) != digests:
            return None
    except Exception:  # absent or damaged: the cache is built again
        return None
    return DecodedImages(pixels, digests, path, depths, decoded, remarks)


def _hash_missing(
    paths: Sequence[Path], digests: Sequence[str | None], read: dict[str, Entry], threads: int | None
) -> list[str | None]:
    missing = [at for at, digest in enumerate(digests) if digest is None]

    def one(at: int) -> str | None:
        try:
            return _read_and_record(paths[missing[at]], read)[1]
        except UnreadableImageError:
            return None  # the build reads it again and reports it with all other problems

    filled = list(digests)
    for at, digest in zip(missing, map_threads(one, len(missing), threads, None)):
        filled[at] = digest
    return filled


def _read_and_record(path: Path, read: dict[str, Entry]) -> tuple[bytes, str]:
    content = read_content(path)
    if content.entry is not None:
        read[str(path.absolute())] = content.entry
    return content.data, content.digest


def _build(
    paths: Sequence[Path],
    settings: ImageSettings,
    cache_dir: Path,
    locations: Sequence[str] | None,
    threads: int | None,
    progress: Advance | None,
    read: dict[str, Entry],
) -> DecodedImages:
    """Read, hash and decode every file once, into a temporary file that is then named by the contents."""
    row_bytes = math.prod(settings.shape)
    path = (
        cache_dir / f"{_settings_key(settings, len(paths))}-*.npy"
    )  # the hash of the contents is known only at the end
    try:
        with _temporary_file(cache_dir) as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "|u1", "fortran_order": False, "shape": (len(paths), *settings.shape)}
            )
            file.flush()
            start = file.tell()
            _reserve(file.fileno(), start + len(paths) * row_bytes)

            def one(at: int) -> tuple[str, Depth | None, tuple[str, ...]] | UnreadableImageError:
                try:
                    data, digest = _read_and_record(paths[at], read)
                    image = decode_image(data, settings)
                except UnreadableImageError as problem:
                    return problem
                _write_at(file.fileno(), image.pixels.tobytes(), start + at * row_bytes)
                return digest, image.depth, image.remarks

            results = map_threads(one, len(paths), threads, progress)
            problems = [(at, result) for at, result in enumerate(results) if isinstance(result, UnreadableImageError)]
            if problems:
                raise refusal(problems, paths, locations)
            good = [result for result in results if not isinstance(result, UnreadableImageError)]
            digests = tuple(digest for digest, _, _ in good)
            path = _cache_path(cache_dir, settings, digests)
            os.fsync(file.fileno())
            versions = {"decoder": DECODER_VERSION, "pillow": PIL.__version__}
            depths = [asdict(group) for group in group_depths(depth for _, depth, _ in good if depth is not None)]
            remarks = dict(sorted(Counter(text for _, _, texts in good for text in texts).items()))
            write_json(
                path.with_suffix(".json"),
                {
                    **{"schema": 1, **settings.as_dict(), "versions": versions, "depths": depths},
                    **({"remarks": remarks} if remarks else {}),
                    "content": digests,
                },
            )
            Path(file.name).replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    cache = _open_cache(path, settings, digests, decoded=len(paths))
    if cache is None:
        raise EnsembleError(f"{path} was written but cannot be read back", hint="check the disk")
    return cache


@contextlib.contextmanager
def _temporary_file(folder: Path) -> Iterator[IO[bytes]]:
    """Yield a new file in `folder`, which is removed at the end unless it was renamed.

    Temporary files of killed processes are removed first, because they can be large.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(".*.building"):
        with contextlib.suppress(OSError), open(stale, "rb") as abandoned:
            if try_lock(abandoned):
                stale.unlink()
    while True:
        path = folder / f".{uuid.uuid4().hex}.building"
        with open(path, "x+b") as file:
            # Another process may have removed it as abandoned before it was locked.
            if try_lock(file) is False or not path.exists():
                continue
            try:
                yield file
            finally:
                path.unlink(missing_ok=True)
            return


def _reserve(handle: int, size: int) -> None:
    # Detect a full disk now and not after minutes of decoding. Systems that cannot reserve space fail on writing.
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(handle, 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise


def _write_at(handle: int, data: bytes, offset: int) -> None:
    # pwrite raises on a full disk, while a memory map would cause a bus error.
    remaining = memoryview(data)
    while remaining:
        written = os.pwrite(handle, remaining, offset)
        remaining, offset = remaining[written:], offset + written
