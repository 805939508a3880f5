"""Write the tables of a page as CSV, Markdown and LaTeX.

The button *Copy or save* of the page converts a table in the same way (``templates/page.js``), in the order into which
the reader has sorted it; ``tests/ensemble/report/test_browser.py`` compares the two. Files have long texts whole, which
the page shortens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

from ensemble.report.page.blocks import Matrix, Section, Table
from folds.errors import EnsembleError
from folds.utils.files import write_atomic
from folds.utils.html import cell_text, running, visible
from folds.utils.spreadsheet import guarded
from folds.utils.text import counted

CORNER = "true class / predicted class"  # head of the first column of a confusion matrix
_LONG_TABLE = 30  # rows; LaTeX cannot break a longer table over pages, unless it is a longtable
_LONG_CELL = 30  # characters; a column with longer ones wraps its lines
_LONGEST = 120  # characters that count for its share
_WIDE = 65  # hundredths of the line, which these columns share
_MARKDOWN = re.compile(r"[\\|`*_<>\[\]~&$]|:(?=//)")  # an address would be a link
_WWW = re.compile(r"(www)\.", re.IGNORECASE)
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    "[": "{[}",  # after the end of a row, a bracket is the distance to the next one
    "]": "{]}",
    "–": "--",
    "…": r"\ldots{}",
    "−": "$-$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "×": r"$\times$",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
}
_MARK = re.compile("|".join(map(re.escape, _LATEX)) + "|-(?=-)")


@dataclass(frozen=True)
class PlainTable:
    """A table as texts, which are those of the page.

    Attributes
    ----------
    header : (columns,) and `rows` (rows, columns).
    numbers : (rows, columns) whether a cell is a number.
    left : how many columns are aligned left.
    absent : (rows, columns) whether the value of a cell is not known; () if all are known.
    """

    name: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[tuple[bool, ...], ...]
    left: int
    note: str = ""
    absent: tuple[tuple[bool, ...], ...] = ()


def plain_tables(sections: Iterable[Section]) -> list[PlainTable]:
    """Return all tables of a page in its order. A confusion matrix gives two: counts, and shares of the rows."""
    found = []
    for section in sections:
        for block in section.blocks:
            if isinstance(block, Table):
                found.append(_plain(block))
            elif isinstance(block, Matrix):
                found += [_counts(block), _shares(block)]
    return found


def _plain(table: Table) -> PlainTable:
    return PlainTable(
        table.name,
        running(table.caption).strip(),
        tuple(visible(one).strip() for one in table.header),
        tuple(tuple(_whole(value).strip() for value in row) for row in table.rows),
        tuple(tuple(_is_number(value) for value in row) for row in table.rows),
        table.left,
        running(table.note).strip(),
        tuple(tuple(value is None or value != value for value in row) for row in table.rows),
    )


def _whole(value: object) -> str:
    """Return a cell as on the page; a text whole, because ids that are shortened find no image."""
    return visible(value) if isinstance(value, str) else cell_text(value)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _counts(matrix: Matrix) -> PlainTable:
    cells = tuple(tuple(f"{count:,}" for count in row) for row in matrix.counts)
    return _square(matrix, matrix.name, running(matrix.caption).strip(), cells, True)


def _shares(matrix: Matrix) -> PlainTable:
    cells = tuple(tuple(visible(share).strip() for share in row) for row in matrix.shares)
    caption = f"{running(matrix.caption).strip()} Shares of the rows."
    return _square(matrix, f"{matrix.name}-shares", caption, cells, False)


def _square(matrix: Matrix, name: str, caption: str, cells: tuple[tuple[str, ...], ...], numbers: bool) -> PlainTable:
    classes = tuple(visible(one).strip() for one in matrix.classes)
    heads = tuple(visible(one).strip() for one in matrix.heads) or classes
    return PlainTable(
        name,
        caption,
        (CORNER, *heads),
        tuple((one, *row) for one, row in zip(classes, cells, strict=True)),
        tuple((False, *(numbers for _ in row)) for row in cells),
        1,
        running(matrix.note).strip(),
        tuple((False, *(text == "–" for text in row)) for row in cells),
    )


def csv_of(table: PlainTable, no_formulas: bool = False) -> str:
    """Return a table as CSV (RFC 4180): numbers without thousands separators, an empty cell for what is not known.

    Parameters
    ----------
    no_formulas : whether cells that a spreadsheet would take for formulas get an apostrophe.
    """
    rows = [table.header]
    absent = table.absent or [[False] * len(row) for row in table.rows]
    for cells, numbers, without in zip(table.rows, table.numbers, absent, strict=True):
        rows.append(tuple(map(_csv_value, cells, numbers, without)))
    return "".join(",".join(_csv_cell(text, no_formulas) for text in row) + "\r\n" for row in rows)


def _csv_value(text: str, number: bool, absent: bool) -> str:
    if absent:
        return ""
    return text.replace(",", "") if number else text


def _csv_cell(text: str, no_formulas: bool) -> str:
    text = guarded(text) if no_formulas else text
    return '"' + text.replace('"', '""') + '"' if re.search(r'[",\r\n]', text) else text


def markdown_of(table: PlainTable) -> str:
    """Return a table as Markdown, with its caption before it and its note after it."""

    def line(row: Sequence[str]) -> str:
        return "| " + " | ".join(map(_markdown_text, row)) + " |\n"

    right = "".join(" --- |" if at < table.left else " ---: |" for at in range(len(table.header)))
    note = f"\n{_markdown_text(table.note)}\n" if table.note else ""
    return f"{_markdown_text(table.caption)}\n\n{line(table.header)}|{right}\n{''.join(map(line, table.rows))}{note}"


def _markdown_text(text: str) -> str:
    return re.sub(r"\s+", " ", _WWW.sub(r"\1\\.", _MARKDOWN.sub(r"\\\g<0>", text)))


def latex_of(table: PlainTable) -> str:
    """Return a table as LaTeX with the rules of booktabs; a table of many rows is a longtable, which breaks over pages.

    Columns with long cells wrap. All marks of LaTeX in cells are escaped.
    """
    columns = _columns(table)
    head = f"\\caption{{{latex_text(table.caption)}}}"
    label = f"\\label{{tab:{table.name}}}"
    rows = [f"  {' & '.join(map(latex_text, row))} \\\\" for row in (table.header, *table.rows)]
    note = [f"\n\\smallskip\n{{\\footnotesize {latex_text(table.note)}}}"] if table.note else []
    if len(table.rows) > _LONG_TABLE:
        lines = [
            "% \\usepackage{booktabs,longtable}",
            f"\\begin{{longtable}}{{{columns}}}",
            f"{head}{label}\\\\",
            *("\\toprule", rows[0], "\\midrule", "\\endfirsthead", "\\toprule", rows[0], "\\midrule", "\\endhead"),
            *("\\bottomrule", "\\endfoot", *rows[1:]),
            "\\end{longtable}",
            *note,
        ]
    else:
        lines = [
            "% \\usepackage{booktabs}",
            *("\\begin{table}", "\\centering", head, label, f"\\begin{{tabular}}{{{columns}}}"),
            *("\\toprule", rows[0], "\\midrule", *rows[1:], "\\bottomrule"),
            *("\\end{tabular}", *note, "\\end{table}"),
        ]
    return "\n".join(lines) + "\n"


def _columns(table: PlainTable) -> str:
    """Return the columns of a tabular; long ones share `_WIDE` of the line by the length of their longest cells."""
    longest = [max((len(row[at]) for row in table.rows), default=0) for at in range(len(table.header))]
    shares = [min(one, _LONGEST) if one > _LONG_CELL else 0 for one in longest]
    return "".join(
        f"p{{0.{_WIDE * share // sum(shares):02d}\\linewidth}}" if share else "l" if at < table.left else "r"
        for at, share in enumerate(shares)
    )


def latex_text(text: str) -> str:
    """Return a text with the marks that mean something else in LaTeX escaped."""
    return _MARK.sub(lambda found: _LATEX.get(found[0], "-{}"), text)


def write_tables(folder: Path, tables: Sequence[PlainTable], force: bool = False, no_formulas: bool = False) -> None:
    """Write each table as ``NAME.csv``, ``NAME.md`` and ``NAME.tex`` into a folder.

    Parameters
    ----------
    force : whether to replace existing files; other files of the folder stay.
    no_formulas : see `csv_of`.

    Raises
    ------
    EnsembleError : files exist and `force` is false; then nothing is written.
    """
    check_free(folder, tables, force)
    folder.mkdir(parents=True, exist_ok=True)
    forms: dict[str, Callable[[PlainTable], str]] = {
        "csv": lambda table: csv_of(table, no_formulas),
        "md": markdown_of,
        "tex": latex_of,
    }
    for table in tables:
        for end, form in forms.items():
            write_atomic(folder / f"{table.name}.{end}", form(table).encode("utf-8", "backslashreplace"))


def check_free(folder: Path, tables: Iterable[PlainTable], force: bool = False) -> None:
    """Raise EnsembleError if the folder is a file, or if files of these tables exist and `force` is false."""
    if folder.exists() and not folder.is_dir():
        raise EnsembleError(f"cannot write tables into {folder}: it is not a folder", hint="name a folder (`tables`)")
    names = [f"{table.name}.{end}" for table in tables for end in ("csv", "md", "tex")]
    found = [] if force else [name for name in names if (folder / name).exists() or (folder / name).is_symlink()]
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise EnsembleError(
            f"{folder} has {counted(len(found), 'table')} of these names: {', '.join(found[:3])}{more}",
            hint="name another folder (`tables`), or replace them (`force=True`)",
        )
