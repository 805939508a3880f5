"""Locks between processes: who works on a file or folder, and who waits."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from folds.errors import ResourceLockedError
from folds.utils.files import cannot_write, make_folder


@contextlib.contextmanager
def exclusive_lock(path: Path, what: str, wait: float = 0.0) -> Iterator[None]:
    """Hold `path` as a lock while the block runs; the system releases it when the process dies.

    Parameters
    ----------
    wait : seconds to wait for another holder to leave.

    Raises
    ------
    Busy : another living process holds it; its process id is named, and its machine where that is another one.
    EnsembleError : it cannot be written.
    """
    import fcntl

    make_folder(path.parent)
    end = time.monotonic() + wait
    try:
        opened = open(path, "a+")  # noqa: SIM115 - only its opening may fail in this way, not what is done under the lock
    except OSError as error:
        raise cannot_write(path, error) from None
    with opened as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() < end:
                    time.sleep(0.1)
                    continue
                file.seek(0)
                pid, _, machine = file.read().strip().partition(" ")
                holder = f"process {pid}" if pid else "another process"
                where = f" on {machine}" if machine not in ("", os.uname().nodename) else ""
                hint = "wait until it has finished, or stop it and go on with --resume"
                raise ResourceLockedError(f"{what} is in use by {holder}{where}", hint=hint) from None
        file.truncate(0)
        file.write(f"{os.getpid()} {os.uname().nodename}")
        file.flush()
        yield
