"""Choosing among methods of combining, with the choice itself inside the nest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.combination import Combination, Fitter, combine
from ensemble.learning.nested import NestedResult, nested_cv
from ensemble.learning.stack import Stack
from folds.metrics.classification import Metric
from folds.metrics.intervals import difference_over_people
from folds.utils.parallel import cpu_count
from folds.utils.progress import Advance

PLAIN = "soft"
# Soft voting is taken where the best is not better by this many standard errors of their difference.
STANDARD_ERRORS = 0.5
_COPIES = 12  # of the predictions that one fit may hold
_MOST_BYTES = 8 * 2**30


@dataclass(frozen=True)
class Choice:
    """What was chosen among several fitters.

    Attributes
    ----------
    results : name → its nested result, in the order given.
    chosen : the name.
    best : the name with the best nested score; another than `chosen` where soft voting is as good.
    nested : what the whole procedure is worth: on each part, of what was chosen and fitted without it.
    by_part : the names that were chosen without each part.
    """

    results: Mapping[str, NestedResult]
    chosen: str
    best: str
    nested: NestedResult
    by_part: tuple[str, ...]


def choose(
    stack: Stack, fitters: Sequence[Fitter], metric: Metric, seed: int = 0, progress: Advance = lambda done, of: None
) -> Choice:
    """Try all fitters, take the one with the best nested score, or soft voting where that is as good.

    For the honest score of the choice, every part is left out in turn and the choice is made again on the rest, by
    scores that are
    nested in there. What is fitted without two parts serves both, so k parts take k(k−1)/2 + k + 1 fits of each fitter.

    Parameters
    ----------
    fitters : soft voting among them.
    progress : called with fits done and fits in all.
    """
    parts = np.unique(stack.outer_folds)
    if len(parts) < 3:
        raise ValueError("a choice inside the nest needs at least three parts")
    fitted = _fit_all(stack, fitters, metric, seed, progress)
    tried = {fitter.name: _nested_twice(stack, fitter, metric, seed, fitted) for fitter in fitters}
    results = {name: found for name, (found, _) in tried.items()}
    outside = {name: found.out_of_sample for name, found in results.items()}
    chosen, best = _pick(stack, np.arange(len(stack)), outside, metric)
    choices, by_part, combinations_of_parts = np.empty_like(outside[chosen]), [], []
    for outer, part in enumerate(parts):
        inside = np.flatnonzero(stack.outer_folds == part)
        rest = np.flatnonzero(stack.outer_folds != part)
        by_part.append(_pick(stack, rest, {name: inner[outer] for name, (_, inner) in tried.items()}, metric)[0])
        winner = results[by_part[-1]]
        choices[inside] = winner.out_of_sample[inside]
        combinations_of_parts.append(winner.parts[outer] if winner.parts else winner.combination)
    final = results[chosen]
    whole = NestedResult(
        Fitter("auto", f"chosen: {final.fitter.title}", final.fitter.fit),
        final.combination,
        final.in_sample,
        choices,
        tuple(combinations_of_parts),
    )
    return Choice(results, chosen, best, whole, tuple(by_part))


# (fitter's name, the parts it was fitted without, by index) → what it found.
Fitted = Mapping[tuple[str, tuple[int, ...]], Combination]


def _fit_all(stack: Stack, fitters: Sequence[Fitter], metric: Metric, seed: int, progress: Advance) -> Fitted:
    """Fit each fitter on all parts, without each one and without each two, on all cores."""
    parts = np.unique(stack.outer_folds)
    tasks = [
        (fitter, without)
        for fitter in fitters
        if fitter.is_fitted
        for size in range(3)
        for without in combinations(range(len(parts)), size)
    ]

    def fit(task: tuple[Fitter, tuple[int, ...]]) -> Combination:
        fitter, without = task
        rest = stack if not without else stack.take(np.flatnonzero(~np.isin(stack.outer_folds, parts[list(without)])))
        return fitter.fit(rest, metric, seed)

    fitted: dict[tuple[str, tuple[int, ...]], Combination] = {}
    progress(0, len(tasks))
    with ThreadPoolExecutor(_at_once(stack)) as pool:
        for done, ((fitter, without), found) in enumerate(zip(tasks, pool.map(fit, tasks), strict=True), start=1):
            fitted[fitter.name, without] = found
            progress(done, len(tasks))
    return fitted


def _nested_twice(
    stack: Stack, fitter: Fitter, metric: Metric, seed: int, fitted: Fitted
) -> tuple[NestedResult, list[NDArray[np.float32]]]:
    """Return a fitter's nested result and, for each part, its predictions of the other parts, each by what was fitted
    without both.
    """
    parts = np.unique(stack.outer_folds)
    if not fitter.is_fitted:
        found = nested_cv(stack, fitter, metric, seed)
        return found, [found.out_of_sample] * len(parts)
    name = fitter.name
    in_sample = combine(stack, fitted[name, ()])
    out_of_sample = np.empty_like(in_sample)
    inner = [np.zeros_like(in_sample) for _ in parts]
    for a, part in enumerate(parts):
        rows = np.flatnonzero(stack.outer_folds == part)
        held_out = stack.take(rows)
        out_of_sample[rows] = combine(held_out, fitted[name, (a,)])
        for b in range(len(parts)):
            if b != a:
                inner[b][rows] = combine(held_out, fitted[name, (min(a, b), max(a, b))])
    of_parts = tuple(fitted[name, (a,)] for a in range(len(parts)))
    return NestedResult(fitter, fitted[name, ()], in_sample, out_of_sample, of_parts), inner


def _at_once(stack: Stack) -> int:
    """How many fits: as many as there are cores, and as memory holds. numpy leaves Python's lock while it works on
    large arrays.
    """
    held = _COPIES * stack.probabilities.nbytes
    return max(1, min(cpu_count(), _MOST_BYTES // held))


def _pick(
    stack: Stack, rows: NDArray[np.int64], predicted: Mapping[str, NDArray[np.float32]], metric: Metric
) -> tuple[str, str]:
    """The name to take and the name with the best score on `rows`."""
    labels = stack.labels[rows]
    scores = {
        name: metric(labels, values[rows]) * (1 if metric.greater_is_better else -1)
        for name, values in predicted.items()
    }
    best = max(scores, key=lambda name: (scores[name], name == PLAIN))
    if best == PLAIN or PLAIN not in scores:
        return best, best
    gained = difference_over_people(
        metric, labels, predicted[PLAIN][rows], predicted[best][rows], stack.persons[rows]
    ).difference
    assert gained.standard_error is not None  # noqa: S101 - every difference over people has one
    return (PLAIN if abs(gained.value) <= STANDARD_ERRORS * gained.standard_error else best), best
