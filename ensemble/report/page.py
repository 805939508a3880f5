"""Write the sections of a report as one HTML file without network: jinja2 escapes every text, and a
Content-Security-Policy allows exactly the style and the script of the page, by hash.
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
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from ensemble.report.blocks import Block, Figure, Gallery, Matrix, Missing, Picture, Section
from ensemble.report.thumbnails import REFERENCE, Thumbnails
from folds.errors import EnsembleError, printable, without_marks
from folds.utils.progress import SILENT, Progress

if TYPE_CHECKING:
    import jinja2

logger = logging.getLogger(__name__)

TEMPLATES = Path(__file__).with_name("templates")
MAX_BYTES = 10_000_000  # of the page
_RESERVE = 300_000  # bytes for what is not counted: tags and captions of pictures
LONGEST = 300  # characters of a cell or a caption: an id may have thousands
_PICTURE = re.compile(r"data:image/(?:jpeg|png|webp);base64,[A-Za-z0-9+/]+={0,2}")
# Marks that change the direction of the text around them, which could make one id look like another.
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# What a drawing may consist of. Style attributes are refused by the policy of the page.
_SVG_TAGS = frozenset(
    [
        *("svg", "g", "path", "line", "rect", "circle", "ellipse", "polyline", "polygon", "text", "tspan", "title"),
        *("desc", "defs", "clipPath", "pattern", "marker", "use", "symbol", "linearGradient", "stop", "style"),
    ]
)
_SVG = "{http://www.w3.org/2000/svg}"
_LINK = re.compile(r"url\(\s*['\"]?(?!#)|@import|javascript:", re.IGNORECASE)


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
        return found if _PICTURE.fullmatch(found) else ""

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

    style = "".join(read_template(path.name) for path in sorted(TEMPLATES.glob("*.css"), reverse=True))
    script = read_template("page.js")
    of_drawings = [text for section in page.sections for one in section.blocks for text in _styles(one)]
    policy = content_policy([style, *of_drawings], [script])
    made = environment.get_template("page.html").render(
        page=page,
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
        "shown": shown,
        "whole": running,
        "cell": cell_text,
        "number": sort_number,
        "coded": coded,
        "drawing": drawing,
        "shade": shade,
        "filters": filters_of,
    }
    made.globals |= {"check_words": {"pass": "pass", "warn": "warning", "fail": "fail", "unknown": "not known"}}
    made.globals |= {"check_signs": {"pass": "✓", "warn": "!", "fail": "✕", "unknown": "?"}}
    return made


def grouped(blocks: Sequence[Block]) -> list[list[Block]]:
    """Return the blocks in lists of one, and drawings that follow each other in one list, to be shown side by side."""
    found: list[list[Block]] = []
    for block in blocks:
        if isinstance(block, Figure) and found and isinstance(found[-1][-1], Figure):
            found[-1].append(block)
        else:
            found.append([block])
    return found


def visible(text: Any) -> str:
    """Return a text of a stranger with control characters and marks of direction written out."""
    if str(text).isprintable():
        return str(text)
    plain = "".join(one if one.isprintable() or one in " \u00a0" else printable(one) for one in str(text))
    return _BIDI.sub(lambda found: f"\\u{ord(found[0]):04x}", plain)


def shown(text: Any, longest: int = LONGEST) -> str:
    """Return `visible` text, shortened in the middle: ids differ at their end."""
    whole = str(text)
    found = visible(whole if len(whole) < 4 * longest else f"{whole[: 2 * longest]}…{whole[-2 * longest :]}")
    return found if len(found) <= longest else f"{found[: longest // 2]}…{found[-longest // 2 :]}"


def running(text: Any) -> str:
    """Return `visible` running text, in which only very long words, such as ids, are shortened."""
    return re.sub(r"\S{120,}", lambda word: shown(word[0], 80), visible(text))


def cell_text(value: str | int | float | None) -> str:
    """Return a cell of a table: whole numbers with thousands separators, others with three decimals."""
    if value is None or value != value:
        return "–"
    if isinstance(value, bool | str) or not isinstance(value, Real):
        return shown(value)
    return f"{value:,}" if isinstance(value, Integral) else f"{float(value):,.3f}"


def sort_number(value: Any) -> str:
    """Return the number by which a cell is sorted; "" if it is a text."""
    if value is None or isinstance(value, bool | str):
        return ""
    number = float(value)
    return "" if number != number else repr(number)


def coded(text: str) -> Any:
    """Return a text with its parts between backticks as code."""
    from markupsafe import Markup, escape

    parts = str(text).split("`")
    if len(parts) % 2 == 0:  # a single backtick is one
        return escape(running(text))
    return Markup("").join(
        Markup("<code>{}</code>").format(running(part)) if at % 2 else escape(running(part))
        for at, part in enumerate(parts)
    )


def shade(matrix: Matrix, row: int, column: int) -> str:
    """Return the class of a cell's shade: right or wrong, and the share of its row in tenths."""
    total = sum(matrix.counts[row])
    tenth = round(10 * matrix.counts[row][column] / total) if total else 0
    return f"{'right' if row == column else 'wrong'} shade{tenth}"


def filters_of(gallery: Gallery) -> list[tuple[str, list[tuple[str, int]]]]:
    """Return (tag, [(value, pictures)]) for the tags of a gallery that have two values or more."""
    values: dict[str, dict[str, int]] = {}
    for picture in gallery.pictures:
        for tag, value in picture.tags.items():
            of_tag = values.setdefault(tag, {})
            of_tag[value] = of_tag.get(value, 0) + 1
    return [(tag, sorted(found.items())) for tag, found in values.items() if len(found) > 1]


def drawing(figure: Figure) -> Any:
    """Return the SVG of a figure after it was checked: no scripts, no links out of the page.

    Raises
    ------
    ValueError : it is no SVG, or has other parts.
    """
    from markupsafe import Markup

    check_svg(figure.svg)
    return Markup(figure.svg)  # noqa: S704 - checked above


def check_svg(svg: str) -> None:
    """Raise ValueError if a text is not an SVG of shapes and texts alone."""
    if re.search(r"<[!?]", svg):
        raise ValueError("a drawing has a declaration, a comment or an entity")
    try:
        root = ElementTree.fromstring(svg)  # noqa: S314 - no declarations, so no entities
    except ElementTree.ParseError as error:
        raise ValueError(f"a drawing is no XML: {error}") from None
    if root.tag.removeprefix(_SVG) != "svg":
        raise ValueError("a drawing is no SVG")
    for element in root.iter():
        tag = str(element.tag).removeprefix(_SVG)
        if tag not in _SVG_TAGS:
            raise ValueError(f"a drawing has the element {tag}")
        if tag == "style" and _LINK.search(element.text or ""):
            raise ValueError("a style of a drawing links out of the page")
        for name, value in element.attrib.items():
            plain = name.rpartition("}")[2].lower()
            outside = plain == "href" and not value.startswith("#")
            if plain.startswith("on") or plain == "style" or outside or _LINK.search(value):
                raise ValueError(f"a drawing has the attribute {plain}={value[:40]!r}")


def block_of_error(section: str, error: Exception) -> Missing:
    """Return what is shown in the place of a section that could not be made."""
    if isinstance(error, EnsembleError):
        return Missing(without_marks(error.message), without_marks(error.hint or ""))
    return Missing(
        f"the section {section} could not be made: {type(error).__name__}: {printable(str(error))[:200]}",
        "this is an internal error: please report it; the other sections are not affected",
    )
