from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ensemble.alignment.split import AlignedFile, AlignedSplit, RunPredictions
from ensemble.voting.base import Options
from ensemble.voting.label_columns import VOTES
from ensemble.voting.vote import vote
from folds.predictions.files import SampleRows
from tests.ensemble.small_runs import member, probability_run, split_of

RANDOM = np.random.default_rng(5)
VALUES = RANDOM.random((3, 40, 4)).astype(np.float32)


def columns_split(values: np.ndarray, task: str, rows: np.ndarray | None = None) -> AlignedSplit:
    """Runs r0, r1, …; the last one has only the rows `rows`."""
    runs = []
    for i, array in enumerate(values):
        kept = None
        if rows is not None and i == len(values) - 1:
            kept = np.full(array.shape[0], -1)
            kept[rows] = rows
        file = AlignedFile(replace(member(array), task=task), kept)
        runs.append(RunPredictions(f"r{i}", (file,), array.shape[1]))
    ids = np.arange(values.shape[1]).astype(str)
    return AlignedSplit("test", SampleRows(ids), tuple("abcd"[: values.shape[2]]), tuple(runs), task=task)


@pytest.mark.parametrize("method", [name for name in VOTES["multilabel"] if name != "rank"])
def test_a_label_is_pooled_as_two_classes(method: str) -> None:
    """The road of exclusive classes, on (1 − p, p) of each label, gives the same numbers."""
    weights = {"r0": 0.5, "r1": 0.3, "r2": 0.2} if method == "weighted" else None
    found = vote(columns_split(VALUES, "multilabel"), method, weights)
    for column in range(4):
        pairs = [np.stack([1 - one[:, column].astype(float), one[:, column]], axis=1) for one in VALUES]
        runs = [probability_run(f"r{i}", pair) for i, pair in enumerate(pairs)]
        expected = vote(split_of(*runs, n=40), method, weights)
        np.testing.assert_allclose(found.probabilities[:, column], expected.probabilities[:, 1], atol=2e-6)


def test_ranks_are_those_within_a_label() -> None:
    """The order is that of the mean ranks of one label's samples, whatever the probabilities of the others are."""
    found = vote(columns_split(VALUES, "multilabel"), "rank").probabilities
    for column in range(4):
        ranks = np.argsort(np.argsort(VALUES[:, :, column], axis=1), axis=1).mean(axis=0)
        order = np.argsort(ranks, kind="stable")
        assert (np.diff(found[order, column]) > -1e-6).all()
        assert found[:, column].mean() == pytest.approx(VALUES[:, :, column].mean(), abs=0.05)


def test_numbers_have_mean_median_and_trimmed_mean() -> None:
    numbers = RANDOM.normal(-3, 20, (5, 30, 2)).astype(np.float32)
    split = columns_split(numbers, "regression")
    np.testing.assert_allclose(vote(split).probabilities, numbers.mean(0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(vote(split, "median").probabilities, np.median(numbers, axis=0), rtol=1e-6)
    trimmed = np.sort(numbers, axis=0)[1:4].mean(0, dtype=np.float64)
    np.testing.assert_allclose(vote(split, "trimmed", options=Options(trim=0.2)).probabilities, trimmed, rtol=1e-5)
    shares = {f"r{i}": share for i, share in enumerate((0.5, 0.2, 0.1, 0.1, 0.1))}
    expected = np.tensordot(list(shares.values()), numbers.astype(float), 1)
    np.testing.assert_allclose(vote(split, "weighted", shares).probabilities, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_the_runs_of_a_row_share_the_weight_of_an_absent_one(task: str) -> None:
    rows = np.arange(0, 40, 2)
    found = vote(columns_split(VALUES, task, rows)).probabilities
    np.testing.assert_allclose(found[rows], VALUES[:, rows].mean(0), rtol=1e-6)
    np.testing.assert_allclose(found[1::2], VALUES[:2, 1::2].mean(0), rtol=1e-6)


def test_folds_vote_each_for_a_label() -> None:
    """Two of three fold models above a half are two thirds of the run's vote."""
    folds = [np.array([[value]], np.float32) for value in (0.6, 0.7, 0.1)]
    parts = tuple(AlignedFile(replace(member(one), task="multilabel"), fold=i) for i, one in enumerate(folds))
    run = RunPredictions("a", parts, 1)
    assert run.votes(0, 1).tolist() == [[pytest.approx(2 / 3)]]
    split = AlignedSplit("test", SampleRows(np.array(["x"])), ("hat",), (run,), task="multilabel")
    assert vote(split, "hard").probabilities[0, 0] == pytest.approx(2 / 3)
