"""One job on a machine of a cluster: whether it can be trained there, and what became of it, as plain values."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from folds.errors import EnsembleError, ResourceLockedError
from folds.execution.progress_log import ProgressWriter
from folds.execution.shared_files import missing_here
from folds.training.job import Job, job_from_dict
from folds.utils.locks import exclusive_lock

_MOMENT = (
    1.0  # seconds in which a process that is on its way out leaves; who must wait longer gives its slot to another job
)


def progress_file(job: Job) -> Path:
    """Return ``runs/<run>/fold<i>/progress.jsonl``, what a job that is under way says."""
    return job.fold_dir / "progress.jsonl"


def run_task(record: str, proof: dict[str, Any]) -> dict[str, Any]:
    """Train a job on whatever machine this is.

    Parameters
    ----------
    record : the job as JSON. Text, as for a worker of the same machine: which strings are one object shows in the bytes
        of a checkpoint.
    proof : what the machine must see, from `folds.execution.shared_files.proof`.

    Returns
    -------
    ``{"done": …}``, the content of done.json and the machine; ``{"busy": message}`` where another process holds the
    job's
    lock; or ``{"message": …, "hint": …, "details": […]}``.
    """
    import ray

    job = job_from_dict(json.loads(record))
    node = f"{os.uname().nodename} ({ray.get_runtime_context().get_node_id()[:6]})"
    try:
        _check_shared_files(job, proof, node)
        require_gpu(job, node)
        from folds.training.trainer import train_fold

        with exclusive_lock(job.lock, job.title, wait=_MOMENT):
            pass  # of a process on a machine that was cut off, say
        return {"done": train_fold(job, ProgressWriter(progress_file(job), {"node": node}).add) | {"node": node}}
    except ResourceLockedError as error:
        return {"busy": error.message}
    except EnsembleError as error:
        details = error.details if node in error.message else (*error.details, f"on the machine {node}")
        return {"message": error.message, "hint": error.hint, "details": list(details)}
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        hint = f"it happened on {node}; --resume retries it"
        if isinstance(error, ImportError):
            hint = f"it happened on {node}; all machines need this program and its dependencies in the same versions"
        return {"message": f"{job.title}: {type(error).__name__}: {reason}", "hint": hint, "details": []}


def _check_shared_files(job: Job, proof: dict[str, Any], node: str) -> None:
    lacking = missing_here(proof)
    if lacking:
        raise EnsembleError(
            f"{job.title}: the machine {node} {lacking[0]}",
            hint="put the folder of the command and its files on a drive that all machines share under one path, or "
            "leave --backend ray out",
            details=[f"it {line}" for line in lacking[1:]],
        )


def require_gpu(job: Job, node: str) -> None:
    """Refuse a job for a GPU on a machine whose torch finds none; `node` names the machine."""
    if not job.device.startswith("cuda"):
        return
    import torch

    if not torch.cuda.is_available():
        given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        raise EnsembleError(
            f"{job.title}: Ray gave it GPU {given or '?'} of the machine {node}, but torch finds no GPU there",
            hint="run ensemble doctor on that machine; --devices cpu trains without GPUs",
        )
