"""Augment a whole batch in training, each sample with its own parameters, and normalize it.

The uint8 batch is rotated, shifted, scaled and mirrored by one affine grid sample, and its colors are changed per
sample. Sampling of parameters is separate from their application: all random numbers come from the given CPU generator,
so the augmentation of a step depends only on the step and is the same on a GPU, and the numbers of many steps can be
sampled in advance and sent in one copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from folds.augmentation import operations
from folds.augmentation.changes import Augmentations, Changes, as_tuple, compute_changes, sample_parameters
from folds.augmentation.presets import PRESETS, Augmentation, preset, strongest

__all__ = [
    "PRESETS",
    "Augmentation",
    "apply_changes",
    "augment_batch",
    "blocks",
    "compiled_work",
    "preset",
    "sample_batches",
    "sample_parameters",
    "to_input",
]

# Bytes of float pixels in a block on a CPU. A block stays in the cache for all operations, and its memory is reused
# instead of being requested from the system: half the time at 224 px.
_BLOCK = 1_250_000


def to_input(
    batch: Tensor, mean: Sequence[float], std: Sequence[float], layout: torch.memory_format = torch.contiguous_format
) -> Tensor:
    """Return uint8 (n, height, width, 3) as normalized float32 (n, 3, height, width) in the given layout, without
    augmentation; images may have other numbers of channels.
    """
    n, height, width, channels = batch.shape
    inputs = torch.empty((n, channels, height, width), device=batch.device, memory_format=layout)
    return _normalize(inputs.copy_(batch.permute(0, 3, 1, 2)), tuple(mean), tuple(std))


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
    whole = batch.shape[1], batch.shape[2]
    if strongest(as_tuple(augmentations)) == Augmentation():
        return to_input(center_crop(batch, size or whole), mean, std, layout)
    changes = compute_changes(draws, augmentations, whole, augmentation_index, size)
    return apply_changes(batch, changes, mean, std, layout, size=size)


def center_crop(batch: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the center (n, height, width, channels) of images that are at least as large."""
    if size == batch.shape[1:3]:
        return batch
    top, left = (batch.shape[1] - size[0]) // 2, (batch.shape[2] - size[1]) // 2
    return batch[:, top : top + size[0], left : left + size[1]].contiguous()


def apply_changes(
    batch: Tensor,
    changes: Changes,
    mean: Sequence[float],
    std: Sequence[float],
    layout: torch.memory_format = torch.contiguous_format,
    *,
    in_place: bool = False,
    work: PixelWork | None = None,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Return uint8 (n, height, width, 3) as augmented, normalized float32 (n, 3, height, width) on its device.

    Parameters
    ----------
    changes : to each sample, on the batch's device.
    layout : of the result: channels_last or contiguous.
    in_place : the batch itself may be changed.
    work : `compiled_work` to use compiled functions; they round otherwise.
    size : (height, width) of the result, as in `compute_changes`; None for that of the images.
    """
    size = (batch.shape[1], batch.shape[2]) if size is None else size
    if changes.affine is None:
        batch = center_crop(batch, size)
    if all(values is None for values in changes):
        return to_input(batch, mean, std, layout)
    if changes.recoding is not None:
        batch = operations.recode(batch, changes.recoding, in_place=in_place)
    parts = blocks(batch.numel() * 4, len(batch), batch.device)
    if len(parts) == 1:
        return _augment_part(batch, changes, tuple(mean), tuple(std), size, work).contiguous(memory_format=layout)
    inputs = torch.empty((len(batch), batch.shape[3], *size), memory_format=layout)
    for part in parts:
        inputs[part] = _augment_part(batch[part], changes.of(part), tuple(mean), tuple(std), size, work)
    return inputs


def blocks(size: int, n: int, device: torch.device) -> list[slice]:
    """Return the slices of n samples (`size` bytes in all) to process at once: all on a GPU, nearly equal parts that
    fit into the cache on a CPU.
    """
    parts = 1 if device.type != "cpu" else max(1, min(n, math.ceil(size / _BLOCK)))
    return [slice(i * n // parts, (i + 1) * n // parts) for i in range(parts)]


class PixelWork(NamedTuple):
    """The functions that change all pixels of a batch."""

    warp: Callable[[Tensor, Tensor, Tensor, tuple[int, int]], Tensor]
    recolor: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def _augment_part(
    batch: Tensor,
    changes: Changes,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    size: tuple[int, int],
    work: PixelWork | None,
) -> Tensor:
    work = work or _EAGER
    if changes.affine is not None:
        pixels = work.warp(batch, changes.affine, _pixel_centers(*size, batch.device), size)
    else:
        pixels = batch.permute(0, 3, 1, 2).float()
        if changes.mirrored is not None:
            pixels = torch.where(changes.mirrored, pixels.flip(3), pixels)
    if changes.sharpness is not None:
        pixels = operations.sharpen(pixels, changes.sharpness, changes.sharpened)
    if changes.saturation is not None and changes.contrast is not None and changes.brightness is not None:
        pixels = work.recolor(pixels, changes.saturation, changes.contrast, changes.brightness)
    pixels = _normalize(pixels, mean, std)
    return pixels if changes.erased is None else operations.erase(pixels, changes.erased)


def _warp(batch: Tensor, affine: Tensor, centers: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the pixels of uint8 (n, …, …, 3) images at other places, as float32 (n, 3, height, width) of `size`."""
    n = len(batch)
    grid = torch.bmm(centers.expand(n, -1, -1), affine.transpose(1, 2)).view(n, *size, 2)
    return torch.nn.functional.grid_sample(
        batch.permute(0, 3, 1, 2).float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )


def _recolor(pixels: Tensor, saturation: Tensor, contrast: Tensor, brightness: Tensor) -> Tensor:
    """Change the colors of pixels in place; channels that are no colors each keep their own mean."""
    if pixels.shape[1] != 3:
        own = pixels.mean((2, 3), keepdim=True)
        return torch.lerp(own, pixels, contrast, out=pixels).mul_(brightness).clamp_(0, 255)
    gray = pixels.mean(1, keepdim=True)
    torch.lerp(gray, pixels, saturation, out=pixels)
    mean = gray.mean((2, 3), keepdim=True)
    return torch.lerp(mean, pixels, contrast, out=pixels).mul_(brightness).clamp_(0, 255)


def _recolor_to_new(pixels: Tensor, saturation: Tensor, contrast: Tensor, brightness: Tensor) -> Tensor:
    """Return what `_recolor` returns; written so that it can be compiled."""
    if pixels.shape[1] != 3:
        return (torch.lerp(pixels.mean((2, 3), keepdim=True), pixels, contrast) * brightness).clamp(0, 255)
    gray = pixels.mean(1, keepdim=True)
    colored = torch.lerp(gray.mean((2, 3), keepdim=True), torch.lerp(gray, pixels, saturation), contrast)
    return (colored * brightness).clamp(0, 255)


_EAGER = PixelWork(_warp, _recolor)


@lru_cache(maxsize=1)
def compiled_work() -> PixelWork:
    """Return the pixel work compiled by torch, for a GPU: a few fused kernels instead of one for each operation.

    All folds of a process share it. The first call for a shape of a batch compiles.
    """
    return PixelWork(torch.compile(_warp, dynamic=False), torch.compile(_recolor_to_new, dynamic=False))


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
