"""Augment a whole batch in training, each sample with its own parameters, fused with normalization.

The uint8 batch is turned, shifted, scaled and mirrored by one affine grid sample and coloured sample by sample. Drawing
and
applying are apart: every random number is drawn on the CPU from the generator that is given, so that a step's
augmentation
depends on the step alone and is the same on a GPU, and the numbers of many steps can be drawn ahead and sent in one
copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import astuple
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from folds.augmentation import operations as policies
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

Ways = Augmentation | Sequence[Augmentation]
# Numbers a sample: flip, zoom, turn, shift in x and y, saturation, contrast, brightness; where there are operations or
# erased
# rectangles also three of the operation and five of the rectangle.
_PLAIN, _FURTHER = 8, 8
# Bytes of float pixels that are worked on at a time on a CPU: what stays in the cache is not fetched for every
# operation,
# and memory is used again instead of being asked of the system. Half the time at 224 px.
_BLOCK = 1_250_000


def to_input(
    batch: Tensor, mean: Sequence[float], std: Sequence[float], layout: torch.memory_format = torch.contiguous_format
) -> Tensor:
    """uint8 (n, height, width, 3) → float32 (n, 3, height, width) in that layout, normalised; no augmentation."""
    n, height, width, _ = batch.shape
    inputs = torch.empty((n, 3, height, width), device=batch.device, memory_format=layout)
    return _normalise(inputs.copy_(batch.permute(0, 3, 1, 2)), tuple(mean), tuple(std))


def sample_parameters(n: int, how: Ways, generator: torch.Generator) -> Tensor:
    """Return the random numbers behind the augmentation of a batch: float32 (n, numbers), 0…1, on the CPU.

    Parameters
    ----------
    how : one augmentation, or all those that samples of the run get. The first numbers are the same whatever it is.
    generator : of the CPU.
    """
    most = strongest(_ways(how))
    plain = torch.rand((n, _PLAIN), generator=generator)
    if not (most.operation or most.erase):
        return plain
    return torch.cat([plain, torch.rand((n, _FURTHER), generator=generator)], 1)


def sample_batches(
    drawing: Callable[[int, torch.Generator], Tensor],
    sizes: Sequence[int],
    seeds: Sequence[int],
    device: torch.device | str,
) -> list[Tensor]:
    """Return what `drawing` draws for many steps, on the device, sent in one copy: a copy a step would have the host
    wait for the device.

    Parameters
    ----------
    drawing : samples, generator → (samples, numbers) on the CPU.
    sizes, seeds : of each step.
    """
    drawn = [drawing(size, torch.Generator().manual_seed(seed)) for size, seed in zip(sizes, seeds, strict=True)]
    return list(torch.cat(drawn).to(device).split(list(sizes)))


def augment_batch(
    batch: Tensor,
    draws: Tensor,
    how: Ways,
    mean: Sequence[float],
    std: Sequence[float],
    which: Tensor | None = None,
    layout: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """uint8 (n, height, width, 3) → augmented, normalised float32 (n, 3, height, width) on the batch's device.

    A sample's result depends on its own pixels and numbers alone.

    Parameters
    ----------
    draws : of `draw` for the same `how`, on the batch's device.
    how : one augmentation, or several of which each sample has one.
    which : (n,) int64 on the batch's device, the position in `how` of each sample's augmentation; needed where there
        are several.
    layout : of the result: channels_last or contiguous.
    """
    ways = _ways(how)
    most = strongest(ways)
    if most == Augmentation():
        return to_input(batch, mean, std, layout)
    if which is None and len(ways) > 1:
        raise ValueError(f"{len(ways)} augmentations and no choice among them")
    ranges = most if len(ways) == 1 else _Ranges(*_table(ways, batch.device)[:, which].unbind())
    batch, parameters = _parameters(batch, draws, most, ranges)

    def done(some: slice) -> Tensor:
        return _apply(batch[some], parameters.of(some), tuple(mean), tuple(std))

    parts = blocks(batch.numel() * 4, len(batch), batch.device)
    if len(parts) == 1:
        return done(parts[0]).contiguous(memory_format=layout)
    inputs = torch.empty((len(batch), 3, *batch.shape[1:3]), memory_format=layout)
    for some in parts:
        inputs[some] = done(some)
    return inputs


def blocks(size: int, n: int, device: torch.device) -> list[slice]:
    """Return which of n samples of `size` bytes in all to work on at a time: on a GPU all, on a CPU near equal parts
    that its cache holds.
    """
    parts = 1 if device.type != "cpu" else max(1, min(n, math.ceil(size / _BLOCK)))
    return [slice(i * n // parts, (i + 1) * n // parts) for i in range(parts)]


class _Ranges(NamedTuple):
    """The fields of `Augmentation`, each (n,): the ranges of each sample's own."""

    flip: Tensor
    scale: Tensor
    shift: Tensor
    rotate: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    operation: Tensor
    erase: Tensor


class _Parameters(NamedTuple):
    """What is done to each sample; None: to none. All are (n, …) on the batch's device."""

    mirrored: Tensor | None = None
    affine: Tensor | None = None
    sharpness: Tensor | None = None
    saturation: Tensor | None = None
    contrast: Tensor | None = None
    brightness: Tensor | None = None
    erased: Tensor | None = None

    def of(self, some: slice) -> _Parameters:
        return _Parameters(*(None if values is None else values[some] for values in self))


def _ways(how: Ways) -> tuple[Augmentation, ...]:
    return (how,) if isinstance(how, Augmentation) else tuple(how)


@lru_cache(maxsize=64)
def _table(ways: tuple[Augmentation, ...], device: torch.device) -> Tensor:
    """Return (fields, ways)."""
    return torch.tensor([astuple(way) for way in ways], dtype=torch.float32).T.contiguous().to(device)


def _parameters(
    batch: Tensor, draws: Tensor, most: Augmentation, how: Augmentation | _Ranges
) -> tuple[Tensor, _Parameters]:
    """Return the batch with its levels recoded where an operation does that, and what is still to be done to it."""
    _, height, width, _ = batch.shape
    chosen = policies.choose(draws[:, 8:11], how.operation) if most.operation else None
    found = _Parameters()
    if chosen is not None:
        batch = policies.recode(batch, chosen)
        found = found._replace(sharpness=chosen.effects["sharpness"])
    if most.scale or most.shift or most.rotate or chosen is not None:
        found = found._replace(affine=_affine(draws, how, height / width, chosen))
    elif most.flip:
        found = found._replace(mirrored=(draws[:, 0] < how.flip)[:, None, None, None])
    if most.brightness or most.contrast or most.saturation or chosen is not None:
        colours = {
            "saturation": (how.saturation, draws[:, 5]),
            "contrast": (how.contrast, draws[:, 6]),
            "brightness": (how.brightness, draws[:, 7]),
        }
        factors = {name: 1 + strength * (2 * uniform - 1) for name, (strength, uniform) in colours.items()}
        if chosen is not None:
            factors = {name: factor * (1 + chosen.effects[name]) for name, factor in factors.items()}
        found = found._replace(**{name: factor[:, None, None, None] for name, factor in factors.items()})
    if most.erase:
        found = found._replace(erased=policies.rectangles(draws[:, 11:16], how.erase, height, width))
    return batch, found


def _affine(uniform: Tensor, how: Augmentation | _Ranges, aspect: float, chosen: policies.Chosen | None) -> Tensor:
    """Return (n, 2, 3) maps from output to input coordinates, both in −1…1."""
    sign = torch.where(uniform[:, 0] < how.flip, -1.0, 1.0)
    zoom = 1 + how.scale * (2 * uniform[:, 1] - 1)
    angle = math.pi / 180 * how.rotate * (2 * uniform[:, 2] - 1)
    x, y = 2 * how.shift * (2 * uniform[:, 3] - 1), 2 * how.shift * (2 * uniform[:, 4] - 1)
    if chosen is not None:
        angle = angle + chosen.effects["turn"]
        x, y = x + 2 * chosen.effects["shift-x"], y + 2 * chosen.effects["shift-y"]
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    turned = (cos, -sin, sin, cos)
    if chosen is not None:
        shear_x, shear_y = chosen.effects["shear-x"], chosen.effects["shear-y"]
        turned = (cos - sin * shear_y, cos * shear_x - sin, sin + cos * shear_y, sin * shear_x + cos)
    # The aspect keeps a turn a turn where pixels are not square in these coordinates.
    return torch.stack(
        [
            torch.stack([sign * turned[0], turned[1] * aspect, x], 1),
            torch.stack([sign * turned[2] / aspect, turned[3], y], 1),
        ],
        1,
    )


def _apply(batch: Tensor, how: _Parameters, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    n, height, width, _ = batch.shape
    pixels = batch.permute(0, 3, 1, 2).float()
    if how.affine is not None:
        grid = torch.bmm(_centres(height, width, pixels.device).expand(n, -1, -1), how.affine.transpose(1, 2)).view(
            n, height, width, 2
        )
        pixels = torch.nn.functional.grid_sample(
            pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False
        )
    elif how.mirrored is not None:
        pixels = torch.where(how.mirrored, pixels.flip(3), pixels)
    if how.sharpness is not None:
        pixels = policies.sharpen(pixels, how.sharpness)
    if how.saturation is not None and how.contrast is not None and how.brightness is not None:
        grey = pixels.mean(1, keepdim=True)
        torch.lerp(grey, pixels, how.saturation, out=pixels)
        torch.lerp(grey.mean((2, 3), keepdim=True), pixels, how.contrast, out=pixels).mul_(how.brightness).clamp_(
            0, 255
        )
    pixels = _normalise(pixels, mean, std)
    return pixels if how.erased is None else policies.erase(pixels, how.erased)


# Kept: this is what torch's own affine_grid makes anew each time, in twice the time.
@lru_cache(maxsize=16)
def _centres(height: int, width: int, device: torch.device) -> Tensor:
    """Return (1, height·width, 3): x and y of the pixels' centres in −1…1, and 1."""
    x, y = (torch.linspace(-1, 1, size) * (size - 1) / size for size in (width, height))
    down, across = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([across, down, torch.ones_like(x).expand(height, width)], 2).view(1, -1, 3).to(device)


def _normalise(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """In place. Rows of channels-last pixels are taken as rows of 3·width numbers: three at a time take four times as
    long on a CPU.
    """
    rows = pixels.permute(0, 2, 3, 1)
    if rows.is_contiguous():
        scale, offset = _normalisation(mean, std, pixels.shape[3], pixels.device)
        rows.view(*rows.shape[:2], -1).mul_(scale).add_(offset)
    else:
        scale, offset = _normalisation(mean, std, 1, pixels.device)
        pixels.mul_(scale[:, None, None]).add_(offset[:, None, None])
    return pixels


# Kept: a tensor made from numbers is sent to the device, and the sending waits for every kernel before it.
@lru_cache(maxsize=64)
def _normalisation(
    mean: tuple[float, ...], std: tuple[float, ...], width: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Scale and offset of each channel, `width` times one after the other."""
    deviation = torch.tensor(std, device=device)
    scale = 1 / (255 * deviation)
    offset = -torch.tensor(mean, device=device) / deviation
    return scale.repeat(width), offset.repeat(width)
