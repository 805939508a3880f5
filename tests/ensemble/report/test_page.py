"""The page: one file, its policy, texts of strangers, pictures within the limit of bytes."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensemble.report.page.blocks import Check, Checks, Figure, Gallery, Matrix, Missing, Picture, Section, Table, Text
from ensemble.report.page.glossary import words_of
from ensemble.report.page.page import Page, page_html
from ensemble.report.page.thumbnails import Thumbnails
from folds.utils.html import cell_text, check_svg, shown, visible
from tests.ensemble.report import hostile

PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><title>t</title><rect width="8" height="2" class="bar"/></svg>'


def hostile_page() -> Page:
    texts = hostile.ALL
    pictures = tuple(
        Picture(PIXEL if at % 2 else "", text, (text,), {"true": text, "predicted": texts[at - 1]})
        for at, text in enumerate(texts)
    )
    classes = (hostile.SCRIPT, hostile.ATTRIBUTE, hostile.LONG)
    blocks = (
        Text(texts),
        Checks(tuple(Check("warn", text, text, text) for text in texts)),
        Missing(hostile.SCRIPT, f"`{hostile.SCRIPT}`"),
        Table(
            "all-texts",
            hostile.SCRIPT,
            [hostile.SCRIPT, "value", hostile.ATTRIBUTE],
            [[text, 1.5, text] for text in texts],
            1,
            hostile.IMAGE,
        ),
        Figure("a-figure", SVG, hostile.ATTRIBUTE, hostile.SCRIPT),
        Matrix(
            "confusion",
            hostile.SCRIPT,
            classes,
            ((3, 1, 0),) * 3,
            (("0.75", hostile.SCRIPT, hostile.ATTRIBUTE),) * 3,
            "pictures",
            hostile.SVG,
        ),
        Gallery("pictures", hostile.SCRIPT, pictures, hostile.IMAGE),
    )
    return Page(hostile.CLOSING, (Section("one", hostile.SCRIPT, hostile.IMAGE, blocks),), texts)


class Elements(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_nothing_of_a_stranger_becomes_an_element_or_an_attribute() -> None:
    html = page_html(hostile_page())
    elements = Elements(html).found
    assert sum(tag == "script" for tag, _ in elements) == 1
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on") or name == "style"]
    assert {tag for tag, _ in elements}.isdisjoint({"iframe", "object", "embed", "form", "link", "base"})
    links = [one[name] for _, one in elements for name in ("href", "src") if name in one]
    assert links
    assert all(link and link.startswith(("#", "data:image/")) for link in links)
    assert "{{" in html  # templates of strangers are not run


def test_the_policy_allows_exactly_the_style_and_the_script_of_the_page() -> None:
    html = page_html(hostile_page())
    policy = next(one["content"] for tag, one in Elements(html).found if tag == "meta" and "http-equiv" in one)
    assert policy is not None
    parts = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert (parts["default-src"], parts["img-src"]) == ("'none'", "data:")
    for name in ("style", "script"):
        (content,) = re.findall(rf"<{name}>(.*?)</{name}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert parts[f"{name}-src"] == f"'sha256-{digest}'"
    assert "unsafe" not in policy


def test_the_same_sections_give_the_same_bytes() -> None:
    assert page_html(hostile_page()) == page_html(hostile_page())


def test_marks_of_direction_and_control_characters_are_written_out() -> None:
    assert visible(hostile.RIGHT_TO_LEFT) == "safe\\u202egpj.exe"
    assert "\x1b" not in visible(hostile.CONTROL)
    assert shown("a" * 1000 + "end", 100).endswith("end")
    assert len(shown(hostile.LONG)) <= 301


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (1234, "1,234"),
        (0.5, "0.500"),
        (float("nan"), "–"),
        ("0.5", "0.5"),
        (np.float64(2), "2.000"),
        (np.int64(1200), "1,200"),
    ],
)
def test_cells(value: object, text: str) -> None:
    assert cell_text(value) == text  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "inside",
    [
        "<script>1</script>", '<a href="javascript:1"/>', '<rect onclick="1"/>', '<rect style="fill:red"/>', "<foreignObject/>",
        '<use href="http://x/y#z"/>', '<image href="data:image/png;base64,AA"/>', '<rect fill="url(http://x)"/>', "<style>@import 'x';</style>",
        '<use xmlns:x="http://www.w3.org/1999/xlink" x:href="//evil"/>', "<set attributeName='href'/>",
    ],
)  # fmt: skip
def test_a_drawing_that_could_run_or_load_is_refused(inside: str) -> None:
    with pytest.raises(ValueError, match="drawing"):
        check_svg(f'<svg xmlns="http://www.w3.org/2000/svg">{inside}</svg>')


def test_a_drawing_with_an_entity_is_refused() -> None:
    with pytest.raises(ValueError, match="declaration"):
        check_svg('<!DOCTYPE svg [<!ENTITY a "aaaa">]><svg>&a;</svg>')


def test_one_name_for_two_blocks_is_an_error() -> None:
    twice = (Table("x", "", ["a"], []), Table("x", "", ["a"], []))
    with pytest.raises(ValueError, match="'x' twice"):
        page_html(Page("", (Section("s", "S", "", twice),)))


def test_a_source_that_is_no_picture_is_not_shown() -> None:
    for source in ("https://x/y.jpg", "data:image/svg+xml;base64,AAAA", "data:text/html,x", 'data:image/png;base64,"x'):
        html = page_html(Page("", (Section("s", "S", "", (Gallery("g", "", (Picture(source, "a"),)),)),)))
        assert "<img" not in html


def _gallery_of_files(folder: Path, count: int) -> tuple[Thumbnails, Page]:
    random = np.random.default_rng(0)
    paths = {}
    for at in range(count):
        paths[f"i{at}"] = folder / f"{at}.png"
        Image.fromarray(random.integers(0, 255, (160, 160, 3)).astype(np.uint8)).save(paths[f"i{at}"])
    made = Thumbnails(paths)
    names = list(paths)
    galleries = tuple(
        Gallery(f"g{at}", "", tuple(Picture(made.reference(name), name) for name in part))
        for at, part in enumerate((names[: count // 2], names[count // 2 :]))
    )
    return made, Page("", (Section("s", "S", "", galleries),))


def test_pictures_are_cut_where_the_page_would_be_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, page = _gallery_of_files(tmp_path, 20)
    whole = page_html(page, made)
    assert whole.count("<img") == 20
    limit = 700_000 // 2 + 100_000
    monkeypatch.setattr("ensemble.report.page.page.MAX_BYTES", limit)
    cut = page_html(page, made)
    assert 4 < cut.count("<img") < 20
    assert len(cut.encode()) <= limit
    first, second = cut.split('id="g1"')
    assert abs(first.count("<img") - second.count("<img")) <= 1  # no gallery takes the room of another one
    assert "not shown" in cut


def test_formulas_in_tables_are_made_harmless_by_default() -> None:
    html = page_html(hostile_page(), Thumbnails({}))
    assert html.count('class="safe"') == 2  # of the table, and of the confusion matrix
    assert html.count('<input type="checkbox" class="safe" checked>') == 2


def test_the_glossary_has_the_words_of_the_page() -> None:
    page = Page("", (Section("s", "S", "The vote of 2 members.", (Table("t", "OOF score", ["a"], [["x"]]),)),))
    assert [word for word, _ in words_of(page)] == ["Member", "OOF, out of fold", "Vote"]
    assert "<dt>Vote</dt>" in page_html(page)
    assert 'id="glossary"' not in page_html(Page("", (Section("s", "S", "", (Text(("Nothing.",)),)),)))


def test_folded_drawings_of_one_kind_are_opened_by_one_line() -> None:
    figures = [Figure(f"f{at}", SVG, "t", "d", "More" if at else "") for at in range(3)]
    html = page_html(Page("", (Section("s", "S", "", tuple(figures)),)))
    before, after = html.split("<summary>More</summary>")
    assert 'id="f0"' in before
    assert 'id="f1"' in after
    assert 'id="f2"' in after.split("</details>")[0]
