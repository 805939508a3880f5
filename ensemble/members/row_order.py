"""Read the ids in a file, in its order: the row order of arrays without ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ensemble.members.columns import ColumnNames, check_ids
from folds.errors import EnsembleError
from folds.predictions.columns import find_columns
from folds.predictions.files import load_npy, read_sidecar
from folds.utils.csv_table import CsvTable, read_bytes
from folds.utils.tables import read_table_file


def read_row_order(path: Path, names: ColumnNames | None = None) -> NDArray[np.str_]:
    """Return (n,) the ids in a file: a table with a column of ids, a text file with one id per line, an array of ids,
    or an array of predictions with a sidecar.

    Raises
    ------
    EnsembleError : the file has no ids, or an id is empty or repeated.
    """
    suffix = path.suffix.lower()
    if suffix in (".npy", ".json"):
        return _of_array(path)
    if suffix == ".txt":
        lines = [line.strip() for line in read_bytes(path).decode("utf-8-sig", "replace").splitlines()]
        lines = lines[:-1] if lines and not lines[-1] else lines
        if lines and find_columns(lines[:1], str(path), ("id", "path")).names:
            lines = lines[1:]
        return _checked(path, lines)
    table = read_table_file(path)
    given = (names or ColumnNames()).given(list(table.columns))
    roles = find_columns(list(table.columns), str(path), ("id", "path"), given)
    column = roles.get("id") or roles.get("path") or roles.require("id")
    check_ids(table, table.columns[column])
    return np.array(table.columns[column], dtype=str)


def _of_array(path: Path) -> NDArray[np.str_]:
    sidecar = read_sidecar(path)
    if sidecar is not None:
        return sidecar.rows.ids
    if path.suffix.lower() == ".json":
        raise EnsembleError(f"file not found: {path}", hint="name a file with ids")
    values = load_npy(path)
    if not isinstance(values, np.ndarray) or values.ndim != 1 or values.dtype.kind not in "iuUS":
        raise EnsembleError(
            f"{path} has no ids: expected an array with one text or whole number per row, or a sidecar beside it",
            hint="name a table with a column of ids, or a text file with one id per line",
        )
    return _checked(path, values.astype(str).tolist())


def _checked(path: Path, ids: list[str]) -> NDArray[np.str_]:
    if not ids:
        raise EnsembleError(f"{path} has no ids", hint="expected one id per row")
    check_ids(CsvTable(path, str(path), {"id": ids}, range(1, len(ids) + 1)), ids)
    return np.array(ids, dtype=str)
