"""Train jobs in a worker process, one at a time.

Jobs are JSON lines on standard input, events are JSON lines on standard output. When the parent process ends, for
whatever reason, standard input is closed and the worker exits.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import threading
import traceback
from typing import Any

from folds.errors import EnsembleError
from folds.training.job import Job, job_from_dict


def serve() -> None:
    """Train the jobs of standard input, one after the other, until it ends."""
    from folds.utils.startup import lasting_imports

    with lasting_imports():
        from folds.features.train import train_job
        from folds.models.memory import DeviceSharedError

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
            send({"event": "done", "result": train_job(job, send)})
        except EnsembleError as error:
            send({"event": "failed", "message": error.message, "hint": error.hint, "details": list(error.details)})
            if job.partners:  # a broken group of GPUs cannot be used again
                os._exit(1)
        except DeviceSharedError as error:
            send({"event": "shared", "message": str(error)})
            os._exit(1)  # the memory of the device is free only when the process has ended
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
    from folds.models.accelerators import is_available, kind_of

    kind = kind_of(job.device)
    if kind != "cuda" and not is_available(kind):
        raise EnsembleError(
            f"{job.title}: torch finds no {kind} device in the worker for {job.shown_device}",
            hint="ensemble doctor shows which devices torch can use; `devices=cpu` trains without them",
        )
    if kind == "cuda" and not is_available(kind):
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        raise EnsembleError(
            f"{job.title}: torch finds no GPU in the worker for {job.shown_device} (CUDA_VISIBLE_DEVICES={visible})",
            hint="nvidia-smi -L lists the GPUs and MIG slices; ensemble doctor shows which ones torch can use",
        )


if __name__ == "__main__":
    serve()
