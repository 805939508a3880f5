"""Training-time augmentation of a whole batch, each sample with its own parameters, fused with normalisation.

The uint8 batch is turned, shifted, scaled and mirrored by one affine grid sample and coloured by one matrix a sample;
every parameter comes from the generator that is given, so that a step's augmentation depends on the step alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from folds.errors import unknown


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the parameters, each drawn uniformly a sample.

    `flip` the probability of a mirror image; `zoom` ± share of the scale; `shift` ± share of the width and height;
    `turn` ± degrees; `brightness`, `contrast`, `saturation` ± share.
    """

    flip: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    turn: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0


# For upright photographs: people do not stand on their heads, so there is no vertical flip and little turning.
PRESETS = {
    "none": Augmentation(),
    "light": Augmentation(flip=0.5, shift=0.04),
    "standard": Augmentation(flip=0.5, zoom=0.12, shift=0.06, turn=8.0, brightness=0.2, contrast=0.2, saturation=0.2),
}


def preset(name: str) -> Augmentation:
    """The augmentation of that name."""
    if name not in PRESETS:
        raise unknown("--augment", name, list(PRESETS))
    return PRESETS[name]


def to_input(batch: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 (n, height, width, 3) → float32 (n, 3, height, width), normalised; no augmentation."""
    scale, offset = _normalisation(tuple(mean), tuple(std), batch.device)
    return batch.permute(0, 3, 1, 2).float().mul_(scale).add_(offset)


# Kept: a tensor made from numbers is sent to the device, and the sending waits for every kernel before it.
@lru_cache(maxsize=64)
def _normalisation(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    deviation = torch.tensor(std, device=device)
    scale = 1 / (255 * deviation)
    offset = -torch.tensor(mean, device=device) / deviation
    return scale[:, None, None], offset[:, None, None]


def augment(batch: Tensor, how: Augmentation, mean: Sequence[float], std: Sequence[float], generator: torch.Generator) -> Tensor:
    """uint8 (n, height, width, 3) → augmented, normalised float32 (n, 3, height, width) on the batch's device.

    Parameters
    ----------
    generator : a CPU generator; the parameters (a few numbers a sample) are drawn on the CPU and moved, so that a GPU
        and a CPU see the same augmentation.
    """
    n, height, width, _ = batch.shape
    uniform = torch.rand((n, 8), generator=generator).to(batch.device, non_blocking=True)
    pixels = batch.permute(0, 3, 1, 2).float()
    if how.zoom or how.shift or how.turn:
        pixels = torch.nn.functional.grid_sample(
            pixels,
            torch.nn.functional.affine_grid(_affine(uniform, how, height / width), [n, 3, height, width], align_corners=False),
            mode="bilinear",
            padding_mode="reflection",
            align_corners=False,
        )
    elif how.flip:
        mirrored = (uniform[:, 0] < how.flip)[:, None, None, None]
        pixels = torch.where(mirrored, pixels.flip(3), pixels)
    if how.brightness or how.contrast or how.saturation:
        pixels = _recolour(pixels, uniform, how)
    scale, offset = _normalisation(tuple(mean), tuple(std), batch.device)
    return pixels.mul(scale).add_(offset)


def _affine(uniform: Tensor, how: Augmentation, aspect: float) -> Tensor:
    """(n, 2, 3) maps from output to input coordinates, both in −1…1."""
    sign = torch.where(uniform[:, 0] < how.flip, -1.0, 1.0)
    zoom = 1 + how.zoom * (2 * uniform[:, 1] - 1)
    angle = math.radians(how.turn) * (2 * uniform[:, 2] - 1)
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    x, y = 2 * how.shift * (2 * uniform[:, 3] - 1), 2 * how.shift * (2 * uniform[:, 4] - 1)
    # The aspect keeps a turn a turn where pixels are not square in these coordinates.
    return torch.stack([torch.stack([sign * cos, -sin * aspect, x], 1), torch.stack([sign * sin / aspect, cos, y], 1)], 1)


def _recolour(pixels: Tensor, uniform: Tensor, how: Augmentation) -> Tensor:
    def factor(column: int, strength: float) -> Tensor:
        return (1 + strength * (2 * uniform[:, column] - 1))[:, None, None, None]

    grey = pixels.mean(1, keepdim=True)
    pixels = torch.lerp(grey, pixels, factor(5, how.saturation))
    middle = grey.mean((2, 3), keepdim=True)
    pixels = torch.lerp(middle, pixels, factor(6, how.contrast)) * factor(7, how.brightness)
    return pixels.clamp_(0, 255)
