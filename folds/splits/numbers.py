"""Read the numbers of folds that a table holds: whole numbers from 0, or from 1 as some programs count."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from folds.errors import combine_errors

logger = logging.getLogger(__name__)


def fold_numbers(cells: Sequence[str], locations: Sequence[str], source: str, what: str = "folds") -> NDArray[np.int64]:
    """Return (n,) the fold of each row, 0 to k-1, or 0 and -1 for one held-out part.

    ``3.0`` is 3, because pandas writes a column of integers with missing values so. Folds 1 to k without gaps become 0
    to k-1, which is logged.

    Parameters
    ----------
    what : name of the numbers in the error.

    Raises
    ------
    EnsembleError : a cell is no such number.
    """
    number = {cell: _number(cell, len(cells)) for cell in set(cells)}
    values = set(number.values())
    # -1 (training only) is valid with one held-out part; with several folds it is an error.
    held_out = values == {-1, 0}
    strange = {cell for cell, value in number.items() if value is None or (value < 0 and not held_out)}
    if strange:
        raise combine_errors(
            [f"{locations[i]}: '{cell}'" for i, cell in enumerate(cells) if cell in strange],
            f"{what} of {source} are not whole numbers from 0",
            hint="expected 0 to k-1 (or 1 to k) in the column of the folds, or 0 and -1 for one held-out part",
        )
    fold = np.fromiter((number[cell] or 0 for cell in cells), np.int64, len(cells))
    if len(values) > 1 and values == set(range(1, len(values) + 1)):
        logger.info(f"the folds of {source} are counted from 1: its fold 1 is fold 0 here")
        return fold - 1
    return fold


def _number(cell: str, n_samples: int) -> int | None:
    text = cell.removesuffix(".0")
    if text == "-1":
        return -1
    # There cannot be more folds than samples; a huge fold number would allocate huge tables later.
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 and int(text) <= n_samples else None
