"""Apply the operations of strong augmentation to a batch, one per sample: TrivialAugment and random erasing.

No function reads a value from the device, because that would make the host wait. On a GPU each operation is computed
for all samples and applied where it was chosen; on a CPU it is computed only for those.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

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


def needing(needs: Tensor) -> Tensor | slice:
    """Return the rows to process from (n,) booleans: on a CPU those that are True, on a GPU all, since reading the
    booleans would wait for it.
    """
    return needs.nonzero()[:, 0] if needs.device.type == "cpu" else slice(None)


def recode(batch: Tensor, chosen: Chosen) -> Tensor:
    """Apply posterize (1–4 bits fewer), solarize (inverted from a level of 128 or more), autocontrast and equalize.

    uint8 (n, height, width, 3) → the same, as Pillow's ImageOps. Each operation is a table of 256 levels per sample and
    channel, so all together are one look-up.
    """
    rows = needing(chosen.index >= _POSTERIZE)
    some, index, strength = batch[rows], chosen.index[rows, None, None], chosen.strength[rows, None, None].abs()
    (n, height, width, _), device = some.shape, batch.device
    if n == 0:
        return batch
    # Rows of 3·width numbers, because rows of three numbers take ten times as long on a CPU.
    tables = 256 * (
        torch.arange(0, 3 * n, 3, device=device)[:, None, None] + torch.arange(3, device=device).repeat(width)
    )
    address = (some.reshape(n, height, 3 * width).long() + tables).flatten()
    ones = torch.ones((), dtype=torch.int64, device=device).expand(address.numel())
    counts = torch.zeros(3 * n * 256, dtype=torch.int64, device=device).scatter_add_(0, address, ones).view(n, 3, 256)
    level = torch.arange(256, device=device).expand(n, 3, 256)
    step = 2 ** (1 + (strength * 4).long().clamp_(max=3))
    table = torch.where(index == _POSTERIZE, level - level % step, level)
    table = torch.where((index == _SOLARIZE) & (level >= 256 - 128 * strength), 255 - level, table)
    table = torch.where(index == _AUTOCONTRAST, _stretched(counts, level), table)
    table = torch.where(index == _EQUALIZE, _equalized(counts, level), table)
    recoded = table.to(torch.uint8).flatten().index_select(0, address).view_as(some)
    if isinstance(rows, slice):
        return recoded
    batch = batch.clone()
    batch[rows] = recoded
    return batch


def _stretched(counts: Tensor, level: Tensor) -> Tensor:
    low = torch.where(counts > 0, level, 255).amin(2, keepdim=True)
    high = torch.where(counts > 0, level, 0).amax(2, keepdim=True)
    return torch.where(high > low, ((level - low) * 255 // (high - low).clamp_min(1)).clamp(0, 255), level)


def _equalized(counts: Tensor, level: Tensor) -> Tensor:
    last = counts.gather(2, torch.where(counts > 0, level, 0).amax(2, keepdim=True))
    step = (counts.sum(2, keepdim=True) - last) // 255
    before = counts.cumsum(2) - counts
    return torch.where(step > 0, ((before + step // 2) // step.clamp_min(1)).clamp(max=255), level)


def sharpen(pixels: Tensor, change: Tensor) -> Tensor:
    """Return float (n, 3, height, width), blurred where `change` (n,) is below 0 and sharpened where above, as Pillow's
    ImageEnhance.

    Values may exceed the range. The border of one pixel is unchanged.
    """
    rows = needing(change != 0)
    some = pixels[rows]
    if len(some) == 0:
        return pixels
    inner = some[:, :, 1:-1, 1:-1]
    blurred = torch.nn.functional.avg_pool2d(some, 3, stride=1).mul_(9).add_(inner, alpha=4).div_(13)
    pixels[rows, :, 1:-1, 1:-1] = torch.lerp(blurred, inner, 1 + change[rows, None, None, None])
    return pixels


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
    rows = torch.arange(height, device=boxes.device)[None, :, None]
    columns = torch.arange(repeat * width, device=boxes.device)[None, None, :]
    top, bottom, left, right = boxes[:, :, None, None].unbind(1)
    across = (columns >= repeat * left) & (columns < repeat * right)
    return ((rows >= top) & (rows < bottom) & across)[:, None]
