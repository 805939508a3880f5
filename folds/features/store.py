"""Keep features of images in memory-mapped float16 files, keyed by weights, architecture and contents of the images.

A file is written block by block under a temporary name; beside it, a list has the checksum of each finished block, so
that an interrupted computation continues. It is renamed when it is complete, with a record that has its hash.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError, ResourceLockedError
from folds.utils.files import cannot_write, make_folder, read_json, sha256_bytes, sha256_file, write_json
from folds.utils.locks import exclusive_lock, try_lock

logger = logging.getLogger(__name__)

BLOCK = 256  # images that are written at a time
_WAIT = 7 * 24 * 3600.0  # of a process for another one that computes the same features
_ABANDONED = 7 * 24 * 3600.0  # after the last write of an unfinished file


@dataclass(frozen=True)
class FeatureKey:
    """What features depend on.

    Attributes
    ----------
    fields : weights, architecture, number format, versions, views.
    pixels : name of the cache of decoded images, which is made from their contents and the settings.
    shape : (images, views, features).
    """

    fields: Mapping[str, Any]
    pixels: str
    shape: tuple[int, int, int]

    @property
    def name(self) -> str:
        """Return the name of the file: the hash of everything the features depend on."""
        content = [dict(self.fields), self.pixels, list(self.shape)]
        return sha256_bytes(json.dumps(content, sort_keys=True, default=list).encode())[:32]


def read_features(folder: Path, key: FeatureKey, verify: bool = True) -> Path | None:
    """Return the file of complete features; None if there is none, or if it is damaged, which is logged.

    Parameters
    ----------
    verify : whether the content is compared with its recorded hash.
    """
    path = folder / f"{key.name}.npy"
    if not path.is_file():
        return None
    try:
        record = read_json(path.with_suffix(".json"))
        values = np.lib.format.open_memmap(path, mode="r")
        good = values.shape == key.shape and values.dtype == np.float16 and values.flags.c_contiguous
        if good and (not verify or sha256_file(path) == record["sha256"]):
            return path
    except (OSError, ValueError, KeyError, TypeError, EnsembleError):
        pass
    logger.warning(f"{path} is damaged; its features are computed again")
    return None


def open_features(path: Path) -> NDArray[np.float16]:
    """Return memory-mapped features (images, views, features), read-only."""
    values: NDArray[np.float16] = np.load(path, mmap_mode="r", allow_pickle=False)
    return values


class FeatureWriter:
    """An unfinished file of features, under its lock; blocks can be written by several threads.

    Attributes
    ----------
    missing : the blocks that are not written yet, as (first row, row after the last).
    """

    def __init__(self, folder: Path, key: FeatureKey) -> None:
        self.key, self.path = key, folder / f"{key.name}.npy"
        self.part, self.list = folder / f".{key.name}.building", folder / f".{key.name}.blocks"
        n, views, size = key.shape
        self.row_bytes = views * size * 2
        blocks = [(at, min(at + BLOCK, n)) for at in range(0, n, BLOCK)]
        try:
            self.file = open(self.part, "r+b" if self.part.exists() else "w+b")  # noqa: SIM115 - closed by `close`
            header = {"descr": "<f2", "fortran_order": False, "shape": key.shape}
            self.file.seek(0)
            np.lib.format.write_array_header_1_0(self.file, header)
            self.file.flush()
            self.start = self.file.tell()
            self._reserve(self.start + n * self.row_bytes)
            finished = self._finished()
            self.log = open(self.list, "a", encoding="ascii")  # noqa: SIM115 - likewise
        except OSError as error:
            raise self._failed(error) from None
        self.missing = [block for block in blocks if block[0] not in finished]

    def _reserve(self, size: int) -> None:
        # A full disk is noticed now, not after minutes of computing.
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self.file.fileno(), 0, size)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                    raise

    def _finished(self) -> set[int]:
        """Return the first rows of the blocks whose content has the checksum in the list."""
        found = set()
        with contextlib.suppress(OSError, UnicodeDecodeError):
            for line in self.list.read_text(encoding="ascii").splitlines():
                parts = line.split()
                if len(parts) != 3 or not all(part.isdecimal() for part in parts):
                    continue  # the end of a line that a killed process wrote
                first, after, checksum = map(int, parts)
                content = os.pread(self.file.fileno(), (after - first) * self.row_bytes, self._offset(first))
                if after <= self.key.shape[0] and zlib.crc32(content) == checksum:
                    found.add(first)
        return found

    def _offset(self, row: int) -> int:
        return self.start + row * self.row_bytes

    def write(self, first: int, values: NDArray[np.float16]) -> None:
        """Write a block of rows (n, views, features)."""
        content = np.ascontiguousarray(values, "<f2").tobytes()
        try:
            left, offset = memoryview(content), self._offset(first)
            while left:  # pwrite raises on a full disk, while a memory map would cause a bus error
                written = os.pwrite(self.file.fileno(), left, offset)
                left, offset = left[written:], offset + written
            self.log.write(f"{first} {first + len(values)} {zlib.crc32(content)}\n")
            self.log.flush()
        except OSError as error:
            raise self._failed(error) from None

    def finish(self) -> Path:
        """Publish the complete file and return its path."""
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
            record = {"schema": 1, **dict(self.key.fields), "pixels": self.key.pixels, "shape": self.key.shape}
            write_json(self.path.with_suffix(".json"), record | {"sha256": sha256_file(self.part)})
            self.part.replace(self.path)
            self.list.unlink(missing_ok=True)
        except OSError as error:
            raise self._failed(error) from None
        return self.path

    def _failed(self, error: OSError) -> EnsembleError:
        if error.errno == errno.ENOSPC:  # an unfinished file would keep the disk full
            for path in (self.part, self.list):
                with contextlib.suppress(OSError):
                    path.unlink()
        return cannot_write(self.path, error)

    def close(self) -> None:
        """Close the files; an unfinished computation can be continued."""
        for file in (self.file, self.log):
            with contextlib.suppress(OSError):
                file.close()


@contextlib.contextmanager
def locked_features(folder: Path, key: FeatureKey) -> Iterator[None]:
    """Hold the lock of some features; if another process computes them, wait for it, which is logged."""
    lock, what = make_folder(folder) / f".{key.name}.lock", "the features of these images"
    _remove_abandoned(folder)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive_lock(lock, what))
        except ResourceLockedError as error:
            logger.info(f"{error.message}; waiting for its features")
            stack.enter_context(exclusive_lock(lock, what, wait=_WAIT))
        yield


def _remove_abandoned(folder: Path) -> None:
    """Remove unfinished files that no process has continued for a week."""
    for path in folder.glob(".*.building"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime < _ABANDONED:
                continue
            with open(path.with_suffix(".lock"), "a+") as lock:
                if try_lock(lock):
                    path.unlink()
                    path.with_suffix(".blocks").unlink(missing_ok=True)
