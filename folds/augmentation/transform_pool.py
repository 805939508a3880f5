"""A user's transform in processes of their own: it takes milliseconds an image, and its random states are those of a process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType

import numpy as np

from folds.augmentation.custom import Images, Transform, load_transform
from folds.errors import EnsembleError

_loaded: Transform | None = None  # of a worker


class TransformPool:
    """Batches through a transform; what comes out is the same for any number of workers.

    Parameters
    ----------
    name : ``module:object``, which each worker loads for itself.
    workers : processes; 0: this one, which then must not draw random numbers in another thread meanwhile.

    Raises
    ------
    UsageError : as `load_transform`.
    """

    def __init__(self, name: str, workers: int = 0) -> None:
        self.transform = load_transform(name)
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None
        if workers:
            # Not forked: torch's threads and the GPU do not survive it.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(name, os.getpid()))

    def batch(self, images: Images, seeds: Sequence[int]) -> Images:
        """As `Transform.batch`: uint8 (n, height, width, 3) → the same shape."""
        if self._pool is None:
            return self.transform.batch(images, seeds)
        parts = np.array_split(np.arange(len(images)), self.workers)
        try:
            sent = [self._pool.submit(_transformed, images[rows], [seeds[i] for i in rows]) for rows in parts if len(rows)]
            done = [one.result() for one in sent]
        except BrokenProcessPool as error:
            raise EnsembleError(
                f"--transform {self.transform.name}: a process that transforms images was ended from outside or could not start",
                hint="out of memory is the usual reason; go on with --resume",
            ) from error
        return np.concatenate(done) if done else images.copy()

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> TransformPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _begin(name: str, parent: int) -> None:
    global _loaded
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; it ends its workers
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _loaded = load_transform(name)


def _end_with(parent: int) -> None:
    # However the parent dies: a worker that waits for work does not notice it.
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _transformed(images: Images, seeds: Sequence[int]) -> Images:
    if _loaded is None:
        raise RuntimeError("a worker without a transform")
    return _loaded.batch(images, seeds)
