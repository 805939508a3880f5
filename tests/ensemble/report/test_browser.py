"""The page in a headless Chromium: every link and filter works, the console is silent, nothing of a stranger runs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ensemble.report.page.blocks import Gallery, Matrix, Picture, Section, Table, Text
from ensemble.report.page.page import Page, page_html
from ensemble.report.page.tables import csv_of, latex_of, markdown_of, plain_tables
from tests.chromium import CHROMIUM, Browser, chromium
from tests.ensemble.report import hostile
from tests.ensemble.report.test_page import PIXEL, hostile_page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
CLASSES = ("cat", "dog", "eel")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def plain_page() -> Page:
    rows = [
        ["run1", "0.61 [0.50, 0.70]", 1200, None],
        ["run10", "0.676 [0.592, 0.749]", 40, -0.5],
        ["run2", "–", 3, 2.0],
        ["=1+1", "-0.1", 5, 1.0],
    ]
    pictures = tuple(
        Picture(PIXEL, f"i{true}{predicted}{at}", (), {"true": CLASSES[true], "predicted": CLASSES[predicted]})
        for true in range(3)
        for predicted in range(3)
        for at in range(1 + true)
    )
    counts = tuple(tuple(1 + true for _ in range(3)) for true in range(3))
    return Page(
        "Report",
        (
            Section("verdict", "Verdict", "", (Text(("Submit `x`.",)),)),
            Section("compare", "Compare", "", (Table("scores", "Scores of runs", ["run", "macro F1", "people", "change"], rows),)),
            Section("mistakes", "Mistakes", "", (
                Matrix("confusion", "Confusion", CLASSES, counts, (("0.33",) * 3,) * 3, "wrong"),
                Gallery("wrong", "Pictures", pictures),
            )),
        ),
    )  # fmt: skip


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Browser:
    path = tmp_path / "page.html"
    path.write_text(page_html(plain_page()), encoding="utf-8")
    browser.open(path)
    return browser


def column(browser: Browser, at: int = 0) -> list[str]:
    return browser.run(f"[...document.querySelectorAll('#scores tbody tr')].map(row => row.cells[{at}].textContent)")


def sort_by(browser: Browser, at: int) -> Any:
    return browser.run(
        f"(() => {{ const head = document.querySelectorAll('#scores thead th')[{at}]; head.querySelector('button').click();"
        " return head.getAttribute('aria-sort'); })()"
    )


def visible(browser: Browser) -> list[str]:
    return browser.run(
        "[...document.querySelectorAll('#wrong li')].filter(one => one.offsetParent !== null).map(one => one.querySelector('.id').textContent)"
    )


def test_tables_sort_numbers_as_numbers_and_texts_as_texts(page: Browser) -> None:
    assert sort_by(page, 1) == "ascending"
    assert column(page) == ["=1+1", "run1", "run10", "run2"]  # what is unknown comes last
    assert sort_by(page, 1) == "descending"
    assert column(page) == ["run10", "run1", "=1+1", "run2"]
    sort_by(page, 2)
    assert column(page, 2) == ["3", "5", "40", "1,200"]
    sort_by(page, 3)
    assert column(page) == ["run10", "=1+1", "run2", "run1"]
    sort_by(page, 0)
    assert column(page) == ["=1+1", "run1", "run2", "run10"]
    assert page.run("document.querySelectorAll('#scores [aria-sort]').length") == 1
    assert page.complaints + page.requested == []


def test_every_link_leads_to_its_section(page: Browser) -> None:
    links = page.run("[...document.querySelectorAll('a')].map(one => one.getAttribute('href'))")
    assert {"#content", "#verdict", "#compare", "#mistakes"} == set(links)
    assert page.run("[...document.querySelectorAll('a')].every(one => document.getElementById(one.hash.slice(1)))")
    page.run("document.querySelector('a[href=\"#mistakes\"]').click()")
    assert page.run("location.hash") == "#mistakes"
    assert page.complaints + page.requested == []


def test_filters_show_the_pictures_with_their_tags(page: Browser) -> None:
    assert len(visible(page)) == 18
    choose = "(tag, value) => { const one = document.querySelector(`#wrong select[data-tag=${tag}]`); one.value = '=' + value; one.dispatchEvent(new Event('change')); }"
    page.run(f"({choose})('true', 'eel')")
    assert len(visible(page)) == 9
    page.run(f"({choose})('predicted', 'dog')")
    assert visible(page) == ["i210", "i211", "i212"]
    assert "3 of 18 pictures" in page.run("document.querySelector('#wrong .said').textContent")
    page.run("document.querySelector('#wrong .all').click()")
    assert len(visible(page)) == 18
    assert page.complaints + page.requested == []


def test_a_cell_opens_its_pictures_also_by_the_enter_key(page: Browser) -> None:
    page.run("document.querySelectorAll('button.cell')[3].focus()")
    page.press("Enter")
    assert visible(page) == ["i100", "i101"]
    assert page.run("document.activeElement.id") == "wrong"
    assert page.run("document.querySelector('#wrong select[data-tag=true]').value") == "=dog"
    page.run("document.querySelectorAll('button.cell')[8].click()")
    assert visible(page) == ["i220", "i221", "i222"]
    assert page.complaints + page.requested == []


def test_the_first_key_leads_past_the_navigation(page: Browser) -> None:
    page.press("Tab")
    assert page.run("document.activeElement.textContent") == "Skip to the content"
    page.press("Enter")
    assert page.run("location.hash") == "#content"


def saved(browser: Browser, format_: str, safe: bool, table: str = "scores") -> str:
    """The content that the button Save writes."""
    return browser.run(
        f"""(async () => {{
          const block = document.getElementById({json.dumps(table)}), made = [];
          const before = URL.createObjectURL;
          URL.createObjectURL = (blob) => {{ made.push(blob); return before(blob); }};
          HTMLAnchorElement.prototype.click = () => {{}};
          const format = block.querySelector('.format');
          format.value = {json.dumps(format_)};
          format.dispatchEvent(new Event('change'));
          block.querySelector('.safe').checked = {json.dumps(safe)};
          block.querySelector('.save').click();
          URL.createObjectURL = before;
          return made[0].text();
        }})()"""
    )


def test_a_table_is_saved_as_csv_markdown_and_latex(page: Browser) -> None:
    rows = list(csv.reader(io.StringIO(saved(page, "csv", False))))
    assert rows[0] == ["run", "macro F1", "people", "change"]
    assert rows[1:3] == [["run1", "0.61 [0.50, 0.70]", "1200", ""], ["run10", "0.676 [0.592, 0.749]", "40", "-0.500"]]
    assert rows[4][0] == "=1+1"
    assert list(csv.reader(io.StringIO(saved(page, "csv", True))))[4] == ["'=1+1", "-0.1", "5", "1.000"]
    markdown = saved(page, "md", False).splitlines()
    assert markdown[0] == "Scores of runs"
    assert markdown[3] == "| --- | ---: | ---: | ---: |"
    assert markdown[4] == r"| run1 | 0.61 \[0.50, 0.70\] | 1,200 | – |"
    latex = saved(page, "tex", False)
    assert "\\toprule" in latex
    assert "  run10 & 0.676 {[}0.592, 0.749{]} & 40 & -0.500 \\\\" in latex
    assert "\\begin{tabular}{lrrr}" in latex
    assert page.complaints + page.requested == []


def test_a_table_of_the_page_is_the_file_of_the_table(browser: Browser, tmp_path: Path) -> None:
    """The conversion of the page and that of Python give the same texts, also for what strangers wrote."""
    (section,) = hostile_page().sections
    many = [[f"row {at}", at * 1000, hostile.ALL[at % len(hostile.ALL)]] for at in range(40)]
    names = Table("many", "Many -- rows & 50%", ["a\\b", "number", "–"], many, 2, "≤ 3 [note] $x$")
    odd = Table(
        "odd",
        "  odd  ",
        ["", "x"],
        [["[1]", None], ["–", float("nan")], ["--- ≥ ×", True], [" =1 ", -1e6], ["a,b", '"']],
    )
    page = replace(hostile_page(), sections=(replace(section, blocks=(*section.blocks, names, odd)),))
    path = tmp_path / "tables.html"
    path.write_text(page_html(page), encoding="utf-8")
    browser.open(path)
    tables = {one.name: one for one in plain_tables(page.sections)}
    assert set(tables) == {"all-texts", "confusion", "confusion-shares", "many", "odd"}
    offered = browser.run(
        "[...document.querySelectorAll('table')].map(one => [one.dataset.table, !!one.closest('.block').querySelector('.save')])"
    )
    assert sorted(map(tuple, offered)) == [(name, True) for name in ("all-texts", "confusion", "many", "odd")]
    for name, _ in offered:
        assert saved(browser, "csv", False, name) == csv_of(tables[name])
        assert saved(browser, "csv", True, name) == csv_of(tables[name], no_formulas=True)
        assert saved(browser, "md", False, name) == markdown_of(tables[name])
        assert saved(browser, "tex", False, name) == latex_of(tables[name])
    assert browser.complaints + browser.requested == []


def test_nothing_of_a_stranger_runs(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    path.write_text(page_html(hostile_page()), encoding="utf-8")
    browser.open(path)
    assert browser.run("document.title").startswith("</script>")
    browser.run("[...document.querySelectorAll('button.sort, button.cell, .all')].forEach(one => one.click())")
    browser.run(
        "[...document.querySelectorAll('select[data-tag]')].forEach(one => { one.selectedIndex = 3; one.dispatchEvent(new Event('change')); })"
    )
    latex, text = saved(browser, "tex", False, "all-texts"), saved(browser, "csv", True, "all-texts")
    assert r"\textbackslash{}input\{/etc/passwd\} 50\% of \$x\_1\$ \& \{\textasciitilde{}\textasciicircum{}\}" in latex
    firsts = [row[0] for row in csv.reader(io.StringIO(text)) if row]
    assert {"'=cmd|'/c calc'!A1", "'@SUM(A1)", "'+1+1", "'-2+3"} <= set(firsts)
    assert browser.run("document.title").startswith("</script>")
    assert browser.run("document.querySelectorAll('img[src=x], svg[onload], script').length") == 1
    assert browser.complaints + browser.requested == []


def test_a_script_that_got_into_the_page_would_be_stopped(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "broken.html"
    html = page_html(plain_page()).replace("<h1>", f"{hostile.SCRIPT}{hostile.IMAGE}<h1>")
    path.write_text(html, encoding="utf-8")
    browser.open(path)
    assert browser.run("document.title") == "Report"
    assert any("Content Security Policy" in one for one in browser.complaints)


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (390, False)])
def test_the_page_fits_the_screen_in_light_and_dark(browser: Browser, tmp_path: Path, width: int, dark: bool) -> None:
    path = tmp_path / "page.html"
    path.write_text(page_html(hostile_page()), encoding="utf-8")
    browser.screen(width, 800, dark)
    browser.open(path)
    assert browser.run("document.documentElement.scrollWidth") <= width
    ground, text = browser.run(
        "['backgroundColor', 'color'].map(name => getComputedStyle(document.body)[name].match(/[0-9]+/g).map(Number))"
    )
    assert (sum(ground) < sum(text)) == dark
    assert abs(sum(ground) - sum(text)) > 450
    assert browser.complaints + browser.requested == []
