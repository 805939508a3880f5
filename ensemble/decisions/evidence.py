"""Test on independent people that a share is below a limit, and choose thresholds by such tests; numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from folds.metrics.distributions import beta_cdf

# Thresholds that are tested, descending: fixed in advance, because thresholds chosen from the data would need a
# correction. They are dense where confident models put most images: 1 − 2^(−j/4).
GRID = 1 - 2.0 ** (-np.arange(64, -1, -1) / 4)
# Positions in `GRID` (0.99976, 0.997, 0.984, 0.938, 0.823, 0.646) at which a sequence of tests starts, each with an
# equal part of the error. A start needs people above it who can show the limit, so there are several; each costs
# little, because the number of people that a test needs grows with the logarithm of its part.
_STARTS = (16, 30, 40, 48, 54, 58)


def p_value(wrong: int, people: int, limit: float) -> float:
    """Return the exact p-value of `wrong` of `people` independent cases for the hypothesis that the probability is
    `limit` or more: P(X ≤ wrong) for a binomial X; 1 without people.
    """
    return 1.0 if wrong >= people else 1 - beta_cdf(limit, wrong + 1, people - wrong)


def people_needed(limit: float, error: float) -> int:
    """Return the smallest number of people, all right, that shows a probability of being wrong below `limit`.

    Parameters
    ----------
    error : the accepted probability of a wrong statement: 0.1 for a confidence of 90%.
    """
    return int(np.ceil(np.log(error) / np.log1p(-limit) - 1e-9))


def one_row_each(
    rows: NDArray[np.integer], persons: NDArray[np.int64], draw: NDArray[np.float64]
) -> NDArray[np.integer]:
    """Return one of the given rows for each person who has one: that with the smallest `draw`.

    If the draws are independent and uniform, it is a random row of each person, and rows of different people are
    independent. So shares of these rows have exact binomial tests, whatever the images of a person have in common.

    Parameters
    ----------
    rows : positions of rows.
    persons, draw : (n,) of all rows.
    """
    order = rows[np.argsort(draw[rows], kind="stable")]
    return order[np.unique(persons[order], return_index=True)[1]]


def lowest_threshold(
    scores: NDArray[np.float64],
    wrong: NDArray[np.bool_],
    persons: NDArray[np.int64],
    draw: NDArray[np.float64],
    limit: float,
    error: float,
    least: float = 0.0,
) -> float | None:
    """Return the lowest threshold of `GRID` from which on at most the share `limit` of new people's rows is wrong.

    The share is that of a random one of these rows of a random person who has any. Learn then test (Angelopoulos et
    al., 2021): with a probability of 1 − `error` over the people in the data, the statement holds for the returned
    threshold. Each test uses one random row of each person. The thresholds are tested in descending order from six
    fixed starts; an accepted test passes its part of `error` on to the next one (the fallback procedure of Wiens and
    Dmitrienko, 2005).

    Parameters
    ----------
    scores : (n,) rows from a threshold on are used.
    wrong, persons : (n,).
    draw : (n,) uniform random numbers.
    error : 0 chooses the lowest threshold with a share of at most `limit` in these data, without a guarantee.
    least : the lowest threshold that may be returned. All tests hold at once, so it may follow from other tests.

    Returns
    -------
    None if no threshold is shown to keep the limit.
    """
    if error <= 0:
        return _lowest_observed(scores, wrong, persons, limit, least)
    found, passed_on = None, 0.0
    for at, threshold in enumerate(GRID.tolist()):
        budget = passed_on + (error / len(_STARTS) if at in _STARTS else 0.0)
        if budget <= 0:
            continue
        drawn = one_row_each(np.flatnonzero(scores >= threshold), persons, draw)
        accepted = p_value(int(wrong[drawn].sum()), len(drawn), limit) <= budget
        passed_on = budget if accepted else 0.0
        found = threshold if accepted and threshold >= least else found
    return found


def _lowest_observed(
    scores: NDArray[np.float64],
    wrong: NDArray[np.bool_],
    persons: NDArray[np.int64],
    limit: float,
    least: float = 0.0,
) -> float | None:
    """Return the lowest threshold from `least` on with a mean share, over people with such rows, of at most `limit`."""
    order = np.argsort(-scores, kind="stable")
    codes, bad = np.unique(persons[order], return_inverse=True)[1], wrong[order]
    people = int(codes.max()) + 1 if len(codes) else 0
    counts, wrongs, present, total = np.zeros(people), np.zeros(people), 0, 0.0
    found = None
    values = scores[order]
    for row, (person, is_wrong) in enumerate(zip(codes.tolist(), bad.tolist(), strict=True)):
        before = wrongs[person] / counts[person] if counts[person] else 0.0
        present += not counts[person]
        counts[person] += 1
        wrongs[person] += is_wrong
        total += wrongs[person] / counts[person] - before
        is_last_of_its_value = row + 1 == len(values) or values[row + 1] < values[row]
        if is_last_of_its_value and total <= limit * present + 1e-9 and values[row] >= least:
            found = float(values[row])
    return None if found is None else max(least, below(scores, found))


def sums_from_the_top(scores: NDArray[np.float64], *columns: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Return the distinct scores, descending, and for each column the sum over the rows with at least that score."""
    values, codes = np.unique(-scores, return_inverse=True)
    sums = [np.cumsum(np.bincount(codes, column, len(values))).astype(np.float64) for column in columns]
    return (-values, *sums)


def below(scores: NDArray[np.float64], value: float) -> float:
    """Return the middle between `value` and the next lower of `scores`, so that rounding does not change a decision."""
    lower = scores[scores < value]
    return (value + (float(lower.max()) if len(lower) else 0.0)) / 2


def highest_threshold(
    scores: NDArray[np.float64],
    persons: NDArray[np.int64],
    draw: NDArray[np.float64],
    limit: float,
    error: float,
) -> float | None:
    """Return the highest threshold that at most the share `limit` of a new person's rows is below, on average.

    The share grows with the threshold, so the first threshold that is not shown to keep the limit ends the search, and
    no correction for several tests is needed (Bates et al., J. ACM 2021). The tests use one random row of each person,
    the same for every threshold: the result is a tolerance limit of these rows (Wilks, 1941).

    Parameters
    ----------
    scores, persons : (n,) the rows that should reach the threshold, and their person.
    draw : (n,) uniform random numbers.
    error : as in `lowest_threshold`.

    Returns
    -------
    One of the scores; None if no threshold is shown to keep the limit.
    """
    values = np.unique(scores)
    codes = np.unique(persons, return_inverse=True)[1]
    rows = np.bincount(codes)
    drawn = one_row_each(np.arange(len(scores)), codes, draw)

    def keeps(value: float) -> bool:
        if error > 0:
            return p_value(int((scores[drawn] < value).sum()), len(drawn), limit) <= error
        return float((np.bincount(codes[scores < value], minlength=len(rows)) / rows).mean()) <= limit + 1e-12

    if not len(values) or not keeps(values[0]):
        return None
    low, high = 0, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if keeps(values[middle]) else (low, middle)
    return float(values[low])
