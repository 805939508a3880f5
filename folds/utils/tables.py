"""Read tables from files of every supported format as text columns: CSV, TSV, Parquet and Feather, also gzipped CSV."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from folds.errors import EnsembleError
from folds.utils.csv_table import CsvTable, parse_bytes, read_bytes, read_csv, read_header
from folds.utils.frames import FEATHER, PARQUET, read_columnar

# Text formats; each may be gzipped.
TEXT = frozenset({".csv", ".tsv", ".txt"})
# Uncompressed bytes of a gzipped table: a small file may expand to any size.
MAX_BYTES = 4 << 30


def table_suffix(name: str) -> str:
    """Return the suffix of a table's file name in lower case, ``.csv.gz`` included; "" for other files."""
    lowered = name.lower()
    for suffix in (*sorted(TEXT), *sorted(PARQUET | FEATHER)):
        if lowered.endswith(suffix):
            return suffix
        if suffix in TEXT and lowered.endswith(f"{suffix}.gz"):
            return f"{suffix}.gz"
    return ""


def read_table_file(path: Path) -> CsvTable:
    """Return the columns of a table as text; the format follows from the suffix, and other files are read as CSV.

    Raises
    ------
    EnsembleError : the file cannot be read, or its content is not such a table.
    """
    path = Path(path)
    suffix = table_suffix(path.name)
    if suffix in PARQUET | FEATHER:
        return read_columnar(path)
    if suffix.endswith(".gz"):
        return parse_bytes(str(path), _decompress(path), path)
    return read_csv(path)


def table_header(path: Path) -> list[str]:
    """Return the column names of a table, or [] if it cannot be read; used to detect the kind of a file."""
    suffix = table_suffix(Path(path).name)
    if not suffix.endswith(".gz") and suffix not in PARQUET | FEATHER:
        return read_header(path)
    try:
        return list(read_table_file(path).columns)
    except EnsembleError:
        return []


def _decompress(path: Path) -> bytes:
    content = read_bytes(path)
    if not content.startswith(b"\x1f\x8b"):
        return content  # some programs unpack a download without renaming it
    try:
        with gzip.open(path) as file:
            text = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise EnsembleError(f"{path} is not a readable gzip file: {error}", hint="download or pack it again") from None
    if len(text) > MAX_BYTES:
        raise EnsembleError(
            f"{path} has more than {MAX_BYTES >> 30} GB of text, expected a table", hint="unpack it first"
        )
    return text
