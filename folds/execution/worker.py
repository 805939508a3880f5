"""A process that trains the jobs it is sent, one at a time, and ends with its parent.

Jobs come as JSON lines on standard input, events go back as JSON lines on standard output. A kept worker pays for the
imports (and a compiler's warm-up) once, not once a fold; and because each slot has a process of its own, one that is
killed takes only its own job along. When the parent dies, however it dies, standard input ends and the worker leaves.
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
from collections.abc import Callable
from typing import IO, Any

from folds.errors import EnsembleError
from folds.utils.parallel import source_root


class WorkerDied(Exception):
    """The process ended in the middle of a job; the message has its exit status and last words."""


class Worker:
    """The parent's side of one worker process; started at the first job.

    Parameters
    ----------
    threads : CPU threads that its libraries may use.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.process: subprocess.Popen[str] | None = None
        self.words: IO[bytes] | None = None
        self.lock = threading.Lock()
        self.stopped = False

    def _start(self) -> subprocess.Popen[str]:
        source = str(source_root())
        variables = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(self.threads))
        # Threads that have nothing to do sleep instead of spinning: on shared cores a spin takes time from those that
        # work.
        variables["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
        path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
        self.words = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        # A session of its own: Ctrl-C goes to the parent, which decides what happens to the jobs.
        return subprocess.Popen(
            [sys.executable, "-m", "folds.execution.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.words,
            text=True,
            env={**os.environ, **variables, "PYTHONPATH": path},
            start_new_session=True,
        )

    def run(self, job: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Train one job; `report` gets its events; return the content of its done.json.

        Raises
        ------
        EnsembleError : what the job itself said is wrong.
        WorkerDied : the process was killed or crashed.
        """
        with self.lock:
            if self.stopped:
                raise WorkerDied("is not started again: the command is ending")
            if self.process is None or self.process.poll() is not None:
                self.process = self._start()
        assert self.process.stdin is not None  # noqa: S101
        assert self.process.stdout is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):  # the loop below finds out how it ended
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()
        for line in self.process.stdout:
            try:
                event = json.loads(line)
            except ValueError:  # half a line of a process that was killed while it wrote
                break
            if event["event"] == "done":
                return event["result"]
            if event["event"] == "failed":
                raise EnsembleError(event["message"], hint=event["hint"], details=event["details"])
            report(event)
        status = self.process.wait()
        how = f"killed ({signal.Signals(-status).name})" if status < 0 else f"ended with status {status}"
        raise WorkerDied(how + self._last_words())

    def _last_words(self) -> str:
        if self.words is None:
            return ""
        self.words.seek(0)
        lines = self.words.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""

    def stop(self) -> None:
        """End the process now, and start none again; a job in it keeps what it has saved."""
        with self.lock:
            self.stopped = True
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def _serve() -> None:
    from folds.training.job import job_from_dict
    from folds.training.trainer import train_fold

    # Libraries print to standard output; the events have a descriptor of their own.
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    jobs: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        for line in sys.stdin:
            jobs.put(line)
        os._exit(0)  # the parent is gone: nobody is waiting for this job

    threading.Thread(target=listen, daemon=True).start()

    def send(event: dict[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")

    while True:
        job = job_from_dict(json.loads(jobs.get()))
        try:
            send({"event": "done", "result": train_fold(job, send)})
        except EnsembleError as error:
            send({"event": "failed", "message": error.message, "hint": error.hint, "details": list(error.details)})
        except Exception as error:
            trace, reason = traceback.format_exc(), " ".join(str(error).split())
            with contextlib.suppress(OSError):
                job.fold_dir.mkdir(parents=True, exist_ok=True)
                (job.fold_dir / "error.txt").write_text(trace)
            send(
                {
                    "event": "failed",
                    "message": f"{job.run} fold {job.fold}: {type(error).__name__}: {reason[:300]}",
                    "hint": f"the traceback is in {job.fold_dir / 'error.txt'}",
                    "details": [],
                }
            )
            # After an unforeseen error (of a GPU, say) this process is not used again: the next job gets a new one.
            os._exit(1)


if __name__ == "__main__":
    _serve()
