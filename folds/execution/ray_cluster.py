"""The jobs of a plan as tasks of a Ray cluster; a lost machine costs a job what it has not saved.

Plain tasks with retries, not joblib's Ray backend: when a node is lost that one fails the whole call. Progress comes by
files beside the results, which all machines see anyway, not through a queue that would live on one of them.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from folds.errors import EnsembleError, UsageError
from folds.execution.placement import DevicePlan, Execution
from folds.execution.progress_log import ProgressReader, Report, pass_on
from folds.execution.ray_task import progress_file, run_task
from folds.execution.shared_files import file_manifest, mark_folders
from folds.execution.waiting import LockedJobs, ResourceWatch
from folds.training.job import Job, Outcome, job_as_dict
from folds.utils.parallel import source_root

logger = logging.getLogger(__name__)

# By Ray's name of it. {where} is the machine's address, {first} and {last} a line of what Ray says.
_ENDS = {
    "WorkerCrashedError": (
        "worker crashed or was killed, given up after {retries} retries",
        "out of memory? fewer --jobs or a smaller --batch-size; Ray's logs of that machine have its last words; "
        "--resume continues from the last saved state",
    ),
    "NodeDiedError": (
        "its machine{where} was lost, given up after {retries} retries",
        "ray status shows which machines are left; --resume continues from the last saved state",
    ),
    "OutOfMemoryError": (
        "its machine{where} ran out of memory, each time it was tried",
        "fewer --jobs, a smaller --batch-size, or machines with more memory; --resume continues from the last saved "
        "state",
    ),
    "TaskUnschedulableError": (
        "Ray has no machine for it: {first}",
        "ray status shows what there is; --resume when a machine has room for it",
    ),
    "TaskCancelledError": ("it was cancelled from outside", "--resume continues from the last saved state"),
    "RuntimeEnvSetupError": (
        "Ray could not start its worker: {last}",
        "runtime_env_setup*.log among Ray's logs of that machine says why; --resume when it is mended",
    ),
    "LocalRayletDiedError": (
        "Ray has ended on this machine",
        "ray start begins it again, --resume continues from the last saved state",
    ),
    "RayTaskError": (
        "it could not begin on the machine{where}: {last}",
        "all machines need this program and its dependencies in the same versions; --resume tries it again",
    ),
}


def error_from_ray(job: Job, error: Exception, retries: int) -> EnsembleError:
    """Return the error for a job whose task ended with one of `ray.exceptions`.

    Parameters
    ----------
    retries : how often Ray has tried a task again that lost its process or its machine.
    """
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [" ".join(line.split())[:200] for line in text.splitlines() if line.strip()] or ["no reason given"]
    address = re.search(r"\b(?:IP: |ip=)([\w.:]*\w)", text)
    name = next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _ENDS), None)
    what, hint = (
        _ENDS[name] if name else (f"{type(error).__name__}: {{first}}", "--resume continues from the last saved state")
    )
    where = f" {address[1]}" if address else ""
    return EnsembleError(
        f"{job.title}: {what.format(where=where, first=lines[0], last=lines[-1], retries=retries)}", hint=hint
    )


RETRIES = 5  # of a job whose machine or process is lost; it goes on from its last saved state
PATIENCE = 600.0  # seconds that a job waits for what may still come: its lock, a machine with room for it
_POLL_SECONDS = 0.3
_LISTEN_SECONDS = 1.0  # a look at a file of every running job, on a network drive
_own: list[bool] = []  # whether this process has started a cluster of its own


def connect(address: str | None, variables: Mapping[str, str] | None = None) -> Any:
    """Return the ray module, connected to the cluster at `address` (``auto``, ``HOST:PORT``), or to one of this machine
    alone.

    Parameters
    ----------
    variables : of the environment of every process that works for this one.

    Raises
    ------
    UsageError : Ray is not installed.
    EnsembleError : there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_task_oom_retries", str(RETRIES))  # Ray's own rule is for ever
    try:
        import ray
    except ImportError:
        raise UsageError("--backend ray needs Ray, which is not installed", hint="pip install ray") from None
    if not ray.is_initialized():
        if address is None:
            _own.append(True)
        # Ray prints what its machines complain of to standard output, which is for results; the notes say the same in a
        # line.
        worker: Any = sys.modules.get("ray._private.worker")
        if hasattr(worker, "print_to_stdstream"):
            worker.print_to_stdstream = lambda *_, **__: None
        try:
            ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                include_dashboard=False if address is None else None,
                runtime_env={"env_vars": dict(variables)} if variables else None,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise EnsembleError(
                f"--ray-address {address}: {reason}",
                hint="ray status --address HOST:PORT shows whether it runs; ray start --head starts one",
            ) from None
    return ray


def place_on_cluster(jobs: int, execution: Execution, threads: int | None = None) -> DevicePlan:
    """Return the slots that a cluster has for `jobs` jobs: one a GPU where there are GPUs, else one a core.

    Parameters
    ----------
    threads : CPU threads a job, instead of the rule (a run that is resumed keeps its own).
    """
    ray = connect(execution.address)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores = int(sum(node.get("CPU", 0) for node in nodes))
    gpus = int(sum(node.get("GPU", 0) for node in nodes)) if execution.devices != "cpu" else 0
    if execution.devices not in ("auto", "cpu"):
        raise UsageError(
            f"--devices {execution.devices}: on a cluster Ray chooses the GPUs",
            hint="--devices auto or cpu, --jobs N a GPU",
        )
    largest = int(min((node["CPU"] for node in nodes if node.get("CPU")), default=1))
    each = threads or max(1, min(cores // max(jobs, 1), largest))
    many = _counted(len(nodes), "machine")
    if gpus:
        per_gpu = execution.per_device or 1
        slots = max(1, min(jobs, gpus * per_gpu))
        return DevicePlan(
            ("cuda",) * slots,
            each,
            f"training {_counted(slots, 'fold')} in parallel on {_counted(gpus, 'GPU')} of {many} (Ray)",
            "ray",
            1 / per_gpu,
        )
    slots = max(1, min(jobs, execution.per_device or cores, cores // each))
    reason = f"{slots} jobs at a time on {many} with {_counted(cores, 'core')} (Ray), {_counted(each, 'thread')} each"
    return DevicePlan(("cpu",) * slots, each, reason, "ray")


def train_on_cluster(
    jobs: Sequence[Job], placement: DevicePlan, address: str | None, report: Report, patience: float | None = None
) -> Iterator[Outcome]:
    """Train `jobs`, each a task that Ray runs where there is room, and yield how each ended, as they end.

    A task whose machine or process is lost is run again elsewhere, from the job's last saved state, to the same bytes.

    Parameters
    ----------
    patience : seconds that a job waits for a lock that another process holds, or for a machine that could run it;
        None for `PATIENCE`.
    """
    patience = PATIENCE if patience is None else patience
    ray = connect(address)
    submit = _submitting(ray, placement)
    token = secrets.token_hex(8)
    waiting = [
        replace(job.with_absolute_paths(), device=placement.devices[0], memory_fraction=placement.gpu_share or 1.0)
        for job in reversed(jobs)
    ]
    pending: dict[Any, Job] = {}
    held = LockedJobs(patience)
    heard = _ProgressMonitor(waiting, report, held)
    room = ResourceWatch({"GPU": placement.gpu_share} if placement.gpu_share else {"CPU": placement.threads}, ray.nodes)
    try:
        with mark_folders(waiting, token):
            while pending or waiting or held.jobs:
                waiting += held.due()
                while waiting and len(pending) < len(placement.devices):
                    job = waiting.pop()
                    try:
                        pending[submit(json.dumps(job_as_dict(job)), file_manifest(job, token))] = job
                    except EnsembleError as error:
                        yield Outcome(job, error=error)
                ready = _ready(ray, pending)
                heard.listen(pending.values())
                for reference in ready:
                    job = pending.pop(reference)
                    outcome = _outcome(ray, reference, job, held)
                    if outcome is not None:
                        heard.forget(job)
                        yield outcome
                left = [*pending.values(), *waiting, *held.jobs]
                lacking = room.lacking(patience) if left else 0.0
                if lacking >= patience:
                    for job in left:
                        yield Outcome(job, error=room.error(job, lacking))
                    return
    finally:
        for reference, job in pending.items():
            ray.cancel(reference, force=True)
            heard.forget(job)
        disconnect(address)


def disconnect(address: str | None) -> None:
    """End the cluster that `connect` has started; not one that somebody else has connected to."""
    if address is None and _own:
        import ray

        ray.shutdown()
        _own.clear()


def _submitting(ray: Any, placement: DevicePlan) -> Callable[[str, dict[str, Any]], Any]:
    """Return what gives Ray a job, as its record and its proof, and returns a reference to what becomes of it."""
    task = ray.remote(run_task).options(
        num_cpus=0 if placement.gpu_share else placement.threads,
        num_gpus=placement.gpu_share,
        max_retries=RETRIES,
        scheduling_strategy="SPREAD",
        runtime_env={"env_vars": variables_of(placement.threads)},
    )
    return lambda record, must_see: task.remote(record, must_see)


def variables_of(threads: int) -> dict[str, str]:
    """Return the environment of a process that trains with so many threads."""
    source = str(source_root())
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": path, **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))}


def _ready(ray: Any, pending: Mapping[Any, Job]) -> list[Any]:
    """Return the references of a task that has ended, after a moment at most."""
    if pending:
        return list(ray.wait(list(pending), num_returns=1, timeout=_POLL_SECONDS)[0])
    time.sleep(_POLL_SECONDS)
    return []


def _outcome(ray: Any, reference: Any, job: Job, held: LockedJobs) -> Outcome | None:
    """Return how a task ended; None for a job that is tried again later."""
    try:
        value = ray.get(reference)
    except ray.exceptions.RayError as error:
        return Outcome(job, error=error_from_ray(job, error, RETRIES))
    if "busy" in value:
        given_up = held.add(job, value["busy"])
        return None if given_up is None else Outcome(job, error=given_up)
    if "done" in value:
        return Outcome(job, result=value["done"])
    return Outcome(job, error=EnsembleError(value["message"], hint=value["hint"], details=value["details"]))


class _ProgressMonitor:
    """What the jobs say, logged or passed on."""

    def __init__(self, jobs: Sequence[Job], report: Report, held: LockedJobs) -> None:
        self._report = report
        self._held = held
        self._begun: set[str] = set()
        self._next = 0.0
        self._listeners = {job.title: ProgressReader(progress_file(job)) for job in jobs}
        for listener in self._listeners.values():
            listener.forget()  # what an earlier command has left

    def listen(self, jobs: Iterable[Job]) -> None:
        """Pass on what the jobs have said since they were last listened to, unless that was just now."""
        if time.monotonic() >= self._next:
            for job in jobs:
                self._pass_on(job)
            self._next = time.monotonic() + _LISTEN_SECONDS

    def _pass_on(self, job: Job) -> None:
        for event in self._listeners[job.title].events():
            if event["event"] != "begun":
                pass_on(self._report, job, event)
                continue
            self._held.taken(job)
            if job.title in self._begun:
                logger.info(
                    f"{job.title}: worker or machine lost; restarting from the last saved state on {event['node']}"
                )
            self._begun.add(job.title)

    def forget(self, job: Job) -> None:
        """Pass on the last words of a job that has ended, and remove the file they are in."""
        self._pass_on(job)
        self._listeners[job.title].forget()


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
