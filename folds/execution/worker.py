"""Start, use and end a worker process (`folds.execution.serve`), as seen by its parent.

A worker is reused, so imports and compilation happen once instead of once per fold. Each slot has a process of its own,
so a killed process affects only its own job.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from typing import IO, Any

from folds.errors import EnsembleError
from folds.execution.template import Copy, copy_worker, warm_up
from folds.models.memory import DeviceSharedError, allocator_variables
from folds.utils.parallel import source_root


class WorkerDied(Exception):
    """The worker process ended during a job; the message has its exit status and the last line of its stderr."""


Process = subprocess.Popen[str] | Copy


def worker_environment(threads: int) -> dict[str, str]:
    """Return the environment variables of a worker."""
    variables = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    # Several processes that each start a compiler for every core would stop the machine.
    variables["TORCHINDUCTOR_COMPILE_THREADS"] = str(threads)
    variables |= allocator_variables()
    # Idle threads sleep instead of spinning, which would slow down other processes on the same cores.
    variables["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
    path = os.pathsep.join(filter(None, [str(source_root()), os.environ.get("PYTHONPATH")]))
    return {**os.environ, **variables, "PYTHONPATH": path}


class Worker:
    """A worker process, as seen by the parent; it is started with the first job.

    Parameters
    ----------
    threads : CPU threads for numerical libraries.
    variables : further environment variables of the process, such as the GPU that it sees.
    """

    def __init__(self, threads: int, variables: Mapping[str, str] | None = None) -> None:
        self.threads = threads
        self.variables = dict(variables or {})
        self.process: Process | None = None
        self.stderr: IO[bytes] | None = None
        self.lock = threading.Lock()
        self.stopped = False
        self.may_copy = not self.variables  # a process that sees one GPU is started for it
        self.running = False  # whether a thread reads the events of a job

    @property
    def pid(self) -> int | None:
        """Return the number of the process; None before the first job."""
        return None if self.process is None else self.process.pid

    @classmethod
    def warm_up(cls) -> None:
        """Let workers on the CPU start faster later, in the background."""
        warm_up(worker_environment(1))

    def _start(self) -> Process:
        environment = worker_environment(self.threads) | self.variables
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process runs
        copy = copy_worker(environment, self.stderr) if self.may_copy else None
        if copy is not None:
            return copy
        # -P: a module that lies in the working folder must not shadow one of the libraries.
        # A session of its own, so that only the parent receives Ctrl-C and handles the jobs.
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "folds.execution.serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            encoding="utf-8",
            env=environment,
            start_new_session=True,
        )

    def run(self, job: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Train one job and return the content of its done.json.

        Parameters
        ----------
        report : called with the events of the job.

        Raises
        ------
        EnsembleError : the job failed.
        WorkerDied : the process was killed or crashed.
        DeviceSharedError : memory ran out on a device that several jobs share; the process has ended.
        """
        with self.lock:
            if self.stopped:
                raise WorkerDied("not started again, because the command is ending")
            if self.process is None or self.process.poll() is not None:
                self._close()
                self.process = self._start()
            self.running = True
        try:
            return self._run(self.process, job, report)
        finally:
            with self.lock:
                self.running = False
                if self.stopped:
                    self._close()

    def _run(self, process: Process, job: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        assert process.stdin is not None  # noqa: S101
        assert process.stdout is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):  # the code below detects that the process has ended
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
        for line in process.stdout:
            try:
                event = json.loads(line)
            except ValueError:  # an incomplete line of a process that was killed while it wrote
                break
            if event["event"] == "done":
                return event["result"]
            if event["event"] == "failed":
                raise EnsembleError(event["message"], hint=event["hint"], details=event["details"])
            if event["event"] == "shared":
                process.wait()
                raise DeviceSharedError(event["message"])
            report(event)
        status = process.wait()
        self.may_copy &= not isinstance(process, Copy) or process.has_existed
        reason = f"killed ({signal.Signals(-status).name})" if status < 0 else f"ended with status {status}"
        raise WorkerDied(reason + self._last_line())

    def _last_line(self) -> str:
        """Return the last line of stderr after a colon; "" if there is none."""
        if self.stderr is None:
            return ""
        self.stderr.seek(0)
        lines = self.stderr.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""

    def stop(self) -> None:
        """Kill the process and do not start it again; the saved state of its job is kept."""
        with self.lock:
            self.stopped = True
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        with self.lock:
            if not self.running:  # otherwise the thread that reads the events closes them
                self._close()

    def _close(self) -> None:
        """Close the pipes and the log of an ended process."""
        pipes = () if self.process is None else (self.process.stdin, self.process.stdout)
        for file in (*pipes, self.stderr):
            if file is not None:
                with contextlib.suppress(OSError):  # unwritten text for a process that has ended
                    file.close()
        self.stderr = None
