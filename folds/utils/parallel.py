"""Count cores, map a function over threads, and find the root of the source."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import folds
from folds.utils.progress import Advance

_CGROUP = Path("/sys/fs/cgroup")


def cpu_count() -> int:
    """Return the number of CPU cores this process may use: those of its affinity mask, limited by its container.

    The result is that of ``joblib.cpu_count``, whose import takes as long as that of numpy.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _container_limit())))


def _container_limit() -> float:
    """Return the cores that the control group of a container grants (version 2, else 1); infinity without a limit."""
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


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit matrix products of this process to one thread each while the context is open.

    The many small products of a fit gain nothing from threads that wait for each other, and take several times as long
    where other programs use the cores. Fits run side by side instead.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):
        yield


def source_root() -> Path:
    """Return the folder that contains the packages; subprocesses need it on their path if the packages are not
    installed.
    """
    return Path(folds.__file__).resolve().parent.parent


Result = TypeVar("Result")
_BLOCK = 8  # calls that a thread makes at a time


def map_threads(
    task: Callable[[int], Result], count: int, threads: int | None, progress: Advance | None
) -> list[Result]:
    """Return ``[task(0), …, task(count - 1)]``, computed in threads (Pillow decodes outside Python's lock).

    If a task raises or the user interrupts, running tasks end first: no thread is active after the return.
    """
    results: list[Result] = []
    pool = ThreadPoolExecutor(max_workers=threads or cpu_count())
    with warnings.catch_warnings():  # Pillow's warnings about metadata would print one line per file
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
