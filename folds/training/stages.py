"""Train the first epochs on smaller images (progressive resizing; Howard, 2018; Tan and Le, 2021).

The smaller images come from the decoded ones, batch by batch, before they are augmented: so augmentation and the model
cost less, and a stage sees what a run at its size would see. What size an epoch has follows from its number alone, so a
training can be resumed at any step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from folds.config.recipe import Recipe
from folds.config.stages import parse_stages
from folds.models.factory import Architecture
from folds.models.input_size import flexible

Size = tuple[int, int]


def size_of_epoch(stages: str | None, epoch: int, final: Size) -> Size:
    """Return (height, width) of the images of an epoch, counted from 0; that of the run after all stages.

    Parameters
    ----------
    stages : the setting `progressive`.
    final : (height, width) of the run.
    """
    for stage in parse_stages(stages):
        if epoch < stage.epochs:
            return stage.height, stage.width
        epoch -= stage.epochs
    return final


def epochs_below(stages: str | None) -> int:
    """Return the number of epochs before those at the size of the run."""
    return sum(stage.epochs for stage in parse_stages(stages))


def epochs_of_sizes(stages: str | None, epochs: int, final: Size) -> list[tuple[Size, int]]:
    """Return (height, width) and the number of epochs of each stage, the last one at the size of the run."""
    found = [((stage.height, stage.width), stage.epochs) for stage in parse_stages(stages)]
    return [*found, (final, epochs - epochs_below(stages))]


def work_of(stages: str | None, epochs: int, final: Size) -> float:
    """Return the pixels of all epochs as a share of those without smaller images: 1 without stages."""
    pixels = sum(height * width * count for (height, width), count in epochs_of_sizes(stages, epochs, final))
    return pixels / (final[0] * final[1] * epochs)


def trained_architecture(architecture: Architecture, recipe: Recipe) -> Architecture:
    """Return the architecture as its model is built for the training: with the same weights, for all sizes of it.

    Raises
    ------
    UsageError : the weights of the model are for one size.
    """
    final = architecture.height, architecture.width
    sizes = [size for size, _ in epochs_of_sizes(recipe.progressive, recipe.epochs, final)]
    return architecture if len(sizes) == 1 else flexible(architecture, sizes)


def scaled(whole: Size, final: Size, size: Size) -> Size:
    """Return (height, width) of the images of a stage with the margin around its input, in proportion to the run's.

    Parameters
    ----------
    whole : of the decoded images, which are larger than `final` with `cache_scale`.
    final, size : of the input of the run and of the stage.
    """
    height, width = (round(a * c / b) for a, b, c in zip(whole, final, size, strict=True))
    return max(height, size[0]), max(width, size[1])


def reduce_batch(batch: Tensor, size: Size) -> Tensor:
    """Return uint8 (n, height, width, 3) images at a smaller size, each pixel a weighted mean of all that it covers.

    In bytes, as a decoded image of this size would be: augmentation looks up levels in tables.
    """
    if size == batch.shape[1:3]:
        return batch
    pixels = batch.permute(0, 3, 1, 2)
    if batch.device.type != "cpu":  # for bytes there is a fast filter on a CPU only
        pixels = pixels.float()
    small = torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
    if small.dtype != torch.uint8:
        small = small.round_().clamp_(0, 255).to(torch.uint8)
    return small.permute(0, 2, 3, 1).contiguous()


def at_final_size(history: Sequence[dict[str, float]], stages: str | None) -> Sequence[dict[str, float]]:
    """Return the epochs at the size of the run: only they say whether a training no longer gets better."""
    return history[epochs_below(stages) :]
