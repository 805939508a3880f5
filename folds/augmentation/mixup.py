"""Mix the images of a batch in pairs, and their targets with them: mixup and cutmix.

Each sample has its own weight and rectangle. One for the whole batch would increase the variance of the loss between
steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from folds.augmentation.batch import blocks
from folds.augmentation.operations import inside
from folds.errors import UsageError


@dataclass(frozen=True)
class MixupCutmix:
    """The α of Beta(α, α), the distribution of an image's weight: 0 off, 0.2 mostly one of the two images, 1 uniform.

    `mixup` blends two images (Zhang et al. 2018), `cutmix` pastes a rectangle of one into the other (Yun et al. 2019).
    With both, each sample is mixed by either with equal probability.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for name, alpha in (("mixup", self.mixup), ("cutmix", self.cutmix)):
            if not 0 <= alpha <= 100:
                raise UsageError(
                    f"`{name}` must be from 0 (off) to 100, found {alpha}",
                    hint="usual values are `mixup=0.2` and `cutmix=1`",
                )

    def __bool__(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0


def draw_mixing(n: int, mixing: MixupCutmix, generator: torch.Generator) -> Tensor:
    """Return the random numbers for mixing a batch: float32 (n, 5) on the CPU, (n, 2) without cutmix.

    The columns are the partner of each sample (a permutation of the batch, so every image is used equally often), the
    sample's own weight, whether a rectangle is pasted, and the center of the rectangle as shares of height and width.
    """
    partner = torch.randperm(n, generator=generator).numpy()
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))  # torch's Beta takes no generator
    uses_cutmix = rng.random(n) < (0.5 if mixing.mixup and mixing.cutmix else float(mixing.cutmix > 0))
    weight = np.where(uses_cutmix, _beta(rng, mixing.cutmix, n), _beta(rng, mixing.mixup, n))
    rectangle = [uses_cutmix, rng.random(n), rng.random(n)] if mixing.cutmix else []
    return torch.from_numpy(np.stack([partner, weight, *rectangle], axis=1).astype(np.float32))


def mix_batch(inputs: Tensor, targets: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Return each image mixed with its partner, and the targets mixed with the same weights.

    Parameters
    ----------
    inputs : float (n, channels, height, width), contiguous or channels_last; unchanged.
    targets : float (n, classes), distributions.
    draws : from `draw_mixing`, on the device of `inputs`.

    Returns
    -------
    inputs, targets : of the same shapes and layout. The weight of a pasted rectangle is its area inside the image.
    """
    return apply_mixing(inputs, targets, compute_mixing(draws, (inputs.shape[2], inputs.shape[3])))


class Mixing(NamedTuple):
    """How the images of a batch are mixed, on one device.

    Attributes
    ----------
    partner : (n,) int64 position of the other image in the batch.
    weight, target_weight : (n,) weight of the image outside of its rectangle, and of its target.
    boxes : (n, 4) int64 top, bottom, left, right of the rectangle of the partner; None without cutmix.
    """

    partner: Tensor
    weight: Tensor
    target_weight: Tensor
    boxes: Tensor | None


def compute_mixing(draws: Tensor, size: tuple[int, int]) -> Mixing:
    """Return how images are mixed, from the numbers of `draw_mixing`; of one step or of many.

    Parameters
    ----------
    size : height and width of the images in pixels.
    """
    height, width = size
    weight, target_weight, boxes = draws[:, 1], draws[:, 1], None
    if draws.shape[1] > 2:
        cut = draws[:, 2] > 0
        boxes = torch.where(cut[:, None], _rectangles(draws, height, width), 0)
        top, bottom, left, right = boxes.unbind(1)
        target_weight = torch.where(cut, 1 - (bottom - top) * (right - left) / (height * width), weight)
        weight = torch.where(cut, 1.0, weight)
    return Mixing(draws[:, 0].long(), weight, target_weight, boxes)


def split_mixing(mixing: Mixing, sizes: Sequence[int], device: torch.device | str) -> list[Mixing]:
    """Return the mixing of several steps, on the device, from that of all their images; each kind is sent in one copy.

    Parameters
    ----------
    sizes : images of each step.
    """
    columns = [[None] * len(sizes) if values is None else values.to(device).split(list(sizes)) for values in mixing]
    return [Mixing(*values) for values in zip(*columns, strict=True)]


def apply_mixing(inputs: Tensor, targets: Tensor, mixing: Mixing) -> tuple[Tensor, Tensor]:
    """Return the images and targets of `mix_batch`, from what was computed before."""
    n, channels, height, width = inputs.shape
    partner, weight, target_weight, boxes = mixing
    # Channels-last images are processed as one channel with rows of 3·width numbers, because rows of three numbers take
    # several times as long on a CPU.
    repeat = 1 if inputs.is_contiguous() else channels
    planes = inputs if repeat == 1 else inputs.permute(0, 2, 3, 1).reshape(n, 1, height, repeat * width)
    mixed = torch.empty_like(planes)
    for part in blocks(inputs.nbytes, n, inputs.device):
        own_weight = weight[part, None, None, None]
        if boxes is not None:
            own_weight = torch.where(inside(boxes[part], height, width, repeat), 0.0, own_weight)
        torch.lerp(planes[partner[part]], planes[part], own_weight, out=mixed[part])
    if repeat > 1:
        mixed = mixed.view(n, height, width, channels).permute(0, 3, 1, 2)
    return mixed, torch.lerp(targets[partner], targets, target_weight[:, None])


def _beta(rng: np.random.Generator, alpha: float, n: int) -> NDArray[np.float64]:
    return rng.beta(alpha, alpha, n) if alpha else np.ones(n)


def _rectangles(draws: Tensor, height: int, width: int) -> Tensor:
    """Return (n, 4) int64 top, bottom, left, right: a share 1 − weight of the area around the center, clipped to the
    image.
    """
    side = (1 - draws[:, 1]).sqrt()
    edges = [
        ((draws[:, 3 + i] + sign * side / 2) * size).round()
        for i, size in ((0, height), (1, width))
        for sign in (-1, 1)
    ]
    top, bottom, left, right = (
        edge.clamp(0, size) for edge, size in zip(edges, (height, height, width, width), strict=True)
    )
    return torch.stack([top, bottom, left, right], 1).long()
