"""The pages of the documentation, taken apart: fenced blocks, inline code, links, headings; shared by the tests of
docs/.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md") if (ROOT / name).is_file())]
# A comment `<!-- run: WHERE -->` above a block makes the suite run it, reduced, in the folder that WHERE names.
_RUN = re.compile(r"<!-- run: (.+) -->")
_FENCE = re.compile(r"^```(\w*)$")
_LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its lines, the page and line it is on, and where it runs (None: it does not)."""

    page: str
    line: int
    language: str
    text: str
    run: str | None


def name_of(page: Path) -> str:
    """Return a page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    language, start, run = None, 0, None
    body: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        if language is None and fence:
            language, start, body = fence[1], number, []
        elif language is not None and line == "```":
            yield Block(name_of(page), start, language, "\n".join(body), run)
            language, run = None, None
        elif language is not None:
            body.append(line)
        elif line.strip():
            marked = _RUN.fullmatch(line)
            run = marked[1] if marked else None


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^```\w*\n.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def inline_code(page: Path) -> list[str]:
    """Return the inline code of a page, also that which a line break divides."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(page))]


def commands_of(block: Block) -> list[str]:
    """Return the `ensemble` commands of a block of shell commands, without comments, prompts and line breaks."""
    if block.language not in ("sh", "console", "bash"):
        return []
    lines = block.text.replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.removeprefix("$ ").startswith("ensemble ")]


def links(page: Path) -> list[str]:
    """Return the targets of all links and images of a page, code left out."""
    text = re.sub(r"`[^`]*`", "", prose(page))
    return [*_LINK.findall(text), *re.findall(r'(?:src|srcset|href)="([^"]+)"', text)]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings that GitHub and the site agree on."""
    titles = re.findall(r"^#{1,6} (.+)$", prose(page), flags=re.MULTILINE)
    return {_github(title) for title in titles} & {_site(title) for title in titles}


def _github(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")


def _site(title: str) -> str:
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower())
