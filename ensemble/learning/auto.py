"""Choosing among methods of combining, with the choice itself inside the nest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ensemble.learning.combination import Combination, Fitter, combine
from ensemble.learning.nested import NestedResult, Progress, nested_cv
from ensemble.learning.stack import Stack
from folds.metrics.classification import Metric
from folds.metrics.intervals import difference_over_people
from folds.utils.parallel import usable_cores

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
    stack: Stack, fitters: Sequence[Fitter], metric: Metric, seed: int = 0, progress: Progress = lambda done, of: None
) -> Choice:
    """Try all fitters, take the one with the best nested score, or soft voting where that is as good.

    For the honest score of the choice, every part is left out in turn and the choice is made again on the rest, by scores that are
    nested in there. What is fitted without two parts serves both, so k parts take k(k−1)/2 + k + 1 fits of each fitter.

    Parameters
    ----------
    fitters : soft voting among them.
    progress : called with fits done and fits in all.
    """
    parts = np.unique(stack.outer_folds)
    if len(parts) < 3:
        raise ValueError("a choice inside the nest needs at least three parts")
    index = [np.flatnonzero(stack.outer_folds == part) for part in parts]
    tasks = [
        (fitter, without)
        for fitter in fitters
        if fitter.is_fitted
        for size in range(3)
        for without in combinations(range(len(parts)), size)
    ]
    fitted: dict[tuple[str, tuple[int, ...]], Combination] = {}

    def fit(task: tuple[Fitter, tuple[int, ...]]) -> Combination:
        fitter, without = task
        rest = stack if not without else stack.take(np.flatnonzero(~np.isin(stack.outer_folds, parts[list(without)])))
        return fitter.fit(rest, metric, seed)

    progress(0, len(tasks))
    with ThreadPoolExecutor(_at_once(stack)) as pool:
        for done, ((fitter, without), found) in enumerate(zip(tasks, pool.map(fit, tasks), strict=True), start=1):
            fitted[fitter.name, without] = found
            progress(done, len(tasks))
    results: dict[str, NestedResult] = {}
    # name → part → its predictions on the other parts, each by what was fitted without both
    inner: dict[str, list[NDArray[np.float32]]] = {}
    for fitter in fitters:
        name = fitter.name
        if not fitter.is_fitted:
            results[name] = nested_cv(stack, fitter, metric, seed)
            inner[name] = [results[name].out_of_sample] * len(parts)
            continue
        claimed = combine(stack, fitted[name, ()])
        honest = np.empty_like(claimed)
        inner[name] = [np.zeros_like(claimed) for _ in parts]
        for a, rows in enumerate(index):
            held_out = stack.take(rows)
            honest[rows] = combine(held_out, fitted[name, (a,)])
            for b in range(len(parts)):
                if b != a:
                    inner[name][b][rows] = combine(held_out, fitted[name, (min(a, b), max(a, b))])
        results[name] = NestedResult(
            fitter, fitted[name, ()], claimed, honest, tuple(fitted[name, (a,)] for a in range(len(parts)))
        )
    names = [fitter.name for fitter in fitters]
    everyone = np.arange(len(stack))
    chosen, best = _pick(stack, everyone, {name: results[name].out_of_sample for name in names}, metric)
    choices = np.empty_like(results[chosen].out_of_sample)
    by_part: list[str] = []
    fitted_parts: list[Combination] = []
    for outer in range(len(parts)):
        rest = np.flatnonzero(stack.outer_folds != parts[outer])
        by_part.append(_pick(stack, rest, {name: inner[name][outer] for name in names}, metric)[0])
        winner = results[by_part[-1]]
        choices[index[outer]] = winner.out_of_sample[index[outer]]
        fitted_parts.append(winner.parts[outer] if winner.parts else winner.combination)
    final = results[chosen]
    whole = NestedResult(
        Fitter("auto", f"chosen: {final.fitter.title}", final.fitter.fit),
        final.combination,
        final.in_sample,
        choices,
        tuple(fitted_parts),
    )
    return Choice(results, chosen, best, whole, tuple(by_part))


def _at_once(stack: Stack) -> int:
    """How many fits: as many as there are cores, and as memory holds. numpy leaves Python's lock while it works on large arrays."""
    held = _COPIES * stack.probabilities.nbytes
    return max(1, min(usable_cores(), _MOST_BYTES // held))


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
