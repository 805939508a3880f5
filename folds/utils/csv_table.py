"""Read a CSV as text, every cell a string, with the place of each row kept for messages; and write one.

No pandas: 980,000 rows of three columns are read in about the time that pandas takes to be imported, and a class called
"NA", an id "000123" or a label "1" cannot be turned into something else on the way. Large files are worked on in
blocks. A block without quotation marks in which every row is as long as the header is split at its commas; any other
is read by the csv module: the result is the same.
"""

from __future__ import annotations

import csv
import io
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, TypeVar

from folds.errors import EnsembleError, close_matches, combine_errors

T = TypeVar("T")

_BLOCK = 1 << 18  # characters of a file that are split at a time
_ROWS = 1 << 13  # rows that the csv module reads or writes at a time
_REPEATS_BY = 1 << 17  # rows after which it is known whether the cells of a column repeat


class LazySequence(Sequence[Any]):
    """A sequence that makes its elements when they are asked for; equal to every sequence of equal elements."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    def __repr__(self) -> str:
        return f"[{', '.join(map(repr, self[:3]))}{', …' if len(self) > 3 else ''}] ({len(self):,})"

    def take(self, index: Sequence[int]) -> Sequence[Any]:
        """Return the elements at `index`, in that order."""
        return tuple(self[i] for i in index)


class RowLocations(LazySequence):
    """The place of each row as text, ``train.csv row 3``: `before`, the row's number, `after`.

    A million such texts take 80 MB; none but those in messages is ever read.
    """

    def __init__(self, before: str, numbers: Sequence[int], after: str = "") -> None:
        self.before, self.numbers, self.after = before, numbers, after

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return RowLocations(self.before, self.numbers[index], self.after)
        return f"{self.before}{self.numbers[index]}{self.after}"

    def take(self, index: Sequence[int]) -> RowLocations:
        """Return the places of the rows at `index`, in that order."""
        return RowLocations(self.before, array("q", [self.numbers[i] for i in index]), self.after)


@dataclass(frozen=True)
class CsvTable:
    """The columns of a CSV, or of another table that is treated as one.

    Attributes
    ----------
    path, source : the file, and how the user named it.
    columns : header → cells, stripped of blanks at their ends.
    numbers : the row number of each row as a spreadsheet shows it (the header is row 1).
    around : what stands before and after a row's number in messages; None for ``train.csv row 3``.
    """

    path: Path
    source: str
    columns: dict[str, list[str]]
    numbers: Sequence[int]
    around: tuple[str, str] | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    def location(self) -> RowLocations:
        """Return the place of each row, ``train.csv row 3``."""
        before, after = self.around or (f"{self.path.name} row ", "")
        return RowLocations(before, self.numbers, after)

    def column(self, name: str, option: str | None = None, advice: str = "") -> list[str]:
        """The cells of column `name`; where there is none, an error that names the nearest, the `advice` and all
        columns.
        """
        if name in self.columns:
            return self.columns[name]
        close = close_matches(name, self.columns)
        meant = f"; did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
        ways = [f"name the column with {option} {close[0] if close else 'COLUMN'}"] if option else []
        hint = "; ".join([*ways, *([advice] if advice else []), f"its columns are {', '.join(self.columns)}"])
        raise EnsembleError(f"{self.source} has no column '{name}'{meant}", hint=hint)


def read_csv(path: Path, source: str | None = None) -> CsvTable:
    """Read a CSV with a header: UTF-8 with or without BOM, any line ends, separated by commas (or by ; or tabs).

    Raises
    ------
    EnsembleError : the file cannot be read, is not text, is empty, repeats a column, or has rows of another length.
    """
    source = source or str(path)
    return parse_csv(source, _decode(source, read_bytes(path)), Path(path))


def parse_csv(source: str, text: str, path: Path = Path()) -> CsvTable:
    """Return the table in `text`, which has one kind of line end; raise what `read_csv` says of a file's content."""
    header, cells, numbers = _parse(source, text)
    # A nameless column is the row number that pandas writes, or what a comma at the line's end leaves.
    columns = {name: column for name, column in zip(header, cells, strict=True) if name}
    return CsvTable(path, source, columns, numbers)


def _decode(source: str, content: bytes) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise EnsembleError(f"{source} is not UTF-8 text (row {row})", hint="save it again as 'CSV UTF-8'") from None
    check_no_nul(text, source)
    return one_line_end(text)


def check_no_nul(text: str, source: str) -> None:
    """Raise EnsembleError where `text` holds NUL characters, which no text does."""
    if "\0" in text:
        raise EnsembleError(f"{source} is not text: it holds NUL bytes", hint="expected a CSV with a header")


def one_line_end(text: str) -> str:
    """Return `text` with one kind of line end, also inside cells.

    Python before 3.13 writes a lone carriage return without the quotation marks it needs.
    """
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _parse(source: str, text: str) -> tuple[list[str], list[list[str]], Sequence[int]]:
    """Return the header, the cells of each column, and the number of each row; raise what `read_csv` says."""
    delimiter = _delimiter(text)
    ragged: list[str] = []
    blank: list[int] = []
    try:
        header, number, position = _read_head(source, text, delimiter)
        first, columns = number + 1, [_Column() for _ in header]
        for block in _read_blocks(text, position, delimiter, len(header)):
            cells: Iterable[Sequence[str]]
            if isinstance(block, tuple):
                cells = block
                number += len(block[0])
            elif set(map(len, block)) == {len(header)}:
                cells = zip(*block, strict=True)
                number += len(block)
            else:
                whole = []
                for row in block:
                    number += 1
                    if not row:
                        blank.append(number)
                    elif len(row) == len(header):
                        whole.append(row)
                    else:
                        ragged.append(f"row {number}: {len(row)} cells")
                cells = zip(*whole, strict=True)
            for column, values in zip(columns, cells):
                column.extend(values)
    except csv.Error as error:
        raise EnsembleError(
            f"{source} is not a readable CSV: {error}", hint="check its quotation marks: one may be left open"
        ) from None
    check_header(source, header)
    numbers = _numbers(first, number, blank)
    if not numbers:
        raise EnsembleError(f"{source} has a header and no rows", hint="expected one row for each image")
    if ragged:
        raise combine_errors(
            ragged,
            f"rows of {source} do not have the header's {len(header)} cells",
            "a comma inside a cell needs quotation marks",
        )
    return header, [column.cells for column in columns], numbers


def _read_head(source: str, text: str, delimiter: str) -> tuple[list[str], int, int]:
    """Return the first line that holds anything, its row number, and where in `text` the next one begins."""
    position = 0

    def lines() -> Iterator[str]:
        nonlocal position
        while position < len(text):
            start, position = position, _line_end(text, position)
            yield text[start:position]

    for number, line in enumerate(csv.reader(lines(), delimiter=delimiter, strict=True), 1):
        if any(cell.strip() for cell in line):
            return [name.strip() for name in line], number, position
    raise EnsembleError(f"{source} is empty", hint="expected a header and one row for each image")


def _line_end(text: str, position: int) -> int:
    """Return where the line that `position` is in ends, its line break included."""
    return text.find("\n", position) + 1 or len(text)


def _read_blocks(
    text: str, position: int, delimiter: str, width: int
) -> Iterator[tuple[list[str], ...] | list[list[str]]]:
    """Yield what follows `position`, block by block: the columns of a plain block, the rows of any other."""
    while position < len(text):
        end = _line_end(text, position + _BLOCK)
        columns = _split_plain(text[position:end], delimiter, width)
        if columns is not None:
            yield columns
        else:
            try:
                rows = list(_reader(text, position, end, delimiter))
            except csv.Error:
                break  # a fault, or a cell in quotation marks that goes on in the next block
            yield rows
        position = end
    reader = _reader(text, position, len(text), delimiter)
    while rows := list(islice(reader, _ROWS)):
        yield rows


def _reader(text: str, start: int, end: int, delimiter: str) -> Iterator[list[str]]:
    """Return the csv module's reader of a part of `text`. The buffers are small: a StringIO takes four bytes a
    character.
    """

    def buffers(at: int) -> Iterator[io.StringIO]:
        while at < end:
            begin, at = at, min(_line_end(text, at + _BLOCK), end)
            yield io.StringIO(text[begin:at], newline="\n")

    return csv.reader(chain.from_iterable(buffers(start)), delimiter=delimiter, strict=True)


def _split_plain(block: str, delimiter: str, width: int) -> tuple[list[str], ...] | None:
    """Return the columns of a block of whole lines that the csv module would read as `width` cells each; None of any
    other.
    """
    if '"' in block:
        return None
    block = block.removesuffix("\n")
    lines = block.split("\n")
    if set(map(str.count, lines, repeat(delimiter))) != {width - 1}:
        return None
    lengths = set(map(len, lines))
    if min(lengths) == 0 or max(lengths) > csv.field_size_limit():  # the csv module skips empty lines
        return None
    cells = block.replace("\n", delimiter).split(delimiter)
    return tuple(cells[at::width] for at in range(width))


class _Column:
    """The cells of one column, stripped. Equal ones are one object, where cells repeat."""

    def __init__(self) -> None:
        self.cells: list[str] = []
        self.known: dict[str, str] | None = {}

    def extend(self, values: Iterable[str]) -> None:
        stripped = list(map(str.strip, values))
        if self.known is None:
            self.cells += stripped
            return
        self.cells += map(self.known.setdefault, stripped, stripped)
        if len(self.cells) > _REPEATS_BY and len(self.known) > 0.9 * len(self.cells):
            self.known = None


def _numbers(first: int, last: int, blank: list[int]) -> Sequence[int]:
    """Return the numbers `first` to `last` without those that are `blank`, which are in order."""
    while blank and blank[-1] == last:
        blank.pop()
        last -= 1
    if not blank:
        return range(first, last + 1)
    empty = set(blank)
    return array("q", [number for number in range(first, last + 1) if number not in empty])


def csv_text(columns: Mapping[str, Sequence[str]]) -> str:
    """Return columns as the text of a CSV that `read_csv` reads back."""
    return "".join(_in_one_style(columns, list))


def csv_bytes(columns: Mapping[str, Any]) -> bytearray:
    """Return columns (sequences of str, or arrays (n,) of str) as the bytes of a CSV that `read_csv` reads back."""

    def encoded(blocks: Iterator[str]) -> bytearray:
        content = bytearray()
        for block in blocks:
            content += block.encode()
        return content

    return _in_one_style(columns, encoded)


def _in_one_style(columns: Mapping[str, Any], collect: Callable[[Iterator[str]], T]) -> T:
    # Before Python 3.13 a carriage return was written without quotes, and read as the end of the row.
    try:
        return collect(_write_blocks(columns, csv.QUOTE_MINIMAL))
    except _CarriageReturnError:
        return collect(_write_blocks(columns, csv.QUOTE_ALL))


class _CarriageReturnError(Exception):
    """A cell holds a carriage return: every cell of the file goes into quotation marks."""


def _write_blocks(columns: Mapping[str, Any], quoting: Any) -> Iterator[str]:
    yield _write_rows([list(columns)], quoting)
    for start in range(0, max(map(len, columns.values()), default=0), _ROWS):
        part = [values[start : start + _ROWS] for values in columns.values()]
        cells = [values.tolist() if hasattr(values, "tolist") else values for values in part]
        rows = list(zip(*cells, strict=True))
        text = "\n".join(map(",".join, rows)) + "\n"
        if "\r" in text and quoting != csv.QUOTE_ALL:
            raise _CarriageReturnError
        # Plain: no cell holds what needs quotation marks (nor is the only one of its row and empty).
        separators = (len(columns) - 1) * len(rows), len(rows)
        plain = len(columns) > 1 and '"' not in text and (text.count(","), text.count("\n")) == separators
        yield text if plain and quoting == csv.QUOTE_MINIMAL else _write_rows(rows, quoting)


def _write_rows(rows: Iterable[Sequence[str]], quoting: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=quoting).writerows(rows)
    return text.getvalue()


def read_header(path: Path) -> list[str]:
    """The column names of a CSV, [] where the file has none to read; for recognising what a file is."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            line = file.readline(65536)
        return [name.strip() for name in next(csv.reader([line], delimiter=_delimiter(line)), [])]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def read_bytes(path: Path) -> bytes:
    """The bytes of a file the user named; what stands against it is said."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise cannot_read(path, error) from None


def cannot_read(path: Path, error: OSError) -> EnsembleError:
    """The error for a file or folder that could not be read."""
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    return EnsembleError(f"cannot read {path}: {reason}", hint="check the path and its permissions (ls -l)")


def _delimiter(text: str) -> str:
    """A comma, unless the header has none and has semicolons or tabs (what some spreadsheets write)."""
    start = next((at for at, letter in enumerate(text) if letter not in "\r\n"), len(text))
    header = text[start : _line_end(text, start)]
    return "," if "," in header else next((mark for mark in (";", "\t") if mark in header), ",")


def check_header(source: str, header: Sequence[str]) -> None:
    """Raise EnsembleError where a table has two columns of one name."""
    repeated = _repeated(name for name in header if name)
    if repeated:
        raise EnsembleError(f"{source} has more than one column '{repeated}'", hint="rename or remove one of them")


def _repeated(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
