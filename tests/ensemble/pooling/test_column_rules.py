"""Labels and numbers of a person's images are pooled column by column, and a person's labels are those of any image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ensemble.pooling.bags import Bags
from ensemble.pooling.columns import ColumnPooling
from ensemble.pooling.evidence import learned_numbers, number_statistics
from ensemble.pooling.people import people_rows
from ensemble.pooling.pooling import Pooling
from ensemble.pooling.spec import FIXED, parse_pool, rules_of
from folds.errors import EnsembleError
from folds.metrics.task_names import MULTILABEL, REGRESSION
from folds.predictions.rows import SampleRows

CODES = np.array([2, 0, 2, 1, 2, 0, 2, 4], np.int64)  # person 3 has no image
BAGS = Bags(CODES, 5)
RANDOM = np.random.default_rng(0)
CHANCES, NUMBERS = RANDOM.random((8, 2)), RANDOM.normal(50, 20, (8, 2))
NAMES = ("hat", "beard")
# Fitted to two runs and two labels, or two numbers.
LABELS = tuple(
    Pooling("log-odds", runs=("a", "b"), damping=np.array([0.25, 1]), prior=np.array([[1 - p, p], [0.5, 0.5]]))
    for p in (0.3, 0.1)
)
OF_LABELS = ColumnPooling("log-odds", runs=("a", "b"), columns=NAMES, each=LABELS)
OF_NUMBERS = ColumnPooling(
    "learned", runs=("a", "b"), task=REGRESSION, columns=NAMES, linear=RANDOM.normal(size=(2, 2, 7)).round(6)
)


@pytest.mark.parametrize("rule", FIXED)
def test_a_label_is_pooled_as_two_classes_are(rule: str) -> None:
    found = ColumnPooling(rule, columns=NAMES, k=2).apply("a", CHANCES, BAGS)
    for column in range(2):
        p = CHANCES[:, column]
        two = Pooling(rule, k=2).apply("a", np.stack([1 - p, p], axis=1), BAGS)
        np.testing.assert_allclose(found[:, column], two[:, 1], atol=1e-12)


def test_numbers_are_pooled_by_numpy_s_definition() -> None:
    own = NUMBERS[CODES == 2]
    expected = {
        "mean": own.mean(axis=0),
        "median": np.median(own, axis=0),
        "max": own.max(axis=0),
        "top-k": np.sort(own, axis=0)[-3:].mean(axis=0),
    }
    assert rules_of(REGRESSION) == (*expected, "learned")
    for rule, values in expected.items():
        found = ColumnPooling(rule, task=REGRESSION, columns=NAMES).apply("a", NUMBERS, BAGS)
        np.testing.assert_allclose(found[2], values)
        assert not found[3].any()
    ends = np.median(own, axis=0), own.min(axis=0), own.max(axis=0)
    each = np.array([own.mean(axis=0), *ends, own.std(axis=0), np.full(2, np.log(4))])
    np.testing.assert_allclose(number_statistics(NUMBERS, BAGS)[:, 2], each)
    linear = np.array([[1, 0, 0, 0, 0, 2, 5.0], [0, 1, 0, 0, 0, 0, 0]])
    found = learned_numbers(NUMBERS, BAGS, linear)
    np.testing.assert_allclose(found[2], [each[0, 0] + 2 * np.log(4) + 5, each[1, 1]])
    assert not found[3].any()


@pytest.mark.parametrize("one", [ColumnPooling("top-k", k=2, columns=NAMES), OF_LABELS, OF_NUMBERS])
def test_a_rule_is_written_read_and_applied_in_another_order(one: ColumnPooling) -> None:
    read = ColumnPooling.of_record(one.as_record(), NAMES, one.task, "blend.toml")
    values = CHANCES if one.task == MULTILABEL else NUMBERS
    np.testing.assert_allclose(read.apply("b", values, BAGS), one.apply("b", values, BAGS), atol=1e-6)
    turned = read.in_order(NAMES[::-1]).apply("b", values[:, ::-1], BAGS)
    np.testing.assert_allclose(turned[:, ::-1], read.apply("b", values, BAGS))
    with pytest.raises(EnsembleError, match="a pooling rule of hat, beard cannot be applied to"):
        read.in_order(("hat", "scarf"))
    if one.runs:
        with pytest.raises(EnsembleError, match="was not fitted to the run 'c'"):
            read.apply("c", values, BAGS)


@pytest.mark.parametrize(
    ("one", "change"),
    [
        (OF_LABELS, {"each": []}),
        (OF_LABELS, {"runs": []}),
        (OF_LABELS, {"linear": [[[0.0]]]}),
        (OF_LABELS, {"other": 1}),
        (OF_LABELS, {"each": [{"damping": [0.5, 1], "prior": [[0.5, 0.5]] * 2, "k": 1}] * 2}),
        (OF_LABELS, {"each": [{"damping": [0.5, 2], "prior": [[0.5, 0.5]] * 2}] * 2}),
        (OF_NUMBERS, {"rule": "noisy-or"}),
        (OF_NUMBERS, {"linear": [[[1.0] * 6] * 2] * 2}),
        (OF_NUMBERS, {"linear": None}),
    ],
)
def test_a_record_that_is_wrong_is_refused(one: ColumnPooling, change: dict[str, Any]) -> None:
    with pytest.raises(EnsembleError, match=r"blend\.toml.*pooling: "):
        ColumnPooling.of_record(one.as_record() | change, NAMES, one.task, "blend.toml")


def test_a_person_has_the_labels_of_any_image_and_the_mean_of_the_numbers() -> None:
    persons, ids = np.array(["b", "a", "b", "c"]), np.array(list("0123"))
    rows = SampleRows(ids, np.array(["?hat", "?beard", "hat", ""]), persons, {"site": np.array(list("xyxz"))})
    for rule in ("mean", "max"):
        made = people_rows(rows, NAMES, "oof", ColumnPooling(rule, columns=NAMES))
        assert made.rows.ids.tolist() == ["a", "b", "c"]
        assert made.rows.labels is not None
        assert made.rows.labels.tolist() == ["?beard", "hat", ""]
        assert made.rows.attributes["site"].tolist() == ["y", "x", "z"]
    rows = replace(rows, labels=np.array(["hat=3", "hat=1;beard=2", "hat=6;beard=8", ""]))
    made = people_rows(rows, NAMES, "oof", ColumnPooling("max", task=REGRESSION, columns=NAMES))
    assert made.rows.labels is not None
    assert made.rows.labels.tolist() == ["hat=1;beard=2", "hat=4.5;beard=8", ""]
    assert made.mixed == 1


def test_the_spelling_of_a_rule_is_that_of_classes() -> None:
    assert ColumnPooling("top-k", k=2, columns=NAMES).text == parse_pool("top-k:k=2").text
