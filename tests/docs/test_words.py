"""README and docs/ use the field's terms and American spelling."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, name_of, prose

# Words of the old dialect → what to write.
DIALECT = {
    r"honest\w*": "nested, unbiased, leakage-free",
    r"believ\w+": "report, use",
    r"flatter\w*": "optimistic, inflates",
    r"hopeless": "unpromising",
    r"distinguish\w+": "significant",
    r"learnt": "fitted, trained",
    r"too good by": "optimism",
    r"built-in people|drawn people": "synthetic faces",
    r"the whole road": "the full pipeline",
    r"tells? the truth|told the truth": "agrees with the test score",
    r"the truth": "the true value, the test score",
    r"by heart": "memorize",
    r"a word|with a word": "reported",
    r"the program (?:says|knows|thinks)": "is printed, is reported",
    r"nobody": "no person, none",
    r"whoever|whosoever": "if you",
    r"(?:normal|recogn|optim|minim|equal|regular|memor)is(?:e|es|ed|ing|ation)": "American spelling: -ize",
    r"colours?|favours?|neighbours?|behaviour|centre|grey": "American spelling",
    r"95 %": "95%",
}
# Quoted values and file names are not prose.
CODE = re.compile(r"`[^`]*`|\]\([^)]*\)")


def dialect(text: str) -> list[str]:
    """Return the words of the old dialect in a text, each with what to write instead."""
    text = CODE.sub("", text)
    return [
        f"{found[0]} → {better}"
        for pattern, better in DIALECT.items()
        for found in re.finditer(rf"\b(?:{pattern})(?!\w)", text, flags=re.IGNORECASE)
    ]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_has_no_word_of_the_old_dialect(page: Path) -> None:
    assert dialect(prose(page)) == []


def test_the_old_dialect_is_found_and_code_is_left_out() -> None:
    assert [found.split(" → ")[0] for found in dialect("An honest score of colours, `--fill grey`, 95 % of it.")] == [
        "honest",
        "colours",
        "95 %",
    ]
