"""Hold what one fold is trained on and how: its rows, targets, and every random number as a function of epoch and
step.
"""

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
from folds.models.inference import Change, PixelSource, predict_logits
from folds.models.multi_head import join_heads
from folds.optim.schedules import Schedule
from folds.training.job import Job
from folds.training.sampler import EpochSampler
from folds.utils.files import derive_seed


@dataclass(frozen=True)
class FoldContext:
    """What a fold is trained on and how; nothing in it changes.

    Attributes
    ----------
    labels : (images,) class indices, of the classes that are predicted.
    training_labels : (images, heads) class indices that each head learns.
    training, validation : rows of the two parts.
    epochs : the rows that each epoch shows.
    augmentations : those in use; `augmentation_index` (images,) says which of them each image has.
    amp : ``bf16``, ``fp16`` or ``off``.
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

    @property
    def device(self) -> str:
        """Return where it is trained: ``cpu``, ``cuda:0``."""
        return self.job.device

    @property
    def seed(self) -> tuple[Any, ...]:
        """Return what every random stream of the job is derived from, with the epoch and the step."""
        return (self.recipe.seed, self.job.run, self.job.fold)

    @property
    def selected_on_validation(self) -> bool:
        """Return whether anything about the model was chosen on the fold that is scored, which makes its score
        optimistic.
        """
        return self.recipe.selected_on_validation or self.job.selected_on_validation

    @property
    def steps(self) -> int:
        """Steps an epoch. Batches are of near equal size: a short last one would count its images more, and of one
        image has no variance.
        """
        return max(1, math.ceil(len(self.epochs) / (self.recipe.batch_size or len(self.epochs))))

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the rows of each step of an epoch."""
        return np.array_split(self.epochs.rows(epoch), self.steps)

    @property
    def mixing(self) -> MixupCutmix:
        """Return how images are mixed."""
        return MixupCutmix(self.recipe.mixup, self.recipe.cutmix)

    def augmentation_params(
        self, epoch: int, steps: Sequence[int], batches: Sequence[NDArray[np.int64]]
    ) -> list[tuple[Tensor, Tensor]]:
        """Every random number of these steps, of augmentation and of mixing, each (images, numbers), on the device."""
        mixing, columns = self.mixing, sample_parameters(1, self.augmentations, torch.Generator()).shape[1]

        def drawing(n: int, generator: torch.Generator) -> Tensor:
            drawn = sample_parameters(n, self.augmentations, generator)
            return torch.cat([drawn, draw_mixing(n, mixing, generator)], 1) if mixing else drawn

        seeds = [derive_seed(*self.seed, epoch, step) for step in steps]
        drawn = sample_batches(drawing, [len(rows) for rows in batches], seeds, self.device)
        return [(both[:, :columns], both[:, columns:]) for both in drawn]

    def user_transform(self, epoch: int) -> Change | None:
        """Return the user's transform of uint8 images; each has a seed of its own, also where it is shown twice."""
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
        """Return the course of the learning rate."""
        return Schedule(
            self.recipe.schedule, self.recipe.epochs, self.steps, self.recipe.warmup or 0.0, self.recipe.schedule_args
        )

    def counts(self) -> list[Tensor]:
        """For each head (values,) images that an epoch shows, all of the training part, on the device."""
        codes = self.training_labels[self.epochs.rows(0)]  # of each class every epoch shows as many
        sizes = [len(head.values) for head in self.target.heads]
        return [
            torch.from_numpy(np.bincount(codes[:, i], minlength=size)).to(self.device) for i, size in enumerate(sizes)
        ]

    def logits(self, model: torch.nn.Module, pixels: PixelSource, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return (n, classes) of `rows`, in their order; an error where training has left numbers that are none."""
        model = join_heads(model.eval(), self.target)
        mean, std = self.architecture.mean, self.architecture.std
        logits = predict_logits(
            model, pixels, rows, mean, std, device=self.device, amp=self.amp, channels_last=self.channels_last
        )[0]
        if not np.isfinite(logits).all():
            raise self.diverged("predictions are not finite numbers")
        return logits

    def diverged(self, what: str) -> EnsembleError:
        """Return the error for a training that has left the numbers."""
        return TrainingDivergedError(
            f"{self.job.title}: {what}",
            hint=f"--name NEW with a lower --lr (now {self.recipe.lr:g}), or with --amp off",
        )
