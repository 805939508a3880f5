"""How many cores there are for threads."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """CPU cores this process may use: those of its affinity mask, where the system has one. Standard library only, so that a blend starts at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
