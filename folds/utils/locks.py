"""Lock files and folders between processes.

All locks are ``flock``. The package filelock is no substitute: it locks a path and not an open file (as the ledger and
a cache under construction need); its older versions empty the file on opening, which loses the process id and machine
for the message; its newer versions fall back to a file that outlives a killed process on disks without locks. Its
version is also determined by torch, which requires it.

A lock file is removed when it is released, so none lies about. A process that has opened the file before it was removed
would then lock a file that no other process finds; therefore a lock counts only if its file is still the one of that
path, and is taken again otherwise. Earlier versions lock the same paths and leave the files: while such a process runs,
it holds the file, which is then neither removed nor locked here.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from folds.errors import EnsembleError, ResourceLockedError
from folds.utils.files import cannot_write, make_folder

_FRESH_SECONDS = 60.0


def try_lock(file: int | IO[Any], wait: bool = False) -> bool | None:
    """Lock an open file until it is closed or its process ends.

    Parameters
    ----------
    file : a file object or a descriptor.
    wait : wait until the present holder has released it.

    Returns
    -------
    True if the lock is held, False if another process (or another opening of the file) holds it, None if this disk has
    no locks.
    """
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@contextlib.contextmanager
def exclusive_lock(path: Path, what: str, wait: float = 0.0) -> Iterator[None]:
    """Hold `path` as a lock while the block runs; the system releases it when the process ends.

    The file keeps the holder's process id and machine for the error message of a second process.

    Parameters
    ----------
    what : name of the locked object in the message.
    wait : seconds to wait for another holder.

    Raises
    ------
    ResourceLockedError : another running process holds it; the message has its process id, and its machine if that is
        another one.
    EnsembleError : the file cannot be written, or the disk has no locks.
    """
    make_folder(path.parent)
    with _locked_file(path, what, time.monotonic() + wait) as file:
        file.truncate(0)
        file.write(f"{os.getpid()} {os.uname().nodename}")
        file.flush()
        try:
            yield
        finally:
            # Before it is released: a process that locks it afterwards sees that the path has no file, or another
            # one. The block may have removed the folder.
            with contextlib.suppress(OSError):
                if _is_at(file, path):
                    path.unlink()


def _locked_file(path: Path, what: str, end: float) -> IO[str]:
    """Return the file of a path, open and locked, waiting until `end`."""
    while True:
        try:
            file = open(path, "a+")  # noqa: SIM115 - the caller closes it
        except OSError as error:
            raise cannot_write(path, error) from None
        try:
            held = try_lock(file)
            if held and _is_at(file, path):
                return file
            if held is None:
                raise EnsembleError(
                    f"{path} cannot be locked: its disk has no file locks, so two processes could write {what} at once",
                    hint="work in a folder on another disk",
                )
            if held is False and time.monotonic() >= end:
                raise _locked_error(file, what)
        except BaseException:
            file.close()
            raise
        file.close()
        if held is False:
            time.sleep(0.1)


def _is_at(file: IO[Any], path: Path) -> bool:
    """Return whether an open file is still the one of this path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def remove_stale_locks(folder: Path) -> None:
    """Remove the lock files that no process holds: of killed processes, and of earlier versions, which left them.

    A file of the last minute stays: its process may have opened it and not locked it yet.
    """
    for path in folder.glob(".*.lock"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime < _FRESH_SECONDS:
                continue
            with open(path, "a+") as file:
                if try_lock(file) and _is_at(file, path):
                    path.unlink()


def _locked_error(file: IO[str], what: str) -> ResourceLockedError:
    """Return the error that names the holder, read from the lock file."""
    file.seek(0)
    pid, _, machine = file.read().strip().partition(" ")
    holder = f"process {pid}" if pid else "another process"
    on_machine = f" on {machine}" if machine not in ("", os.uname().nodename) else ""
    return ResourceLockedError(
        f"{what} is in use by {holder}{on_machine}",
        hint="wait until it has finished, or stop it and continue with `resume=True`",
    )
