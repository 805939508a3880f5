"""Start workers as copies of a process that has imported the libraries already (Linux, workers on the CPU).

Importing torch and timm takes seconds of a core. A worker of its own would spend them again, for each slot and after
each crash; a copy (``fork``) has everything at once and shares the memory. The process that is copied, the template,
runs no thread and never computes, because a copy has only the thread that made it. Copies are not used for GPUs: CUDA
does not survive a fork.

The parent sends a message with three file descriptors for each copy (standard input, output and error), and receives
the number of the process and, later, its exit status. The template ends when the parent ends, or when it was not needed
for a minute.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

_IDLE_SECONDS = 60.0
_MESSAGE_BYTES = 2**18
# Variables that differ without a difference for what is imported; a copy gets its own values of them.
_OF_A_COPY = {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS"}
# Set by torch when it is imported; the template was started before, so it would count as one with other variables.
_OF_A_COPY |= {"TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"}
_OF_A_COPY |= {"PWD", "OLDPWD", "SHLVL", "_", "COLUMNS", "LINES", "PYTEST_CURRENT_TEST"}


class Copy:
    """A worker process that was copied, with the interface of `subprocess.Popen`."""

    def __init__(self, template: Template, number: int, stdin: IO[str], stdout: IO[str]) -> None:
        self.stdin, self.stdout = stdin, stdout
        self.returncode: int | None = None
        self._template, self._number = template, number
        self._pid = 0
        self._started, self._ended = threading.Event(), threading.Event()

    @property
    def pid(self) -> int:
        """Return the number of the process, once it exists; 0 if the template has ended before."""
        self._started.wait()
        return self._pid

    @property
    def has_existed(self) -> bool:
        """Return whether the process was made."""
        return self._pid > 0

    def poll(self) -> int | None:
        """Return the exit status; None while the process runs."""
        return self.returncode

    def wait(self) -> int:
        """Wait for the end and return the exit status; 1 if it is unknown, because the template has ended."""
        self._ended.wait()
        if self.returncode is None:
            self.returncode = 1
        return self.returncode

    def kill(self) -> None:
        """Kill the process; without the template, which knows whether it still runs, end its standard input.

        A process that does not exist yet, because the template still imports, counts as killed.
        """
        if not self._template.send({"kill": self._number}):
            with contextlib.suppress(OSError, ValueError):
                self.stdin.close()
        if not self._started.is_set():
            self.hear({"status": -signal.SIGKILL})

    def hear(self, message: Mapping[str, Any] | None) -> None:
        """Note a message of the template about this process; None when the template has ended."""
        if message is not None and "pid" in message:
            self._pid = int(message["pid"])
        if message is not None and "status" in message:
            self.returncode = int(message["status"])
        self._started.set()
        if message is None or "status" in message:
            self._ended.set()


class Template:
    """The process that is copied, as seen by the parent.

    Parameters
    ----------
    environment : its environment variables.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.key, self._owner = _key(environment), os.getpid()
        self._copies: dict[int, Copy] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "folds.execution.template", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=dict(environment) | {name: "1" for name in _OF_A_COPY if name in environment and "THREADS" in name},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self.lost = False
        threading.Thread(target=self._listen, daemon=True).start()

    def copy(self, environment: Mapping[str, str], stderr: IO[bytes]) -> Copy:
        """Return a new worker process, which may still be starting.

        Raises
        ------
        OSError : the template has ended, or the message is too long.
        """
        read_in, write_in = os.pipe()
        read_out, write_out = os.pipe()
        number = next(self._numbers)
        stdin, stdout = os.fdopen(write_in, "w", encoding="utf-8"), os.fdopen(read_out, encoding="utf-8")
        copy = Copy(self, number, stdin, stdout)
        message = {"copy": number, "environment": dict(environment), "folder": str(Path.cwd())}
        try:
            with self._lock:
                if self.lost:
                    raise BrokenPipeError("the template has ended")
                self._copies[number] = copy
                socket.send_fds(self._socket, [json.dumps(message).encode()], [read_in, write_out, stderr.fileno()])
        except OSError:
            with self._lock:
                self._copies.pop(number, None)
            copy.stdin.close()
            copy.stdout.close()
            raise
        finally:
            os.close(read_in)
            os.close(write_out)
        return copy

    def send(self, message: Mapping[str, Any]) -> bool:
        """Send a message; return whether the template still lives."""
        with self._lock, contextlib.suppress(OSError):
            if not self.lost:
                self._socket.send(json.dumps(message).encode())
        return not self.lost

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._socket.recv(_MESSAGE_BYTES):
                message = json.loads(data)
                with self._lock:
                    ends = "status" in message
                    copy = self._copies.pop(message["copy"], None) if ends else self._copies.get(message["copy"])
                if copy is not None:
                    copy.hear(message)
        with self._lock:
            self.lost = True
            self._socket.close()
            left = list(self._copies.values())
        for copy in left:
            copy.hear(None)
        self._process.wait()

    def serves(self, environment: Mapping[str, str]) -> bool:
        """Return whether it can make workers of this process with these variables."""
        return not self.lost and self._owner == os.getpid() and self.key == _key(environment)

    def end(self) -> None:
        """End the template at once, unless it belongs to a process that this one is a copy of.

        Its copies end with their standard input.
        """
        if not self.lost and self._owner == os.getpid():
            self._process.kill()
            self._process.wait()


_template: Template | None = None
_guard = threading.Lock()


def warm_up(environment: Mapping[str, str]) -> None:
    """Start the template, if this system has any use for it, so that it imports while the caller works."""
    with contextlib.suppress(OSError):
        _current(environment)


def copy_worker(environment: Mapping[str, str], stderr: IO[bytes]) -> Copy | None:
    """Return a new worker process with these environment variables; None if this system cannot copy processes."""
    for _ in range(2):  # a template that was not needed for a while may just have ended
        try:
            template = _current(environment)
            return None if template is None else template.copy(environment, stderr)
        except OSError:
            continue
    return None


def _current(environment: Mapping[str, str]) -> Template | None:
    """Return the template for workers with these variables; a new one if there is none."""
    global _template
    if sys.platform != "linux":
        return None
    with _guard:
        if _template is None or not _template.serves(environment):
            if _template is None:
                atexit.register(_end)
            # An earlier template ends when its copies have ended and it was not needed for a minute.
            _template = Template(environment)
        return _template


def _end() -> None:
    if _template is not None:
        _template.end()


def _key(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in _OF_A_COPY}


def main(connection: socket.socket) -> None:
    """Import the libraries, then make copies until the parent ends or none was needed for a while."""
    import selectors

    from folds.utils.startup import lasting_imports

    # Objects that the collector of a copy never touches are not duplicated in its memory either.
    with lasting_imports():
        import timm.utils
        import torch._dynamo  # every optimizer imports it

        import folds.features.train
        import folds.training.versions

        del timm, torch, folds
    wake, woken = socket.socketpair()
    woken.setblocking(False)
    signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    running: dict[int, int] = {}  # number of the copy → process
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        selector.register(wake, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select(_IDLE_SECONDS)}
            if wake in ready:
                wake.recv(4096)
            _reap(connection, running)
            if connection in ready:
                data, descriptors, *_ = socket.recv_fds(connection, _MESSAGE_BYTES, 3)
                if not data:
                    return
                _obey(json.loads(data), descriptors, connection, running)
            elif not ready and not running:
                return


def _reap(connection: socket.socket, running: dict[int, int]) -> None:
    """Tell the parent which copies have ended."""
    for number, pid in list(running.items()):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            del running[number]
            _tell(connection, {"copy": number, "status": os.waitstatus_to_exitcode(status)})


def _obey(
    message: Mapping[str, Any], descriptors: list[int], connection: socket.socket, running: dict[int, int]
) -> None:
    """Make or kill a copy."""
    if "kill" in message:
        if message["kill"] in running:
            os.kill(running[message["kill"]], signal.SIGKILL)
        return
    number = message["copy"]
    try:
        if len(list(Path("/proc/self/task").iterdir())) > 1:
            raise OSError("a library has started a thread, whose locks a copy could not release")
        pid = os.fork()
    except OSError:
        _tell(connection, {"copy": number, "status": 1})
    else:
        if not pid:
            _become_worker(message, descriptors, connection)
        running[number] = pid
        _tell(connection, {"copy": number, "pid": pid})
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _tell(connection: socket.socket, message: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the parent has ended, which the next read shows
        connection.send(json.dumps(message).encode())


def _become_worker(message: Mapping[str, Any], descriptors: list[int], connection: socket.socket) -> None:
    """Serve jobs in a copy; it never returns to the loop of the template."""
    import traceback

    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for target, descriptor in enumerate(descriptors):
            os.dup2(descriptor, target)
        connection.close()
        os.environ.clear()
        os.environ.update(message["environment"])
        os.chdir(message["folder"])
        from folds.execution.serve import serve

        serve()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
