"""What a fitted combination is really worth: fitted on all people but some, scored on those."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.combination import Combination, Fitter, combine
from ensemble.learning.stack import Stack
from folds.metrics.classification import Metric
from folds.metrics.intervals import Difference, difference_over_people
from folds.utils.files import derive_seed
from folds.utils.numeric import groups_in_several_folds
from folds.utils.progress import Advance

NESTS = 5
FEWEST = 3  # a choice inside the nest leaves out two


@dataclass(frozen=True)
class NestedResult:
    """A fitter on one stack.

    Attributes
    ----------
    combination : fitted on all samples: what is applied to new ones.
    claimed : (n, classes) its predictions of the samples it was fitted on; their score flatters it.
    honest : (n, classes) of each part, by what was fitted on the others; equal to `claimed` where nothing is learnt.
    parts : what was fitted without each part, in order; () where nothing is learnt.
    """

    fitter: Fitter
    combination: Combination
    in_sample: NDArray[np.float32]
    out_of_sample: NDArray[np.float32]
    parts: tuple[Combination, ...]

    def optimism(self, labels: NDArray[np.int64], metric: Metric) -> float:
        """What the score on the samples it was fitted on has too much; positive when it flatters, whichever way the
        metric goes.
        """
        gained = metric(labels, self.in_sample) - metric(labels, self.out_of_sample)
        return gained if metric.greater_is_better else -gained


def outer_fold_ids(
    persons: NDArray[np.int64], labels: NDArray[np.int64], fold: NDArray[np.int64] | None, count: int = NESTS
) -> NDArray[np.int64]:
    """(n,) the part of each sample, whole people in each: the folds that the members agree on, else people dealt out by
    class.

    Fewer than `FEWEST` folds are dealt again, and so are folds that a person stands in two of.

    Parameters
    ----------
    persons : (n,) a number for each person.
    labels : (n,) class indices; −1 where not known.
    fold : (n,) of each sample, −1 where it is not known; None where the members disagree.
    count : parts that people are dealt to where there are no folds.
    """
    if (
        fold is not None
        and (fold >= 0).all()
        and len(np.unique(fold)) >= FEWEST
        and not len(groups_in_several_folds(persons, fold))
    ):
        return np.unique(fold, return_inverse=True)[1]
    people = int(persons.max()) + 1
    # Each person's most frequent class; those of one class are dealt in turn, in an order that is drawn.
    tallies = np.zeros((people, int(max(labels.max(), 0)) + 1))
    np.add.at(tallies, (persons, np.maximum(labels, 0)), labels >= 0)
    order = np.random.default_rng(derive_seed(0, "nests")).permutation(people)
    order = order[np.argsort(tallies.argmax(axis=1)[order], kind="stable")]
    dealt = np.empty(people, np.int64)
    dealt[order] = np.arange(people) % min(count, people)
    return dealt[persons]


def held_out(stack: Stack) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(rows of a part, all others) for each part of a stack: what a fitter chooses its own strength by.

    Where there is one part only, its people are dealt out anew; [] where there is one person only.
    """
    parts = stack.outer_folds
    if len(np.unique(parts)) < 2:
        parts = outer_fold_ids(np.unique(stack.persons, return_inverse=True)[1], stack.labels, None)
    found = np.unique(parts)
    return [(np.flatnonzero(parts == part), np.flatnonzero(parts != part)) for part in found] if len(found) > 1 else []


def nested_cv(
    stack: Stack, fitter: Fitter, metric: Metric, seed: int = 0, progress: Advance = lambda done, of: None
) -> NestedResult:
    """Fit on everything, and once without each part.

    Raises
    ------
    ValueError : there are fewer than two parts, and something is to be learnt.
    """
    whole = fitter.fit(stack, metric, seed)
    claimed = combine(stack, whole)
    if not fitter.is_fitted:
        return NestedResult(fitter, whole, claimed, claimed, ())
    parts = np.unique(stack.outer_folds)
    if len(parts) < 2:
        raise ValueError("a nested score needs at least two parts")
    honest, fitted = np.empty_like(claimed), []
    for done, part in enumerate(parts):
        progress(done, len(parts))
        inside, outside = np.flatnonzero(stack.outer_folds == part), np.flatnonzero(stack.outer_folds != part)
        fitted.append(fitter.fit(stack.take(outside), metric, seed))
        honest[inside] = combine(stack.take(inside), fitted[-1])
    progress(len(parts), len(parts))
    return NestedResult(fitter, whole, claimed, honest, tuple(fitted))


def gain(stack: Stack, metric: Metric, over: NestedResult, of: NestedResult) -> Difference:
    """What the honest predictions `of` one have more than those `over` which it is compared, paired over people."""
    return difference_over_people(metric, stack.labels, over.out_of_sample, of.out_of_sample, stack.persons)


def weight_instability(parts: Sequence[Combination]) -> float:
    """How far the shares of the vote move when other people are left out: half the mean absolute difference between two
    parts, 0 to 1.
    """
    shares = np.array([part.shares for part in parts])
    pairs = [(i, j) for i in range(len(shares)) for j in range(i)]
    return float(np.mean([np.abs(shares[i] - shares[j]).sum() / 2 for i, j in pairs])) if pairs else 0.0
