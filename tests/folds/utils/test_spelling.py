from __future__ import annotations

import unicodedata

import pytest

from folds.utils.spelling import is_placeholder, spelling_key, spelling_text, spellings

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Bär") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    "names",
    [
        ("12", "12.0", "0012", "+12", "12.", " 12 ", "１２"),
        ("-3", "-3.0", "-03"),
        ("0", "0.0", "-0", "000", "-0.0"),
        (".5", "0.5", "0.50", "00.5"),
        ("P7", "p7", "P7\u200b", "\ufeffP7", "P7 "),
        (COMPOSED, DECOMPOSED, "bär", "BÄR"),
        ("John  Smith", "john smith", "John\u00a0Smith"),
        ("True", "TRUE", "true"),
    ],
)
def test_spellings_of_one_name_have_one_key(names: tuple[str, ...]) -> None:
    assert len({spelling_key(name) for name in names}) == 1
    assert spellings([*names, "other"]) == [tuple(sorted(names))]


@pytest.mark.parametrize(
    "names",
    [("12", "120", "1.2", "-12", "12a", "1e1", "10"), ("cat", "cat1", "cats"), ("a_b", "a-b", "ab"), ("²", "x2")],
)
def test_different_names_have_different_keys(names: tuple[str, ...]) -> None:
    assert len({spelling_key(name) for name in names}) == len(names)
    assert spellings(names) == []


@pytest.mark.parametrize("text", ["", " ", "NaN", "<NA>", "#N/A", "None", "NULL", "unknown", "-1", "-1.0", "n/a", "?"])
def test_placeholders_stand_for_missing_and_are_no_spellings(text: str) -> None:
    assert is_placeholder(text)
    assert spellings([text, text.upper(), text.lower()]) == []


@pytest.mark.parametrize("text", ["0", "1", "nano", "annie", "NA12", "unknown person 3"])
def test_names_are_no_placeholders(text: str) -> None:
    assert not is_placeholder(text)


def test_the_text_shows_what_looks_the_same() -> None:
    assert spelling_text(["cat", "cat\u200b"]) == "'cat' and 'cat\\u200b'"
    assert spelling_text([COMPOSED, DECOMPOSED]) == f"'{COMPOSED}' (NFC) and '{DECOMPOSED}' (NFD)"
    assert spelling_text(["12", "12.0"]) == "'12' and '12.0'"
