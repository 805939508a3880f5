"""Lock files and folders between processes.

All locks are ``flock``. The package filelock is no substitute: it locks a path and not an open file (as the ledger and
a cache under construction need); its older versions empty the file on opening, which loses the process id and machine
for the message; its newer versions fall back to a file that outlives a killed process on disks without locks. Its
version is also determined by torch, which requires it.
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
    end = time.monotonic() + wait
    try:
        opened = open(path, "a+")  # noqa: SIM115 - only errors of opening are caught, not those of the block
    except OSError as error:
        raise cannot_write(path, error) from None
    with opened as file:
        while not (held := try_lock(file)):
            if held is None:
                raise EnsembleError(
                    f"{path} cannot be locked: its disk has no file locks, so two processes could write {what} at once",
                    hint="work in a folder on another disk",
                )
            if time.monotonic() >= end:
                raise _locked_error(file, what)
            time.sleep(0.1)
        file.truncate(0)
        file.write(f"{os.getpid()} {os.uname().nodename}")
        file.flush()
        yield


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
