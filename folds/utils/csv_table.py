"""Read a CSV as text, with the location of each row for messages, and write a CSV.

Pandas is not used: 980,000 rows of three columns are read in about the time of importing it, and every cell stays text,
so a class "NA", an id "000123" or a label "1" is not converted. Large files are read in blocks. A block without
quotation marks in which every row has as many cells as the header is split at its commas; other blocks are read by the
csv module, with the same result.

Read too are a first line ``sep=;``, comment lines (``#``) above the header, and cells of up to 64 MiB; rows whose cells
are all empty are skipped like empty lines.
"""

from __future__ import annotations

import csv
import io
import os
import re
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, TypeVar

from folds.errors import LIKE_COLUMN, EnsembleError, close_matches, combine_errors, no_column
from folds.utils.bounded import text_room

T = TypeVar("T")

_BLOCK = 1 << 18  # characters of a file that are split at once
_ROWS = 1 << 13  # rows that the csv module reads or writes at once
_MAX_CELL = 1 << 26  # characters; the default of the csv module, 131,072, is exceeded by the masks of some tables
_DELIMITERS = (",", ";", "\t", "|")  # the first that the header contains
_REPEATS_BY = 1 << 17  # rows after which to decide whether the cells of a column repeat


class LazySequence(Sequence[Any]):
    """A sequence that creates its elements on access; equal to every sequence of equal elements."""

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
    """The location of each row as text, ``train.csv row 3``: `before`, the row number, `after`.

    Texts are created on access, because a million of them take 80 MB and only those in messages are read.
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
        """Return the locations of the rows at `index`, in that order."""
        return RowLocations(self.before, array("q", [self.numbers[i] for i in index]), self.after)


@dataclass(frozen=True)
class CsvTable:
    """The columns of a CSV, or of another table that is treated as one.

    Attributes
    ----------
    path, source : the file, and its name as the user gave it.
    columns : header → cells, without blanks at their ends.
    numbers : the number of each row as a spreadsheet shows it (the header is row 1).
    around : the text before and after a row number in messages; None for ``train.csv row 3``.
    """

    path: Path
    source: str
    columns: dict[str, list[str]]
    numbers: Sequence[int]
    around: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        for name, cells in self.columns.items():
            reason = text_room(cells)
            if reason:
                raise EnsembleError(f"column '{name}' of {self.source} cannot be used: {reason}")

    def __len__(self) -> int:
        return len(self.numbers)

    def location(self) -> RowLocations:
        """Return the location of each row, ``train.csv row 3``."""
        before, after = self.around or (f"{self.path.name} row ", "")
        return RowLocations(before, self.numbers, after)

    def column(
        self, name: str, option: str | None = None, advice: str = "", not_meant: Collection[str | None] = ()
    ) -> list[str]:
        """Return the cells of the column `name`.

        Parameters
        ----------
        option : the marked parameter that names the column, for the hint.
        advice : a further remedy, for the hint.
        not_meant : columns that are known to be something else, which are not suggested.

        Raises
        ------
        EnsembleError : there is no such column; the error suggests the closest one and lists all columns.
        """
        if name in self.columns:
            return self.columns[name]
        others = [one for one in self.columns if one not in not_meant]
        close = close_matches(name, others, most=1, cutoff=LIKE_COLUMN)
        given = f"={close[0] if close else 'COLUMN'}`"
        remedies = [f"name the column with {option.removesuffix('`')}{given}"] if option else []
        hint = "; ".join([*remedies, *([advice] if advice else []), f"its columns are {', '.join(self.columns)}"])
        raise EnsembleError(no_column(self.source, name, list(self.columns), others), hint=hint)


def read_csv(path: Path, source: str | None = None) -> CsvTable:
    """Read a CSV with a header: UTF-8 with or without BOM, any line ends, separated by commas (or semicolons, tabs
    or bars).

    Raises
    ------
    EnsembleError : the file cannot be read, is not text, is empty, repeats a column, or has rows whose length differs
        from that of the header.
    """
    return parse_bytes(source or str(path), read_bytes(path), Path(path))


def allow_long_cells() -> None:
    """Raise the csv module's limit of a cell, which is one number for the whole process."""
    if csv.field_size_limit() < _MAX_CELL:
        csv.field_size_limit(_MAX_CELL)


def parse_bytes(source: str, content: bytes, path: Path = Path()) -> CsvTable:
    """Return the table in the bytes of a CSV; raise the errors of `read_csv` about the content."""
    text = _decode(source, content)
    del content  # the bytes are not kept beside the text and the cells
    return parse_csv(source, text, path)


def parse_csv(source: str, text: str, path: Path = Path()) -> CsvTable:
    """Return the table in `text`, which has one kind of line end; raise the errors of `read_csv` about the content."""
    header, cells, numbers = _parse(source, text)
    # A column without a name is the row number that pandas writes, or the result of a comma at the end of the lines.
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
    """Raise EnsembleError if `text` has NUL characters, which text files do not have."""
    if "\0" in text:
        raise EnsembleError(f"{source} is not text: it has NUL bytes", hint="expected a CSV with a header")


def one_line_end(text: str) -> str:
    """Return `text` with one kind of line end, also inside cells.

    Python before 3.13 writes a lone carriage return without the quotation marks it needs.
    """
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _parse(source: str, text: str) -> tuple[list[str], list[list[str]], Sequence[int]]:
    """Return the header, the cells of each column and the number of each row; raise the errors of `read_csv`."""
    skipped, start, delimiter = _preamble(text)
    ragged: list[str] = []
    blank: list[int] = []
    allow_long_cells()
    try:
        header, number, position = _read_head(source, text, delimiter, start)
        number += skipped
        first, columns = number + 1, [_Column() for _ in header]
        for block in _read_blocks(text, position, delimiter, len(header)):
            cells: Iterable[Sequence[str]]
            if isinstance(block, tuple):
                cells = block
                number += len(block[0])
            elif set(map(len, block)) == {len(header)} and all(any(map(str.strip, row)) for row in block):
                cells = zip(*block, strict=True)
                number += len(block)
            else:
                complete = []
                for row in block:
                    number += 1
                    if not row or (len(row) > 1 and not any(map(str.strip, row))):
                        blank.append(number)
                    elif len(row) == len(header):
                        complete.append(row)
                    else:
                        ragged.append(f"row {number}: {len(row)} cells")
                cells = zip(*complete, strict=True)
            for column, values in zip(columns, cells):
                column.extend(values)
    except csv.Error as error:
        raise EnsembleError(
            f"{source} is not a readable CSV: {error}", hint="check for an unclosed quotation mark"
        ) from None
    check_header(source, header)
    numbers = _numbers(first, number, blank)
    if not numbers:
        raise EnsembleError(f"{source} has a header and no rows", hint="expected one row per image")
    if ragged:
        raise combine_errors(
            ragged,
            f"rows of {source} do not have {len(header)} cells like the header",
            "put cells that contain a comma in quotation marks",
        )
    return header, [column.cells for column in columns], numbers


def _preamble(text: str) -> tuple[int, int, str]:
    """Return the lines above the header that are not part of the table, the position after them, and the separator.

    These are a line ``sep=;``, which Excel writes and reads, and comments, which begin with ``#``. A line with ``#``
    and as many cells as the next line is a header.
    """
    position, number, given = 0, 0, None
    while position < len(text):
        end = _line_end(text, position)
        line = text[position:end].strip("\n")
        following = text[end : _line_end(text, end)] if end < len(text) else ""
        mark = _delimiter(line)
        if not line.strip():
            pass
        elif given is None and line.lower().startswith("sep=") and len(line) == 5:
            given = line[4]
        elif not line.startswith("#") or (mark in line and line.count(mark) == following.count(mark)):
            break
        position, number = end, number + 1
    return number, position, given or _delimiter(text[position : _line_end(text, position)])


def _read_head(source: str, text: str, delimiter: str, position: int = 0) -> tuple[list[str], int, int]:
    """Return the first line from `position` that is not blank, its number from there, and the position after it."""

    def lines() -> Iterator[str]:
        nonlocal position
        while position < len(text):
            start, position = position, _line_end(text, position)
            yield text[start:position]

    for number, line in enumerate(csv.reader(lines(), delimiter=delimiter, strict=True), 1):
        if any(cell.strip() for cell in line):
            return [name.strip() for name in line], number, position
    raise EnsembleError(f"{source} is empty", hint="expected a header and one row per image")


def _line_end(text: str, position: int) -> int:
    """Return the end of the line that contains `position`, including its line break."""
    return text.find("\n", position) + 1 or len(text)


def _read_blocks(
    text: str, position: int, delimiter: str, width: int
) -> Iterator[tuple[list[str], ...] | list[list[str]]]:
    """Yield the text after `position` in blocks: the columns of a plain block, or the rows of another one."""
    while position < len(text):
        end = _line_end(text, position + _BLOCK)
        columns = _split_plain(text[position:end], delimiter, width)
        if columns is not None:
            yield columns
        else:
            try:
                rows = list(_reader(text, position, end, delimiter))
            except csv.Error:
                break  # an error, or a quoted cell that continues in the next block
            yield rows
        position = end
    reader = _reader(text, position, len(text), delimiter)
    while rows := list(islice(reader, _ROWS)):
        yield rows


def _reader(text: str, start: int, end: int, delimiter: str) -> Iterator[list[str]]:
    """Return a csv reader of a part of `text`.

    Buffers are small, because a StringIO takes four bytes per character.
    """

    def buffers(at: int) -> Iterator[io.StringIO]:
        while at < end:
            begin, at = at, min(_line_end(text, at + _BLOCK), end)
            yield io.StringIO(text[begin:at], newline="\n")

    return csv.reader(chain.from_iterable(buffers(start)), delimiter=delimiter, strict=True)


def _split_plain(block: str, delimiter: str, width: int) -> tuple[list[str], ...] | None:
    """Return the columns of a block of complete lines, or None if it must be read by the csv module.

    A block is plain if it has no quotation marks and the csv module would read `width` cells in each line.
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
    if width > 1 and _has_empty_row(block, re.escape(delimiter)):
        return None
    cells = block.replace("\n", delimiter).split(delimiter)
    return tuple(cells[at::width] for at in range(width))


def _has_empty_row(block: str, mark: str) -> bool:
    """Return whether a block has a line of separators and blanks only; `mark` is the separator, escaped."""
    # Few blocks have a row with an empty first cell, and a search for it that begins with a line break is fast.
    if not re.match(rf"\s*{mark}", block) and not re.search(rf"\n\s*{mark}", block):
        return False
    return re.search(rf"(?m)^\s*{mark}(?:\s|{mark})*$", block) is not None


class _Column:
    """The stripped cells of one column. Equal cells share one object if cells repeat."""

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
    """Return the numbers `first` to `last` without those in `blank`, which is sorted."""
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
    # Python before 3.13 writes a carriage return without quotation marks and reads it as the end of the row.
    try:
        return collect(_write_blocks(columns, csv.QUOTE_MINIMAL))
    except _CarriageReturnError:
        return collect(_write_blocks(columns, csv.QUOTE_ALL))


class _CarriageReturnError(Exception):
    """A carriage return in a cell, so every cell of the file is written in quotation marks."""


def _write_blocks(columns: Mapping[str, Any], quoting: Any) -> Iterator[str]:
    yield _write_rows([list(columns)], quoting)
    for start in range(0, max(map(len, columns.values()), default=0), _ROWS):
        part = [values[start : start + _ROWS] for values in columns.values()]
        cells = [values.tolist() if hasattr(values, "tolist") else values for values in part]
        rows = list(zip(*cells, strict=True))
        text = "\n".join(map(",".join, rows)) + "\n"
        if "\r" in text and quoting != csv.QUOTE_ALL:
            raise _CarriageReturnError
        # Plain: no cell needs quotation marks. A single empty cell in a row does, hence more than one column.
        separators = (len(columns) - 1) * len(rows), len(rows)
        plain = len(columns) > 1 and '"' not in text and (text.count(","), text.count("\n")) == separators
        yield text if plain and quoting == csv.QUOTE_MINIMAL else _write_rows(rows, quoting)


def _write_rows(rows: Iterable[Sequence[str]], quoting: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=quoting).writerows(rows)
    return text.getvalue()


def read_header(path: Path) -> list[str]:
    """Return the column names of a CSV, or [] if it has none or cannot be read; used to detect the kind of a file."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            text = one_line_end(file.read(65536))
        _, position, delimiter = _preamble(text)
        line = text[position : _line_end(text, position)]
        return [name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a file that the user named; raise EnsembleError if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise cannot_read(path, error) from None


def cannot_read(path: Path, error: OSError) -> EnsembleError:
    """Return the error for a file or folder that could not be read."""
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    return EnsembleError(f"cannot read {path}: {reason}", hint="check the path and its permissions (ls -l)")


def _delimiter(text: str) -> str:
    """Return the separator of a header: a comma, or a semicolon, tab or bar if it has no comma (as some spreadsheets
    write); marks within quotation marks do not count.
    """
    header = re.sub(r'"[^"\n]*"', "", text)
    return next((mark for mark in _DELIMITERS if mark in header), ",")


def check_header(source: str, header: Sequence[str]) -> None:
    """Raise EnsembleError if two columns have the same name."""
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
