"""Augment a whole batch in training, each sample with its own parameters, and normalize it.

The uint8 batch is rotated, shifted, scaled and mirrored by one affine grid sample, and its colors are changed per
sample. Sampling of parameters is separate from their application: all random numbers come from the given CPU generator,
so the augmentation of a step depends only on the step and is the same on a GPU, and the numbers of many steps can be
sampled in advance and sent in one copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import astuple
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from folds.augmentation import operations
from folds.augmentation.presets import PRESETS, Augmentation, preset, strongest

__all__ = [
    "PRESETS",
    "Augmentation",
    "augment_batch",
    "blocks",
    "preset",
    "sample_batches",
    "sample_parameters",
    "to_input",
]

Augmentations = Augmentation | Sequence[Augmentation]
# Random numbers per sample: flip, scale, rotation, shift in x and y, saturation, contrast, brightness. With operations
# or erased rectangles there are three more for the operation and five for the rectangle. A random crop has the numbers
# of scale and shift, and the last one for the ratio of its sides.
_PLAIN, _EXTRA = 8, 8
# Bytes of float pixels in a block on a CPU. A block stays in the cache for all operations, and its memory is reused
# instead of being requested from the system: half the time at 224 px.
_BLOCK = 1_250_000


def to_input(
    batch: Tensor, mean: Sequence[float], std: Sequence[float], layout: torch.memory_format = torch.contiguous_format
) -> Tensor:
    """Return uint8 (n, height, width, 3) as normalized float32 (n, 3, height, width) in the given layout, without
    augmentation.
    """
    n, height, width, _ = batch.shape
    inputs = torch.empty((n, 3, height, width), device=batch.device, memory_format=layout)
    return _normalize(inputs.copy_(batch.permute(0, 3, 1, 2)), tuple(mean), tuple(std))


def sample_parameters(n: int, augmentations: Augmentations, generator: torch.Generator) -> Tensor:
    """Return the random numbers for the augmentation of a batch: float32 (n, numbers), 0…1, on the CPU.

    Parameters
    ----------
    augmentations : one augmentation, or all that samples of the run have. The first eight numbers do not depend on it.
    generator : of the CPU.
    """
    widest = strongest(_as_tuple(augmentations))
    counts = [_PLAIN, *([_EXTRA] if widest.operation or widest.erase else []), *([1] if widest.aspect else [])]
    parts = [torch.rand((n, count), generator=generator) for count in counts]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def sample_batches(
    sample: Callable[[int, torch.Generator], Tensor],
    sizes: Sequence[int],
    seeds: Sequence[int],
    device: torch.device | str,
) -> list[Tensor]:
    """Return the parameters of many steps on the device, sent in one copy, because a copy per step would make the host
    wait.

    Parameters
    ----------
    sample : function of (n, generator) → (n, numbers) on the CPU.
    sizes, seeds : of each step.
    """
    parameters = [sample(size, torch.Generator().manual_seed(seed)) for size, seed in zip(sizes, seeds, strict=True)]
    return list(torch.cat(parameters).to(device).split(list(sizes)))


def augment_batch(
    batch: Tensor,
    draws: Tensor,
    augmentations: Augmentations,
    mean: Sequence[float],
    std: Sequence[float],
    augmentation_index: Tensor | None = None,
    layout: torch.memory_format = torch.contiguous_format,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Return uint8 (n, height, width, 3) as augmented, normalized float32 (n, 3, height, width) on the batch's device.

    The result of a sample depends only on its own pixels and numbers.

    Parameters
    ----------
    draws : from `sample_parameters` with the same `augmentations`, on the batch's device.
    augmentations : one augmentation, or several of which each sample has one.
    augmentation_index : (n,) int64 on the batch's device, the position in `augmentations` for each sample; required if
        there are several.
    layout : of the result: channels_last or contiguous.
    size : (height, width) of the result, which shows the center of larger images before they are augmented; None for
        the size of the images.
    """
    choices = _as_tuple(augmentations)
    widest = strongest(choices)
    size = (batch.shape[1], batch.shape[2]) if size is None else size
    if not widest.moves:
        batch = center_crop(batch, size)
    if widest == Augmentation():
        return to_input(batch, mean, std, layout)
    if augmentation_index is None and len(choices) > 1:
        raise ValueError(f"{len(choices)} augmentations need augmentation_index, found None")
    ranges = widest if len(choices) == 1 else _Ranges(*_table(choices, batch.device)[:, augmentation_index].unbind())
    batch, parameters = _parameters(batch, draws, widest, ranges, size)

    def augment_part(part: slice) -> Tensor:
        return _augment_part(batch[part], parameters.of(part), tuple(mean), tuple(std), size)

    parts = blocks(batch.numel() * 4, len(batch), batch.device)
    if len(parts) == 1:
        return augment_part(parts[0]).contiguous(memory_format=layout)
    inputs = torch.empty((len(batch), 3, *size), memory_format=layout)
    for part in parts:
        inputs[part] = augment_part(part)
    return inputs


def center_crop(batch: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the center (n, height, width, channels) of images that are at least as large."""
    top, left = (batch.shape[1] - size[0]) // 2, (batch.shape[2] - size[1]) // 2
    return batch[:, top : top + size[0], left : left + size[1]].contiguous()


def blocks(size: int, n: int, device: torch.device) -> list[slice]:
    """Return the slices of n samples (`size` bytes in all) to process at once: all on a GPU, nearly equal parts that
    fit into the cache on a CPU.
    """
    parts = 1 if device.type != "cpu" else max(1, min(n, math.ceil(size / _BLOCK)))
    return [slice(i * n // parts, (i + 1) * n // parts) for i in range(parts)]


class _Ranges(NamedTuple):
    """The fields of `Augmentation`, each (n,): one range per sample."""

    flip: Tensor
    scale: Tensor
    shift: Tensor
    rotate: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    operation: Tensor
    erase: Tensor
    crop: Tensor
    aspect: Tensor


class _Parameters(NamedTuple):
    """The changes to each sample, each (n, …) on the batch's device; None if no sample is changed in this way."""

    mirrored: Tensor | None = None
    affine: Tensor | None = None
    sharpness: Tensor | None = None
    saturation: Tensor | None = None
    contrast: Tensor | None = None
    brightness: Tensor | None = None
    erased: Tensor | None = None

    def of(self, some: slice) -> _Parameters:
        return _Parameters(*(None if values is None else values[some] for values in self))


def _as_tuple(augmentations: Augmentations) -> tuple[Augmentation, ...]:
    return (augmentations,) if isinstance(augmentations, Augmentation) else tuple(augmentations)


@lru_cache(maxsize=64)
def _table(augmentations: tuple[Augmentation, ...], device: torch.device) -> Tensor:
    """Return (fields, augmentations)."""
    return (
        torch.tensor([astuple(augmentation) for augmentation in augmentations], dtype=torch.float32)
        .T.contiguous()
        .to(device)
    )


def _parameters(
    batch: Tensor, draws: Tensor, widest: Augmentation, augmentation: Augmentation | _Ranges, size: tuple[int, int]
) -> tuple[Tensor, _Parameters]:
    """Return the batch with its levels changed by operations that do so, and the parameters of all other changes."""
    height, width = size
    chosen = operations.choose(draws[:, 8:11], augmentation.operation) if widest.operation else None
    found = _Parameters()
    if chosen is not None:
        batch = operations.recode(batch, chosen)
        found = found._replace(sharpness=chosen.effects["sharpness"])
    if widest.moves:
        affine = _affine(draws, augmentation, height / width, chosen)
        found = found._replace(affine=_in_window(affine, draws, widest, augmentation, batch, size))
    elif widest.flip:
        found = found._replace(mirrored=(draws[:, 0] < augmentation.flip)[:, None, None, None])
    if widest.brightness or widest.contrast or widest.saturation or chosen is not None:
        colors = {
            "saturation": (augmentation.saturation, draws[:, 5]),
            "contrast": (augmentation.contrast, draws[:, 6]),
            "brightness": (augmentation.brightness, draws[:, 7]),
        }
        factors = {name: 1 + strength * (2 * uniform - 1) for name, (strength, uniform) in colors.items()}
        if chosen is not None:
            factors = {name: factor * (1 + chosen.effects[name]) for name, factor in factors.items()}
        found = found._replace(**{name: factor[:, None, None, None] for name, factor in factors.items()})
    if widest.erase:
        found = found._replace(erased=operations.rectangles(draws[:, 11:16], augmentation.erase, height, width))
    return batch, found


def _affine(
    uniform: Tensor, augmentation: Augmentation | _Ranges, aspect: float, chosen: operations.Chosen | None
) -> Tensor:
    """Return (n, 2, 3) maps from output to input coordinates, both in −1…1."""
    sign = torch.where(uniform[:, 0] < augmentation.flip, -1.0, 1.0)
    scale = 1 + augmentation.scale * (2 * uniform[:, 1] - 1)
    angle = math.pi / 180 * augmentation.rotate * (2 * uniform[:, 2] - 1)
    x, y = 2 * augmentation.shift * (2 * uniform[:, 3] - 1), 2 * augmentation.shift * (2 * uniform[:, 4] - 1)
    if chosen is not None:
        angle = angle + chosen.effects["rotate"]
        x, y = x + 2 * chosen.effects["shift-x"], y + 2 * chosen.effects["shift-y"]
    cos, sin = angle.cos() * scale, angle.sin() * scale
    matrix = (cos, -sin, sin, cos)
    if chosen is not None:
        shear_x, shear_y = chosen.effects["shear-x"], chosen.effects["shear-y"]
        matrix = (cos - sin * shear_y, cos * shear_x - sin, sin + cos * shear_y, sin * shear_x + cos)
    # The aspect ratio makes this a rotation, because pixels are not square in these coordinates.
    return torch.stack(
        [
            torch.stack([sign * matrix[0], matrix[1] * aspect, x], 1),
            torch.stack([sign * matrix[2] / aspect, matrix[3], y], 1),
        ],
        1,
    )


def _in_window(
    affine: Tensor,
    draws: Tensor,
    widest: Augmentation,
    augmentation: Augmentation | _Ranges,
    batch: Tensor,
    size: tuple[int, int],
) -> Tensor:
    """Return maps (n, 2, 3) from output coordinates to those of the whole images, of which the output shows a window.

    The window is the center in the size of the output, or a random crop (Szegedy et al., 2015).
    """
    shares = size[1] / batch.shape[2], size[0] / batch.shape[1]  # of the width and of the height
    if not widest.crops:
        return affine if shares == (1, 1) else torch.stack([affine[:, 0] * shares[0], affine[:, 1] * shares[1]], 1)
    area = 1 - augmentation.crop * draws[:, 1]
    ratio = torch.exp(augmentation.aspect * (2 * draws[:, -1] - 1)) if widest.aspect else torch.ones_like(area)
    # The sides of the whole image are as those of the output, up to the rounding of its margin.
    sides = torch.stack([area * ratio, area / ratio], 1).sqrt().clamp(max=1)
    middle = (1 - sides) * (2 * draws[:, 3:5] - 1)
    affine = affine * sides[:, :, None]
    return torch.cat([affine[:, :, :2], affine[:, :, 2:] + middle[:, :, None]], 2)


def _augment_part(
    batch: Tensor, parameters: _Parameters, mean: tuple[float, ...], std: tuple[float, ...], size: tuple[int, int]
) -> Tensor:
    n, (height, width) = len(batch), size
    pixels = batch.permute(0, 3, 1, 2).float()
    if parameters.affine is not None:
        grid = torch.bmm(
            _pixel_centers(height, width, pixels.device).expand(n, -1, -1), parameters.affine.transpose(1, 2)
        ).view(n, height, width, 2)
        pixels = torch.nn.functional.grid_sample(
            pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False
        )
    elif parameters.mirrored is not None:
        pixels = torch.where(parameters.mirrored, pixels.flip(3), pixels)
    if parameters.sharpness is not None:
        pixels = operations.sharpen(pixels, parameters.sharpness)
    if parameters.saturation is not None and parameters.contrast is not None and parameters.brightness is not None:
        gray = pixels.mean(1, keepdim=True)
        torch.lerp(gray, pixels, parameters.saturation, out=pixels)
        torch.lerp(gray.mean((2, 3), keepdim=True), pixels, parameters.contrast, out=pixels).mul_(
            parameters.brightness
        ).clamp_(0, 255)
    pixels = _normalize(pixels, mean, std)
    return pixels if parameters.erased is None else operations.erase(pixels, parameters.erased)


# Cached, because torch's affine_grid computes it in every call and takes twice as long.
@lru_cache(maxsize=16)
def _pixel_centers(height: int, width: int, device: torch.device) -> Tensor:
    """Return (1, height·width, 3): x and y of the pixels' centers in −1…1, and 1."""
    x, y = (torch.linspace(-1, 1, size) * (size - 1) / size for size in (width, height))
    down, across = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([across, down, torch.ones_like(x).expand(height, width)], 2).view(1, -1, 3).to(device)


def _normalize(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Normalize pixels in place.

    Channels-last pixels are processed as rows of 3·width numbers, because rows of three numbers take four times as long
    on a CPU.
    """
    rows = pixels.permute(0, 2, 3, 1)
    if rows.is_contiguous():
        scale, offset = _scale_and_offset(mean, std, pixels.shape[3], pixels.device)
        rows.view(*rows.shape[:2], -1).mul_(scale).add_(offset)
    else:
        scale, offset = _scale_and_offset(mean, std, 1, pixels.device)
        pixels.mul_(scale[:, None, None]).add_(offset[:, None, None])
    return pixels


# Cached, because sending a new tensor to the device waits for all kernels before it.
@lru_cache(maxsize=64)
def _scale_and_offset(
    mean: tuple[float, ...], std: tuple[float, ...], width: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return scale and offset of each channel, each repeated `width` times."""
    deviation = torch.tensor(std, device=device)
    scale = 1 / (255 * deviation)
    offset = -torch.tensor(mean, device=device) / deviation
    return scale.repeat(width), offset.repeat(width)
