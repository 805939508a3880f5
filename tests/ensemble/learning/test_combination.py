"""A fitted combination is plain numbers: it is applied as described, written to a record and read back with checks."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ensemble.learning.combination import Calibration, Combination, combine
from ensemble.learning.stack import Stack
from folds.errors import EnsembleError
from tests.ensemble.worlds import world

NAMES = ("run0", "run1", "run2")


def softmax(logits: np.ndarray) -> np.ndarray:
    values = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return values / values.sum(axis=-1, keepdims=True)


def without(stack: Stack, run: int, rows: slice) -> Stack:
    """The stack with a run absent on some rows."""
    present = np.ones(stack.probabilities.shape[:2], bool)
    present[run, rows] = False
    values = stack.probabilities.copy()
    values[run, rows] = 0
    return replace(stack, probabilities=values, present=present)


def test_weights_are_those_of_a_weighted_mean() -> None:
    stack = world()
    weights = np.array([0.5, 0.0, 1.5])
    expected = np.average(stack.probabilities, axis=0, weights=weights)
    np.testing.assert_allclose(combine(stack, Combination(NAMES, weights=weights)), expected, atol=1e-6)


def test_each_class_can_have_its_own_weights() -> None:
    stack = world()
    weights = np.random.default_rng(0).random((3, 4))
    expected = (stack.probabilities * weights[:, None]).sum(0) / weights.sum(0)
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(combine(stack, Combination(NAMES, weights=weights)), expected, atol=1e-6)


def test_an_absent_run_leaves_its_weight_to_the_others() -> None:
    stack = without(world(), 1, slice(0, 10))
    both = np.average(stack.probabilities[[0, 2]], axis=0, weights=[1, 3])
    for weights in (np.array([1.0, 5.0, 3.0]), np.repeat([[1.0], [5.0], [3.0]], 4, axis=1)):
        found = combine(stack, Combination(NAMES, weights=weights))
        np.testing.assert_allclose(found[:10], both[:10], atol=1e-6)
        np.testing.assert_allclose(
            found[10:], np.average(stack.probabilities, axis=0, weights=[1, 5, 3])[10:], atol=1e-6
        )


def test_rows_with_only_zero_weight_runs_use_equal_weights() -> None:
    stack = without(world(), 1, slice(0, 10))
    for weights in (np.array([0.0, 1.0, 0.0]), np.repeat([[0.0], [1.0], [0.0]], 4, axis=1)):
        found = combine(stack, Combination(NAMES, weights=weights))
        np.testing.assert_allclose(found[:10], stack.probabilities[[0, 2], :10].mean(0), atol=1e-6)
        np.testing.assert_allclose(found[10:], stack.probabilities[1, 10:], atol=1e-6)


def test_calibration_comes_before_and_after_the_pool() -> None:
    stack = world()
    heat, offset = np.array([0.5, 1.0, 2.0]).reshape(-1, 1, 1), np.random.default_rng(1).normal(size=(3, 1, 4))
    logs = np.log(stack.probabilities.astype(float))
    pooled = softmax(logs / heat + offset).mean(0)
    before = Combination(NAMES, before=Calibration(heat, offset))
    np.testing.assert_allclose(combine(stack, before), pooled, atol=1e-6)
    after = replace(before, after=Calibration(np.array(1.7), np.arange(4.0)), bias=np.array([0.0, 1.0, 0.0, -1.0]))
    expected = softmax(np.log(pooled) / 1.7 + np.arange(4.0) + np.array([0.0, 1.0, 0.0, -1.0]))
    np.testing.assert_allclose(combine(stack, after), expected, atol=1e-6)


def test_stacked_coefficients_use_centered_logs() -> None:
    stack = world()
    coefficients = np.random.default_rng(2).normal(size=(13, 4))
    logs = np.log(stack.probabilities.astype(float))
    centred = (logs - logs.mean(2, keepdims=True)).transpose(1, 0, 2).reshape(len(stack), -1)
    np.testing.assert_allclose(
        combine(stack, Combination(NAMES, stacked=coefficients)),
        softmax(centred @ coefficients[:-1] + coefficients[-1]),
        atol=1e-5,
    )


def test_equal_stacked_coefficients_are_the_geometric_mean() -> None:
    stack = world()
    equal = np.vstack([np.tile(np.eye(4), (3, 1)) / 3, np.zeros(4)])
    geometric = combine(stack, Combination(NAMES, pool="geometric"))
    np.testing.assert_allclose(combine(stack, Combination(NAMES, stacked=equal)), geometric, atol=1e-6)


def test_probabilities_of_0_and_1_stay_finite() -> None:
    stack = world()
    sure = replace(stack, probabilities=np.eye(4, dtype=np.float32)[stack.probabilities.argmax(2)])
    combination = Combination(
        NAMES, pool="geometric", before=Calibration(np.full((3, 1, 1), 0.05)), after=Calibration(np.array(0.05))
    )
    found = combine(sure, combination)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


def everything() -> Combination:
    random = np.random.default_rng(3)
    return Combination(
        NAMES,
        pool="geometric",
        weights=random.random(3),
        before=Calibration(random.uniform(0.5, 2, (3, 1, 1)), random.normal(size=(3, 1, 4))),
        after=Calibration(np.array(1.2), random.normal(size=4)),
        bias=random.normal(size=4),
        summary="weights run0",
    )


WRITTEN = [
    everything(),
    Combination(NAMES),
    Combination(NAMES, weights=np.ones((3, 4))),
    Combination(NAMES, stacked=np.ones((13, 4))),
]
WRITTEN += [Combination(NAMES, pool="power", power=-1.0), Combination(NAMES, pool="trimmed", trim=0.4)]


@pytest.mark.parametrize("combination", WRITTEN)
def test_a_record_restores_all_fields(combination: Combination) -> None:
    read = Combination.from_record(json.loads(json.dumps(combination.as_record())), 4, "blend.toml")
    stack = world()
    np.testing.assert_allclose(combine(stack, read), combine(stack, combination), atol=1e-6)
    assert (read.runs, read.pool, read.summary) == (combination.runs, combination.pool, combination.summary)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pool": "best"}, "'pool'"),
        ({"weights": [1.0, 2.0]}, "'weights' must be 3 or 3 × 4 numbers"),
        ({"weights": [1.0, -2.0, 1.0]}, "'weights' must be ≥ 0"),
        ({"weights": [0.0, 0.0, 0.0]}, "at least one above 0"),
        ({"weights": [float("nan")] * 3}, "'weights'"),
        ({"bias": [1.0]}, "'bias' must be 4 numbers"),
        ({"stacked": [[1.0, 2.0], [1.0]]}, "'stacked' must be 13 × 4 numbers"),
        ({"temperature_before": [1.0, 0.0, 1.0]}, "temperatures must be from 0.05 to 20"),
        ({"temperature_after": -1.0}, "temperatures must be from 0.05 to 20"),
        ({"temperature_after": 1e-320}, "temperatures must be from"),
        ({"temperature_after": 10**400}, "'temperature_after' is "),
        ({"weights": [10**400, 1, 1]}, "'weights' is "),
        ({"weights": [1e308] * 3}, "'weights' must be numbers from -1,000,000 to 1,000,000"),
        ({"bias": [1e308, -1e308, 0, 0]}, "'bias' must be numbers from"),
        ({"runs": [], "weights": []}, "'runs' must be one or more names"),
        ({"runs": ["run0", "run0", "run2"]}, "none repeated"),
        ({"runs": ["run0", "", "run2"]}, "none empty"),
        ({"runs": ["run0", "a\nb", "run2"]}, "'runs' is "),
        ({"temperature_after": None}, "'offset_after' needs 'temperature_after'"),
        ({"temperature_before": None}, "'offset_before' needs 'temperature_before'"),
        ({"power": 2.0}, "'power' needs the pool power"),
        ({"pool": "trimmed", "trim": 0.5}, "'trim' must be from 0 to below .5"),
        ({"runs": "run0"}, "'runs'"),
    ],
)
def test_an_invalid_record_is_an_error(change: dict[str, Any], message: str) -> None:
    with pytest.raises(EnsembleError, match=message):
        Combination.from_record(everything().as_record() | change, 4, "blend.toml")


def test_shares_are_the_total_weights_of_runs() -> None:
    np.testing.assert_allclose(Combination(NAMES).shares, 1 / 3)
    np.testing.assert_allclose(Combination(NAMES, weights=np.array([1.0, 0.0, 3.0])).shares, [0.25, 0, 0.75])
    stacked = np.zeros((13, 4))
    stacked[0, 0], stacked[5, 1] = 3, -1
    np.testing.assert_allclose(Combination(NAMES, stacked=stacked).shares, [0.75, 0.25, 0])


def test_a_combination_of_other_runs_is_an_error() -> None:
    with pytest.raises(ValueError, match="the runs of the stack"):
        combine(world(), Combination(("a", "b", "c")))
