from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from folds.errors import EnsembleError
from folds.metrics.resampling import MIN_ADVISED, MIN_RESAMPLES, N_RESAMPLES, TIME_LIMIT_SECONDS, bootstrap_scores

CODES = np.repeat(np.arange(12), [1, 2, 3] * 4)


def rows_drawn(labels: NDArray, probabilities: NDArray) -> float:
    return float(len(labels) + probabilities.sum() / 1000)


def test_resamples_keep_all_rows_of_a_person_and_are_shared() -> None:
    labels, ones = CODES.copy(), np.ones((len(CODES), 2))
    seen: list[NDArray] = []

    def score(labels: NDArray, probabilities: NDArray) -> float:
        seen.append(np.bincount(labels, minlength=12))
        return rows_drawn(labels, probabilities)

    found, warning = bootstrap_scores(score, labels, [ones, 2 * ones], CODES, 12)
    assert found.shape == (N_RESAMPLES, 2)
    assert warning == ""
    np.testing.assert_array_equal(seen[0::2], seen[1::2])
    times = np.array(seen[0::2]) / np.bincount(CODES)  # how often each person was drawn
    assert (times == times.astype(int)).all()
    assert (times.sum(axis=1) == 12).all()
    assert times.mean(axis=0) == pytest.approx(np.ones(12), abs=0.1)
    assert (times.max(axis=1) > 1).all()
    np.testing.assert_allclose(found[:, 1] - found[:, 0], 2 * np.floor(found[:, 0]) / 1000)


@pytest.mark.parametrize(
    ("seconds", "draws", "warned"),
    [(0.001, N_RESAMPLES, False), (0.1, 300, False), (0.2, 150, True), (60.0, MIN_RESAMPLES, True)],
)
def test_a_slow_metric_gets_fewer_resamples_and_a_warning(seconds: float, draws: int, warned: bool) -> None:
    ticks = itertools.count()
    found, warning = bootstrap_scores(
        rows_drawn, CODES, [np.ones((len(CODES), 2))], CODES, 12, clock=lambda: next(ticks) * seconds
    )
    assert len(found) == draws
    assert draws <= max(MIN_RESAMPLES, TIME_LIMIT_SECONDS / seconds)
    assert (f"only {draws} resamples" in warning) == warned == (draws < MIN_ADVISED)


def test_draws_that_cannot_be_scored_are_left_out_and_counted() -> None:
    def score(labels: NDArray, probabilities: NDArray) -> float:
        if 0 not in labels:
            raise EnsembleError("there is no row of class 0")
        return 1.0

    found, warning = bootstrap_scores(score, CODES, [np.ones((len(CODES), 2))], CODES, 12)
    failed = N_RESAMPLES - len(found)
    assert failed == pytest.approx(N_RESAMPLES * (11 / 12) ** 12, rel=0.15)
    assert warning == f"{failed:,} of 2,000 resamples of people could not be scored and are skipped"

    def never(labels: NDArray, probabilities: NDArray) -> float:
        raise EnsembleError("it wants all of them", hint="give all")

    with pytest.raises(
        EnsembleError, match="2,000 of 2,000 resamples of people could not be scored: it wants all of them"
    ):
        bootstrap_scores(never, CODES, [np.ones((len(CODES), 2))], CODES, 12)
