"""Train the jobs of a plan over the slots there are, and publish what is finished as prediction files."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from folds.errors import EnsembleError
from folds.execution.worker import Worker, WorkerDied
from folds.predictions.files import PredictionMetadata, oof_file, read_array, sidecar_path, write_prediction
from folds.runs.plan import Plan
from folds.runs.run import Run
from folds.training.job import LOCK_SECONDS, Job, Outcome, job_as_dict, lock_of
from folds.utils.files import read_json, remove_stale_temporaries
from folds.utils.locks import exclusive_lock

Report = Callable[[Job, dict[str, Any]], None]
RETRIES = 2  # of a job whose process was killed and that has saved nothing new since


@contextlib.contextmanager
def lock_runs(plan: Plan) -> Iterator[None]:
    """Hold the runs of a plan, so that no other process trains, replaces or publishes them meanwhile.

    Raises
    ------
    EnsembleError : another living process holds one.
    """
    with contextlib.ExitStack() as stack:
        for run in plan.runs:
            stack.enter_context(exclusive_lock(run.runs / f".{run.name}.lock", f"the run {run.folder}"))
            for fold in range(run.assignment.k):  # workers of a command that was killed may still be on their way out
                with exclusive_lock(
                    lock_of(run.folder, fold), f"fold {fold} of the run {run.folder}", wait=LOCK_SECONDS
                ):
                    remove_stale_temporaries(run.runs, f"{run.name}.fold{fold}.test.")
            remove_stale_temporaries(run.runs, f"{run.name}.oof.")
            remove_stale_temporaries(run.folder)
        yield


def train(plan: Plan, jobs: Sequence[Job], report: Report = lambda job, event: None) -> Iterator[Outcome]:
    """Train `jobs`, one a slot at a time, and yield how each ended, as they end; finished folds are published at once.

    A fold that fails does not take the others along. When the caller stops (Ctrl-C), the workers are ended; what is
    finished is published, and what was under way goes on from its last epoch with --resume.
    The caller holds the locks of `locked` from before `open_runs` to the end.
    """
    for run in plan.runs:
        write_predictions(plan, run)  # also what an interrupted command had finished
    by_name = {run.name: run for run in plan.runs}
    outcomes = (
        _on_cluster(plan, jobs, report) if plan.placement.backend == "ray" else _on_this_machine(plan, jobs, report)
    )
    with contextlib.closing(outcomes):  # its workers end when the caller stops
        for outcome in outcomes:
            if outcome.result is not None:
                write_predictions(plan, by_name[outcome.job.run])
            yield outcome


def _on_cluster(plan: Plan, jobs: Sequence[Job], report: Report) -> Generator[Outcome]:
    from folds.execution.ray_cluster import train_on_cluster

    if jobs:
        yield from train_on_cluster(jobs, plan.placement, plan.execution.address, report)


def _on_this_machine(plan: Plan, jobs: Sequence[Job], report: Report) -> Generator[Outcome]:
    from joblib import Parallel, delayed

    if not jobs:
        return
    workers = [Worker(plan.placement.threads) for _ in plan.placement.devices[: len(jobs)]]
    slots: queue.Queue[tuple[str, Worker]] = queue.Queue()
    for slot in zip(plan.placement.devices, workers, strict=False):
        slots.put(slot)

    def in_slot(job: Job) -> Outcome:
        device, worker = slots.get()
        try:
            return _train_one(
                replace(job, device=device, memory_fraction=1 / plan.placement.devices.count(device)), worker, report
            )
        finally:
            slots.put((device, worker))

    # Threads, because each only waits for its worker; the training is in the workers.
    parallel = Parallel(
        n_jobs=len(workers), backend="threading", return_as="generator_unordered", pre_dispatch="all", batch_size=1
    )
    try:
        yield from parallel(delayed(in_slot)(job) for job in jobs)
    finally:
        for worker in workers:
            worker.stop()


def _train_one(job: Job, worker: Worker, report: Report) -> Outcome:
    state, before, in_vain = job.fold_dir / "state.pt", 0, 0
    while True:
        try:
            return Outcome(job, result=worker.run(job_as_dict(job), lambda event: report(job, event)))
        except EnsembleError as error:
            return Outcome(job, error=error)
        except WorkerDied as death:
            if worker.stopped:
                return Outcome(
                    job, error=EnsembleError(f"{job.title}: stopped", hint="--resume goes on from what is saved")
                )
            # A process that is killed again and again without getting any further is killed for a reason.
            saved = state.stat().st_mtime_ns if state.exists() else 0
            in_vain, before = (in_vain + 1 if saved == before else 0), saved
            if in_vain > RETRIES:
                message = f"{job.title}: its process {death}"
                return Outcome(
                    job, error=EnsembleError(message, hint="out of memory? fewer --jobs or a smaller --batch-size")
                )
            report(job, {"event": "note", "text": f"{job.title}: its process {death}; going on from what is saved"})


def write_predictions(plan: Plan, run: Run) -> None:
    """Stitch the finished folds of a run into ``runs/<run>.oof.npy`` and write its test predictions.

    The out-of-fold file has one row a training sample, in the order of the table; rows of a fold that is not trained
    are absent.
    """
    finished = [(fold, done) for fold in range(run.assignment.k) if (done := run.done(fold)) is not None]
    if not finished:
        return
    table = plan.table
    probabilities = np.zeros((len(table), len(run.target.classes)), np.float32)
    present = np.zeros(len(table), bool)
    for fold, _ in finished:
        rows = run.assignment.validation_index(fold)
        probabilities[rows] = read_array(run.fold_folder(fold) / "oof.npy")
        present[rows] = True
    index = np.flatnonzero(present)
    shared = PredictionMetadata(
        kind="probability",
        split="oof",
        classes=run.target.classes,
        rows=table.rows().take(index),
        target=run.target.name,
        class_attributes=table.class_attributes,
        fold=run.assignment.fold[index],
        run=run.name,
        arch=run.architecture.timm_name,
        seed=run.recipe.seed,
        repeat=run.assignment.repeat,
        folds_sha=run.assignment.sha,
        checkpoint_sha={str(fold): done["checkpoint_sha"] for fold, done in finished},
    )
    path = oof_file(run.runs, run.name)
    if not _published(path, shared):
        write_prediction(path, probabilities[index], shared, samples=table.rows())
    test = plan.data.test
    if test is None:
        return
    for fold, done in finished:
        path = run.runs / f"{run.name}.fold{fold}.test.npy"
        sidecar = replace(shared, split="test", rows=test.rows(), fold=fold, checkpoint_sha=done["checkpoint_sha"])
        if not _published(path, sidecar):
            write_prediction(path, read_array(run.fold_folder(fold) / "test.npy"), sidecar, samples=test.rows())


def _published(path: Path, sidecar: PredictionMetadata) -> bool:
    """Whether `path` already holds exactly these folds: a file that is right keeps its date."""
    if not (path.exists() and sidecar_path(path).exists()):
        return False
    return read_json(sidecar_path(path)).get("checkpoint_sha") == sidecar.checkpoint_sha and len(
        read_array(path)
    ) == len(sidecar.rows)
