"""Choose how strongly which samples are augmented: presets by name, and stronger ones for chosen classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from folds.errors import unknown_name


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the parameters, each drawn uniformly a sample.

    `flip` the probability of a mirror image; `zoom` ± share of the scale; `shift` ± share of the width and height;
    `turn` ± degrees; `brightness`, `contrast`, `saturation` ± share. `operation` the probability of one further
    operation
    out of `folds.augmentation.operations.OPERATIONS`, of random strength; `erase` the probability of an erased
    rectangle.
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


# For upright photographs: people do not stand on their heads, so there is no vertical flip and little turning.
# From weak to strong.
_STANDARD = Augmentation(flip=0.5, scale=0.12, shift=0.06, rotate=8.0, brightness=0.2, contrast=0.2, saturation=0.2)
PRESETS = {
    "none": Augmentation(),
    "light": Augmentation(flip=0.5, shift=0.04),
    "standard": _STANDARD,
    "strong": replace(_STANDARD, operation=1.0, erase=0.25),
}


def preset(name: str, erase: float | None = None) -> Augmentation:
    """Return the augmentation of that name; `erase` replaces its probability of an erased rectangle.

    Raises
    ------
    UsageError : there is none of that name.
    """
    if name not in PRESETS:
        raise unknown_name("--augment", name, list(PRESETS))
    return PRESETS[name] if erase is None else replace(PRESETS[name], erase=erase)


@lru_cache(maxsize=64)
def strongest(ways: tuple[Augmentation, ...]) -> Augmentation:
    """Return the widest range of each parameter: what none of `ways` has need not be computed."""
    return Augmentation(*(max(values) for values in zip(*map(astuple, ways), strict=True)))


def choose_presets(
    base: str, more: Mapping[str, str], labels: Sequence[str], attributes: Mapping[str, Sequence[str]]
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return which preset each sample gets. Given the classes and what each means, which preset each class gets.

    A class named in `more` has its preset whatever its attributes; of several attributes the strongest preset counts.

    Parameters
    ----------
    base : the preset of all that `more` does not name.
    more : class, or ``attribute=value`` → preset, e.g. ``{"age=60": "strong"}``.
    labels : the class of each of n samples.
    attributes : name → its value for each of the n samples.

    Returns
    -------
    names : the presets in use, from weak to strong.
    codes : (n,) positions in `names`.

    Raises
    ------
    UsageError : `more` names a preset, a class or an attribute that there is not.
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
            raise unknown_name("class or attribute=value in augment_more", key, [*classes, *pairs])
        attribute = next(a for a in attributes if key.startswith(f"{a}=") and key[len(a) + 1 :] in attributes[a])
        has = np.array([value == key[len(attribute) + 1 :] for value in attributes[attribute]])
        found[has] = np.maximum(found[has], strength[name])
    for key, name in more.items():
        if key in classes:
            found[np.array([label == key for label in labels])] = strength[name]
    found[found < 0] = strength[base]
    used, codes = np.unique(found, return_inverse=True)
    names = list(PRESETS)
    return tuple(names[i] for i in used), codes.astype(np.int64)
