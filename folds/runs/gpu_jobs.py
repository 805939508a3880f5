"""Decide how many jobs each GPU trains at once: as given, as recorded for such a GPU, or by measuring."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from folds.execution.gpu_sharing import Cost, Headroom, choose_jobs, measure_cost
from folds.execution.placement import DevicePlan, plan_devices
from folds.images.settings import ImageSettings
from folds.models.accelerators import device_name
from folds.models.gpus import held_memory, service_folder, torch_name
from folds.models.precision import resolve_amp
from folds.models.timing import recall, remember
from folds.runs.plan import Plan
from folds.runs.run import Run
from folds.training.batches import count_batches
from folds.utils.progress import SILENT, Progress

logger = logging.getLogger(__name__)

# Steps of each GPU: measuring takes about half a minute, and small steps take 10 ms. With fewer, it costs more than it
# can gain.
_WORTH_STEPS = 10_000


def decide_jobs(plan: Plan, sizes: Mapping[ImageSettings, int], progress: Progress = SILENT) -> DevicePlan:
    """Return the placement of a plan with the number of jobs that each of its GPUs trains at once, and the reason.

    It stays as it is where the number is given or recorded, on a CPU or a cluster, and where the jobs are not more than
    the GPUs. The number of threads of a job stays the same, so nothing but the time depends on the choice.

    Parameters
    ----------
    sizes : bytes of the decoded images of a run, with those of the test images.
    """
    placement, runs = plan.placement, [run for run in plan.runs if not run.recipe.features]
    if placement.kind != "cuda" or placement.backend != "local" or placement.gpus_per_job > 1:
        return placement
    gpus = list(dict.fromkeys(placement.devices))
    waiting = math.ceil(len(runs) * (len(plan.folds) + plan.refit) / len(gpus))
    if plan.execution.per_device is not None or waiting < 2:
        return placement
    names, jobs, reason = [""], 1, _reason_for_one(plan, runs, len(gpus))
    if not reason:
        names = sorted({device_name(torch_name(gpu)) for gpu in gpus})
        jobs, reason = _decided(plan, runs, gpus, names, sizes, waiting, progress)
    logger.info(reason)
    if jobs > 1:
        placement = plan_devices(plan.trainings, plan.execution.devices, jobs, placement.threads)
    return replace(placement, measured_on=names[0] if len(names) == 1 else "", jobs_reason=reason)


def _reason_for_one(plan: Plan, runs: list[Run], gpus: int) -> str:
    """Return why one job trains on each GPU without a measurement; "" if it must be measured."""
    if any(run.recipe.transform for run in runs):
        return "1 job on each GPU, because the cores are busy with `transform`; `jobs=N` gives another number"
    if sum(_steps(plan, run) for run in runs) / gpus < _WORTH_STEPS:
        return "1 job on each GPU, because the training is too short to measure more"
    return ""


def _decided(
    plan: Plan,
    runs: list[Run],
    gpus: list[str],
    names: list[str],
    sizes: Mapping[ImageSettings, int],
    waiting: int,
    progress: Progress,
) -> tuple[int, str]:
    """Return the number of jobs on each GPU and the reason: of several runs, of the one that allows the fewest."""
    if len(names) > 1:
        return 1, f"1 job on each GPU, because they differ ({', '.join(names)}); `jobs=N` gives another number"
    found: dict[str, tuple[int, str]] = {}
    for run in runs:
        order = trial_order(plan, run)
        key = repr((order, sizes[run.image_settings]))
        if key not in found:
            found[key] = _of_run(run, order, gpus, names[0], sizes[run.image_settings], waiting, progress)
    return min(found.values(), key=lambda one: one[0])


def _of_run(
    run: Run, order: dict[str, Any], gpus: list[str], name: str, images: int, waiting: int, progress: Progress
) -> tuple[int, str]:
    """Return the number of jobs for one run, by what was measured before if that is enough."""
    what = {"sharing": 1, "gpu": name, "service": bool(service_folder()), **order}
    cost = Cost.from_record(recall(what) or {})
    held = held_memory(gpus)
    if cost is not None and len(held) == len(gpus):
        room = Headroom(
            min(total - used for used, total in held.values()), min(total for _, total in held.values()), images
        )
        if cost.is_enough_for(min(room.most(cost.bytes), waiting)):
            return choose_jobs(cost, room, waiting)
    try:
        with progress.step(f"{run.name}: measuring how many jobs a GPU trains at once"):
            cost, room = measure_cost(order, gpus[0], partial(Headroom, images=images), waiting)
    except (RuntimeError, OSError) as error:
        return 1, f"1 job on each GPU, because more could not be measured: {error}"
    remember(what, vars(cost))
    return choose_jobs(cost, room, waiting)


def _steps(plan: Plan, run: Run) -> int:
    """Return the steps of all trainings of a run."""
    batch = run.recipe.batch_size or 1
    sizes = [len(run.assignment.training_index(fold)) for fold in plan.folds]
    sizes += [len(run.assignment)] if plan.refit else []
    return run.recipe.epochs * sum(count_batches(size, batch) for size in sizes)


def trial_order(plan: Plan, run: Run) -> dict[str, Any]:
    """Return what `folds.execution.gpu_trial` trains to stand for a run."""
    recipe, settings = run.recipe, run.image_settings
    return {
        "architecture": asdict(run.architecture),
        "outputs": run.target.outputs,
        "batch": recipe.batch_size or 1,
        "accumulate": recipe.accumulate,
        "image_size": [settings.height, settings.width],
        "amp": resolve_amp(recipe.amp, plan.placement.devices[0])[0],
        "channels_last": recipe.channels_last,
        "grad_checkpointing": recipe.grad_checkpointing,
        "opt": recipe.opt,
        "opt_args": dict(recipe.opt_args),
        "ema": recipe.ema or 0.0,
        "augment": recipe.augment,
        "threads": plan.placement.threads,
    }
