"""Links of README and docs/ lead somewhere, on GitHub and in the site."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import LINKED, PAGES, ROOT, anchors, links, name_of

REMOTE = ("https://", "http://", "mailto:")


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_every_relative_link_and_anchor_of_a_page_exists(page: Path) -> None:
    assert [link for link in links(page) if not link.startswith(REMOTE) and not _leads_somewhere(page, link)] == []


def test_a_dead_link_and_a_dead_anchor_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Title here\n\n[a](#title-here) [b](#elsewhere) [c](page.md#title-here) [d](other.md) `[e](no.md)`\n"
    )
    assert [link for link in links(page) if not _leads_somewhere(page, link)] == ["#elsewhere", "other.md"]


def test_every_page_is_in_the_navigation_and_in_the_readme() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1]
    readme = (ROOT / "README.md").read_text()
    generated = {
        "commands.md",
        "index.md",
        "modules.md",
        "python.md",
        "settings.md",
    }  # complete in the site only, or linked there
    pages = [page.name for page in PAGES if name_of(page).startswith("docs/")]
    assert [page for page in pages if f": {page}\n" not in f"{navigation}\n"] == []
    assert [page for page in pages if page not in generated and f"(docs/{page})" not in readme] == []


def test_the_docs_that_code_names_exist() -> None:
    named = {
        found
        for top in ("folds", "ensemble", "benchmarks", "recipes")
        for path in (ROOT / top).rglob("*")
        if path.suffix in (".py", ".toml")
        for found in re.findall(r"docs/[\w-]+\.md", path.read_text(encoding="utf-8"))
    }
    assert {name for name in named if not (ROOT / name).is_file()} == set()
    assert named


def _leads_somewhere(page: Path, link: str) -> bool:
    target, _, anchor = link.partition("#")
    if anchor in ("only-light", "only-dark"):  # how the site chooses between two pictures
        anchor = ""
    path = page if not target else page.parent / target
    return path.is_file() and (not anchor or anchor in anchors(path))
