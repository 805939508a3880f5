"""Choose the rows of each epoch: first a cap on the images per person, then class proportions; numpy only.

Classes are balanced over the images that remain after the cap. Rows are not drawn independently: a class that needs
more images than it has uses all images in complete rounds, and some of them once more; a class that needs fewer uses
each image at most once. So an epoch has exactly the requested numbers, and no image is repeated while another image of
its class is unused. Drawing with replacement would miss more than a third of a class in each epoch. Each epoch
continues where the previous one stopped, so over a training all images of a class, or of a person under the cap, are
used equally often (±1). If both cap and class select images, the cap continues and the class is drawn again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.errors import UsageError, unknown_name
from folds.utils.files import derive_seed
from folds.utils.numeric import factorize
from folds.utils.schema import shown

RowIndices = NDArray[np.int64]

SAMPLERS = {"none": 1.0, "sqrt": 0.5, "balanced": 0.0}


@dataclass(frozen=True)
class SamplerConfig:
    """Settings of the sampler; the default uses every row once per epoch.

    Attributes
    ----------
    classes : number of classes.
    power : classes are sampled in proportion to images ** power: 1 unchanged, 0.5 by the square root, 0 equally often.
        The total number of images per epoch does not change.
    counts : (class index, images per epoch) pairs; other classes are unchanged.
    kinds : index of the capped group of each class, or -1; () without a cap.
    max_per_person : images per person and epoch for each capped group.
    fixed : whether every epoch uses the same images of a person.
    """

    classes: int
    power: float = 1.0
    counts: tuple[tuple[int, int], ...] = ()
    kinds: tuple[int, ...] = ()
    max_per_person: tuple[int, ...] = ()
    fixed: bool = False

    def over(
        self, training: RowIndices, codes: RowIndices, persons: NDArray[Any], seed: tuple[Any, ...]
    ) -> EpochSampler:
        """Return the sampler of one fold.

        Parameters
        ----------
        training : (n,) rows of the table to train on, n ≥ 1.
        codes, persons : (N,) class index and person (str or whole number) of each row of the table.
        seed : all random numbers are derived from it and from the epoch.
        """
        labels = codes[training]
        capped = np.flatnonzero(np.array(self.kinds)[labels] >= 0) if self.max_per_person else np.zeros(0, np.int64)
        position, size, quota = self._cells(labels[capped], persons[training[capped]], seed)
        # A cell whose images are all used needs no selection.
        selects = quota < size
        capped, position, size, quota = capped[selects], position[selects], size[selects], quota[selects]
        kept = np.ones(len(training), bool)
        kept[capped] = position < quota
        pool = np.bincount(labels[kept], minlength=self.classes)
        images = self._images_per_epoch(pool)
        return EpochSampler(training, labels, seed, capped, position, size, quota, self.fixed, pool, images)

    def _cells(
        self, labels: RowIndices, persons: NDArray[Any], seed: tuple[Any, ...]
    ) -> tuple[RowIndices, RowIndices, RowIndices]:
        """Return for each capped image: its position in its cell, the size of the cell, and the quota of the cell.

        A cell is a pair of person and class; its quota is the number of its images per epoch. The images of a person
        are spread as evenly as possible over the classes of a capped group. Remainders are drawn once, here, so that
        every epoch has the same number of images of each class.
        """
        if not len(labels):
            return labels, labels, labels
        people = factorize(persons)[1]
        kinds = np.array(self.kinds)[labels]
        cells = np.unique(people * self.classes + labels, return_inverse=True)[1]
        generator = np.random.default_rng(derive_seed(*seed, "per person"))
        position = _positions(cells, generator)
        groups = people * len(self.max_per_person) + kinds
        used = _positions(groups, generator, position) < np.array(self.max_per_person)[kinds]
        return position, np.bincount(cells)[cells], np.bincount(cells[used], minlength=len(cells))[cells]

    def _images_per_epoch(self, pool: RowIndices) -> RowIndices:
        """Return (classes,) the images of each class per epoch; `pool` (classes,) has the available images."""
        if self.counts:
            requested = dict(self.counts)
            return np.array([requested.get(code, have) if have else 0 for code, have in enumerate(pool.tolist())])
        if self.power == 1:
            return pool
        shares = np.where(pool > 0, pool.astype(np.float64) ** self.power, 0)
        exact = shares * (pool.sum() / shares.sum())
        images = np.floor(exact).astype(np.int64)
        # The images lost by rounding down go to the largest remainders, the earlier class first.
        images[np.argsort(images - exact, kind="stable")[: pool.sum() - images.sum()]] += 1
        return images


@dataclass(frozen=True, eq=False)
class EpochSampler:
    """The rows of the epochs of one fold; epochs can be computed independently, in any order.

    Attributes
    ----------
    training, labels : (n,) row and class index of each available image.
    capped : (m,) positions in `training` of the images of cells (person, class) that are used only in part.
    position, size, quota : (m,) for each capped image its position in its cell, in random order, the images of the
        cell, and how many of them an epoch uses.
    fixed : whether every epoch uses the same capped images.
    pool : (classes,) images of each class after the cap, the same number in every epoch.
    images : (classes,) images of each class per epoch, the same in every epoch.
    """

    training: RowIndices
    labels: RowIndices
    seed: tuple[Any, ...]
    capped: RowIndices
    position: RowIndices
    size: RowIndices
    quota: RowIndices
    fixed: bool
    pool: RowIndices
    images: RowIndices

    def __len__(self) -> int:
        """Return the number of rows per epoch, the same in every epoch."""
        return int(self.images.sum())

    def rows(self, epoch: int) -> RowIndices:
        """Return the rows of epoch `epoch` (from 0) in random order."""
        kept = self._under_cap(0 if self.fixed else epoch)
        used = kept if np.array_equal(self.images, self.pool) else np.repeat(kept, self._repeats(kept, epoch))
        return self.training[used[self._generator(epoch, "order").permutation(len(used))]]

    def _under_cap(self, epoch: int) -> RowIndices:
        """Return the positions of the images that the cap keeps in an epoch."""
        kept = np.ones(len(self.training), bool)
        kept[self.capped] = (self.position - epoch * self.quota) % self.size < self.quota
        return np.flatnonzero(kept)

    def _repeats(self, kept: RowIndices, epoch: int) -> RowIndices:
        """Return how often each kept image is used: every image of a class in complete rounds, some once more."""
        labels = self.labels[kept]
        rounds, rest = np.divmod(self.images, np.maximum(self.pool, 1))
        # If cap and class both continued from epoch to epoch, their periods could match and always select the same
        # images.
        redraw = len(self.capped) > 0 and not self.fixed
        position = _positions(labels, self._generator(epoch, "classes") if redraw else self._generator("classes"))
        start = np.zeros_like(rest) if redraw else epoch * rest
        return rounds[labels] + ((position - start[labels]) % self.pool[labels] < rest[labels])

    def _generator(self, *parts: object) -> np.random.Generator:
        return np.random.default_rng(derive_seed(*self.seed, *parts))


def _positions(groups: RowIndices, generator: np.random.Generator, first: RowIndices | None = None) -> RowIndices:
    """Return (n,) the position of each element in its group, from 0.

    Parameters
    ----------
    groups : (n,) whole numbers from 0.
    first : (n,) sort key of the elements of a group; without it, and for equal keys, the order is random.
    """
    order = generator.permutation(len(groups))
    order = order[np.lexsort([groups[order]] if first is None else [first[order], groups[order]])]
    sizes = np.bincount(groups)
    positions = np.empty(len(groups), np.int64)
    positions[order] = np.arange(len(groups)) - (np.cumsum(sizes) - sizes)[groups[order]]
    return positions


def parse_sampler(text: str) -> float:
    """Return the power of ``none``, ``balanced``, ``sqrt`` or ``power:ALPHA`` (see `SamplerConfig`)."""
    name, colon, alpha = text.partition(":")
    if name == "power" and colon:
        try:
            power = float(alpha)
        except ValueError:
            power = -1.0
        if not 0 <= power <= 1:
            raise UsageError(
                f"`sampler={text}`: expected a power from 0 (balanced) to 1 (none), found '{alpha}'",
                hint="`sampler=power:.5` is the same as sqrt",
            )
        return power
    if text not in SAMPLERS:
        raise unknown_name("`sampler`", text, [*SAMPLERS, "power:ALPHA"])
    return SAMPLERS[text]


def parse_sampling(
    text: str,
    classes: Sequence[str],
    *,
    counts: Mapping[str, Any] | None = None,
    per_person: Mapping[str, Any] | None = None,
    fixed: bool = False,
    class_attributes: Mapping[str, Mapping[str, str]] | None = None,
) -> SamplerConfig:
    """Return the settings of the sampler from their text form.

    Parameters
    ----------
    text : ``none``, ``balanced`` (every class equally often), ``sqrt`` (in proportion to the square root of its images)
        or ``power:ALPHA``.
    counts : class → images per epoch, more or fewer than the class has.
    per_person : class or ``attribute=value`` (all classes with that value) → images per person and epoch.
    fixed : use the same images of a person in every epoch; the others are never used.
    class_attributes : class → {attribute: value}.

    Raises
    ------
    UsageError : an unknown name (the message suggests the closest ones), an invalid number, or settings that contradict
        each other.
    """
    power = parse_sampler(text)
    for name in counts or {}:
        if name not in classes:
            raise unknown_name("class in sample_counts", name, list(classes))
    requested = tuple(
        sorted(
            (classes.index(name), _positive_integer("sample_counts", name, number))
            for name, number in (counts or {}).items()
        )
    )
    if requested and power != 1:
        raise UsageError(f"`sampler={text}` and sample_counts contradict each other", hint="give one of them")
    if fixed and not per_person:
        raise UsageError("per_person_fixed needs per_person, which is not set", hint="per_person = {CLASS = 1}")
    kinds = [-1] * len(classes)
    for kind, name in enumerate(per_person or {}):
        for code in _classes_of(name, classes, class_attributes or {}):
            if kinds[code] >= 0:
                earlier = list(per_person or {})[kinds[code]]
                raise UsageError(
                    f"per_person: class '{classes[code]}' belongs to both {earlier} and {name}",
                    hint="each class must match at most one entry of per_person",
                )
            kinds[code] = kind
    caps = tuple(_positive_integer("per_person", name, number) for name, number in (per_person or {}).items())
    return SamplerConfig(len(classes), power, requested, tuple(kinds) if caps else (), caps, fixed)


def _classes_of(name: str, classes: Sequence[str], class_attributes: Mapping[str, Mapping[str, str]]) -> list[int]:
    if name in classes:
        return [classes.index(name)]
    attribute, equals, value = name.partition("=")
    values = {
        key: {attributes[key] for attributes in class_attributes.values() if key in attributes}
        for own in class_attributes.values()
        for key in own
    }
    if not equals:
        raise unknown_name("class in per_person", name, list(classes))
    if attribute not in values:
        hint = (
            f"attributes of classes: {', '.join(values)}"
            if values
            else "these classes have no attributes; use names of classes"
        )
        raise unknown_name("attribute in per_person", attribute, list(values), hint)
    if value not in values[attribute]:
        raise unknown_name(f"value of {attribute} in per_person", value, sorted(values[attribute]))
    return [code for code, own in enumerate(classes) if class_attributes.get(own, {}).get(attribute) == value]


def _positive_integer(setting: str, name: str, number: Any) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise UsageError(
            f"{setting}: expected a whole number of images, 1 or more, for '{name}', found {shown(number)}"
        )
    return number
