"""The pictures of the report in the docs: drawn by this file, and compared with the page as it is now.

    SCREENSHOTS=1 python -m pytest tests/ensemble/report/test_screenshots.py      # draws them anew, with Chromium

Beside the pictures lies a hash of what they show: the style of the page, and of each section its headings, captions,
heads of tables and kinds of blocks. A page that has become another one makes them outdated; another number does not.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ensemble as en
from folds.data.synthetic.faces import random_face
from folds.data.synthetic.portraits import draw_portrait
from tests.chromium import CHROMIUM, chromium
from tests.conftest import ROOT
from tests.ensemble.report.evidence_worlds import draw_evidence
from tests.ensemble.report.report_worlds import write_world

FOLDER, DOC = ROOT / "docs/images", ROOT / "docs/report.md"
HASHES = FOLDER / "report.json"
SECTIONS, THEMES = ("verdict", "compare", "mistakes"), ("light", "dark")
CLASSES, STATES = ("mask", "no mask", "wrong mask"), ("wear", "normal", "incorrect")
WIDTH, HEIGHT = 1000, 1400
# Picture → the element that it shows, up to its last part that ends within the height.
PICTURES = {"verdict": "#verdict", "compare": "#compare", "mistakes": "#mistakes", "worst": "#mistakes-worst"}
DRAWN = {"classes": CLASSES, "people": 40, "per_person": 3, "skills": (3.4, 3.0, 2.4)}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a small fixed world of drawn faces."""
    root = write_world(tmp_path_factory.mktemp("screenshots"), **DRAWN)  # type: ignore[arg-type]
    evidence = draw_evidence(**DRAWN)  # type: ignore[arg-type]
    for part in (evidence.oof, evidence.test):
        assert part is not None
        for name, label, person in zip(part.ids.tolist(), part.labels.tolist(), part.persons.tolist()):
            number = int(person[1:])
            face = random_face(number % 2, number % 3, np.random.default_rng(number))
            drawn = draw_portrait(face, STATES[label], np.random.default_rng([number, len(name), label]), (96, 128))
            drawn.save(root / "images" / name)
    return en.report(root=root, output=root / "report.html", section=SECTIONS, progress=False)


class _Structure(HTMLParser):
    """Collects, for each section, what stays if only numbers and names change."""

    TEXTS = ("h2", "caption", "th", "strong", "summary")

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, list[str]] = {}
        self.style: list[str] = []
        self.inside: list[str] = []
        self.section = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag in ("style", "section", "svg", "tbody", "ul", *self.TEXTS):
            self.inside.append(tag)
        if tag == "section":
            self.section = named["id"] or ""
        if self.section and not {"svg", "tbody", "ul"} & set(self.inside):
            self.found.setdefault(self.section, []).append(
                f"<{tag} {named.get('class') or ''} {named.get('id') or ''}>"
            )

    def handle_endtag(self, tag: str) -> None:
        if self.inside and self.inside[-1] == tag:
            self.inside.pop()
        if tag == "section":
            self.section = ""

    def handle_data(self, data: str) -> None:
        inside = self.inside[-1] if self.inside else ""
        if inside == "style":
            self.style.append(data)
        elif inside in self.TEXTS and self.section and data.strip() and not {"svg", "tbody", "ul"} & set(self.inside):
            self.found[self.section].append(" ".join(data.split()))


def hashes_of(html: str) -> dict[str, str]:
    parser = _Structure()
    parser.feed(html)
    parts = {"style": "".join(parser.style)} | {name: "\n".join(parser.found[name]) for name in SECTIONS}
    return {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in parts.items()}


def draw(page: Path) -> None:
    """Write the pictures, of the top of each section, and their hashes."""
    with chromium() as browser:
        for theme in THEMES:
            browser.screen(WIDTH, HEIGHT, theme == "dark")
            browser.open(page)
            for name, shown in PICTURES.items():
                top, bottom = browser.run(
                    f"(() => {{ const one = document.querySelector('{shown}'), top = one.getBoundingClientRect().top;"
                    " const ends = [one, ...one.querySelectorAll('.block, .check, .pictures > li')]"
                    f".map(part => part.getBoundingClientRect().bottom).filter(end => end <= top + {HEIGHT});"
                    " return [top + scrollY, Math.max(...ends) + scrollY]; })()"
                )
                clip = {"x": 0, "y": top, "width": WIDTH, "height": bottom - top + 8, "scale": 1}
                found = browser.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
                picture = Image.open(io.BytesIO(base64.b64decode(found["data"]))).convert("RGB")
                picture.quantize(200, dither=Image.Dither.NONE).save(
                    FOLDER / f"report-{name}-{theme}.png", optimize=True
                )
            assert browser.complaints + browser.requested == []
    HASHES.write_text(json.dumps(hashes_of(page.read_text(encoding="utf-8")), indent=1) + "\n")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed, which draws them")
def test_the_pictures_in_the_docs_show_the_page_of_today(page: Path) -> None:
    if os.environ.get("SCREENSHOTS"):
        draw(page)
    stored, now = json.loads(HASHES.read_text()), hashes_of(page.read_text(encoding="utf-8"))
    outdated = [name for name in now if stored.get(name) != now[name]]
    assert not outdated, (
        f"the pictures of the report in docs/images are outdated ({', '.join(outdated)}): "
        "SCREENSHOTS=1 python -m pytest tests/ensemble/report/test_screenshots.py draws them anew; look at them"
    )


def test_the_pictures_are_there_and_named_in_the_docs() -> None:
    text = DOC.read_text(encoding="utf-8")
    wanted = {f"report-{name}-{theme}.png" for name in PICTURES for theme in THEMES}
    assert {path.name for path in FOLDER.glob("report-*.png")} == wanted
    for name in wanted:
        assert f"(images/{name}#only-{name.rpartition('-')[2].removesuffix('.png')})" in text
        assert (FOLDER / name).stat().st_size <= 300_000
        with Image.open(FOLDER / name) as picture:
            assert picture.width == WIDTH


def test_a_number_does_not_make_a_picture_outdated_but_a_column_does(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    own = hashes_of(html)
    assert hashes_of(html.replace("<td", "<td data-x='1'")) == own
    assert hashes_of(html.replace("<h2 ", "<h2 class='x' ", 1)) != own
    assert hashes_of(html.replace("<style>", "<style>body{color:red}", 1))["style"] != own["style"]
