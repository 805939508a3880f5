"""Results as text of few lines and as HTML in which names cannot run."""

from __future__ import annotations

import pytest

from folds.utils.display import MAX_LINES, Displayed, Table, align_columns

EVIL = '<script>alert("x")</script>\x1b[2J\n'


@pytest.mark.parametrize("rows", [0, 1, 5, 18, 19, 500])
@pytest.mark.parametrize("notes", [0, 3, 40])
def test_text_has_few_lines_and_says_what_is_left_out(rows: int, notes: int) -> None:
    table = Table("title", ["a", "b"], [[i, i] for i in range(rows)], [f"note {i}" for i in range(notes)])
    lines = table.text().splitlines()
    assert len(lines) <= MAX_LINES
    assert lines[0] == "title"
    hidden = rows - sum(line.split() == [str(i), str(i)] for i in range(rows) for line in lines)
    assert (f"… and {hidden:,} more" in lines) == (hidden > 0)
    shown = sum(line.startswith("note ") for line in lines)
    assert (f"… and {notes - shown:,} more notes" in lines) == (shown < notes)


def test_columns_are_aligned() -> None:
    assert align_columns([["run", "score"], ["swin", "1"]]) == ["run   score", "----  -----", "swin      1"]


def test_names_cannot_run_or_move_the_cursor() -> None:
    table = Table(EVIL, [EVIL], [[EVIL]], [EVIL])
    assert "<script>" not in table.html()
    assert table.html().count("&lt;script&gt;") == 4
    for text in (table.text(), table.html()):
        assert "\x1b" not in text
    assert len(table.text().splitlines()) == 5


def test_a_result_shows_its_table() -> None:
    class One(Displayed):
        def display_table(self) -> Table:
            return Table("one", ["a"], [[1]])

    assert repr(One()) == "one\na\n-\n1"
    assert One()._repr_html_() == Table("one", ["a"], [[1]]).html()
