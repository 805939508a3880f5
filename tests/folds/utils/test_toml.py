"""TOML of a stranger is read within limits, and refused with one kind of error."""

import pytest

from folds.utils.toml import MAX_PARTS, parse_toml, read_toml, toml_value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = " + "[" * 2000 + "]" * 2000, "nested too deep"),
        ("x = " + "[" * 60 + "]" * 60, "nested more than 40"),
        ("x = " + "1" * 5000, "digits"),
        ("a." * 30_000 + "a = 1", "more than 40 parts"),
        ("x = {" + "'a'." * 30_000 + "a = 1}", "more than 40 parts"),
        ("x = 0x" + "f" * 20_000, "digits"),
        ("".join(f"[{i:x}." + "a." * 37 + "a]\n" for i in range(11_000)), "keys, tables and lists"),
        ("".join(f"{i:x} = 1\n" for i in range(MAX_PARTS + 1)), "keys, tables and lists"),
        ("x = [" + "{}, " * MAX_PARTS + "]", "keys, tables and lists"),
        ("x = ", "Invalid value"),
    ],
)
def test_hostile_toml_is_refused(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_toml(text)


def test_ordinary_toml_is_read():
    assert parse_toml('a.b.c = [0.1, 0.2]\nd = "1.2.3"') == {"a": {"b": {"c": [0.1, 0.2]}}, "d": "1.2.3"}
    assert parse_toml(f"x = {toml_value({'a': [1, True, 'x']})}") == {"x": {"a": [1, True, "x"]}}


def test_a_million_numbers_are_no_keys():
    rows = ", ".join(["[" + ", ".join(["0.25"] * 1000) + "]"] * 1000)
    assert sum(map(len, parse_toml(f"x = [{rows}]")["x"])) == 10**6


def test_a_pipe_is_not_read(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(ValueError, match="not a regular file"):
        read_toml(tmp_path / "pipe.toml")
