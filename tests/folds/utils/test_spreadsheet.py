from __future__ import annotations

import pytest

from folds.utils.csv_table import csv_text
from folds.utils.spreadsheet import guarded, guarded_columns, unguarded

PLAIN = ["cat", "", "a=b", "a+b", "-1", "+2.5e3", "-12%", "'", "'cat", "''", " =1", "x\ty"]
FORMULAS = ["=1+2", "+cmd", "-x", "@sum", "\tx", "\rx", "-", "-1+2", '="a"']


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_becomes_a_text_that_is_given_back(text: str) -> None:
    assert guarded(text) == f"'{text}"
    assert unguarded([guarded(text)]) == [text]
    twice = guarded(guarded(text))  # the text is that of another name
    assert (twice, unguarded([twice])) == (f"''{text}", [f"'{text}"])


def test_other_texts_stay_as_they_are() -> None:
    assert [guarded(text) for text in PLAIN] == PLAIN == unguarded(PLAIN)
    columns = {"id": PLAIN, "label": PLAIN}
    assert csv_text(guarded_columns(columns)) == csv_text(columns)
    assert guarded_columns({"-a": ["@b"]}) == {"'-a": ["'@b"]}


def test_a_name_that_is_known_with_its_apostrophe_keeps_it() -> None:
    assert unguarded(["'=a"], {"'=a"}) == ["'=a"]  # a table written by hand
    assert unguarded(["'=a"], {"=a"}) == ["=a"]
    assert unguarded(["'=a", "''=a"], {"=a", "'=a"}) == ["=a", "'=a"]
    assert unguarded(["=a", "'=a"], {"=a", "'=a"}) == ["=a", "'=a"]  # written by hand, too
