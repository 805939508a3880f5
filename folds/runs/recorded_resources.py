"""Read how existing runs were started: threads, jobs, GPUs, and what their tables were read as."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from folds.config.files import read_record
from folds.errors import EnsembleError, UsageError
from folds.metrics.task_names import CLASSES
from folds.predictions.file_names import RUN_CONFIG
from folds.runs.recorded_settings import resolved_number, resolved_of
from folds.runs.run import Run


@dataclass(frozen=True)
class RecordedResources:
    """The threads, jobs and GPUs of each job of an earlier start; None if they were not recorded.

    Attributes
    ----------
    jobs_measured_on : the GPUs for which the number of jobs was measured; () if it was given, or is that of a CPU.
    """

    threads: int | None = None
    jobs: int | None = None
    gpus_per_job: int | None = None
    jobs_measured_on: tuple[str, ...] = ()

    def jobs_on(self, gpu: str) -> int | None:
        """Return the number of jobs for a GPU of this name; None if it was measured for another one."""
        return self.jobs if not self.jobs_measured_on or self.jobs_measured_on == (gpu,) else None

    def gpus(self, asked: int | None) -> int:
        """Return the number of GPUs that train a fold together: that of the earlier start, or the one asked for.

        Raises
        ------
        UsageError : another number is asked for: sums over other parts of a batch give other numbers.
        """
        if asked is not None and self.gpus_per_job not in (None, asked):
            raise UsageError(
                f"`gpus_per_job={asked}`: the run was started with {self.gpus_per_job}, and another number gives "
                "different numbers in the last digits",
                hint="leave it out to continue; `name=NEW` starts another run; `force=True` retrains it from scratch",
            )
        return asked or self.gpus_per_job or 1


def recorded_start(runs: Sequence[Run]) -> RecordedResources:
    """Return the threads per job and the jobs per device of an earlier start (results depend on the number of threads).

    Raises
    ------
    EnsembleError : a record is damaged, or the runs were started with different numbers of threads.
    """
    threads: dict[int, str] = {}
    jobs: list[int] = []
    gpus: dict[int, str] = {}
    measured: set[str] = set()
    for run in runs:
        path = run.folder / RUN_CONFIG
        if path.exists():
            resolved = resolved_of(read_record(path), path)
            threads[resolved_number(resolved, "threads", path) or 1] = run.name
            gpus[resolved_number(resolved, "gpus_per_job", path) or 1] = run.name
            jobs += [number for number in [resolved_number(resolved, "jobs", path)] if number is not None]
            if resolved.get("jobs_measured_on"):
                measured.add(str(resolved["jobs_measured_on"]))
    if len(threads) > 1:
        each = ", ".join(f"{name} with {number}" for number, name in sorted(threads.items()))
        raise EnsembleError(
            f"these runs were started with different numbers of threads per job: {each}",
            hint="use `resume=True` for one run at a time (`arch=NAME`)",
        )
    if len(gpus) > 1:
        each = ", ".join(f"{name} with {number}" for number, name in sorted(gpus.items()))
        raise EnsembleError(
            f"these runs were started with different numbers of GPUs per job: {each}",
            hint="use `resume=True` for one run at a time (`arch=NAME`)",
        )
    return RecordedResources(
        next(iter(threads), None), min(jobs, default=None), next(iter(gpus), None), tuple(sorted(measured))
    )


def recorded_reading(runs: Path, names: Sequence[str]) -> str | None:
    """Return `CLASSES` if one of these runs exists and was started with a table of classes; None if there is none.

    Several labels and numbers are recorded, so a run that records no task has classes, also if they are numbers.
    """
    paths = [path for name in names if (path := runs / name / RUN_CONFIG).is_file()]
    return CLASSES if any(read_record(path).get("task") in (None, CLASSES) for path in paths) else None
