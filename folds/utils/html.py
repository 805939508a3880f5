"""Write tables, drawings, pictures and confusion matrices as HTML: one way for the report and for notebooks.

Every text is escaped here, so that nothing in ids, labels and file names can run. A page has scripts for sorting,
filters and copying (``live``); in a notebook, `fragment` brings its own style and needs no script.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from folds.errors import printable
from folds.utils.text import natural_order

STYLES = ("html.css", "charts.css")  # files beside this one: of the parts, and of the drawings
SCOPE = "folds-result"  # the class of a fragment
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

Picture = tuple[str, str, Sequence[str], Mapping[str, str]]
"""Source (``data:image/jpeg;base64,…``, or "" if it cannot be shown), title, lines, and tags: filter → value."""


# Texts


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


def cell_text(value: Any) -> str:
    """Return a cell of a table: whole numbers with thousands separators, others with three decimals."""
    if value is None or value != value:
        return "–"
    if isinstance(value, bool | str) or not isinstance(value, Real):
        return shown(value)
    return f"{value:,}" if isinstance(value, Integral) else f"{float(value):,.3f}"


def sort_number(value: Any) -> str:
    """Return the number by which a cell is sorted; "" if it is a text."""
    if value is None or isinstance(value, bool | str) or not isinstance(value, Real):
        return ""
    number = float(value)
    return "" if number != number else repr(number)


def escaped(text: Any) -> str:
    """Return a text that is no markup, in an element or in a quoted attribute."""
    from html import escape  # here, because only pages and notebooks need its table of 2,200 names

    return escape(str(text))


# Parts


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    caption: str = "",
    left: int = 1,
    note: str = "",
    name: str = "",
    live: bool = False,
) -> str:
    """Return a table.

    Parameters
    ----------
    left : how many columns are aligned left.
    name : its id in a page; "" in a fragment, because a notebook has several.
    live : whether the page has a script that sorts and copies.
    """
    heads = "".join(_head(title, number, left, live) for number, title in enumerate(header))
    lines = "".join(
        "<tr>" + "".join(_cell(value, number, left, live) for number, value in enumerate(row)) + "</tr>\n"
        for row in rows
    )
    data = f' data-table="{name}"' if name else ""
    inside = (
        f"<table{data}>\n{_caption(caption, name)}<thead><tr>{heads}</tr></thead>\n<tbody>\n{lines}</tbody>\n</table>"
    )
    return f'<figure class="block table"{_id(name)}>\n{_scroll(inside, name)}\n{_below(note, caption, live)}</figure>\n'


def matrix(
    classes: Sequence[str],
    counts: Sequence[Sequence[int]],
    shares: Sequence[Sequence[str]],
    *,
    caption: str = "",
    note: str = "",
    name: str = "",
    opens: str = "",
    live: bool = False,
    compact: bool = False,
    heads: Sequence[str] = (),
) -> str:
    """Return a confusion matrix whose cells are shaded by their share of the row.

    Parameters
    ----------
    counts : (classes, classes) images of each true class (rows) by predicted class.
    shares : the same as texts.
    opens : the gallery of the page that a cell shows; "" without a script.
    live : whether the page has a script that copies and saves it.
    compact : whether the shares are shown only when the pointer rests on a cell.
    heads : (classes,) short names for the heads of the columns; the classes by default.
    """
    hint = ' <span class="note script">A cell shows its pictures.</span>' if opens else ""
    short = heads or classes
    tops = "".join(
        f'<th scope="col" class="number" title="{escaped(shown(whole, 40))}"{_whole(one, 40, live)}>'
        f"<bdi>{escaped(shown(one, 40))}</bdi></th>"
        for one, whole in zip(short, classes, strict=True)
    )
    lines = ""
    for row, true in enumerate(classes):
        cells = "".join(
            f'<td class="number {_shade(counts[row], row, column)}" data-number="{counts[row][column]}">'
            + _matrix_cell(counts[row][column], shares[row][column], true, predicted, opens, compact)
            + "</td>"
            for column, predicted in enumerate(classes)
        )
        head = f'<th scope="row"{_whole(true, 40, live)}><bdi>{escaped(shown(true, 40))}</bdi></th>'
        lines += f"<tr>{head}{cells}</tr>\n"
    data = f' data-table="{name}"' if name else ""
    head = f'<thead><tr><th scope="col">true class / predicted class</th>{tops}</tr></thead>'
    upright = " upright" if compact and any(len(one) > 4 for one in short) else ""
    css = f"matrix compact{upright}" if compact else "matrix"
    inside = f'<table class="{css}"{data}>\n{_caption(caption, name, hint)}{head}\n<tbody>\n{lines}</tbody>\n</table>'
    return f'<figure class="block table"{_id(name)}>\n{_scroll(inside, name)}\n{_below(note, caption, live)}</figure>\n'


def gallery(
    pictures: Sequence[Picture],
    *,
    caption: str = "",
    note: str = "",
    name: str = "",
    live: bool = False,
    wide: bool = False,
) -> str:
    """Return pictures with what is known about them.

    Parameters
    ----------
    live : whether the page has a script that filters them by their tags.
    wide : whether the pictures need wider columns than thumbnails.
    """
    title = f' id="{name}-caption"' if name else ""
    labeled = f' tabindex="-1" aria-labelledby="{name}-caption"' if name else ""
    head = f'<p class="caption"{title}>{escaped(running(caption))}</p>\n' if caption else ""
    head += f'<p class="note">{escaped(running(note))}</p>\n' if note else ""
    head += _filters(pictures) if live else ""
    items = "".join(_picture(one, live) for one in pictures)
    inside = f"<figcaption>{head}</figcaption>\n" if head else ""
    css = "pictures wide" if wide else "pictures"
    return f'<figure class="block gallery"{_id(name)}{labeled}>\n{inside}<ul class="{css}">\n{items}</ul>\n</figure>\n'


def figure(svg: str, title: str, description: str, *, name: str = "") -> str:
    """Return a drawing of `folds.utils.charts` with its title and its description.

    Raises
    ------
    ValueError : it is no SVG of shapes and texts alone.
    """
    check_svg(svg)
    label = f"{escaped(running(title))}. {escaped(running(description))}"
    return (
        f'<figure class="block drawing"{_id(name)}>\n'
        f'<div class="scroll" tabindex="0" role="img" aria-label="{label}">{svg}</div>\n'
        f'<figcaption><p class="caption">{escaped(running(title))}</p>'
        f'<p class="note">{escaped(running(description))}</p></figcaption>\n</figure>\n'
    )


def image(source: str, label: str) -> str:
    """Return a picture that is as wide as it is; "" unless the source is a JPEG, PNG or WebP in itself."""
    if not is_picture(source):
        return ""
    return f'<p class="block"><img decoding="async" src="{source}" alt="{escaped(shown(label))}"></p>\n'


def paragraph(text: str, css: str = "block") -> str:
    """Return a paragraph of plain text."""
    return f'<p class="{css}">{escaped(running(text))}</p>\n'


def is_picture(source: str) -> bool:
    """Return whether a source is a JPEG, PNG or WebP within the page."""
    return _PICTURE.fullmatch(source) is not None


def _id(name: str) -> str:
    return f' id="{name}"' if name else ""


def _caption(text: str, name: str, hint: str = "") -> str:
    title = f' id="{name}-caption"' if name else ""
    return f"<caption{title}><span>{escaped(running(text))}</span>{hint}</caption>\n" if text else ""


def _scroll(inside: str, name: str) -> str:
    region = f' tabindex="0" role="region" aria-labelledby="{name}-caption"' if name else ""
    return f'<div class="scroll"{region}>\n{inside}\n</div>'


def _head(title: str, number: int, left: int, live: bool) -> str:
    css = ' class="number"' if number >= left else ""
    text = escaped(shown(title))
    inside = f'<button type="button" class="sort">{text}</button>' if live else text
    return f'<th scope="col"{css}{_whole(title, LONGEST, live)}>{inside}</th>'


def _cell(value: Any, number: int, left: int, live: bool) -> str:
    tag, scope = ("th", ' scope="row"') if number == 0 else ("td", "")
    css = ' class="number"' if number >= left else ""
    by = sort_number(value) if live else ""
    data = f' data-number="{by}"' if by else ' data-empty=""' if live and (value is None or value != value) else ""
    data += _whole(value, LONGEST, live) if isinstance(value, str) else ""
    return f"<{tag}{scope}{css}{data}><bdi>{escaped(cell_text(value))}</bdi></{tag}>"


def _whole(text: str, longest: int, live: bool) -> str:
    """Return a text that is shown shortened, as an attribute for the script that copies and saves tables."""
    whole = visible(text)
    return f' data-whole="{escaped(whole)}"' if live and len(whole) > longest else ""


def _below(note: str, caption: str, take: bool = False) -> str:
    """Return the note of a table, and in a page with a script the choice of formats to copy or save it in."""
    below = f'<p class="note">{escaped(running(note))}</p>' if note else ""
    below += _take(caption) if take else ""
    return f"<figcaption>{below}</figcaption>\n" if below else ""


def _take(caption: str) -> str:
    return (
        f'<details class="take"><summary>Copy or save<span class="hidden"> the table {escaped(running(caption))}</span>'
        '</summary>\n<p><label>Format <select class="format"><option value="csv">CSV</option>'
        '<option value="md">Markdown</option><option value="tex">LaTeX (booktabs)</option></select></label>\n'
        '<label class="neutral"><input type="checkbox" class="safe" checked> no formulas, for spreadsheets</label>\n'
        '<button type="button" class="copy">Copy</button> <button type="button" class="save">Save</button>\n'
        '<span class="said" role="status"></span></p></details>\n'
    )


def _shade(counts: Sequence[int], row: int, column: int) -> str:
    """Return the class of a cell's shade: right or wrong, and the share of its row in tenths."""
    total = sum(counts)
    tenth = round(10 * counts[column] / total) if total else 0
    return f"{'right' if row == column else 'wrong'} shade{tenth}"


def _matrix_cell(count: int, share: str, true: str, predicted: str, opens: str, compact: bool) -> str:
    if not count:
        return '<span class="zero">0</span>'
    of = f"true {shown(true, 40)}, predicted {shown(predicted, 40)}: {count} images"
    part = escaped(shown(share, 40))
    inside = f"<b>{count:,}</b>" if compact else f"<b>{count:,}</b><small>{part}</small>"
    title = f' title="{escaped(of)}, {part} of the row"' if compact else ""
    if not opens:
        return f"<span{title}>{inside}</span>" if compact else inside
    label = f"{of}, show them"
    return (
        f'<button type="button" class="cell" data-opens="{opens}" data-true="{escaped(true)}" '
        f'data-predicted="{escaped(predicted)}" aria-label="{escaped(label)}"{title}>{inside}</button>'
    )


def _filters(pictures: Sequence[Picture]) -> str:
    """Return a choice for each tag of the pictures that has two values or more."""
    values: dict[str, dict[str, int]] = {}
    for *_, tags in pictures:
        for tag, value in tags.items():
            of_tag = values.setdefault(tag, {})
            of_tag[value] = of_tag.get(value, 0) + 1
    parts = ['<p class="filters script">\n']
    for tag, found in values.items():
        if len(found) > 1:
            options = "".join(
                f'<option value="={escaped(value)}">{escaped(shown(value, 60))} ({count:,})</option>'
                for value, count in ((one, found[one]) for one in natural_order(found))
            )
            select = f'<select data-tag="{escaped(tag)}"><option value="">all</option>{options}</select>'
            parts.append(f"<label>{escaped(shown(tag, 40))} {select}</label>\n")
    parts.append('<button type="button" class="all">Reset filter</button>\n')
    return "".join(parts) + f'<span class="said" role="status">{len(pictures):,} pictures</span></p>\n'


def _picture(one: Picture, live: bool) -> str:
    source, title, lines, tags = one
    data = f' data-tags="{escaped(json.dumps(dict(tags)))}"' if live else ""
    alt = f"image {shown(title)}"
    inside = (
        f'<img decoding="async" src="{source}" alt="{escaped(alt)}">'
        if is_picture(source)
        else '<p class="none">not shown</p>'
    )
    facts = "".join(f"<p><bdi>{escaped(shown(line, 160))}</bdi></p>" for line in lines)
    name = f'<p class="id"><bdi>{_breakable(shown(title, 120))}</bdi></p>'
    return f"<li{data}><figure>\n{inside}\n<figcaption>{name}{facts}</figcaption>\n</figure></li>\n"


def _breakable(text: str) -> str:
    """Return an id that may be broken after its separators, so that it is not broken within a number."""
    return re.sub(r"([/_.])", r"\1<wbr>", escaped(text))


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


# Fragments


def fragment(parts: Iterable[str]) -> str:
    """Return parts as HTML for a notebook: its style is for these parts only, and follows the colors around them."""
    return f'<div class="{SCOPE}"><style>{_scoped_style()}</style>\n{"".join(parts)}</div>'


@cache
def read_style(name: str) -> str:
    """Return a file of `STYLES`."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


@cache
def _scoped_style() -> str:
    """Return the style of the parts with each selector limited to fragments."""
    rules = []
    for name in (*STYLES, "notebook.css"):
        plain = re.sub(r"/\*.*?\*/", "", read_style(name), flags=re.DOTALL)
        # Rules for dark systems and for print: a notebook has its own theme.
        plain = re.sub(r"@media[^{]*\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}", "", plain)
        for selectors, declarations in re.findall(r"([^{}]+)\{([^{}]*)\}", plain):
            listed = [one.strip() for one in selectors.split(",")]
            scoped = ",".join(one if one.startswith(f".{SCOPE}") else f".{SCOPE} {one}" for one in listed)
            rules.append(f"{scoped}{{{' '.join(declarations.split())}}}\n")
    return "".join(rules)
