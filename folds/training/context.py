"""The data and settings of the training of one fold, and its random numbers as functions of epoch and step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from folds.augmentation.batch import sample_batches
from folds.augmentation.changes import Changes, compute_changes, sample_parameters, split_changes
from folds.augmentation.mixup import Mixing, MixupCutmix, compute_mixing, draw_mixing, split_mixing
from folds.augmentation.pool import AHEAD, TransformPool
from folds.augmentation.presets import Augmentation
from folds.config.recipe import Recipe
from folds.data.targets import Target
from folds.errors import EnsembleError, TrainingDivergedError
from folds.models.factory import Architecture, is_convolutional
from folds.models.head_spec import cosine_scale
from folds.models.inference import BATCH, Change, ChangeAhead, PixelSource
from folds.optim.column_losses import CellCounts
from folds.optim.losses import Loss, LossForm
from folds.optim.schedules import Schedule
from folds.training.batches import count_batches, full_batches
from folds.training.criterion import Counts, SoftTargets, build_criterion
from folds.training.group import Group
from folds.training.job import Job
from folds.training.predictor import Predictor
from folds.training.sampler import EpochSampler
from folds.training.stages import scaled, size_of_epoch
from folds.utils.files import derive_seed

_IMAGES_AT_ONCE = 65_536  # whose augmentation is computed at once: about 20 MB


@dataclass(frozen=True)
class FoldContext:
    """The data and settings of the training of one fold; they do not change during the training.

    Attributes
    ----------
    labels : (images,) indices of the predicted classes; (images, columns) float64 with several labels or numbers.
    training_labels : (rows, heads) class index of each head; rows are the images of the table, then test images if
        they are learned (`folds.training.examples`). With several labels or numbers float32 (rows, columns), numbers in
        the units of the head (`folds.models.number_head`).
    training, validation : images of the table in the two parts; a refit trains on all and has no validation part.
    epochs : sampler of the rows of each epoch.
    augmentations : the augmentations in use.
    augmentation_index : (rows,) index of the augmentation of each row.
    amp : ``bf16``, ``fp16`` or ``off``.
    soft_labels : (rows, outputs) probabilities to learn as well, or (rows, columns) as `training_labels`; None without
        them.
    weights : (rows,) float32 weight of each row in the loss; None for equal weights.
    targets : (rows, outputs) float32 target of each row; None if all are one class.
    pseudo_ids : ids of the test images that are learned.
    group : the processes that train the fold together; None for one.
    persons : (images of the table,) the person of each; None unless epochs are scored by person.
    """

    job: Job
    recipe: Recipe
    architecture: Architecture
    pixels: PixelSource
    target: Target
    labels: NDArray
    training_labels: NDArray
    training: NDArray[np.int64]
    validation: NDArray[np.int64]
    epochs: EpochSampler
    augmentations: tuple[Augmentation, ...]
    augmentation_index: NDArray[np.int64]
    transform: TransformPool | None
    amp: str
    channels_last: bool
    soft_labels: NDArray[np.float32] | None = None
    weights: NDArray[np.float32] | None = None
    targets: NDArray[np.float32] | None = None
    pseudo_ids: tuple[str, ...] = ()
    group: Group | None = None
    persons: NDArray[np.str_] | None = None

    @property
    def loss_form(self) -> LossForm:
        """Return how the losses are computed."""
        # A run that an earlier version started ends as it would have.
        normalized = self.job.course >= 3
        return LossForm(normalized, self.weights is not None, cosine_scale(self.architecture.head) or 1.0)

    @property
    def device(self) -> str:
        """Return the device of the training: ``cpu``, ``cuda:0``."""
        return self.job.device

    @property
    def writes(self) -> bool:
        """Return whether this process writes the files of the fold."""
        return self.group is None or self.group.rank == 0

    @property
    def seed(self) -> tuple[Any, ...]:
        """Return the seed of the job; all random streams are derived from it and from epoch and step."""
        return (self.recipe.seed, self.job.run, self.job.fold)

    @property
    def selected_on_validation(self) -> bool:
        """Return whether the score of the fold is optimistic.

        Something about the model was chosen on the fold; or soft labels, or votes that labels are mixed with, are
        predictions of models that have seen its people (docs/distill.md).
        """
        selected = self.recipe.selected_on_validation or self.job.selected_on_validation
        student = self.job.soft_labels is not None and not self.job.annotated
        return selected or student or self.job.softened is not None

    @property
    def steps(self) -> int:
        """Return the number of steps per epoch; see `folds.training.batches`."""
        return count_batches(len(self.epochs), self._batch_size, full=self._full_batches)

    @property
    def images_per_epoch(self) -> int:
        """Return the number of images of all steps of an epoch."""
        return self.steps * min(self._batch_size, len(self.epochs)) if self._full_batches else len(self.epochs)

    @property
    def _batch_size(self) -> int:
        return self.recipe.batch_size or len(self.epochs)

    @property
    def _full_batches(self) -> bool:
        return self.job.course > 2  # a run that an earlier version started ends as it would have

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the rows of each step of an epoch."""
        if self._full_batches:
            return full_batches(self.epochs.rows, len(self.epochs), self._batch_size, epoch)
        return np.array_split(self.epochs.rows(epoch), self.steps)

    @property
    def size(self) -> tuple[int, int]:
        """Return (height, width) of the model's input; the images may be larger (`cache_scale`)."""
        return self.architecture.height, self.architecture.width

    def sizes(self, epoch: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return (height, width) of the model's input in an epoch, and of the images that it is the center of."""
        size = size_of_epoch(self.recipe.progressive, epoch, self.size)
        return size, self.image_size if size == self.size else scaled(self.image_size, self.size, size)

    @property
    def image_size(self) -> tuple[int, int]:
        """Return (height, width) of the images."""
        _, height, width, _ = self.pixels.values.shape
        return height, width

    @property
    def soft_targets(self) -> SoftTargets | None:
        """Return how soft labels enter the loss; None without them."""
        recipe = self.recipe
        if self.soft_labels is None or recipe.soft_weight is None or recipe.soft_temperature is None:
            return None
        return SoftTargets(recipe.soft_weight, recipe.soft_temperature)

    @property
    def mixing(self) -> MixupCutmix:
        """Return the settings of mixup and CutMix."""
        return MixupCutmix(self.recipe.mixup, self.recipe.cutmix)

    def step_changes(
        self, epoch: int, first: int, batches: Sequence[NDArray[np.int64]]
    ) -> Iterator[tuple[Changes, Mixing | None]]:
        """Yield how the images of each step are augmented and mixed, on the device.

        They are computed for many steps at once. Which steps these are does not depend on `first`, because numbers
        computed in another place of a vector may differ in the last bit, and a resumed training must not.

        Parameters
        ----------
        first : the first step to yield.
        batches : rows of each step of the epoch.
        """
        steps = max(1, _IMAGES_AT_ONCE // max(map(len, batches)))
        for start in range(first // steps * steps, len(batches), steps):
            changes = self._changes(epoch, start, batches[start : start + steps])
            yield from changes[max(0, first - start) :]

    def _changes(
        self, epoch: int, first: int, batches: Sequence[NDArray[np.int64]]
    ) -> list[tuple[Changes, Mixing | None]]:
        """Return the changes of the steps from `first` on; `batches` has the rows of these steps."""
        mixing, columns = self.mixing, sample_parameters(1, self.augmentations, torch.Generator()).shape[1]
        size, whole = self.sizes(epoch)

        def sample(n: int, generator: torch.Generator) -> Tensor:
            parameters = sample_parameters(n, self.augmentations, generator)
            return torch.cat([parameters, draw_mixing(n, mixing, generator)], 1) if mixing else parameters

        sizes = [len(rows) for rows in batches]
        seeds = [derive_seed(*self.seed, epoch, first + i) for i in range(len(batches))]
        index = torch.from_numpy(self.augmentation_index[np.concatenate(batches)])
        together = self.job.course > 2  # the GPU or the vectors of a run of an earlier version may round otherwise
        numbers = sample_batches(sample, sizes, seeds, "cpu" if together else self.device)
        mixed: Sequence[Mixing | None] = [None] * len(batches)
        if together:
            changes = compute_changes(torch.cat(numbers)[:, :columns], self.augmentations, whole, index, size)
            found = split_changes(changes, sizes, self.device)
            if mixing:
                mixed = split_mixing(compute_mixing(torch.cat(numbers)[:, columns:], size), sizes, self.device)
        else:
            kinds = index.to(self.device).split(sizes)
            found = [
                compute_changes(draws[:, :columns], self.augmentations, whole, kind, size)
                for draws, kind in zip(numbers, kinds, strict=True)
            ]
            if mixing:
                mixed = [compute_mixing(draws[:, columns:], size) for draws in numbers]
        return list(zip(found, mixed, strict=True))

    def user_transform(self, epoch: int) -> Change | ChangeAhead | None:
        """Return the transform of uint8 images by the user's function; None without one.

        Every image has a seed of its own, also if it appears twice in an epoch. Worker processes transform the next
        batches while the model works on this one; without them, a batch is transformed when it is needed.
        """
        transform = self.transform
        if transform is None:
            return None

        def seeds(step: int, rows: NDArray[np.integer]) -> list[int]:
            return [derive_seed(*self.seed, epoch, step, i, row) for i, row in enumerate(rows.tolist())]

        if transform.workers:
            return ChangeAhead(lambda step, rows, values: transform.start(values, rows, seeds(step, rows)), AHEAD)
        return lambda step, rows, images: transform.batch(images, seeds(step, rows))

    @property
    def schedule(self) -> Schedule:
        """Return the learning-rate schedule."""
        recipe, options = self.recipe, dict(self.recipe.schedule_args)
        frozen = recipe.freeze
        if self.job.course < 2:  # a run that an earlier version started ends as it would have
            frozen = 0
            options = ({"whole": 0.0} if recipe.schedule == "cyclic" else {}) | options
        return Schedule(recipe.schedule, recipe.epochs, self.steps, recipe.warmup or 0.0, options, frozen)

    def criterion(self, epoch: int, counts: Counts) -> Loss:
        """Return the loss of an epoch; it may change from epoch to epoch.

        Parameters
        ----------
        counts : what `counts` returned, which is the same for all epochs.
        """
        recipe = self.recipe
        return build_criterion(
            self.target,
            recipe.loss,
            recipe.head_loss,
            recipe.label_smoothing,
            counts,
            epoch / max(recipe.epochs, 1),
            self.soft_targets,
            self.loss_form,
        )

    def counts(self) -> Counts:
        """Return for each head (values,) the images per epoch, all from the training part, on the device.

        With several labels or numbers, return what is known of the images of an epoch.
        """
        rows = self.epochs.rows(0)  # every epoch has the same number of images of each class
        codes = self.training_labels[rows]
        if self.target.has_columns:
            soft = None if self.soft_labels is None else torch.from_numpy(self.soft_labels[rows]).to(self.device)
            return CellCounts.of(torch.from_numpy(codes).to(self.device), soft)
        sizes = [len(head.values) for head in self.target.heads]
        return [
            torch.from_numpy(np.bincount(codes[:, i], minlength=size)).to(self.device) for i, size in enumerate(sizes)
        ]

    def logits(
        self, model: torch.nn.Module, pixels: PixelSource, rows: NDArray[np.int64], *, stored: bool = False
    ) -> NDArray[np.float32]:
        """Return (n, classes) the logits of `rows`, in this order.

        Parameters
        ----------
        stored : whether they are stored, so that other commands must be able to compute them again. The memory format
            of the model may be another one afterwards.

        Raises
        ------
        TrainingDivergedError : a logit is not finite.
        torch.OutOfMemoryError : the memory is too small, also for a whole batch if the job shares its device.
        """
        # Another batch size changes last bits. Alone on the device, a job that gives way may have the memory.
        predictor = Predictor(model, self.target, self.architecture, self.device, halve=not self.job.gives_way)
        way, channels_last = self.job.validation, self.channels_last
        if stored and self.job.stored:
            way = self.job.stored
            channels_last = is_convolutional(model) if self.recipe.channels_last is None else self.recipe.channels_last
        if channels_last != self.channels_last:
            model.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)  # type: ignore[call-overload]

        def predict(some: NDArray[np.int64]) -> NDArray[np.float32]:
            return predictor.logits(pixels, some, way or self.amp, channels_last)

        group, classes = self.group, len(self.target.classes)
        logits = predict(rows) if group is None else group.shared_rows(predict, rows, BATCH, classes)
        if not np.isfinite(logits).all():
            raise self.diverged("predictions are not finite numbers")
        return logits

    def diverged(self, what: str) -> EnsembleError:
        """Return the error for a training with a non-finite loss or prediction."""
        return TrainingDivergedError(
            f"{self.job.title}: {what}",
            hint=f"start another run (`name=NEW`) with a lower `lr` (now {self.recipe.lr:g}) or with `amp=off`",
        )
