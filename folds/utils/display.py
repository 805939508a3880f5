"""Show results from one description: as text of at most 20 lines, or as HTML in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from folds.errors import printable

MAX_LINES = 20


@dataclass(frozen=True)
class Table:
    """The description of a result: a title, a table, and notes below it; the first `left` columns are aligned left."""

    title: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()
    notes: Sequence[str] = field(default_factory=tuple)
    left: int = 1

    def text(self, lines: int = MAX_LINES) -> str:
        """Return text of at most `lines` lines; rows and then notes that do not fit are only counted."""
        notes = list(self.notes)
        fixed = bool(self.title) + (2 if self.header else 0)
        if fixed + min(len(self.rows), 4) + len(notes) > lines:
            kept = max(lines - fixed - min(len(self.rows), 4) - 1, 0)
            notes = [*notes[:kept], f"… and {len(notes) - kept:,} more notes"]
        room = lines - fixed - len(notes)
        rows, more = list(self.rows), 0
        if len(rows) > room:
            rows, more = rows[: room - 1], len(rows) - room + 1
        parts = [printable(self.title)] if self.title else []
        if self.header:
            parts += align_columns([self.header, *rows], self.left)
        parts += [f"… and {more:,} more"] if more else []
        return "\n".join([*parts, *(printable(note) for note in notes)])

    def html(self) -> str:
        """Return HTML; every name in it is escaped, so no script can run in a notebook."""
        parts = [f"<p><strong>{_escaped(self.title)}</strong></p>"] if self.title else []
        if self.header:
            parts.append("<table><thead>")
            parts.append(_row("th", self.header))
            parts.append("</thead><tbody>")
            parts += [_row("td", row) for row in self.rows]
            parts.append("</tbody></table>")
        parts += [f"<p>{_escaped(note)}</p>" for note in self.notes]
        return "".join(parts)


class Displayed:
    """A result that can show itself as described by `display_table`. A dataclass needs ``repr=False`` to inherit it."""

    def display_table(self) -> Table:
        """Return the description of the result."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return self.display_table().text()

    def _repr_html_(self) -> str:
        return self.display_table().html()


def align_columns(rows: Sequence[Sequence[object]], left: int = 1) -> list[str]:
    """Return the lines of a table whose first row is its header; the first `left` columns are aligned left, the others
    right.
    """
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = [
        "  ".join(c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in cells
    ]
    return [line.rstrip() for line in [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]]


def _row(tag: str, cells: Sequence[object]) -> str:
    return "<tr>" + "".join(f"<{tag}>{_escaped(cell)}</{tag}>" for cell in cells) + "</tr>"


def _escaped(value: object) -> str:
    from html import escape  # here, because only notebooks need its table of 2,200 names

    return escape(printable(str(value)))
