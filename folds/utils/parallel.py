"""How many cores there are for threads."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import folds
from folds.utils.progress import Advance


def usable_cores() -> int:
    """CPU cores this process may use: those of its affinity mask, where the system has one. Standard library only, so that a blend starts at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def source_root() -> Path:
    """The folder that holds the packages, which a process of its own needs on its path when they are not installed."""
    return Path(folds.__file__).resolve().parent.parent


Result = TypeVar("Result")


_BLOCK = 8  # images a thread takes at a time


def map_threads(
    task: Callable[[int], Result], count: int, threads: int | None, progress: Advance | None
) -> list[Result]:
    """``[task(0), …, task(count - 1)]``, computed in threads (Pillow decodes outside Python's lock).

    When a task raises, or the user interrupts, what is running ends first: nothing works on after this returns.
    """
    results: list[Result] = []
    pool = ThreadPoolExecutor(max_workers=threads or usable_cores())
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


def available_cores() -> int:
    """CPU cores this process may use (an affinity mask or container limit counts)."""
    from joblib import cpu_count

    return int(cpu_count())
