"""Run the epochs of one fold deterministically; the state can be saved between any two steps."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from folds.augmentation.batch import apply_changes, compiled_work
from folds.augmentation.changes import Changes
from folds.augmentation.mixup import Mixing, apply_mixing
from folds.errors import EnsembleError
from folds.metrics.custom import find_metric
from folds.models.accelerators import free_cache
from folds.models.memory import DeviceSharedError, is_out_of_memory
from folds.models.precision import autocast
from folds.optim.optimizers import Freezer
from folds.training.averaging import added, load_average
from folds.training.context import FoldContext
from folds.training.criterion import at_temperature, one_hot
from folds.training.group import Group
from folds.training.scores import validation_scores
from folds.training.stages import at_final_size, epochs_below, reduce_batch
from folds.training.state import Progress, StateWriter, TrainingState
from folds.utils.files import derive_seed

Report = Callable[[dict[str, Any]], None]
LossOf = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # images, labels, labels of the whole batch → scalar
_REPORT_SECONDS = 0.2
_COPY_SHARE = 20  # after a save, the training runs at least 20 times as long as the save took


def run_epochs(
    context: FoldContext,
    state: TrainingState,
    writer: StateWriter,
    forward: Callable[[Tensor], Tensor],
    report: Report,
) -> NDArray[np.float32] | None:
    """Train from the current epoch and step of `state` to the last epoch; the model of `state` gets the final weights.

    Return (n, classes) the logits of the validation part by the final weights; None if they were not computed, because
    the training had ended before, or it is only known now which weights are kept.

    Parameters
    ----------
    writer : writes the history after every epoch, and saves the state when `Job.save_seconds` have gone by.
    forward : the model of `state`, or its compiled form.
    report : called with ``step``, ``epoch`` and ``note`` events.

    Raises
    ------
    TrainingDivergedError : the loss is not finite.
    EnsembleError : the memory is too small even for one image at a time; a state cannot be written.
    """
    loop = _Loop(context, state, writer, forward, report)
    progress = state.progress
    while not _has_ended(context, progress):
        loss, rate = loop.train_epoch()
        loop.close_epoch(loss, rate)
    weights = progress.best or (state.ema.module.state_dict() if state.ema is not None else None)
    if weights is not None:
        state.model.load_state_dict(weights)
    elif progress.last_sum is not None:
        load_average(context, state.model, progress.last_sum)
    return loop.final


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
        self.schedule = context.schedule
        self.size = context.size  # of the images of the current epoch
        self.targets = torch.from_numpy(context.training_labels).to(context.device)
        self.soft_targets, self.soft_labels = context.soft_targets, None
        if self.soft_targets is not None and context.soft_labels is not None:
            soft = torch.from_numpy(context.soft_labels).to(context.device)
            self.soft_labels = at_temperature(context.target, soft, self.soft_targets.temperature)
        self.weights = None if context.weights is None else torch.from_numpy(context.weights).to(context.device)
        self.shares = None if context.targets is None else torch.from_numpy(context.targets).to(context.device)
        self.counts = context.counts()
        # On a CPU the parts of a batch have several shapes, and compiling does not pay.
        compiles = context.recipe.compile and context.device != "cpu" and context.job.course > 2
        self.work = compiled_work() if compiles else None
        self.layout = torch.channels_last if context.channels_last else torch.contiguous_format
        self.total = context.recipe.epochs * context.steps
        self.freezer = Freezer(state.model) if context.recipe.freeze else None
        self.statistics = _BatchNormSnapshot(state.model)
        self.reported, self.saved, self.clock = 0.0, time.monotonic(), time.perf_counter()
        self.final: NDArray[np.float32] | None = None  # logits by the weights that are kept
        self.copy_seconds = 0.0  # of the last save
        self.spent_before = 0.0  # seconds of the current epoch before the training was resumed

    def train_epoch(self) -> tuple[float, float]:
        """Run the remaining steps of the epoch; return its mean loss and the last learning rate."""
        context, state, progress = self.context, self.state, self.state.progress
        epoch, self.spent_before = progress.epoch, progress.epoch_seconds
        loss_of, losses = self._loss_of(epoch), [record["loss"] for record in progress.history]
        batches = context.batches(epoch)
        changes = context.step_changes(epoch, progress.step, batches)
        batches = batches[progress.step :]
        # One transfer per epoch; an index sent at every step would wait for the kernels of the previous step.
        order = torch.from_numpy(np.concatenate(batches)).to(context.device)
        self.size, whole = context.sizes(epoch)
        zero = torch.zeros((), device=context.device)
        progress.loss_sum = zero if progress.loss_sum is None else progress.loss_sum.to(context.device)
        state.model.train()
        if self.freezer is not None:
            self.freezer.set(epoch < context.recipe.freeze)
        start = 0
        # Closed also after an error, when other threads and processes still prepare batches.
        with contextlib.closing(
            context.pixels.batches(batches, order, context.user_transform(epoch), progress.step)
        ) as pixels:
            for rows, batch, change in zip(batches, pixels, changes, strict=True):
                step = epoch * context.steps + progress.step
                rate = self._set_learning_rate(step, losses)
                inputs, labels = self._inputs(reduce_batch(batch, whole), order[start : start + len(rows)], *change)
                start += len(rows)
                progress.loss_sum += _train_step(context, state, loss_of, inputs, labels, self.statistics, self.report)
                if state.ema is not None:
                    state.ema.update(step)
                progress.step += 1
                self._between_steps(step)
        loss = float(progress.loss_sum) / context.images_per_epoch
        if not math.isfinite(loss):
            raise context.diverged(f"the loss is {loss} in epoch {epoch + 1}")
        return loss, rate

    def close_epoch(self, loss: float, rate: float) -> None:
        """Validate and record the epoch after its last step, and save the state if it is time.

        The last epoch is not saved: its state is not needed once the predictions are written.
        """
        context, state, progress = self.context, self.state, self.state.progress
        recipe = context.recipe
        # Then the weights of this epoch are kept, and predictions to store are those of the validation.
        last = progress.epoch + 1 == recipe.epochs and recipe.keep == "last" and not recipe.patience
        last = last and not recipe.average_last
        logits = None
        if len(context.validation):
            logits = context.logits(state.eval_model, context.pixels, context.validation, stored=last)
        validation = {} if logits is None else validation_scores(context, logits)
        self.final = logits if last else None
        # The time includes the validation, and what was saved since, so it is the full cost of an epoch.
        now = time.perf_counter()
        spent, self.clock = self.spent_before + now - self.clock, now
        record = {"epoch": progress.epoch + 1, "loss": loss, "lr": rate, "seconds": spent} | validation
        earlier = at_final_size(progress.history, recipe.progressive)
        counts = progress.epoch >= epochs_below(recipe.progressive)  # batch statistics of other sizes are not kept
        if recipe.keep == "best" and counts and _is_best(record, earlier, recipe.metric):
            progress.best = {name: value.detach().clone() for name, value in state.eval_model.state_dict().items()}
        progress.history.append(record)
        if context.recipe.average_last and progress.epoch >= context.recipe.epochs - context.recipe.average_last:
            progress.last_sum = added(progress.last_sum, state.model)
        progress.seconds += spent
        progress.epoch, progress.step, progress.loss_sum, progress.epoch_seconds = progress.epoch + 1, 0, None, 0.0
        if not _has_ended(context, progress) and self._save_is_due():
            self._save()
        else:
            self.writer.record(progress.history)
        self.report({"event": "epoch", "done": progress.epoch * context.steps, "total": self.total, **record})

    def _loss_of(self, epoch: int) -> LossOf:
        """Return the loss of an epoch as a function of images and labels; it may change from epoch to epoch."""
        context, forward = self.context, self.forward
        criterion = context.criterion(epoch, self.counts)

        def loss_of(images: Tensor, labels: Tensor, whole: Tensor | None) -> Tensor:
            with autocast(context.amp, context.device):
                return criterion(forward(images), labels, whole)

        return loss_of

    def _set_learning_rate(self, step: int, losses: Sequence[float]) -> float:
        """Set the learning rate of a step, counted over all epochs; return it without the factors of the layers."""
        rate = (self.context.recipe.lr or 0.0) * self.schedule.share(step, losses)
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        return rate

    def _inputs(self, batch: Tensor, index: Tensor, changes: Changes, mixing: Mixing | None) -> tuple[Tensor, Tensor]:
        """Return the augmented images of a step and their labels: (n, heads) codes, or (n, outputs) shares if mixed.

        Of several labels or numbers they are (n, columns) values, with sample weights times these, and the weights as a
        further column.

        With soft labels, the labels are (n, 2·outputs) shares: those of the labels, then the soft labels, which are the
        last columns of several labels or numbers too. With sample weights, they are multiplied by them.

        Parameters
        ----------
        batch : uint8 (n, height, width, 3); it may be changed.
        index : (n,) rows of the batch, on the device.
        changes, mixing : how the images are augmented and mixed.
        """
        context, architecture = self.context, self.context.architecture
        inputs = apply_changes(
            batch,
            changes,
            architecture.mean,
            architecture.std,
            self.layout,
            in_place=True,
            work=self.work,
            size=self.size,
        )
        labels = self.targets[index]
        if self.shares is not None:
            labels = self.shares[index]
        elif context.target.has_columns:
            if self.weights is not None:  # unlike a distribution, a row does not tell its weight by its sum
                labels = torch.cat([labels, torch.ones_like(labels[:, :1])], dim=1)
        elif mixing is not None or self.soft_labels is not None or self.weights is not None:
            labels = one_hot(context.target, labels)
        if self.soft_labels is not None:
            labels = torch.cat([labels, self.soft_labels[index]], dim=1)
        if self.weights is not None:
            labels = labels * self.weights[index][:, None]
        return (inputs, labels) if mixing is None else apply_mixing(inputs, labels, mixing)

    def _between_steps(self, step: int) -> None:
        """Report progress and save the state if the last report or save was long enough ago."""
        context, progress = self.context, self.state.progress
        now = time.monotonic()
        if now - self.reported > _REPORT_SECONDS:
            self.reported = now
            self.report({"event": "step", "done": step + 1, "total": self.total})
        if progress.step < context.steps and self._save_is_due():
            progress.epoch_seconds = self.spent_before + time.perf_counter() - self.clock
            if not math.isfinite(float(progress.loss_sum)):  # type: ignore[arg-type]
                raise context.diverged(f"the loss is not finite in epoch {progress.epoch + 1}")
            self._save()

    def _save_is_due(self) -> bool:
        """Return whether the last save was long enough ago.

        A save does not wait for the one before, and copying takes at most a twentieth of the time. With
        `save_seconds` of 0 or less, every step is saved.
        """
        seconds = self.context.job.save_seconds
        if seconds <= 0:
            return True
        since = time.monotonic() - self.saved
        return since > max(seconds, _COPY_SHARE * self.copy_seconds) and not self.writer.busy

    def _save(self) -> None:
        start = time.monotonic()
        self.writer.save(self.state)
        self.saved = time.monotonic()
        self.copy_seconds = self.saved - start


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


def _has_ended(context: FoldContext, progress: Progress) -> bool:
    """Return whether the last epoch is trained."""
    recipe = context.recipe
    history = at_final_size(progress.history, recipe.progressive)
    return progress.epoch >= recipe.epochs or _should_stop_early(history, recipe.patience, recipe.metric)


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
    it. A job that shares its device gives way before that.

    Raises
    ------
    DeviceSharedError : memory ran out, and the job shares its device with others.
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
            if not released and not single and context.job.gives_way:
                # Alone on the device, the job may have room; smaller parts of a batch would change its statistics.
                raise DeviceSharedError(f"{context.job.title}: out of memory on {context.job.shown_device}") from None
            if not released:
                state.progress.micro_batch_size = (size + 1) // 2
        if size == 1 and not released:
            raise EnsembleError(
                f"{context.job.title}: out of memory on {context.job.shown_device}, even with one image at a time",
                hint="use a smaller `img_size` or model"
                + ("" if context.device == "cpu" else ", or `jobs=1` if several jobs train on this device"),
            )
        # Not in the handler, because its traceback still references the activations.
        free_cache(context.device)
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
    return group.gradients(
        lambda images, own: loss_of(images, own, labels), split, state.scaler.scale, list(state.model.parameters())
    )


def _accumulate_gradients(state: TrainingState, loss_of: LossOf, inputs: Tensor, labels: Tensor) -> Tensor:
    """Add up the gradients of a batch, in parts if a micro-batch size is set; return the loss times the images."""
    n, size = len(inputs), state.progress.micro_batch_size
    parts = math.ceil(n / size) if size else 1
    loss_sum = torch.zeros((), device=inputs.device)
    for images, part_labels in zip(inputs.tensor_split(parts), labels.tensor_split(parts), strict=True):
        loss = loss_of(images, part_labels, labels if parts > 1 else None)
        state.scaler.scale(loss if parts == 1 else loss * (len(images) / n)).backward()
        loss_sum += loss.detach() * len(images)
    return loss_sum
