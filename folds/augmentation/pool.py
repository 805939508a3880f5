"""Run a transform of the user in processes of its own, several batches ahead; pixels travel in shared memory.

The processes wait for work on a socket and end when it is closed, so also when this process is killed. They are started
anew with exec, because torch's threads and the GPU do not survive a fork, and they import numpy and the user's module
only. A process that was killed is replaced once for a batch.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Pipe
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.augmentation.custom import Images, load_transform
from folds.errors import EnsembleError, UsageError
from folds.utils.memmap import take_rows
from folds.utils.parallel import source_root
from folds.utils.shared_memory import SharedMemory

AHEAD = 2  # batches that are transformed while the model works on the one before
_RING = AHEAD + 1  # batches whose images are held
_ENDING = 2.0  # seconds in which a process ends by itself


class TransformPool:
    """A transform that runs in worker processes; the result does not depend on the number of workers.

    One thread at a time may use it.

    Parameters
    ----------
    name : ``module:object``, which each worker loads.
    workers : number of processes; 0 uses this process, where no other thread may use random states meanwhile.
    scratch : a folder for an unnamed file, if the system has no shared memory to give.

    Attributes
    ----------
    transform : the transform, loaded in this process.

    Raises
    ------
    UsageError : an error of `load_transform`.
    EnsembleError : no process can be started.
    """

    def __init__(self, name: str, workers: int = 0, scratch: Path | None = None) -> None:
        self.transform = load_transform(name)
        self.workers, self.scratch = workers, scratch
        self.closed = False
        self._memory: list[SharedMemory | None] = [None] * _RING
        self._ring: list[_Batch | None] = [None] * _RING
        self._count = 0  # batches that were started
        self._children: list[_Child] = []
        try:
            for _ in range(workers):
                self._children.append(_Child(name))
        except OSError as error:
            self.close()
            raise self._lost() from error

    def start(self, values: NDArray[np.uint8], rows: NDArray[np.integer], seeds: Sequence[int]) -> Callable[[], Images]:
        """Begin to transform rows of images; return a function that waits for uint8 (n, height, width, 3).

        At most three batches may be under way: the images of a batch are valid until the third batch after it is
        started, which must not be before its function has returned. The function raises what `Transform.batch` raises,
        and EnsembleError if processes are killed again and again.

        Parameters
        ----------
        values : uint8 (images, height, width, 3), or joined arrays of such.
        seeds : (n,) seed of each row.
        """
        if not self.workers or not len(rows):
            return lambda: self.transform.batch(values[rows], seeds)
        batch = self._begin(values, rows)
        parts = np.array_split(np.arange(len(rows)), self.workers)
        for i, some in enumerate(parts):
            if len(some):
                # Another process gets the first part of the next batch: the first parts are the largest.
                part = _Part(batch, slice(some[0], some[-1] + 1), [seeds[row] for row in some.tolist()])
                batch.parts.append(part)
                self._children[(self._count + i) % self.workers].give(part)
        self._count += 1
        return lambda: self._finish(batch)

    def batch(self, images: Images, seeds: Sequence[int]) -> Images:
        """Return uint8 (n, height, width, 3) with each image transformed, as `Transform.batch`."""
        found = self.start(images, np.arange(len(images)), seeds)()
        return found.copy() if self.workers else found

    def abandon(self) -> None:
        """Give up the batches that are under way, for example after an error in the training."""
        for batch in self._ring:
            if batch is not None:
                batch.abandon()

    def close(self) -> None:
        """End the workers, and free the memory that is shared with them."""
        self.closed = True
        children, self._children = self._children, []
        for child in children:
            child.connection.close()  # all of them are asked to end before the first is waited for
        for child in children:
            child.end()
        for memory in self._memory:
            if memory is not None:
                memory.close()

    def __enter__(self) -> TransformPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, values: NDArray[np.uint8], rows: NDArray[np.integer]) -> _Batch:
        """Return the next batch of the ring, with its images in shared memory."""
        if self.closed:
            raise RuntimeError("the pool is closed")
        slot = self._count % _RING
        before = self._ring[slot]
        if before is not None and not before.is_abandoned and not before.is_done:
            raise RuntimeError(f"more than {_RING} batches are under way")
        if before is not None:
            self._wait_for(before)  # a worker may still write to the memory of a batch that was given up
        shape = (len(rows), *values.shape[1:])
        size = int(np.prod(shape))
        memory = self._memory[slot]
        if memory is None or memory.size < size:
            self._memory[slot] = None
            if memory is not None:
                memory.close()
            memory = self._memory[slot] = SharedMemory(size, [] if self.scratch is None else [self.scratch])
            for child in self._children:
                child.share(slot, memory)
        batch = self._ring[slot] = _Batch(slot, memory.array(shape), values, rows)
        batch.fill(slice(0, len(rows)))
        return batch

    def _finish(self, batch: _Batch) -> Images:
        """Return the images of a batch when its parts are done; raise the error of the first part that has one."""
        self._wait_for(batch)
        batch.values = None
        for part in batch.parts:
            if part.failure is not None:
                raise part.failure
        return batch.images

    def _wait_for(self, batch: _Batch) -> None:
        for part in batch.parts:
            while not part.done:
                if self.closed:
                    raise RuntimeError("the pool was closed before a batch was done")
                at = next(i for i, child in enumerate(self._children) if part in child.parts)
                if not self._children[at].receive():
                    self._replace(at)

    def _replace(self, at: int) -> None:
        """Start a worker that was killed anew, with the parts that it had; a part is tried twice."""
        lost = self._children[at]
        lost.end()
        parts = [part for part in lost.parts if not part.batch.is_abandoned]
        for part in lost.parts:
            part.done = part.batch.is_abandoned
        if parts and parts[0].retried:
            self.close()
            raise self._lost()
        try:
            child = self._children[at] = _Child(self.transform.name)
        except OSError as error:
            self.close()
            raise self._lost() from error
        for slot, memory in enumerate(self._memory):
            if memory is not None:
                child.share(slot, memory)
        for i, part in enumerate(parts):
            part.retried = i == 0 or part.retried  # the process was killed at the first one
            part.batch.fill(part.rows)  # its images may be transformed in part
            child.give(part)

    def _lost(self) -> EnsembleError:
        return EnsembleError(
            f"`transform={self.transform.name}`: a process that transforms images was killed or could not start",
            hint="usually memory was exhausted; continue with `resume=True`",
        )


@dataclass(eq=False)
class _Batch:
    """A batch under way.

    Attributes
    ----------
    slot : its place in the ring.
    images : uint8 (n, height, width, 3) in shared memory.
    values, rows : where the images come from; `values` is None if they are not needed again.
    """

    slot: int
    images: Images
    values: NDArray[np.uint8] | None
    rows: NDArray[np.integer]
    parts: list[_Part] = field(default_factory=list)
    is_abandoned: bool = False

    @property
    def is_done(self) -> bool:
        return all(part.done for part in self.parts)

    def fill(self, some: slice) -> None:
        """Gather the images of a range of the batch."""
        if self.values is not None:
            take_rows(self.values, self.rows[some], self.images[some])

    def abandon(self) -> None:
        self.is_abandoned, self.values = True, None


@dataclass(eq=False)
class _Part:
    """The part of a batch that one worker transforms."""

    batch: _Batch
    rows: slice
    seeds: list[int]
    retried: bool = False
    done: bool = False
    failure: Exception | None = None


class _Child:
    """A worker process, as seen by its parent.

    Attributes
    ----------
    parts : what it has to do, in this order.

    Raises
    ------
    OSError : the process cannot be started.
    """

    def __init__(self, name: str) -> None:
        self.parts: deque[_Part] = deque()
        self.connection, theirs = Pipe()
        path = os.pathsep.join(filter(None, [str(source_root()), os.environ.get("PYTHONPATH")]))
        with theirs:
            # A session of its own, so that only the parent receives Ctrl-C.
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "folds.augmentation.pool_worker", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,
            )
        self._send((name, list(sys.path), os.getpid()))

    def share(self, slot: int, memory: SharedMemory) -> None:
        """Let the process map the memory of a place in the ring."""
        self._send((slot, memory.size))
        # Not `send_handle`: on macOS it waits for a byte of acknowledgment, and finds replies that are pending.
        with (
            contextlib.suppress(OSError),
            socket.fromfd(self.connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as sender,
        ):
            sender.settimeout(None)  # a default timeout of the user would leave the connection non-blocking
            socket.send_fds(sender, [b"f"], [memory.descriptor])

    def give(self, part: _Part) -> None:
        """Let the process transform a part after those that it has."""
        self.parts.append(part)
        _, *shape = part.batch.images.shape
        self._send((part.batch.slot, part.rows.start, tuple(shape), part.seeds))

    def receive(self) -> bool:
        """Wait for the first part; return False if the process has ended instead."""
        try:
            reply = self.connection.recv()
        except (EOFError, OSError):
            return False
        except BaseException:  # what follows of an interrupted message could not be understood
            self.end()
            raise
        part = self.parts.popleft()
        part.done, part.failure = True, None if reply is None else _failure(*reply)
        return True

    def end(self) -> None:
        """End the process, and wait until it has ended."""
        self.connection.close()
        try:
            self.process.wait(_ENDING)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _send(self, message: tuple[Any, ...]) -> None:
        with contextlib.suppress(OSError):  # that the process has ended is noticed when its reply is waited for
            self.connection.send(message)


def _failure(kind: str, message: str, hint: str | None, details: Sequence[str]) -> Exception:
    """Return the error of a worker."""
    if kind == "UsageError":
        return UsageError(message, hint=hint)
    return EnsembleError(message, hint=hint, details=details) if kind == "EnsembleError" else RuntimeError(message)


_kept: tuple[tuple[object, ...], TransformPool] | None = None
_guard = threading.Lock()


def kept_pool(name: str, workers: int, scratch: Path | None = None) -> TransformPool:
    """Return a pool that stays when a job ends: that of the job before if it has the same transform and workers.

    Starting processes and importing the user's module take seconds, which each fold would spend again. The pool of
    another transform is closed, also if only the file of the module has changed. Do not close it; use `abandon` when a
    job ends.

    Parameters
    ----------
    name, workers, scratch : see `TransformPool`.

    Raises
    ------
    UsageError, EnsembleError : as `TransformPool`.
    """
    global _kept
    with _guard:
        key = (name, load_transform(name).sha, workers, str(Path.cwd()), os.getpid())
        if _kept is not None and _kept[0] == key and not _kept[1].closed:
            _kept[1].scratch = scratch
            return _kept[1]
        _end()
        _kept = key, TransformPool(name, workers, scratch)
        return _kept[1]


def close_kept_pool() -> None:
    """End the processes of the pool that was kept, if there is one."""
    with _guard:
        _end()


def _end() -> None:
    global _kept
    kept, _kept = _kept, None
    if kept is not None and kept[0][-1] == os.getpid():  # a copy of the process does not own the processes
        kept[1].close()


atexit.register(close_kept_pool)
