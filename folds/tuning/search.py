"""The trials of a tuning on Ray Tune: trained side by side, the hopeless ones stopped early (ASHA, Li et al. 2020).

Ray Tune schedules and compares; what a trial has come to is in its own files. A tuning that was killed goes on from
those,
not from Ray's: they are pickled objects, and nothing that is read from disk may run code.
"""

from __future__ import annotations

import io
import json
import logging
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
from folds.execution.shared_files import file_manifest, mark_folders
from folds.runs.execute import lock_runs
from folds.runs.open import Images, prepare_jobs
from folds.runs.plan import Plan, build_plan
from folds.training.job import Job, job_as_dict
from folds.tuning.space import TuneOptions
from folds.tuning.study import RAY, Study, TrialSpec
from folds.tuning.trainable import LOST, PROGRESS, SCORE, run_trial
from folds.tuning.trials import STOPPED, Trial, cell, trial_name, write_trial
from folds.utils.files import remove
from folds.utils.progress import SILENT, Advance, Progress

logger = logging.getLogger(__name__)

_QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # what they write is in the trials' own files
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that fails in its first epoch has no score
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a table at its beginning, however quiet it is told to be
}


def require_tune() -> None:
    """Refuse to begin without Ray Tune.

    Raises
    ------
    UsageError : it, or something that it needs, is not installed.
    """
    try:
        import ray.tune  # noqa: F401
    except ImportError as error:
        reason = " ".join(str(error).split())[:120]
        raise UsageError(
            f"ensemble tune needs Ray Tune, which is not installed: {reason}", hint="pip install 'ray[tune]'"
        ) from None


def train_trials(
    tuning: Study, devices: str = "auto", address: str | None = None, progress: Progress = SILENT
) -> list[str]:
    """Train the trials that have not ended, as many side by side as the cluster has room for; how each ended is logged,
    and in its folder.

    The caller holds the tuning (`folds.tuning.study.open_study`).

    Parameters
    ----------
    devices : ``auto`` or ``cpu``.
    address : of a Ray cluster; None: one of this machine alone.

    Returns
    -------
    The trials that were lost with their process too often, and why; --resume tries them again.
    """
    ended = tuning.ended()
    if ended:
        logger.info(f"{len(ended)} of {len(tuning.candidates)} trials have ended before")
    left = [one for one in tuning.candidates if one.number not in ended]
    if not left:
        return []
    require_tune()
    os.environ.update(_QUIET)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what happens is told in a line of ours
    ray = connect(address, variables_of(tuning.options.cpus))
    try:
        placement = _place(ray, tuning.options, devices, len(left))
        plan = _plan(tuning, left, placement, Execution(devices, None, "ray", address))
        _log_plan(tuning, plan)

        def audit(images: Images) -> None:
            log_findings(audit_decoded(plan.data, *images, plan.assignment.fold))

        with lock_runs(plan):
            opened = prepare_jobs(plan, resume=True, progress=progress, decoded=audit)
            # Test samples are predicted when a choice has been made.
            device, share = placement.devices[0], min(placement.gpu_share or 1.0, 1.0)
            jobs = [
                replace(job.with_absolute_paths(), test_pixels=None, device=device, memory_fraction=share)
                for job in opened
            ]
            token = secrets.token_hex(8)
            remove(tuning.folder / RAY)  # of a command that was killed
            with mark_folders(jobs, token), progress.step("epochs") as advance:
                return _fit(tuning, left, jobs, placement, token, _Epochs(tuning, advance))
    finally:
        disconnect(address)


def _place(ray: Any, options: TuneOptions, devices: str, trials: int) -> DevicePlan:
    """Return as many trials at a time as there is room for: a thread each on a CPU, or a GPU, or a share of one."""
    if devices not in ("auto", "cpu"):
        raise UsageError(
            f"--devices {devices}: Ray chooses the GPUs",
            hint="--devices auto or cpu; [tune] gpus = 0.5 puts two trials on one",
        )
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores, gpus = (int(sum(node.get(kind, 0) for node in nodes)) for kind in ("CPU", "GPU"))
    largest = int(max((node.get("CPU", 0) for node in nodes), default=0))
    if options.cpus > largest:
        raise EnsembleError(
            f"[tune] cpus = {options.cpus}: the largest machine has {largest} cores", hint=f"cpus = {max(1, largest)}"
        )
    share = 0.0 if devices == "cpu" or not gpus else 1.0 if options.gpus is None else float(options.gpus)
    if options.gpus and not share and devices != "cpu":
        raise EnsembleError(
            f"[tune] gpus = {options.gpus:g}: Ray finds no GPU", hint="--devices cpu, or leave gpus out"
        )
    most = (
        cores // options.cpus
        if not share
        else min(cores // options.cpus, int(gpus / share) if share >= 1 else gpus * int(1 / share))
    )
    slots = max(1, min(trials, most, options.parallel or trials))
    each = f"{options.cpus} thread{'s' if options.cpus > 1 else ''}" + (f" and {share:g} GPU" if share else "")
    reason = (
        f"{slots} trials at a time on {cores} core{'s' if cores != 1 else ''}{f' and {gpus} GPUs' if share else ''} "
        f"(Ray), {each} each"
    )
    return DevicePlan(("cuda" if share else "cpu",) * slots, options.cpus, reason, "ray", share)


def _log_plan(tuning: Study, plan: Plan) -> None:
    people = 0 if plan.table.persons is None else len(set(plan.table.persons.tolist()))
    logger.info(
        f"{len(plan.table):,} images of {people:,} people, {len(plan.table.classes)} classes, {plan.assignment.k} "
        "folds by person"
    )
    if plan.assignment.k <= len(tuning.options.folds):
        logger.warning("the choice is made on all folds: no fold is left to say what the best is worth")
    logger.info(plan.placement.reason)


class _Epochs:
    """Counts the epochs of all trials, and logs how each ends."""

    def __init__(self, tuning: Study, advance: Advance) -> None:
        self.tuning = tuning
        self.advance = advance
        of = {one.number: one.recipe.epochs * len(tuning.options.folds) for one in tuning.candidates}
        ended = tuning.ended()
        self.left = {number: epochs for number, epochs in of.items() if number not in ended}
        self.total = sum(self.left.values())
        self.done: dict[int, int] = {}

    def epoch(self, number: int, done: int) -> None:
        """Count the epochs that a trial has been trained."""
        self.done[number] = done
        self.advance(sum(self.done.values()), self.total)

    def ended(self, trial: Trial) -> None:
        """Log how a trial ended; what it was not trained for counts as done."""
        self.epoch(trial.number, self.left.get(trial.number, 0))
        settings = ", ".join(f"{key} {cell(value)}" for key, value in trial.settings.items())
        score = f"failed: {trial.reason}" if trial.score is None else f"{self.tuning.options.metric} {trial.score:.3f}"
        early = f", stopped early after {trial.epochs} of {trial.of} epochs" if trial.state == STOPPED else ""
        logger.info(f"{trial_name(trial.number)}: {settings}: {score}{early}")


def _plan(tuning: Study, left: Sequence[TrialSpec], placement: DevicePlan, execution: Execution) -> Plan:
    """Return all trials as runs of one plan: one table, one assignment of people to folds, one cache of images."""
    # Those of one model one after the other: it is built once to see that it can be.
    alike = sorted(
        left,
        key=lambda one: (
            one.settings.arch,
            one.recipe.img_size or "",
            json.dumps(one.recipe.model_args, default=str),
            one.number,
        ),
    )
    asked = [RequestedRecipe(one.name, one.recipe, one.settings.arch[0]) for one in alike]
    settings = replace(tuning.settings, arch=(alike[0].settings.arch[0],), name=f"{tuning.name}-tune")
    if placement.kind == "cpu":
        execution = replace(execution, devices="cpu")
    plan = build_plan(
        settings,
        alike[0].recipe,
        folds=tuning.options.folds,
        execution=execution,
        variants=asked,
        root=tuning.root,
    )
    pairs, place = list(zip(alike, plan.runs, strict=True)), tuning.folder
    runs = [
        replace(run, name=one.name, base=one.name, baseline=None, runs=place, checkpoints=place) for one, run in pairs
    ]
    begun = {one.name: plan.initial_weights[run.name] for one, run in pairs if run.name in plan.initial_weights}
    return replace(plan, runs=tuple(sorted(runs, key=lambda run: run.name)), placement=placement, initial_weights=begun)


def _fit(
    tuning: Study,
    left: Sequence[TrialSpec],
    jobs: Sequence[Job],
    placement: DevicePlan,
    token: str,
    epochs: _Epochs,
) -> list[str]:
    from ray import tune

    options = tuning.options
    tasks = [_task(tuning, one, [job for job in jobs if job.run == one.name], token) for one in left]
    resources: dict[str, float] = {"CPU": options.cpus} | ({"GPU": placement.gpu_share} if placement.gpu_share else {})
    lost: dict[int, str] = {}
    tuner = tune.Tuner(
        tune.with_resources(run_trial, resources),
        param_space={"trial": tune.grid_search([json.dumps(task) for task in tasks])},
        tune_config=tune.TuneConfig(
            scheduler=_scheduler(tuning),
            max_concurrent_trials=len(placement.devices),
            reuse_actors=True,  # a process imports torch once, not once a trial
            trial_name_creator=lambda trial: trial_name(_number(trial)),
            trial_dirname_creator=lambda trial: trial_name(_number(trial)),
        ),
        run_config=tune.RunConfig(
            name=RAY,
            storage_path=str(tuning.folder.absolute()),
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            callbacks=[_callback(tuning, {one.number: one for one in left}, lost, epochs)],
            verbose=0,
        ),
    )
    try:
        with redirect_stdout(io.StringIO()):  # what it prints, however quiet it is told to be, the notes say as well
            tuner.fit()
    except tune.TuneError as error:
        raise EnsembleError(
            f"Ray Tune gave up: {' '.join(str(error).split())[:300]}", hint="--resume goes on with what is missing"
        ) from None
    ended = tuning.ended()
    return [
        f"{trial_name(one.number)}: {lost.get(one.number, 'not trained')}" for one in left if one.number not in ended
    ]


def _task(tuning: Study, one: TrialSpec, jobs: Sequence[Job], token: str) -> dict[str, Any]:
    inside = sorted(jobs, key=lambda job: tuning.options.folds.index(job.fold))
    return {
        "number": one.number,
        "settings": dict(one.values),
        "metric": tuning.options.metric,
        "longest": tuning.max_epochs,
        "jobs": [job_as_dict(job) for job in inside],
        "proof": [file_manifest(job, token) for job in inside],
    }


def _number(trial: Any) -> int:
    return int(json.loads(trial.config["trial"])["number"])


def _scheduler(tuning: Study) -> Any:
    """Return aSHA, which knows what earlier commands have trained.

    Trials are compared at the same share of their own course, in epochs of the longest one. At the same number of
    epochs a
    short trial, whose learning rate has fallen already, would beat every long one.
    """
    from ray.tune.schedulers import ASHAScheduler

    options = tuning.options
    scheduler: Any = ASHAScheduler(
        time_attr=PROGRESS,
        metric=SCORE,
        mode="min" if options.lower_is_better else "max",
        max_t=tuning.max_epochs * len(options.folds),
        grace_period=options.grace,
        reduction_factor=options.reduction,
        stop_last_trials=False,
    )
    for number, trial in sorted(tuning.ended().items()):
        past = _Past(trial_name(number))
        scheduler.on_trial_add(None, past)
        for progress, score in _course(tuning, trial):
            scheduler.on_trial_result(None, past, {PROGRESS: progress, SCORE: score})
    return scheduler


@dataclass(frozen=True)
class _Past:
    """A trial of an earlier command, as far as the scheduler asks."""

    trial_id: str


def _course(tuning: Study, trial: Trial) -> list[tuple[float, float]]:
    """Return (progress, mean score so far) after each epoch of a trial that has ended."""
    from folds.utils.csv_table import read_csv

    course: list[tuple[float, float]] = []
    before: list[float] = []
    each = trial.of // len(tuning.options.folds)
    for index, fold in enumerate(tuning.options.folds):
        path = tuning.trial_dir(trial.number) / f"fold{fold}" / "history.csv"
        if not path.exists():
            break
        scores = list(map(float, read_csv(path).column(f"validation_{tuning.options.metric}")))
        for epoch, score in enumerate(scores, 1):
            course.append((round((index + epoch / each) * tuning.max_epochs, 6), (sum(before) + score) / (index + 1)))
        before.append(trial.folds.get(fold, scores[-1]))
    return course


def _callback(tuning: Study, left: Mapping[int, TrialSpec], lost: dict[int, str], epochs: _Epochs) -> Any:
    from ray import tune

    class Listening(tune.Callback):
        """Passes on what happens, and records the trials that Ray Tune has stopped."""

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            if SCORE in result:
                epochs.epoch(_number(trial), result["epochs"])

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            number = _number(trial)
            ended, result = tuning.ended().get(number), trial.last_result or {}
            if LOST in result:
                lost[number] = result[LOST]
            elif ended is None and SCORE in result:
                folds = {int(fold): score for fold, score in json.loads(result["folds"]).items()}
                of = left[number].recipe.epochs * len(tuning.options.folds)
                ended = Trial(
                    number, left[number].values, STOPPED, result[SCORE], folds, result["epochs"], of, result["seconds"]
                )
                write_trial(tuning.trial_dir(number), ended)
            if ended is not None:
                epochs.ended(ended)

        def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            logger.info(f"{trial_name(_number(trial))}: its process or machine was lost; going on from what is saved")

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            reason = " ".join(str(getattr(trial, "get_error", lambda: "")() or "").split())
            lost[_number(trial)] = f"worker crashed or was killed, given up after {RETRIES} retries: {reason[-200:]}"

    return Listening()
