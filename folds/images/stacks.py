"""Name the files of one sample by one path, and keep their contents in one piece."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from pathlib import Path

SEPARATOR = "\0"  # no name of a file can have it
_OTHER = (".npy", ".dcm", ".dicom", ".tif", ".tiff")
_MARK = b"\x89stack of files\r\n"


def stack_path(files: Sequence[Path]) -> Path:
    """Return one path for the files of a sample, in this order; `read_content` reads all of them."""
    return Path(SEPARATOR.join(map(str, files)))


def stack_parts(path: Path) -> tuple[Path, ...]:
    """Return the files of a path: of most paths, the path itself."""
    text = str(path)
    return (path,) if SEPARATOR not in text else tuple(map(Path, text.split(SEPARATOR)))


def shown_path(path: Path | str) -> str:
    """Return a path for a message: the files of a sample are separated by `` + ``."""
    return str(path).replace(SEPARATOR, " + ")


def may_be_stacks(paths: Iterable[Path]) -> bool:
    """Return whether some paths name several files."""
    return any(SEPARATOR in str(path) for path in paths)


def may_be_channels(paths: Iterable[Path]) -> bool:
    """Return whether some files may have other channels than those of color."""
    return any(SEPARATOR in (text := str(path)) or text.lower().endswith(_OTHER) for path in paths)


def join_contents(contents: Sequence[bytes]) -> bytes:
    """Return the contents of the files of a sample in one piece."""
    return b"".join([_MARK, struct.pack(f">{len(contents) + 1}Q", len(contents), *map(len, contents)), *contents])


def is_stack(start: bytes) -> bool:
    """Return whether bytes are the start of the contents of several files."""
    return start.startswith(_MARK)


def split_contents(data: bytes) -> tuple[bytes, ...] | None:
    """Return the contents of the files of a sample from one piece; None if `data` is that of one file.

    Raises
    ------
    ValueError : the piece is damaged.
    """
    if not is_stack(data):
        return None
    start = len(_MARK) + 8
    count = int.from_bytes(data[start - 8 : start], "big")
    if start + 8 * count > len(data):
        raise ValueError("a stack of files is cut off")
    sizes = struct.unpack_from(f">{count}Q", data, start)
    ends = list(accumulate(sizes, initial=start + 8 * count))
    if ends[-1] != len(data):
        raise ValueError("a stack of files is cut off")
    return tuple(data[at:end] for at, end in pairwise(ends))
