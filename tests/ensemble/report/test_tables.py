"""Tables as files: CSV, Markdown and LaTeX that hold what strangers wrote as text, and what is refused."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest

from ensemble.report.page.blocks import Matrix, Section, Table, Text
from ensemble.report.page.tables import (
    PlainTable,
    csv_of,
    latex_of,
    latex_text,
    markdown_of,
    plain_tables,
    write_tables,
)
from folds.errors import EnsembleError
from tests.ensemble.report import hostile


def plain(table: Table) -> PlainTable:
    (found,) = plain_tables([Section("one", "One", "", (table,))])
    return found


def scores(rows: int = 2, note: str = "95% CIs [over people].") -> PlainTable:
    cells: list[list[str | int | float | None]] = [[f"run_{at}", 1200 * at, 0.5, None] for at in range(1, rows + 1)]
    return plain(Table("scores", "Scores & more", ["run", "people", "macro F1", "gap"], cells, 1, note))


def test_a_csv_has_plain_numbers_and_empty_cells() -> None:
    assert csv_of(scores()) == "run,people,macro F1,gap\r\nrun_1,1200,0.500,\r\nrun_2,2400,0.500,\r\n"


def test_formulas_of_strangers_are_texts_where_asked() -> None:
    cells = [hostile.FORMULA, "@SUM(A1)", "+1+1", "-2+3", "-0.5", "+1.5e3", "-12%", "plain", "=1,2"]
    table = plain(Table("x", "x", ["text"], [[one] for one in cells]))
    rows = [row[0] for row in csv.reader(io.StringIO(csv_of(table, no_formulas=True)))]
    assert rows[1:] == [
        f"'{hostile.FORMULA}",
        "'@SUM(A1)",
        "'+1+1",
        "'-2+3",
        "-0.5",
        "+1.5e3",
        "-12%",
        "plain",
        "'=1,2",
    ]
    assert [row[0] for row in csv.reader(io.StringIO(csv_of(table)))][1:] == cells


def test_markdown_has_a_cell_for_each_column() -> None:
    table = plain(Table("x", "A | *b*", ["a|b", "c"], [[hostile.MARKDOWN, 1], ["<b>&amp;", 2]], 1, "see `x`"))
    assert markdown_of(table) == (
        "A \\| \\*b\\*\n\n| a\\|b | c |\n| --- | ---: |\n"
        "| \\[link\\](javascript:1) \\| \\`code\\` \\*\\*b\\*\\* | 1 |\n| \\<b\\>\\&amp; | 2 |\n\nsee \\`x\\`\n"
    )


def test_latex_has_the_rules_of_booktabs() -> None:
    assert latex_of(scores()) == "\n".join(
        [
            r"% \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            r"\caption{Scores \& more}",
            r"\label{tab:scores}",
            r"\begin{tabular}{lrrr}",
            r"\toprule",
            r"  run & people & macro F1 & gap \\",
            r"\midrule",
            r"  run\_1 & 1,200 & 0.500 & -- \\",
            r"  run\_2 & 2,400 & 0.500 & -- \\",
            r"\bottomrule",
            r"\end{tabular}",
            "",
            r"\smallskip",
            r"{\footnotesize 95\% CIs {[}over people{]}.}",
            r"\end{table}",
            "",
        ]
    )


def test_a_long_table_breaks_over_pages_and_long_cells_wrap() -> None:
    latex = latex_of(scores(31))
    assert latex.startswith("% \\usepackage{booktabs,longtable}\n\\begin{longtable}{lrrr}\n")
    assert latex.count("\\caption") == latex.count("\\bottomrule") == latex.count("\\endhead") == 1
    assert latex.count("\\toprule") == latex.count("  run & people") == 2  # on the first page, and on each further one
    assert "\\begin{tabular}" not in latex
    wide = plain(Table("x", "x", ["a", "b", "c"], [["short", "y" * 40, "z" * 500]], 3))
    assert "\\begin{tabular}{lp{0.16\\linewidth}p{0.48\\linewidth}}" in latex_of(wide)


def _commands(latex: str) -> set[str]:
    return set(re.findall(r"\\([A-Za-z]+)", latex))


@pytest.mark.parametrize("text", hostile.ALL)
def test_texts_of_strangers_stay_texts_in_latex(text: str) -> None:
    """No command but those of the escapes, braces that match, and no comment, cell or row more."""
    latex = latex_of(plain(Table("x", text, ["a", "b"], [[text, "[1]"], ["[2]", text]], 2, text)))
    body = latex.removeprefix("% \\usepackage{booktabs}\n")
    escapes = "textbackslash textasciitilde textasciicircum textless textgreater textbar textasciigrave ldots leq geq"
    layout = (
        "begin end centering caption label toprule midrule bottomrule smallskip footnotesize linewidth approx times"
    )
    assert _commands(body) <= {*escapes.split(), *layout.split()}
    without = re.sub(r"\\[&%$#_{}]", "", body)
    assert without.count("{") == without.count("}")
    assert not re.search(r"[%#~^]|(?<!\\)_", without)
    assert [line.count("&") for line in without.splitlines() if line.endswith("\\\\")] == [1, 1, 1]
    assert not re.search(r"\\\\\s*\[", body)


def test_dashes_are_not_joined_in_latex() -> None:
    assert latex_text("a--b---c – d − e") == "a-{}-b-{}-{}-c -- d $-$ e"


def test_a_confusion_matrix_gives_counts_and_shares() -> None:
    matrix = Matrix(
        "confusion",
        "Confusion.",
        ("a", "b"),
        ((1000, 2), (0, 4)),
        (("99%", "1%"), ("0%", "100%")),
        "",
        "Rows are true.",
    )
    counts, shares = plain_tables([Section("one", "One", "", (Text(("x",)), matrix))])
    assert csv_of(counts) == "true class / predicted class,a,b\r\na,1000,2\r\nb,0,4\r\n"
    assert (shares.name, shares.rows[0]) == ("confusion-shares", ("a", "99%", "1%"))
    assert counts.note == shares.note == "Rows are true."


def test_each_table_is_three_files_and_nothing_is_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    write_tables(folder, [scores()])
    assert sorted(one.name for one in folder.iterdir()) == ["scores.csv", "scores.md", "scores.tex"]
    assert (folder / "scores.csv").read_bytes() == csv_of(scores()).encode()
    (folder / "mine.txt").write_text("mine")
    (folder / "scores.md").write_text("edited")
    other = plain(Table("other", "x", ["a"], [["=1"]]))
    with pytest.raises(EnsembleError, match=r"3 tables of these names: scores.csv, scores.md, scores.tex"):
        write_tables(folder, [other, scores()])
    assert not (folder / "other.csv").exists()
    assert (folder / "scores.md").read_text() == "edited"
    write_tables(folder, [other, scores()], force=True, no_formulas=True)
    assert (folder / "scores.md").read_text() == markdown_of(scores())
    assert (folder / "other.csv").read_bytes() == b"a\r\n'=1\r\n"
    assert (folder / "mine.txt").read_text() == "mine"
    with pytest.raises(EnsembleError, match="it is not a folder"):
        write_tables(folder / "mine.txt", [other])


def test_files_have_long_texts_whole_and_are_empty_only_where_nothing_is_known() -> None:
    long = f"{'a' * 400}/x.png"
    found = plain(Table("ids", "Ids", ["id", "value"], [[long, None], ["–", float("nan")]], 1))
    assert csv_of(found) == f"id,value\r\n{long},\r\n–,\r\n"
    names = (f"{'b' * 60}1", f"{'b' * 60}2")
    matrix = Matrix("confusion", "Confusion.", names, ((1, 0), (0, 0)), (("100%", "0%"), ("–", "–")), "", "")
    counts, shares = plain_tables([Section("one", "One", "", (matrix,))])
    assert counts.header[1:] == names
    assert csv_of(shares).endswith(f"{names[1]},,\r\n")


def test_addresses_of_strangers_are_no_links_in_markdown() -> None:
    found = markdown_of(plain(Table("ids", "Ids", ["id"], [["https://a.example/x"], ["WWW.a.example"]], 1)))
    assert r"https\://a.example/x" in found
    assert r"WWW\.a.example" in found
