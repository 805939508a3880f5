"""Rank means keep the order of mean ranks within a class and the mean probability of the class."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from ensemble.voting import vote as voting
from ensemble.voting.pooling import rank_column
from ensemble.voting.vote import vote
from tests.ensemble.small_runs import draw, probability_run, split_of


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 40), runs=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_rank_mean_has_the_mean_ranks_order_and_mean_quantiles(n: int, runs: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, weights = rng.integers(0, 6, (runs, n)) / 7, rng.integers(1, 4, runs)
    share = weights / weights.sum()
    ranks = sum(weight * rankdata(mine) for weight, mine in zip(share, values))
    level = sum(weight * np.sort(mine) for weight, mine in zip(share, values))
    expected = np.interp(ranks, np.arange(1, n + 1), level)
    np.testing.assert_allclose(rank_column(values, np.repeat(share[:, None], n, 1)), expected, atol=1e-9)


def test_ranks_ignore_sharpness_and_absent_rows() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(50), rng.random(50)
    weights = np.full((2, 50), 0.5)
    plain, sharp = rank_column(np.stack([a, b]), weights), rank_column(np.stack([a, b**9 / 3]), weights)
    assert np.array_equal(rankdata(plain), rankdata(sharp)), "a monotone change of one run moves no sample past another"
    assert np.array_equal(rank_column(np.stack([a, np.zeros(50)]), np.stack([np.ones(50), np.zeros(50)])), a)
    partly = np.where(np.arange(50) < 10, 0, 0.5)
    result = rank_column(np.stack([a, b]), np.stack([1 - partly, partly]))
    places = np.where(np.arange(50) < 10, rankdata(a) / 50 - 0.01, 0)
    places[10:] = ((rankdata(a) - 0.5) / 50)[10:] / 2 + (rankdata(b[10:]) - 0.5) / 40 / 2
    assert np.array_equal(np.argsort(places, kind="stable"), np.argsort(result, kind="stable"))


def test_rare_classes_stay_rare_and_rows_sum_to_one() -> None:
    rng = np.random.default_rng(0)
    runs = [probability_run(f"r{i}", rng.dirichlet([8, 1, 0.2], 500)) for i in range(3)]
    result, mean = vote(split_of(*runs, n=500), "rank").probabilities, vote(split_of(*runs, n=500)).probabilities
    np.testing.assert_allclose(result.sum(1), 1, atol=1e-6)
    assert abs(np.bincount(result.argmax(1), minlength=3) - np.bincount(mean.argmax(1), minlength=3)).max() < 25


def test_rank_means_by_column_equal_those_of_all_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [probability_run(f"r{i}", draw(300, 5, i)) for i in range(3)]
    whole = vote(split_of(*runs, n=300), "rank", {"r0": 0.5, "r1": 0.5, "r2": 1}).probabilities
    monkeypatch.setattr(voting, "_WHOLE_COLUMNS", 1)
    monkeypatch.setattr("ensemble.voting.blocks.NUMBERS_AT_ONCE", 1)
    assert np.array_equal(vote(split_of(*runs, n=300), "rank", {"r0": 0.5, "r1": 0.5, "r2": 1}).probabilities, whole)


def test_rank_mean_of_one_run_and_of_empty_rows() -> None:
    values = np.random.default_rng(0).dirichlet(np.ones(4), 99).astype(np.float32)
    assert np.array_equal(vote(split_of(probability_run("a", values), n=99), "rank").probabilities, values)
    certain = [probability_run(f"r{i}", np.roll(np.eye(6), i, 1)) for i in range(5)]
    result = vote(split_of(*certain, n=6), "rank").probabilities
    np.testing.assert_allclose(result.sum(1), 1, atol=1e-6)
