"""Train the jobs of a plan, here or on a cluster, and publish finished folds."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence

from folds.execution.local import train_on_this_machine
from folds.execution.placement import plan_devices
from folds.execution.progress_log import Report
from folds.execution.shared_files import remove_marks
from folds.features.embed import embed_jobs, is_frozen
from folds.models.gpus import torch_name
from folds.predictions.files import ALL
from folds.runs.plan import Plan
from folds.runs.publish import write_predictions
from folds.runs.refit import write_refit_predictions
from folds.training.job import LOCK_SECONDS, Job, Outcome, lock_of
from folds.utils.files import remove_stale_temporaries
from folds.utils.locks import exclusive_lock, remove_stale_locks
from folds.utils.progress import SILENT, Progress


@contextlib.contextmanager
def lock_runs(plan: Plan) -> Iterator[None]:
    """Lock the runs of a plan, so that no other process trains, replaces or publishes them.

    Raises
    ------
    EnsembleError : another living process holds one.
    """
    with contextlib.ExitStack() as stack:
        for run in plan.runs:
            stack.enter_context(exclusive_lock(run.runs / f".{run.name}.lock", f"the run {run.folder}"))
            for fold in range(run.assignment.k):  # workers of a killed command may still be exiting
                with exclusive_lock(
                    lock_of(run.folder, fold), f"fold {fold} of the run {run.folder}", wait=LOCK_SECONDS
                ):
                    remove_stale_temporaries(run.runs, f"{run.name}.fold{fold}.test.")
            with exclusive_lock(
                lock_of(run.folder, ALL), f"the model of all people of the run {run.folder}", wait=LOCK_SECONDS
            ):
                remove_stale_temporaries(run.refit_folder)
            remove_stale_temporaries(run.runs, f"{run.name}.oof.")
            remove_stale_temporaries(run.folder)
            remove_marks(run.name, run.runs, run.checkpoints / run.name)
        for folder in {run.runs for run in plan.runs}:
            for inner in (folder, folder / "tta", folder / "tune"):
                remove_stale_locks(inner)
        yield


def train(plan: Plan, jobs: Sequence[Job], report: Report = lambda job, event: None) -> Iterator[Outcome]:
    """Train `jobs`, one per slot at a time; yield each outcome when the job ends, after publishing its fold.

    A failed fold does not affect the others. If the caller stops (Ctrl-C), the workers are ended and finished folds are
    published; with ``resume``, the other folds continue from their last saved state. The caller holds `lock_runs` from
    before `folds.runs.open.prepare_jobs` to the end.
    """
    for run in plan.runs:
        write_predictions(plan, run)  # folds that an interrupted command has finished
        write_refit_predictions(plan, run)
    by_name = {run.name: run for run in plan.runs}
    outcomes = _outcomes(plan, with_features(plan, jobs), report)
    with contextlib.closing(outcomes):  # ends the workers if the caller stops
        for outcome in outcomes:
            if outcome.result is not None:
                write = write_predictions if outcome.job.refit is None else write_refit_predictions
                write(plan, by_name[outcome.job.run])
            yield outcome


def train_unpublished(plan: Plan, jobs: Sequence[Job], report: Report = lambda job, event: None) -> Iterator[Outcome]:
    """Train jobs that are no folds of a run, as `train` does; nothing is published."""
    with contextlib.closing(_outcomes(plan, jobs, report)) as outcomes:
        yield from outcomes


def with_features(plan: Plan, jobs: Sequence[Job], progress: Progress = SILENT) -> list[Job]:
    """Return the jobs with the features of their images, which are computed if a head on frozen features needs them."""
    return embed_jobs(jobs, tuple(dict.fromkeys(map(torch_name, plan.placement.devices))), progress)


def _outcomes(plan: Plan, jobs: Sequence[Job], report: Report) -> Generator[Outcome]:
    """Yield the outcomes of the jobs: on the devices of the plan, heads on frozen features on all cores."""
    if plan.placement.backend == "ray":
        yield from _on_cluster(plan, jobs, report)
        return
    heads = [job for job in jobs if is_frozen(job)]
    others = [job for job in jobs if not is_frozen(job)]
    yield from train_on_this_machine(others, plan.placement, report)
    if heads:
        slots = plan_devices(len(heads), "cpu", plan.execution.per_device, threads=1)
        yield from train_on_this_machine(heads, slots, report)


def _on_cluster(plan: Plan, jobs: Sequence[Job], report: Report) -> Generator[Outcome]:
    from folds.execution.ray_cluster import train_on_cluster

    if jobs:
        yield from train_on_cluster(jobs, plan.placement, plan.execution.address, report)
