"""Read tables from pandas DataFrames, in memory or in a Parquet or Feather file, as if they were written to a CSV."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from folds.errors import EnsembleError, UsageError
from folds.utils.csv_table import CsvTable, check_header, check_no_nul, one_line_end, parse_csv

if TYPE_CHECKING:
    import pandas

PARQUET = frozenset({".parquet", ".pq"})
FEATHER = frozenset({".feather", ".ftr", ".arrow"})
FRAME = "the DataFrame"
# Of a record of the log that is printed once: a table is read several times to detect what it is.
ONCE = {"once": True}
_log = logging.getLogger(__name__)


def frame_columns(frame: pandas.DataFrame, folder: Path, source: str = FRAME) -> CsvTable:
    """Return the columns of a DataFrame as text, equal to what `read_csv` reads from ``frame.to_csv()``.

    One exception: pandas stores whole numbers as decimals if some are missing. A column of decimals that are all whole
    is read as whole numbers (1.0 as ``1``), as labels of arrays are, and this is logged.

    Missing values are empty cells. A named index is a column; an index without a name is ignored. Rows are counted from
    0, as in ``frame.iloc``.

    Parameters
    ----------
    folder : folder that relative image paths start from.
    source : name of the table in messages.

    Raises
    ------
    UsageError : `frame` is not a DataFrame, or its columns have several levels.
    EnsembleError : the frame has no rows, or two columns with the same name.
    """
    import pandas

    if not isinstance(frame, pandas.DataFrame):
        raise UsageError(f"expected a pandas DataFrame, found {type(frame).__name__}")
    if frame.columns.nlevels > 1:
        raise UsageError(
            f"{source} has columns with {frame.columns.nlevels} levels, expected one level",
            hint="join the levels into one name: frame.columns = ['_'.join(name) for name in frame.columns]",
        )
    levels = {
        str(name): frame.index.get_level_values(at) for at, name in enumerate(frame.index.names) if name is not None
    }
    header = [*levels, *("" if name is None else str(name).strip() for name in frame.columns)]
    check_header(source, header)
    if not len(frame):
        raise EnsembleError(f"{source} has no rows", hint="expected one row per image")
    series = [
        *(pandas.Series(values) for values in levels.values()),
        *(frame.iloc[:, at] for at in range(frame.shape[1])),
    ]
    whole = [_whole_numbers(each) for each in series]
    changed = [name for name, before, after in zip(header, series, whole, strict=True) if before is not after]
    if changed:
        _log.info(
            "%s: whole numbers stored as decimals are read as 1, not 1.0: %s", source, ", ".join(changed), extra=ONCE
        )
    series = whole
    cells = [_plain_text(each, source) for each in series]
    # All other columns in one call: pandas writes dates without hours only if no column of the frame has hours.
    rest = [at for at, column in enumerate(cells) if column is None]
    if rest:
        others = pandas.concat([series[at].reset_index(drop=True) for at in rest], axis=1)
        others.columns = pandas.Index([f"c{at}" for at in rest])
        others["row"] = 1  # a row of empty cells would be a blank line, which is no row of a CSV
        columns = parse_csv(source, others.to_csv(index=False, lineterminator="\n")).columns
        for at in rest:
            cells[at] = columns[f"c{at}"]
    named = {name: column for name, column in zip(header, cells, strict=True) if name and column is not None}
    return CsvTable(folder / "table", source, named, range(len(frame)), ("row ", f" of {Path(source).name}"))


def read_columnar(path: Path) -> CsvTable:
    """Return the columns of a Parquet or Feather file as text, as `frame_columns` does.

    Raises
    ------
    EnsembleError : pyarrow is not installed, the file cannot be read, or `frame_columns` raises it.
    """
    import pandas

    kind = "Parquet" if path.suffix.lower() in PARQUET else "Feather"
    try:
        frame = pandas.read_parquet(path) if kind == "Parquet" else pandas.read_feather(path)
    except ImportError:
        raise EnsembleError(
            f"{path} is a {kind} file, and reading it needs pyarrow, which is not installed",
            hint="pip install pyarrow, or save the table as a CSV file",
        ) from None
    except Exception as error:  # pyarrow raises several types for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EnsembleError(f"{path} is not a readable {kind} file: {reason}") from None
    return frame_columns(frame, path.absolute().parent, str(path))


def _whole_numbers(values: Any) -> Any:
    """Return a Series of decimals that are all whole as whole numbers; any other Series unchanged."""
    import pandas

    plain = values.astype(object) if isinstance(values.dtype, pandas.CategoricalDtype) else values
    if pandas.api.types.infer_dtype(plain, skipna=True) not in ("floating", "mixed-integer-float"):
        return values
    present = plain[plain.notna()].astype(float)
    if not len(present) or (present.abs() >= 2**53).any() or (present % 1 != 0).any():
        return values
    return plain.astype("Float64").astype("Int64")


def _plain_text(values: Any, source: str) -> list[str] | None:
    """Return the cells of a Series that holds only text and missing values; None for any other Series."""
    import pandas

    if isinstance(values.dtype, pandas.CategoricalDtype):
        values = values.astype(object)
    if pandas.api.types.infer_dtype(values, skipna=True) != "string":
        return None
    missing = values.isna()
    cells = (values.astype(object).mask(missing, "") if missing.any() else values).tolist()
    text = "\n".join(cells)
    check_no_nul(text, source)
    if "\r" in text:
        cells = map(one_line_end, cells)
    return list(map(str.strip, cells))
