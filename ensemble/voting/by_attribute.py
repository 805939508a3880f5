"""Vote on each attribute of the class (mask, gender, age) separately and combine the results; numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.split import AlignedSplit, Grouping, Present, RunPredictions
from ensemble.voting.blocks import row_blocks
from folds.errors import UsageError
from folds.utils.memmap import allocate_result, release_pages
from folds.utils.text import sort_classes


@dataclass(frozen=True)
class MarginalRun(RunPredictions):
    """A run of the label as a run of one attribute: P(value) is the sum over the classes with this value.

    A fold model votes for the value with the largest sum, which can differ from the value of its most probable class. A
    hard label votes for the value of its class.
    """

    inner: RunPredictions | None = None
    grouping: Grouping | None = None

    def models(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return (stop − start,) the number of fold models with a prediction for each row."""
        return self._inner[0].models(start, stop)

    def present(self, start: int, stop: int) -> Present | None:
        """Return (stop − start,) whether the run has each row; None if it has all."""
        return self._inner[0].present(start, stop)

    def raw_block(self, start: int, stop: int) -> None:
        """Return None: the probabilities are computed."""

    def probabilities(self, start: int, stop: int) -> NDArray[np.float64]:
        """Return (stop − start, values) the sums over the classes with each value."""
        inner, grouping = self._inner
        return grouping.sums(inner.probabilities(start, stop))

    def votes(self, start: int, stop: int, grouping: Grouping | None = None) -> NDArray[np.float64]:
        """Return (stop − start, values) the share of fold models that vote for each value."""
        inner, own_grouping = self._inner
        return inner.votes(start, stop, own_grouping)

    def take(self, index: NDArray[np.int64], length: int) -> MarginalRun:
        """Return the run restricted to the rows `index` of `length`."""
        return replace(self, inner=self._inner[0].take(index, length))

    @property
    def _inner(self) -> tuple[RunPredictions, Grouping]:
        assert self.inner is not None  # noqa: S101
        assert self.grouping is not None  # noqa: S101
        return self.inner, self.grouping


def marginal_splits(split: AlignedSplit) -> dict[str, tuple[AlignedSplit, Grouping]]:
    """Return attribute → the split with the attribute's values as classes, and the grouping of classes by value.

    Raises
    ------
    UsageError : the attributes of the classes are unknown, or two classes have the same value of every attribute.
    """
    class_attributes = split.class_attributes
    attributes = [
        name
        for name in next(iter(class_attributes.values()), {})
        if all(name in class_attributes.get(one, {}) for one in split.classes)
    ]
    if not attributes:
        without = next((name for name in split.classes if name not in class_attributes), split.classes[0])
        raise UsageError(
            f"`by=attribute`: no file has class_attributes for all classes, e.g. for '{without}' of {split.target}",
            hint="add class_attributes to a sidecar, or leave `by` out to vote by class",
        )
    seen: dict[tuple[str, ...], str] = {}
    for name in split.classes:
        duplicate = seen.setdefault(tuple(class_attributes[name][attribute] for attribute in attributes), name)
        if duplicate != name:
            raise UsageError(
                f"`by=attribute`: classes '{duplicate}' and '{name}' have the same {', '.join(attributes)}",
                hint="leave `by` out to vote by class",
            )
    return {name: _marginal(split, name) for name in attributes}


def _marginal(split: AlignedSplit, attribute: str) -> tuple[AlignedSplit, Grouping]:
    values = sort_classes([split.class_attributes[name][attribute] for name in split.classes])
    grouping = Grouping(
        np.array([values.index(split.class_attributes[name][attribute]) for name in split.classes]), len(values)
    )
    runs = tuple(
        MarginalRun(run.name, run.parts, len(values), run.folds, run.rows, inner=run, grouping=grouping)
        for run in split.runs
    )
    return replace(split, classes=values, runs=runs, target=attribute, class_attributes={}), grouping


def join_marginals(votes: Mapping[str, NDArray[np.float32]], groupings: Mapping[str, Grouping]) -> NDArray[np.float32]:
    """Return (n, classes) the normalized product of the probabilities of each class's values.

    Rows where every product is 0 are 0. If one class has the winning value of every attribute, its product is the
    largest.
    """
    first = next(iter(groupings))
    joined = allocate_result((len(votes[first]), len(groupings[first].value)))
    for part in row_blocks(*joined.shape, max_numbers=1 << 18):
        block = np.ones((part.stop - part.start, joined.shape[1]))
        for attribute, grouping in groupings.items():
            block *= votes[attribute][part][:, grouping.value]
        total = block.sum(axis=1, keepdims=True)
        joined[part] = block / np.where(total > 0, total, 1)
        release_pages(joined)
    return joined
