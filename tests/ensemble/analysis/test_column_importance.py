"""What columns of the samples add to a stacker: exact Shapley values, and losses by permutation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from ensemble.analysis import column_importance
from ensemble.analysis.column_importance import RUNS, estimate_importance
from ensemble.learning.combination import combine
from ensemble.learning.further_columns import Column
from ensemble.learning.nested import NestedResult, nested_cv
from ensemble.learning.registry import STACKING
from ensemble.learning.stack import Stack
from folds.metrics.classification import METRICS

METRIC = METRICS["log_loss"]


@pytest.fixture(scope="module")
def stack() -> Stack:
    """40 people with two images, of whom a column says much of the label, a weak run a little, and a second column
    nothing.
    """
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(40) % 2, 2)
    logits = random.normal(size=(1, 80)) + 0.4 * (2 * labels - 1)
    yes = 1 / (1 + np.exp(-logits))
    ages = np.repeat(random.normal(size=40) + 1.5 * (np.arange(40) % 2), 2)
    noise = np.repeat(random.choice(["a", "b"], 40), 2)
    columns = Column("age", True, ages.round(2).astype(str)), Column("site", False, noise)
    persons = np.repeat(np.arange(40), 2)
    values = np.stack([1 - yes, yes], axis=2).astype(np.float32)
    return Stack(("run",), values, None, labels, persons, persons // 2 % 4, extra=columns)


@pytest.fixture(scope="module")
def fitted(stack: Stack) -> NestedResult:
    return nested_cv(stack, STACKING, METRIC)


def score(stack: Stack) -> float:
    return METRIC(stack.labels, nested_cv(stack, STACKING, METRIC).out_of_sample)


def test_gains_are_shapley_values_of_all_subsets(stack: Stack, fitted: NestedResult) -> None:
    one = replace(stack, extra=stack.extra[:1])
    full = nested_cv(one, STACKING, METRIC)
    found = estimate_importance(one, full, [STACKING] * 4, METRIC)
    equal = replace(one, names=("none",), probabilities=np.full((1, 80, 2), 0.5, np.float32))
    empty, age, runs, both = (
        score(replace(equal, extra=())), score(equal), score(replace(one, extra=())),
        METRIC(one.labels, full.out_of_sample),
    )  # fmt: skip
    assert [group.name for group in found.groups] == [RUNS, "age"]
    assert found.groups[1].gain.value == pytest.approx(((empty - age) + (runs - both)) / 2)  # a lower loss is a gain
    assert (found.empty, found.full) == pytest.approx((empty, both))
    of_three = estimate_importance(stack, fitted, [STACKING] * 4, METRIC)
    assert sum(group.gain.value for group in of_three.groups) == pytest.approx(of_three.empty - of_three.full)
    gains = {group.name: group.gain for group in of_three.groups}
    assert gains["age"].low > 0
    assert gains["site"].low < 0 < gains["site"].high or abs(gains["site"].value) < 0.02
    assert gains["age"].people == 40
    assert of_three.to_dict()["method"] == "shapley"


def test_many_columns_are_permuted_between_people(
    stack: Stack, fitted: NestedResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(column_importance, "MAX_COLUMNS", 1)
    found = estimate_importance(stack, fitted, [STACKING] * 4, METRIC)
    assert not found.exact
    assert [group.name for group in found.groups] == ["age", "site"]
    assert found.groups[0].gain.low > 0
    assert abs(found.groups[1].gain.value) < 0.02
    assert math.isnan(found.empty)
    assert found.to_dict()["empty"] is None
    again = estimate_importance(stack, fitted, [STACKING] * 4, METRIC)
    assert again == replace(found, empty=again.empty)
    exchanged = column_importance._exchanged(stack.extra[0], stack.persons, np.random.default_rng(1))
    assert exchanged.texts[::2].tolist() == exchanged.texts[1::2].tolist()  # images of a person stay together
    assert sorted(exchanged.texts.tolist()) == sorted(stack.extra[0].texts.tolist())


def test_nested_predictions_without_a_group_are_those_of_a_fit_without_it(stack: Stack) -> None:
    alone = replace(stack, extra=())
    part = alone.outer_folds == 0
    rows, rest = np.flatnonzero(part), np.flatnonzero(~part)
    expected = combine(alone.take(rows), STACKING.fit(alone.take(rest), METRIC, 0))
    found = column_importance._nested(column_importance._subset(stack, 1), [STACKING] * 4, METRIC, 0)
    np.testing.assert_array_equal(found[rows], expected)
