"""Thresholds of several labels: applied to probabilities, and read from files of strangers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ensemble.decisions.decision import Decision
from ensemble.decisions.label_decision import LabelDecision, label_guarantees, label_lines, label_scores, read_decision
from ensemble.decisions.record import DecisionSource, MeasuredValue, RuleRecord
from folds.errors import EnsembleError, UsageError
from folds.metrics.intervals import Interval

LABELS = ("hat", "glasses", "beard")


def made(unit: str = "image") -> LabelDecision:
    """Return thresholds of two of three labels."""
    f1 = MeasuredValue("F1 of hat", Interval(0.7, 0.6, 0.8, people=20))
    aim = MeasuredValue("sensitivity of beard", Interval(0.95, 0.9, 1.0, people=12), 0.9)
    seen = MeasuredValue("specificity of beard", Interval(0.5, 0.4, math.nan, people=12))
    records = {
        "hat": RuleRecord(("hat:f1",), ("none",), "nothing is guaranteed; the nested scores are measured", (f1,)),
        "beard": RuleRecord(("beard:sensitivity>=0.9",), ("guaranteed",), "beard:sensitivity>=0.9: holds", (aim, seen)),
    }
    source = DecisionSource("final", "blend", "0" * 8, 20, 40, "cross-fitted")
    total = MeasuredValue("macro F1", Interval(0.6, 0.5, 0.7, people=20))
    return LabelDecision(LABELS, (0.25, 0.5, 0.75), unit, 0.9, source, records, (total,))


def test_a_label_is_given_from_its_threshold_on_and_above_a_half_without_one() -> None:
    values = [[0.25, 0.5, 0.75], [0.2499, 0.5001, 0.7499]]
    decided = made().apply(values)
    assert decided.given.tolist() == [[True, False, True], [False, True, False]]
    assert decided.labels.tolist() == ["hat;beard", "glasses"]
    assert decided.frame(ids=["a", "b"]).to_numpy().tolist() == [["a", 1, 0, 1], ["b", 0, 1, 0]]
    with pytest.raises(UsageError, match=r"must be \(samples, 3\), a column for each label, found \(2, 2\)"):
        made().apply([[0.1, 0.2], [0.3, 0.4]])


def test_probabilities_are_taken_by_name_and_must_be_probabilities() -> None:
    frame = pd.DataFrame([[0.75, 0.25, 0.5], [0.25, 0.2, 0.6]], columns=["beard", "hat", "glasses"])
    assert made().apply(frame).labels.tolist() == ["hat;beard", "glasses"]
    of_classes = Decision(("a", "b"), threshold=0.6, error=0.1)
    assert of_classes.apply(pd.DataFrame([[0.9, 0.1]], columns=["b", "a"])).labels.tolist() == ["b"]
    for value in (math.nan, 2.3, -0.1):
        with pytest.raises(UsageError, match="for 'glasses' in row 1, expected a number from 0 to 1"):
            made().apply([[0.25, 0.5, 0.75], [0.2, value, 0.7]])


def test_thresholds_for_people_apply_to_the_mean_of_their_images() -> None:
    values = [[0.9, 0.1, 0.0], [0.0, 0.9, 0.0], [0.0, 0.2, 0.9]]
    decided = made("person").apply(values, persons=["b", "a", "b"])
    assert decided.persons is not None
    assert decided.persons.tolist() == ["a", "b"]
    assert decided.labels.tolist() == ["glasses", "hat"]  # the means of b: 0.45, 0.15, 0.45
    assert made("person").apply([[0.45, 0.15, 0.45]]).labels.tolist() == ["hat"]  # rows of people


def test_a_record_is_read_back_as_it_was_written() -> None:
    record = json.loads(json.dumps(made().to_dict()))
    again = read_decision(record, LABELS)
    assert isinstance(again, LabelDecision)
    assert again.to_dict() == record
    assert again.apply([[0.3, 0.6, 0.1]]).labels.tolist() == ["hat;glasses"]
    assert again.records["beard"].scores[0].target == 0.9


CHANGES: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda one: one["thresholds"].pop("beard"), "one for each label"),
    (lambda one: one["thresholds"].update(scarf=0.5), "one for each label"),
    (lambda one: one["thresholds"].update(hat=0), "above 0 and at most 1"),
    (lambda one: one["thresholds"].update(hat=1.01), "above 0 and at most 1"),
    (lambda one: one["thresholds"].update(hat=math.nan), "above 0 and at most 1"),
    (lambda one: one["thresholds"].update(hat=True), "above 0 and at most 1"),
    (lambda one: one["thresholds"].update(glasses=0.4), "'glasses' has no rule, so its threshold must be 0.5"),
    (lambda one: one["rules"].update(scarf={}), "'rules' must be those of labels"),
    (lambda one: one["rules"]["hat"].update(code="x"), "code"),
    (lambda one: one["rules"]["hat"].pop("status"), "status"),
    (lambda one: one["totals"][0].update(value=math.inf), "value"),
    (lambda one: one.update(more=1), "more"),
    (lambda one: one.pop("unit"), "unit"),
    (lambda one: one.update(task="regression"), "numbers"),
    (lambda one: one.update(task="binary"), "task"),
    (lambda one: one["thresholds"].update(hat=1.5), "of 'hat' must be above 0 and at most 1"),
    (lambda one: one.update(unsure={"hat": 0.1}), "'unsure' must have a number up to its threshold"),
    (lambda one: one.update(unsure={"hat": 0.3, "glasses": 0.5, "beard": 0.5}), "'unsure' must have a number up to"),
    (lambda one: one.update(schema=2), "has schema 2, this version reads 1"),
    (lambda one: one.update(labels=["beard", "glasses", "hat"]), "the model has hat, glasses, beard"),
    (lambda one: one.update(labels=["hat", "hat", "beard"]), "different names"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_a_wrong_record_is_refused(change: Callable[[dict[str, Any]], object], message: str) -> None:
    record = json.loads(json.dumps(made().to_dict()))
    change(record)
    with pytest.raises(EnsembleError, match=message):
        read_decision(record, LABELS)


def test_rules_of_classes_and_of_labels_refuse_each_other() -> None:
    with pytest.raises(EnsembleError):
        Decision.from_json(made().to_dict(), LABELS)
    with pytest.raises(EnsembleError, match="task"):
        LabelDecision.from_json(Decision(LABELS, threshold=0.3, error=0.1).to_dict(), LABELS)


def test_what_is_shown_names_thresholds_aims_and_what_is_guaranteed() -> None:
    assert label_lines(made()) == ["a label is given from a probability on: hat 0.25, beard 0.75; above 0.5: glasses"]
    assert [one.measure for one in label_scores(made())] == ["macro F1", "F1 of hat", "sensitivity of beard"]
    assert label_guarantees(made()) == [
        "hat: nothing is guaranteed; the nested scores are measured",
        "beard:sensitivity>=0.9: holds",
    ]
    assert np.isnan(made().records["beard"].scores[1].interval.high)
