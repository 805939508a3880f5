"""Choose among methods of combining, with the choice itself inside the nested cross-validation."""

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
# Soft voting is chosen unless the best method is better by more than this many standard errors of the difference.
STANDARD_ERRORS = 0.5
_COPIES = 12  # copies of the predictions in memory during one fit
_MOST_BYTES = 8 * 2**30


@dataclass(frozen=True)
class Choice:
    """The choice among several fitters.

    Attributes
    ----------
    results : name → its nested result, in the given order.
    chosen : name of the chosen fitter.
    best : name of the fitter with the best nested score; differs from `chosen` if soft voting is about as good.
    nested : nested result of the complete procedure: each part is predicted by what was chosen and fitted without it.
    by_part : the name that was chosen without each part.
    """

    results: Mapping[str, NestedResult]
    chosen: str
    best: str
    nested: NestedResult
    by_part: tuple[str, ...]


def choose(
    stack: Stack,
    fitters: Sequence[Fitter],
    metric: Metric,
    seed: int = 0,
    progress: Advance = lambda done, of: None,
    plain: str = PLAIN,
) -> Choice:
    """Return the fitter with the best nested score, or soft voting if about as good, and the score of this choice.

    For an unbiased score of the choice, each part is left out in turn and the choice is repeated on the other parts, by
    nested scores within these. A fit without two parts serves both, so k parts need k(k−1)/2 + k + 1 fits of each
    fitter.

    Parameters
    ----------
    fitters : must include soft voting, or `plain`.
    progress : called with the number of completed fits and of all fits.
    plain : name of the fitter that is chosen if the best one is about as good.

    Raises
    ------
    ValueError : there are fewer than three parts.
    """
    parts = np.unique(stack.outer_folds)
    if len(parts) < 3:
        raise ValueError(f"a nested choice needs at least three parts, found {len(parts)}")
    fitted = _fit_all(stack, fitters, metric, seed, progress)
    nested_results = {fitter.name: _nested_twice(stack, fitter, metric, seed, fitted) for fitter in fitters}
    results = {name: found for name, (found, _) in nested_results.items()}
    out_of_sample = {name: found.out_of_sample for name, found in results.items()}
    chosen, best = _pick(stack, np.arange(len(stack)), out_of_sample, metric, plain)
    choices, by_part, combinations_of_parts = np.empty_like(out_of_sample[chosen]), [], []
    for outer, part in enumerate(parts):
        inside = np.flatnonzero(stack.outer_folds == part)
        rest = np.flatnonzero(stack.outer_folds != part)
        by_part.append(
            _pick(stack, rest, {name: inner[outer] for name, (_, inner) in nested_results.items()}, metric, plain)[0]
        )
        winner = results[by_part[-1]]
        choices[inside] = winner.out_of_sample[inside]
        combinations_of_parts.append(winner.parts[outer] if winner.parts else winner.combination)
    final = results[chosen]
    nested = NestedResult(
        Fitter("auto", f"chosen: {final.fitter.title}", final.fitter.fit),
        final.combination,
        final.in_sample,
        choices,
        tuple(combinations_of_parts),
    )
    return Choice(results, chosen, best, nested, tuple(by_part))


# (name of the fitter, indices of the parts left out) → fitted combination.
Fitted = Mapping[tuple[str, tuple[int, ...]], Combination]


def _fit_all(stack: Stack, fitters: Sequence[Fitter], metric: Metric, seed: int, progress: Advance) -> Fitted:
    """Return the fits of each fitter on all parts, without each part and without each pair of parts; on all cores."""
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
    with ThreadPoolExecutor(fits_at_once(stack)) as pool:
        for done, ((fitter, without), found) in enumerate(zip(tasks, pool.map(fit, tasks), strict=True), start=1):
            fitted[fitter.name, without] = found
            progress(done, len(tasks))
    return fitted


def _nested_twice(
    stack: Stack, fitter: Fitter, metric: Metric, seed: int, fitted: Fitted
) -> tuple[NestedResult, list[NDArray[np.float32]]]:
    """Return a fitter's nested result and, for each part, its predictions of the other parts by fits without both."""
    parts = np.unique(stack.outer_folds)
    if not fitter.is_fitted:
        found = nested_cv(stack, fitter, metric, seed)
        return found, [found.out_of_sample] * len(parts)
    name = fitter.name
    in_sample = combine(stack, fitted[name, ()])
    out_of_sample = np.empty_like(in_sample)
    inner = [np.zeros_like(in_sample) for _ in parts]
    for i, part in enumerate(parts):
        rows = np.flatnonzero(stack.outer_folds == part)
        held_out = stack.take(rows)
        out_of_sample[rows] = combine(held_out, fitted[name, (i,)])
        for j in range(len(parts)):
            if j != i:
                inner[j][rows] = combine(held_out, fitted[name, (min(i, j), max(i, j))])
    part_combinations = tuple(fitted[name, (i,)] for i in range(len(parts)))
    return NestedResult(fitter, fitted[name, ()], in_sample, out_of_sample, part_combinations), inner


def fits_at_once(stack: Stack) -> int:
    """Return the number of parallel fits, limited by cores and memory; numpy releases the interpreter lock in them."""
    held = _COPIES * stack.probabilities.nbytes
    return max(1, min(cpu_count(), _MOST_BYTES // held))


def _pick(
    stack: Stack,
    rows: NDArray[np.int64],
    predicted: Mapping[str, NDArray[np.float32]],
    metric: Metric,
    plain: str = PLAIN,
) -> tuple[str, str]:
    """Return the chosen name and the name with the best score on `rows`."""
    labels = stack.labels[rows]
    scores = {
        name: metric(labels, values[rows]) * (1 if metric.greater_is_better else -1)
        for name, values in predicted.items()
    }
    best = max(scores, key=lambda name: (scores[name], name == plain))
    if best == plain or plain not in scores:
        return best, best
    gained = difference_over_people(
        metric, labels, predicted[plain][rows], predicted[best][rows], stack.persons[rows]
    ).difference
    assert gained.standard_error is not None  # noqa: S101 - set for every difference over people
    return (plain if abs(gained.value) <= STANDARD_ERRORS * gained.standard_error else best), best
