"""Prediction intervals of numbers: fitted over people, scored nested, applied, and read from files of strangers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import ensemble as en
from ensemble.cli.reports.decide import decide_report
from ensemble.decisions.decision import Decision
from ensemble.decisions.label_decision import LabelDecision, read_decision
from ensemble.decisions.member_spread import spread_of_blend
from ensemble.decisions.number_decision import NumberDecision
from ensemble.decisions.number_report import NumberIntervals
from ensemble.decisions.record import RuleRecord
from folds.errors import EnsembleError, UsageError
from folds.predictions.predictions import Predictions

PEOPLE = 50
PERSON = np.repeat(np.arange(PEOPLE), 2)
RANDOM = np.random.default_rng(3)
TRUTH = RANDOM.normal(50, 15, PEOPLE)[PERSON]
PREDICTED = TRUTH + RANDOM.normal(0, 4, PEOPLE)[PERSON] + RANDOM.normal(0, 3, len(PERSON))


def decided(
    values: Any = PREDICTED, y: Any = TRUTH, groups: Any = PERSON, sets: float = 0.9, **more: Any
) -> NumberIntervals:
    named: dict[str, Any] = {"classes": ["age"]} if np.ndim(values) == 1 else {}
    found = en.decide(values, y=y, groups=groups, sets=sets, task="regression", **named, **more)
    assert isinstance(found, NumberIntervals)
    return found


def test_the_limit_is_a_quantile_over_people_not_over_images() -> None:
    errors = np.array([1.0, 1.0, 1.0, 1.0, 2.0, 3.0])
    person = np.array([0, 0, 0, 0, 1, 2])
    half = decided(errors, np.zeros(6), person, 0.5)
    assert half.limits == {"age": 2.0}  # 2 of 3 people and the new one; of six images and a new one it would be 1
    nine = decided(np.arange(1.0, 10), np.zeros(9), np.arange(9))
    assert nine.limits == {"age": 9.0}
    once = decided(np.array([1.0, 5.0, 2.0, 2.0]), np.zeros(4), np.array([0, 0, 1, 2]), 0.5, sets_for="person")
    assert once.limits == {"age": 2.0}
    assert decided(
        np.array([1.0, 5.0, 3.0, 4.0]), np.zeros(4), np.array([0, 0, 1, 2]), 0.7, sets_for="person"
    ).limits == {"age": 5.0}


def test_too_few_people_have_no_bound_and_one_line_says_so() -> None:
    few = decided(np.arange(1.0, 9), np.zeros(8), np.arange(8))
    assert few.limits == {"age": math.inf}
    assert few.warnings == ("intervals of 0.9 need 9 people whose number is known, found age 8: they are unbounded",)
    assert few.decision.apply([3.0]).low.tolist() == [[-math.inf]]
    record = json.loads(json.dumps(few.to_dict()))
    assert record["limits"] == {"age": None}
    again = read_decision(record["decision"], ("age",))
    assert isinstance(again, NumberDecision)
    assert again.limits == (math.inf,)
    assert "age unbounded (fewer than 9 people)" in decide_report(few)
    # With 10 people the nested fits have 8, so they say nothing.
    nested = decided(np.arange(1.0, 11), np.zeros(10), np.arange(10))
    assert math.isfinite(nested.limits["age"])
    assert any("5 of 5 nested fits of age" in text for text in nested.warnings)
    assert nested.scores == {}


def test_the_coverage_of_a_person_is_that_of_intervals_fitted_to_others() -> None:
    fold = PERSON % 5
    far = np.where(fold == 0, PREDICTED + 1000, PREDICTED)
    found = decided(far, fold=fold)
    # The others' intervals are too narrow for a fifth of the people; theirs, fitted to these, hold everyone.
    assert found.scores["coverage of age"].interval.value == pytest.approx(0.8)
    assert found.scores["coverage of all images, age"].interval.value == pytest.approx(0.8)
    plain = decided(fold=fold)
    assert 0.8 < plain.scores["coverage of age"].interval.value < 1
    assert plain.scores["coverage of age"].target == 0.9
    assert plain.scores["width of age"].interval.value == pytest.approx(2 * plain.limits["age"], rel=0.2)
    assert plain.source.basis == "cross-fitted"
    assert "intervals per image, fitted to 50 people (100 images)" in decide_report(plain)
    assert plain.frame().loc["age", "limit"] == plain.limits["age"]


def test_numbers_are_bounded_each_by_itself_on_the_rows_that_know_it() -> None:
    y = np.stack([TRUTH, 2 * TRUTH], axis=1)
    y[PERSON >= 40, 1] = np.nan
    values = np.stack([PREDICTED, 2 * PREDICTED], axis=1)
    found = en.decide(
        pd.DataFrame(values, columns=["age", "weight"]), y=y, groups=PERSON, sets=0.8
    )  # numbers: not 0, 1
    assert isinstance(found, NumberIntervals)
    alone = decided(2 * PREDICTED[PERSON < 40], 2 * TRUTH[PERSON < 40], PERSON[PERSON < 40], 0.8)
    assert found.limits["weight"] == pytest.approx(alone.limits["age"])
    applied = found.decision.apply(pd.DataFrame({"weight": [60.0], "age": [30.0]}))
    assert applied.low[0] == pytest.approx([30 - found.limits["age"], 60 - found.limits["weight"]])
    frame = applied.frame(ids=["a"])
    assert list(frame) == ["id", "age", "age_low", "age_high", "weight", "weight_low", "weight_high"]
    assert applied.labels.tolist() == ["age=30;weight=60"]


def test_intervals_for_people_are_those_of_mean_predictions() -> None:
    people = decided(per_person=True)
    mean = np.bincount(PERSON, PREDICTED) / 2
    of_means = decided(mean, TRUTH[::2], np.arange(PEOPLE))
    assert people.limits["age"] == pytest.approx(of_means.limits["age"], rel=1e-6)
    applied = people.decision.apply([10.0, 20.0, 40.0], persons=["b", "a", "b"])
    assert (applied.persons.tolist(), applied.values.ravel().tolist()) == (["a", "b"], [20, 25])  # type: ignore[union-attr]


def test_widths_follow_the_spread_and_wide_ones_are_not_answered() -> None:
    spread = np.tile([1.0, 3.0], PEOPLE)
    errors = np.tile([2.0, 6.0], PEOPLE)
    found = decided(TRUTH + errors, spread=spread, set_score="spread", max_width="age=9", sets=0.5)
    # The median spread is 1, so that 0.5 is added: errors of 2 / 1.5 and of 6 / 3.5.
    assert found.decision.floors == (0.5,)
    # The lower of the two scores of each person has a weight of 25, less than half of 51 people with the new one.
    assert found.limits["age"] == pytest.approx(12 / 7, rel=1e-5)
    limit = found.limits["age"]
    applied = found.decision.apply([30.0, 40.0], spread=[[1.0], [3.0]])
    assert applied.high[:, 0] - applied.low[:, 0] == pytest.approx([3 * limit, 7 * limit])
    assert applied.asked.tolist() == [[False], [True]]
    assert applied.labels.tolist() == ["30", ""]
    assert np.isnan(applied.frame()["age"][1])
    assert found.scores["answered of age"].interval.value == pytest.approx(0.5)
    assert found.scores["error of answers of age"].interval.value == pytest.approx(2, rel=1e-5)
    again = read_decision(json.loads(json.dumps(found.decision.to_dict())), ("age",))
    assert again.to_dict() == found.decision.to_dict()
    with pytest.raises(UsageError, match="follow the spread of the members, which is not known here"):
        found.decision.apply([30.0])
    both = {"y": np.stack([TRUTH, 2 * TRUTH], axis=1), "classes": ["age", "size"], "set_score": "spread"}
    values, spreads = np.stack([PREDICTED, 2 * PREDICTED], axis=1), np.stack([spread, np.roll(spread, 1)], axis=1)
    plain = decided(values, spread=spreads, **both)
    turned = pd.DataFrame(spreads[:, ::-1], columns=["size", "age"])  # columns of a frame are taken by name
    assert decided(values, spread=turned, **both).limits == plain.limits


def test_the_spread_of_a_blend_is_that_of_its_members() -> None:
    members = {"one": PREDICTED, "two": PREDICTED + np.abs(PREDICTED - TRUTH), "three": PREDICTED - 1}
    made = en.blend(members, y=TRUTH, groups=PERSON, task="regression", classes=["age"])
    found = en.decide(made, sets=0.9, set_score="spread")
    spread = np.std([np.asarray(one, np.float32) for one in members.values()], axis=0)
    given = decided(np.mean([*members.values()], axis=0), spread=spread, set_score="spread")
    assert isinstance(found, NumberIntervals)
    assert found.limits["age"] == pytest.approx(given.limits["age"], rel=1e-4)
    assert found.decision.floors == pytest.approx(given.decision.floors, rel=1e-4)
    with pytest.raises(UsageError, match="needs a blend of two runs or more"):
        en.decide(en.blend({"one": PREDICTED}, y=TRUTH, groups=PERSON, task="regression"), sets=0.9, set_score="spread")


def test_images_without_a_label_have_a_spread_in_the_mean_of_their_person() -> None:
    y = np.stack([TRUTH, 2 * TRUTH], axis=1)
    y[1::2] = np.nan  # the second image of each person
    random = np.random.default_rng(0)
    one, two = (np.stack([PREDICTED, 2 * PREDICTED], axis=1) + random.normal(0, 3, (len(PERSON), 2)) for _ in range(2))
    made = en.blend({"one": one, "two": two}, y=y, groups=PERSON, task="regression", classes=["age", "weight"])
    options: dict[str, Any] = {"sets": 0.8, "set_score": "spread", "per_person": True}
    found = en.decide(made, **options)
    assert isinstance(found, NumberIntervals)
    spread = np.abs(one - two) / 2
    given = decided((one + two) / 2, y, spread=spread, classes=["age", "weight"], **{"sets": 0.8} | options)
    assert found.decision.floors == pytest.approx(given.decision.floors, rel=1e-3)
    assert list(found.limits.values()) == pytest.approx(list(given.limits.values()), rel=1e-3)
    means = spread.reshape(PEOPLE, 2, 2).mean(axis=1)
    assert found.decision.floors == pytest.approx(np.quantile(means, 0.5, axis=0, method="lower") / 2, rel=1e-3)
    # The columns are those of the predictions that the rules are fitted to.
    turned = replace(made.oof.metadata, classes=("weight", "age"))
    other = spread_of_blend(made, Predictions(made.oof.probabilities[:, ::-1], turned), "blend", Path(), Path())
    np.testing.assert_allclose(other, spread[:, ::-1], atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sets": None}, "expected a rule for numbers: sets"),
        ({"sets": 1.5}, "sets must be above 0 and below 1"),
        ({"sets_for": "class"}, "sets_for of numbers"),
        ({"set_score": "aps"}, "set_score of numbers"),
        ({"set_score": "spread"}, "needs a blend of two runs or more"),
        ({"max_width": 3.0}, "those of one width are all alike"),
        ({"threshold": "f1"}, "threshold does not support the task regression"),
        ({"abstain": 0.1}, "abstain does not support the task regression"),
        ({"spread": np.ones(3), "set_score": "spread"}, r"spread must be \(100, 1\), from 0 on, found 3 rows"),
        ({"spread": -np.ones(100), "set_score": "spread"}, "from 0 on, found -1"),
        ({"spread": np.full(100, np.inf), "set_score": "spread"}, "spread must be finite numbers"),
        ({"spread": ["a"] * 100, "set_score": "spread"}, "a column for each number, found"),
        ({"spread": pd.Series(np.ones(100))[::-1], "values": pd.Series(PREDICTED), "set_score": "spread"}, "index"),
        ({"spread": np.ones(100)}, "spread is of set_score=spread"),
        ({"spread": np.ones(100), "set_score": "spread", "max_width": ["age=3", "age=9"]}, "has 'age' twice"),
        ({"spread": np.ones(100), "set_score": "spread", "max_width": "size=3"}, "number of max_width"),
        ({"spread": np.ones(100), "set_score": "spread", "max_width": "age=no"}, "expected a width above 0 for 'age'"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        decided(**options)


def test_the_end_of_an_interval_is_not_the_name_of_another_number() -> None:
    both = np.stack([PREDICTED, PREDICTED], axis=1)
    with pytest.raises(UsageError, match="'age_low' is a number and the end of the interval of 'age'"):
        en.decide(both, y=both, groups=PERSON, sets=0.9, classes=["age", "age_low"])


CHANGES: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda one: one["limits"].update(age=-1.0), "numbers from 0"),
    (lambda one: one["limits"].update(age=math.nan), "numbers from 0"),
    (lambda one: one["limits"].update(size=1.0), "'limits' must be those of numbers"),
    (lambda one: one.update(numbers=["size"]), "the model has age"),
    (lambda one: one.update(level=1.5), "level"),
    (lambda one: one.update(score="spread"), "expected 'floors' of all numbers for the score spread only"),
    (lambda one: one.update(target="class"), "target"),
    (lambda one: one.update(more=1), "more"),
    (lambda one: one["rules"]["age"].pop("status"), "status"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_a_wrong_record_is_refused(change: Callable[[dict[str, Any]], object], message: str) -> None:
    made = NumberDecision(("age",), 0.9, (4.0,), records={"age": _rule()})
    record = json.loads(json.dumps(made.to_dict()))
    assert read_decision(record, ("age",)).to_dict() == record
    for other in (Decision, LabelDecision):  # what earlier versions know
        with pytest.raises(EnsembleError):
            other.from_json(record, ("age",))
    change(record)
    with pytest.raises(EnsembleError, match=message):
        read_decision(record, ("age",))


def _rule() -> RuleRecord:
    return RuleRecord(("coverage>=0.9 for image by absolute",), ("guaranteed",), "", ())
