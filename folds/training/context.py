"""The data and settings of the training of one fold, and its random numbers as functions of epoch and step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from folds.augmentation.batch import sample_batches, sample_parameters
from folds.augmentation.custom import TransformPool
from folds.augmentation.mixup import MixupCutmix, draw_mixing
from folds.augmentation.presets import Augmentation
from folds.config.recipe import Recipe
from folds.data.targets import Target
from folds.errors import EnsembleError, TrainingDivergedError
from folds.models.factory import Architecture
from folds.models.inference import BATCH, Change, PixelSource, predict_logits
from folds.models.multi_head import join_heads
from folds.optim.schedules import Schedule
from folds.training.criterion import SoftTargets
from folds.training.group import Group
from folds.training.job import Job
from folds.training.sampler import EpochSampler
from folds.utils.files import derive_seed


@dataclass(frozen=True)
class FoldContext:
    """The data and settings of the training of one fold; they do not change during the training.

    Attributes
    ----------
    labels : (images,) indices of the predicted classes.
    training_labels : (images, heads) class index of each head.
    training, validation : rows of the two parts; a refit trains on all rows and has no validation part.
    epochs : sampler of the rows of each epoch.
    augmentations : the augmentations in use.
    augmentation_index : (images,) index of the augmentation of each image.
    amp : ``bf16``, ``fp16`` or ``off``.
    soft_labels : (images, outputs) probabilities to learn as well; None without them.
    group : the processes that train the fold together; None for one.
    """

    job: Job
    recipe: Recipe
    architecture: Architecture
    pixels: PixelSource
    target: Target
    labels: NDArray[np.int64]
    training_labels: NDArray[np.int64]
    training: NDArray[np.int64]
    validation: NDArray[np.int64]
    epochs: EpochSampler
    augmentations: tuple[Augmentation, ...]
    augmentation_index: NDArray[np.int64]
    transform: TransformPool | None
    amp: str
    channels_last: bool
    soft_labels: NDArray[np.float32] | None = None
    group: Group | None = None

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

        Something about the model was chosen on the fold; or soft labels are predictions of models that have seen its
        people (docs/distill.md).
        """
        selected = self.recipe.selected_on_validation or self.job.selected_on_validation
        return selected or self.job.soft_labels is not None

    @property
    def steps(self) -> int:
        """Return the number of steps per epoch.

        Batches have almost equal sizes: images of a short last batch would have more weight, and a batch of one image
        has no variance.
        """
        return max(1, math.ceil(len(self.epochs) / (self.recipe.batch_size or len(self.epochs))))

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the rows of each step of an epoch."""
        return np.array_split(self.epochs.rows(epoch), self.steps)

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

    def augmentation_params(
        self, epoch: int, steps: Sequence[int], batches: Sequence[NDArray[np.int64]]
    ) -> list[tuple[Tensor, Tensor]]:
        """Return the random numbers of augmentation and of mixing for each step, each (images, numbers), on the device.

        Parameters
        ----------
        steps : steps of the epoch.
        batches : rows of each step.
        """
        mixing, columns = self.mixing, sample_parameters(1, self.augmentations, torch.Generator()).shape[1]

        def sample(n: int, generator: torch.Generator) -> Tensor:
            parameters = sample_parameters(n, self.augmentations, generator)
            return torch.cat([parameters, draw_mixing(n, mixing, generator)], 1) if mixing else parameters

        seeds = [derive_seed(*self.seed, epoch, step) for step in steps]
        samples = sample_batches(sample, [len(rows) for rows in batches], seeds, self.device)
        return [(both[:, :columns], both[:, columns:]) for both in samples]

    def user_transform(self, epoch: int) -> Change | None:
        """Return the transform of uint8 images by the user's function; None without one.

        Every image has a seed of its own, also if it appears twice in an epoch.
        """
        transform = self.transform
        if transform is None:
            return None

        def change(step: int, rows: NDArray[np.integer], images: NDArray[np.uint8]) -> NDArray[np.uint8]:
            return transform.batch(
                images, [derive_seed(*self.seed, epoch, step, i, row) for i, row in enumerate(rows.tolist())]
            )

        return change

    @property
    def schedule(self) -> Schedule:
        """Return the learning-rate schedule."""
        recipe, options = self.recipe, dict(self.recipe.schedule_args)
        frozen = recipe.freeze
        if self.job.course < 2:  # a run that an earlier version started ends as it would have
            frozen = 0
            options = ({"whole": 0.0} if recipe.schedule == "cyclic" else {}) | options
        return Schedule(recipe.schedule, recipe.epochs, self.steps, recipe.warmup or 0.0, options, frozen)

    def counts(self) -> list[Tensor]:
        """Return for each head (values,) the images per epoch, all from the training part, on the device."""
        codes = self.training_labels[self.epochs.rows(0)]  # every epoch has the same number of images of each class
        sizes = [len(head.values) for head in self.target.heads]
        return [
            torch.from_numpy(np.bincount(codes[:, i], minlength=size)).to(self.device) for i, size in enumerate(sizes)
        ]

    def logits(self, model: torch.nn.Module, pixels: PixelSource, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return (n, classes) the logits of `rows`, in this order.

        Raises
        ------
        TrainingDivergedError : a logit is not finite.
        """
        model = join_heads(model.eval(), self.target)
        mean, std = self.architecture.mean, self.architecture.std

        def predict(some: NDArray[np.int64]) -> NDArray[np.float32]:
            return predict_logits(
                model, pixels, some, mean, std, device=self.device, amp=self.amp, channels_last=self.channels_last
            )[0]

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
