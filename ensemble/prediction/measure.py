"""Measure the time and the peak memory of predicting images with parts of a blend.

``python -m ensemble.prediction.measure`` reads a job as JSON from standard input and prints its peak memory: memory of
a process that did other work before says nothing.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.learning.combination import Combination
from ensemble.prediction.cascade import with_cascade
from ensemble.prediction.predict import predict_table
from ensemble.prediction.source import PredictionSource, RunModels, load_source
from folds.data.table import SampleTable
from folds.errors import EnsembleError
from folds.models.accelerators import peak_bytes
from folds.utils.progress import Advance

ROUNDS = 3


def part_of(source: PredictionSource, run: RunModels) -> PredictionSource:
    """Return the source of one run of a blend alone: the mean of its folds."""
    one = Combination((run.name,))
    return PredictionSource(
        run.name, "run", run.classes, run.target, one, (run,), class_attributes=source.class_attributes
    )


def seconds_per_image(
    sources: Mapping[str, PredictionSource], table: SampleTable, device: str, advance: Advance = lambda done, of: None
) -> dict[str, tuple[float, float]]:
    """Return key → median seconds and forward passes per image; the sources take turns, so all share a slow moment.

    The start is not counted: a call with one image is subtracted from a call with all.
    """
    times: dict[str, list[float]] = {key: [] for key in sources}
    passes: dict[str, float] = {}
    single = table.take(np.zeros(1, np.int64))
    for number in range(ROUNDS):
        for at, (key, source) in enumerate(sources.items()):
            start, _ = _timed(source, single, device)
            whole, passes[key] = _timed(source, table, device)
            times[key].append(max(whole - start, 0.0) / (len(table) - 1))
            advance(number * len(sources) + at + 1, ROUNDS * len(sources))
    return {key: (statistics.median(found), passes[key]) for key, found in times.items()}


def _timed(source: PredictionSource, table: SampleTable, device: str) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        found = predict_table(source, table, work=Path(folder), device=device, skip_unreadable=True)
        return time.perf_counter() - start, found.passes


def peak_memory(job: Mapping[str, Any]) -> int | None:
    """Return the peak memory in bytes of a child process that predicts; None if it fails.

    Parameters
    ----------
    job : see `_run`.
    """
    command = [sys.executable, "-m", "ensemble.prediction.measure"]
    done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, check=False)
    try:
        return int(json.loads(done.stdout.splitlines()[-1])["peak"])
    except (IndexError, ValueError, KeyError, TypeError):
        return None


def job_of(
    what: str, root: Path, device: str, images: Sequence[Path], fold: int | None = None, **given: Any
) -> dict[str, Any]:
    """Return a job for `peak_memory`: `what` is loaded by name, then reduced to one `run`, `plain` view or `fold`."""
    paths = [str(path.absolute()) for path in images]
    return {"what": what, "root": str(root.absolute()), "device": device, "images": paths, "fold": fold, **given}


def _run(job: Mapping[str, Any]) -> int:
    """Predict as the job says; return the peak memory in bytes, with that of a GPU."""
    from ensemble.prediction.inputs import images_table

    source = reduced(load_source(job["what"], Path(job["root"])), job)
    table = images_table(job["images"], source)
    with tempfile.TemporaryDirectory() as folder:
        predict_table(source, table, work=Path(folder), device=job["device"], skip_unreadable=True)
    return _peak_of_this_process() + peak_bytes()


def _peak_of_this_process() -> int:
    """Return the peak resident memory in bytes."""
    try:
        # `ru_maxrss` of a child begins with the memory of its parent at the fork; this line begins at the exec.
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration, ValueError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def reduced(source: PredictionSource, job: Mapping[str, Any]) -> PredictionSource:
    """Return the part of a source that a job names.

    Raises
    ------
    EnsembleError : the source has no such run or fold.
    """
    from dataclasses import replace

    from ensemble.cascade.record import Cascade
    from ensemble.prediction.source import PLAIN

    if job.get("cascade") is not None:
        views = {run.name: len(run.merge.weights) for run in source.runs}
        folds = {run.name: len(run.models) for run in source.runs}
        return with_cascade(source, Cascade.from_json(job["cascade"], views, folds, "the job"))
    if job.get("run") is None:
        return source
    run = next((one for one in source.runs if one.name == job["run"]), None)
    if run is None:
        raise EnsembleError(f"{source.name} has no run {job['run']}")
    if job.get("plain"):
        run = replace(run, merge=PLAIN)
    if job.get("fold") is not None:
        run = replace(run, models=tuple(one for one in run.models if one.checkpoint.fold == job["fold"]))
    return part_of(source, run)


if __name__ == "__main__":
    print(json.dumps({"peak": _run(json.load(sys.stdin))}))
