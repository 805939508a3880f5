"""Decide the number format of a run once, although its jobs may get GPUs of different kinds."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from folds.models.precision import AMP, resolve_amp
from folds.training.job import Job
from folds.utils.files import write_atomic

_FILE = "amp.txt"


def recorded_amp(folder: Path) -> str | None:
    """Return the number format that the jobs of a run share, as the first of them recorded it; None if none did."""
    try:
        text = (folder / _FILE).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if text in AMP and text != "auto" else None


def decide_amp(job: Job) -> str:
    """Return the number format of a job: ``bf16``, ``fp16`` or ``off``.

    On a cluster ``auto`` stays open until a job has its GPU. The first job of a run decides and records it; a job that
    continues elsewhere, with a saved state of that format, follows.
    """
    if job.amp != "auto" or job.device == "cpu":
        return resolve_amp(job.amp, job.device)[0]
    folder = Path(job.folder)
    recorded = recorded_amp(folder)
    if recorded is not None:
        return recorded
    amp = resolve_amp("auto", "cuda:0" if job.device == "cuda" else job.device)[0]
    if job.device != "cuda":
        return amp
    # Written beside and linked, so that the file is complete when it appears, and only one job can create it.
    temporary = write_atomic(folder / f"{_FILE}.{secrets.token_hex(8)}", f"{amp}\n")
    try:
        os.link(temporary, folder / _FILE)
    except FileExistsError:
        return recorded_amp(folder) or amp
    except OSError:  # a drive without hard links: of two jobs that decide at once the last one wins
        if recorded_amp(folder) is None:
            write_atomic(folder / _FILE, f"{amp}\n")
        return recorded_amp(folder) or amp
    finally:
        temporary.unlink()
    return amp
