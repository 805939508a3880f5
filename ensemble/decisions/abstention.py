"""Leave images unanswered whose confidence is too low, and compute risk–coverage curves over people; numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.decisions.evidence import lowest_threshold, sums_from_the_top
from ensemble.decisions.rows import person_shares, share_interval, weights_of
from folds.metrics.intervals import LEVEL, Interval, jackknife_standard_error, t_interval

NEVER = 2.0  # a confidence that no image reaches: nothing is answered
COVERAGES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
_GROUPS = 200  # parts that the people are divided into for the standard error of the area


@dataclass(frozen=True)
class CurvePoint:
    """The images with a confidence of at least `threshold`: their share (coverage), and the share of wrong ones (risk).

    The coverage is that of a random image of a random person; the risk is the mean, over the people with such images,
    of the share of wrong ones, which `abstain` limits.
    """

    coverage: float
    threshold: float
    risk: Interval
    images: int


def confidence_of(probabilities: NDArray[np.float64], decided: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (n,) the probability of the decided class; of the most probable one where there is no answer."""
    chosen = np.where(decided >= 0, decided, probabilities.argmax(axis=1))
    return np.take_along_axis(probabilities, chosen[:, None], axis=1)[:, 0]


def fit_abstention(
    confidence: NDArray[np.float64],
    wrong: NDArray[np.bool_],
    answered: NDArray[np.bool_],
    persons: NDArray[np.int64],
    draw: NDArray[np.float64],
    limit: float,
    error: float,
) -> float | None:
    """Return the lowest confidence from which on at most the share `limit` of a new person's answers is wrong.

    Parameters
    ----------
    confidence, wrong, answered, persons : (n,); rows without an answer do not count.
    draw : (n,) uniform random numbers.
    error : as in `ensemble.decisions.evidence.lowest_threshold`.

    Returns
    -------
    None if no confidence is shown to keep the limit.
    """
    return lowest_threshold(confidence[answered], wrong[answered], persons[answered], draw[answered], limit, error)


def risk_coverage(
    confidence: NDArray[np.float64], wrong: NDArray[np.bool_], persons: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the distinct confidences, descending, and the coverage and risk of answering from each one on.

    The risk is the probability that an answered image of a random person is wrong (El-Yaniv and Wiener, JMLR 2010, with
    people that count equally).
    """
    weights = weights_of(persons)
    values, whole, part = sums_from_the_top(confidence, weights, weights * wrong)
    return values, whole / weights.sum(), np.clip(part / whole, 0, 1)


def area(coverage: NDArray[np.float64], risk: NDArray[np.float64]) -> float:
    """Return the area under a risk–coverage curve (AURC; Geifman, Uziel and El-Yaniv, ICLR 2019): the mean risk over
    all coverages.
    """
    return float(np.sum(np.diff(coverage, prepend=0.0) * risk))


def area_interval(confidence: NDArray[np.float64], wrong: NDArray[np.bool_], persons: NDArray[np.int64]) -> Interval:
    """Return the area under the risk–coverage curve with its confidence interval over people."""
    value = area(*risk_coverage(confidence, wrong, persons)[1:])
    people = int(persons.max()) + 1
    if people < 2:
        return Interval(value, np.nan, np.nan, LEVEL, people, "only one person: no confidence interval can be computed")
    order = np.random.default_rng(0).permutation(people)
    group = (order % min(people, _GROUPS))[persons]
    groups = min(people, _GROUPS)
    # A person's weight does not depend on others, so the rows are sorted only once.
    values, codes = np.unique(-confidence, return_inverse=True)
    weights, left_out = weights_of(persons), []
    for one in range(groups):
        kept = np.where(group != one, weights, 0.0)
        whole, part = (np.cumsum(np.bincount(codes, sums, len(values))) for sums in (kept, kept * wrong))
        risk = np.divide(part, whole, out=np.zeros(len(values)), where=whole > 0)
        left_out.append(area(whole / whole[-1], np.clip(risk, 0, 1)))
    error = float(jackknife_standard_error(np.array(left_out), value))
    low, high = (float(end) for end in t_interval(value, np.array(error), groups - 1, people, LEVEL, 0, 1))
    return Interval(value, low, high, LEVEL, people, "", error)


def curve(
    confidence: NDArray[np.float64],
    wrong: NDArray[np.bool_],
    persons: NDArray[np.int64],
    coverages: Sequence[float] = COVERAGES,
) -> tuple[CurvePoint, ...]:
    """Return points of the risk–coverage curve: for each coverage the lowest confidence that answers at most so much.

    Coverages that would be the same point, because images have equal confidences, are returned once.
    """
    values, reached, _ = risk_coverage(confidence, wrong, persons)
    people = int(persons.max()) + 1
    found: dict[float, CurvePoint] = {}
    for wanted in coverages:
        at = int(np.searchsorted(reached, wanted + 1e-9, side="right")) - 1
        if at < 0 or float(values[at]) in found:
            continue
        rows = confidence >= values[at]
        risk = share_interval(*person_shares(wrong, rows, persons, people))
        found[float(values[at])] = CurvePoint(float(reached[at]), float(values[at]), risk, int(rows.sum()))
    return tuple(found.values())
