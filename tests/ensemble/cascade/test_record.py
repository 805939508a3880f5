"""The record of a cascade is read back as it was, and what does not fit is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ensemble.cascade.record import Cascade, Step
from folds.errors import EnsembleError

VIEWS, FOLDS = {"a": 2, "b": 1}, {"a": 5, "b": 3}
CASCADE = Cascade(
    (Step({"a": 1}, 1, 0.8), Step({"a": 1, "b": 1}, 3, 0.25), Step({"a": 2, "b": 1}, 3, 0.0)),
    tolerance=0.001,
    metric="macro_f1",
    costs={"a": 1.5, "b": 4.0},
)


def read(record: Any) -> Cascade:
    return Cascade.from_json(record, VIEWS, FOLDS, "model.toml")


def test_a_cascade_is_read_back_as_it_was() -> None:
    assert read(json.loads(json.dumps(CASCADE.to_dict()))) == CASCADE
    exact = Cascade()
    assert read(exact.to_dict()) == exact


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": "x"}, "'steps'"),
        ({"steps": [{"views": {"a": 1}, "folds": 1, "threshold": 0.5}] * 65}, "at most 64"),
        ({"steps": [{"views": {"a": 1}, "folds": 1}]}, "step 0: 'threshold' is missing"),
        ({"steps": [{"views": {"x": 1}, "folds": 1, "threshold": 0.5}]}, "'x', which is no run"),
        ({"steps": [{"views": {"a": 3}, "folds": 1, "threshold": 0.5}]}, "expected 1 or all 2 views"),
        ({"steps": [{"views": {"b": 1}, "folds": 4, "threshold": 0.5}]}, "at most 3 models"),
        ({"steps": [{"views": {}, "folds": 1, "threshold": 0.5}]}, "one run or more"),
        ({"steps": [{"views": {"a": 1}, "folds": 1, "threshold": -0.5}]}, "'threshold' must be"),
        ({"steps": [{"views": {"a": 1}, "folds": 1, "threshold": float("nan")}]}, "'threshold'"),
        ({"steps": list(reversed(CASCADE.to_dict()["steps"]))}, "less than the step before"),
        ({"tolerance": 2.0}, "'tolerance'"),
        ({"costs": {"a": 0.0}}, "'costs'"),
        ({"costs": {"x": 1.0}}, "'costs' names 'x'"),
        ({"exact": 1}, "'exact'"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(EnsembleError) as caught:
        read(CASCADE.to_dict() | change)
    assert message in caught.value.message
    assert "model.toml" in caught.value.message


@pytest.mark.parametrize("record", [None, [], "x", 3])
def test_a_record_that_is_no_table_is_refused(record: Any) -> None:
    with pytest.raises(EnsembleError, match=r"model\.toml"):
        read(record)
