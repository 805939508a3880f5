"""Write the sections of a report as one HTML file without network: jinja2 and `folds.utils.html` escape every text, and
a Content-Security-Policy allows exactly the style and the script of the page, by hash.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemble.report.page.blocks import Block, Checks, Figure, Gallery, Matrix, Missing, Picture, Section, Table, Text
from ensemble.report.page.glossary import words_of
from ensemble.report.page.thumbnails import REFERENCE, Thumbnails
from folds.errors import EnsembleError, printable, without_marks
from folds.utils import html
from folds.utils.progress import SILENT, Progress

if TYPE_CHECKING:
    import jinja2

logger = logging.getLogger(__name__)

TEMPLATES = Path(__file__).with_name("templates")
MAX_BYTES = 10_000_000  # of the page
_NARROW = 4  # classes of a matrix that has room beside another one
_RESERVE = 300_000  # bytes for what is not counted: tags and captions of pictures


@dataclass(frozen=True)
class Page:
    """A page before it is written.

    Attributes
    ----------
    title : of the document.
    summary : facts in the header, one line each.
    """

    title: str
    sections: tuple[Section, ...]
    summary: tuple[str, ...] = ()


def page_html(page: Page, thumbnails: Thumbnails | None = None, progress: Progress = SILENT) -> str:
    """Return the page as HTML of at most `MAX_BYTES` bytes.

    Parameters
    ----------
    thumbnails : decodes the pictures whose source is ``thumbnail:ID``.

    Raises
    ------
    EnsembleError : jinja2 is not installed.
    ValueError : two blocks have one name, or a drawing has parts that could run.
    """
    names = [name for section in page.sections for name in (section.name, *map(_name, section.blocks)) if name]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"expected a different name for each section and block, found {repeated[0]!r} twice")
    bare = _render(_with_pictures(page, {}))
    budget = MAX_BYTES - _RESERVE - len(bare.encode())
    wanted = _wanted(page.sections)
    shown = thumbnails.within(wanted, budget, progress) if thumbnails is not None and wanted else {}
    if set(wanted) - set(shown) and thumbnails is not None:
        logger.info("%d of %d pictures are shown: others are unreadable, or beyond 10 MB", len(shown), len(set(wanted)))
    return _render(_with_pictures(page, shown)) if shown else bare


def _wanted(sections: Sequence[Section]) -> list[str]:
    """Return the ids of the pictures to decode, the first of each gallery first, so that a limit cuts all of them."""
    galleries = [block.pictures for section in sections for block in section.blocks if isinstance(block, Gallery)]
    listed = [
        [one.source.removeprefix(REFERENCE) for one in found if one.source.startswith(REFERENCE)] for found in galleries
    ]
    return [name for row in itertools.zip_longest(*listed) for name in row if name is not None]


def _with_pictures(page: Page, made: Mapping[str, str]) -> Page:
    def source(one: Picture) -> str:
        found = made.get(one.source.removeprefix(REFERENCE), "") if one.source.startswith(REFERENCE) else one.source
        return found if html.is_picture(found) else ""

    def block(one: Block) -> Block:
        if not isinstance(one, Gallery):
            return one
        return replace(one, pictures=tuple(replace(picture, source=source(picture)) for picture in one.pictures))

    sections = tuple(replace(one, blocks=tuple(map(block, one.blocks))) for one in page.sections)
    return replace(page, sections=sections)


def _name(block: Block) -> str:
    return getattr(block, "name", "")


def _render(page: Page) -> str:
    environment = _environment()
    from markupsafe import Markup

    parts, drawings = map(html.read_style, html.STYLES)
    style = parts + read_template("page.css") + drawings
    script = read_template("page.js")
    of_drawings = [text for section in page.sections for one in section.blocks for text in _styles(one)]
    policy = content_policy([style, *of_drawings], [script])
    made = environment.get_template("page.html").render(
        page=page,
        glossary=words_of(page),
        policy=policy,
        style=Markup(style),  # noqa: S704 - files of this package
        script=Markup(script),  # noqa: S704
    )
    # Names of files can have bytes that are not UTF-8, which Python keeps as lone surrogates.
    return made.encode("utf-8", "backslashreplace").decode()


def _styles(block: Block) -> list[str]:
    return re.findall(r"<style>(.*?)</style>", block.svg, re.DOTALL) if isinstance(block, Figure) else []


def content_policy(styles: Sequence[str], scripts: Sequence[str]) -> str:
    """Return a Content-Security-Policy that allows these styles and scripts, and pictures inside of the page."""

    def hashes(texts: Sequence[str]) -> str:
        found = dict.fromkeys(base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
        return " ".join(f"'sha256-{one}'" for one in found)

    return (
        f"default-src 'none'; img-src data:; style-src {hashes(styles)}; script-src {hashes(scripts)}; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def read_template(name: str) -> str:
    """Return a file of the templates."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


@cache
def _environment() -> jinja2.Environment:
    try:
        import jinja2
    except ImportError:
        raise EnsembleError(
            "the report needs jinja2, which is not installed", hint="pip install 'ensemble-folds[report]'"
        ) from None
    from markupsafe import Markup

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "kind": lambda block: type(block).__name__.lower(),
        "grouped": grouped,
        "shown": html.shown,
        "folded": folded,
        "whole": html.running,
        "coded": coded,
        "markup": lambda block: Markup(markup(block)),  # noqa: S704 - its texts are escaped
    }
    made.globals |= {"check_words": {"pass": "pass", "warn": "warning", "fail": "fail", "unknown": "not known"}}
    made.globals |= {"check_signs": {"pass": "✓", "warn": "!", "fail": "✕", "unknown": "?"}}
    return made


def grouped(blocks: Sequence[Block]) -> list[list[Block]]:
    """Return the blocks in lists of one, and drawings and small matrices that follow each other in one list, to be
    shown side by side; and blocks that are folded by the same words.
    """
    found: list[list[Block]] = []
    for block in blocks:
        before = found[-1][-1] if found else None
        alike = _is_narrow(block) and _is_narrow(before) and type(block) is type(before)
        if alike and folded(block) == folded(before):
            found[-1].append(block)
        else:
            found.append([block])
    return found


def _is_narrow(block: Block | None) -> bool:
    return isinstance(block, Figure) or (isinstance(block, Matrix) and len(block.classes) <= _NARROW)


def folded(block: Block | None) -> str:
    """Return the words that open a block; "" if it is shown."""
    return getattr(block, "folded", "")


def coded(text: str) -> Any:
    """Return a text with its parts between backticks as code."""
    from markupsafe import Markup, escape

    parts = str(text).split("`")
    if len(parts) % 2 == 0:  # a single backtick is one
        return escape(html.running(text))
    return Markup("").join(
        Markup("<code>{}</code>").format(html.running(part)) if at % 2 else escape(html.running(part))
        for at, part in enumerate(parts)
    )


def markup(block: Block, live: bool = True) -> str:
    """Return a table, a drawing, a confusion matrix or a list of pictures as HTML; a paragraph for a `Text`.

    Parameters
    ----------
    live : whether it is for a page with its script; otherwise for a notebook, in `folds.utils.html.fragment`.

    Raises
    ------
    ValueError : a drawing has parts that could run.
    """
    if isinstance(block, Text):
        return "".join(map(html.paragraph, block.paragraphs))
    if isinstance(block, Missing | Checks):
        raise TypeError(f"expected a block of a notebook, found {type(block).__name__}")
    name = block.name if live else ""
    if isinstance(block, Table):
        texts = {"caption": block.caption, "note": block.note, "name": name}
        return html.table(block.header, block.rows, left=block.left, live=live, **texts)
    if isinstance(block, Matrix):
        texts = {"caption": block.caption, "note": block.note, "name": name, "opens": block.opens if live else ""}
        return html.matrix(
            block.classes,
            block.counts,
            block.shares,
            live=live,
            compact=block.compact,
            heads=block.heads,
            **texts,
        )
    if isinstance(block, Gallery):
        pictures = [(one.source, one.title, one.lines, one.tags) for one in block.pictures]
        return html.gallery(pictures, caption=block.caption, note=block.note, name=name, live=live, wide=block.wide)
    return html.figure(block.svg, block.title, block.description, name=name)


def block_of_error(section: str, error: Exception) -> Missing:
    """Return what is shown in the place of a section that could not be made."""
    if isinstance(error, EnsembleError):
        return Missing(without_marks(error.message), without_marks(error.hint or ""))
    return Missing(
        f"the section {section} could not be made: {type(error).__name__}: {printable(str(error))[:200]}",
        "this is an internal error: please report it; the other sections are not affected",
    )
