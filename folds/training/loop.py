"""Run the epochs of one fold: deterministic, and saved between any two steps."""

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
from folds.models.precision import autocast
from folds.optim.optimizers import Freezer
from folds.training.context import FoldContext
from folds.training.criterion import build_criterion, one_hot
from folds.training.state import StateWriter, TrainingState
from folds.utils.files import derive_seed
from folds.utils.numeric import softmax

Report = Callable[[dict[str, Any]], None]
LossOf = Callable[[Tensor, Tensor], Tensor]  # images or outputs, truth (n, heads) → scalar
_REPORT_SECONDS = 0.2


def run_epochs(
    context: FoldContext,
    state: TrainingState,
    writer: StateWriter,
    forward: Callable[[Tensor], Tensor],
    report: Report,
) -> None:
    """Train from where `state` stands to the last epoch; on return its model has the weights to keep.

    Parameters
    ----------
    writer : saves the state after every epoch, and inside of one that takes long.
    forward : the model of `state`, or its compiled form.
    report : gets ``step``, ``epoch`` and ``note`` events.

    Raises
    ------
    TrainingDivergedError : the loss is not finite.
    EnsembleError : memory does not suffice even for one image at a time; a state cannot be written.
    """
    loop = _Loop(context, state, writer, forward, report)
    recipe, progress = context.recipe, state.progress
    while progress.epoch < recipe.epochs and not _should_stop_early(progress.history, recipe.patience):
        loss, rate = loop.train_epoch()
        loop.close_epoch(loss, rate)
    kept = progress.best or (state.ema.module.state_dict() if state.ema is not None else None)
    if kept is not None:
        state.model.load_state_dict(kept)


class _Loop:
    """What stays the same from epoch to epoch, and the clocks of reports and saves."""

    def __init__(
        self,
        context: FoldContext,
        state: TrainingState,
        writer: StateWriter,
        forward: Callable[[Tensor], Tensor],
        report: Report,
    ) -> None:
        self.context, self.state, self.writer, self.forward, self.report = context, state, writer, forward, report
        self.schedule, self.mixing = context.schedule, bool(context.mixing)
        self.targets = torch.from_numpy(context.training_labels).to(context.device)
        self.counts = context.counts()
        self.augmentation_index = torch.from_numpy(context.augmentation_index).to(context.device)
        self.layout = torch.channels_last if context.channels_last else torch.contiguous_format
        self.total = context.recipe.epochs * context.steps
        self.freezer = Freezer(state.model) if context.recipe.freeze else None
        self.statistics = _BatchNormSnapshot(state.model)
        self.reported, self.saved, self.clock = 0.0, time.monotonic(), time.perf_counter()
        self.spent_before = 0.0  # seconds that went into the epoch before it was resumed

    def train_epoch(self) -> tuple[float, float]:
        """Do the steps that are left of the epoch; return its mean loss and the last learning rate."""
        context, state, progress = self.context, self.state, self.state.progress
        epoch, self.spent_before = progress.epoch, progress.epoch_seconds
        loss_of, losses = self._loss_of(epoch), [record["loss"] for record in progress.history]
        batches = context.batches(epoch)[progress.step :]
        # One transfer an epoch; an index sent for every step would wait for its turn behind the step's kernels.
        order = torch.from_numpy(np.concatenate(batches)).to(context.device)
        parameters = context.augmentation_params(epoch, range(progress.step, context.steps), batches)
        zero = torch.zeros((), device=context.device)
        progress.summed = zero if progress.summed is None else progress.summed.to(context.device)
        state.model.train()
        if self.freezer is not None:
            self.freezer.set(epoch < context.recipe.freeze)
        start = 0
        pixels = context.pixels.batches(batches, order, context.user_transform(epoch), progress.step)
        for rows, batch, drawn in zip(batches, pixels, parameters, strict=True):
            step = epoch * context.steps + progress.step
            rate = self._set_learning_rate(step, losses)
            inputs, truth = self._inputs(batch, order[start : start + len(rows)], *drawn)
            start += len(rows)
            progress.summed += _train_step(context, state, loss_of, inputs, truth, self.statistics, self.report)
            if state.ema is not None:
                state.ema.update(state.model, step=step)
            progress.step += 1
            self._between_steps(step)
        loss = float(progress.summed) / len(context.epochs)
        if not math.isfinite(loss):
            raise context.diverged(f"the loss is {loss} in epoch {epoch + 1}")
        return loss, rate

    def close_epoch(self, loss: float, rate: float) -> None:
        """Validate, record and save the epoch whose steps are done."""
        context, state, progress = self.context, self.state, self.state.progress
        validation = _validate(context, state.eval_model)
        # With the validation, and with the save of the epoch before: what an epoch costs, not what flatters.
        now = time.perf_counter()
        spent, self.clock = self.spent_before + now - self.clock, now
        record = {"epoch": progress.epoch + 1, "loss": loss, "lr": rate, "seconds": spent} | validation
        best = max((r["validation_macro_f1"] for r in progress.history), default=-1.0)
        if context.recipe.keep == "best" and record["validation_macro_f1"] > best:
            progress.best = {name: value.detach().clone() for name, value in state.eval_model.state_dict().items()}
        progress.history.append(record)
        progress.seconds += spent
        progress.epoch, progress.step, progress.summed, progress.epoch_seconds = progress.epoch + 1, 0, None, 0.0
        self.writer.save(state)
        self.saved = time.monotonic()
        self.report({"event": "epoch", "done": progress.epoch * context.steps, "total": self.total, **record})

    def _loss_of(self, epoch: int) -> LossOf:
        """Return the loss of an epoch: images and truth → scalar; it may change from epoch to epoch."""
        context, recipe, forward = self.context, self.context.recipe, self.forward
        criterion = build_criterion(
            context.target, recipe.loss, recipe.head_loss, recipe.label_smoothing, self.counts, epoch / recipe.epochs
        )

        def loss_of(images: Tensor, truth: Tensor) -> Tensor:
            with autocast(context.amp, context.device):
                return criterion(forward(images), truth)

        return loss_of

    def _set_learning_rate(self, step: int, losses: Sequence[float]) -> float:
        """Set the learning rate of a step, counted from the first epoch on; return it before any layer's own factor."""
        rate = (self.context.recipe.lr or 0.0) * self.schedule.share(step, losses)
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        return rate

    def _inputs(self, batch: Tensor, index: Tensor, drawn: Tensor, mixed: Tensor) -> tuple[Tensor, Tensor]:
        """Return the augmented images of a step, and what is learnt of them: (n, heads) codes, or (n, outputs) shares
        where mixed.

        Parameters
        ----------
        batch : uint8 (n, height, width, 3).
        index : (n,) its rows, on the device.
        drawn, mixed : (n, numbers) the random numbers of augmentation and of mixing.
        """
        context, architecture = self.context, self.context.architecture
        inputs = augment_batch(
            batch,
            drawn,
            context.augmentations,
            architecture.mean,
            architecture.std,
            self.augmentation_index[index],
            self.layout,
        )
        truth = self.targets[index]
        return mix_batch(inputs, one_hot(context.target, truth), mixed) if self.mixing else (inputs, truth)

    def _between_steps(self, step: int) -> None:
        """Report and save, where the last time is long enough ago."""
        context, progress = self.context, self.state.progress
        now = time.monotonic()
        if now - self.reported > _REPORT_SECONDS:
            self.reported = now
            self.report({"event": "step", "done": step + 1, "total": self.total})
        if now - self.saved > context.job.save_seconds and progress.step < context.steps:
            progress.epoch_seconds = self.spent_before + time.perf_counter() - self.clock
            if not math.isfinite(float(progress.summed)):  # type: ignore[arg-type]
                raise context.diverged(f"the loss is not finite in epoch {progress.epoch + 1}")
            self.writer.save(self.state)
            self.saved = now


def _should_stop_early(history: Sequence[Mapping[str, float]], patience: int) -> bool:
    """Return whether the validation score has not risen for `patience` epochs (0: never)."""
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
        """Put them back as they were at the last `save`."""
        for before, now in zip(self.before, self.now, strict=True):
            torch._foreach_copy_(now, before)


def _train_step(
    context: FoldContext,
    state: TrainingState,
    loss_of: LossOf,
    inputs: Tensor,
    truth: Tensor,
    statistics: _BatchNormSnapshot,
    report: Report,
) -> Tensor:
    """Do one step of the optimizer; return the loss times the images, on the device.

    Out of memory halves the images a forward pass and tries again, from the same statistics and random numbers:
    gradients
    add up, so a step is still one over the whole batch. Batch normalisation and the loss `f1` then see the smaller
    parts.
    """
    seed = derive_seed(*context.seed, state.progress.epoch, state.progress.step, "model")
    statistics.save()
    while True:
        state.optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(seed)  # of dropout and stochastic depth
        try:
            summed = _accumulate_gradients(state, loss_of, inputs, truth)
            break
        except torch.OutOfMemoryError:
            size = state.progress.micro or len(inputs)
            state.progress.micro = (size + 1) // 2
        if size == 1:
            raise EnsembleError(
                f"{context.job.title}: out of memory on {context.device}, even with one image at a time",
                hint="a smaller --img-size or model"
                + ("" if context.device == "cpu" else ", or --jobs 1 where others train on it too"),
            )
        # Here, not in the handler: its traceback still holds the activations.
        if inputs.is_cuda:
            torch.cuda.empty_cache()
        statistics.restore()
        text = (
            f"{context.job.title}: out of memory on {context.device}, going on with {state.progress.micro} images at "
            f"a time in batches of {len(inputs)}"
        )
        report({"event": "note", "text": text})
    if context.recipe.clip:
        state.scaler.unscale_(state.optimizer)
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), context.recipe.clip)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    return summed


def _accumulate_gradients(state: TrainingState, loss_of: LossOf, inputs: Tensor, truth: Tensor) -> Tensor:
    """Return add up the gradients of a batch, in parts where memory asks for it; return the loss times the images."""
    n = len(inputs)
    parts = math.ceil(n / state.progress.micro) if state.progress.micro else 1
    summed = torch.zeros((), device=inputs.device)
    for some, labels in zip(inputs.tensor_split(parts), truth.tensor_split(parts), strict=True):
        loss = loss_of(some, labels)
        state.scaler.scale(loss if parts == 1 else loss * (len(some) / n)).backward()
        summed += loss.detach() * len(some)
    return summed


def _validate(context: FoldContext, model: torch.nn.Module) -> dict[str, float]:
    """Return the scores on the fold's validation part, of the classes that are predicted."""
    logits = context.logits(model, context.pixels, context.validation)
    truth, predicted = context.labels[context.validation], argmax_classes(logits)
    return {
        "validation_macro_f1": macro_f1(truth, predicted, len(context.target.classes)),
        "validation_accuracy": accuracy(truth, predicted),
        "validation_log_loss": log_loss(truth, softmax(logits)),
    }
