from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folds.errors import UsageError
from folds.runs.run import file_safe
from folds.utils.schema import (
    ANYTHING,
    BOOL,
    FILE_SAFE,
    NUMBER,
    ONE_LINE,
    TEXT,
    FieldType,
    either,
    integer,
    list_of,
    mapping_of,
    one_of,
    optional,
    shown,
    validate_fields,
)

KINDS = [
    ANYTHING,
    FILE_SAFE,
    ONE_LINE,
    NUMBER,
    TEXT,
    BOOL,
    integer(0, 9),
    one_of("a", "b"),
    list_of(TEXT, 2),
    mapping_of(NUMBER),
    either(TEXT, BOOL),
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inside: st.lists(inside) | st.dictionaries(st.text() | st.integers(), inside) | st.tuples(inside),
)


@given(VALUES)
def test_any_value_can_be_validated_and_shown_in_one_line(value: Any) -> None:
    for kind in KINDS:
        assert isinstance(kind.holds(value), bool)
    assert "\n" not in shown(value)
    assert len(shown(value)) <= 60


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        (integer(1, 3), [1, 3], [0, 4, True, 2.0, "2", None]),
        (NUMBER, [1, -2.5, 10**300], [True, float("nan"), float("inf"), "1", 10**400, -(10**400)]),
        (
            ONE_LINE,
            ["", "a b", "Ärmel", "不"],
            ["a\nb", "\x1b[31m", "\x7f", "\x9b2J", "\u2028", "\u202eabc", "\ud800", 1, None],
        ),
        (mapping_of(NUMBER, ONE_LINE), [{"a": 1}], [{"a\n": 1}]),
        (
            FILE_SAFE,
            ["swin", "a.b-c_d", "resnet18.a1_in1k", "_"],
            ["", ".", "..", "-x", ".x", "a/b", "a b", "a\n", "a-", "ä", "/", "\0"],
        ),
        (list_of(TEXT, 2), [["a", "b"], ("a", "b")], ["ab", ["a"], ["a", 1], {"a": 1, "b": 2}]),
        (mapping_of(NUMBER), [{}, {"a": 1}], [{1: 1}, {"a": "b"}, [], None]),
        (one_of("off"), ["off"], ["on", ["off"], None]),
    ],
)
def test_a_kind_holds_what_it_names_and_nothing_else(kind: FieldType, right: list[Any], wrong: list[Any]) -> None:
    assert [kind.holds(value) for value in right] == [True] * len(right)
    assert [kind.holds(value) for value in wrong] == [False] * len(wrong)


@given(st.text(max_size=30))
def test_every_name_that_a_run_can_get_is_safe_for_a_file(name: str) -> None:
    try:
        given_name = file_safe(name)
    except UsageError:
        return
    assert FILE_SAFE.holds(given_name)


def test_each_wrong_field_is_a_line_and_optional_may_be_absent() -> None:
    table = {"run": TEXT, "fold": integer(), "seed": optional(integer())}
    assert validate_fields({"run": "a", "fold": 0, "seed": None}, table) == []
    assert validate_fields({"run": 5, "more": 1}, table) == [
        "'run' is 5, expected text",
        "'fold' is missing, expected a whole number from 0",
    ]
    assert validate_fields({"run": "a", "fold": 1, "more": 1}, table, others=False) == ["'more' is not known"]
    assert validate_fields([1], table) == ["expected names with values, found [1]"]


def test_a_value_that_cannot_be_printed_is_shown_by_its_type() -> None:
    assert shown(10**10000) == "of type int"
