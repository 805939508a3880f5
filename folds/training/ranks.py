"""Start the further processes of a fold that is trained on several devices, and end them with it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

import torch
import torch.distributed as dist

from folds.errors import EnsembleError
from folds.training.group import Group
from folds.training.job import Job, job_as_dict
from folds.utils.parallel import source_root

_SECONDS = 1800.0  # that a process waits for the others; those that have ended are noticed at once
_ENDING = 60.0  # seconds in which a process ends after its last step


@contextlib.contextmanager
def started_group(job: Job, report: Callable[[dict[str, Any]], None]) -> Iterator[Group | None]:
    """Start a process for each partner of the job; give the group of all, whose first process is this one.

    None for a job on one device. On leaving, the processes are ended.

    Parameters
    ----------
    report : called with ``{"event": "failed", …}`` if a process on a GPU ends too early: this process, which may wait
        for it in vain, then ends as well.

    Raises
    ------
    EnsembleError : another process has failed, with its reason.
    """
    if not job.partners:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        partners = [_Partner(job, i + 1, Path(folder), report) for i in range(len(job.partners))]
        try:
            for one in partners:
                one.wait_until_ready()
            with process_group(job, 0, Path(folder) / "store") as group:
                yield group
            for one in partners:
                one.finish()
        except RuntimeError as error:
            if not _is_of_connection(error):
                raise
            for one in partners:  # a process that ended closes its connections; its own reason says more
                one.raise_reason()
            raise EnsembleError(
                f"{job.title}: its processes have lost each other: {' '.join(str(error).split())[:200]}",
                hint="`resume=True` continues from the last saved state",
            ) from None
        finally:
            for one in partners:
                one.end()


def _is_of_connection(error: RuntimeError) -> bool:
    """Return whether an error is about the connections of the processes."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


@contextlib.contextmanager
def process_group(job: Job, rank: int, store: Path) -> Iterator[Group]:
    """Connect this process with the others of the job."""
    size = 1 + len(job.partners)
    on_gpu = job.device != "cpu"
    if on_gpu:
        torch.cuda.set_device(job.device)
    how: dict[str, Any] = {"device_id": torch.device(job.device)} if on_gpu else {}
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=dist.FileStore(str(store), size),
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=_SECONDS),
        **how,
    )
    try:
        yield Group(rank, size, job.device)
    except BaseException:
        # On a GPU, a sum that another process never joins cannot be ended; the process ends (`folds.execution.worker`).
        if not on_gpu:
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


class _Partner:
    """A further process of a job, seen from the first one."""

    def __init__(self, job: Job, rank: int, folder: Path, report: Callable[[dict[str, Any]], None]) -> None:
        self._job, self._report = job, report
        self._device = job.partners[rank - 1]
        self._log, self._ready = folder / f"{rank}.log", folder / f"{rank}.ready"
        self._ending = False
        path = os.pathsep.join(filter(None, [str(source_root()), os.environ.get("PYTHONPATH")]))
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "folds.training.part"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                encoding="utf-8",
                env={**os.environ, "PYTHONPATH": path},
            )
        order = {"job": job_as_dict(job), "rank": rank, "folder": str(folder)}
        with contextlib.suppress(BrokenPipeError):  # its end is noticed below
            self._pipe.write(json.dumps(order) + "\n")
            self._pipe.flush()
        if job.device != "cpu":
            threading.Thread(target=self._watch, daemon=True).start()

    @property
    def _pipe(self) -> IO[str]:
        pipe = self._process.stdin
        if pipe is None:
            raise ValueError("the process has no standard input")
        return pipe

    def _reason(self) -> EnsembleError | None:
        """Return why the process has failed; None if it runs or has finished."""
        status = self._process.poll()
        if not status:
            return None
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        reason = f": {lines[-1][:300]}" if lines else ""
        return EnsembleError(
            f"{self._job.title}: its process on {self._device} ended with status {status}{reason}",
            hint="`resume=True` continues from the last saved state; if memory was too small: a smaller "
            "`batch_size` or `img_size`, or more `gpus_per_job`",
        )

    def wait_until_ready(self) -> None:
        """Wait until the process has its device; raise its reason if it fails."""
        while not self._ready.exists():
            error = self._reason()
            if error is not None:
                raise error
            if self._process.poll() is not None:
                raise EnsembleError(f"{self._job.title}: its process on {self._device} has ended")
            time.sleep(0.05)

    def _watch(self) -> None:
        """End this process when the partner has failed: on a GPU it would wait for it forever."""
        self._process.wait()
        error = None if self._ending else self._reason()
        if error is not None:
            self._report({"event": "failed", "message": error.message, "hint": error.hint, "details": []})
            os._exit(1)

    def raise_reason(self) -> None:
        """Raise the reason of a process that has failed, or is about to end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        error = self._reason()
        if error is not None:
            raise error from None

    def finish(self) -> None:
        """Wait until the process has ended by itself."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_ENDING)

    def end(self) -> None:
        """End the process."""
        self._ending = True
        with contextlib.suppress(OSError):
            self._pipe.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
