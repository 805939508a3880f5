"""Hold labeled predictions with their people, and measure shares over people; numpy only."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from folds.metrics.distributions import at_least_beta_quantile
from folds.metrics.intervals import LEVEL, Interval, jackknife_standard_error, t_interval

IMAGE, PERSON = "image", "person"


@dataclass(frozen=True, eq=False)
class LabeledRows:
    """Out-of-fold predictions with labels, from which decision rules are fitted.

    Attributes
    ----------
    probabilities : (n, classes) float64.
    labels : (n,) class indices.
    persons : (n,) from 0, every number used.
    parts : (n,) the outer fold of each row; all rows of a person are in the same one.
    ids : (n,) of str.
    classes : the class of each column.
    ordered : whether the classes are grades, in their order.
    """

    probabilities: NDArray[np.float64]
    labels: NDArray[np.int64]
    persons: NDArray[np.int64]
    parts: NDArray[np.int64]
    ids: NDArray[np.str_]
    classes: tuple[str, ...]
    ordered: bool = True

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def people(self) -> int:
        """Return the number of people."""
        return int(self.persons.max()) + 1 if len(self) else 0

    @property
    def weights(self) -> NDArray[np.float64]:
        """Return (n,) the weight of each row: one over the number of its person's rows, so that people are equal."""
        return weights_of(self.persons)

    @property
    def draw(self) -> NDArray[np.float64]:
        """Return (n,) numbers derived from the ids, as if drawn uniformly, to draw one row of each person."""
        return uniform_of(np.char.add("drawn ", self.ids))

    def take(self, rows: NDArray[np.integer]) -> LabeledRows:
        """Return some rows, with the people numbered anew."""
        return LabeledRows(
            self.probabilities[rows],
            self.labels[rows],
            np.unique(self.persons[rows], return_inverse=True)[1].astype(np.int64),
            self.parts[rows],
            self.ids[rows],
            self.classes,
            self.ordered,
        )


def uniform_of(ids: NDArray[np.str_]) -> NDArray[np.float64]:
    """Return (n,) numbers from 0 to below 1 that are derived from the ids, as if drawn uniformly."""
    encoded = (str(name).encode("utf-8", "surrogatepass") for name in ids.tolist())
    digests = (hashlib.blake2b(name, digest_size=7).digest() for name in encoded)
    return np.array([int.from_bytes(digest, "big") for digest in digests], np.float64) / 2.0**56


def weights_of(persons: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (n,) one over the number of rows of each row's person."""
    return 1 / np.bincount(persons)[persons] if len(persons) else np.zeros(0)


def sums_by_person(
    values: NDArray[np.floating] | NDArray[np.bool_], persons: NDArray[np.int64], people: int
) -> NDArray[np.float64]:
    """Return (people,) the sum of the rows' values of each person."""
    return np.bincount(persons, values.astype(np.float64), people).astype(np.float64)


def person_shares(
    what: NDArray[np.bool_], among: NDArray[np.bool_], persons: NDArray[np.int64], people: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (people,) the share of `what` in the person's rows that are `among`, and 1 for each person with any."""
    whole = sums_by_person(among, persons, people)
    part = sums_by_person(among & what, persons, people)
    return part / np.maximum(whole, 1), (whole > 0).astype(np.float64)


def share_interval(part: NDArray[np.float64], whole: NDArray[np.float64], level: float = LEVEL) -> Interval:
    """Return Σ part / Σ whole over people with its confidence interval: the jackknife over people, as for scores.

    The interval is on the logit scale and at most as wide as that of Clopper and Pearson (1934) for people who are each
    entirely right or entirely wrong, as `folds.metrics.intervals.interval_over_people` has it.

    Parameters
    ----------
    part, whole : (people,) with 0 ≤ part ≤ whole; people with a whole of 0 do not count.
    """
    part, whole = part[whole > 0], whole[whole > 0]
    people = len(whole)
    if not people:
        return Interval(math.nan, math.nan, math.nan, level, 0, "no person: nothing can be measured")
    value = float(np.clip(part.sum() / whole.sum(), 0, 1))
    if people == 1:
        return Interval(value, math.nan, math.nan, level, 1, "only one person: no confidence interval can be computed")
    left_out = (part.sum() - part) / (whole.sum() - whole)
    error = float(jackknife_standard_error(left_out, value))
    effective = float(whole.sum() ** 2 / np.square(whole).sum())
    low, high = (float(end) for end in t_interval(value, np.array(error), people - 1, np.array(effective), level, 0, 1))
    warning = ""
    if 0 < value < 1:
        tail = (1 - level) / 2
        if error > 0:
            low = min(value, at_least_beta_quantile(low, tail, effective * value, effective * (1 - value) + 1))
            high = max(
                value, 1 - at_least_beta_quantile(1 - high, tail, effective * (1 - value), effective * value + 1)
            )
        else:
            warning = f"all {people:,} people have the same value: the interval is too narrow"
        without_mistake = tail ** (1 / effective)
        low, high = min(low, without_mistake), max(high, 1 - without_mistake)
    return Interval(value, low, high, level, people, warning, error)


def mean_interval(values: NDArray[np.float64], level: float = LEVEL, lower: float = -math.inf) -> Interval:
    """Return the mean of (people,) values with its confidence interval, by Student's t."""
    people = len(values)
    if people < 2:
        value = float(values.mean()) if people else math.nan
        return Interval(value, math.nan, math.nan, level, people, "too few people for a confidence interval")
    error = float(values.std(ddof=1) / math.sqrt(people))
    value = float(values.mean())
    low, high = (float(end) for end in t_interval(value, np.array(error), people - 1, people, level, lower))
    return Interval(value, low, high, level, people, "", error)
