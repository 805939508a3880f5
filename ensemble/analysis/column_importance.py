"""Say what columns of the samples (age, sex) add to a stacker, beside what its runs add: exact Shapley values of few
groups, otherwise the loss by permuting a column within the held-out people; numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.combination import Fitter, combine
from ensemble.learning.further_columns import Column
from ensemble.learning.nested import NestedResult
from ensemble.learning.stack import Stack
from folds.metrics.classification import Metric
from folds.metrics.intervals import (
    LEVEL,
    Interval,
    difference_over_people,
    jackknife_standard_error,
    t_interval,
)
from folds.metrics.resampling import jackknife_groups, leave_one_group_out
from folds.utils.files import derive_seed
from folds.utils.progress import Advance

RUNS = "the runs"  # the group of all runs together
MAX_COLUMNS = 4  # of exact Shapley values, which fit every subset of the columns and the runs in every outer fold
MAX_CELLS = 20_000_000  # subsets · rows · inputs · classes, likewise
REPEATS = 10  # permutations of a column

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GroupImportance:
    """What one group adds: a column, or the runs together.

    Attributes
    ----------
    gain : in units of the metric, with its 95% CI over people; positive if the group helps, for every metric.
    """

    name: str
    gain: Interval


@dataclass(frozen=True)
class ColumnImportance:
    """What the columns add to a stacker.

    Attributes
    ----------
    exact : whether the gains are Shapley values of all subsets; otherwise losses by permutation, of columns only.
    empty, full : nested score without runs and columns (nan by permutation), and with all of them.
    groups : the runs (of exact values only), then the columns in their order.
    """

    exact: bool
    empty: float
    full: float
    groups: tuple[GroupImportance, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``--json`` and blend.json."""
        return {
            "method": "shapley" if self.exact else "permutation",
            "empty": self.empty if self.exact else None,
            "full": self.full,
            "groups": [{"name": one.name, "gain": one.gain.to_dict()} for one in self.groups],
        }

    def sentences(self) -> list[str]:
        """Return how to read the gains."""
        if self.exact:
            return [
                "gains of the runs and of each column are exact Shapley values: the method is fitted again with every "
                "subset and scored nested; they sum to the gain over class frequencies: "
                f"{self.empty:.3f} → {self.full:.3f}"
            ]
        return [
            f"gains of the columns are losses by permutation: the mean over {REPEATS} times in which the column's "
            "values are exchanged between the held-out people of each outer fold; columns that say the same share "
            "their gain unseen"
        ]


def estimate_importance(
    stack: Stack,
    fitted: NestedResult,
    fitters: Sequence[Fitter],
    metric: Metric,
    seed: int = 0,
    progress: Advance = lambda done, of: None,
) -> ColumnImportance:
    """Return what each column of a stack adds to a fitted combination, scored nested.

    Up to `MAX_COLUMNS` columns the gains are exact Shapley values of the runs together and of each column: what a group
    adds to the groups before it, averaged over all orders (Shapley, 1953), with the combination fitted again for every
    subset in every outer fold. A subset without the runs starts from equal probabilities. With more columns, many
    samples, or a metric that is a function of the user, they are losses by permutation within the held-out people.

    Parameters
    ----------
    fitted : a result of `ensemble.learning.nested.nested_cv` with the columns.
    fitters : for each outer fold, the fitter that was used without it.
    """
    columns = len(stack.extra)
    width = stack.runs + sum(1 if one.is_number else len(set(one.texts.tolist())) for one in stack.extra)
    cells = 2 ** (columns + 1) * len(stack) * width * stack.classes
    if columns <= MAX_COLUMNS and cells <= MAX_CELLS and metric.function is None:
        return _shapley(stack, fitted, fitters, metric, seed, progress)
    return _permuted(stack, fitted, metric, seed, progress)


def _shapley(
    stack: Stack, fitted: NestedResult, fitters: Sequence[Fitter], metric: Metric, seed: int, progress: Advance
) -> ColumnImportance:
    groups = len(stack.extra) + 1  # the runs are the first
    codes, units, people = jackknife_groups(stack.persons)
    sizes = np.array([number.bit_count() for number in range(2**groups)])
    values = np.empty((2**groups, units + 1))  # the score, then without each unit
    for number in range(2**groups):
        progress(number, 2**groups)
        if number == 2**groups - 1:
            predicted = fitted.out_of_sample
        else:
            predicted = _nested(_subset(stack, number), fitters, metric, seed)
        values[number, 0] = metric(stack.labels, predicted)
        values[number, 1:] = leave_one_group_out(metric, stack.labels, predicted, codes, units)
    progress(2**groups, 2**groups)
    values = values if metric.greater_is_better else -values
    joining = [math.factorial(i) * math.factorial(groups - 1 - i) / math.factorial(groups) for i in range(groups)]
    numbers, found = np.arange(2**groups), []
    for group, name in enumerate([RUNS, *(column.name for column in stack.extra)]):
        without = numbers[numbers >> group & 1 == 0]
        # Differences first, so that a column that changes no score has a gain of exactly 0.
        share = np.array(joining)[sizes[without]] @ (values[without | 1 << group] - values[without])
        found.append(GroupImportance(name, _interval(share, units, people)))
    sign = 1 if metric.greater_is_better else -1
    return ColumnImportance(True, float(sign * values[0, 0]), float(sign * values[-1, 0]), tuple(found))


def _interval(share: Floats, units: int, people: int) -> Interval:
    """Return a Shapley value with its interval, from (1 + units,) the value and those without each unit."""
    value, error = float(share[0]), jackknife_standard_error(share[1:], share[0])
    low, high = (float(end) for end in t_interval(share[0], error, max(units - 1, 1), np.asarray(units), LEVEL))
    if people < 2:
        low = high = math.nan
    return Interval(value, low, high, people=people, standard_error=float(error))


def _subset(stack: Stack, number: int) -> Stack:
    """Return the stack with the groups whose bits are set: the runs, then each column."""
    extra = tuple(column for at, column in enumerate(stack.extra, start=1) if number >> at & 1)
    if number & 1:
        return replace(stack, extra=extra)
    equal = np.full((1, len(stack), stack.classes), 1 / stack.classes, np.float32)
    return replace(stack, names=("none",), probabilities=equal, present=None, extra=extra)


def _nested(stack: Stack, fitters: Sequence[Fitter], metric: Metric, seed: int) -> NDArray[np.float32]:
    """Return (n, classes) predictions of each outer fold by a fit without it."""
    out = np.empty((len(stack), stack.classes), np.float32)
    for part, fitter in zip(np.unique(stack.outer_folds), fitters, strict=True):
        inside, rest = np.flatnonzero(stack.outer_folds == part), np.flatnonzero(stack.outer_folds != part)
        out[inside] = combine(stack.take(inside), fitter.fit(stack.take(rest), metric, seed))
    return out


def _permuted(stack: Stack, fitted: NestedResult, metric: Metric, seed: int, progress: Advance) -> ColumnImportance:
    found, total = [], REPEATS * len(stack.extra)
    for at, column in enumerate(stack.extra):
        ends = []
        for repeat in range(REPEATS):
            progress(at * REPEATS + repeat, total)
            random = np.random.default_rng(derive_seed(seed, f"permute {column.name} {repeat}"))
            other = _with_permuted(stack, fitted, at, random)
            first, second = other, fitted.out_of_sample
            if not metric.greater_is_better:
                first, second = second, first
            one = difference_over_people(metric, stack.labels, first, second, stack.persons).difference
            ends.append((one.value, one.low, one.high))
        value, low, high = np.mean(ends, axis=0).tolist()
        people = len(np.unique(stack.persons))
        found.append(GroupImportance(column.name, Interval(value, low, high, people=people)))
    progress(total, total)
    full = float(metric(stack.labels, fitted.out_of_sample))
    return ColumnImportance(False, math.nan, full, tuple(found))


def _with_permuted(stack: Stack, fitted: NestedResult, at: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Return (n, classes) nested predictions with a column exchanged between the people of each outer fold."""
    out = np.empty_like(fitted.out_of_sample)
    for part, combination in zip(np.unique(stack.outer_folds), fitted.parts, strict=True):
        inside = np.flatnonzero(stack.outer_folds == part)
        own = stack.take(inside)
        extra = [*own.extra]
        extra[at] = _exchanged(own.extra[at], own.persons, random)
        out[inside] = combine(replace(own, extra=tuple(extra)), combination)
    return out


def _exchanged(column: Column, persons: NDArray[np.int64], random: np.random.Generator) -> Column:
    """Return the column in which the rows of each person have the value of another person's first row."""
    _, first, codes = np.unique(persons, return_index=True, return_inverse=True)
    return replace(column, texts=column.texts[first[random.permutation(len(first))]][codes])
