"""Whether a machine sees what a job reads and writes: marks in its folders, fingerprints of its files.

A path that exists on another machine need not be the same file there: each has a ``/data`` of its own. So the folders
that are written to hold a mark whose name is drawn anew for each command, and the files that are read are compared.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from folds.errors import EnsembleError
from folds.training.job import Job
from folds.utils.files import remove_stale_temporaries, sha256_bytes, write_atomic

_EDGE = (
    1 << 16
)  # bytes at the beginning and the end of a file; archives of weights have the sums of all their parts there


@contextlib.contextmanager
def mark_folders(jobs: Sequence[Job], token: str) -> Iterator[None]:
    """Keep a mark in every folder that the jobs write to while the block runs.

    The caller holds the locks of the jobs' runs: marks that a command which was killed has left under them are removed.

    Raises
    ------
    EnsembleError : a folder cannot be written.
    """
    runs = {mark: job.run for job in jobs for mark in _marks(job, token)}
    try:
        for mark, run in runs.items():
            remove_stale_temporaries(mark.parent, f"{run}.shared-")
            write_atomic(mark, "")
        yield
    finally:
        for mark in runs:
            with contextlib.suppress(OSError):
                mark.unlink()


def file_manifest(job: Job, token: str) -> dict[str, Any]:
    """Return what a machine must find in order to train the job, as plain values: ``{"marks": [path, …], "files":
    {path: [bytes, hash]}}``.

    Raises
    ------
    EnsembleError : a file that the job reads cannot be read here.
    """
    files: dict[str, list[Any]] = {}
    for path in job.reads:
        try:
            files[path] = _fingerprint(path)
        except OSError as error:
            hint = "it was there when the command began; run it again with --resume"
            raise EnsembleError(
                f"{job.title}: cannot read {path}: {os.strerror(error.errno or 0).lower()}", hint=hint
            ) from None
    return {"marks": [str(mark) for mark in _marks(job, token)], "files": files}


def missing_here(proof: dict[str, Any]) -> list[str]:
    """Return what this machine lacks of a proof, one line a path: ``does not see runs/swin``; empty where it sees all
    of it.
    """
    found: list[str] = []
    for mark in map(Path, proof["marks"]):
        if not mark.exists():
            found.append(f"does not see {mark.parent}")
        elif not os.access(mark.parent, os.W_OK):
            found.append(f"may not write in {mark.parent}")
    for path, expected in proof["files"].items():
        try:
            size, content = _fingerprint(path)
        except FileNotFoundError:
            found.append(f"does not see {path}")
        except OSError as error:
            found.append(f"cannot read {path}: {os.strerror(error.errno or 0).lower()}")
        else:
            if size != expected[0]:
                found.append(f"has another {path}: {size:,} bytes, expected {expected[0]:,}")
            elif content != expected[1]:
                found.append(f"has another {path}: same size, different content")
    return found


def _marks(job: Job, token: str) -> list[Path]:
    # The name of a temporary file: whatever removes those that were left behind removes these.
    return [Path(folder) / f".{job.run}.shared-{token}.tmp" for folder in job.writes]


def _fingerprint(path: str) -> list[Any]:
    """Size in bytes, and SHA-256 of the first and last 64 KiB: all that is worth reading of gigabytes before they are
    used.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        first = file.read(_EDGE)
        file.seek(max(0, size - _EDGE))
        return [size, sha256_bytes(first + file.read(_EDGE))]
