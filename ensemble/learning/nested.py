"""Run nested cross-validation of a fitted combination: each part of the people is predicted by a fit without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.columns.stack import strata_of
from ensemble.learning.combination import Combination, Fitter, combine
from ensemble.learning.stack import Stack
from folds.metrics.classification import Metric
from folds.metrics.intervals import Difference, difference_over_people
from folds.utils.files import derive_seed
from folds.utils.numeric import groups_in_several_folds
from folds.utils.progress import Advance

N_OUTER_FOLDS = 5
MIN_FOLDS = 3  # minimum parts: a nested choice leaves out two


@dataclass(frozen=True)
class NestedResult:
    """The result of nested cross-validation of one fitter on one stack.

    Attributes
    ----------
    combination : fitted on all samples; applied to new samples.
    in_sample : (n, classes) its predictions of the samples it was fitted on; their score is optimistic.
    out_of_sample : (n, classes) predictions of each part by a fit on the other parts; equal to `in_sample` if nothing
        is fitted.
    parts : the fits without each part, in order; () if nothing is fitted.
    """

    fitter: Fitter
    combination: Combination
    in_sample: NDArray[np.float32]
    out_of_sample: NDArray[np.float32]
    parts: tuple[Combination, ...]

    def optimism(self, labels: NDArray[Any], metric: Metric) -> float:
        """Return the in-sample minus the out-of-sample score, with the sign so that positive is too optimistic."""
        gained = metric(labels, self.in_sample) - metric(labels, self.out_of_sample)
        return gained if metric.greater_is_better else -gained


def outer_fold_ids(
    persons: NDArray[np.int64], labels: NDArray[Any], fold: NDArray[np.int64] | None, count: int = N_OUTER_FOLDS
) -> NDArray[np.int64]:
    """Return (n,) the part of each sample; all samples of a person are in the same part.

    The parts are the folds of the members. People are assigned to new parts, stratified by class, if folds are unknown
    or fewer than `MIN_FOLDS`, or if a person is in several folds.

    Parameters
    ----------
    persons : (n,) index of the person of each sample.
    labels : (n,) class indices, −1 if unknown; or (n, columns) labels or numbers, nan if unknown.
    fold : (n,) fold of each sample, −1 if unknown; None if members disagree.
    count : number of new parts.
    """
    if (
        fold is not None
        and (fold >= 0).all()
        and len(np.unique(fold)) >= MIN_FOLDS
        and not len(groups_in_several_folds(persons, fold))
    ):
        return np.unique(fold, return_inverse=True)[1]
    labels = strata_of(labels) if labels.ndim == 2 else labels
    people = int(persons.max()) + 1
    # People are sorted by their most frequent class, in random order within a class, and assigned to the parts in turn.
    label_counts = np.zeros((people, int(max(labels.max(), 0)) + 1))
    np.add.at(label_counts, (persons, np.maximum(labels, 0)), labels >= 0)
    order = np.random.default_rng(derive_seed(0, "nests")).permutation(people)
    order = order[np.argsort(label_counts.argmax(axis=1)[order], kind="stable")]
    assigned = np.empty(people, np.int64)
    assigned[order] = np.arange(people) % min(count, people)
    return assigned[persons]


def held_out(stack: Stack) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return (rows of the part, all other rows) for each part of a stack, to choose hyperparameters within a fit.

    If the stack has only one part, its people are assigned to new parts; [] if it has only one person.
    """
    parts = stack.outer_folds
    if len(np.unique(parts)) < 2:
        parts = outer_fold_ids(np.unique(stack.persons, return_inverse=True)[1], stack.labels, None)
    part_ids = np.unique(parts)
    return (
        [(np.flatnonzero(parts == part), np.flatnonzero(parts != part)) for part in part_ids]
        if len(part_ids) > 1
        else []
    )


def nested_cv(
    stack: Stack, fitter: Fitter, metric: Metric, seed: int = 0, progress: Advance = lambda done, of: None
) -> NestedResult:
    """Return the fits on all samples and without each part, and their predictions.

    Parameters
    ----------
    progress : called with the number of completed fits and of all fits: one on all samples, and one for each part.

    Raises
    ------
    ValueError : there are fewer than two parts, and the fitter fits anything.
    """
    parts = np.unique(stack.outer_folds)
    if fitter.is_fitted and len(parts) < 2:
        raise ValueError(f"a nested score needs at least two parts, found {len(parts)}")
    fits = 1 + len(parts) if fitter.is_fitted else 1
    progress(0, fits)
    combination = fitter.fit(stack, metric, seed)
    in_sample = combine(stack, combination)
    progress(1, fits)
    if not fitter.is_fitted:
        return NestedResult(fitter, combination, in_sample, in_sample, ())
    out_of_sample, fitted = np.empty_like(in_sample), []
    for done, part in enumerate(parts, start=2):
        test_rows, fit_rows = np.flatnonzero(stack.outer_folds == part), np.flatnonzero(stack.outer_folds != part)
        fitted.append(fitter.fit(stack.take(fit_rows), metric, seed))
        out_of_sample[test_rows] = combine(stack.take(test_rows), fitted[-1])
        progress(done, fits)
    return NestedResult(fitter, combination, in_sample, out_of_sample, tuple(fitted))


def gain(stack: Stack, metric: Metric, over: NestedResult, of: NestedResult) -> Difference:
    """Return the difference of the nested scores of `of` minus `over`, paired over people."""
    return difference_over_people(metric, stack.labels, over.out_of_sample, of.out_of_sample, stack.persons)


def weight_instability(parts: Sequence[Combination]) -> float:
    """Return the mean total variation distance between the weights of two parts' fits, from 0 (equal weights) to 1."""
    shares = np.array([part.shares for part in parts])
    pairs = [(i, j) for i in range(len(shares)) for j in range(i)]
    return float(np.mean([np.abs(shares[i] - shares[j]).sum() / 2 for i, j in pairs])) if pairs else 0.0
