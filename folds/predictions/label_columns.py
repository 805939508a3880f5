"""Write several labels or numbers of a sample as one text, and read them as a matrix; numpy only.

A sample of classes has one label. With several labels (``multilabel``) or numbers (``regression``) the label is a text
of all of them, so tables, folds and prediction files have one column of labels for every task, and two files agree
whatever the order of their columns is.

- ``multilabel``: the labels that the sample has, ``hat;glasses``; `NOTHING` for none of them. A label that is not
  known for this sample has a question mark: ``hat;?glasses``.
- ``regression``: the number, ``34.5``; of several, ``age=34.5;weight=70``, without those that are not known.
- An empty text is a sample whose labels are not known, as for classes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError, UsageError
from folds.metrics.task_names import COLUMN_TASKS, MULTILABEL, REGRESSION
from folds.utils.numeric import factorize

SEPARATOR, NOTHING, UNKNOWN = ";", "-", "?"
# Between the names of labels in one cell of a table; the first one that occurs is meant.
SEPARATORS = ("|", SEPARATOR, ",", " ")
# What a cell says, in lower case, if its labels or its number are not known, or if the sample has none of the labels.
UNKNOWN_CELLS = frozenset({"", "nan", "na", "n/a", "<na>", "null"})
NOTHING_CELLS = frozenset({NOTHING, "none", "no finding", "no findings", "nothing", "normal"})
COLUMN_NAMES = {MULTILABEL: "labels", REGRESSION: "numbers"}  # what the columns are, in a sentence; else classes


def separator_of(cells: Iterable[str], known: Collection[str] = ()) -> str | None:
    """Return what separates the names of labels in the cells of a table; None if each cell has one name at most.

    Parameters
    ----------
    cells : those that name labels.
    known : names of labels, in which a mark separates nothing.
    """
    written = [cell.strip() for cell in cells if cell not in known]
    return next((mark for mark in SEPARATORS if any(mark in cell for cell in written)), None)


def known_and_unknown(parts: Collection[str]) -> str | None:
    """Return a label that is named as known and, with a question mark, as not known; None if there is none.

    Examples
    --------
    >>> known_and_unknown(["Mass", "?Edema", "?Mass"])
    'Mass'
    """
    named = set(parts)
    return next((part for part in parts if UNKNOWN + part in named), None)


def check_column_names(names: Sequence[str], task: str) -> None:
    """Raise UsageError unless every name can be part of the text of a label: unique, and without its marks."""
    for name in names:
        if (
            SEPARATOR in name
            or name.startswith(UNKNOWN)
            or name in ("", NOTHING)
            or (task == REGRESSION and "=" in name)
        ):
            raise UsageError(
                f"'{name}' cannot be the name of a {'number' if task == REGRESSION else 'label'}",
                hint=f"rename it: names have no '{SEPARATOR}' and no '=', do not start with '{UNKNOWN}', and are not "
                f"'{NOTHING}'",
            )
    if len(set(names)) < len(names):
        raise UsageError(f"expected different names of the columns, found {', '.join(names)}")


def places_of(names: Sequence[str], columns: Sequence[str], what: str) -> list[int]:
    """Return the place in `columns` of each of `names`, which are the same columns in another order.

    Parameters
    ----------
    what : has the columns, as the error says it: "a combination".

    Raises
    ------
    EnsembleError : `names` are other columns.
    """
    if sorted(names) != sorted(columns):
        raise EnsembleError(
            f"{what} of {', '.join(columns[:10])} cannot be applied to {', '.join(names[:10])}",
            hint="give predictions of the same columns",
        )
    return [columns.index(name) for name in names]


def label_texts(values: NDArray[np.floating], names: Sequence[str], task: str) -> NDArray[np.str_]:
    """Return (n,) the text of each row.

    Parameters
    ----------
    values : (n, columns), nan where a value is not known; for ``multilabel`` 0 and 1.
    names : name of each column.
    task : one of `COLUMN_TASKS`.

    Raises
    ------
    UsageError : an error of `check_column_names`.

    Examples
    --------
    >>> label_texts(np.array([[1, 0], [0, 0], [1, np.nan]]), ["hat", "glasses"], "multilabel").tolist()
    ['hat', '-', 'hat;?glasses']
    >>> label_texts(np.array([[34.5], [np.nan]]), ["age"], "regression").tolist()
    ['34.5', '']
    """
    check_column_names(names, task)
    rows = np.asarray(values, dtype=np.float64)
    write = _numbers_text if task == REGRESSION else _labels_text
    distinct, codes = np.unique(rows, axis=0, return_inverse=True) if len(rows) else (rows, np.zeros(0, np.int64))
    texts = [write(row, names) for row in distinct.tolist()]
    return np.array(texts, dtype=str)[codes.reshape(-1)] if texts else np.zeros(0, dtype=str)


def _labels_text(row: Sequence[float], names: Sequence[str]) -> str:
    if all(map(math.isnan, row)):
        return ""
    parts = [
        UNKNOWN + name if math.isnan(value) else name
        for value, name in zip(row, names, strict=True)
        if math.isnan(value) or value
    ]
    return SEPARATOR.join(parts) or NOTHING


def _numbers_text(row: Sequence[float], names: Sequence[str]) -> str:
    if len(names) == 1:
        return "" if math.isnan(row[0]) else f"{row[0]:.17g}" if float(f"{row[0]:.15g}") != row[0] else f"{row[0]:.15g}"
    known = [(name, value) for value, name in zip(row, names, strict=True) if not math.isnan(value)]
    return SEPARATOR.join(f"{name}={_numbers_text([value], [name])}" for name, value in known)


def label_matrix(texts: NDArray[np.str_], names: Sequence[str], task: str) -> NDArray[np.float64]:
    """Return (n, columns) the values of texts that `label_texts` wrote, in the order of `names`; nan if not known.

    Raises
    ------
    EnsembleError : a text names another column, or has no number.

    Examples
    --------
    >>> label_matrix(np.array(["hat;?beard", "-"]), ["beard", "hat"], "multilabel").tolist()
    [[nan, 1.0], [0.0, 0.0]]
    >>> label_matrix(np.array(["age=3;weight=20", ""]), ["weight", "age"], "regression").tolist()
    [[20.0, 3.0], [nan, nan]]
    """
    position = {name: i for i, name in enumerate(names)}
    distinct, codes = factorize(np.asarray(texts))
    read = _read_numbers if task == REGRESSION else _read_labels
    rows = [read(str(text), position) for text in distinct]
    return np.array(rows, dtype=np.float64).reshape(len(distinct), len(names))[codes]


def _read_labels(text: str, position: dict[str, int]) -> list[float]:
    if not text:
        return [math.nan] * len(position)
    row = [0.0] * len(position)
    parts = text.split(SEPARATOR) if text != NOTHING else []
    both = known_and_unknown(parts)
    if both is not None:
        raise EnsembleError(f"the label '{text[:80]}' names '{both[:80]}' as known and as not known")
    for part in parts:
        row[_column(part.removeprefix(UNKNOWN), position, text)] = math.nan if part.startswith(UNKNOWN) else 1.0
    return row


def _read_numbers(text: str, position: dict[str, int]) -> list[float]:
    row = [math.nan] * len(position)
    for part in text.split(SEPARATOR) if text else ():
        name, _, number = part.rpartition("=")
        at = 0 if len(position) == 1 and not name else _column(name, position, text)
        try:
            row[at] = float(number)
        except ValueError:
            row[at] = math.inf
        if not math.isfinite(row[at]):
            raise EnsembleError(
                f"the label '{text[:80]}' is not a finite number", hint="expected as in 34.5 or age=34.5"
            )
    return row


def _column(name: str, position: dict[str, int], text: str) -> int:
    if name not in position:
        known = ", ".join(list(position)[:20])
        raise EnsembleError(f"the label '{text[:80]}' names '{name[:80]}', expected one of {known}")
    return position[name]


def encode_labels(texts: NDArray[np.str_], classes: Sequence[str], task: str) -> NDArray:
    """Return labels as metrics take them: (n,) int64 positions in `classes`, or (n, columns) float64 of a column task.

    An empty text is a label that is not known: −1, or nan.

    Raises
    ------
    EnsembleError : a label is none of the classes, or an error of `label_matrix`.
    """
    if task in COLUMN_TASKS:
        return label_matrix(texts, classes, task)
    code = {"": -1} | {name: i for i, name in enumerate(classes)}
    names, codes = factorize(np.asarray(texts))
    unknown = next((str(name) for name in names if name not in code), None)
    if unknown is not None:
        raise EnsembleError(f"the label '{unknown}' is none of the {len(classes)} classes {', '.join(classes[:20])}")
    return np.array([code[name] for name in names], dtype=np.int64)[codes]
