"""Transform images in a worker process of `folds.augmentation.pool`, until the parent closes the connection.

The first message is (name of the transform, path of modules, process of the parent); then (slot, size), which is
followed by the descriptor of shared memory, and (slot, first image, (height, width, 3), seeds), which is answered with
None or the parts of an error.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

from folds.augmentation.custom import Transform, load_transform
from folds.errors import EnsembleError, UsageError
from folds.utils.shared_memory import map_array

_LONGEST = 10_000  # characters of an error
_Reply = tuple[str, str, str | None, list[str]]


def serve(connection: Any) -> None:
    """Answer the messages of the parent until it closes the connection.

    Raises
    ------
    EOFError, OSError : the parent has closed the connection.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends its workers
    name, path, parent = connection.recv()
    threading.Thread(target=_exit_with_parent, args=(connection.fileno(), parent), daemon=True).start()
    sys.path[:] = path
    transform: Transform | None = None
    failure: _Reply | None = None
    try:
        transform = load_transform(name, torch_threads=1)
    except BaseException as error:
        failure = _reply(error)
    memory: dict[int, mmap.mmap] = {}
    while True:
        slot, *rest = connection.recv()
        if len(rest) == 1:
            descriptor = _received_descriptor(connection.fileno())
            memory[slot] = mmap.mmap(descriptor, rest[0])
            os.close(descriptor)
        else:
            connection.send(failure if transform is None else _transformed(transform, memory[slot], *rest))


def _received_descriptor(connection: int) -> int:
    """Return a descriptor that the parent sends, with one byte, after a message.

    Raises
    ------
    EOFError : the parent has closed the connection.
    """
    with socket.fromfd(connection, socket.AF_UNIX, socket.SOCK_STREAM) as receiver:
        receiver.settimeout(None)  # a default timeout of the user would leave the connection non-blocking
        descriptors = socket.recv_fds(receiver, 1, 1)[1]
    if not descriptors:
        raise EOFError
    return descriptors[0]


def _transformed(
    transform: Transform, memory: mmap.mmap, first: int, shape: tuple[int, int, int], seeds: list[int]
) -> _Reply | None:
    """Transform images in place; return None, or the error."""
    height, width, channels = shape
    try:
        images = map_array(memory, first * height * width * channels, (len(seeds), *shape))
        transform.batch(images, seeds, out=images)
    except BaseException as error:
        return _reply(error)
    return None


def _reply(error: BaseException) -> _Reply:
    if isinstance(error, EnsembleError):
        kind = "UsageError" if isinstance(error, UsageError) else "EnsembleError"
        return kind, error.message[:_LONGEST], error.hint, list(error.details)
    last = "".join(traceback.format_exception_only(error))
    return type(error).__name__, (last + "".join(traceback.format_exception(error)))[:_LONGEST], None, []


def _exit_with_parent(descriptor: int, parent: int) -> None:
    """End the process when the parent has closed the connection or has ended, also in the middle of a transform."""
    closed = select.poll()
    closed.register(descriptor, getattr(select, "POLLRDHUP", 0))
    while not closed.poll(1000) and os.getppid() == parent:
        pass
    time.sleep(0.2)  # if it waits for work, it ends by itself
    os._exit(0)


if __name__ == "__main__":
    with contextlib.suppress(EOFError, OSError):
        serve(Connection(int(sys.argv[1])))
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)  # threads of the user's libraries are not waited for
