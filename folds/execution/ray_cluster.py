"""Train jobs as tasks of a Ray cluster; after the loss of a machine, jobs continue from their last saved state.

Plain tasks with retries are used, because joblib's Ray backend fails all jobs when a machine is lost. Progress is
reported through files next to the results, which all machines see; a queue would be lost with its machine.
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
from folds.models.memory import allocator_variables
from folds.training.job import Job, Outcome, job_as_dict
from folds.utils.parallel import source_root

logger = logging.getLogger(__name__)

# Name of Ray's exception → message and hint. {address} is the address of the machine; {first} and {last} are lines of
# Ray's message.
_RAY_ERRORS = {
    "WorkerCrashedError": (
        "worker crashed or was killed; stopped after {retries} retries",
        "if it ran out of memory: use fewer `jobs` or a smaller `batch_size`; Ray's logs on that machine have the "
        "reason; `resume=True` continues from the last saved state",
    ),
    "NodeDiedError": (
        "its machine{address} was lost; stopped after {retries} retries",
        "ray status lists the remaining machines; `resume=True` continues from the last saved state",
    ),
    "OutOfMemoryError": (
        "its machine{address} ran out of memory at every attempt",
        "use fewer `jobs`, a smaller `batch_size`, or machines with more memory; `resume=True` continues from the last "
        "saved state",
    ),
    "TaskUnschedulableError": (
        "Ray has no machine for it: {first}",
        "ray status shows the resources; run again with `resume=True` when a machine has enough",
    ),
    "TaskCancelledError": (
        "its task was canceled outside of this command",
        "`resume=True` continues from the last saved state",
    ),
    "RuntimeEnvSetupError": (
        "Ray could not start its worker: {last}",
        "runtime_env_setup*.log in Ray's logs on that machine has the reason; then run again with `resume=True`",
    ),
    "LocalRayletDiedError": (
        "Ray has ended on this machine",
        "ray start starts it again; `resume=True` continues from the last saved state",
    ),
    "RayTaskError": (
        "it could not start on the machine{address}: {last}",
        "all machines need the same versions of ensemble and its dependencies; `resume=True` tries again",
    ),
}


def error_from_ray(job: Job, error: Exception, retries: int) -> EnsembleError:
    """Return the error for a job whose task ended with one of `ray.exceptions`.

    Parameters
    ----------
    retries : number of retries after a lost process or machine.
    """
    text = re.sub(r"\x1b\[[0-9;]*m", "", without_secrets(str(error)))
    lines = [" ".join(line.split())[:200] for line in text.splitlines() if line.strip()] or ["no reason given"]
    address = re.search(r"\b(?:IP: |ip=)([\w.:]*\w)", text)
    name = next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _RAY_ERRORS), None)
    other = f"{type(error).__name__}: {{first}}", "`resume=True` continues from the last saved state"
    template, hint = _RAY_ERRORS[name] if name else other
    values = {"address": f" {address[1]}" if address else "", "first": lines[0], "last": lines[-1], "retries": retries}
    return EnsembleError(f"{job.title}: {template.format(**values)}", hint=hint)


RETRIES = 5  # retries of a job whose machine or process is lost
PATIENCE = 600.0  # seconds that a job waits for its lock, or for a machine with enough resources
_POLL_SECONDS = 0.3
_LISTEN_SECONDS = 1.0  # between two reads of the progress file of every running job, on a network drive
_own: list[bool] = []  # not empty if this process has started a cluster of its own


def connect(address: str | None, variables: Mapping[str, str] | None = None) -> Any:
    """Return the ray module, connected to a cluster.

    Parameters
    ----------
    address : ``auto`` or ``HOST:PORT``; None for a new cluster of this machine only.
    variables : environment variables of the processes of the cluster that work for this one.

    Raises
    ------
    UsageError : Ray is not installed.
    EnsembleError : there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_task_oom_retries", str(RETRIES))  # Ray retries without limit by default
    if address is None and sys.modules.get("ray", True) is not None:
        _set_token()
    try:
        import ray
    except ImportError:
        raise UsageError("`backend=ray` needs Ray, which is not installed", hint="pip install ray") from None
    if not ray.is_initialized():
        own = {} if address is not None else _protect(ray)
        if address is None:
            _own.append(True)
        # Ray prints warnings of its machines to standard output, which is reserved for results.
        worker: Any = sys.modules.get("ray._private.worker")
        if hasattr(worker, "print_to_stdstream"):
            worker.print_to_stdstream = lambda *_, **__: None
        try:
            ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                include_dashboard=False if address is None else None,
                **own,
                runtime_env={"env_vars": dict(variables)} if variables else None,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = " ".join(without_secrets(str(error)).split())[:200]
            raise EnsembleError(
                f"`ray_address={without_secrets(str(address))}`: {reason}",
                hint="ray status --address HOST:PORT shows whether it runs; ray start --head starts one",
            ) from None
    return ray


# Variables whose values open a cluster, and the password of an address such as ray://user:password@host.
_SECRETS = ("RAY_AUTH_TOKEN", "RAY_REDIS_PASSWORD", "REDIS_PASSWORD")
_PASSWORD = re.compile(r"(?<=//)[^/@\s]+(?=@)")


def without_secrets(text: str) -> str:
    """Return a text of Ray without tokens and passwords: messages are shown, and may be kept in logs."""
    for value in filter(None, map(os.environ.get, _SECRETS)):
        text = text.replace(value, "***")
    return _PASSWORD.sub("***", text)


# Since this version, the processes of a cluster can require a token of everyone who talks to them.
_TOKEN_SINCE = (2, 52)


def _set_token() -> None:
    """Let a cluster of this command require a token that only its own processes know.

    Ray runs code that arrives at its ports, so without a token every user of the machine could run code as this one.
    Set before Ray is imported, because it reads the variables then.
    """
    # Otherwise Ray replaces the loopback address by that of the network card, and listens on all of them.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    if "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:
        os.environ["RAY_AUTH_MODE"] = "token"
        if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _protect(ray: Any) -> dict[str, Any]:
    """Return the arguments of a cluster of this machine that other users cannot reach; log what this Ray cannot do."""
    version = tuple(int(part) for part in re.findall(r"\d+", ray.__version__)[:2])
    if version < _TOKEN_SINCE or os.environ.get("RAY_AUTH_MODE") != "token":
        reason = f"Ray {ray.__version__} has no token" if version < _TOKEN_SINCE else "RAY_AUTH_MODE is not token"
        logger.warning(
            f"the local Ray cluster listens on 127.0.0.1 without a password ({reason}): other users of this machine "
            "could run code as you while it runs; pip install -U ray"
        )
    return {"_node_ip_address": "127.0.0.1"}


def place_on_cluster(jobs: int, execution: Execution, threads: int | None = None) -> DevicePlan:
    """Return the slots of a cluster for `jobs` jobs: one per GPU if there are GPUs, otherwise one per core.

    Parameters
    ----------
    threads : CPU threads per job; None for the rule. A resumed run keeps its number of threads.
    """
    ray = connect(execution.address)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores = int(sum(node.get("CPU", 0) for node in nodes))
    gpus = int(sum(node.get("GPU", 0) for node in nodes)) if execution.devices != "cpu" else 0
    if execution.devices not in ("auto", "cpu"):
        raise UsageError(
            f"`devices={execution.devices}`: on a cluster Ray chooses the GPUs",
            hint="use `devices=auto` or `devices=cpu`, and `jobs=N` for the jobs per GPU",
        )
    max_threads = int(min((node["CPU"] for node in nodes if node.get("CPU")), default=1))
    each = threads or max(1, min(cores // max(jobs, 1), max_threads))
    machines = _counted(len(nodes), "machine")
    if gpus:
        per_gpu = execution.per_device or 1
        slots = max(1, min(jobs, gpus * per_gpu))
        return DevicePlan(
            ("cuda",) * slots,
            each,
            f"training {_counted(slots, 'fold')} in parallel on {_counted(gpus, 'GPU')} of {machines} (Ray)",
            "ray",
            1 / per_gpu,
        )
    slots = max(1, min(jobs, execution.per_device or cores, cores // each))
    reason = (
        f"training {_counted(slots, 'fold')} in parallel on {machines} with {_counted(cores, 'core')} (Ray), "
        f"{_counted(each, 'thread')} each"
    )
    return DevicePlan(("cpu",) * slots, each, reason, "ray")


def train_on_cluster(
    jobs: Sequence[Job], placement: DevicePlan, address: str | None, report: Report, patience: float | None = None
) -> Iterator[Outcome]:
    """Train `jobs` as Ray tasks; yield the outcome of each job when it ends.

    A task whose machine or process is lost runs again elsewhere from the last saved state, with bit-identical results.

    Parameters
    ----------
    address : see `connect`.
    patience : seconds that a job waits for a lock that another process holds, or for a machine with enough resources;
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
    locked = LockedJobs(patience)
    monitor = _ProgressMonitor(waiting, report, locked)
    needs = {"GPU": placement.gpu_share} if placement.gpu_share else {"CPU": placement.threads}
    resources = ResourceWatch(needs, ray.nodes)
    try:
        with mark_folders(waiting, token):
            while pending or waiting or locked.jobs:
                waiting += locked.due()
                while waiting and len(pending) < len(placement.devices):
                    job = waiting.pop()
                    try:
                        pending[submit(json.dumps(job_as_dict(job)), file_manifest(job, token))] = job
                    except EnsembleError as error:
                        yield Outcome(job, error=error)
                ready = _ready(ray, pending)
                monitor.poll(pending.values())
                for reference in ready:
                    job = pending.pop(reference)
                    outcome = _outcome(ray, reference, job, locked)
                    if outcome is not None:
                        monitor.forget(job)
                        yield outcome
                remaining = [*pending.values(), *waiting, *locked.jobs]
                lacking = resources.lacking(patience) if remaining else 0.0
                if lacking >= patience:
                    for job in remaining:
                        yield Outcome(job, error=resources.error(job, lacking))
                    return
    finally:
        for reference, job in pending.items():
            ray.cancel(reference, force=True)
            monitor.forget(job)
        disconnect(address)


def disconnect(address: str | None) -> None:
    """End the cluster if `connect` has started it."""
    if address is None and _own:
        import ray

        ray.shutdown()
        _own.clear()


def _submitting(ray: Any, placement: DevicePlan) -> Callable[[str, dict[str, Any]], Any]:
    """Return a function that submits a job to Ray: (record, manifest) → reference to the outcome.

    A GPU job gets a process of its own: CUDA stays on the GPU that a process used first, but Ray gives a process that
    is used again the number of another GPU. Ray ends it after one call only if the decorator says so, not the options.
    """
    remote = ray.remote(num_gpus=placement.gpu_share, max_calls=1) if placement.gpu_share else ray.remote
    task = remote(run_task).options(
        num_cpus=0 if placement.gpu_share else placement.threads,
        num_gpus=placement.gpu_share,
        max_retries=RETRIES,
        scheduling_strategy="SPREAD",
        runtime_env={"env_vars": variables_of(placement.threads)},
    )
    return lambda record, manifest: task.remote(record, manifest)


def variables_of(threads: int) -> dict[str, str]:
    """Return the environment variables of a process that trains with `threads` threads."""
    source = str(source_root())
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    return {
        "PYTHONPATH": path,
        "PYTHONSAFEPATH": "1",
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS"), str(threads)),
        **allocator_variables(),
    }


def _ready(ray: Any, pending: Mapping[Any, Job]) -> list[Any]:
    """Return the reference of a task that has ended, waiting for `_POLL_SECONDS` at most; [] if none has ended."""
    if pending:
        return list(ray.wait(list(pending), num_returns=1, timeout=_POLL_SECONDS)[0])
    time.sleep(_POLL_SECONDS)
    return []


def _outcome(ray: Any, reference: Any, job: Job, locked: LockedJobs) -> Outcome | None:
    """Return the outcome of a finished task; None for a job that is tried again later."""
    try:
        value = ray.get(reference)
    except ray.exceptions.RayError as error:
        return Outcome(job, error=error_from_ray(job, error, RETRIES))
    if "busy" in value:
        timeout = locked.add(job, value["busy"])
        return None if timeout is None else Outcome(job, error=timeout)
    if "done" in value:
        return Outcome(job, result=value["done"])
    return Outcome(job, error=EnsembleError(value["message"], hint=value["hint"], details=value["details"]))


class _ProgressMonitor:
    """A monitor that reads the progress files of the jobs, and logs or reports their events."""

    def __init__(self, jobs: Sequence[Job], report: Report, locked: LockedJobs) -> None:
        self._report = report
        self._locked = locked
        self._started: set[str] = set()
        self._next = 0.0
        self._readers = {job.title: ProgressReader(progress_file(job)) for job in jobs}
        for reader in self._readers.values():
            reader.forget()  # removes the file of an earlier command

    def poll(self, jobs: Iterable[Job]) -> None:
        """Pass on the new events of the jobs, at most once per `_LISTEN_SECONDS`."""
        if time.monotonic() >= self._next:
            for job in jobs:
                self._pass_on(job)
            self._next = time.monotonic() + _LISTEN_SECONDS

    def _pass_on(self, job: Job) -> None:
        for event in self._readers[job.title].events():
            if event["event"] != "started":
                pass_on(self._report, job, event)
                continue
            self._locked.taken(job)
            if job.title in self._started:
                logger.info(
                    f"{job.title}: worker or machine lost; restarting from the last saved state on {event['node']}"
                )
            self._started.add(job.title)

    def forget(self, job: Job) -> None:
        """Pass on the last events of a finished job, and remove its progress file."""
        self._pass_on(job)
        self._readers[job.title].forget()


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
