"""Parse and apply test-time views: distinct combinations of transforms.

Most transforms are those of ttach. Its merging averages the raw model output, so views are merged on probabilities by
`ensemble.tta.merge.merge_views` instead. Shifts and contrast, which ttach 0.0.3 lacks, are implemented here.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

from ensemble.tta.merge import MAX_VIEWS
from folds.errors import UsageError, printable, unknown_name

logger = logging.getLogger(__name__)

NONE = "none"
MAX_FACTORS = 8  # of one view
# Of the sizes between the factors, relative to the image: `scale` alone is 0.5 to 2.
_SMALLEST, _LARGEST = 0.25, 2.0
Step = Callable[[Tensor], Tensor]
Alternative = tuple[str, Step | None]  # name and transform; None for the identity


@dataclass(frozen=True)
class View:
    """A test-time augmentation: float (n, 3, height, width) with values 0–1 → the same shape.

    Attributes
    ----------
    name : product of its factors (``hflip*scale:1.1``), ``none`` for the plain image.
    geometric_only : whether it only moves and interpolates pixels; then it can be applied to normalized pixels as well.
    """

    name: str
    steps: tuple[Callable[[Tensor], Tensor], ...] = ()
    geometric_only: bool = True

    def __call__(self, batch: Tensor) -> Tensor:
        size = batch.shape[-2:]
        for step in self.steps:
            batch = step(batch)
        return _to_size(batch, size) if self.geometric_only else _to_size(batch, size).clamp(0, 1)

    @property
    def file_name(self) -> str:
        """Return the name for a file: ``hflip-scale1.1``."""
        return self.name.replace("*", "-").replace(":", "")


def parse_views(text: str) -> tuple[View, ...]:
    """Parse the text of `views` to views, in order; the plain image is always first (see `deduplicate_views`).

    Terms are separated by commas, the factors of a term by ``*``. A factor stands for all its values, so
    ``hflip*scale:0.9,1,1.1`` is 2 × 3 views.

    Factors: ``hflip``, ``vflip``, ``rot90`` (0, 90, 180, 270°), ``d4`` (hflip × rot90), ``scale:F``, ``hshift:F`` and
    ``vshift:F`` (to the right and down by F of a side), ``multiply:F`` (brightness), ``add:F`` (to values 0–1),
    ``contrast:F``, ``fivecrop:F`` (four corners and the center, F of each side), ``tencrop:F`` (the same and mirrored).

    Raises
    ------
    UsageError : an unknown factor (with close matches), a value that is missing or out of range, or too many factors
        or views.
    """
    views = [View(NONE)]
    for term in _terms(text):
        factors = term.split("*")
        _check_factors(factors)
        choices = [list(_factor(factor.strip())) for factor in factors]
        if len(views) + math.prod(map(len, choices)) > MAX_VIEWS:
            raise UsageError(f"`views` are more than {MAX_VIEWS}", hint="fewer factors or values: `views=d4`")
        for combination in itertools.product(*choices):
            views.append(_product(combination))
    return tuple(views)


def view_named(name: str) -> View:
    """Return the view with a `View.name`, as recorded in merged files.

    Raises
    ------
    UsageError : there is no such view, or it has too many factors or scales the image too much.
    """
    found = []
    parts = name.split("*")
    _check_factors(parts)
    for part in parts:
        factor = "rot90" if part.startswith("rot") else part.rpartition("-")[0] if part.startswith("fivecrop") else part
        step = next((one for label, one in _factor(factor) if label == part), None)
        if step is None and part != NONE:
            raise unknown_name("view", part, [*FACTORS])
        found.append((part, step))
    return _product(found)


def _check_factors(parts: Sequence[str]) -> None:
    if len(parts) > MAX_FACTORS:
        text = printable("*".join(parts))[:100]
        raise UsageError(
            f"`views`: '{text}' has {len(parts):,} factors, expected {MAX_FACTORS} or fewer",
            hint="for example `views=hflip*scale:0.9,1,1.1`",
        )


def _check_scales(parts: Sequence[str]) -> None:
    """Raise UsageError if the scales of a view, one after another, make the image too large or too small."""
    size = 1.0
    for part in parts:
        size *= float(part.partition(":")[2]) if part.startswith("scale:") else 1.0
        if not _SMALLEST * 0.999 <= size <= _LARGEST * 1.001:
            raise UsageError(
                f"`views`: the scales of {'*'.join(parts)} multiply to {size:g}, "
                f"expected {_SMALLEST:g} to {_LARGEST:g}",
                hint="one `scale` per view is enough: `views=scale:1.2`",
            )


def _product(factors: Sequence[tuple[str, Step | None]]) -> View:
    chosen = [(name, step) for name, step in factors if step is not None]
    parts = [part for name, _ in chosen for part in name.split("*")]
    _check_factors(parts)
    _check_scales(parts)
    changed = any(_changes_values(part.partition(":")[0]) for part in parts)
    return View("*".join(name for name, _ in chosen) or NONE, tuple(step for _, step in chosen), not changed)


def _changes_values(name: str) -> bool:
    return name in FACTORS and FACTORS[name].changes_values


def _terms(text: str) -> Iterator[str]:
    """Split the text at commas, except before numbers: ``"scale:0.9,1,vflip"`` → ``"scale:0.9,1"``, ``"vflip"``."""
    parts: list[str] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if parts and ":" in parts[-1].rsplit("*", 1)[-1] and _is_number(part.split("*")[0]):
            parts[-1] += f",{part}"
        else:
            parts.append(part)
    if not parts:
        raise UsageError("`views` names no view", hint="`views=hflip`, or `views=none` for the plain image")
    return iter(parts)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _factor(text: str) -> Iterator[Alternative]:
    """Yield the alternatives of one factor."""
    name, _, listed = text.partition(":")
    if name not in FACTORS:
        raise unknown_name("view", name, [*FACTORS])
    yield from FACTORS[name].alternatives(_values(name, listed))


def _values(name: str, listed: str) -> list[float]:
    bounds = FACTORS[name].bounds
    if bounds is None:
        if listed:
            raise UsageError(f"`views`: {name} takes no value, found '{listed}'")
        return []
    try:
        values = [float(value) for value in listed.split(",")]
    except ValueError:
        raise UsageError(
            f"`views`: {name} needs numbers, found '{listed}'", hint=f"`views={name}:0.9` or {name}:0.9,1,1.1"
        ) from None
    for value in values:
        if name.endswith("crop") and value > 1:
            raise UsageError(
                f"`views`: {name}:{value:g} is larger than the image, expected a share of a side, {bounds[0]:g} to 1",
                hint=f"`views={name}:0.9`",
            )
        if not bounds[0] <= value <= bounds[1]:
            raise UsageError(f"`views`: {name}:{value:g} is out of range, expected {bounds[0]:g} to {bounds[1]:g}")
    return values


def _bound(transform: Any, **parameters: Any) -> Step:
    def step(batch: Tensor) -> Tensor:
        return transform.apply_aug_image(batch, **parameters)

    return step


def _sequence(steps: Sequence[Step]) -> Step:
    def step(batch: Tensor) -> Tensor:
        for one in steps:
            batch = one(batch)
        return batch

    return step


def _crop(share: float, corner: int) -> Step:
    import ttach

    def step(batch: Tensor) -> Tensor:
        height, width = round(batch.shape[-2] * share), round(batch.shape[-1] * share)
        transform = ttach.FiveCrops(height, width)
        cropped = transform.apply_aug_image(batch, crop_fn=transform.params[corner])
        # Resize to the input size of the model.
        return functional.interpolate(cropped, size=batch.shape[-2:], mode="bilinear", align_corners=False)

    return step


def _shift(share: float, across: bool) -> Step:
    def step(batch: Tensor) -> Tensor:
        size = batch.shape[-1 if across else -2]
        pixels = round(size * share)
        sides = [max(pixels, 0), max(-pixels, 0)]
        padded = functional.pad(batch, [*sides, 0, 0] if across else [0, 0, *sides], mode="replicate")
        return padded.narrow(-1 if across else -2, max(-pixels, 0), size)

    return step


def _contrast(factor: float) -> Step:
    def step(batch: Tensor) -> Tensor:
        # Around the mean of each image over all channels, so that gray stays gray.
        center = batch.mean(dim=(1, 2, 3), keepdim=True)
        return (batch - center) * factor + center

    return step


def _none(values: Sequence[float]) -> Iterator[Alternative]:
    yield NONE, None


def _hflip(values: Sequence[float]) -> Iterator[Alternative]:
    import ttach

    yield NONE, None
    yield "hflip", _bound(ttach.HorizontalFlip(), apply=True)


def _vflip(values: Sequence[float]) -> Iterator[Alternative]:
    import ttach

    yield NONE, None
    yield "vflip", _bound(ttach.VerticalFlip(), apply=True)


def _rot90(values: Sequence[float]) -> Iterator[Alternative]:
    import ttach

    for angle in (0, 90, 180, 270):
        yield f"rot{angle}", _bound(ttach.Rotate90([0, 90, 180, 270]), angle=angle) if angle else None


def _d4(values: Sequence[float]) -> Iterator[Alternative]:
    for both in itertools.product(_hflip(()), _rot90(())):
        changing = [(name, step) for name, step in both if step is not None]
        label = "*".join(name for name, _ in changing)
        yield label or NONE, _sequence([step for _, step in changing]) if changing else None


def _scale(values: Sequence[float]) -> Iterator[Alternative]:
    import ttach

    for value in values:
        transform = ttach.Scale([value], interpolation="bilinear")
        yield f"scale:{value:g}", _bound(transform, scale=value) if value != 1 else None


def _multiply(values: Sequence[float]) -> Iterator[Alternative]:
    import ttach

    for value in values:
        yield f"multiply:{value:g}", _bound(ttach.Multiply([value]), factor=value) if value != 1 else None


def _add(values: Sequence[float]) -> Iterator[Alternative]:
    import ttach

    for value in values:
        yield f"add:{value:g}", _bound(ttach.Add([value]), value=value) if value else None


def _contrasts(values: Sequence[float]) -> Iterator[Alternative]:
    for value in values:
        yield f"contrast:{value:g}", _contrast(value) if value != 1 else None


def _hshift(values: Sequence[float]) -> Iterator[Alternative]:
    for value in values:
        yield f"hshift:{value:g}", _shift(value, across=True) if value else None


def _vshift(values: Sequence[float]) -> Iterator[Alternative]:
    for value in values:
        yield f"vshift:{value:g}", _shift(value, across=False) if value else None


def _fivecrop(values: Sequence[float]) -> Iterator[Alternative]:
    for value in values:
        yield from ((f"fivecrop:{value:g}-{corner}", _crop(value, corner)) for corner in range(5))


def _tencrop(values: Sequence[float]) -> Iterator[Alternative]:
    import ttach

    flip = _bound(ttach.HorizontalFlip(), apply=True)
    for value in values:
        crops = [(f"fivecrop:{value:g}-{corner}", _crop(value, corner)) for corner in range(5)]
        yield from crops
        yield from ((f"hflip*{label}", _sequence([flip, crop])) for label, crop in crops)


@dataclass(frozen=True)
class Factor:
    """A factor of views.

    Attributes
    ----------
    alternatives : function that yields the alternatives for a list of values.
    bounds : range of the values; None if the factor takes none.
    changes_values : whether it changes pixel values, not only positions.
    """

    alternatives: Callable[[Sequence[float]], Iterator[Alternative]]
    bounds: tuple[float, float] | None = None
    changes_values: bool = False


FACTORS = {
    NONE: Factor(_none),
    "hflip": Factor(_hflip),
    "vflip": Factor(_vflip),
    "rot90": Factor(_rot90),
    "d4": Factor(_d4),
    "scale": Factor(_scale, (0.5, 2.0)),
    "multiply": Factor(_multiply, (0.1, 10.0), changes_values=True),
    "add": Factor(_add, (-1.0, 1.0), changes_values=True),
    "contrast": Factor(_contrasts, (0.1, 10.0), changes_values=True),
    "hshift": Factor(_hshift, (-0.5, 0.5)),
    "vshift": Factor(_vshift, (-0.5, 0.5)),
    "fivecrop": Factor(_fivecrop, (0.3, 1.0)),
    "tencrop": Factor(_tencrop, (0.3, 1.0)),
}


def _to_size(batch: Tensor, size: torch.Size) -> Tensor:
    """Center-crop or edge-pad to the input size of the model; resize a rectangle rotated by 90°."""
    height, width = batch.shape[-2:]
    if (height, width) == (size[1], size[0]) and height != width:
        return functional.interpolate(batch, size=tuple(size), mode="bilinear", align_corners=False)
    extra = (size[0] - height, size[1] - width)
    if extra == (0, 0):
        return batch
    # One number per side: negative crops, positive pads.
    sides = [extra[1] // 2, extra[1] - extra[1] // 2, extra[0] // 2, extra[0] - extra[0] // 2]
    batch = functional.pad(batch, [min(side, 0) for side in sides])
    return functional.pad(batch, [max(side, 0) for side in sides], mode="replicate")


def deduplicate_views(views: Sequence[View], size: tuple[int, int]) -> tuple[View, ...]:
    """Return the views without duplicates, found by applying them to a random image; log a warning that lists them.

    Parameters
    ----------
    size : input size of the model, (height, width) in pixels: a small change of scale may have no effect on a small
        image.
    """
    probe = torch.rand((1, 3, *size), generator=torch.Generator().manual_seed(0))
    kept: list[tuple[View, Tensor]] = []
    repeated: dict[str, str] = {}
    for view in views:
        output = view(probe)
        twin = next((other for other, other_output in kept if _same(output, other_output)), None)
        if twin is None:
            kept.append((view, output))
        elif view.name != twin.name:
            repeated[view.name] = twin.name
    if repeated:
        listed = ", ".join(f"{name} (as {twin})" for name, twin in repeated.items())
        logger.warning("duplicate views skipped, equal to another view at %d×%d px: %s", size[1], size[0], listed)
    return tuple(view for view, _ in kept)


def _same(a: Tensor, b: Tensor) -> bool:
    # Compare every seventh pixel first: nearly all pairs differ there, and thirty views have hundreds of pairs.
    sparse = (..., slice(None, None, 7), slice(None, None, 7))
    return torch.allclose(a[sparse], b[sparse], atol=1e-6) and torch.allclose(a, b, atol=1e-6)
