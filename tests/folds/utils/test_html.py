"""HTML parts: texts of strangers are texts, and a fragment has its own style and no script."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from folds.utils import html
from tests.ensemble.report import hostile
from tests.ensemble.report.test_page import PIXEL, SVG, Elements


def hostile_parts() -> list[str]:
    texts = hostile.ALL
    pictures = [(PIXEL if at % 2 else text, text, (text,), {text: text}) for at, text in enumerate(texts)]
    classes = (hostile.SCRIPT, hostile.ATTRIBUTE)
    shares = ((hostile.SCRIPT, hostile.IMAGE),) * 2
    return [
        html.paragraph(hostile.SCRIPT, "title"),
        html.table(texts[:3], [texts[:3], [1, 2.5, None]], caption=hostile.IMAGE, note=hostile.SVG),
        html.matrix(classes, ((3, 1), (0, 2)), shares, caption=hostile.SCRIPT, note=hostile.SVG),
        html.gallery(pictures, caption=hostile.SCRIPT, note=hostile.IMAGE),
        html.figure(SVG, hostile.ATTRIBUTE, hostile.SCRIPT),
        html.image(PIXEL, hostile.ATTRIBUTE),
        html.image(hostile.LINK, hostile.ATTRIBUTE),
    ]


def test_nothing_of_a_stranger_is_an_element_of_a_fragment() -> None:
    made = html.fragment(hostile_parts())
    elements = Elements(made).found
    allowed = {
        "div",
        "style",
        "p",
        "figure",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "bdi",
        "b",
        "small",
    }
    allowed |= {"figcaption", "ul", "li", "img", "span", "svg", "title", "rect", "wbr"}
    assert {tag for tag, _ in elements} <= allowed
    names = {name for _, attributes in elements for name in attributes}
    assert not [name for name in names if name.startswith("on") or name == "style"]
    assert "id" not in names, "a notebook has several fragments"
    assert all((one["src"] or "").startswith("data:image/png;base64,") for tag, one in elements if tag == "img")
    assert "\x1b" not in made


def test_the_style_of_a_fragment_is_for_the_fragment() -> None:
    (style,) = re.findall(r"<style>(.*?)</style>", html.fragment([]), re.DOTALL)
    selectors = [one for rule in re.findall(r"([^{}]+)\{[^{}]*\}", style) for one in rule.split(",")]
    assert len(selectors) > 80
    assert not [one for one in selectors if not one.strip().startswith(f".{html.SCOPE}")]
    assert "@" not in style, "rules for dark systems and print are those of the page"
    assert not re.search(r"url\(|expression|import", style)
    assert len(style) < 16_000


def test_numbers_of_a_page_can_be_sorted_and_pictures_filtered() -> None:
    live = html.table(["a", "b"], [["x", 1.5]], caption="c", name="one", live=True)
    assert 'data-number="1.5"' in live
    assert 'id="one"' in live
    pictures = [(PIXEL, "i", (), {"true": "cat"}), (PIXEL, "j", (), {"true": "dog"})]
    assert html.gallery(pictures, name="two", live=True).count("<option") == 3
    assert "<button" not in html.table(["a"], [["x"]]) + html.gallery(pictures)


def test_the_wheel_has_the_styles() -> None:
    folder = Path(html.__file__).parent
    with open(folder.parent.parent / "pyproject.toml", "rb") as file:
        patterns = tomllib.load(file)["tool"]["setuptools"]["package-data"]["folds"]
    packaged = {path for pattern in patterns for path in folder.parent.glob(pattern)}
    assert {folder / name for name in (*html.STYLES, "notebook.css")} <= packaged
