"""Absolute paths of images named relative to one folder, created on access, and the suffixes of image files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.utils.csv_table import LazySequence

# The suffixes of the formats that `folds.images.decode` reads. Those of other kinds are read in folders without
# pictures: beside pictures, a .npy may be their features, and DICOM their originals.
_SUFFIXES = "jpg jpeg jpe jfif mpo png apng bmp gif tif tiff webp jp2 j2k jpc jpf jpx j2c ppm pgm pbm pnm avif avifs"
PICTURE_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split(" "))
DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
OTHER_SUFFIXES = DICOM_SUFFIXES | {".npy"}
IMAGE_SUFFIXES = PICTURE_SUFFIXES | OTHER_SUFFIXES


class ImagePaths(LazySequence):
    """Absolute paths of images named relative to one folder, created on access.

    A million `Path` objects take seconds and 300 MB, and most commands need none of them.

    Parameters
    ----------
    folder : absolute path of the folder.
    names : file of each image, relative to `folder` or absolute, as written in the table.
    """

    def __init__(self, folder: Path, names: Sequence[str] | NDArray[np.str_]) -> None:
        self.folder, self.names = folder, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return ImagePaths(self.folder, self.names[index])
        return self.folder / str(self.names[index])

    def take(self, index: Sequence[int]) -> ImagePaths:
        """Return the paths at `index`, in that order."""
        names = self.names
        return ImagePaths(self.folder, names[index] if isinstance(names, np.ndarray) else [names[i] for i in index])

    def texts(self) -> Iterator[str]:
        """Yield ``str(path)`` of each path."""
        if self._as_spelled():
            folder = str(self.folder).rstrip("/") + "/"
            for names in self._parts():
                yield from (name if name.startswith("/") else folder + name for name in names)
        else:
            yield from map(str, self)

    def keys(self) -> Sequence[str]:
        """Return a text for each path; two texts are equal if and only if `normal_path` of the paths is equal."""
        absolute = sum(sum(map(str.startswith, names, repeat("/"))) for names in self._parts())
        if self._as_spelled() and absolute in (0, len(self)):
            return self.names.tolist() if isinstance(self.names, np.ndarray) else self.names
        return list(map(normal_path, self))

    def _parts(self) -> Iterator[Sequence[str]]:
        for start in range(0, len(self), 1 << 16):
            part = self.names[start : start + (1 << 16)]
            yield part.tolist() if isinstance(part, np.ndarray) else part

    def _as_spelled(self) -> bool:
        """Return whether joining names to the folder keeps their spelling: no ``//``, ``./``, ``../``, final ``/``."""
        for names in self._parts():
            text = "\n".join(["", *names, ""])
            if any(part in text for part in ("\n\n", "//", "/.", "\n.", "/\n")):
                return False
        return True


def path_texts(paths: Sequence[Path]) -> Iterator[str]:
    """Yield ``str(path)`` of each path."""
    return paths.texts() if isinstance(paths, ImagePaths) else map(str, paths)


def normal_path(path: Path) -> str:
    """Return a path with ``..`` resolved, so that one file has one spelling; links are not followed."""
    text = str(path)
    return os.path.normpath(text) if ".." in text else text
