"""Run the epochs of one fold deterministically; the state can be saved between any two steps."""

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
from folds.metrics.custom import find_metric
from folds.models.memory import is_out_of_memory
from folds.models.precision import autocast
from folds.optim.optimizers import Freezer
from folds.training.context import FoldContext
from folds.training.criterion import at_temperature, build_criterion, one_hot
from folds.training.group import Group
from folds.training.state import StateWriter, TrainingState
from folds.utils.files import derive_seed
from folds.utils.numeric import softmax

Report = Callable[[dict[str, Any]], None]
LossOf = Callable[[Tensor, Tensor], Tensor]  # images, labels → scalar
_REPORT_SECONDS = 0.2


def run_epochs(
    context: FoldContext,
    state: TrainingState,
    writer: StateWriter,
    forward: Callable[[Tensor], Tensor],
    report: Report,
) -> None:
    """Train from the current epoch and step of `state` to the last epoch; the model of `state` gets the final weights.

    Parameters
    ----------
    writer : saves the state after every epoch, and between steps of a long epoch.
    forward : the model of `state`, or its compiled form.
    report : called with ``step``, ``epoch`` and ``note`` events.

    Raises
    ------
    TrainingDivergedError : the loss is not finite.
    EnsembleError : the memory is too small even for one image at a time; a state cannot be written.
    """
    loop = _Loop(context, state, writer, forward, report)
    recipe, progress = context.recipe, state.progress
    while progress.epoch < recipe.epochs and not _should_stop_early(progress.history, recipe.patience, recipe.metric):
        loss, rate = loop.train_epoch()
        loop.close_epoch(loss, rate)
    weights = progress.best or (state.ema.module.state_dict() if state.ema is not None else None)
    if weights is not None:
        state.model.load_state_dict(weights)


class _Loop:
    """The training loop of a fold, with the times of the last report and the last save."""

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
        self.soft_targets, self.soft_labels = context.soft_targets, None
        if self.soft_targets is not None and context.soft_labels is not None:
            soft = torch.from_numpy(context.soft_labels).to(context.device)
            self.soft_labels = at_temperature(context.target, soft, self.soft_targets.temperature)
        self.counts = context.counts()
        self.augmentation_index = torch.from_numpy(context.augmentation_index).to(context.device)
        self.layout = torch.channels_last if context.channels_last else torch.contiguous_format
        self.total = context.recipe.epochs * context.steps
        self.freezer = Freezer(state.model) if context.recipe.freeze else None
        self.statistics = _BatchNormSnapshot(state.model)
        self.reported, self.saved, self.clock = 0.0, time.monotonic(), time.perf_counter()
        self.spent_before = 0.0  # seconds of the current epoch before the training was resumed

    def train_epoch(self) -> tuple[float, float]:
        """Run the remaining steps of the epoch; return its mean loss and the last learning rate."""
        context, state, progress = self.context, self.state, self.state.progress
        epoch, self.spent_before = progress.epoch, progress.epoch_seconds
        loss_of, losses = self._loss_of(epoch), [record["loss"] for record in progress.history]
        batches = context.batches(epoch)[progress.step :]
        # One transfer per epoch; an index sent at every step would wait for the kernels of the previous step.
        order = torch.from_numpy(np.concatenate(batches)).to(context.device)
        parameters = context.augmentation_params(epoch, range(progress.step, context.steps), batches)
        zero = torch.zeros((), device=context.device)
        progress.loss_sum = zero if progress.loss_sum is None else progress.loss_sum.to(context.device)
        state.model.train()
        if self.freezer is not None:
            self.freezer.set(epoch < context.recipe.freeze)
        start = 0
        pixels = context.pixels.batches(batches, order, context.user_transform(epoch), progress.step)
        for rows, batch, drawn in zip(batches, pixels, parameters, strict=True):
            step = epoch * context.steps + progress.step
            rate = self._set_learning_rate(step, losses)
            inputs, labels = self._inputs(batch, order[start : start + len(rows)], *drawn)
            start += len(rows)
            progress.loss_sum += _train_step(context, state, loss_of, inputs, labels, self.statistics, self.report)
            if state.ema is not None:
                state.ema.update(state.model, step=step)
            progress.step += 1
            self._between_steps(step)
        loss = float(progress.loss_sum) / len(context.epochs)
        if not math.isfinite(loss):
            raise context.diverged(f"the loss is {loss} in epoch {epoch + 1}")
        return loss, rate

    def close_epoch(self, loss: float, rate: float) -> None:
        """Validate, record and save the epoch after its last step."""
        context, state, progress = self.context, self.state, self.state.progress
        validation = _validate(context, state.eval_model)
        # The time includes the validation and the save of the previous epoch, so it is the full cost of an epoch.
        now = time.perf_counter()
        spent, self.clock = self.spent_before + now - self.clock, now
        record = {"epoch": progress.epoch + 1, "loss": loss, "lr": rate, "seconds": spent} | validation
        if context.recipe.keep == "best" and _is_best(record, progress.history, context.recipe.metric):
            progress.best = {name: value.detach().clone() for name, value in state.eval_model.state_dict().items()}
        progress.history.append(record)
        progress.seconds += spent
        progress.epoch, progress.step, progress.loss_sum, progress.epoch_seconds = progress.epoch + 1, 0, None, 0.0
        self.writer.save(state)
        self.saved = time.monotonic()
        self.report({"event": "epoch", "done": progress.epoch * context.steps, "total": self.total, **record})

    def _loss_of(self, epoch: int) -> LossOf:
        """Return the loss of an epoch as a function of images and labels; it may change from epoch to epoch."""
        context, recipe, forward = self.context, self.context.recipe, self.forward
        criterion = build_criterion(
            context.target,
            recipe.loss,
            recipe.head_loss,
            recipe.label_smoothing,
            self.counts,
            epoch / recipe.epochs,
            self.soft_targets,
        )

        def loss_of(images: Tensor, labels: Tensor) -> Tensor:
            with autocast(context.amp, context.device):
                return criterion(forward(images), labels)

        return loss_of

    def _set_learning_rate(self, step: int, losses: Sequence[float]) -> float:
        """Set the learning rate of a step, counted over all epochs; return it without the factors of the layers."""
        rate = (self.context.recipe.lr or 0.0) * self.schedule.share(step, losses)
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        return rate

    def _inputs(self, batch: Tensor, index: Tensor, drawn: Tensor, mixed: Tensor) -> tuple[Tensor, Tensor]:
        """Return the augmented images of a step and their labels: (n, heads) codes, or (n, outputs) shares if mixed.

        With soft labels, the labels are (n, 2·outputs) shares: those of the labels, then the soft labels.

        Parameters
        ----------
        batch : uint8 (n, height, width, 3).
        index : (n,) rows of the batch, on the device.
        drawn, mixed : (n, numbers) random numbers of augmentation and of mixing.
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
        labels = self.targets[index]
        if self.mixing or self.soft_labels is not None:
            labels = one_hot(context.target, labels)
        if self.soft_labels is not None:
            labels = torch.cat([labels, self.soft_labels[index]], dim=1)
        return mix_batch(inputs, labels, mixed) if self.mixing else (inputs, labels)

    def _between_steps(self, step: int) -> None:
        """Report progress and save the state if the last report or save was long enough ago."""
        context, progress = self.context, self.state.progress
        now = time.monotonic()
        if now - self.reported > _REPORT_SECONDS:
            self.reported = now
            self.report({"event": "step", "done": step + 1, "total": self.total})
        if now - self.saved > context.job.save_seconds and progress.step < context.steps:
            progress.epoch_seconds = self.spent_before + time.perf_counter() - self.clock
            if not math.isfinite(float(progress.loss_sum)):  # type: ignore[arg-type]
                raise context.diverged(f"the loss is not finite in epoch {progress.epoch + 1}")
            self.writer.save(self.state)
            self.saved = now


def _rank(record: Mapping[str, float], metric: str) -> float:
    """Return a number that is larger for a better validation score of an epoch; an undefined score is the worst."""
    score = record[f"validation_{metric}"]
    return -math.inf if math.isnan(score) else score if find_metric(metric).greater_is_better else -score


def _is_best(record: Mapping[str, float], earlier: Sequence[Mapping[str, float]], metric: str) -> bool:
    """Return whether the validation score of an epoch is better than that of all earlier epochs."""
    return not earlier or _rank(record, metric) > max(_rank(one, metric) for one in earlier)


def best_epoch(history: Sequence[Mapping[str, float]], metric: str) -> int:
    """Return the epoch (from 1) whose weights ``keep=best`` keeps: the first with the best validation score.

    Parameters
    ----------
    history : one or more epochs, as in history.csv.
    """
    ranks = [_rank(record, metric) for record in history]
    return ranks.index(max(ranks)) + 1


def _should_stop_early(history: Sequence[Mapping[str, float]], patience: int, metric: str = "macro_f1") -> bool:
    """Return whether the validation score has not improved for `patience` epochs; always False if `patience` is 0."""
    if patience <= 0:
        return False
    scores = [_rank(record, metric) for record in history]
    return len(scores) > patience and max(scores[-patience:]) <= max(scores[:-patience])


class _BatchNormSnapshot:
    """A snapshot of the running statistics of batch normalization, restored when a step is retried."""

    def __init__(self, model: torch.nn.Module) -> None:
        norms = [module for module in model.modules() if isinstance(module, torch.nn.modules.batchnorm._NormBase)]
        buffers = [buffer for norm in norms for buffer in norm.buffers(recurse=False)]
        # Grouped by dtype, because one kernel copies tensors of one dtype only.
        dtypes = sorted({buffer.dtype for buffer in buffers}, key=str)
        self.current = [[buffer for buffer in buffers if buffer.dtype == dtype] for dtype in dtypes]
        self.saved = [[buffer.clone() for buffer in group] for group in self.current]

    def save(self) -> None:
        """Save the current statistics."""
        for saved, current in zip(self.saved, self.current, strict=True):
            torch._foreach_copy_(saved, current)

    def restore(self) -> None:
        """Restore the statistics of the last `save`."""
        for saved, current in zip(self.saved, self.current, strict=True):
            torch._foreach_copy_(current, saved)


def _train_step(
    context: FoldContext,
    state: TrainingState,
    loss_of: LossOf,
    inputs: Tensor,
    labels: Tensor,
    statistics: _BatchNormSnapshot,
    report: Report,
) -> Tensor:
    """Run one step of the optimizer; return the loss times the number of images, on the device.

    If memory runs out, the step is retried with the same statistics and random numbers: first without the images that
    lie on the device, which changes nothing in the result, then with half as many images per forward pass. Gradients
    add up, so a step still covers the whole batch; batch normalization and the loss `f1` are then computed on parts of
    it.
    """
    rank = context.group.rank if context.group is not None else 0
    seed = derive_seed(*context.seed, state.progress.epoch, state.progress.step, "model", *([rank] if rank else []))
    statistics.save()
    short = False  # whether memory ran out in this step
    while True:
        state.optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(seed)  # for dropout and stochastic depth
        released = False
        try:
            if context.group is None:
                loss_sum = _accumulate_gradients(state, loss_of, inputs, labels)
            else:
                loss_sum = _shared_gradients(context.group, state, loss_of, inputs, labels)
            break
        except (RuntimeError, ValueError) as error:
            size = state.progress.micro_batch_size or len(inputs)
            # Parts of one image are too small for a normalization over the batch.
            single = short and isinstance(error, ValueError) and "more than 1 value per channel" in str(error)
            # Several processes cannot take smaller steps, because the others do not know of it.
            if context.group is not None or not (is_out_of_memory(error) or single):
                raise
            short, size = True, 1 if single else size
            released = not single and context.pixels.release()
            if not released:
                state.progress.micro_batch_size = (size + 1) // 2
        if size == 1 and not released:
            raise EnsembleError(
                f"{context.job.title}: out of memory on {context.job.shown_device}, even with one image at a time",
                hint="use a smaller `img_size` or model"
                + ("" if context.device == "cpu" else ", or `jobs=1` if several jobs train on this device"),
            )
        # Not in the handler, because its traceback still references the activations.
        if inputs.is_cuda:
            torch.cuda.empty_cache()
        statistics.restore()
        way = (
            "images that are sent batch by batch"
            if released
            else f"{state.progress.micro_batch_size} images at a time in batches of {len(inputs)}"
        )
        text = f"{context.job.title}: out of memory on {context.job.shown_device}, continuing with {way}"
        report({"event": "note", "text": text})
    if context.recipe.clip:
        state.scaler.unscale_(state.optimizer)
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), context.recipe.clip)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    return loss_sum


def _shared_gradients(group: Group, state: TrainingState, loss_of: LossOf, inputs: Tensor, labels: Tensor) -> Tensor:
    """Add up the gradients as `_accumulate_gradients`, each part of the batch divided among the processes."""
    size = state.progress.micro_batch_size
    parts = math.ceil(len(inputs) / size) if size else 1
    split = list(zip(inputs.tensor_split(parts), labels.tensor_split(parts), strict=True))
    return group.gradients(loss_of, split, state.scaler.scale, list(state.model.parameters()))


def _accumulate_gradients(state: TrainingState, loss_of: LossOf, inputs: Tensor, labels: Tensor) -> Tensor:
    """Add up the gradients of a batch, in parts if a micro-batch size is set; return the loss times the images."""
    n, size = len(inputs), state.progress.micro_batch_size
    parts = math.ceil(n / size) if size else 1
    loss_sum = torch.zeros((), device=inputs.device)
    for images, part_labels in zip(inputs.tensor_split(parts), labels.tensor_split(parts), strict=True):
        loss = loss_of(images, part_labels)
        state.scaler.scale(loss if parts == 1 else loss * (len(images) / n)).backward()
        loss_sum += loss.detach() * len(images)
    return loss_sum


def _validate(context: FoldContext, model: torch.nn.Module) -> dict[str, float]:
    """Return the scores of the predicted classes on the validation part; {} if all people train the model."""
    if not len(context.validation):
        return {}
    logits = context.logits(model, context.pixels, context.validation)
    labels, predicted = context.labels[context.validation], argmax_classes(logits)
    probabilities = softmax(logits)
    scores = {
        "validation_macro_f1": macro_f1(labels, predicted, len(context.target.classes)),
        "validation_accuracy": accuracy(labels, predicted),
        "validation_log_loss": log_loss(labels, probabilities),
    }
    name = f"validation_{context.recipe.metric}"
    return scores if name in scores else scores | {name: find_metric(context.recipe.metric)(labels, probabilities)}
