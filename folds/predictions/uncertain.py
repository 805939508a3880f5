"""Read the labels that a table calls uncertain, -1 as in CheXpert, as not known, absent or present."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from folds.errors import unknown_name
from folds.metrics.task_names import UNCERTAIN

UNCERTAIN_CELLS = frozenset({"-1", "-1.0", "-1."})
HINT = (
    "`uncertain=unknown` reads -1 as an empty cell (not known), `uncertain=absent` as 0 and `uncertain=present` as 1; "
    "or replace it in the table"
)
_CELLS = dict(zip(UNCERTAIN, ("", "0", "1"), strict=True))
_MEANINGS = dict(zip(UNCERTAIN, ("an empty cell, not known", "0, absent", "1, present"), strict=True))
_NAMED_AT_MOST = 30


def check_uncertain(uncertain: str | None) -> None:
    """Raise UsageError if it is no way to read uncertain labels; None is an error where there are such labels."""
    if uncertain not in (None, *UNCERTAIN):
        raise unknown_name("`uncertain`", str(uncertain), list(UNCERTAIN))


def decided_cells(cells: Sequence[str], uncertain: str) -> tuple[list[str], int]:
    """Return cells of labels with those of -1 replaced by what they are read as, and the number of replaced ones.

    Parameters
    ----------
    uncertain : one of `UNCERTAIN`.

    Raises
    ------
    UsageError : it is none of them.

    Examples
    --------
    >>> decided_cells(["1", "-1", "0", "-1.0"], "absent")
    (['1', '0', '0', '0'], 2)
    """
    check_uncertain(uncertain)
    found = [cell.strip() in UNCERTAIN_CELLS for cell in cells]
    instead = _CELLS[uncertain]
    return [instead if is_one else cell for cell, is_one in zip(cells, found, strict=True)], sum(found)


def uncertain_text(uncertain: str, counts: Mapping[str, int]) -> str:
    """Return what uncertain labels are read as, with their number for each label; "" if there are none.

    Parameters
    ----------
    counts : label → number of its uncertain cells.

    Examples
    --------
    >>> uncertain_text("absent", {"Edema": 12, "Mass": 0, "Nodule": 3})
    '15 uncertain labels (-1) are read as 0, absent: Edema 12, Nodule 3'
    """
    some = {name: count for name, count in counts.items() if count}
    if not some:
        return ""
    listed = ", ".join(f"{name} {count:,}" for name, count in list(some.items())[:_NAMED_AT_MOST])
    more = f", {len(some) - _NAMED_AT_MOST} more" if len(some) > _NAMED_AT_MOST else ""
    total = sum(some.values())
    which = "1 uncertain label (-1) is" if total == 1 else f"{total:,} uncertain labels (-1) are"
    return f"{which} read as {_MEANINGS[uncertain]}: {listed}{more}"
