"""Define augmentation presets, and choose the preset of each sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from folds.errors import unknown_name


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the augmentation parameters, each sampled uniformly per sample.

    Attributes
    ----------
    flip : probability of a mirror image.
    scale : ± share of the size.
    shift : ± share of the width and height.
    rotate : ± degrees.
    brightness, contrast, saturation : ± share.
    operation : probability of one of `folds.augmentation.operations.OPERATIONS`, of random strength.
    erase : probability of an erased rectangle.
    crop : largest share of the image's area that a random crop leaves out; the crop is resized to the input.
    aspect : ± the logarithm of the ratio of the sides of a crop, relative to the input.
    """

    flip: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    rotate: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    operation: float = 0.0
    erase: float = 0.0
    crop: float = 0.0
    aspect: float = 0.0

    @property
    def crops(self) -> bool:
        """Return whether images are cropped at random."""
        return bool(self.crop or self.aspect)

    @property
    def moves(self) -> bool:
        """Return whether pixels change their places, other than by a mirror image."""
        return bool(self.scale or self.shift or self.rotate or self.operation or self.crops)


# For upright photographs: no vertical flip and little rotation. Presets are listed from weak to strong.
_STANDARD = Augmentation(flip=0.5, scale=0.12, shift=0.06, rotate=8.0, brightness=0.2, contrast=0.2, saturation=0.2)
PRESETS = {
    "none": Augmentation(),
    "light": Augmentation(flip=0.5, shift=0.04),
    "standard": _STANDARD,
    "strong": replace(_STANDARD, operation=1.0, erase=0.25),
}


def preset(name: str, erase: float | None = None, crop_scale: float = 1.0, crop_ratio: float = 1.0) -> Augmentation:
    """Return the augmentation of this name.

    Parameters
    ----------
    erase : replaces its probability of an erased rectangle.
    crop_scale, crop_ratio : smallest area of a random crop, as a share, and largest ratio of its sides, relative to the
        input. A random crop replaces scale and shift.

    Raises
    ------
    UsageError : the name is unknown.
    """
    if name not in PRESETS:
        raise unknown_name("`augment`", name, list(PRESETS))
    found = PRESETS[name] if erase is None else replace(PRESETS[name], erase=erase)
    if crop_scale == 1 and crop_ratio == 1:
        return found
    return replace(found, scale=0.0, shift=0.0, crop=1 - crop_scale, aspect=math.log(crop_ratio))


def without_colors(augmentation: Augmentation) -> Augmentation:
    """Return an augmentation for channels that are not red, green and blue: without saturation and `operation`."""
    return replace(augmentation, saturation=0.0, operation=0.0)


@lru_cache(maxsize=64)
def strongest(augmentations: tuple[Augmentation, ...]) -> Augmentation:
    """Return the widest range of each parameter over all augmentations; parameters with range 0 need not be
    computed.
    """
    return Augmentation(*(max(values) for values in zip(*map(astuple, augmentations), strict=True)))


def choose_presets(
    base: str, more: Mapping[str, str], labels: Sequence[str], attributes: Mapping[str, Sequence[str]]
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the preset of each sample. For the classes and their attributes instead of samples, return that of each
    class.

    The preset of a class in `more` has priority over those of its attributes; of several attributes the strongest
    preset is used.

    Parameters
    ----------
    base : the preset of samples that `more` does not name.
    more : class, or ``attribute=value`` → preset, e.g. ``{"age=60": "strong"}``.
    labels : the class of each of n samples.
    attributes : name → its value for each of the n samples.

    Returns
    -------
    names : the presets in use, from weak to strong.
    codes : (n,) positions in `names`.

    Raises
    ------
    UsageError : `more` names an unknown preset, class or attribute.
    """
    strength = {name: i for i, name in enumerate(PRESETS)}
    classes = sorted(set(labels))
    pairs = [f"{name}={value}" for name in sorted(attributes) for value in sorted(set(attributes[name]))]
    preset(base)
    found = np.full(len(labels), -1, dtype=np.int64)
    for key, name in more.items():
        if name not in PRESETS:
            raise unknown_name(f"augmentation of '{key}':", name, list(PRESETS))
        if key in classes:
            continue
        if key not in pairs:
            raise unknown_name("class or attribute=value in `augment_more`", key, [*classes, *pairs])
        attribute = next(a for a in attributes if key.startswith(f"{a}=") and key[len(a) + 1 :] in attributes[a])
        matches = np.array([value == key[len(attribute) + 1 :] for value in attributes[attribute]])
        found[matches] = np.maximum(found[matches], strength[name])
    for key, name in more.items():
        if key in classes:
            found[np.array([label == key for label in labels])] = strength[name]
    found[found < 0] = strength[base]
    used, codes = np.unique(found, return_inverse=True)
    names = list(PRESETS)
    return tuple(names[i] for i in used), codes.astype(np.int64)
