"""Compute what augmentation does to each sample from its random numbers, for many steps at once.

Everything here works on one number or a few per sample. Done in every step, it is most of what a GPU is asked to start
for an augmented batch, so it is done for many steps at once, on the CPU, before the results are sent in a few copies; a
step then only changes pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from folds.augmentation import operations
from folds.augmentation.presets import Augmentation, strongest

Augmentations = Augmentation | Sequence[Augmentation]
# Random numbers per sample: flip, scale, rotation, shift in x and y, saturation, contrast, brightness. With operations
# or erased rectangles there are three more for the operation and five for the rectangle.
_PLAIN, _EXTRA = 8, 8


class Changes(NamedTuple):
    """The changes to each sample of a batch, on one device; None if no sample is changed in this way.

    Attributes
    ----------
    mirrored : (n, 1, 1, 1) bool.
    affine : (n, 2, 3) map from output to input coordinates, both in −1…1.
    sharpness : (n,) change of the sharpness.
    saturation, contrast, brightness : (n, 1, 1, 1) factors.
    erased : (n, 4) top, bottom, left, right of a rectangle in pixels.
    recoding : new levels for the pixels of some samples.
    sharpened : (m,) samples whose sharpness changes; None if this is not known without waiting for a device.
    """

    mirrored: Tensor | None = None
    affine: Tensor | None = None
    sharpness: Tensor | None = None
    saturation: Tensor | None = None
    contrast: Tensor | None = None
    brightness: Tensor | None = None
    erased: Tensor | None = None
    recoding: operations.Recoding | None = None
    sharpened: Tensor | None = None

    def of(self, part: slice) -> Changes:
        """Return the changes to the pixels of some samples, after their levels were recoded."""
        return Changes(*(None if values is None else values[part] for values in self[:_PER_SAMPLE]))  # type: ignore[arg-type]


_PER_SAMPLE = Changes._fields.index("recoding")


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


def as_tuple(augmentations: Augmentations) -> tuple[Augmentation, ...]:
    """Return one or more augmentations as a tuple."""
    return (augmentations,) if isinstance(augmentations, Augmentation) else tuple(augmentations)


def sample_parameters(n: int, augmentations: Augmentations, generator: torch.Generator) -> Tensor:
    """Return the random numbers for the augmentation of a batch: float32 (n, numbers), 0…1, on the CPU.

    Parameters
    ----------
    augmentations : one augmentation, or all that samples of the run have. The first eight numbers do not depend on it.
    generator : of the CPU.
    """
    widest = strongest(as_tuple(augmentations))
    plain = torch.rand((n, _PLAIN), generator=generator)
    if not (widest.operation or widest.erase):
        return plain
    return torch.cat([plain, torch.rand((n, _EXTRA), generator=generator)], 1)


def compute_changes(
    draws: Tensor,
    augmentations: Augmentations,
    size: tuple[int, int],
    augmentation_index: Tensor | None = None,
) -> Changes:
    """Return the changes to n samples, on the device of `draws`.

    Parameters
    ----------
    draws : (n, numbers) from `sample_parameters` with the same `augmentations`.
    augmentations : one augmentation, or several of which each sample has one.
    size : height and width of the images in pixels.
    augmentation_index : (n,) int64 on the same device, the position in `augmentations` for each sample; required if
        there are several.
    """
    choices, (height, width) = as_tuple(augmentations), size
    widest = strongest(choices)
    if augmentation_index is None and len(choices) > 1:
        raise ValueError(f"{len(choices)} augmentations need augmentation_index, found None")
    one = widest if len(choices) == 1 else _Ranges(*_table(choices, draws.device)[:, augmentation_index].unbind())
    chosen = operations.choose(draws[:, 8:11], one.operation) if widest.operation else None
    found = Changes()
    if chosen is not None:
        sharpness = chosen.effects["sharpness"]
        found = found._replace(
            sharpness=sharpness, recoding=operations.recoding(chosen), sharpened=operations.rows_of(sharpness != 0)
        )
    if widest.scale or widest.shift or widest.rotate or chosen is not None:
        found = found._replace(affine=_affine(draws, one, height / width, chosen))
    elif widest.flip:
        found = found._replace(mirrored=(draws[:, 0] < one.flip)[:, None, None, None])
    if widest.brightness or widest.contrast or widest.saturation or chosen is not None:
        found = found._replace(**_factors(draws, one, chosen))  # type: ignore[arg-type]
    if widest.erase:
        found = found._replace(erased=operations.rectangles(draws[:, 11:16], one.erase, height, width))
    return found


def split_changes(changes: Changes, sizes: Sequence[int], device: torch.device | str) -> list[Changes]:
    """Return the changes of several steps, on the device, from those of all their samples on the CPU.

    Each kind is sent in one copy: a copy in every step would make the host wait for the kernels before it.

    Parameters
    ----------
    sizes : samples of each step.
    """
    columns = [_sent(values, sizes, device) for values in changes[:_PER_SAMPLE]]  # type: ignore[arg-type]
    recoded = operations.split_recoding(changes.recoding, sizes, device)
    sharpened: Sequence[Tensor | None] = [None] * len(sizes)
    if changes.sharpened is not None:
        sharpened = operations.split_rows(changes.sharpened, sizes, device)
    return [
        Changes(*values, recoding, rows)  # type: ignore[call-arg]
        for *values, recoding, rows in zip(*columns, recoded, sharpened, strict=True)
    ]


def _sent(values: Tensor | None, sizes: Sequence[int], device: torch.device | str) -> Sequence[Tensor | None]:
    return [None] * len(sizes) if values is None else values.to(device).split(list(sizes))


@lru_cache(maxsize=64)
def _table(augmentations: tuple[Augmentation, ...], device: torch.device) -> Tensor:
    """Return (fields, augmentations)."""
    return (
        torch.tensor([astuple(augmentation) for augmentation in augmentations], dtype=torch.float32)
        .T.contiguous()
        .to(device)
    )


def _factors(
    draws: Tensor, augmentation: Augmentation | _Ranges, chosen: operations.Chosen | None
) -> dict[str, Tensor]:
    """Return the factors of saturation, contrast and brightness, each (n, 1, 1, 1)."""
    colors = {
        "saturation": (augmentation.saturation, draws[:, 5]),
        "contrast": (augmentation.contrast, draws[:, 6]),
        "brightness": (augmentation.brightness, draws[:, 7]),
    }
    factors = {name: 1 + strength * (2 * uniform - 1) for name, (strength, uniform) in colors.items()}
    if chosen is not None:
        factors = {name: factor * (1 + chosen.effects[name]) for name, factor in factors.items()}
    return {name: factor[:, None, None, None] for name, factor in factors.items()}


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
