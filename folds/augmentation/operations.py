"""Apply the operations of strong augmentation to a batch, one per sample: TrivialAugment and random erasing.

No function reads a value from the device, because that would make the host wait. An operation is computed for the
samples that need it. Which they are is found on the CPU, before anything is sent; numbers that are on a GPU already are
not read, and the operation is then computed for all samples and applied where it was chosen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

# The change at full strength, in either direction: shear and shift as shares of the image, rotation in radians (30°),
# factors as a share of 1. At most as strong as RandAugment, and weaker for shift, brightness and solarize, which can
# hide the image.
_FULL = {
    "shear-x": 0.3,
    "shear-y": 0.3,
    "shift-x": 0.15,
    "shift-y": 0.15,
    "rotate": math.pi / 6,
    "brightness": 0.5,
    "contrast": 0.6,
    "saturation": 0.9,
    "sharpness": 0.9,
}
_RECODED = ("posterize", "solarize", "autocontrast", "equalize")
OPERATIONS = ("identity", *_FULL, *_RECODED)
_POSTERIZE, _SOLARIZE, _AUTOCONTRAST, _EQUALIZE = (OPERATIONS.index(name) for name in _RECODED)
_BITS = 4  # posterize takes 1 to 4 bits away
_SAME_LEVELS = _BITS + 128  # the table that leaves all levels as they are
_MIN_AREA, _MAX_AREA, _MAX_RATIO = 0.02, 0.33, 3.3


@dataclass(frozen=True)
class Chosen:
    """One operation per sample.

    Attributes
    ----------
    index : (n,) int64 positions in `OPERATIONS`.
    strength : (n,) float32, −1…1.
    effects : name → (n,) float32, the change; 0 where another operation is chosen.
    """

    index: Tensor
    strength: Tensor
    effects: dict[str, Tensor]


@lru_cache(maxsize=8)
def _full(device: torch.device) -> Tensor:
    """Return (effects, operations), the effect of each operation at full strength."""
    return torch.nn.functional.pad(torch.diag(torch.tensor(list(_FULL.values()))), (1, len(_RECODED))).to(device)


def choose(uniform: Tensor, probability: float | Tensor) -> Chosen:
    """Return one operation per sample, uniformly chosen and of uniform strength (Müller & Hutter 2021, TrivialAugment).

    Parameters
    ----------
    uniform : (n, 3) random numbers, 0…1.
    probability : of an operation; otherwise the identity. A number, or one per sample.
    """
    index = (uniform[:, 1] * len(OPERATIONS)).long().clamp_(max=len(OPERATIONS) - 1)
    index = torch.where(uniform[:, 0] < probability, index, 0)
    strength = 2 * uniform[:, 2] - 1
    effects = _full(index.device)[:, index] * strength
    return Chosen(index, strength, dict(zip(_FULL, effects, strict=True)))


class Recoding(NamedTuple):
    """New levels for the pixels of some samples.

    Attributes
    ----------
    rows : (m,) int64 samples whose levels change; None for all samples, if this is not known without waiting for a
        device.
    code : (m,) int64 rows of `_level_tables`.
    measured : (h,) int64 positions in `rows` of the samples whose table depends on their levels; None for all.
    kind : (h,) int64 operations of these samples.
    """

    rows: Tensor | None
    code: Tensor
    measured: Tensor | None
    kind: Tensor


def rows_of(needs: Tensor) -> Tensor | None:
    """Return (m,) int64 the positions of the True values; None on a GPU, since reading the values would wait for it."""
    return needs.nonzero()[:, 0] if needs.device.type == "cpu" else None


def recoding(chosen: Chosen) -> Recoding:
    """Return which samples get new levels: posterize (1–4 bits fewer), solarize (inverted from a level of 128 or more),
    autocontrast and equalize.
    """
    rows = rows_of(chosen.index >= _POSTERIZE)
    index, strength = (chosen.index, chosen.strength) if rows is None else (chosen.index[rows], chosen.strength[rows])
    strength = strength.abs()
    threshold = (256 - 128 * strength).ceil().long()
    code = torch.where(index == _SOLARIZE, _BITS - 128 + threshold, _SAME_LEVELS)
    code = torch.where(index == _POSTERIZE, (strength * _BITS).long().clamp_(max=_BITS - 1), code)
    measured = rows_of(index >= _AUTOCONTRAST)
    return Recoding(rows, code, measured, index if measured is None else index[measured])


def split_rows(rows: Tensor, sizes: Sequence[int], device: torch.device | str) -> list[Tensor]:
    """Return the rows of each step, counted from the first sample of the step, on the device.

    Parameters
    ----------
    rows : (m,) int64 ascending positions among the samples of all steps, on the CPU.
    sizes : samples of each step.
    """
    ends = torch.tensor([0, *sizes]).cumsum(0)
    counts = torch.searchsorted(rows, ends).diff()
    return list((rows - ends[:-1].repeat_interleave(counts)).to(device).split(counts.tolist()))


def split_recoding(
    recoding: Recoding | None, sizes: Sequence[int], device: torch.device | str
) -> Sequence[Recoding | None]:
    """Return the new levels of each step, on the device, from those of all samples on the CPU."""
    if recoding is None or recoding.rows is None or recoding.measured is None:
        return [recoding] * len(sizes)
    rows = split_rows(recoding.rows, sizes, device)
    counts = [len(some) for some in rows]
    measured = split_rows(recoding.measured, counts, device)
    code = recoding.code.to(device).split(counts)
    kind = recoding.kind.to(device).split([len(some) for some in measured])
    return [Recoding(*values) for values in zip(rows, code, measured, kind, strict=True)]


def recode(batch: Tensor, new: Recoding, *, in_place: bool = False) -> Tensor:
    """Return uint8 (n, height, width, 3) with new levels, as Pillow's ImageOps computes them.

    Each operation is a table of 256 levels per sample and channel, so all together are one look-up.

    Parameters
    ----------
    in_place : change the batch itself.
    """
    some = batch if new.rows is None else batch.index_select(0, new.rows)
    (n, height, width, _), device = some.shape, batch.device
    if n == 0:
        return batch
    # Rows of 3·width numbers, because rows of three numbers take ten times as long on a CPU.
    levels = some.reshape(n, height, 3 * width)
    tables = _level_tables(device)[new.code][:, None].repeat(1, 3, 1)
    if len(new.kind):
        measured = slice(None) if new.measured is None else new.measured
        counts, kind = _histograms(levels[measured]), new.kind[:, None, None]
        present = counts > 0
        level = _level_numbers(device).expand_as(counts)
        high = (level * present).amax(2, keepdim=True)
        table = torch.where(kind == _AUTOCONTRAST, _stretched(present, high, level), tables[measured])
        tables[measured] = torch.where(kind == _EQUALIZE, _equalized(counts, high, level), table).to(torch.uint8)
    # 32 bits suffice for the address of a level.
    address = torch.add(_table_offsets(n, width, device), levels).flatten()
    recoded = tables.flatten().index_select(0, address).view_as(some)
    if new.rows is None:
        return recoded
    return (batch if in_place else batch.clone()).index_copy_(0, new.rows, recoded)


def _histograms(levels: Tensor) -> Tensor:
    """Return int32 (n, 3, 256), how often each level is in each channel of uint8 (n, height, 3·width)."""
    n, _, width = levels.shape
    address = torch.add(_table_offsets(n, width // 3, levels.device), levels).flatten()
    if levels.device.type == "cpu":
        return torch.bincount(address, minlength=768 * n).view(n, 3, 256).int()
    counts = torch.zeros(768 * n, dtype=torch.int32, device=levels.device)
    one = _level_numbers(levels.device)[1].expand(address.numel())
    return counts.scatter_add_(0, address.long(), one).view(n, 3, 256)


# Constants are cached, because computing them again is a kernel each, and sending them waits for all kernels before.
@lru_cache(maxsize=8)
def _level_numbers(device: torch.device) -> Tensor:
    return torch.arange(256, dtype=torch.int32, device=device)


@lru_cache(maxsize=8)
def _level_tables(device: torch.device) -> Tensor:
    """Return uint8 (tables, 256) new levels: posterized by 1–4 bits, then solarized from 128, 129, …, 256 (none)."""
    level = torch.arange(256)
    posterized = [level - level % 2 ** (1 + bits) for bits in range(_BITS)]
    solarized = [torch.where(level >= threshold, 255 - level, level) for threshold in range(128, 257)]
    return torch.stack(posterized + solarized).to(torch.uint8).to(device)


@lru_cache(maxsize=256)
def _table_offsets(n: int, width: int, device: torch.device) -> Tensor:
    """Return int32 (n, 1, 3·width) the address of level 0 of each sample and column."""
    channels = torch.arange(3, dtype=torch.int32).repeat(width)
    return (256 * (torch.arange(0, 3 * n, 3, dtype=torch.int32)[:, None, None] + channels)).to(device)


def _stretched(present: Tensor, high: Tensor, level: Tensor) -> Tensor:
    low = 255 - ((255 - level) * present).amax(2, keepdim=True)
    return torch.where(high > low, ((level - low) * 255 // (high - low).clamp_min(1)).clamp(0, 255), level)


def _equalized(counts: Tensor, high: Tensor, level: Tensor) -> Tensor:
    pixels = counts.sum(2, keepdim=True, dtype=torch.int32)
    step = (pixels - counts.gather(2, high.long())) // 255
    before = counts.cumsum(2, dtype=torch.int32) - counts
    return torch.where(step > 0, ((before + step // 2) // step.clamp_min(1)).clamp(max=255), level)


def sharpen(pixels: Tensor, change: Tensor, rows: Tensor | None = None) -> Tensor:
    """Return float (n, 3, height, width), blurred where `change` (n,) is below 0 and sharpened where above, as Pillow's
    ImageEnhance.

    Values may exceed the range. The border of one pixel is unchanged.

    Parameters
    ----------
    rows : (m,) int64 samples with a change; without it they are found.
    """
    rows = rows_of(change != 0) if rows is None else rows
    some, change = (pixels, change) if rows is None else (pixels.index_select(0, rows), change.index_select(0, rows))
    if len(some) == 0:
        return pixels
    inner = some[:, :, 1:-1, 1:-1]
    blurred = torch.nn.functional.avg_pool2d(some, 3, stride=1).mul_(9).add_(inner, alpha=4).div_(13)
    inner.copy_(torch.lerp(blurred, inner, 1 + change[:, None, None, None]))
    return pixels if rows is None else pixels.index_copy_(0, rows, some)


def rectangles(uniform: Tensor, probability: float | Tensor, height: int, width: int) -> Tensor:
    """Return the rectangles to erase (Zhong et al. 2017, Random Erasing): 2–33% of the image, sides of at most 1 : 3.3.

    The paper samples until a rectangle fits; here its sides are sampled among those that fit, which keeps the area.

    Parameters
    ----------
    uniform : (n, 5) random numbers, 0…1.
    probability : of a rectangle; otherwise it is empty. A number, or one per sample.

    Returns
    -------
    (n, 4) int64: top, bottom, left, right in pixels; bottom and right are exclusive.
    """
    area = (_MIN_AREA + (_MAX_AREA - _MIN_AREA) * uniform[:, 1]) * (height * width)
    # The ratio of height to width, on a logarithmic scale.
    flattest, tallest = area.log() - 2 * math.log(width), 2 * math.log(height) - area.log()
    lower_bound = flattest.clamp(-math.log(_MAX_RATIO)).minimum(tallest)
    upper_bound = tallest.clamp(max=math.log(_MAX_RATIO)).maximum(flattest)
    ratio = (lower_bound + (upper_bound - lower_bound) * uniform[:, 2]).exp()
    box_height = (area * ratio).sqrt().round().clamp_(1, height)
    box_width = (area / ratio).sqrt().round().clamp_(1, width)
    top, left = (uniform[:, 3] * (height - box_height + 1)).floor(), (uniform[:, 4] * (width - box_width + 1)).floor()
    box = torch.stack([top, top + box_height, left, left + box_width], 1).long()
    return torch.where((uniform[:, 0] < probability)[:, None], box, 0)


def erase(inputs: Tensor, boxes: Tensor) -> Tensor:
    """Set float (n, 3, height, width) to 0 in each sample's (top, bottom, left, right), in place; return it."""
    if inputs.device.type == "cpu":
        for sample, (top, bottom, left, right) in zip(inputs, boxes.tolist(), strict=True):
            if bottom > top:
                sample[:, top:bottom, left:right] = 0
        return inputs
    return inputs.masked_fill_(inside(boxes, *inputs.shape[2:]), 0)


def inside(boxes: Tensor, height: int, width: int, repeat: int = 1) -> Tensor:
    """Return bool (n, 1, height, repeat·width): whether a pixel is in the box of its sample, (n, 4); every column is
    repeated `repeat` times.
    """
    rows, columns = _numbers(height, boxes.device)[None, :, None], _numbers(repeat * width, boxes.device)[None, None, :]
    top, bottom, left, right = boxes[:, :, None, None].unbind(1)
    if repeat > 1:
        left, right = repeat * left, repeat * right
    across = (columns >= left) & (columns < right)
    return ((rows >= top) & (rows < bottom) & across)[:, None]


@lru_cache(maxsize=32)
def _numbers(count: int, device: torch.device) -> Tensor:
    return torch.arange(count, device=device)
