"""Describe the rows of prediction files, and read and write the samples file that many of them share; numpy only."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError
from folds.utils.bounded import check_regular, text_room
from folds.utils.csv_table import allow_long_cells, csv_text
from folds.utils.files import sha256_bytes, write_atomic
from folds.utils.schema import is_encodable, shown


@dataclass(frozen=True)
class SampleRows:
    """The rows of a prediction file: ids and, if known, labels, persons and attributes (each (n,) of str)."""

    ids: NDArray[np.str_]
    labels: NDArray[np.str_] | None = None
    persons: NDArray[np.str_] | None = None
    attributes: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: NDArray[np.integer]) -> SampleRows:
        """Return the rows at `index`, in that order."""

        def of(column: NDArray[np.str_] | None) -> NDArray[np.str_] | None:
            return None if column is None else column[index]

        return SampleRows(
            self.ids[index], of(self.labels), of(self.persons), {k: v[index] for k, v in self.attributes.items()}
        )


def write_samples(folder: Path, rows: SampleRows, same: Path | None = None) -> tuple[str, str]:
    """Write ``samples-<sha>.csv`` into `folder` unless it exists; return its file name and the sha of its content.

    Parameters
    ----------
    same : an existing samples file with these rows, which is copied.
    """
    content = _samples_content(rows) if same is None else same.read_bytes()
    sha = sha256_bytes(content)
    path = Path(folder) / f"samples-{sha[:12]}.csv"
    if not path.exists():
        write_atomic(path, content)
    return path.name, sha


def samples_sha(rows: SampleRows) -> str:
    """Return the `samples_sha` of files that refer to these rows."""
    return sha256_bytes(_samples_content(rows))


def _samples_content(rows: SampleRows) -> bytes:
    columns: dict[str, NDArray[np.str_]] = {"id": rows.ids}
    if rows.labels is not None:
        columns["label"] = rows.labels
    if rows.persons is not None:
        columns["person"] = rows.persons
    columns |= {name: values for name, values in rows.attributes.items() if name not in columns}
    return csv_text({name: values.tolist() for name, values in columns.items()}).encode()


def text_array(entries: Sequence[Any], location: str) -> NDArray[np.str_]:
    """Return entries as an array of text.

    Parameters
    ----------
    location : the file and field, for errors.

    Raises
    ------
    EnsembleError : a text that cannot be written (a lone surrogate), or one long entry among many short ones, which
        would need the room of the longest for all.
    """
    texts = list(map(str, entries))
    reason = text_room(texts)
    if reason:
        raise EnsembleError(f"{location} cannot be used: {reason}")
    odd = next((text for text in texts if not is_encodable(text)), None)
    if odd is not None:
        raise EnsembleError(f"{location} has a text that is not Unicode: {shown(odd)}", hint="rename the sample")
    return np.array(texts, dtype=str)


def read_samples_file(path: Path, sha: str | None = None) -> SampleRows:
    """Return the rows of a samples file.

    Parameters
    ----------
    sha : the expected hex SHA-256 of its content; None to skip the check.

    Raises
    ------
    EnsembleError : the file is missing, was changed, or is not a CSV with a column ``id`` and at least one row.
    """
    try:
        check_regular(Path(path))
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise EnsembleError(
            f"the samples file {path} is missing",
            hint="keep samples-*.csv in the folder of the prediction files that name it",
        ) from None
    except OSError as error:
        raise EnsembleError(f"the samples file {path} cannot be read: {error.strerror}") from None
    if sha is not None and sha256_bytes(content) != sha:
        raise EnsembleError(
            f"the samples file {path} was changed after the predictions were written",
            hint="restore it: predictions are aligned by its rows",
        )
    columns = _ascii_columns(content)
    if columns is None:
        allow_long_cells()
        try:
            text = content.decode("utf-8-sig")
            header, cells = _plain_cells(text) or _cells(path, text)
        except (UnicodeDecodeError, csv.Error) as error:
            raise EnsembleError(f"the samples file {path} is not a CSV in UTF-8: {error}") from None
        if "id" not in header:
            raise EnsembleError(f"the samples file {path} has no column 'id'")
        columns = {}
        for name, values in zip(header, cells, strict=True) if cells else ():
            columns[name] = text_array(values, f"the samples file {path}: column '{name}'")
    if not columns:
        raise EnsembleError(f"the samples file {path} has no rows")
    return SampleRows(columns.pop("id"), columns.pop("label", None), columns.pop("person", None), columns)


def _cells(path: Path, text: str) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the header and the columns of a CSV; [] if it has none."""
    lines = list(csv.reader(io.StringIO(text, newline="")))
    header, body = (lines or [[]])[0], [line for line in lines[1:] if line]
    ragged = next((number for number, line in enumerate(body, 2) if len(line) != len(header)), None)
    if ragged is not None:
        raise EnsembleError(
            f"row {ragged} of the samples file {path} does not have {len(header)} cells like the header"
        )
    return header, list(zip(*body, strict=True))


def _plain_cells(text: str) -> tuple[list[str], list[list[str]]] | None:
    """Return the header and the columns of a CSV without quotation marks, by splitting at commas (ten times as fast);
    None for other files.
    """
    lines = text.removesuffix("\n").split("\n")
    commas = lines[0].count(",")
    lengths = [len(line) for line in lines]
    like_csv = '"' not in text and "\r" not in text and min(lengths) > 0 and max(lengths) <= csv.field_size_limit()
    if not like_csv or len(lines) < 2 or any(line.count(",") != commas for line in lines):
        return None
    cells = text.removesuffix("\n").replace("\n", ",").split(",")
    return cells[: commas + 1], [cells[commas + 1 + i :: commas + 1] for i in range(commas + 1)]


_MAX_WIDTH = 256  # characters of the longest cell that is read without Python's strings
_ROWS_AT_ONCE = 1 << 13


def _ascii_columns(content: bytes) -> dict[str, NDArray[np.str_]] | None:
    """Return the columns of a CSV in ASCII without quotation marks, as its bytes lie in the file; None for other files.

    Five times as fast as a Python string for each cell.
    """
    if not content.isascii() or any(mark in content for mark in (b'"', b"\r", b"\0")):
        return None
    content = content if content.endswith(b"\n") else content + b"\n"
    header = content[: content.index(b"\n")].decode().split(",")
    raw, width = np.frombuffer(content + bytes(_MAX_WIDTH), np.uint8), len(header)
    marks = np.flatnonzero((raw == ord(",")) | (raw == ord("\n")))
    if len(marks) < 2 * width or len(marks) % width or len(set(header)) < width or "id" not in header:
        return None
    ends = marks.reshape(-1, width)
    if (raw[ends[:, :-1]] != ord(",")).any() or (raw[ends[:, -1]] != ord("\n")).any():
        return None
    starts = np.concatenate([[0], marks[:-1] + 1]).reshape(-1, width)[1:]
    lengths = ends[1:] - starts
    if lengths.max() > _MAX_WIDTH or (width == 1 and lengths.min() == 0):  # the csv module skips empty lines
        return None
    return {name: _cut(raw, starts[:, i], lengths[:, i]) for i, name in enumerate(header)}


def _cut(raw: NDArray[np.uint8], starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.str_]:
    """Return (n,) the texts that begin at `starts`."""
    size = max(1, int(lengths.max()))
    places, texts = np.arange(size), np.empty((len(starts), size), np.uint32)
    for first in range(0, len(starts), _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        texts[part] = raw[starts[part, None] + places]
        texts[part] *= places < lengths[part, None]
    return texts.view(f"U{size}")[:, 0]
