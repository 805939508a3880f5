"""Resample people: leave each person out (jackknife), or draw people with replacement (bootstrap)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError
from folds.metrics.classification import Metric
from folds.metrics.columns import mean_of_known
from folds.metrics.confusion import Labels, Probabilities, argmax_classes
from folds.metrics.grouping import confusion_counts_by_group
from folds.metrics.ranking import area_without_each
from folds.utils.numeric import factorize

# More people are divided into this number of groups; it gives the standard error a relative precision of about 2%.
MAX_GROUPS = 4096


def jackknife_groups(persons: NDArray) -> tuple[NDArray[np.int64], int, int]:
    """Return (n,) the jackknife unit of each row, the number of units and of people; independent of the order of the
    rows.
    """
    distinct, codes = factorize(persons)
    people = len(distinct)
    if people <= MAX_GROUPS:
        return codes, people, people
    return np.random.default_rng(0).permutation(people)[codes] % MAX_GROUPS, MAX_GROUPS, people


def leave_one_group_out(
    metric: Metric,
    labels: NDArray,
    probabilities: Probabilities,
    codes: NDArray[np.int64],
    units: int,
    predicted: Labels | None = None,
) -> NDArray[np.float64]:
    """Return (units,) the score of all rows except those of each unit; not for a function of the user.

    Of several labels or numbers, labels and probabilities are (n, columns).

    Parameters
    ----------
    predicted : (n,) `argmax_classes` of the probabilities, if the caller has computed it already.
    """
    if np.ndim(labels) == 2:
        return metric.column_score().without_each(np.asarray(labels, np.float64), probabilities, codes, units)
    metric.check_classes()
    if metric.from_counts is not None:
        predicted = argmax_classes(probabilities) if predicted is None else predicted
        return metric.from_counts(
            leave_one_group_out_counts(labels, predicted, np.shape(probabilities)[1], codes, units)
        )
    if metric.per_row is not None:
        values = metric.per_row(labels, probabilities)
        rest = len(labels) - np.bincount(codes, minlength=units)
        return (values.sum() - np.bincount(codes, values, units)) / np.maximum(rest, 1)
    if metric.row_sums is not None and metric.of_sums is not None:
        rows = metric.row_sums(labels, probabilities)
        sums = np.stack([np.bincount(codes, column, units) for column in rows.T], axis=1)
        return metric.of_sums(rows.sum(axis=0) - sums)
    if metric.ranking is not None:
        return mean_of_known(metric.ranking.of_classes_without_each(labels, probabilities, codes, units))
    return mean_of_known(leave_one_group_out_roc_auc(labels, probabilities, codes, units))


def leave_one_group_out_counts(
    labels: Labels, predicted: Labels, classes: int, codes: NDArray[np.int64], units: int
) -> NDArray[np.int64]:
    """Return (units, 3, classes): `folds.metrics.confusion.confusion_counts` of all rows except those of each
    unit.
    """
    counts = confusion_counts_by_group(labels, predicted, classes, codes, units)
    return counts.sum(axis=0) - counts


def leave_one_group_out_roc_auc(
    labels: Labels, probabilities: Probabilities, codes: NDArray[np.int64], units: int
) -> NDArray[np.float64]:
    """Return (units, classes): `folds.metrics.row_scores.roc_auc_per_class` of all rows except each unit's."""
    columns = np.asarray(probabilities).T
    return np.stack([area_without_each(labels == one, column, codes, units) for one, column in enumerate(columns)], 1)


N_RESAMPLES = 2000
MIN_ADVISED = 200  # below this, the ends of an interval are imprecise and a warning is given
MIN_RESAMPLES = 20
TIME_LIMIT_SECONDS = 30.0


def bootstrap_scores(
    score: Callable[[Labels, Probabilities], float],
    labels: Labels,
    probabilities: Sequence[Probabilities],
    codes: NDArray[np.int64],
    units: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[NDArray[np.float64], str]:
    """Return (resamples, len(probabilities)) the scores of resampled units, and a warning if there are few or some
    fail.

    The first resample is timed: the number is limited to half a minute, but is at least `MIN_RESAMPLES`. A resample
    that cannot be scored (a class may be missing) is skipped.

    Parameters
    ----------
    probabilities : each (n, classes); all are scored on the same resamples.
    codes : (n,) the unit of each row.

    Raises
    ------
    EnsembleError : hardly any resample can be scored.
    """
    rng = np.random.default_rng(0)
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=units))
    rows_of = np.split(order, ends[:-1])
    found: list[list[float]] = []
    wanted, failed = N_RESAMPLES, 0
    started = clock()
    while len(found) + failed < wanted:
        rows = np.concatenate([rows_of[unit] for unit in rng.integers(0, units, units)])
        try:
            found.append([score(labels[rows], values[rows]) for values in probabilities])
        except EnsembleError as error:
            failed, last = failed + 1, error
        if len(found) + failed == 1:
            wanted = int(min(N_RESAMPLES, max(MIN_RESAMPLES, TIME_LIMIT_SECONDS / max(clock() - started, 1e-9))))
    if len(found) < MIN_RESAMPLES // 2:
        raise EnsembleError(
            f"{failed:,} of {wanted:,} resamples of people could not be scored: {last.message}", hint=last.hint
        ) from last
    messages = (
        [f"the metric is slow: only {wanted:,} resamples of people, {MIN_ADVISED} or more are advised"]
        if wanted < MIN_ADVISED
        else []
    )
    messages += [f"{failed:,} of {wanted:,} resamples of people could not be scored and are skipped"] if failed else []
    return np.array(found), "; ".join(messages)
