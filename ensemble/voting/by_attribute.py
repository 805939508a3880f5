"""A vote on each attribute of the class (mask, gender, age) by itself, and the class that follows; numpy only."""

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
    """A run that predicts classes, as one that predicts an attribute: P(value) is the sum over the classes that have
    it.

    A fold model's vote goes to the value with the largest sum, which need not be that of its most probable class; a
    hard
    label's to the value of its class.
    """

    inner: RunPredictions | None = None
    grouping: Grouping | None = None

    def models(self, start: int, stop: int) -> NDArray[np.int64]:
        """(stop − start,) how many of its fold models have predicted the row."""
        return self._inner[0].models(start, stop)

    def present(self, start: int, stop: int) -> Present | None:
        """(stop − start,) whether the run has the row; None where that is so of all."""
        return self._inner[0].present(start, stop)

    def raw_block(self, start: int, stop: int) -> None:
        """None: its probabilities are computed."""

    def probabilities(self, start: int, stop: int) -> NDArray[np.float64]:
        """(stop − start, values) sums over the classes that have each value."""
        inner, grouping = self._inner
        return grouping.sums(inner.probabilities(start, stop))

    def votes(self, start: int, stop: int, grouping: Grouping | None = None) -> NDArray[np.float64]:
        """(stop − start, values) the share of its fold models that vote for each value."""
        inner, own = self._inner
        return inner.votes(start, stop, own)

    def take(self, index: NDArray[np.int64], length: int) -> MarginalRun:
        """The run on the rows `index` of `length`."""
        return replace(self, inner=self._inner[0].take(index, length))

    @property
    def _inner(self) -> tuple[RunPredictions, Grouping]:
        assert self.inner is not None  # noqa: S101
        assert self.grouping is not None  # noqa: S101
        return self.inner, self.grouping


def marginal_splits(split: AlignedSplit) -> dict[str, tuple[AlignedSplit, Grouping]]:
    """attribute → the split whose classes are its values, and the value that each class has.

    Raises
    ------
    UsageError : it is not known what the classes are in attributes, or two classes are the same in all of them.
    """
    meaning = split.class_attributes
    attributes = [
        name for name in next(iter(meaning.values()), {}) if all(name in meaning.get(one, {}) for one in split.classes)
    ]
    if not attributes:
        without = next((name for name in split.classes if name not in meaning), split.classes[0])
        raise UsageError(
            f"`by=attribute`: no file says what the classes are in attributes, e.g. class '{without}' of "
            f"{split.target}",
            hint="sidecars tell it in class_attributes; leave `by` out to vote by class",
        )
    seen: dict[tuple[str, ...], str] = {}
    for name in split.classes:
        twin = seen.setdefault(tuple(meaning[name][attribute] for attribute in attributes), name)
        if twin != name:
            raise UsageError(
                f"`by=attribute`: classes '{twin}' and '{name}' are the same in {', '.join(attributes)}",
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
    """(n, classes) the product of what the values of each class have, normalised; all 0 in rows where every product is
    0.

    The class whose values have all won has the largest product. Where there is no such class, the largest product among
    the classes that there are decides.
    """
    first = next(iter(groupings))
    joined = allocate_result((len(votes[first]), len(groupings[first].value)))
    for part in row_blocks(*joined.shape, numbers=1 << 18):
        block = np.ones((part.stop - part.start, joined.shape[1]))
        for attribute, grouping in groupings.items():
            block *= votes[attribute][part][:, grouping.value]
        total = block.sum(axis=1, keepdims=True)
        joined[part] = block / np.where(total > 0, total, 1)
        release_pages(joined)
    return joined
