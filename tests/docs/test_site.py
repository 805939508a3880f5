"""The site builds strictly, without network, and refers to no asset elsewhere; the README's picture is drawn from the
demo's result.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

mkdocs = pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="needs the extra [docs]")
# Proxies that answer nothing: a build that fetches something fails.
NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")


@mkdocs
def test_the_site_builds_strictly_without_network_or_assets(tmp_path: Path) -> None:
    import os

    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, **NO_NETWORK}
    )
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert {"index.html", "commands.html", "python.html"} <= {page.name for page in pages}
    assert [(page.name, found) for page in pages for found in remote_assets(page.read_text(encoding="utf-8"))] == []
    assert "ensemble kfold [OPTIONS]" in re.sub(r"<[^>]+>", "", (tmp_path / "site" / "commands.html").read_text())
    assert "EnsembleError" in (tmp_path / "site" / "python.html").read_text()


def remote_assets(html: str) -> list[str]:
    """Return the addresses that a page would load by itself: scripts, styles, pictures, fonts; links to read are
    none.
    """
    loaded = re.findall(r'<(?:script|img|iframe|source)\b[^>]*\bsrc(?:set)?="((?:https?:)?//[^"]+)"', html)
    return loaded + re.findall(r'<link\b[^>]*\bhref="((?:https?:)?//[^"]+)"', html)


def test_remote_assets_are_told_from_links() -> None:
    assert remote_assets('<a href="https://a.org">x</a><img src="images/a.svg"><link href="a.css">') == []
    assert remote_assets('<script src="https://a.org/x.js"></script><link rel="x" href="//b.org/y.css">') == [
        "https://a.org/x.js",
        "//b.org/y.css",
    ]


def test_the_generated_pages_are_made_without_mkdocs() -> None:
    hooks = _module("hooks")
    commands = hooks.on_page_markdown("a\n\n<!-- help of every command -->\n")
    assert "## ensemble kfold" in commands
    assert "Usage: ensemble blend" in commands
    modules = hooks.on_page_markdown("<!-- module map -->")
    assert "### folds.splits" in modules
    assert "| `repair` |" in modules
    assert "::: " in hooks.on_page_markdown("<!-- python api -->")


def test_a_package_s_lazy_names_are_its_python_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = _module("hooks")
    for package, names in (("ensemble", "blend, score as score"), ("folds", "score, split")):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(
            f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from {package}.x import {names}\n"
        )
    monkeypatch.setattr(hooks, "ROOT", tmp_path)
    made = hooks.python_api()
    assert re.findall(r"::: (\S+)", made) == ["ensemble.blend", "ensemble.score", "folds.split"]


def test_the_readme_picture_shows_what_the_readme_table_says() -> None:
    lines = json.loads((ROOT / "docs" / "images" / "demo.json").read_text())["lines"]
    block = _module("images/draw").BLOCK.search((ROOT / "README.md").read_text())
    assert block is not None
    header, rule = block[0].splitlines()[2:4]
    assert re.fullmatch(r" +OOF macro F1 .*", header)
    assert len(header) == len(rule)
    for line in lines:
        oof, test = line["oof"], line["test"]
        row = next((row for row in block[0].splitlines() if row.startswith(f"{line['name']} ")), "")
        values = [value for score in (oof, test) for value in (score["score"], score["low"], score["high"])]
        assert [f"{value:.3f}" for value in values] == re.findall(r"(?<![-+\d])\d\.\d{3}", row)[:6], line["name"]


def test_the_readme_block_of_the_demo_is_replaced() -> None:
    draw = _module("images/draw")
    readme = "a\n<!-- demo output: begin -->\n```text\nold\n```\n<!-- demo output: end -->\nb\n"
    assert draw.with_output(readme, "new \\1\n") == readme.replace("old", "new \\1")
    with pytest.raises(ValueError, match="demo output"):
        draw.with_output("nothing", "new")


def _module(name: str) -> object:
    path = ROOT / "docs" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
