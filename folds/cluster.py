"""The jobs of a plan as tasks of a Ray cluster; a lost machine costs a job what it has not saved.

Plain tasks with retries, not joblib's Ray backend: when a node is lost that one fails the whole call. Progress comes by
files beside the results, which all machines see anyway, not through a queue that would live on one of them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from folds.devices import Execution, Placement
from folds.errors import EnsembleError, UsageError
from folds.files import write_atomic
from folds.job import Job, Outcome, job_as_dict, job_from_dict

Report = Callable[[Job, dict[str, Any]], None]
RETRIES = 5  # of a job whose machine or process is lost; it goes on from its last saved state
_POLL_SECONDS = 0.3
_own: list[bool] = []  # whether this process has started a cluster of its own
_TOKEN = ".shared"  # noqa: S105 - a file that says whether a machine sees the folder of the run


def connect(address: str | None) -> Any:
    """The ray module, connected to the cluster at `address` (``auto``, ``HOST:PORT``), or to one of this machine alone.

    Raises
    ------
    UsageError : Ray is not installed.
    EnsembleError : there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise UsageError("--backend ray needs Ray, which is not installed", hint="pip install ray") from None
    if not ray.is_initialized():
        if address is None:
            _own.append(True)
        try:
            ray.init(
                address=address or "local", log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False if address is None else None
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise EnsembleError(
                f"--ray-address {address}: {reason}", hint="ray status --address HOST:PORT shows whether it runs; ray start --head starts one"
            ) from None
    return ray


def place_on_cluster(jobs: int, execution: Execution, threads: int | None = None) -> Placement:
    """The slots that a cluster has for `jobs` jobs: one a GPU where there are GPUs, else one a core.

    Parameters
    ----------
    threads : CPU threads a job, instead of the rule (a run that is resumed keeps its own).
    """
    ray = connect(execution.address)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores = int(sum(node.get("CPU", 0) for node in nodes))
    gpus = int(sum(node.get("GPU", 0) for node in nodes)) if execution.devices != "cpu" else 0
    if execution.devices not in ("auto", "cpu"):
        raise UsageError(f"--devices {execution.devices}: on a cluster Ray chooses the GPUs", hint="--devices auto or cpu, --jobs N a GPU")
    largest = int(min((node["CPU"] for node in nodes if node.get("CPU")), default=1))
    each = threads or max(1, min(cores // max(jobs, 1), largest))
    many = "1 machine" if len(nodes) == 1 else f"{len(nodes)} machines"
    if gpus:
        per_gpu = execution.per_device or 1
        slots = max(1, min(jobs, gpus * per_gpu))
        return Placement(("cuda",) * slots, each, f"{slots} jobs at a time on the {gpus} GPUs of {many} (Ray)", "ray", 1 / per_gpu)
    slots = max(1, min(jobs, execution.per_device or cores, cores // each))
    reason = f"{slots} jobs at a time on {many} with {cores} cores (Ray), {each} thread{'s' if each > 1 else ''} each"
    return Placement(("cpu",) * slots, each, reason, "ray")


def train_on_cluster(jobs: Sequence[Job], placement: Placement, address: str | None, report: Report) -> Iterator[Outcome]:
    """Train `jobs`, each a task that Ray runs where there is room, and yield how each ended, as they end.

    A task whose machine or process is lost is run again elsewhere, from the job's last saved state, to the same bytes.
    """
    ray = connect(address)
    token = secrets.token_hex(8)
    source = str(Path(__file__).resolve().parent.parent)  # also when run from a source tree that is not installed
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    variables = {"PYTHONPATH": path, **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(placement.threads))}
    task = ray.remote(_run).options(
        num_cpus=0 if placement.gpu_share else placement.threads,
        num_gpus=placement.gpu_share,
        max_retries=RETRIES,
        scheduling_strategy="SPREAD",
        runtime_env={"env_vars": variables},
    )
    pending: dict[Any, Job] = {}
    waiting = list(reversed(jobs))
    heard: dict[str, str] = {}
    try:
        while pending or waiting:
            while waiting and len(pending) < len(placement.devices):
                job = waiting.pop()
                away = replace(job.anywhere(), device=placement.devices[0])
                write_atomic(Path(away.folder) / _TOKEN, token)
                _progress_file(away).unlink(missing_ok=True)  # of an earlier command
                # As text, like the local workers' jobs: which strings are one object shows in the bytes of a checkpoint.
                pending[task.remote(json.dumps(job_as_dict(away)), token)] = away
            ready, _ = ray.wait(list(pending), num_returns=1, timeout=_POLL_SECONDS)
            for job in pending.values():
                _listen(job, heard, report)
            for reference in ready:
                job = pending.pop(reference)
                _progress_file(job).unlink(missing_ok=True)
                yield _outcome(ray, reference, job)
    finally:
        for reference in pending:
            ray.cancel(reference, force=True)
        if address is None and _own:  # not a cluster that somebody else has connected to
            ray.shutdown()
            _own.clear()


def _outcome(ray: Any, reference: Any, job: Job) -> Outcome:
    try:
        value = ray.get(reference)
    except ray.exceptions.RayError as error:
        said = str(error).strip().splitlines()
        reason = " ".join((said[0] if said else type(error).__name__).split())[:200]
        message = f"{job.title}: given up after {RETRIES} retries: {type(error).__name__}: {reason}"
        return Outcome(job, error=EnsembleError(message, hint="--resume goes on from what is saved"))
    if "done" in value:
        return Outcome(job, result=value["done"])
    return Outcome(job, error=EnsembleError(value["message"], hint=value["hint"], details=value["details"]))


def _progress_file(job: Job) -> Path:
    return job.place / "progress.json"


def _listen(job: Job, heard: dict[str, str], report: Report) -> None:
    """Pass on what a task has written since it was last looked at."""
    try:
        text = _progress_file(job).read_text()
    except OSError:
        return
    if text != heard.get(job.title):
        heard[job.title] = text
        try:
            event = json.loads(text)
        except ValueError:  # half of it has arrived over a network drive
            return
        report(job, event)


def _run(record: str, token: str) -> dict[str, Any]:
    """The task: train a job on whatever machine this is."""
    import ray

    from folds.training import train_job

    job = job_from_dict(json.loads(record))
    context = ray.get_runtime_context()
    node = f"{os.uname().nodename} ({context.get_node_id()[:6]})"
    try:
        seen = (Path(job.folder) / _TOKEN).read_text()
    except OSError:
        seen = ""
    if seen != token:
        hint = "run it in a folder that all machines share under one path (a network drive), or without --backend ray"
        return {"message": f"{job.title}: the machine {node} does not see {job.folder}", "hint": hint, "details": []}
    written = 0.0

    def report(event: dict[str, Any]) -> None:
        nonlocal written
        if event["event"] == "step" and time.monotonic() - written < _POLL_SECONDS:
            return
        written = time.monotonic()
        path = _progress_file(job)
        with contextlib.suppress(OSError):  # what it says is for the eye alone
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_name(f".{path.name}.tmp")
            aside.write_text(json.dumps(event | {"node": node}))
            aside.replace(path)

    try:
        return {"done": train_job(job, report) | {"node": node}}
    except EnsembleError as error:
        return {"message": error.message, "hint": error.hint, "details": list(error.details)}
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        return {"message": f"{job.title}: {type(error).__name__}: {reason}", "hint": f"it happened on {node}; --resume tries it again", "details": []}
