"""Run commands and scripts in processes of their own that have imported the large libraries already.

They are forked from one process per session that has imported them, but nothing of this program: what a new Python would
need three seconds for is there, and the program itself is imported from the given path as a new Python would.
"""

from __future__ import annotations

import atexit
import gc
import json
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIBRARIES = (
    "torch",
    "torch._dynamo",
    "torchvision",
    "timm",
    "pandas",
    "sklearn.model_selection",
    "scipy.stats",
    "PIL.Image",
)


@dataclass(frozen=True)
class Called:
    """What a command left behind."""

    code: int
    out: str
    err: str


class Forked:
    """A running ``python -m MODULE …`` or ``python SCRIPT …``; what it prints goes to files.

    Parameters
    ----------
    program : name of a module, or path of a script.
    words : its arguments.
    folder : the folder it runs in.
    environment : all its variables.
    core : the only core it may use; None for all.
    """

    def __init__(
        self,
        program: str | Path,
        words: Sequence[object],
        folder: Path,
        environment: Mapping[str, str],
        core: int | None = None,
    ) -> None:
        self._printed = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._out, self._err = (Path(self._printed.name) / name for name in ("out", "err"))
        arguments = (str(program), isinstance(program, Path), [*map(str, words)], str(folder), dict(environment))
        self._process = _context().Process(target=_run, args=(*arguments, str(self._out), str(self._err), core))
        self._process.start()

    @property
    def pid(self) -> int:
        """Return the number of the process."""
        assert self._process.pid is not None
        return int(self._process.pid)

    def poll(self) -> int | None:
        """Return its exit status, negative for a signal; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, and wait for its end."""
        self._process.kill()
        self._process.join(60)

    def wait(self, seconds: float | None = None) -> Called:
        """Wait for its end, at most so long; return what it left behind."""
        self._process.join(seconds)
        assert self._process.exitcode is not None, f"it still runs; it printed {self._err.read_text()}"
        return Called(self._process.exitcode, *(path.read_text(encoding="utf-8") for path in (self._out, self._err)))


def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(LIBRARIES))
    return context


def _run(
    program: str,
    is_script: bool,
    words: list[str],
    folder: str,
    environment: dict[str, str],
    out: str,
    err: str,
    core: int | None,
) -> None:
    # As in a new process: Ctrl-C is heard, and a closed pipe or a signal has its usual effect.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, path in ((1, out), (2, err)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, errors="backslashreplace", buffering=1)
    if core is not None:
        os.sched_setaffinity(0, {core})
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    first = str(Path(program).parent.resolve()) if is_script else folder
    found = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [first, *found, *(path for path in sys.path if path not in found)]
    sys.argv = [program, *words]
    os.fsync = lambda handle: None  # no power fails in a test
    in_one_thread(setattr)
    gc.freeze()  # the libraries stay, and are not searched for what can be freed
    _Started.spare = _Spare([*found, *(path for path in sys.path[1:] if path not in found)])
    subprocess.Popen = _Started  # type: ignore[misc]
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "ensemble", "folds")]:
        del sys.modules[name]
    try:
        if is_script:
            runpy.run_path(program, run_name="__main__")
        else:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out
        sys.stdout.flush()
        sys.stderr.flush()


def in_one_thread(replace: Callable[[object, str, object], None]) -> None:
    """Let torch compute in one thread, and answer with the number that was set last.

    Parameters
    ----------
    replace : sets an attribute of a module.
    """
    import torch

    torch.set_num_threads(1)
    number = [1]

    def set_number(threads: int) -> None:
        number[0] = threads

    replace(torch, "set_num_threads", set_number)
    replace(torch, "get_num_threads", lambda: number[0])


TEMPLATE = ["-P", "-m", "folds.execution.template"]


class _Spare:
    """A copy of a process, made before it imports the program, that becomes the template of its workers if it needs one.

    It has what `subprocess.Popen` has as far as a template is concerned.

    Parameters
    ----------
    path : where the template finds modules; its working folder is not there.
    """

    def __init__(self, path: Sequence[str]) -> None:
        self._lock, self._status = threading.Lock(), None
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = os.fork()
        with theirs:
            if not self._pid:
                self._socket.close()
                self._serve(theirs, path)

    def start(self, connection: int, environment: Mapping[str, str]) -> None:
        """Make it the template that speaks through a socket."""
        message = {"environment": dict(environment), "folder": str(Path.cwd())}
        with self._socket:
            socket.send_fds(self._socket, [json.dumps(message).encode()], [connection])

    def kill(self) -> None:
        """Kill it."""
        with self._lock:
            if self._status is None:
                os.kill(self._pid, signal.SIGKILL)

    def wait(self) -> int:
        """Wait for its end; return its exit status."""
        with self._lock:
            if self._status is None:
                self._status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
            return self._status

    @staticmethod
    def _serve(connection: socket.socket, path: Sequence[str]) -> None:
        try:
            data, descriptors, *_ = socket.recv_fds(connection, 2**18, 1)
            if data:
                message = json.loads(data)
                sys.path[:] = path
                _become_template(descriptors[0], message["environment"], message["folder"])
        finally:
            os._exit(0)


class _Started(subprocess.Popen):  # type: ignore[type-arg]
    """A process as the program starts it; its first template is the spare process."""

    spare: _Spare | None = None

    def __new__(cls, command: Sequence[str], *words: Any, **more: Any) -> Any:
        if cls.spare is None or list(command[1:-1]) != TEMPLATE:
            return super().__new__(cls)
        spare, cls.spare = cls.spare, None
        spare.start(int(command[-1]), more["env"])
        return spare


def _become_template(connection: int, environment: Mapping[str, str], folder: str) -> None:
    """Be the template of workers, as a new process would: without a terminal, until the parent ends."""
    os.setsid()
    for target in range(3):
        os.dup2(os.open(os.devnull, os.O_RDWR), target)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["template", str(connection)]
    runpy.run_module(TEMPLATE[-1], run_name="__main__", alter_sys=True)


class ForkedTemplate:
    """The template of the workers of this process, started as `subprocess.Popen` starts it, but as a copy of the process
    that has imported the libraries.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], **other: Any) -> None:
        assert list(command[1:-1]) == TEMPLATE
        connection = socket.socket(fileno=os.dup(int(command[-1])))
        with connection:
            arguments = (connection, dict(env), str(Path.cwd()))
            self._process = _context().Process(target=_serve_here, args=arguments, daemon=True)
            self._process.start()

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()

    def wait(self) -> None:
        """Wait for its end."""
        self._process.join()


def _serve_here(connection: socket.socket, environment: Mapping[str, str], folder: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    multiprocessing.current_process().daemon = False  # its copies may start processes
    in_one_thread(setattr)
    gc.freeze()
    found = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [*found, *(path for path in sys.path if path not in found)]
    for name in [name for name in sys.modules if name.partition(".")[0] in ("ensemble", "folds")]:
        del sys.modules[name]
    try:
        _become_template(connection.detach(), environment, folder)
    finally:
        os._exit(0)
