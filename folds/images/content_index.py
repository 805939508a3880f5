"""Index the SHA-256 digests of files by path, size and times, so that unchanged files are not read again."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from folds.errors import EnsembleError
from folds.images.stacks import join_contents, stack_parts
from folds.utils.files import read_json, sha256_bytes, write_atomic

INDEX_NAME = "contents.json"
MISSING = "does not exist"
# A file modified so shortly before it was read could change again without a new modification time.
_SETTLED_NS = 2_000_000_000

Entry = tuple[int, int, int, str]  # size, mtime and ctime in nanoseconds, digest


class UnreadableImageError(Exception):
    """An unusable file; the reason is the end of a sentence that starts with its name.

    Attributes
    ----------
    values : its lowest and highest value if only a window is missing.
    """

    def __init__(self, reason: str, values: tuple[float, float] | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.values = values


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to read; raise UnreadableImageError if it is missing, a folder, a pipe or not readable."""
    try:
        # Checked before opening, because opening a pipe would wait for its writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise UnreadableImageError("is a folder, not an image" if path.is_dir() else "is not a regular file")
        with open(path, "rb") as file:
            yield file
    except FileNotFoundError:
        raise UnreadableImageError(MISSING) from None
    except MemoryError:
        raise UnreadableImageError("needs more memory than is available") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        reason = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else str(error)
        raise UnreadableImageError(f"cannot be read: {reason}") from None


@dataclass(frozen=True)
class Content:
    """The content of a file.

    Attributes
    ----------
    data, digest : its bytes and their hex SHA-256.
    entry : the entry for the index; None if the file was modified just before it was read.
    """

    data: bytes
    digest: str
    entry: Entry | None


def read_content(path: Path) -> Content:
    """Read and hash a file, or all files of a stack in one piece; raise UnreadableImageError if it cannot be read."""
    parts = stack_parts(path)
    if len(parts) > 1:
        return _read_stack(parts)
    with open_regular(path) as file:
        known = os.fstat(file.fileno())
        data = file.read()
    digest = sha256_bytes(data)
    settled = time.time_ns() - max(known.st_mtime_ns, known.st_ctime_ns) > _SETTLED_NS
    entry = (known.st_size, known.st_mtime_ns, known.st_ctime_ns, digest)
    return Content(data, digest, entry if settled and len(data) == known.st_size else None)


def _read_stack(parts: Sequence[Path]) -> Content:
    found = []
    before = _state_of(parts)
    for part in parts:
        try:
            found.append(read_content(part))
        except UnreadableImageError as problem:
            raise UnreadableImageError(f"cannot be read: {part} {problem.reason}") from None
    data = join_contents([one.data for one in found])
    digest, state = sha256_bytes(data), _state_of(parts)
    settled = all(one.entry is not None for one in found) and state == before
    return Content(data, digest, None if state is None or not settled else (*state, digest))


def _state_of(parts: Sequence[Path]) -> tuple[int, int, int] | None:
    """Return numbers that change if a file of a stack changes; None if one cannot be read."""
    try:
        found = [part.stat() for part in parts]
    except (OSError, ValueError):
        return None
    times = repr([(one.st_size, one.st_mtime_ns, one.st_ctime_ns) for one in found])
    latest = max(one.st_ctime_ns for one in found)
    return sum(one.st_size for one in found), int(sha256_bytes(times.encode())[:12], 16), latest


def load_index(folder: Path) -> dict[str, Entry]:
    """Return the index in `folder` by absolute path; empty if it is missing or damaged, so files are only read
    again.
    """
    with contextlib.suppress(EnsembleError, AttributeError, KeyError, TypeError, ValueError):
        entries = read_json(folder / INDEX_NAME)["files"].items()
        return {
            name: (int(size), int(mtime), int(ctime), str(digest)) for name, (size, mtime, ctime, digest) in entries
        }
    return {}


def unchanged_digest(index: Mapping[str, Entry], path: Path) -> str | None:
    """Return the digest of a file whose size and times are those in the index, else None."""
    entry = index.get(str(path.absolute()))
    if entry is None:
        return None
    parts = stack_parts(path)
    if len(parts) > 1:
        return entry[3] if _state_of(parts) == entry[:3] else None
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return entry[3] if (found.st_size, found.st_mtime_ns, found.st_ctime_ns) == entry[:3] else None


def add_to_index(folder: Path, read: Mapping[str, Entry]) -> None:
    """Add entries to the index in `folder`.

    If two processes do this at the same time, one may lose its entries, and the files are read again in the next run.
    The same happens if the folder cannot be written or the disk is full, which is not an error.
    """
    if not read:
        return
    merged = {**load_index(folder), **read}
    with contextlib.suppress(EnsembleError):
        # ASCII with escapes also keeps file names that are not UTF-8.
        write_atomic(folder / INDEX_NAME, json.dumps({"schema": 1, "files": merged}, separators=(",", ":")) + "\n")
