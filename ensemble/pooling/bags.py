"""Group the rows of images by person, and reduce the rows of each person; numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Bags:
    """The images of each person.

    Attributes
    ----------
    codes : (n,) index of the person of each image.
    people : number of people; some may have no image.
    """

    codes: NDArray[np.int64]
    people: int

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Return (people,) the number of images of each person."""
        return np.bincount(self.codes, minlength=self.people)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """Return (n,) the images sorted by person, those of one person in their order."""
        return np.argsort(self.codes, kind="stable")

    @cached_property
    def shown(self) -> NDArray[np.int64]:
        """Return the people with at least one image."""
        return np.flatnonzero(self.counts)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Return the first place in `order` of each person of `shown`."""
        return (np.cumsum(self.counts) - self.counts)[self.shown]

    def take(self, rows: NDArray[np.int64]) -> Bags:
        """Return the same people with these images only."""
        return Bags(self.codes[rows], self.people)

    def reduce(self, operation: np.ufunc, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (people, columns) of values (n, columns) reduced over each person's images; 0 without an image."""
        out = np.zeros((self.people, values.shape[1]))
        if len(self.shown):
            out[self.shown] = operation.reduceat(values[self.order], self.starts, axis=0)
        return out

    def mean(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (people, columns) the means over each person's images; 0 without an image."""
        return self.reduce(np.add, values) / np.maximum(self.counts, 1)[:, None]

    def ranked(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n, columns) the values of each person in ascending order, people one after another."""
        codes = self.codes[self.order]
        sorted_values = values[self.order]
        for column in range(values.shape[1]):
            index = np.lexsort((sorted_values[:, column], codes))
            sorted_values[:, column] = sorted_values[index, column]
        return sorted_values

    def largest(self, values: NDArray[np.float64], k: int) -> NDArray[np.float64]:
        """Return (people, columns) the mean of each person's k largest values, of all if they are fewer."""
        ranked = self.ranked(values)
        codes = self.codes[self.order]
        ends = np.cumsum(self.counts)
        kept = np.arange(len(codes)) >= ends[codes] - k
        out = np.zeros((self.people, values.shape[1]))
        np.add.at(out, codes[kept], ranked[kept])
        return out / np.maximum(np.minimum(self.counts, k), 1)[:, None]

    def quantile(self, values: NDArray[np.float64], share: float) -> NDArray[np.float64]:
        """Return (people, columns) the quantiles of each person's values, with linear interpolation as in numpy."""
        ranked = self.ranked(values)
        out = np.zeros((self.people, values.shape[1]))
        place = share * (self.counts[self.shown] - 1)
        low = np.floor(place).astype(np.int64)
        high = np.minimum(low + 1, self.counts[self.shown] - 1)
        weight = (place - low)[:, None]
        out[self.shown] = (1 - weight) * ranked[self.starts + low] + weight * ranked[self.starts + high]
        return out


def bags_of(persons: NDArray[np.str_]) -> tuple[NDArray[np.str_], Bags]:
    """Return the sorted names of the people, and the images of each."""
    names, codes = np.unique(persons, return_inverse=True)
    return names, Bags(codes.astype(np.int64), len(names))
