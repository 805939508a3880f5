"""Which file holds which content: SHA-256 digests remembered by path, size and times, so that unchanged files are not
read again.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from folds.errors import EnsembleError
from folds.utils.files import read_json, sha256_bytes, write_atomic

INDEX_NAME = "contents.json"
MISSING = "does not exist"
# A file changed this shortly before it was read could change again without its times showing it.
_SETTLED_NS = 2_000_000_000

Entry = tuple[int, int, int, str]  # size, mtime and ctime in nanoseconds, digest


class UnreadableImageError(Exception):
    """Why a file cannot be used, as the end of a sentence that starts with its name.

    `values` are its lowest and highest value where all that is missing is a window.
    """

    def __init__(self, reason: str, values: tuple[float, float] | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.values = values


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to read; what is missing, a folder, a pipe or forbidden raises `Unreadable`."""
    try:
        # Asked before opening: opening a pipe would wait for its writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise UnreadableImageError("is a folder, not an image" if path.is_dir() else "is not a regular file")
        with open(path, "rb") as file:
            yield file
    except FileNotFoundError:
        raise UnreadableImageError(MISSING) from None
    except MemoryError:
        raise UnreadableImageError("needs more memory than there is") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        reason = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else str(error)
        raise UnreadableImageError(f"cannot be read: {reason}") from None


@dataclass(frozen=True)
class Content:
    """A file's bytes, their hex SHA-256, and what the index may remember (None where the file has only just been
    written).
    """

    data: bytes
    digest: str
    entry: Entry | None


def read_content(path: Path) -> Content:
    """Read and hash a file; `Unreadable` where that cannot be done."""
    with open_regular(path) as file:
        known = os.fstat(file.fileno())
        data = file.read()
    digest = sha256_bytes(data)
    settled = time.time_ns() - max(known.st_mtime_ns, known.st_ctime_ns) > _SETTLED_NS
    entry = (known.st_size, known.st_mtime_ns, known.st_ctime_ns, digest)
    return Content(data, digest, entry if settled and len(data) == known.st_size else None)


def load_index(folder: Path) -> dict[str, Entry]:
    """Return the index in `folder` by absolute path; a lost or damaged one is empty, which costs a reading of the files
    and nothing else.
    """
    with contextlib.suppress(EnsembleError, AttributeError, KeyError, TypeError, ValueError):
        entries = read_json(folder / INDEX_NAME)["files"].items()
        return {
            name: (int(size), int(mtime), int(ctime), str(digest)) for name, (size, mtime, ctime, digest) in entries
        }
    return {}


def unchanged_digest(index: Mapping[str, Entry], path: Path) -> str | None:
    """Return the digest of a file whose size and times are those remembered, else None."""
    entry = index.get(str(path.absolute()))
    if entry is None:
        return None
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return entry[3] if (found.st_size, found.st_mtime_ns, found.st_ctime_ns) == entry[:3] else None


def add_to_index(folder: Path, read: Mapping[str, Entry]) -> None:
    """Add entries to the index in `folder`.

    Of two processes that do so at once, one can lose its entries; the files concerned are read again next time.
    A folder that cannot be written, or a full disk, has the same price and is no error.
    """
    if not read:
        return
    merged = {**load_index(folder), **read}
    with contextlib.suppress(EnsembleError):
        # ASCII with escapes: file names that are not UTF-8 survive it.
        write_atomic(folder / INDEX_NAME, json.dumps({"schema": 1, "files": merged}, separators=(",", ":")) + "\n")
