"""Decisions: how they are applied, written and read, also from strangers."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ensemble as en
from ensemble.decisions.abstention import NEVER
from ensemble.decisions.decision import Decision
from ensemble.decisions.labels import LabelRule
from ensemble.decisions.record import DecisionSource, MeasuredValue
from ensemble.decisions.sets import EVERYTHING, SetRule
from folds.errors import EnsembleError, UsageError
from folds.metrics.intervals import Interval
from folds.utils.toml import parse_toml, toml_value
from tests.ensemble.decisions.decision_worlds import CLASSES, world

VALUES = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
RULE = LabelRule("thresholds", CLASSES, np.array([np.nan, 0.4]))


def fitted(**options: Any) -> en.DecisionReport:
    rows = world(120)
    return en.decide(
        rows.probabilities,
        y=np.array(CLASSES)[rows.labels],
        groups=rows.persons,
        ids=rows.ids,
        classes=CLASSES,
        **options,
    )


def test_labels_abstention_and_sets_by_hand() -> None:
    decision = Decision(CLASSES, labels=RULE, threshold=0.5, error=0.1, sets=SetRule(0.9, "image", "lac", (0.4,)))
    found = decision.apply(VALUES)
    assert found.labels.tolist() == ["well", "abstain", "sick"]
    assert repr(found) == "3 rows decided: well, abstain, sick"
    assert found.codes.tolist() == [0, -1, 1]
    assert found.confidence.tolist() == [0.9, 0.4, 0.7]
    assert found.sets is not None
    assert found.sets.tolist() == [[True, False], [True, True], [False, True]]  # sick, that was decided, is added
    assert found.set_texts() == ["well", "well|sick", "sick"]
    assert list(found.frame(ids=["a", "b", "c"]).columns) == ["id", "label", "confidence", "set"]


def test_without_rules_the_most_probable_class_is_taken() -> None:
    found = Decision(CLASSES).apply(VALUES)
    assert (found.labels.tolist(), found.sets) == (["well", "well", "sick"], None)
    with pytest.raises(UsageError, match="no prediction sets"):
        found.set_texts()


def test_no_set_is_empty() -> None:
    found = Decision(CLASSES, sets=SetRule(0.5, "image", "lac", (0.01,))).apply(VALUES)
    assert found.sets is not None
    assert found.sets.sum(axis=1).tolist() == [1, 1, 1]


def test_rules_for_people_average_the_images_of_each_person() -> None:
    decision = Decision(CLASSES, unit="person", labels=RULE)
    found = decision.apply(VALUES, persons=["b", "b", "a"])
    assert found.persons is not None
    assert (found.persons.tolist(), found.labels.tolist()) == (["a", "b"], ["sick", "well"])


def test_randomized_sets_depend_on_the_id_and_not_on_the_row() -> None:
    decision = Decision(("a", "b", "c"), sets=SetRule(0.9, "image", "aps", (0.6,)))
    values = np.tile([[0.5, 0.3, 0.2]], (40, 1))
    ids = np.array([f"{i}.jpg" for i in range(40)])
    found = decision.apply(values, ids=ids).sets
    again = decision.apply(values[::-1], ids=ids[::-1]).sets
    assert found is not None
    assert again is not None
    assert (found == again[::-1]).all()
    assert 0 < found[:, 1].sum() < 40


@pytest.mark.parametrize("values", [[[0.5, 0.3, 0.2]], [[0.9, 0.3]], [[np.nan, 1]]])
def test_wrong_probabilities_are_errors(values: list[list[float]]) -> None:
    with pytest.raises(UsageError):
        Decision(CLASSES).apply(values)


def test_the_label_without_an_answer_is_not_a_class() -> None:
    assert Decision(CLASSES, threshold=0.95).with_label("?").apply(VALUES).labels.tolist() == ["?"] * 3
    with pytest.raises(UsageError, match="abstain_label"):
        Decision(CLASSES).with_label("sick")


def test_a_class_with_the_separator_is_an_error_in_texts() -> None:
    found = Decision(("a|b", "c"), sets=SetRule(0.9, "image", "lac", (0.4,))).apply(VALUES)
    with pytest.raises(UsageError, match="separator"):
        found.set_texts()
    assert found.set_texts(";") == ["a|b", "a|b", "c"]


OPTIONS: list[dict[str, Any]] = [
    {"threshold": ["sick:sensitivity>=.9", "well=.4"], "abstain": 0.2, "sets": 0.8},
    {"cost_matrix": {"well": {"sick": 1, "abstain": 0.2}, "sick": {"well": 5, "abstain": 0.5}}},
    {"threshold": "macro_f1", "sets": 0.8, "sets_for": "class", "set_score": "raps"},
    {"abstain": 0.0001},
    {"sets": 0.999},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda one: "-".join(one))
def test_a_decision_survives_json_and_toml(options: dict[str, Any]) -> None:
    decision = fitted(**options).decision
    record = decision.to_dict()
    for back in (json.loads(json.dumps(record)), parse_toml(f"decision = {toml_value(record)}")["decision"]):
        again = Decision.from_json(back, CLASSES)
        assert again.to_dict() == record
        one, other = decision.apply(VALUES), again.apply(VALUES)
        assert one.labels.tolist() == other.labels.tolist()
        if one.sets is not None and other.sets is not None:
            assert (one.sets == other.sets).all()


def _changed(path: str, value: Any) -> dict[str, Any]:
    record = copy.deepcopy(fitted(**OPTIONS[0]).decision.to_dict())
    *parents, last = path.split(".")
    place = record
    for name in parents:
        place = place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return record


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema", 2),
        ("classes", ["well"]),
        ("classes", ["well", "well"]),
        ("classes", ["well", "sick\x1b[2J"]),
        ("unit", "pixel"),
        ("confidence", 2.0),
        ("abstain_label", "sick"),
        ("abstain_label", ""),
        ("source.people", -1),
        ("source.extra", "x"),
        ("extra", 1),
        ("source", None),
        ("labels.thresholds", {"ill": 0.3}),
        ("labels.thresholds", {"sick": 0.0}),
        ("labels.thresholds", {"sick": float("nan")}),
        ("labels.thresholds", {}),
        ("labels.kind", "costs"),
        ("labels.kind", "eval"),
        ("labels.costs", {"well": {"well": 0.0}}),
        ("labels.status", ["proven"]),
        ("labels.scores", [{"measure": "x"}]),
        ("abstention.threshold", 1.5),
        ("abstention.error", 0),
        ("sets.limits", [0.1, 0.2]),
        ("sets.limits", [float("inf")]),
        ("sets.level", 1.0),
        ("sets.score", "os.system"),
        ("sets.guarantee", "x" * 3000),
    ],
)
def test_a_wrong_record_is_an_error_that_names_the_file(path: str, value: Any) -> None:
    with pytest.raises(EnsembleError, match=r"model\.toml"):
        Decision.from_json(_changed(path, value), source="model.toml")


def test_other_classes_than_those_of_the_model_are_an_error() -> None:
    with pytest.raises(EnsembleError, match="the rules are for the classes well, sick"):
        Decision.from_json(fitted(sets=0.8).decision.to_dict(), ("sick", "well"))


def test_deep_and_large_records_are_errors() -> None:
    deep: Any = []
    for _ in range(200):
        deep = [deep]
    for record in (deep, {"schema": 1, "classes": [deep]}, None, 3, "x", {"classes": [["a"] * 3_000_000]}):
        with pytest.raises(EnsembleError):
            Decision.from_json(record)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_RECORD = fitted(**OPTIONS[0]).decision.to_dict()
# Also the fields of a score.
_PATHS: list[tuple[Any, ...]] = [("sets", "scores", 0, key) for key in _RECORD["sets"]["scores"][0]]
_PATHS += [(name,) for name in _RECORD] + [
    (name, key) for name in ("labels", "abstention", "sets") for key in _RECORD[name]
]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(_PATHS), _JSON)
def test_any_value_in_any_field_is_read_or_is_an_error(path: tuple[str, ...], value: Any) -> None:
    record = copy.deepcopy(_RECORD)
    place = record
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    try:
        found = Decision.from_json(record)
    except EnsembleError:
        return
    if len(found.classes) == 2:
        assert len(found.apply(VALUES)) == 3


def test_a_rule_that_answers_nothing_says_so() -> None:
    report = fitted(abstain=0.0001)
    assert report.decision.answers_nothing
    assert report.decision.threshold == NEVER
    assert report.decision.apply([[1.0, 0.0]]).labels.tolist() == ["abstain"]
    assert "every image stays unanswered" in report.warnings[0]
    assert report.scores["answered"].interval.value == 0


def test_sets_of_everything_are_said() -> None:
    report = fitted(sets=0.999)
    assert report.decision.sets is not None
    assert report.decision.sets.limits == (EVERYTHING,)
    assert "need 999 people" in report.warnings[0]
    assert report.scores["mean set size"].interval.value == 2


@pytest.mark.parametrize(
    ("low", "high", "target", "at_least", "verdict"),
    [
        (0.91, 0.99, 0.9, True, "shown"),
        (0.85, 0.99, 0.9, True, "not shown"),
        (0.5, 0.8, 0.9, True, "missed"),
        (0.01, 0.04, 0.05, False, "shown"),
        (0.06, 0.1, 0.05, False, "missed"),
        (float("nan"), float("nan"), 0.9, True, "not shown"),
    ],
)
def test_verdicts(low: float, high: float, target: float, at_least: bool, verdict: str) -> None:
    assert MeasuredValue("m", Interval(0.9, low, high), target, at_least).verdict == verdict


def test_the_source_is_named() -> None:
    source = fitted(sets=0.8).decision.source
    assert (source.people, source.images, source.kind, source.basis) == (120, 360, "arrays", "unknown")
    assert len(source.sha) == 64
    assert source != DecisionSource()
