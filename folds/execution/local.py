"""The jobs of a command in worker processes of this machine, one a slot at a time."""

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

RETRIES = 2  # of a job whose process was killed and that has saved nothing new since


def train_on_this_machine(jobs: Sequence[Job], placement: DevicePlan, report: Report) -> Generator[Outcome]:
    """Train `jobs` on the slots of `placement`, and yield how each ended, as they end.

    The workers end when the generator is closed; what was under way goes on from its last saved state.
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
            placed = replace(job, device=device, memory_fraction=1 / placement.devices.count(device))
            return _train_one(placed, worker, report)
        finally:
            slots.put((device, worker))

    # Threads, because each only waits for its worker; the training is in the workers.
    parallel = Parallel(
        n_jobs=len(workers), backend="threading", return_as="generator_unordered", pre_dispatch="all", batch_size=1
    )
    try:
        yield from parallel(delayed(in_slot)(job) for job in jobs)
    finally:
        for worker in workers:
            worker.stop()


def _train_one(job: Job, worker: Worker, report: Report) -> Outcome:
    """Train a job in a worker; one whose process is killed is begun again from what it has saved."""
    state, before, failures = job.fold_dir / "state.pt", 0, 0
    while True:
        try:
            return Outcome(job, result=worker.run(job_as_dict(job), lambda event: pass_on(report, job, event)))
        except EnsembleError as error:
            return Outcome(job, error=error)
        except WorkerDied as death:
            if worker.stopped:
                return Outcome(
                    job,
                    error=EnsembleError(f"{job.title}: stopped", hint="--resume continues from the last saved state"),
                )
            # A worker that is killed several times without progress will be killed again.
            saved = state.stat().st_mtime_ns if state.exists() else 0
            failures, before = (failures + 1 if saved == before else 0), saved
            if failures > RETRIES:
                message = f"{job.title}: worker {death}"
                return Outcome(
                    job, error=EnsembleError(message, hint="out of memory? fewer --jobs or a smaller --batch-size")
                )
            logger.info(f"{job.title}: worker {death}; restarting from the last saved state")
