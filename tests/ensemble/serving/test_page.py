"""The page to drop images on, in a real browser: with files, by drag and drop, with errors, in the dark, by keyboard."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("uvicorn")

from ensemble.serving.engine import READY
from ensemble.serving.limits import Limits
from ensemble.serving.needs import Needs
from ensemble.serving.server import Serving, bind
from tests.chromium import CHROMIUM, Browser, chromium
from tests.ensemble.serving.conftest import until
from tests.ensemble.serving.fake import FakeModel, picture
from tests.ensemble.serving.test_people import AGE, SITE, PeopleModel

PAGE = Path(__file__).parents[3] / "ensemble/serving/page.html"
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    serving = Serving(bind("127.0.0.1", 0), FakeModel, Limits(max_images=3), {"127.0.0.1"})
    thread = threading.Thread(target=serving.run)
    thread.start()
    until(lambda: serving.engine.state == READY)
    yield serving.url
    serving.stop()
    thread.join(30)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("red.png", "blue.png", "broken.png", "green.png")]
    contents = [picture((200, 20, 10)), picture((10, 20, 200)), b"no image", picture((0, 200, 10))]
    for path, data in zip(paths, contents, strict=True):
        path.write_bytes(data)
    return paths


def check_clean(browser: Browser, url: str) -> None:
    """The page has logged nothing, broken no policy, and asked only its own server."""
    assert browser.complaints == []
    assert all(one.startswith(url) for one in browser.requested), browser.requested


@needs_browser
def test_chosen_files_are_answered_as_bars(browser: Browser, url: str, files: list[Path]) -> None:
    browser.open(url)
    assert browser.run("document.getElementById('model').innerText") == "Model: fake"
    browser.choose("#files", files[:3])
    browser.until("document.getElementById('status').innerText.includes('predicted')")
    assert browser.run("document.getElementById('status').innerText") == "2 images predicted, 1 could not be used."
    titles = browser.run("[...document.querySelectorAll('article h2')].map((one) => one.innerText)")
    assert titles == ["red, 86.3%", "blue, 86.3%", "Image 3"]
    text = browser.run("document.querySelector('article').innerText")
    assert "disagreement" in text
    assert "0.500" in text
    shares = browser.run("[...document.querySelectorAll('article:first-child .bar')].map((one) => one.style.width)")
    assert [round(float(one.rstrip("%")), 1) for one in shares] == [86.3, 9.0, 4.7]
    error = browser.run("document.querySelectorAll('article')[2].querySelector('.error').innerText")
    assert "not an image of a known format" in error
    assert browser.run("document.querySelectorAll('article img')[0].naturalWidth") == 20
    check_clean(browser, url)


@needs_browser
def test_dropped_files_are_answered(browser: Browser, url: str, files: list[Path]) -> None:
    browser.open(url)
    browser.drop("#drop", files[3:])
    browser.until("document.querySelectorAll('article h2').length === 1")
    assert browser.run("document.querySelector('article h2').innerText").startswith("green, ")
    check_clean(browser, url)


@needs_browser
def test_a_person_is_answered_once_the_values_are_filled_in(browser: Browser, files: list[Path]) -> None:
    model = PeopleModel(Needs(True, (AGE, SITE)))
    serving = Serving(bind("127.0.0.1", 0), lambda: model, Limits(), {"127.0.0.1"})
    thread = threading.Thread(target=serving.run)
    thread.start()
    until(lambda: serving.engine.state == READY)
    browser.open(serving.url)
    browser.drop("#drop", files[:2])
    browser.until("document.getElementById('status').innerText.includes('fill in the values')")
    assert model.given == []
    browser.run("document.querySelector('input[name=age]').value = '61'")
    browser.run("document.querySelector('input[name=site]').value = 'new place'")
    browser.run("document.querySelector('#fields button').click()")
    browser.until("document.getElementById('status').innerText.includes('Predicted from 2 images of the person')")
    assert model.given == [({"age": "61", "site": ""}, "")]
    assert browser.run("document.querySelectorAll('article').length") == 1
    assert browser.run("document.querySelectorAll('article .images img').length") == 2
    assert "Not known to the model: site" in browser.run("document.querySelector('article').innerText")
    check_clean(browser, serving.url)
    serving.stop()
    thread.join(30)


@needs_browser
def test_an_error_of_the_request_is_shown(browser: Browser, url: str, files: list[Path]) -> None:
    browser.open(url)
    browser.choose("#files", files)
    browser.until("document.getElementById('status').className === 'error'")
    shown = browser.run("document.getElementById('status').innerText")
    assert "Expected at most 3 images per request, found more. Send several requests" in shown
    assert browser.run("document.querySelectorAll('article').length") == 0


@needs_browser
def test_names_of_classes_are_text_and_no_page(browser: Browser, url: str, files: list[Path]) -> None:
    browser.open(url)
    answer = "{label: '<b>x</b>', confidence: 1, probabilities: {'<b>x</b>': 1}, uncertainty: {}}"
    browser.run(f"show(new Blob([]), 1, {answer})")
    assert browser.run("document.querySelectorAll('article b').length") == 0
    assert browser.run("document.querySelector('article h2').innerText") == "<b>x</b>, 100.0%"


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 900])
def test_nothing_is_wider_than_the_window(
    browser: Browser, url: str, files: list[Path], scheme: str, width: int
) -> None:
    browser.screen(width, dark=scheme == "dark")
    browser.open(url)
    browser.choose("#files", files[:3])
    browser.until("document.querySelectorAll('article').length === 3")
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    dark = browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 27)"
    assert dark == (scheme == "dark")
    assert browser.picture().startswith(b"\x89PNG")


@needs_browser
def test_the_page_works_by_keyboard_and_has_names(browser: Browser, url: str) -> None:
    browser.screen()
    browser.open(url)
    browser.press("Tab")
    assert browser.run("document.activeElement.id") == "files"
    assert browser.run("getComputedStyle(document.getElementById('drop')).outlineStyle") == "solid"
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    named = {(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if "role" in node}
    roles = {role for role, _ in named}
    assert {"main", "banner", "contentinfo", "status", "heading"} <= roles
    assert any("Drop images here, or choose files" in name for _, name in named)


@needs_browser
def test_the_description_of_the_interface_loads_nothing(browser: Browser, url: str) -> None:
    browser.screen(dark=True)
    browser.open(f"{url}/docs")
    assert "POST /predict" in browser.run("document.body.innerText")
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    check_clean(browser, url)


def luminance(color: str) -> float:
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colors_have_the_contrast_of_wcag_aa() -> None:
    styles = [
        dict(re.findall(r"--(\w+): (#\w{6})", block))
        for block in re.findall(r":root \{(.*?)\}", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    ]
    assert len(styles) == 2
    for colors in styles:
        for ground in ("ground", "panel"):
            for name in ("text", "soft", "bad", "bar"):
                assert contrast(colors[name], colors[ground]) >= 4.5, (name, ground)
            for name in ("line", "focus"):
                assert contrast(colors[name], colors[ground]) >= 3, (name, ground)
