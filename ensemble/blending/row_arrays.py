"""Read what is known of the rows of arrays in memory: their ids, persons and folds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from folds.errors import UsageError
from folds.metrics.arrays import check_same_index, fold_numbers, names_of
from folds.utils.arguments import wrong_argument


@dataclass(frozen=True)
class RowArrays:
    """The true label, person, fold and id of each row of all arrays, as given; None if not given."""

    y: ArrayLike | None = None
    groups: ArrayLike | None = None
    fold: ArrayLike | None = None
    ids: ArrayLike | None = None

    def check_unused(self) -> None:
        """Raise UsageError if one of them is given: for predictions that are all `Predictions`."""
        if any(value is not None for value in (self.y, self.groups, self.fold, self.ids)):
            raise UsageError(
                "`y`, `groups`, `fold` and `ids` apply to arrays, found only `Predictions`, which contain them",
                hint="remove `y`, `groups`, `fold` and `ids`",
            )

    def names(self, n: int, mixed: bool) -> NDArray[np.str_]:
        """Return (n,) the ids; the numbers of the rows if none are given.

        Parameters
        ----------
        mixed : whether the arrays are combined with `Predictions`, which are aligned by id.

        Raises
        ------
        UsageError : ids are missing or not unique, or of another length.
        """
        if self.ids is None and mixed:
            raise UsageError(
                "arrays and `Predictions` are aligned by id, found no `ids`", hint="pass the id of each row as `ids`"
            )
        names = np.arange(n).astype(str) if self.ids is None else names_of(self.ids, "ids", n)
        if len(set(names.tolist())) < n:
            raise UsageError("`ids` names a sample twice", hint="keep one row per sample")
        return names

    def persons(self, n: int) -> NDArray[np.str_] | None:
        """Return (n,) the persons; None if unknown."""
        return None if self.groups is None else names_of(self.groups, "groups", n)

    def folds(self, arrays: Mapping[str, Any], n: int) -> NDArray[np.int64] | None:
        """Return (n,) the fold of each row, None if unknown, after a check that all of `arrays` have the same index.

        Raises
        ------
        UsageError : a fold is not a whole number from 0, or rows are in different orders.
        """
        folds = None if self.fold is None else fold_numbers(self.fold, n)
        if isinstance(folds, int):
            raise wrong_argument("fold", f"whole numbers from 0, one for each of {n:,} rows", self.fold)
        given = {f"'{name}'": value for name, value in arrays.items()}
        check_same_index({**given, "`y`": self.y, "`groups`": self.groups, "`fold`": self.fold, "`ids`": self.ids})
        return folds
