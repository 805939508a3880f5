"""Tests of the vote of one run: it is that of `vote`, and a view of the file where the file has these numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ensemble.alignment.split import AlignedFile, AlignedSplit, RunPredictions
from ensemble.members.reading import Member
from ensemble.voting.vote import vote, vote_of_run
from folds.predictions.files import SampleRows


def split_of(values: NDArray, rows: NDArray[np.int64] | None = None) -> AlignedSplit:
    member = Member(Path("a.npy"), "a", values, None, False, None, None, None, "")
    run = RunPredictions("a", (AlignedFile(member, rows),), values.shape[1], rows=len(values))
    return AlignedSplit("oof", SampleRows(np.arange(len(values)).astype(str)), ("x", "y", "z"), (run,))


def probabilities() -> NDArray[np.float32]:
    return np.random.default_rng(0).dirichlet(np.ones(3), 50).astype(np.float32)


@pytest.mark.parametrize(
    ("values", "shared"),
    [
        (probabilities(), True),
        (probabilities().astype(np.float16), False),
        (probabilities().astype(np.float64), False),
        (probabilities().astype(">f4"), False),
        (probabilities() * np.float32(1.0005), False),
        (probabilities() - np.array([1e-7, 0, 0], np.float32) - np.eye(50, 3, dtype=np.float32), False),
    ],
)
def test_one_run_votes_as_in_a_vote(values: NDArray, shared: bool) -> None:
    split = split_of(values)
    alone = vote_of_run(split).probabilities
    assert np.array_equal(alone, vote(split).probabilities)
    assert np.shares_memory(alone, values) == shared


def test_one_run_in_another_order_is_not_a_view() -> None:
    values, order = probabilities(), np.random.default_rng(1).permutation(50)
    assert np.array_equal(vote_of_run(split_of(values, order)).probabilities, values[order])
