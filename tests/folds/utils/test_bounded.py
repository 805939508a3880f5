"""Values, files and patterns of strangers are limited before they are used."""

import os
import re

import pytest

from folds.errors import UsageError
from folds.utils import bounded
from folds.utils.bounded import check_bounded, read_bounded, search_each, text_room


def test_ordinary_values_are_within_the_bounds():
    check_bounded({"a": [1, 2.0, "x", None, {"b": (True,)}]})


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_repetition_counts_each_time(kind):
    value = kind(["x"])
    for _ in range(15):
        value = kind([value] * 100)
    with pytest.raises(ValueError, match="holds more than 20,000,000 values"):
        check_bounded(value)
    twice = kind([kind(["x"] * 5)] * 2)
    check_bounded(twice, values=12)
    with pytest.raises(ValueError, match="holds more than 11 values"):
        check_bounded(twice, values=11)


def test_depth_is_limited_without_recursion():
    value: list = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ValueError, match="nested more than 20"):
        check_bounded(value)


def test_numbers_with_too_many_digits_are_refused():
    with pytest.raises(ValueError, match="digits"):
        check_bounded({"a": 10**50_000})


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="not a regular file"):
        read_bounded(tmp_path / "pipe", 10)
    with pytest.raises(IsADirectoryError):
        read_bounded(tmp_path, 10)
    (tmp_path / "file").write_bytes(b"x" * 11)
    with pytest.raises(ValueError, match="more than 10 bytes"):
        read_bounded(tmp_path / "file", 10)
    assert read_bounded(tmp_path / "file", 11) == b"x" * 11


def test_a_search_finds_the_group_of_each_text():
    pattern = re.compile(r"(?P<person>\w+?)_(\d+)")
    assert search_each(pattern, "person", ["ann_1", "none", "é_22"], "p") == ["ann", None, "é"]
    assert search_each(re.compile("a"), 0, ["ba", "b"], "p") == ["a", None]


def test_a_pattern_that_never_ends_is_refused(monkeypatch):
    monkeypatch.setattr(bounded, "_SECONDS", 0.5)
    with pytest.raises(UsageError, match=r"takes more than .* too many ways") as caught:
        search_each(re.compile("(a+)+$"), 0, ["a" * 60 + "!"], "person_regex")
    assert "`person_regex" in caught.value.message


def test_one_long_text_among_many_has_no_room():
    assert text_room(["a"] * 100_000 + ["x" * 10_000]).startswith("one entry has 10,000 characters")
    assert text_room(["x" * 100] * 1_000) == ""
    assert text_room([]) == ""
