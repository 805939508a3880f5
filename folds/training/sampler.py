"""Choose which rows an epoch shows: at most so many of a person, then classes in given proportions; numpy only.

The cap comes first, and classes are balanced over what it leaves. Rows are not drawn one by one: a class that must give
more images than it has gives all of them in whole rounds and some once more, one that must give fewer gives each at
most once. So an epoch has exactly the numbers asked for, and no image comes twice while another of its class is left
out; drawing with replacement leaves out more than a third of a class each epoch, and counts the others at random. The
next epoch goes on where this one stopped, so that over a training all images of a class, or of a person under the cap,
are shown equally often, give or take one. Where both select, the cap goes on and the class draws anew.
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

RowIndices = NDArray[np.int64]

SAMPLERS = {"none": 1.0, "sqrt": 0.5, "balanced": 0.0}


@dataclass(frozen=True)
class SamplerConfig:
    """What an epoch shows, as settings; without any, every row once.

    Attributes
    ----------
    classes : how many there are.
    power : classes come in proportion to images ** power: 1 as they are, .5 by the square root, 0 equally often. The
        number
        of images an epoch stays.
    counts : (class index, images an epoch); other classes stay as they are.
    kinds : the kind of each class, or -1; () for none.
    most : the number of images of each kind that an epoch shows of one person.
    fixed : these are the same in every epoch.
    """

    classes: int
    power: float = 1.0
    counts: tuple[tuple[int, int], ...] = ()
    kinds: tuple[int, ...] = ()
    most: tuple[int, ...] = ()
    fixed: bool = False

    def over(
        self, training: RowIndices, codes: RowIndices, persons: NDArray[Any], seed: tuple[Any, ...]
    ) -> EpochSampler:
        """Return the epochs of one fold.

        Parameters
        ----------
        training : (n,) rows of the table to train on, n ≥ 1.
        codes, persons : (N,) class index and person (str or whole number) of each row of the table.
        seed : what all is derived from, with the epoch.
        """
        labels = codes[training]
        capped = np.flatnonzero(np.array(self.kinds)[labels] >= 0) if self.most else np.zeros(0, np.int64)
        place, size, share = self._cells(labels[capped], persons[training[capped]], seed)
        # A cell that shows all it has selects nothing.
        selects = share < size
        capped, place, size, share = capped[selects], place[selects], size[selects], share[selects]
        left = np.ones(len(training), bool)
        left[capped] = place < share
        pool = np.bincount(labels[left], minlength=self.classes)
        return EpochSampler(training, labels, seed, capped, place, size, share, self.fixed, pool, self._shown(pool))

    def _cells(
        self, labels: RowIndices, persons: NDArray[Any], seed: tuple[Any, ...]
    ) -> tuple[RowIndices, RowIndices, RowIndices]:
        """Of each capped image: its place in its cell (a person, a class), the images of the cell, and how many an
        epoch shows of them.

        A person's images of a kind are spread as evenly as they go over the classes that the kind has. Where they do
        not
        go evenly it is drawn here, once, so that every epoch has the same number of each class.
        """
        if not len(labels):
            return labels, labels, labels
        people = factorize(persons)[1]
        kinds = np.array(self.kinds)[labels]
        cells = np.unique(people * self.classes + labels, return_inverse=True)[1]
        generator = np.random.default_rng(derive_seed(*seed, "per person"))
        place = _places(cells, generator)
        shown = _places(people * len(self.most) + kinds, generator, place) < np.array(self.most)[kinds]
        return place, np.bincount(cells)[cells], np.bincount(cells[shown], minlength=len(cells))[cells]

    def _shown(self, pool: RowIndices) -> RowIndices:
        """Return (classes,) images that an epoch shows, from those that there are."""
        if self.counts:
            asked = dict(self.counts)
            return np.array([asked.get(code, have) if have else 0 for code, have in enumerate(pool.tolist())])
        if self.power == 1:
            return pool
        shares = np.where(pool > 0, pool.astype(np.float64) ** self.power, 0)
        exact = shares * (pool.sum() / shares.sum())
        shown = np.floor(exact).astype(np.int64)
        # What rounding down leaves goes to the largest remainders, the earlier class first.
        shown[np.argsort(shown - exact, kind="stable")[: pool.sum() - shown.sum()]] += 1
        return shown


@dataclass(frozen=True, eq=False)
class EpochSampler:
    """What the epochs of one fold show; each can be asked for alone, in any order.

    Attributes
    ----------
    training, labels : (n,) row and class index of what may be shown.
    capped : positions in these of which an epoch shows only some: `share` of the `size` images of a cell (a person, a
        class), and each image's `place` in its cell, in a random order. All four have one entry an image.
    fixed : every epoch shows what the first one does of these.
    pool : (classes,) images of each class that the cap leaves, the same number in every epoch.
    images : (classes,) images of each class that an epoch shows, the same in every epoch.
    """

    training: RowIndices
    labels: RowIndices
    seed: tuple[Any, ...]
    capped: RowIndices
    place: RowIndices
    size: RowIndices
    share: RowIndices
    fixed: bool
    pool: RowIndices
    images: RowIndices

    def __len__(self) -> int:
        """Return rows an epoch, the same in every epoch."""
        return int(self.images.sum())

    def rows(self, epoch: int) -> RowIndices:
        """Return the rows that epoch `epoch` (from 0) shows, in random order."""
        left = self._left(0 if self.fixed else epoch)
        shown = left if np.array_equal(self.images, self.pool) else np.repeat(left, self._times(left, epoch))
        return self.training[shown[self._generator(epoch, "order").permutation(len(shown))]]

    def _left(self, epoch: int) -> RowIndices:
        left = np.ones(len(self.training), bool)
        left[self.capped] = (self.place - epoch * self.share) % self.size < self.share
        return np.flatnonzero(left)

    def _times(self, left: RowIndices, epoch: int) -> RowIndices:
        """Return how often each of the images under the cap is shown: all of a class in whole rounds, the rest once
        more.
        """
        labels = self.labels[left]
        rounds, rest = np.divmod(self.images, np.maximum(self.pool, 1))
        # Two orders that both go on could meet in rhythm, and show the same images for ever.
        anew = len(self.capped) > 0 and not self.fixed
        place = _places(labels, self._generator(epoch, "classes") if anew else self._generator("classes"))
        start = np.zeros_like(rest) if anew else epoch * rest
        return rounds[labels] + ((place - start[labels]) % self.pool[labels] < rest[labels])

    def _generator(self, *parts: object) -> np.random.Generator:
        return np.random.default_rng(derive_seed(*self.seed, *parts))


def _places(groups: RowIndices, generator: np.random.Generator, first: RowIndices | None = None) -> RowIndices:
    """Return (n,) the place of each element in its group, from 0: ordered by `first` where it is given, at random where
    that decides nothing.

    groups : (n,) whole numbers from 0.
    """
    order = generator.permutation(len(groups))
    order = order[np.lexsort([groups[order]] if first is None else [first[order], groups[order]])]
    sizes = np.bincount(groups)
    places = np.empty(len(groups), np.int64)
    places[order] = np.arange(len(groups)) - (np.cumsum(sizes) - sizes)[groups[order]]
    return places


def parse_sampler(text: str) -> float:
    """Return the power of ``none``, ``balanced``, ``sqrt`` or ``power:ALPHA`` (see `Sampling`), by the text alone."""
    name, colon, alpha = text.partition(":")
    if name == "power" and colon:
        try:
            power = float(alpha)
        except ValueError:
            power = -1.0
        if not 0 <= power <= 1:
            raise UsageError(
                f"--sampler {text}: expected a power from 0 (balanced) to 1 (none), found '{alpha}'",
                hint="--sampler power:.5 is sqrt",
            )
        return power
    if text not in SAMPLERS:
        raise unknown_name("--sampler", text, [*SAMPLERS, "power:ALPHA"])
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
    """Return what an epoch shows, from settings as they are written down.

    Parameters
    ----------
    text : ``none``, ``balanced`` (every class equally often), ``sqrt`` (in proportion to the square root of its images)
        or
        ``power:ALPHA``.
    counts : class → images an epoch, up or down.
    per_person : class or ``attribute=value`` (all classes with that value) → images that an epoch shows of one person.
    fixed : the same images of a person in every epoch, so that the others are never seen.
    class_attributes : class → {attribute: value}.

    Raises
    ------
    UsageError : an unknown name, with the nearest known one; a number that is none; settings that contradict each
        other.
    """
    power = parse_sampler(text)
    for name in counts or {}:
        if name not in classes:
            raise unknown_name("class in sample_counts", name, list(classes))
    asked = tuple(
        sorted((classes.index(name), _whole("sample_counts", name, number)) for name, number in (counts or {}).items())
    )
    if asked and power != 1:
        raise UsageError(f"--sampler {text} and sample_counts contradict each other", hint="give one of them")
    if fixed and not per_person:
        raise UsageError("per_person_fixed is for per_person, and there is none", hint="per_person = {CLASS = 1}")
    kinds = [-1] * len(classes)
    for kind, name in enumerate(per_person or {}):
        for code in _classes_of(name, classes, class_attributes or {}):
            if kinds[code] >= 0:
                earlier = list(per_person or {})[kinds[code]]
                raise UsageError(
                    f"per_person: class '{classes[code]}' belongs to both {earlier} and {name}",
                    hint="name kinds that share no class",
                )
            kinds[code] = kind
    most = tuple(_whole("per_person", name, number) for name, number in (per_person or {}).items())
    return SamplerConfig(len(classes), power, asked, tuple(kinds) if most else (), most, fixed)


def _classes_of(name: str, classes: Sequence[str], class_attributes: Mapping[str, Mapping[str, str]]) -> list[int]:
    if name in classes:
        return [classes.index(name)]
    attribute, equals, value = name.partition("=")
    values = {
        key: {meaning[key] for meaning in class_attributes.values() if key in meaning}
        for own in class_attributes.values()
        for key in own
    }
    if not equals:
        raise unknown_name("class in per_person", name, list(classes))
    if attribute not in values:
        hint = (
            f"attributes of classes: {', '.join(values)}"
            if values
            else "these classes have no attributes; name classes"
        )
        raise unknown_name("attribute in per_person", attribute, list(values), hint)
    if value not in values[attribute]:
        raise unknown_name(f"value of {attribute} in per_person", value, sorted(values[attribute]))
    return [code for code, own in enumerate(classes) if class_attributes.get(own, {}).get(attribute) == value]


def _whole(setting: str, name: str, number: Any) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise UsageError(f"{setting}: expected a whole number of images, 1 or more, for '{name}', found {number!r}")
    return number
