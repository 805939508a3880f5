"""Show results from one description: as text of at most 20 lines, or as HTML in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from folds.errors import printable

MAX_LINES = 20  # of the text
MAX_ROWS, MAX_NOTES = 100, 40  # of the HTML


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

    def html(self, parts: Sequence[str] = ()) -> str:
        """Return HTML for a notebook, with its own style; every name in it is escaped, so no script can run.

        Parameters
        ----------
        parts : of `folds.utils.html`, shown below the table.
        """
        from folds.utils import html  # here, because only notebooks need it

        shown, more = list(self.rows), 0
        if len(shown) > MAX_ROWS:
            shown, more = shown[: MAX_ROWS - 1], len(shown) - MAX_ROWS + 1
        made = [html.paragraph(self.title, "title")] if self.title else []
        if self.header:
            rows = ([str(cell) for cell in row] for row in shown)
            made.append(html.table(self.header, rows, left=self.left))
        notes = [*([f"… and {more:,} more"] if more else []), *self.notes[:MAX_NOTES]]
        if len(self.notes) > MAX_NOTES:
            notes.append(f"… and {len(self.notes) - MAX_NOTES:,} more notes")
        made += [html.paragraph(note, "note") for note in notes]
        return html.fragment([*made, *parts])


class Displayed:
    """A result that can show itself as described by `display_table`. A dataclass needs ``repr=False`` to inherit it."""

    def display_table(self) -> Table:
        """Return the description of the result."""
        raise NotImplementedError

    def display_parts(self) -> Sequence[str]:
        """Return parts of `folds.utils.html` that a notebook shows below the table: drawings and pictures."""
        return ()

    def __repr__(self) -> str:
        return self.display_table().text()

    def _repr_html_(self) -> str:
        return self.display_table().html(self.display_parts())


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
