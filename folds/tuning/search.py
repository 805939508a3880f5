"""Train the trials of a study in parallel on Ray Tune; unpromising trials are stopped early (ASHA, Li et al. 2020).

Ray Tune schedules and compares the trials; each trial writes its results to its own files. A killed study resumes from
these files, not from Ray's, which are pickled objects: no file that the package reads may run code.
"""

from __future__ import annotations

import io
import json
import logging
import math
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from typing import Any

from folds.auditing.run import audit_decoded, log_findings
from folds.config.sweep import RequestedRecipe
from folds.errors import EnsembleError, UsageError
from folds.execution.placement import DevicePlan, Execution
from folds.execution.ray_cluster import RETRIES, connect, disconnect, variables_of
from folds.execution.shared_files import file_manifest, mark_folders, remove_marks
from folds.metrics.task_names import MULTILABEL
from folds.predictions.file_names import FOLD_HISTORY
from folds.predictions.task_scores import epoch_column
from folds.runs.execute import lock_runs
from folds.runs.open import Images, prepare_jobs
from folds.runs.plan import Plan, build_plan
from folds.runs.recorded_folds import with_recorded_folds
from folds.training.job import Job, job_as_dict
from folds.tuning.objective import check_same_task
from folds.tuning.space import TuneOptions
from folds.tuning.study import RAY, Study, TrialSpec
from folds.tuning.trainable import LOST, PROGRESS, SCORE, run_trial
from folds.tuning.trials import STOPPED, Trial, cell, trial_name, write_trial
from folds.utils.files import remove
from folds.utils.progress import SILENT, Advance, Progress
from folds.utils.text import counted

logger = logging.getLogger(__name__)

_QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the files of the trials have the same content
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the command handles Ctrl-C
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that fails in its first epoch has no score
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints a table at the start, even with verbose=0
}


def require_tune() -> None:
    """Raise an error if Ray Tune cannot be imported.

    Raises
    ------
    UsageError : Ray Tune, or a package that it needs, is not installed.
    """
    try:
        import ray.tune  # noqa: F401
    except ImportError as error:
        reason = " ".join(str(error).split())[:120]
        raise UsageError(
            f"ensemble tune needs Ray Tune, which is not installed: {reason}", hint="pip install 'ray[tune]'"
        ) from None


def train_trials(
    study: Study, devices: str = "auto", address: str | None = None, progress: Progress = SILENT
) -> list[str]:
    """Train the trials that have not ended, in parallel as far as the cluster has room; log and record how each ends.

    The caller holds the lock of the study (`folds.tuning.study.open_study`).

    Parameters
    ----------
    devices : ``auto`` or ``cpu``.
    address : address of a Ray cluster; None for a new one on this machine.

    Returns
    -------
    The trials whose process was lost too often, each with the reason; a resumed study retries them.
    """
    ended = study.ended()
    if ended:
        logger.info(f"{len(ended)} of {counted(len(study.candidates), 'trial')} have ended already")
    left = [one for one in study.candidates if one.number not in ended]
    if not left:
        return []
    require_tune()
    os.environ.update(_QUIET)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the callback below logs the same events
    ray = connect(address, variables_of(study.options.cpus))
    try:
        placement = _plan_devices(ray, study.options, devices, len(left))
        plan = _plan(study, left, placement, Execution(devices, None, "ray", address))
        _log_plan(study, plan)

        def audit(images: Images) -> None:
            log_findings(audit_decoded(plan.data, *images, plan.assignment.fold))

        with lock_runs(plan):
            opened = prepare_jobs(plan, resume=True, progress=progress, decoded=audit)
            # Trials do not predict the test samples: only the best run does, when it is trained on all folds.
            device, memory_fraction = placement.devices[0], min(placement.gpu_share or 1.0, 1.0)
            jobs = [
                replace(
                    job.with_absolute_paths(),
                    test_pixels=None,
                    device=device,
                    memory_fraction=memory_fraction,
                    person_metric=study.options.metric if study.by_person else None,
                )
                for job in opened
            ]
            token = secrets.token_hex(8)
            remove(study.folder / RAY)  # left by a killed command, as are marks of trials that have ended since
            for name in map(trial_name, sorted(ended)):
                remove_marks(name, study.folder, study.folder / name)
            with mark_folders(jobs, token), progress.step("epochs") as advance:
                return _fit(study, left, jobs, placement, token, _Epochs(study, advance))
    finally:
        disconnect(address)


def _plan_devices(ray: Any, options: TuneOptions, devices: str, trials: int) -> DevicePlan:
    """Return the devices of the trials that run in parallel: threads of a CPU each, and a GPU or a fraction of one.

    Raises
    ------
    UsageError : `devices` names single devices.
    EnsembleError : no machine of the cluster has the requested cores or GPUs.
    """
    if devices not in ("auto", "cpu"):
        raise UsageError(
            f"`devices` of a study must be auto or cpu, found {devices}: Ray chooses the GPUs",
            hint="[tune] gpus = 0.5 trains two trials on one GPU",
        )
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores, gpus = (int(sum(node.get(kind, 0) for node in nodes)) for kind in ("CPU", "GPU"))
    most_cores = int(max((node.get("CPU", 0) for node in nodes), default=0))
    if options.cpus > most_cores:
        raise EnsembleError(
            f"[tune] cpus = {options.cpus}: the largest machine has {most_cores} cores",
            hint=f"cpus = {max(1, most_cores)}",
        )
    share = 0.0 if devices == "cpu" or not gpus else 1.0 if options.gpus is None else float(options.gpus)
    if options.gpus and not share and devices != "cpu":
        raise EnsembleError(
            f"[tune] gpus = {options.gpus:g}: Ray finds no GPU", hint="use `devices=cpu`, or remove gpus"
        )
    room = (
        cores // options.cpus
        if not share
        else min(cores // options.cpus, int(gpus / share) if share >= 1 else gpus * int(1 / share))
    )
    slots = max(1, min(trials, room, options.parallel or trials))
    each = f"{options.cpus} thread{'s' if options.cpus > 1 else ''}" + (f" and {share:g} GPU" if share else "")
    reason = (
        f"training {slots} trial{'s' if slots > 1 else ''} in parallel on {cores} core{'s' if cores != 1 else ''}"
        f"{f' and {gpus} GPUs' if share else ''} (Ray), {each} each"
    )
    return DevicePlan(("cuda" if share else "cpu",) * slots, options.cpus, reason, "ray", share)


def _log_plan(study: Study, plan: Plan) -> None:
    people = 0 if plan.table.persons is None else len(set(plan.table.persons.tolist()))
    classes = f"{len(plan.table.classes)} classes"
    if plan.table.has_columns:
        classes = counted(len(plan.table.classes), "label" if plan.table.task == MULTILABEL else "number")
    logger.info(f"{len(plan.table):,} images of {people:,} people, {classes}, {plan.assignment.k} folds by person")
    if plan.assignment.k <= len(study.options.folds):
        logger.warning("[tune] folds names all folds: no fold is left for an unbiased score of the best trial")
    logger.info(plan.placement.reason)


class _Epochs:
    """Progress of all trials in epochs, with a log line for each trial that ends."""

    def __init__(self, study: Study, advance: Advance) -> None:
        self.study = study
        self.advance = advance
        planned = {one.number: one.recipe.epochs * len(study.options.folds) for one in study.candidates}
        ended = study.ended()
        self.left = {number: epochs for number, epochs in planned.items() if number not in ended}
        self.total = sum(self.left.values())
        self.trained: dict[int, int] = {}

    def epoch(self, number: int, epochs: int) -> None:
        """Set the number of epochs that a trial has been trained for, and advance the progress."""
        self.trained[number] = epochs
        self.advance(sum(self.trained.values()), self.total)

    def ended(self, trial: Trial) -> None:
        """Log how a trial ended; the epochs that it skipped count as done."""
        self.epoch(trial.number, self.left.get(trial.number, 0))
        settings = ", ".join(f"{key} {cell(value)}" for key, value in trial.settings.items())
        score = f"failed: {trial.reason}" if trial.score is None else f"{self.study.objective} {trial.score:.3f}"
        early = (
            f", stopped early after {trial.epochs} of {counted(trial.of, 'epoch')}" if trial.state == STOPPED else ""
        )
        logger.info(f"{trial_name(trial.number)}: {settings}: {score}{early}")


def _plan(study: Study, left: Sequence[TrialSpec], placement: DevicePlan, execution: Execution) -> Plan:
    """Return all trials as runs of one plan: one table, one assignment of people to folds, one cache of images."""
    # Grouped by model, because the plan builds each model once to check it.
    by_model = sorted(
        left,
        key=lambda one: (
            one.settings.arch,
            one.recipe.img_size or "",
            json.dumps(one.recipe.model_args, default=str),
            one.number,
        ),
    )
    if any(one.recipe.features for one in by_model):
        raise UsageError(
            "heads on frozen features train in seconds and are not tuned by trials",
            hint="ensemble kfold --features --heads logistic,linear,mlp --sweep lr=3e-4,1e-3 trains and compares all",
        )
    variants = [RequestedRecipe(one.name, one.recipe, one.settings.arch[0]) for one in by_model]
    settings = replace(study.settings, arch=(by_model[0].settings.arch[0],), name=f"{study.name}-tune")
    if placement.kind == "cpu":
        execution = replace(execution, devices="cpu")
    plan = build_plan(
        settings,
        by_model[0].recipe,
        folds=study.options.folds,
        execution=execution,
        variants=variants,
        root=study.root,
        found_folds=study.found_folds,
        k_given=study.k_given,
    )
    check_same_task(study, [run.recipe.task for run in plan.runs])
    pairs, folder = list(zip(by_model, plan.runs, strict=True)), study.folder
    started = [one.name for one in study.candidates]
    (assignment,) = with_recorded_folds([plan.assignment], plan.settings, plan.table, folder, started)
    runs = [
        replace(
            run, name=one.name, base=one.name, baseline=None, runs=folder, checkpoints=folder, assignment=assignment
        )
        for one, run in pairs
    ]
    initial = {one.name: plan.initial_weights[run.name] for one, run in pairs if run.name in plan.initial_weights}
    return replace(
        plan, runs=tuple(sorted(runs, key=lambda run: run.name)), placement=placement, initial_weights=initial
    )


def _fit(
    study: Study,
    left: Sequence[TrialSpec],
    jobs: Sequence[Job],
    placement: DevicePlan,
    token: str,
    epochs: _Epochs,
) -> list[str]:
    from ray import tune

    options = study.options
    tasks = [_task(study, one, [job for job in jobs if job.run == one.name], token) for one in left]
    resources: dict[str, float] = {"CPU": options.cpus} | ({"GPU": placement.gpu_share} if placement.gpu_share else {})
    lost: dict[int, str] = {}
    tuner = tune.Tuner(
        tune.with_resources(run_trial, resources),
        param_space={"trial": tune.grid_search([json.dumps(task) for task in tasks])},
        tune_config=tune.TuneConfig(
            scheduler=_scheduler(study),
            max_concurrent_trials=len(placement.devices),
            reuse_actors=True,  # so that a process imports torch once, not for every trial
            trial_name_creator=lambda trial: trial_name(_number(trial)),
            trial_dirname_creator=lambda trial: trial_name(_number(trial)),
        ),
        run_config=tune.RunConfig(
            name=RAY,
            storage_path=str(study.folder.absolute()),
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            callbacks=[_callback(study, {one.number: one for one in left}, lost, epochs)],
            verbose=0,
        ),
    )
    try:
        with redirect_stdout(io.StringIO()):  # Ray Tune prints even with verbose=0; the log has the same content
            tuner.fit()
    except tune.TuneError as error:
        raise EnsembleError(
            f"Ray Tune failed: {' '.join(str(error).split())[:300]}", hint="`resume=True` trains the missing trials"
        ) from None
    ended = study.ended()
    return [
        f"{trial_name(one.number)}: {lost.get(one.number, 'not trained')}" for one in left if one.number not in ended
    ]


def _task(study: Study, one: TrialSpec, jobs: Sequence[Job], token: str) -> dict[str, Any]:
    inside = sorted(jobs, key=lambda job: study.options.folds.index(job.fold))
    return {
        "number": one.number,
        "settings": dict(one.values),
        "metric": study.options.metric,
        "longest": study.max_epochs,
        "jobs": [job_as_dict(job) for job in inside],
        "proof": [file_manifest(job, token) for job in inside],
    }


def _number(trial: Any) -> int:
    return int(json.loads(trial.config["trial"])["number"])


def _scheduler(study: Study) -> Any:
    """Return an ASHA scheduler that includes the trials of earlier commands.

    Trials are compared at the same fraction of their own training, expressed in epochs of the longest trial. Compared
    at the same number of epochs, a short trial would beat every long one, because its learning rate has decayed
    already.
    """
    from ray.tune.schedulers import ASHAScheduler

    options = study.options
    scheduler: Any = ASHAScheduler(
        time_attr=PROGRESS,
        metric=SCORE,
        mode="min" if options.lower_is_better else "max",
        max_t=study.max_epochs * len(options.folds),
        grace_period=options.grace,
        reduction_factor=options.reduction,
        stop_last_trials=False,
    )
    for number, trial in sorted(study.ended().items()):
        past = _Past(trial_name(number))
        scheduler.on_trial_add(None, past)
        for progress, score in _course(study, trial):
            scheduler.on_trial_result(None, past, {PROGRESS: progress, SCORE: score})
    return scheduler


@dataclass(frozen=True)
class _Past:
    """A trial of an earlier command, with the only attribute that the scheduler uses."""

    trial_id: str


def _course(study: Study, trial: Trial) -> list[tuple[float, float]]:
    """Return (progress, mean score of the folds so far) after each epoch of a trial that has ended."""
    from folds.utils.csv_table import read_csv

    course: list[tuple[float, float]] = []
    before: list[float] = []
    epochs = trial.of // len(study.options.folds)
    for index, fold in enumerate(study.options.folds):
        path = study.trial_dir(trial.number) / f"fold{fold}" / FOLD_HISTORY
        if not path.exists():
            break
        column = epoch_column(study.options.metric, study.by_person)
        scores = list(map(float, read_csv(path).column(column)))
        for epoch, score in enumerate(scores, 1):
            progress = round((index + epoch / epochs) * study.max_epochs, 6)
            if not math.isnan(score):  # such an epoch was not reported either
                course.append((progress, (sum(before) + score) / (index + 1)))
        before.append(trial.folds.get(fold, scores[-1]))
    return course


def _callback(study: Study, left: Mapping[int, TrialSpec], lost: dict[int, str], epochs: _Epochs) -> Any:
    from ray import tune

    class StudyCallbacks(tune.Callback):
        """Callbacks that report progress and record the trials that Ray Tune has stopped."""

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            if SCORE in result:
                epochs.epoch(_number(trial), result["epochs"])

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            number = _number(trial)
            ended, result = study.ended().get(number), trial.last_result or {}
            if LOST in result:
                lost[number] = result[LOST]
            elif ended is None and SCORE in result:
                folds = {int(fold): score for fold, score in json.loads(result["folds"]).items()}
                ended = Trial(
                    number,
                    left[number].values,
                    STOPPED,
                    result[SCORE],
                    folds,
                    result["epochs"],
                    left[number].recipe.epochs * len(study.options.folds),
                    result["seconds"],
                )
                write_trial(study.trial_dir(number), ended)
            if ended is not None:
                epochs.ended(ended)

        def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            logger.info(f"{trial_name(_number(trial))}: process or machine lost; restarting from the last saved state")

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            reason = " ".join(str(getattr(trial, "get_error", lambda: "")() or "").split())
            lost[_number(trial)] = f"worker crashed or was killed, given up after {RETRIES} retries: {reason[-200:]}"

    return StudyCallbacks()
