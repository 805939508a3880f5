"""Run one job on a machine of a cluster: check the machine, train, and return the outcome as plain values."""

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

_LOCK_WAIT = 1.0  # seconds for a process that is exiting; after that, the slot is used for another job


def progress_file(job: Job) -> Path:
    """Return the file of the progress events of a job, ``runs/<run>/fold<i>/progress.jsonl``."""
    return job.fold_dir / "progress.jsonl"


def run_task(record: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """Train a job on this machine and return its outcome.

    The outcome is ``{"done": …}`` with the content of done.json and the machine, ``{"busy": message}`` if another
    process holds the lock of the job, or ``{"message": …, "hint": …, "details": […]}`` for an error.

    Parameters
    ----------
    record : the job as JSON text, as for a local worker: the bytes of a checkpoint depend on which strings are the same
        object.
    manifest : the files that the machine must see, from `folds.execution.shared_files.file_manifest`.
    """
    import ray

    job = job_from_dict(json.loads(record))
    node = f"{os.uname().nodename} ({ray.get_runtime_context().get_node_id()[:6]})"
    try:
        _check_shared_files(job, manifest, node)
        require_gpu(job, node)
        from folds.features.train import train_job

        with exclusive_lock(job.lock, job.title, wait=_LOCK_WAIT):
            pass  # a process on a disconnected machine may still hold it
        return {"done": train_job(job, ProgressWriter(progress_file(job), {"node": node}).add) | {"node": node}}
    except ResourceLockedError as error:
        return {"busy": error.message}
    except EnsembleError as error:
        details = error.details if node in error.message else (*error.details, f"on the machine {node}")
        return {"message": error.message, "hint": error.hint, "details": list(details)}
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        hint = f"the error occurred on {node}; `resume=True` tries again"
        if isinstance(error, ImportError):
            hint = f"the error occurred on {node}; all machines need the same versions of ensemble and its dependencies"
        return {"message": f"{job.title}: {type(error).__name__}: {reason}", "hint": hint, "details": []}


def _check_shared_files(job: Job, manifest: dict[str, Any], node: str) -> None:
    problems = missing_here(manifest)
    if problems:
        raise EnsembleError(
            f"{job.title}: the machine {node} {problems[0]}",
            hint="use a drive that all machines see under the same path for the working folder and its files, or train "
            "without `backend=ray`",
            details=[f"it {line}" for line in problems[1:]],
        )


def require_gpu(job: Job, node: str) -> None:
    """Raise EnsembleError for a GPU job if torch finds no GPU; `node` is the name of the machine."""
    if not job.device.startswith("cuda"):
        return
    import torch

    if not torch.cuda.is_available():
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "") or "?"
        raise EnsembleError(
            f"{job.title}: Ray assigned GPU {gpu} of the machine {node}, but torch finds no GPU there",
            hint="run ensemble doctor on that machine; `devices=cpu` trains without GPUs",
        )
