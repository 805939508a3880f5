"""Memory maps read in blocks: what has been read is let go of, so that a process stays as small as its blocks."""

from __future__ import annotations

import mmap
from typing import Any

from numpy.typing import NDArray


def let_go(values: NDArray[Any]) -> None:
    """Take the pages of a memory-mapped array off this process; they stay in the system's cache, and are mapped again when read.

    Whole arrays are not affected: a read-only map of a file can always be read again.
    """
    base: Any = values
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is not None and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
