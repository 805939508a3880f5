"""Every method of combining runs keeps the common promises, also on edge cases."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from ensemble.learning.calibration import calibrated
from ensemble.learning.combination import Combination, combine
from ensemble.learning.nested import held_out, nested_cv
from ensemble.learning.registry import FITTERS, GIVEN, candidates
from ensemble.learning.stack import Stack
from ensemble.voting.vote import METHODS
from folds.errors import EnsembleError
from folds.metrics.classification import METRICS
from tests.ensemble.stacks import drawn, with_gaps

F1, LOSS = METRICS["macro_f1"], METRICS["log_loss"]


def identical() -> Stack:
    stack = small()
    return replace(stack, probabilities=np.repeat(stack.probabilities[:1], 3, axis=0))


def one_run() -> Stack:
    return small().select_runs([1])


def missing_class() -> Stack:
    stack = small()
    return replace(stack, labels=np.where(stack.labels == 2, 1, stack.labels))


def certain() -> Stack:
    stack = small()
    return replace(stack, probabilities=np.eye(3, dtype=np.float32)[stack.probabilities.argmax(axis=2)])


def one_person_a_part() -> Stack:
    stack = small()
    return replace(stack, persons=np.arange(60) // 20, outer_folds=np.arange(60) // 20)


def one_part() -> Stack:
    return replace(small(), outer_folds=np.zeros(60, np.int64))


def one_person() -> Stack:
    return replace(small(), persons=np.zeros(60, np.int64), outer_folds=np.zeros(60, np.int64))


def two_classes() -> Stack:
    return drawn(1, runs=3, n=60, classes=2)


def one_class_in_a_part() -> Stack:
    stack = small()
    return replace(stack, outer_folds=np.where(stack.labels == 2, 0, 1))


def gappy() -> Stack:
    return with_gaps(small(), 0.5)


def a_run_that_is_nowhere() -> Stack:
    stack = small()
    present = np.ones((3, 60), bool)
    present[2] = False
    return replace(stack, probabilities=stack.probabilities * present[:, :, None], present=present)


@cache
def small() -> Stack:
    return drawn(0, runs=3, n=60, classes=3, parts=3)


EDGES = [one_run, identical, missing_class, certain, one_person_a_part, one_part, one_person]
EDGES += [two_classes, one_class_in_a_part, gappy, a_run_that_is_nowhere]
SLOW = ("greedy-bagged", "stacking-bias")  # built from methods that are tested with both metrics
FITTED = [name for name, fitter in FITTERS.items() if fitter.is_fitted]


@pytest.mark.parametrize("edge", EDGES, ids=lambda edge: edge.__name__)
@pytest.mark.parametrize("name", FITTERS)
def test_all_give_probabilities_and_a_reproducing_record(name: str, edge: Callable[[], Stack]) -> None:
    stack = edge()
    for metric in (F1,) if name in SLOW else (F1, LOSS):
        found = FITTERS[name].fit(stack, metric, 0)
        values = combine(stack, found)
        assert found.runs == stack.names
        assert np.isfinite(values).all()
        assert (values >= 0).all()
        assert values.sum(axis=1) == pytest.approx(np.ones(len(stack)), abs=1e-5)
        assert found.shares.sum() == pytest.approx(1)
        assert bool(found.summary) == FITTERS[name].is_fitted
        record = json.loads(json.dumps(found.as_record()))
        assert combine(stack, Combination.from_record(record, stack.classes, "x")) == pytest.approx(values, abs=1e-5)


@pytest.mark.parametrize("kind", ["temperature", "vector"])
@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("edge", EDGES, ids=lambda edge: edge.__name__)
def test_all_stacks_can_be_calibrated(edge: Callable[[], Stack], place: str, kind: str) -> None:
    stack = edge()
    for name in ("soft", "simplex", "bias"):
        values = combine(stack, calibrated(FITTERS[name], kind, place).fit(stack, F1, 0))
        assert np.isfinite(values).all()


@pytest.mark.parametrize("name", FITTED)
def test_one_run_and_its_copies_keep_its_predictions(name: str) -> None:
    if "bias" in name or name == "stacking":  # these change the decisions of a single run as well
        return
    for stack in (one_run(), identical()):
        assert combine(stack, FITTERS[name].fit(stack, F1, 0)) == pytest.approx(stack.probabilities[0], abs=1e-6)


@pytest.mark.parametrize("name", FITTED)
def test_the_same_stack_and_seed_give_the_same_numbers(name: str) -> None:
    first, second = (FITTERS[name].fit(small(), F1, 3).as_record() for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", FITTED)
def test_the_order_of_samples_hardly_matters(name: str) -> None:
    order = np.random.default_rng(1).permutation(60)
    first, second = (combine(small(), FITTERS[name].fit(stack, F1, 0)) for stack in (small(), small().take(order)))
    assert first == pytest.approx(second, abs=2e-3)


@pytest.mark.parametrize("name", FITTED)
def test_predictions_of_a_part_do_not_depend_on_its_labels(name: str) -> None:
    stack = small()
    made = nested_cv(stack, FITTERS[name], F1, 0)
    other = stack.labels.copy()
    in_part = stack.outer_folds == 2
    other[in_part] = (other[in_part] + 1) % 3  # the labels of the part must not affect its predictions
    again = nested_cv(replace(stack, labels=other), FITTERS[name], F1, 0)
    assert np.array_equal(made.out_of_sample[in_part], again.out_of_sample[in_part])
    assert not np.array_equal(made.out_of_sample[~in_part], again.out_of_sample[~in_part]) or name in (
        "best",
        "greedy-warm",
    )


@pytest.mark.parametrize("name", ["best", "greedy", "simplex", "exp"])
def test_a_run_that_predicts_nothing_gets_no_weight(name: str) -> None:
    assert FITTERS[name].fit(a_run_that_is_nowhere(), F1, 0).shares[2] == 0


def test_inner_parts_keep_people_together() -> None:
    assert [len(in_part) for in_part, _ in held_out(small())] == np.bincount(small().outer_folds).tolist()
    parts = held_out(one_part())
    assert len(parts) == 5
    for in_part, outside in parts:
        assert not set(small().persons[in_part]) & set(small().persons[outside])
    assert held_out(one_person()) == []


def test_registry_has_all_methods_except_given_weights() -> None:
    assert set(METHODS) - {GIVEN} == {name for name, fitter in FITTERS.items() if not fitter.is_fitted}
    assert all(name == fitter.name for name, fitter in FITTERS.items())


@pytest.mark.parametrize("name", ["per-class", "stacking"])
def test_too_much_memory_is_an_error_before_the_fit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ensemble.learning.stack._MAX_BYTES", 1000)
    with pytest.raises(EnsembleError, match="GiB of memory") as refused:
        FITTERS[name].fit(small(), F1, 1234)  # a new seed, so that the result is not in the cache
    assert refused.value.hint is not None
    assert "simplex" in refused.value.hint


def test_auto_tries_no_bias_for_metrics_not_of_counts() -> None:
    names = {fitter.name for fitter in candidates(LOSS)}
    assert {name for name in FITTERS if name not in names} == {"bias", "bias-geometric", "stacking-bias", "grades"}
    assert set(FITTERS) - {"grades"} == {fitter.name for fitter in candidates(F1)}


def test_the_registry_is_light() -> None:
    code = "import sys, ensemble.learning.registry\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"scipy", "sklearn", "torch", "pandas"} & set(loaded)
