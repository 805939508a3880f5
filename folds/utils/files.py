"""Write files atomically; compute hashes and seeds."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

from folds.errors import EnsembleError
from folds.utils.bounded import read_bounded

MAX_JSON = 1 << 28  # bytes; the ids, labels and people of a million rows have a fifth of it
MAX_BRACKETS = 5_000_000
MAX_COMMAS = 10_000_000
MAX_NAME = 200  # of a run: its files have longer names, and file systems allow 255 bytes


def sha256_bytes(data: bytes | memoryview[Any]) -> str:
    """Return the hex SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the hex SHA-256 of a file's content, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_file_safe(name: str) -> bool:
    """Return whether a name is safe for one file or folder: letters, digits, ``.``, ``_`` and ``-``, and no path out of
    its folder.
    """
    return len(name) <= MAX_NAME and re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?", name) is not None


def derive_seed(*parts: object) -> int:
    """Return a 63-bit seed that depends only on `parts` (seed, run, fold, epoch, step …), not on earlier calls."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def write_atomic(path: Path, content: bytes | bytearray | str | Callable[[IO[bytes]], object]) -> Path:
    """Write a file under a temporary name beside it, fsync and rename it, so that `path` is never a partial file.

    Parameters
    ----------
    content : the bytes, the text (UTF-8), or a function that writes to the open binary file it gets.

    Raises
    ------
    EnsembleError : the folder cannot be written or the disk is full; the temporary file is removed.
    """
    path = Path(path)
    check_not_folder(path)
    watched: _Watched | None = None
    # The dot in front keeps `runs/*.npy` in a shell from matching a file that is still being written.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        make_folder(path.parent)
        _remove_of_dead_processes(path.parent)
        with open(temporary, "wb") as file:
            if callable(content):
                watched = _Watched(file)
                content(cast(IO[bytes], watched))
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        cause = error if isinstance(error, OSError) else None if watched is None else watched.error
        if cause is not None:
            raise cannot_write(path, cause) from error
        raise
    return path


_TEMPORARY = re.compile(r"\..+\.(\d+)-[0-9a-f]{8}\.tmp")
_ABANDONED_SECONDS = 600.0  # after the last write; the process may run on another machine that shares the folder
_cleaned: set[str] = set()  # folders in which this process has looked for leftovers


def _remove_of_dead_processes(folder: Path) -> None:
    """Remove temporary files of processes that were killed while they wrote; once for each folder and process."""
    key = os.path.abspath(folder)  # noqa: PTH100 - no need to resolve links
    if key in _cleaned or os.name != "posix":
        return
    _cleaned.add(key)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _TEMPORARY.fullmatch(entry.name)
            if found is None or _is_alive(int(found[1])):
                continue
            with contextlib.suppress(OSError):
                if time.time() - entry.stat().st_mtime > _ABANDONED_SECONDS:
                    Path(entry.path).unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def check_not_folder(path: Path) -> None:
    """Raise EnsembleError if `path` is a folder, where no file can be written."""
    if path.is_dir():
        raise EnsembleError(f"cannot write {path}: it is a folder", hint=f"name a file in it, such as {path / 'NAME'}")


class _Watched:
    """A file that keeps its write error, because torch turns a full disk into an error about its own archive."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def _sync_folder(folder: Path) -> None:
    # The rename itself must reach the disk; folders cannot be opened for this on every system.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def cannot_write(path: Path, error: OSError) -> EnsembleError:
    """Return the error for a file that could not be written, with a remedy."""
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = (
        "free some space and run the same command again (a training with `resume=True`); finished work is kept"
        if full
        else f"check that {path.parent} can be written"
    )
    return EnsembleError(f"cannot write {path}: {reason}", hint=hint)


def make_folder(path: Path) -> Path:
    """Create a folder and its parents unless they exist.

    Raises
    ------
    EnsembleError : there is a file of this name, or the folder cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        blocking = next(
            (candidate for candidate in (path, *path.parents) if candidate.exists() and not candidate.is_dir()), None
        )
        if blocking is not None:
            raise EnsembleError(
                f"{blocking} is a file, expected a folder", hint=f"move it away: mv {blocking} {blocking}.old"
            ) from None
        raise cannot_write(path, error) from None
    return path


def write_json(path: Path, value: Any) -> Path:
    """Write `value` as JSON, atomically; keys in the given order, a newline at the end."""
    return write_atomic(path, json_text(value))


def json_text(value: Any) -> str:
    """Return what `write_json` writes."""
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


def read_json(path: Path) -> Any:
    """Return the JSON in `path`; raise EnsembleError with the file and line if it is not JSON."""
    return parse_json(path, read_bytes(path))


def json_or_nothing(path: Path) -> dict[str, Any]:
    """Return the mapping in a JSON file; {} if there is none, or if it is damaged."""
    try:
        record = read_json(path)
    except EnsembleError:
        return {}
    return record if isinstance(record, dict) else {}


def read_bytes(path: Path) -> bytes:
    """Return the content of `path`; raise EnsembleError if it cannot be read."""
    try:
        return read_bounded(Path(path), MAX_JSON)
    except ValueError as error:
        raise EnsembleError(f"cannot read {path}: {error}", hint="expected a file that this program wrote") from None
    except OSError as error:
        raise EnsembleError(f"cannot read {path}: {os.strerror(error.errno or 0).lower()}") from None


def parse_json(path: Path, content: bytes) -> Any:
    """Return the JSON in `content`, which was read from `path`; raise EnsembleError with the line if it is not JSON."""
    try:
        # Each bracket may be a list or an object of its own, which needs 30 times its length in memory.
        if content.count(b"[") + content.count(b"{") > MAX_BRACKETS:
            raise ValueError("it has too many lists and objects")
        if content.count(b",") > MAX_COMMAS:  # each may end a value, which needs ten times its length
            raise ValueError(f"it has more than {MAX_COMMAS:,} values")
        if len(content) * (width := _bytes_per_character(content)) > MAX_JSON:
            most = f"with characters that need {width} bytes each, at most {MAX_JSON // width:,} bytes are read"
            raise ValueError(f"it has {len(content):,} bytes; {most}")
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise EnsembleError(
            f"{path} is not JSON: {error}", hint="restore the file, or remove it to continue without it"
        ) from None


_WIDE, _WIDER = re.compile(rb"[\xc4-\xff]|\\u"), re.compile(rb"[\xf0-\xff]|\\u[dD][89abAB]")


def _bytes_per_character(content: bytes) -> int:
    """Return the most bytes of a character of a text in JSON: Python stores a text at the width of its widest one."""
    return 1 if _WIDE.search(content) is None else 2 if _WIDER.search(content) is None else 4


def relocated(path: Path, before: Path, after: Path) -> Path | None:
    """Return the place of a file that was moved together with another; None if it is not there.

    Parameters
    ----------
    path : its former place.
    before, after : the former and the present place of the other, which was in the same folder or in one around it.
    """
    try:
        inside = path.relative_to(before.parent)
    except ValueError:
        return None
    found = after.parent / inside
    try:
        return found if found.exists() else None
    except OSError:
        return None


def check_not_existing(path: Path, what: str, force: bool = False) -> None:
    """Raise EnsembleError if `path` exists and `force` is not set."""
    if path.exists() and not force:
        raise EnsembleError(f"{what} {path} exists", hint="give another name, or `force=True` to replace it")


def remove(path: Path) -> None:
    """Remove a file, or a folder with its content; do nothing if it does not exist.

    Links are removed and not followed. If `path` itself is a link to a folder, the folder is emptied and the link
    stays.

    Raises
    ------
    EnsembleError : something in it cannot be removed; the rest is left unchanged.
    """

    def failed(error: OSError) -> None:
        raise error

    try:
        if not path.is_dir():
            path.unlink(missing_ok=True)
            return
        for folder, folders, names in os.walk(path, topdown=False, onerror=failed):
            for inner in (Path(folder, name) for name in (*names, *folders)):
                if inner.is_dir() and not inner.is_symlink():
                    inner.rmdir()
                else:
                    inner.unlink()
        if not path.is_symlink():
            path.rmdir()
    except OSError as error:
        location = Path(error.filename or path)
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        hint = f"ls -ld {location.parent} shows who may remove it; then run the same command again"
        raise EnsembleError(f"cannot remove {location}: {reason}", hint=hint) from None


def remove_stale_temporaries(folder: Path, name: str = "") -> None:
    """Remove the temporary files that killed processes left in `folder`: all, or those of files whose names begin with
    `name`.

    The caller must hold the lock under which these files are written.
    """
    for path in folder.glob(f".{glob.escape(name)}*.tmp"):
        with contextlib.suppress(OSError):
            path.unlink()


def is_pattern(path: Path) -> bool:
    """Return whether a path is a pattern (``runs/*.npy``): there is no such file, and it has a wildcard."""
    return any(mark in str(path) for mark in "*?[") and not path.exists()


def expand_pattern(pattern: Path) -> list[Path]:
    """Return the files that a pattern matches, sorted; patterns in quotes are not expanded by the shell."""
    root = Path(pattern.anchor)
    return sorted(path for path in root.glob(str(pattern.relative_to(root))) if path.is_file())
