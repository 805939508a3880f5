"""The training loop of one fold: deterministic, and saved between any two steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from folds.architectures import Architecture
from folds.augment import ahead, apply, draw
from folds.criterion import build_criterion, one_hot
from folds.devices import autocast
from folds.errors import Diverged, EnsembleError
from folds.files import derive_seed
from folds.inference import Change, Pixels, predict_logits, softmax
from folds.job import Job
from folds.joined import joined
from folds.mixing import Mixing, draw_mixing, mix
from folds.optimise import Freezer
from folds.presets import Augmentation
from folds.recipe import Recipe
from folds.sampling import Epochs
from folds.schedule import Schedule
from folds.scores import accuracy, argmax_classes, log_loss, macro_f1
from folds.state import Learner, StateFile
from folds.targets import Target
from folds.transform_pool import TransformPool

Report = Callable[[dict[str, Any]], None]
LossOf = Callable[[Tensor, Tensor], Tensor]  # images or outputs, truth (n, heads) → scalar
_REPORT_SECONDS = 0.2


@dataclass(frozen=True)
class Setup:
    """What a fold is trained on and how; nothing in it changes.

    Attributes
    ----------
    labels : (images,) class indices, of the classes that are predicted.
    trained : (images, heads) class indices that each head learns.
    training, validation : rows of the two parts.
    epochs : the rows that each epoch shows.
    ways : the augmentations in use; `which` (images,) of them each image has.
    amp : ``bf16``, ``fp16`` or ``off``.
    """

    job: Job
    recipe: Recipe
    architecture: Architecture
    pixels: Pixels
    target: Target
    labels: NDArray[np.int64]
    trained: NDArray[np.int64]
    training: NDArray[np.int64]
    validation: NDArray[np.int64]
    epochs: Epochs
    ways: tuple[Augmentation, ...]
    which: NDArray[np.int64]
    transform: TransformPool | None
    amp: str
    channels_last: bool

    @property
    def device(self) -> str:
        """Where it is trained: ``cpu``, ``cuda:0``."""
        return self.job.device

    @property
    def seed(self) -> tuple[Any, ...]:
        """What every random stream of the job is derived from, with the epoch and the step."""
        return (self.recipe.seed, self.job.run, self.job.fold)

    @property
    def steps(self) -> int:
        """Steps an epoch. Batches are of near equal size: a short last one would count its images more, and of one image has no variance."""
        return max(1, math.ceil(len(self.epochs) / (self.recipe.batch_size or len(self.epochs))))

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        """The rows of each step of an epoch."""
        return np.array_split(self.epochs.rows(epoch), self.steps)

    @property
    def mixing(self) -> Mixing:
        """How images are mixed."""
        return Mixing(self.recipe.mixup, self.recipe.cutmix)

    def numbers(self, epoch: int, steps: Sequence[int], batches: Sequence[NDArray[np.int64]]) -> list[tuple[Tensor, Tensor]]:
        """Every random number of these steps, of augmentation and of mixing, each (images, numbers), on the device."""
        mixing, columns = self.mixing, draw(1, self.ways, torch.Generator()).shape[1]

        def drawing(n: int, generator: torch.Generator) -> Tensor:
            drawn = draw(n, self.ways, generator)
            return torch.cat([drawn, draw_mixing(n, mixing, generator)], 1) if mixing else drawn

        seeds = [derive_seed(*self.seed, epoch, step) for step in steps]
        drawn = ahead(drawing, [len(rows) for rows in batches], seeds, self.device)
        return [(both[:, :columns], both[:, columns:]) for both in drawn]

    def changed(self, epoch: int) -> Change | None:
        """The user's transform of uint8 images; each has a seed of its own, also where it is shown twice."""
        transform = self.transform
        if transform is None:
            return None

        def change(step: int, rows: NDArray[np.integer], images: NDArray[np.uint8]) -> NDArray[np.uint8]:
            return transform.batch(images, [derive_seed(*self.seed, epoch, step, i, row) for i, row in enumerate(rows.tolist())])

        return change

    @property
    def schedule(self) -> Schedule:
        """The course of the learning rate."""
        return Schedule(self.recipe.schedule, self.recipe.epochs, self.steps, self.recipe.warmup or 0.0, self.recipe.schedule_args)

    def counts(self) -> list[Tensor]:
        """For each head (values,) images that an epoch shows, all of the training part, on the device."""
        codes = self.trained[self.epochs.rows(0)]  # of each class every epoch shows as many
        sizes = [len(head.values) for head in self.target.heads]
        return [torch.from_numpy(np.bincount(codes[:, i], minlength=size)).to(self.device) for i, size in enumerate(sizes)]

    def logits(self, model: torch.nn.Module, pixels: Pixels, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n, classes) of `rows`, in their order; an error where training has left numbers that are none."""
        model = joined(model.eval(), self.target)
        mean, std = self.architecture.mean, self.architecture.std
        logits = predict_logits(model, pixels, rows, mean, std, device=self.device, amp=self.amp, channels_last=self.channels_last)[0]
        if not np.isfinite(logits).all():
            raise self.diverged("predictions are not finite numbers")
        return logits

    def diverged(self, what: str) -> EnsembleError:
        """The error for a training that has left the numbers."""
        return Diverged(f"{self.job.title}: {what}", hint=f"--name NEW with a lower --lr (now {self.recipe.lr:g}), or with --amp off")


def fit(setup: Setup, learner: Learner, states: StateFile, forward: Callable[[Tensor], Tensor], report: Report) -> None:
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
    targets, counts = torch.from_numpy(setup.trained).to(device), setup.counts()
    which = torch.from_numpy(setup.which).to(device)
    layout = torch.channels_last if setup.channels_last else torch.contiguous_format
    mean, std = setup.architecture.mean, setup.architecture.std
    total = recipe.epochs * setup.steps
    freezer = Freezer(learner.model) if recipe.freeze else None
    statistics = _Statistics(learner.model)
    reported = 0.0
    saved, clock = time.monotonic(), time.perf_counter()
    while progress.epoch < recipe.epochs and not _without_hope(progress.history, recipe.patience):
        epoch = progress.epoch
        criterion = build_criterion(setup.target, recipe.loss, recipe.head_loss, recipe.label_smoothing, counts, epoch / recipe.epochs)
        losses = [record["loss"] for record in progress.history]

        def loss_of(images: Tensor, truth: Tensor, criterion: LossOf = criterion) -> Tensor:
            with autocast(setup.amp, device):
                return criterion(forward(images), truth)

        before = progress.epoch_seconds
        batches = setup.batches(epoch)[progress.step :]
        # One transfer an epoch; an index sent for every step would wait for its turn behind the step's kernels.
        order = torch.from_numpy(np.concatenate(batches)).to(device)
        numbers = setup.numbers(epoch, range(progress.step, setup.steps), batches)
        progress.summed = torch.zeros((), device=device) if progress.summed is None else progress.summed.to(device)
        learner.model.train()
        if freezer is not None:
            freezer.set(epoch < recipe.freeze)
        start = 0
        pixels = setup.pixels.batches(batches, order, setup.changed(epoch), progress.step)
        for rows, batch, (drawn, mixed) in zip(batches, pixels, numbers, strict=True):
            here = epoch * setup.steps + progress.step
            rate = (recipe.lr or 0.0) * schedule.share(here, losses)
            for group in learner.optimizer.param_groups:
                group["lr"] = rate * group.get("lr_scale", 1.0)
            index = order[start : start + len(rows)]
            inputs, truth = apply(batch, drawn, setup.ways, mean, std, which[index], layout), targets[index]
            if mixing:
                inputs, truth = mix(inputs, one_hot(setup.target, truth), mixed)
            start += len(rows)
            progress.summed += _learn(setup, learner, loss_of, inputs, truth, statistics, report)
            if learner.average is not None:
                learner.average.update(learner.model, step=here)
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
        judged = _validate(setup, learner.judged)
        # With the validation, and with the save of the epoch before: what an epoch costs, not what flatters.
        now = time.perf_counter()
        spent, clock = before + now - clock, now
        record = {"epoch": epoch + 1, "loss": loss, "lr": rate, "seconds": spent} | judged
        if recipe.keep == "best" and record["validation_macro_f1"] > max((r["validation_macro_f1"] for r in progress.history), default=-1.0):
            progress.best = {name: value.detach().clone() for name, value in learner.judged.state_dict().items()}
        progress.history.append(record)
        progress.seconds += spent
        progress.epoch, progress.step, progress.summed, progress.epoch_seconds = epoch + 1, 0, None, 0.0
        states.save(learner)
        saved = time.monotonic()
        report({"event": "epoch", "done": (epoch + 1) * setup.steps, "total": total, **record})
    kept = progress.best or (learner.average.module.state_dict() if learner.average is not None else None)
    if kept is not None:
        learner.model.load_state_dict(kept)


def _without_hope(history: Sequence[Mapping[str, float]], patience: int) -> bool:
    """Whether the validation score has not risen for `patience` epochs (0: never)."""
    scores = [record["validation_macro_f1"] for record in history]
    return patience > 0 and len(scores) > patience and max(scores[-patience:]) <= max(scores[:-patience])


class _Statistics:
    """The running statistics of batch normalisation: kept before a step, put back where the step is tried again."""

    def __init__(self, model: torch.nn.Module) -> None:
        norms = [module for module in model.modules() if isinstance(module, torch.nn.modules.batchnorm._NormBase)]
        buffers = [buffer for norm in norms for buffer in norm.buffers(recurse=False)]
        # A kind at a time: only tensors of one kind are copied by one kernel.
        kinds = sorted({buffer.dtype for buffer in buffers}, key=str)
        self.now = [[buffer for buffer in buffers if buffer.dtype == kind] for kind in kinds]
        self.before = [[buffer.clone() for buffer in some] for some in self.now]

    def keep(self) -> None:
        """Remember them as they are."""
        for before, now in zip(self.before, self.now, strict=True):
            torch._foreach_copy_(before, now)

    def put_back(self) -> None:
        """As they were at the last `keep`."""
        for before, now in zip(self.before, self.now, strict=True):
            torch._foreach_copy_(now, before)


def _learn(setup: Setup, learner: Learner, loss_of: LossOf, inputs: Tensor, truth: Tensor, statistics: _Statistics, report: Report) -> Tensor:
    """One step of the optimizer; the loss times the images, on the device.

    Out of memory halves the images a forward pass and tries again, from the same statistics and random numbers: gradients
    add up, so a step is still one over the whole batch. Batch normalisation then sees the smaller part.
    """
    seed = derive_seed(*setup.seed, learner.progress.epoch, learner.progress.step, "model")
    statistics.keep()
    while True:
        learner.optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(seed)  # of dropout and stochastic depth
        try:
            summed = _gradients(learner, loss_of, inputs, truth)
            break
        except torch.OutOfMemoryError:
            size = learner.progress.micro or len(inputs)
            learner.progress.micro = (size + 1) // 2
        if size == 1:
            raise EnsembleError(
                f"{setup.job.title}: out of memory on {setup.device}, even with one image at a time",
                hint="a smaller --img-size or model" + ("" if setup.device == "cpu" else ", or --jobs 1 where others train on it too"),
            )
        # Here, not in the handler: its traceback still holds the activations.
        if inputs.is_cuda:
            torch.cuda.empty_cache()
        statistics.put_back()
        text = (
            f"{setup.job.title}: out of memory on {setup.device}, going on with {learner.progress.micro} images at a time in batches of {len(inputs)}"
        )
        report({"event": "note", "text": text})
    if setup.recipe.clip:
        learner.scaler.unscale_(learner.optimizer)
        torch.nn.utils.clip_grad_norm_(learner.model.parameters(), setup.recipe.clip)
    learner.scaler.step(learner.optimizer)
    learner.scaler.update()
    return summed


def _gradients(learner: Learner, loss_of: LossOf, inputs: Tensor, truth: Tensor) -> Tensor:
    n = len(inputs)
    parts = math.ceil(n / learner.progress.micro) if learner.progress.micro else 1
    summed = torch.zeros((), device=inputs.device)
    for some, labels in zip(inputs.tensor_split(parts), truth.tensor_split(parts), strict=True):
        loss = loss_of(some, labels)
        learner.scaler.scale(loss if parts == 1 else loss * (len(some) / n)).backward()
        summed += loss.detach() * len(some)
    return summed


def _validate(setup: Setup, model: torch.nn.Module) -> dict[str, float]:
    logits = setup.logits(model, setup.pixels, setup.validation)
    truth, predicted = setup.labels[setup.validation], argmax_classes(logits)
    return {
        "validation_macro_f1": macro_f1(truth, predicted, len(setup.target.classes)),
        "validation_accuracy": accuracy(truth, predicted),
        "validation_log_loss": log_loss(truth, softmax(logits)),
    }
