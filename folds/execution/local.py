"""Train jobs in worker processes of this machine, one job per slot at a time; the last jobs share the cores."""

from __future__ import annotations

import logging
import queue
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any

from folds.errors import EnsembleError
from folds.execution.placement import DevicePlan
from folds.execution.progress_log import Report, pass_on
from folds.execution.worker import Worker, WorkerDied
from folds.models.accelerators import worker_variables
from folds.models.gpus import driver_loaded, group_variables
from folds.models.memory import DeviceSharedError
from folds.predictions.file_names import FOLD_STATE
from folds.training.job import Job, Outcome, job_as_dict
from folds.utils.memory import available_bytes, private_bytes

logger = logging.getLogger(__name__)

RETRIES = 2  # retries of a job whose process was killed before it saved a new state
# An additional job is started if this many times the memory of the largest running one is available.
_HEADROOM = 1.5


def prepare_workers(devices: str, backend: str) -> None:
    """Let the workers of a command start faster, while it reads its data; for workers on the CPU of this machine."""
    if backend == "local" and (devices == "cpu" or (devices == "auto" and not driver_loaded())):
        Worker.warm_up()


def train_on_this_machine(jobs: Sequence[Job], placement: DevicePlan, report: Report) -> Generator[Outcome]:
    """Train `jobs` on the slots of `placement`; yield the outcome of each job when it ends.

    Closing the generator ends the workers; unfinished jobs can be resumed from their last saved state.
    """
    if not jobs:
        return
    slots = _Slots(jobs, placement, report)
    try:
        yield from slots.outcomes()
    finally:
        slots.stop()


class _Slots:
    """The slots of a plan: a thread and a worker process each, which take the waiting jobs in their order.

    When less than two rounds of jobs are left on a CPU, the waiting ones start beside the running ones, and the system
    divides the cores among them. A last, incomplete round would leave cores idle; this way all jobs end at about the
    same time. The threads per job, and so the bytes of the results, stay the same.

    Several jobs may share a GPU. If its memory is short, a job waits in the queue again and the GPU trains one job
    less: how many run at once does not change a result, smaller parts of a batch would.
    """

    def __init__(self, jobs: Sequence[Job], placement: DevicePlan, report: Report) -> None:
        self._placement, self._report, self._count = placement, report, len(jobs)
        self._slots = min(len(placement.devices), len(jobs))
        self._waiting = deque(jobs)
        self._running: dict[Worker, Job] = {}
        self._stepped: set[str] = set()  # jobs with a finished step, whose memory is known
        self._largest = 0  # bytes that a job took
        self._may_share = placement.shares_cores
        self._jobs_of = Counter(placement.devices[: self._slots])  # device → slots that are not at their end
        self._ended: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
        self._workers: list[Worker] = []
        self._lock = threading.RLock()

    def outcomes(self) -> Generator[Outcome]:
        """Start the slots and yield each outcome; raise what a report raises."""
        for slot in range(self._slots):
            self._start(slot)
        for _ in range(self._count):
            ended = self._ended.get()
            if isinstance(ended, BaseException):
                raise ended
            yield ended

    def stop(self) -> None:
        """End the workers; no further job is started. The threads, which wait for the workers, end by themselves."""
        with self._lock:
            self._waiting.clear()
            workers = list(self._workers)
        for worker in workers:
            worker.stop()

    def _start(self, slot: int) -> None:
        """Start a slot with the next waiting job."""
        device = self._placement.devices[slot]
        devices = (device, *(self._placement.partners[slot] if self._placement.partners else ()))
        visible = group_variables(devices)
        worker = Worker(self._placement.threads, visible | worker_variables(device))
        if device != "cpu":
            worker.may_copy = False  # not every GPU survives a fork
        # A process that sees some GPUs only has them as its first ones.
        names = tuple(f"cuda:{i}" for i in range(len(devices))) if visible else devices
        own: dict[str, Any] = {
            "device": names[0],
            "partners": names[1:],
            "physical_device": "+".join(devices) if visible else None,
        }
        thread = threading.Thread(target=self._serve, args=(device, own, worker), daemon=True)
        with self._lock:
            if not self._waiting:
                self._jobs_of[device] -= 1
                return
            self._running[worker] = self._waiting.popleft()
            self._workers.append(worker)
        thread.start()

    def _serve(self, device: str, own: dict[str, Any], worker: Worker) -> None:
        """Train one job after the other, while there are any; `own` are the fields of a job that the slot sets."""
        try:
            job: Job | None = self._running[worker]
            while job is not None:
                fields = own | self._part_of(device, own["partners"])
                try:
                    outcome = _train_one(replace(job, **fields), worker, self._heard, lambda: self._withdraw(worker))
                except DeviceSharedError as error:
                    if self._give_way(device, worker, job, error):
                        return
                    continue  # the others have ended: it has the device for itself
                if outcome is None:
                    return
                self._ended.put(outcome)
                job = self._next(device, worker)
        except BaseException as error:  # raised again where the outcomes are read
            self._ended.put(error)

    def _part_of(self, device: str, partners: Sequence[str]) -> dict[str, Any]:
        """Return the fields of a job that depend on how many jobs its device trains now."""
        if device == "cpu":
            return {"memory_fraction": 1 / self._placement.devices.count(device)}
        with self._lock:
            jobs = self._jobs_of[device]
        # The processes of a group would wait for one that ends.
        return {"memory_fraction": 1 / jobs, "gives_way": jobs > 1 and not partners}

    def _give_way(self, device: str, worker: Worker, job: Job, error: DeviceSharedError) -> bool:
        """Return a job to the queue whose device has too little memory, and train one job less on the device from now.

        Return False if no other job trains there any more: then the job continues at once.
        """
        with self._lock:
            if self._jobs_of[device] == 1:
                return False
            self._jobs_of[device] -= 1
            left = self._jobs_of[device]
            self._running.pop(worker, None)
            self._waiting.appendleft(job)
        logger.info(f"{error}: {device} trains {left} at a time from now; the job continues from its last saved state")
        return True

    def _next(self, device: str, worker: Worker) -> Job | None:
        with self._lock:
            self._running.pop(worker, None)
            job = self._waiting.popleft() if self._waiting else None
            if job is not None:
                self._running[worker] = job
            elif device != "cpu":
                self._jobs_of[device] -= 1
        if job is None:
            if device != "cpu":
                worker.stop()  # its memory is for the jobs that still train on the device
            return None
        self._share()
        return job

    def _heard(self, job: Job, event: dict[str, Any]) -> None:
        with self._lock:
            first = event["event"] in ("step", "epoch") and job.title not in self._stepped
            if first:
                self._stepped.add(job.title)
        if first:
            self._share()
        self._report(job, event)

    def _share(self) -> None:
        """Start waiting jobs beside the running ones, if less than two rounds are left and the memory suffices."""
        with self._lock:
            while self._waiting and self._may_share and self._has_room():
                self._start(0)

    def _has_room(self) -> bool:
        running = list(self._running.items())
        if len(running) + len(self._waiting) >= 2 * self._slots:
            return False
        if any(job.title not in self._stepped for _, job in running):
            return False  # its memory is not known yet
        sizes = [private_bytes(worker.pid) for worker, _ in running if worker.pid is not None]
        self._largest = max([self._largest, *(size for size in sizes if size is not None)])
        available = available_bytes()
        return bool(self._largest) and available is not None and available > _HEADROOM * self._largest

    def _withdraw(self, worker: Worker) -> bool:
        """Let the job of a worker that was killed wait for a free slot, if more jobs run than there are slots.

        The system may have killed it because memory was short; no further jobs share the cores.
        """
        with self._lock:
            if len(self._running) <= self._slots:
                return False
            self._may_share = False
            self._waiting.appendleft(self._running.pop(worker))
            return True


def _train_one(job: Job, worker: Worker, report: Report, withdraw: Callable[[], bool]) -> Outcome | None:
    """Train a job in a worker; if its process is killed, restart it from the last saved state.

    Parameters
    ----------
    withdraw : called if the process was killed; returns whether the job waits for another slot, so that the result is
        None.
    """
    state, before, failures = job.fold_dir / FOLD_STATE, 0, 0
    while True:
        try:
            return Outcome(job, result=worker.run(job_as_dict(job), lambda event: pass_on(report, job, event)))
        except EnsembleError as error:
            return Outcome(job, error=error)
        except WorkerDied as error:
            if worker.stopped:
                hint = "`resume=True` continues from the last saved state"
                return Outcome(job, error=EnsembleError(f"{job.title}: stopped", hint=hint))
            if withdraw():
                logger.info(f"{job.title}: worker {error}; it continues from the last saved state when a job has ended")
                return None
            # A worker that was killed several times without progress would be killed again.
            saved = state.stat().st_mtime_ns if state.exists() else 0
            failures, before = (failures + 1 if saved == before else 0), saved
            if failures > RETRIES:
                hint = "if it ran out of memory: use fewer `jobs` or a smaller `batch_size`"
                return Outcome(job, error=EnsembleError(f"{job.title}: worker {error}", hint=hint))
            logger.info(f"{job.title}: worker {error}; restarting from the last saved state")
