"""List the tables in a folder that may name its images, in every format."""

from __future__ import annotations

from pathlib import Path

from folds.utils.tables import table_header, table_suffix

# The header of a folds.csv of this program, which has folds.json beside it.
_FOLDS = ["id", "label", "person", "fold"]


def tables_in(folder: Path) -> list[Path]:
    """Return the tables in `folder`, sorted by name: CSV, TSV, Parquet and Feather; no hidden file, no text file, and
    no folds of this program.
    """
    files = [path for path in sorted(folder.iterdir()) if path.name[0] != "." and path.is_file()]
    tables = [path for path in files if table_suffix(path.name) not in ("", ".txt", ".txt.gz")]
    return [path for path in tables if not _is_folds(path)]


def _is_folds(path: Path) -> bool:
    return path.suffix == ".csv" and path.with_suffix(".json").is_file() and table_header(path) == _FOLDS


def listed_tables(tables: list[Path], most: int = 5) -> str:
    """Return the names of tables as text, at most `most` of them."""
    return f"{', '.join(path.name for path in tables[:most])}{', …' if len(tables) > most else ''}"
