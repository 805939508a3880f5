"""What became of a task that Ray could not bring to its end: what happened, how often it was tried, what mends it."""

from __future__ import annotations

import re

from folds.errors import EnsembleError
from folds.training.job import Job

# By Ray's name of it. {where} is the machine's address, {first} and {last} a line of what Ray says.
_ENDS = {
    "WorkerCrashedError": (
        "its process crashed or was killed, given up after {retries} retries",
        "out of memory? fewer --jobs or a smaller --batch-size; Ray's logs of that machine have its last words; --resume goes on from what is saved",
    ),
    "NodeDiedError": (
        "its machine{where} was lost, given up after {retries} retries",
        "ray status shows which machines are left; --resume goes on from what is saved",
    ),
    "OutOfMemoryError": (
        "its machine{where} ran out of memory, each time it was tried",
        "fewer --jobs, a smaller --batch-size, or machines with more memory; --resume goes on from what is saved",
    ),
    "TaskUnschedulableError": (
        "Ray has no machine for it: {first}",
        "ray status shows what there is; --resume when a machine has room for it",
    ),
    "TaskCancelledError": ("it was cancelled from outside", "--resume goes on from what is saved"),
    "RuntimeEnvSetupError": (
        "Ray could not set up its process: {last}",
        "runtime_env_setup*.log among Ray's logs of that machine says why; --resume when it is mended",
    ),
    "LocalRayletDiedError": ("Ray has ended on this machine", "ray start begins it again, --resume goes on from what is saved"),
    "RayTaskError": (
        "it could not begin on the machine{where}: {last}",
        "all machines need this program and what it needs, in the same versions; --resume tries it again",
    ),
}


def explained(job: Job, error: Exception, retries: int) -> EnsembleError:
    """The error for a job whose task ended with one of `ray.exceptions`.

    Parameters
    ----------
    retries : how often Ray has tried a task again that lost its process or its machine.
    """
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [" ".join(line.split())[:200] for line in text.splitlines() if line.strip()] or ["no reason given"]
    address = re.search(r"\b(?:IP: |ip=)([\w.:]*\w)", text)
    name = next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _ENDS), None)
    what, hint = _ENDS[name] if name else (f"{type(error).__name__}: {{first}}", "--resume goes on from what is saved")
    where = f" {address[1]}" if address else ""
    return EnsembleError(f"{job.title}: {what.format(where=where, first=lines[0], last=lines[-1], retries=retries)}", hint=hint)
