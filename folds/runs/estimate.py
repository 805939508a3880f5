"""Estimate how long a plan trains, from a few timed steps with random numbers on its device."""

from __future__ import annotations

import math
import time

import torch

from folds.models.accelerators import prefers_channels_last, synchronize
from folds.models.factory import create_model, is_convolutional
from folds.models.gpus import torch_name
from folds.models.precision import autocast, resolve_amp
from folds.models.timing import torch_threads
from folds.runs.plan import Plan
from folds.runs.run import Run
from folds.runs.run_formats import decide_formats, log_formats
from folds.training.batches import count_batches
from folds.training.measured_formats import Format
from folds.training.stages import work_of

_SECONDS = 2.0  # of measuring, per model and batch size
_VALIDATION = 1 / 3  # of the time of a training step: forward only


def estimate_seconds(plan: Plan) -> float | None:
    """Return about how long all folds of a plan train here; None for a cluster, whose machines are not known.

    Decoding images, augmentation and what parallel jobs take from each other are not in it.
    """
    if plan.placement.backend == "ray":
        return None
    device, total = torch_name(plan.placement.devices[0]), 0.0
    formats = decide_formats(plan)
    log_formats([(run, formats[run.name]) for run in plan.runs])
    measured: dict[tuple[object, ...], float] = {}
    embedded = set()  # heads on frozen features share them, and take seconds themselves
    with torch_threads(plan.placement.threads):
        for run in plan.runs:
            batch = run.recipe.batch_size or 32
            decided = formats[run.name]
            key = (repr(run.architecture), batch, run.target.outputs, decided.amp, decided.channels_last)
            if key not in measured:
                own = math.ceil(batch / plan.placement.gpus_per_job)
                measured[key] = _seconds_per_step(run, own, device, decided)
            if run.recipe.features:
                if key not in embedded:
                    batches = math.ceil(len(run.assignment) / batch) * len(run.recipe.views)
                    total += _VALIDATION * batches * measured[key]
                embedded.add(key)
                continue
            size = run.architecture.height, run.architecture.width
            share = work_of(run.recipe.progressive, run.recipe.epochs, size)  # smaller images cost as their pixels
            for fold in plan.folds:
                training = share * count_batches(len(run.assignment.training_index(fold)), batch)
                validation = math.ceil(len(run.assignment.validation_index(fold)) / batch)
                total += run.recipe.epochs * (training + _VALIDATION * validation) * measured[key]
            if plan.refit:  # at most the epochs of a fold, of all people
                total += run.recipe.epochs * share * count_batches(len(run.assignment), batch) * measured[key]
    slots = max(1, min(len(plan.placement.devices), plan.trainings))
    return total / slots


def _seconds_per_step(run: Run, batch: int, device: str, decided: Format) -> float:
    """Return the time of a forward and a backward pass of one batch, the first one not counted unless it is slow."""
    shape = run.architecture
    model = create_model(shape, run.target.outputs).to(device).train()
    wanted = run.recipe.channels_last if decided.channels_last is None else decided.channels_last
    wide = is_convolutional(model) and prefers_channels_last(device) if wanted is None else wanted
    layout = torch.channels_last if wide else torch.contiguous_format
    model = model.to(memory_format=layout)  # type: ignore[call-overload]
    images = torch.rand(batch, shape.channels, shape.height, shape.width, device=device)
    images = images.contiguous(memory_format=layout)
    labels = torch.zeros(batch, dtype=torch.long, device=device)
    amp = resolve_amp(run.recipe.amp, device)[0] if decided.amp == "auto" else decided.amp

    def step() -> float:
        start = time.perf_counter()
        with autocast(amp, device):
            loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        synchronize(device)
        return time.perf_counter() - start

    first = step()
    if first > _SECONDS:
        return first
    times = [step()]
    while sum(times) < _SECONDS and len(times) < 20:
        times.append(step())
    return sorted(times)[len(times) // 2]
