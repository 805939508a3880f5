"""Locks between processes: who works on a file or folder, and who waits.

All of them are ``flock``. The package filelock was tried in its place and cannot be it: it locks a path and not a file
that is
open already (the ledger's, a cache under construction), its older versions empty the file on opening, and with it the
process id and the machine that the message names, and its newer ones fall back to a file that outlives a killed process
where a disk has no locks. It comes with torch in whatever version torch asks for.
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
    """Lock an open file until it is closed or its process dies.

    Parameters
    ----------
    file : a file object or a descriptor.
    wait : return only when another holder has left.

    Returns
    -------
    True: it is held. False: another process (or another opening of the file) holds it. None: this disk has no locks.
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
    """Hold `path` as a lock while the block runs; the system releases it when the process dies.

    The file keeps the holder's process id and machine, for the message of who comes second.

    Parameters
    ----------
    what : what is locked, as the message calls it.
    wait : seconds to wait for another holder to leave.

    Raises
    ------
    ResourceLockedError : another living process holds it; its process id is named, and its machine where that is
        another one.
    EnsembleError : it cannot be written, or the disk has no locks.
    """
    make_folder(path.parent)
    end = time.monotonic() + wait
    try:
        opened = open(path, "a+")  # noqa: SIM115 - only its opening may fail in this way, not what is done under the lock
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
    """Return the error that names the holder from what it has written into the lock's file."""
    file.seek(0)
    pid, _, machine = file.read().strip().partition(" ")
    holder = f"process {pid}" if pid else "another process"
    where = f" on {machine}" if machine not in ("", os.uname().nodename) else ""
    return ResourceLockedError(
        f"{what} is in use by {holder}{where}", hint="wait until it has finished, or stop it and go on with --resume"
    )
