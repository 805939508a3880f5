"""The training loop of one fold: deterministic, and saved between any two steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from folds.augmentation.batch import augment_batch
from folds.augmentation.mixup import mix_batch
from folds.errors import EnsembleError
from folds.metrics.classification import accuracy, argmax_classes, log_loss, macro_f1
from folds.models.inference import softmax
from folds.models.precision import autocast
from folds.optim.optimizers import Freezer
from folds.training.context import FoldContext
from folds.training.criterion import build_criterion, one_hot
from folds.training.state import StateWriter, TrainingState
from folds.utils.files import derive_seed

Report = Callable[[dict[str, Any]], None]
LossOf = Callable[[Tensor, Tensor], Tensor]  # images or outputs, truth (n, heads) → scalar
_REPORT_SECONDS = 0.2


def run_epochs(
    setup: FoldContext, learner: TrainingState, states: StateWriter, forward: Callable[[Tensor], Tensor], report: Report
) -> None:
    """Train from where the learner stands to the last epoch; on return its model has the weights to keep.

    Parameters
    ----------
    forward : the learner's model, or the compiled form of it.
    report : gets ``step``, ``epoch`` and ``note`` events.

    Raises
    ------
    EnsembleError : the loss is not finite; a state cannot be written.
    """
    recipe, progress, device = setup.recipe, learner.progress, setup.device
    schedule, mixing = setup.schedule, setup.mixing
    targets, counts = torch.from_numpy(setup.training_labels).to(device), setup.counts()
    which = torch.from_numpy(setup.augmentation_index).to(device)
    layout = torch.channels_last if setup.channels_last else torch.contiguous_format
    mean, std = setup.architecture.mean, setup.architecture.std
    total = recipe.epochs * setup.steps
    freezer = Freezer(learner.model) if recipe.freeze else None
    statistics = _BatchNormSnapshot(learner.model)
    reported = 0.0
    saved, clock = time.monotonic(), time.perf_counter()
    while progress.epoch < recipe.epochs and not _should_stop_early(progress.history, recipe.patience):
        epoch = progress.epoch
        criterion = build_criterion(
            setup.target, recipe.loss, recipe.head_loss, recipe.label_smoothing, counts, epoch / recipe.epochs
        )
        losses = [record["loss"] for record in progress.history]

        def loss_of(images: Tensor, truth: Tensor, criterion: LossOf = criterion) -> Tensor:
            with autocast(setup.amp, device):
                return criterion(forward(images), truth)

        before = progress.epoch_seconds
        batches = setup.batches(epoch)[progress.step :]
        # One transfer an epoch; an index sent for every step would wait for its turn behind the step's kernels.
        order = torch.from_numpy(np.concatenate(batches)).to(device)
        numbers = setup.augmentation_params(epoch, range(progress.step, setup.steps), batches)
        progress.summed = torch.zeros((), device=device) if progress.summed is None else progress.summed.to(device)
        learner.model.train()
        if freezer is not None:
            freezer.set(epoch < recipe.freeze)
        start = 0
        pixels = setup.pixels.batches(batches, order, setup.user_transform(epoch), progress.step)
        for rows, batch, (drawn, mixed) in zip(batches, pixels, numbers, strict=True):
            here = epoch * setup.steps + progress.step
            rate = (recipe.lr or 0.0) * schedule.share(here, losses)
            for group in learner.optimizer.param_groups:
                group["lr"] = rate * group.get("lr_scale", 1.0)
            index = order[start : start + len(rows)]
            inputs, truth = (
                augment_batch(batch, drawn, setup.augmentations, mean, std, which[index], layout),
                targets[index],
            )
            if mixing:
                inputs, truth = mix_batch(inputs, one_hot(setup.target, truth), mixed)
            start += len(rows)
            progress.summed += _train_step(setup, learner, loss_of, inputs, truth, statistics, report)
            if learner.ema is not None:
                learner.ema.update(learner.model, step=here)
            progress.step += 1
            now = time.monotonic()
            if now - reported > _REPORT_SECONDS:
                reported = now
                report({"event": "step", "done": here + 1, "total": total})
            if now - saved > setup.job.save_seconds and progress.step < setup.steps:
                progress.epoch_seconds = before + time.perf_counter() - clock
                if not math.isfinite(float(progress.summed)):
                    raise setup.diverged(f"the loss is not finite in epoch {epoch + 1}")
                states.save(learner)
                saved = now
        loss = float(progress.summed) / len(setup.epochs)
        if not math.isfinite(loss):
            raise setup.diverged(f"the loss is {loss} in epoch {epoch + 1}")
        judged = _validate(setup, learner.eval_model)
        # With the validation, and with the save of the epoch before: what an epoch costs, not what flatters.
        now = time.perf_counter()
        spent, clock = before + now - clock, now
        record = {"epoch": epoch + 1, "loss": loss, "lr": rate, "seconds": spent} | judged
        if recipe.keep == "best" and record["validation_macro_f1"] > max(
            (r["validation_macro_f1"] for r in progress.history), default=-1.0
        ):
            progress.best = {name: value.detach().clone() for name, value in learner.eval_model.state_dict().items()}
        progress.history.append(record)
        progress.seconds += spent
        progress.epoch, progress.step, progress.summed, progress.epoch_seconds = epoch + 1, 0, None, 0.0
        states.save(learner)
        saved = time.monotonic()
        report({"event": "epoch", "done": (epoch + 1) * setup.steps, "total": total, **record})
    kept = progress.best or (learner.ema.module.state_dict() if learner.ema is not None else None)
    if kept is not None:
        learner.model.load_state_dict(kept)


def _should_stop_early(history: Sequence[Mapping[str, float]], patience: int) -> bool:
    """Whether the validation score has not risen for `patience` epochs (0: never)."""
    scores = [record["validation_macro_f1"] for record in history]
    return patience > 0 and len(scores) > patience and max(scores[-patience:]) <= max(scores[:-patience])


class _BatchNormSnapshot:
    """The running statistics of batch normalisation: kept before a step, put back where the step is tried again."""

    def __init__(self, model: torch.nn.Module) -> None:
        norms = [module for module in model.modules() if isinstance(module, torch.nn.modules.batchnorm._NormBase)]
        buffers = [buffer for norm in norms for buffer in norm.buffers(recurse=False)]
        # A kind at a time: only tensors of one kind are copied by one kernel.
        kinds = sorted({buffer.dtype for buffer in buffers}, key=str)
        self.now = [[buffer for buffer in buffers if buffer.dtype == kind] for kind in kinds]
        self.before = [[buffer.clone() for buffer in some] for some in self.now]

    def save(self) -> None:
        """Remember them as they are."""
        for before, now in zip(self.before, self.now, strict=True):
            torch._foreach_copy_(before, now)

    def restore(self) -> None:
        """As they were at the last `keep`."""
        for before, now in zip(self.before, self.now, strict=True):
            torch._foreach_copy_(now, before)


def _train_step(
    setup: FoldContext,
    learner: TrainingState,
    loss_of: LossOf,
    inputs: Tensor,
    truth: Tensor,
    statistics: _BatchNormSnapshot,
    report: Report,
) -> Tensor:
    """One step of the optimizer; the loss times the images, on the device.

    Out of memory halves the images a forward pass and tries again, from the same statistics and random numbers: gradients
    add up, so a step is still one over the whole batch. Batch normalisation and the loss `f1` then see the smaller parts.
    """
    seed = derive_seed(*setup.seed, learner.progress.epoch, learner.progress.step, "model")
    statistics.save()
    while True:
        learner.optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(seed)  # of dropout and stochastic depth
        try:
            summed = _accumulate_gradients(learner, loss_of, inputs, truth)
            break
        except torch.OutOfMemoryError:
            size = learner.progress.micro or len(inputs)
            learner.progress.micro = (size + 1) // 2
        if size == 1:
            raise EnsembleError(
                f"{setup.job.title}: out of memory on {setup.device}, even with one image at a time",
                hint="a smaller --img-size or model"
                + ("" if setup.device == "cpu" else ", or --jobs 1 where others train on it too"),
            )
        # Here, not in the handler: its traceback still holds the activations.
        if inputs.is_cuda:
            torch.cuda.empty_cache()
        statistics.restore()
        text = f"{setup.job.title}: out of memory on {setup.device}, going on with {learner.progress.micro} images at a time in batches of {len(inputs)}"
        report({"event": "note", "text": text})
    if setup.recipe.clip:
        learner.scaler.unscale_(learner.optimizer)
        torch.nn.utils.clip_grad_norm_(learner.model.parameters(), setup.recipe.clip)
    learner.scaler.step(learner.optimizer)
    learner.scaler.update()
    return summed


def _accumulate_gradients(learner: TrainingState, loss_of: LossOf, inputs: Tensor, truth: Tensor) -> Tensor:
    n = len(inputs)
    parts = math.ceil(n / learner.progress.micro) if learner.progress.micro else 1
    summed = torch.zeros((), device=inputs.device)
    for some, labels in zip(inputs.tensor_split(parts), truth.tensor_split(parts), strict=True):
        loss = loss_of(some, labels)
        learner.scaler.scale(loss if parts == 1 else loss * (len(some) / n)).backward()
        summed += loss.detach() * len(some)
    return summed


def _validate(setup: FoldContext, model: torch.nn.Module) -> dict[str, float]:
    logits = setup.logits(model, setup.pixels, setup.validation)
    truth, predicted = setup.labels[setup.validation], argmax_classes(logits)
    return {
        "validation_macro_f1": macro_f1(truth, predicted, len(setup.target.classes)),
        "validation_accuracy": accuracy(truth, predicted),
        "validation_log_loss": log_loss(truth, softmax(logits)),
    }
