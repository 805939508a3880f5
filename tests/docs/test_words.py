"""README and docs/ use the field's terms and American spelling."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dialect import dialect
from tests.docs.pages import PAGES, name_of, prose


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_has_no_word_of_the_old_dialect(page: Path) -> None:
    assert dialect(prose(page)) == []


def test_the_old_dialect_is_found_and_code_is_left_out() -> None:
    assert [found.split(" → ")[0] for found in dialect("An honest score of colours, `--fill grey`, 95 % of it.")] == [
        "honest",
        "colours",
        "95 %",
    ]
