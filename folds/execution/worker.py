"""Train jobs in a worker process, one at a time.

Jobs are JSON lines on standard input, events are JSON lines on standard output. A worker is reused, so imports and
compilation happen once instead of once per fold. Each slot has a process of its own, so a killed process affects only
its own job. When the parent process ends, for whatever reason, standard input is closed and the worker exits.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import IO, TYPE_CHECKING, Any

from folds.errors import EnsembleError
from folds.models.memory import allocator_variables
from folds.utils.parallel import source_root

if TYPE_CHECKING:
    from folds.training.job import Job


class WorkerDied(Exception):
    """The worker process ended during a job; the message has its exit status and the last line of its stderr."""


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
        self.process: subprocess.Popen[str] | None = None
        self.stderr: IO[bytes] | None = None
        self.lock = threading.Lock()
        self.stopped = False
        self.running = False  # whether a thread reads the events of a job

    @property
    def pid(self) -> int | None:
        """Return the number of the process; None before the first job."""
        return None if self.process is None else self.process.pid

    def _start(self) -> subprocess.Popen[str]:
        source = str(source_root())
        variables = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(self.threads))
        # Several processes that each start a compiler for every core would stop the machine.
        variables["TORCHINDUCTOR_COMPILE_THREADS"] = str(self.threads)
        variables |= allocator_variables() | self.variables
        # Idle threads sleep instead of spinning, which would slow down other processes on the same cores.
        variables["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
        path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process runs
        # -P: a module that lies in the working folder must not shadow one of the libraries.
        # A session of its own, so that only the parent receives Ctrl-C and handles the jobs.
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "folds.execution.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            encoding="utf-8",
            env={**os.environ, **variables, "PYTHONPATH": path},
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

    def _run(
        self, process: subprocess.Popen[str], job: dict[str, Any], report: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
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
            report(event)
        status = process.wait()
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


def _serve() -> None:
    from folds.training.job import job_from_dict
    from folds.training.trainer import train_fold

    # Events have a file descriptor of their own, because libraries print to standard output.
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    jobs: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        for line in sys.stdin:
            jobs.put(line)
        os._exit(0)  # the parent has ended

    threading.Thread(target=listen, daemon=True).start()

    def send(event: dict[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")

    while True:
        job = job_from_dict(json.loads(jobs.get()))
        try:
            _require_gpu(job)
            send({"event": "done", "result": train_fold(job, send)})
        except EnsembleError as error:
            send({"event": "failed", "message": error.message, "hint": error.hint, "details": list(error.details)})
            if job.partners:  # a broken group of GPUs cannot be used again
                os._exit(1)
        except Exception as error:
            trace, reason = traceback.format_exc(), " ".join(str(error).split())
            with contextlib.suppress(OSError):
                job.fold_dir.mkdir(parents=True, exist_ok=True)
                (job.fold_dir / "error.txt").write_text(trace, encoding="utf-8", errors="backslashreplace")
            send(
                {
                    "event": "failed",
                    "message": f"{job.title}: {type(error).__name__}: {reason[:300]}",
                    "hint": f"the traceback is in {job.fold_dir / 'error.txt'}",
                    "details": [],
                }
            )
            # After an unexpected error (e.g. of a GPU) the next job gets a new process.
            os._exit(1)


def _require_gpu(job: Job) -> None:
    """Raise EnsembleError if the job needs a GPU, but torch finds none in this process."""
    if job.device == "cpu":
        return
    import torch

    if not torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        raise EnsembleError(
            f"{job.title}: torch finds no GPU in the worker for {job.shown_device} (CUDA_VISIBLE_DEVICES={visible})",
            hint="nvidia-smi -L lists the GPUs and MIG slices; ensemble doctor shows which ones torch can use",
        )


if __name__ == "__main__":
    _serve()
