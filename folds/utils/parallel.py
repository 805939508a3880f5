"""Cores, threads, and the root of the source: what running things side by side needs."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import folds
from folds.utils.progress import Advance

_CGROUP = Path("/sys/fs/cgroup")


def cpu_count() -> int:
    """Return how many CPU cores this process may use: those of its affinity mask, and no more than a container allows.

    What ``joblib.cpu_count`` says, whose import takes as long as numpy's: a blend asks before it reads its first file.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _container_limit())))


def _container_limit() -> float:
    """Return the cores that the control group of a container grants (version 2, else 1); infinity where nothing limits
    them.
    """
    try:
        if (_CGROUP / "cpu.max").exists():
            quota, period = (_CGROUP / "cpu.max").read_text().split()
        else:
            quota, period = (
                (_CGROUP / "cpu" / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period")
            )
        return int(quota) / int(period) if quota != "max" and int(quota) > 0 < int(period) else math.inf
    except (OSError, ValueError):
        return math.inf


def source_root() -> Path:
    """Return the folder that holds the packages, which a process of its own needs on its path when they are not
    installed.
    """
    return Path(folds.__file__).resolve().parent.parent


Result = TypeVar("Result")


_BLOCK = 8  # images a thread takes at a time


def map_threads(
    task: Callable[[int], Result], count: int, threads: int | None, progress: Advance | None
) -> list[Result]:
    """Return ``[task(0), …, task(count - 1)]``, computed in threads (Pillow decodes outside Python's lock).

    When a task raises, or the user interrupts, what is running ends first: nothing works on after this returns.
    """
    results: list[Result] = []
    pool = ThreadPoolExecutor(max_workers=threads or cpu_count())
    with warnings.catch_warnings():  # Pillow's remarks about metadata would print one line a file
        warnings.simplefilter("ignore")
        try:
            for done in pool.map(
                lambda start: [task(at) for at in range(start, min(start + _BLOCK, count))], range(0, count, _BLOCK)
            ):
                results += done
                if progress is not None:
                    progress(len(results), count)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return results
