"""Provide the public functions `split` and `load_folds`: folds by person of tables, DataFrames and files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from folds.config.command_settings import Settings
from folds.config.contradictions import check_contradictions
from folds.data.face import training_table
from folds.errors import UsageError
from folds.splits.assignment import FoldAssignment
from folds.splits.assignment import load_folds as load_folds_file
from folds.splits.checks import check_folds
from folds.splits.columns import folds_of_column
from folds.splits.repeated import make_splits
from folds.utils.arguments import FLAG, NAME, NAMES, NUMBER, check_arguments, whole, wrong_argument
from folds.utils.schema import optional

if TYPE_CHECKING:
    from folds.data.face import Data

_KINDS = {
    "k": optional(whole()),
    "seed": whole(),
    "stratify": NAMES,
    "repair": FLAG,
    "repeats": whole(),
    "holdout": optional(NUMBER),
    **dict.fromkeys(("group_within", "leave_out"), optional(NAME)),
}


@overload
def split(
    data: Data | None = None,
    *,
    k: int | None = ...,
    seed: int = ...,
    stratify: str | Sequence[str] = ...,
    repair: bool = ...,
    repeats: Literal[1] = ...,
    holdout: float | None = ...,
    group_within: str | None = ...,
    leave_out: str | None = ...,
) -> FoldAssignment: ...
@overload
def split(
    data: Data | None = None,
    *,
    k: int | None = ...,
    seed: int = ...,
    stratify: str | Sequence[str] = ...,
    repair: bool = ...,
    repeats: int,
    holdout: float | None = ...,
    group_within: str | None = ...,
    leave_out: str | None = ...,
) -> FoldAssignment | list[FoldAssignment]: ...
def split(
    data: Data | None = None,
    *,
    k: int | None = None,
    seed: int = 0,
    stratify: str | Sequence[str] = (),
    repair: bool = True,
    repeats: int = 1,
    holdout: float | None = None,
    group_within: str | None = None,
    leave_out: str | None = None,
) -> FoldAssignment | list[FoldAssignment]:
    """Return folds by person (group): no person is in two folds, and classes are balanced over the folds.

    The folds are those of ``ensemble folds`` with the same settings.

    Parameters
    ----------
    data : result or argument of `read_table`; image files need not exist.
    k : number of folds, 5 by default.
    seed : random seed; it breaks ties between people and determines the repeats.
    stratify : columns to spread evenly besides the label.
    repair : whether to move and swap people if a fold lacks a class or is unbalanced.
    repeats : number of independent splits; above 1 the result is a list.
    holdout : fraction to hold out once, instead of making folds.
    group_within : column (site) to spread evenly over folds of whole people, recorded as the site.
    leave_out : column (site) with one fold for each value; sites that share a person are one fold.

    Raises
    ------
    UsageError : an invalid value, an unknown column, or two of `k`, `holdout` and `leave_out`.
    EnsembleError : the table has no labels or persons, or fewer people than folds.

    Examples
    --------
    >>> import folds, pandas as pd
    >>> people = [f"p{i // 3}" for i in range(30)]
    >>> frame = pd.DataFrame({"path": [f"{i}.jpg" for i in range(30)], "label": ["cat", "dog"] * 15, "person": people})
    >>> made = folds.split(frame, k=5)
    >>> made.k, len(made.frame()), made.check()
    (5, 30, [])
    """
    check_arguments(locals(), _KINDS)
    table = training_table(data)
    columns = (stratify,) if isinstance(stratify, str) else tuple(stratify)
    if repeats < 1:
        raise UsageError(f"`repeats` must be 1 or more, found {repeats}")
    given = {"k": k is not None, "holdout": holdout is not None, "stratify": bool(columns), "repeats": repeats > 1}
    given |= {"group_within": group_within is not None, "leave_out": leave_out is not None}
    check_contradictions(given)
    settings = replace(
        Settings(),
        k=Settings.k if k is None else int(k),
        stratify=columns,
        repair=repair,
        repeats=repeats,
        holdout=holdout,
        group_within=group_within,
        leave_out=leave_out,
    )
    made = make_splits(table, settings, int(seed))
    for each in made:
        check_folds(each, table.classes, table.class_attributes)
    return made[0] if repeats == 1 else made


def load_folds(source: str | Path | Data, data: Data | None = None, *, column: str = "fold") -> FoldAssignment:
    """Return existing folds, from a file ``folds.csv`` or from a column of a table.

    Parameters
    ----------
    source : a file with the columns ``id`` and ``fold``, or a table (as `data`) with the column `column`.
    data : table to align the file with, by id; without it the file needs the columns ``label`` and ``person``.
    column : column of the table with the fold of each sample: 0 to k-1, or 0 and -1 for one held-out part.

    Raises
    ------
    UsageError : no `source`, `data` is given although `source` is a table, or the column is unknown.
    EnsembleError : ids are missing, unknown or repeated, labels or persons differ, or a fold is not a whole number.

    Examples
    --------
    >>> import folds, pandas as pd
    >>> columns = {"id": list("abcd"), "path": list("abcd"), "label": ["cat", "dog"] * 2, "person": list("wxyz")}
    >>> frame = pd.DataFrame(columns)
    >>> made = folds.split(frame, k=2)
    >>> path = made.save("folds.csv")
    >>> folds.load_folds("folds.csv").fold.tolist() == made.fold.tolist()
    True
    >>> folds.load_folds(frame.assign(fold=[0, 0, 1, 1])).fold.tolist()
    [0, 0, 1, 1]
    """
    if source is None:
        raise wrong_argument("source", "a file of folds, or a table with a column of folds", source)
    check_arguments(locals(), {"column": NAME})
    if isinstance(source, str | Path):
        return load_folds_file(Path(source), None if data is None else training_table(data))
    if data is not None:
        raise UsageError("`data` is only for a file of folds", hint="omit it: the folds of a table are in a column")
    return folds_of_column(training_table(source), column)
