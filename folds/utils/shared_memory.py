"""Share memory with other processes through a file descriptor; it has no name that could be left behind."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError
from folds.utils.files import cannot_write

_TEMPORARY = Path("the folder for temporary files")


class SharedMemory:
    """Memory that other processes can map; it is freed when the last of them has ended, however that happens.

    It is anonymous memory of the system, which is not limited by the size of ``/dev/shm`` (64 MB in many containers).
    If the system has none, it is a map of an unnamed file.

    Parameters
    ----------
    size : bytes, 1 or more.
    folders : folders for the file, besides the system's folder for temporary files.

    Attributes
    ----------
    descriptor : file descriptor to send to other processes.

    Raises
    ------
    EnsembleError : no folder has room for the file.
    """

    def __init__(self, size: int, folders: Sequence[Path] = ()) -> None:
        self.size = size
        self.descriptor = _reserved(size, folders)
        self._map = mmap.mmap(self.descriptor, size)

    def array(self, shape: Sequence[int]) -> NDArray[np.uint8]:
        """Return the first bytes as uint8 of this shape; the array stays valid after `close`."""
        return map_array(self._map, 0, shape)

    def close(self) -> None:
        """Close the descriptor; the memory is freed with its last array."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def map_array(memory: mmap.mmap, offset: int, shape: Sequence[int]) -> NDArray[np.uint8]:
    """Return bytes of a map from `offset` on as a uint8 array, which can be written."""
    return np.ndarray(tuple(shape), np.uint8, buffer=memory, offset=offset)


def _reserved(size: int, folders: Sequence[Path]) -> int:
    """Return the descriptor of the first kind of memory that has room."""
    anonymous = [None] if hasattr(os, "memfd_create") else []
    failure: EnsembleError | None = None
    for place in (*anonymous, _TEMPORARY, *folders):
        descriptor = -1
        try:
            descriptor = _open(place)
            # Reserved now, because writing to a map on a full disk kills the process without a message.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, size)
            else:
                os.ftruncate(descriptor, size)
        except OSError as error:
            if descriptor >= 0:
                os.close(descriptor)
            failure = cannot_write((place or Path("memory")) / "the images of a batch", error)
        else:
            return descriptor
    raise failure or ValueError("no place for shared memory")


def _open(place: Path | None) -> int:
    """Return the descriptor of an empty unnamed file in a folder; None for anonymous memory."""
    if place is None:
        return os.memfd_create("images")
    folder = None if place is _TEMPORARY else place
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.dup(file.fileno())
