"""Check the numbers and rows of a member: shape, finite values, probabilities or logits, distinct ids."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ensemble.members.scan import NEGATIVE, Scan, first_outside
from folds.errors import EnsembleError
from folds.metrics.task_names import MULTILABEL
from folds.predictions.files import PredictionMetadata, SampleRows, sidecar_path
from folds.utils.numeric import are_distinct
from folds.utils.tables import table_suffix


def is_table(path: Path) -> bool:
    """Return whether a file is read as a table, by its suffix."""
    return table_suffix(path.name) != ""


def check_shape(path: Path, values: NDArray, sidecar: PredictionMetadata) -> None:
    """Raise EnsembleError if an array (rows, classes) has another shape than its sidecar says, or repeats a class."""
    sidecar_file, expected = sidecar_path(path), (len(sidecar.rows), len(sidecar.classes))
    if len(set(sidecar.classes)) < len(sidecar.classes):
        raise EnsembleError(
            f"{sidecar_file} repeats a class: {', '.join(sidecar.classes)}", hint="every column needs a unique name"
        )
    if values.shape != expected:
        raise EnsembleError(
            f"{path} is {values.shape[0]:,} × {values.shape[1]}, "
            f"but {sidecar_file.name} describes {expected[0]:,} samples × {expected[1]} classes",
            hint="one of the two files was replaced: write both again, or remove the sidecar to use the row order",
        )


def has_logits(path: Path, values: NDArray, scan: Scan, ids: NDArray[np.str_] | None, task: str, logits: bool) -> bool:
    """Return whether checked columns of labels hold logits; numbers never do."""
    are_probabilities(path, scan, ids, None, True)  # only that all are finite
    wrong = None if task != MULTILABEL or logits else first_outside(values)
    if wrong is not None:
        row, column = wrong
        raise EnsembleError(
            f"{path}: {_row_text(ids, row)}, column {column} is {values[row, column]:.4g}, expected the probability of "
            "a label, from 0 to 1",
            hint="add `logits=True` if these are logits; numbers have `task=regression`",
        )
    return task == MULTILABEL and logits


def are_probabilities(
    path: Path, scan: Scan, ids: NDArray[np.str_] | None, sidecar: PredictionMetadata | None, logits: bool
) -> bool:
    """Return whether all rows are probabilities.

    Raises
    ------
    EnsembleError : a number is not finite, or rows are not probabilities and `logits` is False.
    """
    if scan.not_finite is not None:
        row, column, value = scan.not_finite
        raise EnsembleError(
            f"{path}: {_row_text(ids, row)}, column {column} is {value}, expected a finite number",
            hint="remove samples without a prediction (row and id)",
        )
    if scan.wrong and not logits:
        problem = f"has the value {scan.lowest:.4g}" if scan.lowest < NEGATIVE else f"sums to {scan.total:.4g}"
        stated = f" (stated in {sidecar_path(path).name})" if sidecar is not None else ""
        raise EnsembleError(
            f"{path}: expected probabilities{stated}, but {_row_text(ids, scan.first)} {problem}; "
            f"{scan.wrong:,} of {scan.rows:,} rows are not probabilities",
            hint=_advice(path, scan),
        )
    return not scan.wrong


def _advice(path: Path, scan: Scan) -> str:
    """Return how to mend rows that are no probabilities."""
    if scan.total == 0 and scan.lowest == 0:
        return (
            "a row of zeros is a sample without a prediction, such as a fold that is not predicted yet: predict it, or "
            "save only the other rows with their ids"
        )
    if scan.transposed:
        return "its columns sum to 1, so the array is probably transposed: save array.T"
    columns = "; name the columns with `probabilities=COLUMNS` if others were taken" if is_table(path) else ""
    several = "; add `task=multilabel` if a sample can have several labels" if scan.lowest >= 0 else ""
    return f"add `logits=True` if these are logits; otherwise divide each row by its sum{columns}{several}"


def _row_text(ids: NDArray[np.str_] | None, row: int) -> str:
    return f"row {row}" if ids is None else f"row {row} (id '{ids[row]}')"


def check_rows(path: Path, rows: SampleRows) -> str:
    """Return the hash of ids, labels and persons.

    Raises
    ------
    EnsembleError : an id is repeated.
    """
    if not are_distinct(rows.ids):
        names = rows.ids.tolist()
        seen: set[str] = set()
        repeated = [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
        raise EnsembleError(
            f"{path}: {len(set(repeated)):,} of {len(set(names)):,} ids are repeated, e.g. '{repeated[0]}'",
            hint="rows are aligned by id: each sample needs one row and a unique id",
        )
    digest = hashlib.sha256()
    for column in (rows.ids, rows.labels, rows.persons):
        digest.update(b"\x1e" if column is None else column.dtype.str.encode() + column.tobytes())
    return digest.hexdigest()
