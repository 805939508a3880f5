"""Guard the texts of tables that are written to be looked at against spreadsheets, which run formulas in them.

A cell of a CSV that begins with =, +, -, @, a tab or a carriage return is a formula for a spreadsheet, no matter who
wrote the name of the image or the label that it holds. In tables for people such a text gets an apostrophe before it,
which every spreadsheet shows as text. A text of apostrophes before such a mark gets one, too, so that no two texts
become the same and `unguarded` gives each of them back. Numbers stay as they are: a spreadsheet shows -1 as -1.

Tables for programs are not guarded: an id in a submission, in folds.csv or beside predictions is compared byte by byte.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

_FORMULA = re.compile(r"[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?[0-9.,]+(e[+-]?[0-9]+)?%?", re.IGNORECASE)


def _is_formula(text: str) -> bool:
    """Return whether a text, without apostrophes before it, is a formula for a spreadsheet."""
    bare = text.lstrip("'")
    return _FORMULA.match(bare) is not None and _NUMBER.fullmatch(bare) is None


def guarded(text: str) -> str:
    """Return a text with an apostrophe before it if a spreadsheet would take it for a formula; others as they are.

    Examples
    --------
    >>> guarded("=1+2"), guarded("a=b"), guarded("-1.5")
    ("'=1+2", 'a=b', '-1.5')
    """
    return f"'{text}" if _is_formula(text) else text


def unguarded(cells: Sequence[str], known: Collection[str] = ()) -> list[str]:
    """Return the texts of a column that `guarded` was given.

    A column with a formula that is not guarded was not written by `guarded`, and stays as it is.

    Parameters
    ----------
    known : names that the texts may be: one that is known only with its apostrophe, as in a table written by hand,
        keeps it.
    """
    if any(cell[:1] != "'" and _is_formula(cell) for cell in cells):
        return list(cells)

    def plain(text: str) -> str:
        if text[:1] != "'" or not _is_formula(text):
            return text
        return text if text in known and text[1:] not in known else text[1:]

    return list(map(plain, cells))


def guarded_columns(columns: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return the columns of a table, with its header, with every text guarded."""
    return {guarded(name): list(map(guarded, cells)) for name, cells in columns.items()}
