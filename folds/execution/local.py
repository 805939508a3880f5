"""Train jobs in worker processes of this machine, one job per slot at a time."""

from __future__ import annotations

import logging
import queue
from collections.abc import Generator, Sequence
from dataclasses import replace

from folds.errors import EnsembleError
from folds.execution.placement import DevicePlan
from folds.execution.progress_log import Report, pass_on
from folds.execution.worker import Worker, WorkerDied
from folds.training.job import Job, Outcome, job_as_dict

logger = logging.getLogger(__name__)

RETRIES = 2  # retries of a job whose process was killed before it saved a new state


def train_on_this_machine(jobs: Sequence[Job], placement: DevicePlan, report: Report) -> Generator[Outcome]:
    """Train `jobs` on the slots of `placement`; yield the outcome of each job when it ends.

    Closing the generator ends the workers; unfinished jobs can be resumed from their last saved state.
    """
    from joblib import Parallel, delayed

    if not jobs:
        return
    workers = [Worker(placement.threads) for _ in placement.devices[: len(jobs)]]
    slots: queue.Queue[tuple[str, Worker]] = queue.Queue()
    for slot in zip(placement.devices, workers, strict=False):
        slots.put(slot)

    def in_slot(job: Job) -> Outcome:
        device, worker = slots.get()
        try:
            assigned = replace(job, device=device, memory_fraction=1 / placement.devices.count(device))
            return _train_one(assigned, worker, report)
        finally:
            slots.put((device, worker))

    # Threads are enough, because each only waits for its worker process.
    parallel = Parallel(
        n_jobs=len(workers), backend="threading", return_as="generator_unordered", pre_dispatch="all", batch_size=1
    )
    try:
        yield from parallel(delayed(in_slot)(job) for job in jobs)
    finally:
        for worker in workers:
            worker.stop()


def _train_one(job: Job, worker: Worker, report: Report) -> Outcome:
    """Train a job in a worker; if its process is killed, restart it from the last saved state."""
    state, before, failures = job.fold_dir / "state.pt", 0, 0
    while True:
        try:
            return Outcome(job, result=worker.run(job_as_dict(job), lambda event: pass_on(report, job, event)))
        except EnsembleError as error:
            return Outcome(job, error=error)
        except WorkerDied as error:
            if worker.stopped:
                hint = "`resume=True` continues from the last saved state"
                return Outcome(job, error=EnsembleError(f"{job.title}: stopped", hint=hint))
            # A worker that was killed several times without progress would be killed again.
            saved = state.stat().st_mtime_ns if state.exists() else 0
            failures, before = (failures + 1 if saved == before else 0), saved
            if failures > RETRIES:
                hint = "if it ran out of memory: use fewer `jobs` or a smaller `batch_size`"
                return Outcome(job, error=EnsembleError(f"{job.title}: worker {error}", hint=hint))
            logger.info(f"{job.title}: worker {error}; restarting from the last saved state")
