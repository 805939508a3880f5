"""Open an exported model, a folder or a ``.zip``, within limits: only known names, no links, nothing compressed."""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from folds.errors import EnsembleError, printable
from folds.utils.bounded import read_bounded

RECORD, CARD, EXPECTED, ONNX, WEIGHTS = "model.toml", "README.md", "expected.npz", "model.onnx", "weights"
COEFFICIENTS = "blend.npy.gz"  # of a combination with thousands of them
_NAME = re.compile(
    rf"{re.escape(RECORD)}|{CARD}|{re.escape(EXPECTED)}|{re.escape(ONNX)}|{re.escape(COEFFICIENTS)}|"
    rf"{WEIGHTS}/[A-Za-z0-9_][A-Za-z0-9._-]{{0,150}}\.safetensors",
    re.ASCII,
)
MAX_FILES = 10_000
_MAX_DIRECTORY = 4 << 20  # bytes of the table of contents of an archive
EXPORT_AGAIN = "get the model again from where it came, or export it again"


def is_part(name: str) -> bool:
    """Return whether a name can be a file of a model; it has no ``..`` and is not absolute."""
    return _NAME.fullmatch(name) is not None


class Parts(Protocol):
    """The files of a model.

    Attributes
    ----------
    path : the folder or the archive.
    sizes : name → bytes.
    """

    path: Path
    sizes: dict[str, int]

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises
        ------
        EnsembleError : it cannot be read, or its size is not that in `sizes`.
        """


class _Folder:
    def __init__(self, path: Path) -> None:
        self.path, self.sizes = path, {}
        for name, entry in _entries(path):
            mode = entry.lstat().st_mode
            if stat.S_ISLNK(mode):
                raise refused(path, f"{name} is a link, which could lead anywhere", "copy the file itself: cp -L")
            if not is_part(name):
                raise refused(
                    path, f"{name} is not a part of a model", f"expected only {_listed()}; move it out of the folder"
                )
            if not stat.S_ISREG(mode):
                raise refused(path, f"{name} is not a regular file")
            self.sizes[name] = entry.lstat().st_size

    def read(self, name: str) -> bytes:
        return _of_size(self.path, name, self.sizes[name], lambda: read_bounded(self.path / name, self.sizes[name]))


class _Archive:
    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path, self.archive = path, archive
        self.sizes = {one.filename: one.file_size for one in archive.infolist() if not one.is_dir()}

    def read(self, name: str) -> bytes:
        def content() -> bytes:
            with self.archive.open(name) as file:
                return file.read(self.sizes[name])

        return _of_size(self.path, name, self.sizes[name], content)


@contextmanager
def open_parts(path: Path) -> Iterator[Parts]:
    """Open the folder or the ``.zip`` of a model; close it at the end.

    Raises
    ------
    EnsembleError : it does not exist, or holds something that is not a part of a model.
    """
    if path.is_dir():
        yield _Folder(path)
        return
    if not path.is_file():
        raise EnsembleError(f"there is no model {path}", hint="ensemble export BLEND -o model/ writes one")
    with path.open("rb") as file, open_zip(file, path, lambda name: is_part(name) or name == f"{WEIGHTS}/") as archive:
        yield _Archive(path, archive)


@contextmanager
def open_zip(file: IO[bytes], path: Path, known: object, most: int = MAX_FILES) -> Iterator[zipfile.ZipFile]:
    """Open an archive whose entries all have a known name; nothing in it is compressed, repeated, a link or encrypted.

    Parameters
    ----------
    path : name in errors.
    known : function (name → bool), or the names.

    Raises
    ------
    EnsembleError : it is not such an archive.
    """
    length = file.seek(0, io.SEEK_END)
    size = _directory_size(file, length)
    if size is None:
        raise refused(path, "it is not a zip archive")
    if size > _MAX_DIRECTORY:
        raise refused(path, f"its table of contents has {size:,} bytes, at most {_MAX_DIRECTORY:,} are read")
    file.seek(0)
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, ValueError) as error:
        raise refused(path, f"its archive is damaged: {printable(str(error))}") from None
    with archive:
        _check_entries(archive.infolist(), path, known, most, length)
        yield archive


def _check_entries(entries: list[zipfile.ZipInfo], path: Path, known: object, most: int, length: int) -> None:
    """Raise EnsembleError for an entry that could lie about its size, its name or its place."""
    if len(entries) > most:
        raise refused(path, f"it has {len(entries):,} files, at most {most:,} are read")
    seen: set[str] = set()
    for one in entries:
        name = one.filename
        shown = printable(name)[:100]
        is_known = known(name) if callable(known) else name in known if isinstance(known, Collection) else False
        if one.orig_filename != name or not is_known:
            raise refused(path, f"'{shown}' is not a part of a model", f"expected only {_listed()}, at the top")
        if name in seen:
            raise refused(path, f"it has two files named '{shown}'")
        seen.add(name)
        if stat.S_ISLNK(one.external_attr >> 16):
            raise refused(path, f"{shown} is a link, which could lead anywhere")
        if one.flag_bits & 1:
            raise refused(path, f"{shown} is encrypted")
        if one.compress_type != zipfile.ZIP_STORED or one.file_size != one.compress_size:
            raise refused(path, f"{shown} is compressed, so its size is not known", "unpack it, and load the folder")
    if sum(one.file_size for one in entries) > length:
        raise refused(path, "its files overlap")


def _directory_size(file: IO[bytes], length: int) -> int | None:
    """Return the bytes of the table of contents, as the end of the archive says; None if there is no such end.

    An archive of more than 4 GiB has a second end (ZIP64) with a locator that states its place. Versions of `zipfile`
    differ in whether they read it there or directly before the locator, so the two must be one place.
    """
    tail_length = min(length, 56 + 20 + 22 + 65_535)
    file.seek(length - tail_length)
    tail = file.read(tail_length)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        return None
    if at < 20 or tail[at - 20 : at - 16] != b"PK\x06\x07":
        return int(struct.unpack_from("<L", tail, at + 12)[0])
    further, place = at - 20 - 56, struct.unpack_from("<Q", tail, at - 12)[0]
    if further < 0 or tail[further : further + 4] != b"PK\x06\x06" or place != length - tail_length + further:
        return None
    return int(struct.unpack_from("<Q", tail, further + 40)[0])


def _entries(path: Path) -> Iterator[tuple[str, Path]]:
    """Yield (name, path) of the files of a folder; names that begin with a dot (``.git``) are left out."""
    count = 0
    for folder, prefix in ((path, ""), (path / WEIGHTS, f"{WEIGHTS}/")):
        if prefix and folder.is_symlink():
            raise refused(path, f"{WEIGHTS} is a link, which could lead anywhere")
        if not folder.is_dir():
            continue
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda one: one.name):
                count += 1
                if count > MAX_FILES:
                    raise refused(path, f"it has more than {MAX_FILES:,} files")
                if not prefix and (entry.name == WEIGHTS or entry.name.startswith(".")):
                    continue
                yield printable(prefix + entry.name), Path(entry.path)


def _of_size(path: Path, name: str, size: int, read: object) -> bytes:
    try:
        content: bytes = read()  # type: ignore[operator]
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise refused(path, f"{name} cannot be read: {printable(str(error))}") from None
    if len(content) != size:
        raise refused(path, f"{name} has {len(content):,} bytes, expected {size:,}")
    return content


def _listed() -> str:
    return f"{RECORD}, {CARD}, {EXPECTED}, {ONNX}, {COEFFICIENTS} and {WEIGHTS}/*.safetensors"


def refused(path: Path, reason: str, hint: str = EXPORT_AGAIN) -> EnsembleError:
    """Return the error for a model that is not loaded."""
    return EnsembleError(f"{path} was not loaded: {reason}", hint=hint)
