"""A fitted combination applied to files gives the same numbers as in memory, also with absent runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ensemble.alignment.split import AlignedSplit
from ensemble.learning.apply import apply_combination
from ensemble.learning.combination import Calibration, Combination, combine
from ensemble.learning.stack import Stack
from ensemble.voting.vote import METHODS, Options, vote
from folds.errors import UsageError
from tests.ensemble.small_runs import answer_run, probability_run, split_of
from tests.ensemble.worlds import world

NAMES = ("run0", "run1", "run2")


def as_split(stack: Stack) -> AlignedSplit:
    """Return the runs of a stack as a split, as they come from files."""
    runs = []
    for i, name in enumerate(stack.names):
        rows = None if stack.present is None else np.where(stack.present[i], np.arange(len(stack)), -1)
        runs.append(probability_run(name, stack.probabilities[i], rows=rows))
    return split_of(*runs, n=len(stack))


def with_gaps() -> Stack:
    stack = world(people=30)
    present = np.random.default_rng(0).random(stack.probabilities.shape[:2]) < 0.7
    present[0] |= ~present.any(axis=0)
    return replace(stack, present=present, probabilities=np.where(present[:, :, None], stack.probabilities, 0))


COMBINATIONS = [
    *(Combination(NAMES, pool=name) for name in METHODS),
    Combination(NAMES, weights=np.array([0.2, 0.0, 0.8])),
    Combination(NAMES, weights=np.array([0.0, 1.0, 0.0])),
    Combination(NAMES, weights=np.random.default_rng(0).random((3, 4))),
    Combination(
        NAMES,
        pool="geometric",
        before=Calibration(np.array([0.5, 1, 2]).reshape(-1, 1, 1)),
        after=Calibration(np.array(1.5)),
    ),
    Combination(NAMES, pool="hard", bias=np.array([0.0, 0.1, 0.2, 0.3])),
    Combination(NAMES, stacked=np.random.default_rng(1).normal(size=(13, 4))),
]


@pytest.mark.parametrize("stack", [world(people=30), with_gaps()], ids=["whole", "gaps"])
@pytest.mark.parametrize(
    "combination", COMBINATIONS, ids=lambda c: f"{c.pool}-{c.weights is not None}-{c.stacked is not None}"
)
def test_files_and_memory_give_the_same(stack: Stack, combination: Combination) -> None:
    if combination.pool == "hard":  # ties are decided in float64 from the same numbers
        assert np.array_equal(
            apply_combination(as_split(stack), combination).probabilities.argmax(1),
            combine(stack, combination).argmax(1),
        )
    np.testing.assert_allclose(
        apply_combination(as_split(stack), combination).probabilities, combine(stack, combination), atol=2e-6
    )


@pytest.mark.parametrize("stack", [world(people=30), with_gaps()], ids=["whole", "gaps"])
@pytest.mark.parametrize(
    "options",
    [Options(), Options(power=-1.0, trim=0.4), Options(power=5.0, trim=0.0)],
    ids=lambda o: f"{o.power:g}-{o.trim:g}",
)
@pytest.mark.parametrize("method", METHODS)
def test_a_plain_vote_is_reproduced_from_its_record(stack: Stack, method: str, options: Options) -> None:
    weights = dict(zip(NAMES, (0.2, 0.3, 0.5), strict=True))
    parameters = {"power": {"power": options.power}, "trimmed": {"trim": options.trim}}.get(method, {})
    made = Combination.from_record(
        Combination(NAMES, method, np.array([0.2, 0.3, 0.5]), **parameters).as_record(), 4, "blend.toml"
    )
    expected = vote(as_split(stack), method, weights, options=options).probabilities
    assert np.array_equal(apply_combination(as_split(stack), made).probabilities, expected)
    if method in ("power", "trimmed"):  # by blocks as well
        np.testing.assert_allclose(combine(stack, made), expected, atol=2e-6)


def test_a_run_missing_in_the_split_leaves_its_weight_to_others() -> None:
    stack = world(people=10)
    combination = Combination(NAMES, weights=np.array([1.0, 2.0, 3.0]), before=Calibration(np.ones((3, 1, 1))))
    found = apply_combination(as_split(stack.select_runs([0, 2])), combination).probabilities
    np.testing.assert_allclose(found, np.average(stack.probabilities[[0, 2]], axis=0, weights=[1, 3]), atol=1e-6)
    alone = apply_combination(
        as_split(stack.select_runs([0])), replace(combination, weights=np.array([0.0, 1.0, 1.0]))
    ).probabilities
    np.testing.assert_allclose(alone, stack.probabilities[0], atol=1e-6)


def test_a_run_outside_the_fit_is_an_error() -> None:
    stack = world(people=10)
    with pytest.raises(UsageError, match="also found run2"):
        apply_combination(as_split(stack), Combination(NAMES[:2]))


def test_hard_labels_need_a_counting_method() -> None:
    stack = world(people=10)
    split = split_of(*as_split(stack).runs[:2], answer_run("run2", stack.labels, 4), n=len(stack))
    with pytest.raises(UsageError, match="found only hard labels in run2"):
        apply_combination(split, Combination(NAMES, weights=np.ones(3), before=Calibration(np.ones((3, 1, 1)))))
    assert len(
        apply_combination(split, Combination(NAMES, pool="hard", weights=np.array([0.0, 0.0, 1.0]))).probabilities
    ) == len(stack)
