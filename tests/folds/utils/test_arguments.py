"""Arguments of public functions: types, and the words of their errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from folds.errors import UsageError
from folds.utils.arguments import (
    FLAG,
    FOLDS,
    NAME,
    NAMES,
    NUMBER,
    PATH,
    check_arguments,
    described,
    list_of,
    mapping_to,
    whole,
)
from folds.utils.schema import optional

NUMBERS = list_of(NUMBER, "numbers")


@pytest.mark.parametrize(
    ("kind", "valid", "invalid"),
    [
        (FLAG, [True, False, np.True_], ["no", 0, 1, None, np.int64(1)]),
        (whole(), [0, -3, np.int64(5)], [True, 1.0, "1", None, np.True_]),
        (whole(1), [1, np.uint8(2)], [0, -1, 1.5]),
        (NUMBER, [0, 1.5, np.float32(2), float("nan")], ["1", True, None, [1]]),
        (NAME, ["a", ""], [None, 3, b"a", Path("a")]),
        (NAMES, ["a", ["a", "b"], ("a",), np.array(["a"]), pd.Series(["a"])], [3, ["a", 3], {"a"}, {"a": 1}]),
        (PATH, ["a", Path("a")], [None, 3, ["a"]]),
        (FOLDS, [0, [0, 1], np.array([2]), range(3)], ["0", -1, [0.0], True]),
        (NUMBERS, [[1, 2.5], np.array([0.5, 0.5])], [1, "12", np.eye(2), {"a": 1}, [1, "x"]]),
        (mapping_to(NUMBER, "a"), [{}, {"a": 1}, pd.Series({"a": 1}).to_dict()], [["a"], {"a": "x"}, None]),
    ],
    ids=lambda one: getattr(one, "expected", ""),
)
def test_a_type_holds_its_values_and_no_others(kind: Any, valid: list[Any], invalid: list[Any]) -> None:
    for value in valid:
        check_arguments({"x": value}, {"x": kind})
    for value in invalid:
        with pytest.raises(UsageError, match="x must be "):
            check_arguments({"x": value}, {"x": kind})


def test_an_optional_argument_may_be_none() -> None:
    check_arguments({"x": None, "other": object()}, {"x": optional(NAME)})
    with pytest.raises(ValueError, match="x must be text, found 3"):
        check_arguments({"x": 3}, {"x": optional(NAME)})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("no", "'no'"),
        (None, "None"),
        ([1, "a"], "[1, 'a']"),
        ({"lr": 3}, "{'lr': 3}"),
        (np.zeros((3, 2)), "an array of shape 3 × 2"),
        (pd.DataFrame({"a": [1]}), "a DataFrame of shape 1 × 1"),
        ([np.zeros(3)], "a list"),
        ({"a": object()}, "a dict"),
        (object(), "an object"),
        ("x" * 100, "'" + "x" * 58 + "…"),
    ],
    ids=lambda value: type(value).__name__,  # no address of an object, so that all processes have the same names
)
def test_a_value_found_is_described_in_one_line(value: Any, text: str) -> None:
    assert described(value) == text
