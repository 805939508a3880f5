"""Check that a machine of a cluster sees the files and folders of a job.

A path that exists on another machine may be a different file there, e.g. in a local ``/data``. So each output folder
gets a marker file with a random name for each command, and input files are compared by size and hash.
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

_EDGE = 1 << 16  # bytes at the start and at the end of a file; archives of weights have their checksums there


@contextlib.contextmanager
def mark_folders(jobs: Sequence[Job], token: str) -> Iterator[None]:
    """Keep a marker file in every output folder of the jobs while the block runs.

    The caller holds the locks of the runs, so the marker files of killed commands are removed.

    Raises
    ------
    EnsembleError : a folder cannot be written.
    """
    runs = {mark: job.run for job in jobs for mark in _marks(job, token)}
    try:
        for mark, run in runs.items():
            remove_marks(run, mark.parent)
            write_atomic(mark, "")
        yield
    finally:
        for mark in runs:
            with contextlib.suppress(OSError):
                mark.unlink()


def remove_marks(run: str, *folders: Path) -> None:
    """Remove the marker files that killed commands left for a run in these folders; the caller holds its lock."""
    for folder in folders:
        remove_stale_temporaries(folder, f"{run}.shared-")


def file_manifest(job: Job, token: str) -> dict[str, Any]:
    """Return the files that a machine must see to train the job, as plain values.

    The format is ``{"marks": [path, …], "files": {path: [bytes, hash]}}``.

    Raises
    ------
    EnsembleError : a file that the job reads cannot be read here.
    """
    files: dict[str, list[Any]] = {}
    for path in job.reads:
        try:
            files[path] = _fingerprint(path)
        except OSError as error:
            hint = "the file existed when the command started; run it again with `resume=True`"
            raise EnsembleError(
                f"{job.title}: cannot read {path}: {os.strerror(error.errno or 0).lower()}", hint=hint
            ) from None
    return {"marks": [str(mark) for mark in _marks(job, token)], "files": files}


def missing_here(manifest: dict[str, Any]) -> list[str]:
    """Return the differences between a manifest and this machine, a line per path: ``does not see runs/swin``."""
    problems: list[str] = []
    for mark in map(Path, manifest["marks"]):
        if not mark.exists():
            problems.append(f"does not see {mark.parent}")
        elif not os.access(mark.parent, os.W_OK):
            problems.append(f"cannot write to {mark.parent}")
    for path, (expected_size, expected_hash) in manifest["files"].items():
        try:
            size, content_hash = _fingerprint(path)
        except FileNotFoundError:
            problems.append(f"does not see {path}")
        except OSError as error:
            problems.append(f"cannot read {path}: {os.strerror(error.errno or 0).lower()}")
        else:
            if size != expected_size:
                problems.append(f"has a different {path}: {size:,} bytes, expected {expected_size:,}")
            elif content_hash != expected_hash:
                problems.append(f"has a different {path}: same size, different content")
    return problems


def _marks(job: Job, token: str) -> list[Path]:
    # Named like temporary files, so that the clean-up of stale temporary files removes them as well.
    return [Path(folder) / f".{job.run}.shared-{token}.tmp" for folder in job.writes]


def _fingerprint(path: str) -> list[Any]:
    """Return the size in bytes and the SHA-256 of the first and last 64 KiB; reading large files is too slow."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        first = file.read(_EDGE)
        file.seek(max(0, size - _EDGE))
        return [size, sha256_bytes(first + file.read(_EDGE))]
