"""Draw charts as inline SVG: lines, forest, scatter, cloud, bars, histogram, heat grid and reliability diagrams.

The drawings have CSS classes only (``charts.css`` beside this file): no inline style, no id and no script, so that they
follow the colors of the page and its Content-Security-Policy. Every text is escaped here. Why not matplotlib: see
``docs/architecture.md``.
"""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal
from xml.sax.saxutils import escape, quoteattr

from folds.errors import printable

TONES = 8  # classes s0 … s7 of charts.css
MARK_TONE = 4  # of the hollow mark of a row
WIDTH = 720.0  # units of the view box; a text is 13 units high
_FONT, _SMALL = 13.0, 12.0
_STRONG = 1.12  # how much wider bold text is
_LINE = 18.0  # from one line of text to the next
_PAD = 8.0
_NAME = 260.0  # units of the name of a point, at most
_DRAWN_POINTS = 400  # of a line: more cannot be seen
_MOST_DOTS, _DOT, _LAYERS = 3000, 5.0, 24  # of a cloud, their side, and in how many layers they are drawn

Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True)
class Series:
    """A line with an optional band.

    Attributes
    ----------
    x, y : equally long; a nan in `y` interrupts the line.
    low, high : the band around it.
    tone : color 0 to 7, dash pattern and marker; the number of the series by default.
    markers : whether each point has a marker.
    faint : drawn thin and without an entry in the legend, for lines that are shown together.
    steps : whether a value holds up to the next one.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    tone: int | None = None
    markers: bool = False
    faint: bool = False
    steps: bool = False


@dataclass(frozen=True)
class Row:
    """A named value with its interval; nan or None where it is unknown.

    Attributes
    ----------
    text : the value as text, shown at its right.
    tone : color 0 to 7.
    strong : whether it is emphasized.
    mark : another value of the row that a forest shows, hollow, such as that by chance.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    text: str = ""
    tone: int = 0
    strong: bool = False
    mark: float | None = None


@dataclass(frozen=True)
class Point:
    """A named point with an optional vertical interval."""

    name: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    text: str = ""
    tone: int = 0
    strong: bool = False


@dataclass(frozen=True)
class Calibrated:
    """A curve of a reliability diagram; all sequences have one entry per bin.

    Attributes
    ----------
    confidence, accuracy : means of the bin, from 0 to 1; nan for an empty bin.
    low, high : interval of the accuracy; nan if unknown.
    count : images of the bin, or people, as `unit` says in plural.
    """

    name: str
    confidence: Sequence[float]
    accuracy: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    count: Sequence[int]
    tone: int = 0
    unit: str = "images"


# Texts and ticks


def text_width(text: str, size: float = _FONT) -> float:
    """Return the estimated width of a text in a sans-serif font, in the units of `size`; rather too wide than not."""
    return size * sum(map(_advance, text))


def _advance(letter: str) -> float:
    """Return the width of a letter in DejaVu Sans, one of the widest fonts of systems, rounded up."""
    if unicodedata.combining(letter):
        return 0.0
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.05
    if letter in "iljtfrI.,:;'|!()[]/ -":
        return 0.4
    if letter in "mwMW@%—…+<>=~#":
        return 0.95
    return 0.72 if letter.isupper() else 0.63


def shortened(text: str, width: float, size: float = _FONT) -> str:
    """Return the text, or its beginning and end with ``…`` between, so that it fits into `width`."""
    if text_width(text, size) <= width:
        return text
    room = width - text_width("…", size)
    head, tail, used = 0, 0, 0.0
    while head + tail < len(text):
        front = head <= 2 * tail  # twice as much of the beginning as of the end
        letter = text[head] if front else text[-1 - tail]
        used += text_width(letter, size)
        if used > room:
            break
        head, tail = head + front, tail + (not front)
    return f"{text[:head].rstrip()}…{text[len(text) - tail :].lstrip() if tail else ''}"


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about `count` round numbers (1, 2 or 5 times a power of ten) from `low` to `high`, ascending.

    Both ends may be equal or in the wrong order; values that are not finite give [].
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return []
    low, high = min(low, high), max(low, high)
    span = high - low
    if span <= max(abs(low), abs(high)) * 1e-9 or span < 1e-300:
        return [low]
    step = _round_step(span / max(count, 1))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    if last - first < 1 and count < 20:  # an axis with one number has no scale
        return ticks(low, high, 2 * count + 1)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [round(i * step, decimals + 1) + 0.0 for i in range(first, last + 1)]


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    share = step / power
    return power * (1 if share <= 1.0001 else 2 if share <= 2.0001 else 5 if share <= 5.0001 else 10)


def log_ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Return round numbers from `low` to `high`, both above 0, for a logarithmic axis."""
    if not (0 < low <= high < math.inf):
        return []
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for shares in ((1, 2, 5), (1, 3), (1,)):
        found = [
            share * 10.0**power
            for power in exponents
            for share in shares
            if low * (1 - 1e-9) <= share * 10.0**power <= high * (1 + 1e-9)
        ]
        if len(found) <= count:
            break
    stride = -(-len(found) // count) if found else 1
    return found[::stride] if len(found) > 1 else [low, high] if low < high else [low]


def tick_texts(values: Sequence[float], signed: bool = False, log: bool = False) -> list[str]:
    """Return the ticks as texts with equally many decimals; on a logarithmic axis, each with its own."""
    if not values:
        return []
    if log:
        return [f"{value:,.0f}" if value >= 1 and float(value).is_integer() else f"{value:g}" for value in values]
    largest = max(abs(value) for value in values)
    gaps = [abs(b - a) for a, b in pairwise(values) if b != a]
    step = min(gaps) if gaps else largest or 1.0
    if largest >= 1e7 or (0 < largest < 1e-3):
        return [f"{value:{'+' if signed and value else ''}.2g}" if value else "0" for value in values]
    decimals = min(6, max(0, -math.floor(math.log10(step) + 1e-9)))
    if any(abs(round(value, decimals) - value) > step * 1e-3 for value in values):
        decimals = min(6, decimals + 1)
    return [f"{value:{'+' if signed and value else ''},.{decimals}f}" for value in values]


# Scales


@dataclass(frozen=True)
class _Scale:
    """Map data to the view box along one axis."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the position of a value; values outside the axis are put to its ends."""
        value = min(max(value, self.low), self.high)
        if self.high == self.low:
            return (self.start + self.end) / 2
        share = (
            math.log(value / self.low) / math.log(self.high / self.low)
            if self.log
            else (value - self.low) / (self.high - self.low)
        )
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int) -> list[float]:
        """Return the ticks of the axis."""
        return log_ticks(self.low, self.high, count) if self.log else ticks(self.low, self.high, count)


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]


def _limits(values: Sequence[float], log: bool = False, room: float = 0.05) -> tuple[float, float]:
    """Return the ends of an axis for these values, with some room."""
    low, high = min(values), max(values)
    if log:
        return (low / 1.25, high * 1.25) if low < high else (low / 2, high * 2)
    if low == high:
        margin = abs(low) * 0.1 or 1.0
        return low - margin, high + margin
    return low - room * (high - low), high + room * (high - low)


# Markup


def _number(value: float) -> str:
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def _clean(text: str) -> str:
    # XML has no such characters, so a reader of the drawing would refuse it.
    return escape(printable(text).replace("\ufffe", "").replace("\uffff", ""))


@dataclass
class _Drawing:
    """Collect the elements of a drawing."""

    title: str
    description: str
    width: float = WIDTH
    parts: list[str] = field(default_factory=list)

    def add(self, tag: str, css: str, tooltip: str = "", **numbers: float | str) -> None:
        """Add an element; numbers are its attributes."""
        written = "".join(
            f' {name}="{value if isinstance(value, str) else _number(value)}"' for name, value in numbers.items()
        )
        inside = f"><title>{_clean(tooltip)}</title></{tag}>" if tooltip else "/>"
        self.parts.append(f'<{tag} class="{css}"{written}{inside}')

    def text(
        self,
        x: float,
        y: float,
        text: str,
        css: str = "",
        anchor: Anchor = "start",
        width: float | None = None,
        turned: bool = False,
        size: float = _FONT,
    ) -> None:
        """Add a text with its baseline at `y`, shortened to `width`; the whole text is then its tooltip."""
        shown = text if width is None else shortened(text, width, size)
        classes = " ".join(filter(None, [css, "" if anchor == "start" else anchor]))
        attributes = f" class={quoteattr(classes)}" if classes else ""
        if turned:
            attributes += f' transform="rotate(-90 {_number(x)} {_number(y)})"'
        tooltip = f"<title>{_clean(text)}</title>" if shown != text else ""
        self.parts.append(f'<text x="{_number(x)}" y="{_number(y)}"{attributes}>{_clean(shown)}{tooltip}</text>')

    def marker(self, x: float, y: float, tone: int, tooltip: str = "", size: float = 4.5, css: str = "") -> None:
        """Add the marker of a tone: each has another shape, so that color is not needed to tell them apart."""
        shape = tone % TONES
        classes = f"mark s{shape}" + (f" {css}" if css else "")
        if shape == 0:
            self.add("circle", classes, tooltip, cx=x, cy=y, r=size)
        elif shape in (1, 6):
            points = [(-1, -1), (1, -1), (1, 1), (-1, 1)] if shape == 1 else [(0, -1.4), (1.4, 0), (0, 1.4), (-1.4, 0)]
            self.polygon(x, y, points, size * 0.9, classes, tooltip)
        elif shape in (2, 3):
            up = -1.2 if shape == 2 else 1.2
            self.polygon(x, y, [(0, up), (1.15, -up * 0.75), (-1.15, -up * 0.75)], size, classes, tooltip)
        elif shape == 4:
            self.add("circle", f"{classes} hollow", tooltip, cx=x, cy=y, r=size - 0.5)
        elif shape == 5:
            points = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
            self.polygon(x, y, points, size * 0.85, f"{classes} hollow", tooltip)
        else:
            arms = [(-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4)]
            points = [*arms, *[(-a, -b) for a, b in arms]]
            self.polygon(x, y, points, size, classes, tooltip)

    def polygon(
        self, x: float, y: float, points: Sequence[tuple[float, float]], size: float, css: str, tooltip: str = ""
    ) -> None:
        """Add a polygon around a point."""
        written = " ".join(f"{_number(x + a * size)},{_number(y + b * size)}" for a, b in points)
        self.add("polygon", css, tooltip, points=written)

    def whisker(
        self, scale: _Scale, low: float | None, high: float | None, at: float, tone: int, vertical: bool
    ) -> None:
        """Add an interval with caps; an end beyond the axis has no cap."""
        if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
            return
        start, end, cap = scale(low), scale(high), 4.0
        path = f"M{_number(start)} {_number(at)}H{_number(end)}"
        if vertical:
            path = f"M{_number(at)} {_number(start)}V{_number(end)}"
        for value, place in ((low, start), (high, end)):
            if scale.low <= value <= scale.high and vertical:
                path += f"M{_number(at - cap)} {_number(place)}h{_number(2 * cap)}"
            elif scale.low <= value <= scale.high:
                path += f"M{_number(place)} {_number(at - cap)}v{_number(2 * cap)}"
        self.add("path", f"whisker s{tone % TONES}", d=path)

    def svg(self, height: float) -> str:
        """Return the finished drawing."""
        head = (
            f'<svg class="chart" role="img" viewBox="0 0 {_number(self.width)} {_number(height)}" '
            f'xmlns="http://www.w3.org/2000/svg"><title>{_clean(self.title)}</title>'
            f"<desc>{_clean(self.description)}</desc>"
        )
        return head + "".join(self.parts) + "</svg>"


def _nothing(title: str, description: str) -> str:
    drawing = _Drawing(title, description)
    drawing.text(WIDTH / 2, 28, "nothing to draw", "quiet", "middle")
    return drawing.svg(44)


def _legend(
    drawing: _Drawing, names: Sequence[tuple[str, int | None, bool]], top: float, unmarked: Sequence[str] = ()
) -> float:
    """Draw names with their lines or markers in as many rows as needed; return the lower end.

    Parameters
    ----------
    names : name, tone (None for a frontier), and whether a line is shown beside the marker.
    unmarked : those of the names whose line has no markers.
    """
    x, y = _PAD, top + _LINE - 4
    for name, tone, line in names:
        shown = shortened(name, 300)
        wide = (30 if line else 18) + text_width(shown) + 18
        if x > _PAD and x + wide > drawing.width:
            x, y = _PAD, y + _LINE + 2
        if tone is None:
            drawing.add("path", "frontier", d=f"M{_number(x)} {_number(y - 4)}h24")
        elif line:
            drawing.add("path", f"line s{tone % TONES}", d=f"M{_number(x)} {_number(y - 4)}h24")
            if name not in unmarked:
                drawing.marker(x + 12, y - 4, tone, size=3.5)
        else:
            drawing.marker(x + 6, y - 4, tone)
        drawing.text(x + (30 if line else 18), y, name, width=300)
        x += wide
    return y + 8 if names else top


def _bottom_axis(
    drawing: _Drawing,
    scale: _Scale,
    top: float,
    bottom: float,
    label: str,
    signed: bool = False,
    values: Sequence[float] | None = None,
    whole: bool = False,
    named: Sequence[str] | None = None,
) -> float:
    """Draw a grid of vertical lines with their numbers and the label below; return the lower end."""
    count = max(2, min(8, int(abs(scale.end - scale.start) / 80)))
    found = list(values) if values is not None else scale.ticks(count)
    if whole:
        found = [value for value in found if float(value).is_integer()] or [scale.low]
    texts = tick_texts(found, signed, scale.log) if named is None else named
    right = -math.inf
    for value, text in zip(found, texts, strict=True):
        at, wide = scale(value), text_width(text, _SMALL)
        drawing.add("path", "grid", d=f"M{_number(at)} {_number(top)}V{_number(bottom)}")
        if at - wide / 2 > right + 6:
            drawing.text(at, bottom + 17, text, "tick", "middle")
            right = at + wide / 2
    drawing.add("path", "axis", d=f"M{_number(scale.start)} {_number(bottom)}H{_number(scale.end)}")
    if label:
        drawing.text((scale.start + scale.end) / 2, bottom + 38, label, "label", "middle", width=drawing.width - 20)
    return bottom + (48 if label else 26)


def _left_axis(drawing: _Drawing, scale: _Scale, left: float, right: float, texts: Sequence[tuple[float, str]]) -> None:
    for value, text in texts:
        at = scale(value)
        drawing.add("path", "grid", d=f"M{_number(left)} {_number(at)}H{_number(right)}")
        drawing.text(left - 6, at + 4, text, "tick", "end")


def _left_texts(low: float, high: float, height: float, log: bool = False) -> list[tuple[float, str]]:
    count = max(2, int(height / 45))
    found = log_ticks(low, high, count) if log else ticks(low, high, count)
    return list(zip(found, tick_texts(found, log=log), strict=True))


# Charts


def lines(
    series: Sequence[Series],
    title: str,
    description: str,
    x_label: str,
    y_label: str,
    *,
    x_log: bool = False,
    y_log: bool = False,
    x_whole: bool = False,
    x_ticks: Sequence[float] | None = None,
    x_texts: Sequence[str] | None = None,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    references: Sequence[tuple[float, str]] = (),
    height: float = 260,
) -> str:
    """Return lines with bands.

    Parameters
    ----------
    x_whole : whether only whole numbers are ticks.
    x_ticks, x_texts : the ticks and their texts; round numbers by default.
    x_range, y_range : the ends of the axes; those of the data by default.
    references : horizontal lines with their names.
    height : of the plot, without legend and axes.
    """
    series = [
        one if one.tone is not None else replace(one, tone=number % TONES)
        for number, one in enumerate(series)
        if len(one.x)
    ]
    xs = _known([value for one in series for value, y in zip(one.x, one.y, strict=True) if y is not None])
    columns = [values for one in series for values in (one.y, one.low, one.high) if values is not None]
    ys = _known([value for values in columns for value in values])
    if x_log:
        xs = [value for value in xs if value > 0]
    if y_log:
        ys = [value for value in ys if value > 0]
    if not xs or not ys:
        return _nothing(title, description)
    ys += [value for value, _ in references if not y_log or value > 0]
    x_low, x_high = x_range or ((min(xs), max(xs)) if min(xs) < max(xs) else _limits(xs, x_log))
    y_low, y_high = y_range or _limits(ys, y_log)
    drawing = _Drawing(title, description)
    named = [(one.name, one.tone or 0, True) for one in series if not one.faint and one.name]
    unmarked = [one.name for one in series if not one.markers]
    top = _legend(drawing, named, 0, unmarked) if len(named) > 1 else 4
    drawing.text(_PAD, top + 14, y_label, "label", width=WIDTH - 2 * _PAD)
    top += 26
    left_texts = _left_texts(y_low, y_high, height, y_log)
    left = _PAD + max([text_width(text, _SMALL) for _, text in left_texts], default=0) + 8
    x, y = _Scale(x_low, x_high, left, WIDTH - 16, x_log), _Scale(y_low, y_high, top + height, top, y_log)
    _left_axis(drawing, y, left, WIDTH - 16, left_texts)
    bottom = _bottom_axis(drawing, x, top, top + height, x_label, values=x_ticks, whole=x_whole, named=x_texts)
    for value, name in references:
        drawing.add("path", "reference", d=f"M{_number(left)} {_number(y(value))}H{_number(WIDTH - 16)}")
        drawing.text(WIDTH - 20, y(value) - 5, name, "tick halo", "end", width=WIDTH / 2)
    for one in series:
        _band(drawing, one, x, y)
    for one in series:
        _line(drawing, one, x, y)
    return drawing.svg(bottom)


def _thinned(count: int, most: int = _DRAWN_POINTS) -> Sequence[int]:
    if count <= most:
        return range(count)
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def _drawable(x: _Scale, y: _Scale, a: float, b: float) -> bool:
    return math.isfinite(a) and math.isfinite(b) and (a > 0 or not x.log) and (b > 0 or not y.log)


def _band(drawing: _Drawing, one: Series, x: _Scale, y: _Scale) -> None:
    if one.low is None or one.high is None:
        return
    run: list[int] = []
    for i in [*_thinned(len(one.x)), None]:
        if i is not None and _drawable(x, y, one.x[i], one.low[i]) and _drawable(x, y, one.x[i], one.high[i]):
            run.append(i)
            continue
        if len(run) > 1:
            around = [(one.x[j], one.high[j]) for j in run] + [(one.x[j], one.low[j]) for j in reversed(run)]
            points = " ".join(f"{_number(x(a))},{_number(y(b))}" for a, b in around)
            drawing.add("polygon", f"band s{(one.tone or 0) % TONES}", points=points)
        run = []


def _line(drawing: _Drawing, one: Series, x: _Scale, y: _Scale) -> None:
    tone, pen_down = (one.tone or 0) % TONES, False
    path: list[str] = []
    alone: list[tuple[float, float, int]] = []  # points without a neighbor, which a line does not show
    kept = list(_thinned(len(one.x)))
    for position, i in enumerate(kept):
        a, b = one.x[i], one.y[i]
        if not _drawable(x, y, a, b):
            pen_down = False
            continue
        at, height = x(a), y(b)
        if pen_down:
            path.append(f"H{_number(at)}V{_number(height)}" if one.steps else f"L{_number(at)} {_number(height)}")
        else:
            path.append(f"M{_number(at)} {_number(height)}")
            following = kept[position + 1] if position + 1 < len(kept) else None
            if following is None or not _drawable(x, y, one.x[following], one.y[following]):
                alone.append((at, height, i))
        pen_down = True
    if path:
        drawing.add("path", f"line s{tone}" + (" faint" if one.faint else ""), one.name, d="".join(path))
    if one.markers:
        for i in kept:
            if _drawable(x, y, one.x[i], one.y[i]):
                drawing.marker(x(one.x[i]), y(one.y[i]), tone, f"{one.name}: {one.x[i]:g}, {one.y[i]:.4g}")
    else:
        for at, height, i in alone:
            drawing.marker(at, height, tone, f"{one.name}: {one.x[i]:g}, {one.y[i]:.4g}", size=3)


def forest(
    rows: Sequence[Row],
    title: str,
    description: str,
    x_label: str,
    *,
    reference: float | None = 0.0,
    left: str = "",
    right: str = "",
    signed: bool = True,
    legend: Sequence[tuple[str, int]] = (),
) -> str:
    """Return one row per value with its interval, and a line at `reference`.

    Parameters
    ----------
    legend : names of the tones.
    left, right : what lies on either side of the reference: "run0 is better".
    signed : whether the numbers of the axis have signs.
    """
    ends = _known([value for row in rows for value in (row.value, row.low, row.high, row.mark)])
    if not ends:
        return _nothing(title, description)
    drawing = _Drawing(title, description)
    start, end = _columns(drawing, rows)
    low, high = _limits([*ends, *([] if reference is None else [reference])])
    x, step = _Scale(low, high, start, end), 26.0
    top = _legend(drawing, [(name, tone, False) for name, tone in legend], 0) + (0 if legend else 6)
    if reference is not None and (left or right):
        at = x(reference)
        if left and text_width(f"← {left}", _SMALL) <= at - 12:  # where there is no room, the other side says it
            drawing.text(at - 8, top + 10, f"← {left}", "tick", "end", size=_SMALL)
        if right and text_width(f"{right} →", _SMALL) <= WIDTH - at - 12:
            drawing.text(at + 8, top + 10, f"{right} →", "tick", size=_SMALL)
        top += 18
    bottom = top + step * len(rows) + 6
    after = _bottom_axis(drawing, x, top, bottom, x_label, signed)
    if reference is not None:
        drawing.add("path", "reference", d=f"M{_number(x(reference))} {_number(top)}V{_number(bottom)}")
    for number, row in enumerate(rows):
        y = top + step * (number + 0.5) + 3
        _names(drawing, row, start, end, y)
        if row.mark is not None and math.isfinite(row.mark):
            drawing.marker(x(row.mark), y, MARK_TONE, f"{row.name}: {row.mark:.3f}")
        if math.isfinite(row.value):
            drawing.whisker(x, row.low, row.high, y, row.tone, vertical=False)
            drawing.marker(x(row.value), y, row.tone, f"{row.name}: {row.text}" if row.text else row.name)
    return drawing.svg(after)


def _columns(drawing: _Drawing, rows: Sequence[Row]) -> tuple[float, float]:
    """Return where the plot starts and ends between the names and the texts of the rows."""
    names = max([text_width(row.name) * (_STRONG if row.strong else 1) for row in rows], default=0)
    texts = max([text_width(row.text, _SMALL) * (_STRONG if row.strong else 1) for row in rows], default=0)
    start = _PAD + min(names, drawing.width * 0.3) + 12
    end = drawing.width - min(texts, drawing.width * 0.3) - (14 if texts else 8) - _PAD
    return start, end


def _names(drawing: _Drawing, row: Row, start: float, end: float, y: float) -> None:
    css, factor = ("strong", _STRONG) if row.strong else ("", 1.0)
    drawing.text(start - 10, y + 4.5, row.name, css, "end", width=(start - 10 - _PAD) / factor)
    if row.text:
        room = (WIDTH - end - 14) / factor
        drawing.text(end + 12, y + 4.5, row.text, f"value {css}".strip(), width=room, size=_SMALL)


def bars(
    rows: Sequence[Row],
    title: str,
    description: str,
    x_label: str,
    *,
    x_range: tuple[float, float] | None = None,
    reference: float | None = None,
) -> str:
    """Return one horizontal bar per row from 0, with whiskers where there is an interval.

    Parameters
    ----------
    x_range : the ends of the axis; 0 is always within.
    reference : a vertical line.
    """
    ends = _known([value for row in rows for value in (row.value, row.low, row.high)])
    if not ends:
        return _nothing(title, description)
    drawing = _Drawing(title, description)
    start, end = _columns(drawing, rows)
    low, high = x_range or (min(0.0, *ends, 0.0), max(0.0, *ends, 0.0))
    low, high = min(low, 0.0), max(high, 0.0)
    if x_range is None:
        span = (high - low) or 1.0
        low, high = low - (0.05 * span if low < 0 else 0), high + (0.05 * span if high > 0 or low == high else 0)
    x, top, step = _Scale(low, high, start, end), 6.0, 26.0
    bottom = top + step * len(rows) + 4
    after = _bottom_axis(drawing, x, top, bottom, x_label)
    for number, row in enumerate(rows):
        y = top + step * (number + 0.5) + 2
        _names(drawing, row, start, end, y)
        if math.isfinite(row.value):
            a, b = sorted((x(0.0), x(row.value)))
            drawing.add(
                "rect",
                f"bar s{row.tone % TONES}",
                f"{row.name}: {row.text or f'{row.value:.4g}'}",
                x=a,
                y=y - 8,
                width=max(b - a, 1.0),
                height=16,
            )
            drawing.whisker(x, row.low, row.high, y, row.tone, vertical=False)
    for value, css in ((0.0, "axis"), *([] if reference is None else [(reference, "reference")])):
        drawing.add("path", css, d=f"M{_number(x(value))} {_number(top)}V{_number(bottom)}")
    return drawing.svg(after)


def scatter(
    points: Sequence[Point],
    title: str,
    description: str,
    x_label: str,
    y_label: str,
    *,
    frontier: Sequence[tuple[float, float]] = (),
    frontier_name: str = "",
    legend: Sequence[tuple[str, int]] = (),
    x_log: bool = False,
    x_whole: bool = False,
    height: float = 320,
) -> str:
    """Return named points, and the step line of a frontier; a name without room is only the tooltip of its point.

    Points with the same x are drawn side by side.

    Parameters
    ----------
    frontier : points (x, y) with ascending x.
    legend : names of the tones.
    """
    points = [one for one in points if math.isfinite(one.x) and math.isfinite(one.y) and (one.x > 0 or not x_log)]
    if not points:
        return _nothing(title, description)
    ys = _known([value for one in points for value in (one.y, one.low, one.high)]) + [b for _, b in frontier]
    x_low, x_high = _limits([one.x for one in points] + [a for a, _ in frontier], x_log, 0.08)
    if not x_log and min(one.x for one in points) >= 0:
        x_low = max(x_low, 0.0)
    y_low, y_high = _limits(ys)
    drawing = _Drawing(title, description)
    listed: list[tuple[str, int | None, bool]] = [(name, tone, False) for name, tone in legend]
    top = _legend(drawing, [*listed, *([(frontier_name, None, True)] if frontier and frontier_name else [])], 0)
    drawing.text(_PAD, top + 16, y_label, "label", width=WIDTH - 2 * _PAD)
    top += 28
    texts = _left_texts(y_low, y_high, height)
    left = _PAD + max([text_width(text, _SMALL) for _, text in texts], default=0) + 8
    x, y = _Scale(x_low, x_high, left, WIDTH - 16, x_log), _Scale(y_low, y_high, top + height, top)
    _left_axis(drawing, y, left, WIDTH - 16, texts)
    bottom = _bottom_axis(drawing, x, top, top + height, x_label, whole=x_whole)
    if frontier:
        path = f"M{_number(x(frontier[0][0]))} {_number(y(frontier[0][1]))}"
        path += "".join(f"H{_number(x(a))}V{_number(y(b))}" for a, b in frontier[1:]) + f"H{_number(WIDTH - 16)}"
        drawing.add("path", "frontier", frontier_name, d=path)
    places = [(one, x(one.x) + aside, y(one.y)) for one, aside in zip(points, _beside(points), strict=True)]
    for one, at, _ in places:
        drawing.whisker(y, one.low, one.high, at, one.tone, vertical=True)
    for one, at, above in places:
        tooltip = f"{one.name}: {one.text}" if one.text else one.name
        drawing.marker(at, above, one.tone, tooltip, css="strong" if one.strong else "")
    taken = [(at - 6, above - 6, at + 6, above + 6) for _, at, above in places]
    whiskers: list[_Box] = []
    for one, at, _ in places:
        if one.low is not None and one.high is not None and math.isfinite(one.low) and math.isfinite(one.high):
            whiskers.append((at - 3, y(one.high), at + 3, y(one.low)))
    for one, at, above in sorted(places, key=lambda entry: (not entry[0].strong, entry[2])):
        _place_name(drawing, one, at, above, taken, whiskers, (left, top, WIDTH - 4, top + height))
    return drawing.svg(bottom)


def _beside(points: Sequence[Point]) -> list[float]:
    """Return how far each point is moved aside so that the intervals of points with the same x lie side by side."""
    asides, seen = [], dict[float, int]()
    count = Counter(one.x for one in points)
    for one in points:
        number = seen.get(one.x, 0)
        seen[one.x] = number + 1
        asides.append((number - (count[one.x] - 1) / 2) * min(12.0, 60.0 / count[one.x]))
    return asides


_Box = tuple[float, float, float, float]


def _place_name(
    drawing: _Drawing, one: Point, x: float, y: float, taken: list[_Box], whiskers: list[_Box], inside: _Box
) -> None:
    """Write the name of a point where it overlaps nothing, else where it covers a part of a whisker; where there is no
    room, leave it out.
    """
    name = shortened(one.name, _NAME, _SMALL)
    wide = text_width(name, _SMALL) * (_STRONG if one.strong else 1)
    places: list[tuple[float, float, Anchor]] = [(x + 9, y + 4, "start"), (x - 9, y + 4, "end")]
    places += [(x + 9, y - 8, "start"), (x - 9, y - 8, "end"), (x + 9, y + 16, "start"), (x - 9, y + 16, "end")]
    for up in (-10.0, 18.0, -22.0, 30.0):
        places += [(x, y + up, "middle"), (x + 7, y + up, "start"), (x - 7, y + up, "end")]
    for avoided, (at, base, anchor) in itertools.product(([*taken, *whiskers], list(taken)), places):
        begin = at - (wide if anchor == "end" else wide / 2 if anchor == "middle" else 0)
        box = (begin - 1, base - 11, begin + wide + 1, base + 3)
        fits = inside[0] <= box[0] and box[2] <= inside[2] and inside[1] <= box[1] and box[3] <= inside[3]
        if fits and not any(_overlap(box, other) for other in avoided):
            taken.append(box)
            css = "tick halo strong" if one.strong else "tick halo"
            drawing.text(at, base, one.name, css, anchor, width=_NAME, size=_SMALL)
            return


def _overlap(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def histogram(
    edges: Sequence[float],
    counts: Sequence[Sequence[int]],
    names: Sequence[str],
    title: str,
    description: str,
    x_label: str,
    y_label: str = "images",
    *,
    height: float = 180,
) -> str:
    """Return bars of the counts between the edges; several series are stacked.

    Parameters
    ----------
    edges : (bins + 1,) ascending.
    counts : (series, bins).
    names : of each series.
    """
    totals = [sum(column) for column in zip(*counts, strict=True)]
    if not totals or not any(totals) or edges[0] >= edges[-1]:
        return _nothing(title, description)
    drawing = _Drawing(title, description)
    top = _legend(drawing, [(name, i, False) for i, name in enumerate(names)], 0) if len(names) > 1 else 4
    drawing.text(_PAD, top + 14, y_label, "label", width=WIDTH - 2 * _PAD)
    top += 26
    high = max(totals) * 1.05
    texts = [one for one in _left_texts(0, high, height) if float(one[0]).is_integer()]
    left = _PAD + max([text_width(text, _SMALL) for _, text in texts], default=0) + 8
    x, y = _Scale(edges[0], edges[-1], left, WIDTH - 16), _Scale(0, high, top + height, top)
    _left_axis(drawing, y, left, WIDTH - 16, texts)
    for i, total in enumerate(totals):
        base, a, b = 0, x(edges[i]), x(edges[i + 1])
        for tone, column in enumerate(counts):
            if column[i]:
                text = f"{names[tone]}, {edges[i]:.4g} to {edges[i + 1]:.4g}: {column[i]:,} of {total:,}"
                upper, lower = y(base + column[i]), y(base)
                box = {"x": a + 0.5, "y": upper, "width": max(b - a - 1, 0.5), "height": max(lower - upper, 0.5)}
                drawing.add("rect", f"bar s{tone % TONES}", text, **box)
                base += column[i]
    return drawing.svg(_bottom_axis(drawing, x, top + height, top + height, x_label))


def heat(
    names: Sequence[str],
    values: Sequence[Sequence[float]],
    title: str,
    description: str,
    *,
    low: float = -1.0,
    high: float = 1.0,
    text: Callable[[float], str] = lambda value: f"{round(value, 2) + 0.0:.2f}",
) -> str:
    """Return an n × n grid of numbers; the darker, the further from 0, in another color below 0.

    Parameters
    ----------
    values : (n, n); nan is an empty cell.
    low, high : the values with the full colors.
    text : the text of a number; grids with cells that are too small have colors only.
    """
    n = len(names)
    if not n:
        return _nothing(title, description)
    drawing = _Drawing(title, description)
    longest = max(text_width(f"{i + 1}  {name}") for i, name in enumerate(names))
    left = _PAD + min(longest, WIDTH * 0.3) + 10
    cell = min(64.0, (WIDTH - left - _PAD) / n)
    tall = min(cell, 40.0) if n <= 12 else cell
    numbered, texts = cell >= 34, list[tuple[float, float, str, str]]()
    # Names above the columns are numbers if they would not fit into them.
    whole = all(text_width(name, _SMALL) <= cell - 6 for name in names)
    above = [name if whole else str(i + 1) for i, name in enumerate(names)]
    stride = max(1, math.ceil((text_width(str(n), _SMALL) + 4) / cell))
    for i, name in enumerate(above):
        if whole or i % stride == 0:
            drawing.text(left + (i + 0.5) * cell, 16, name, "tick", "middle")
    top = 24.0
    for i, name in enumerate(names):
        if tall >= 15 or i % math.ceil(15 / tall) == 0:
            shown = name if whole else f"{i + 1}  {name}"
            drawing.text(left - 8, top + (i + 0.5) * tall + 4, shown, "", "end", width=left - 8 - _PAD)
    cells: dict[str, list[str]] = {}  # one path per color, because n × n elements would be long
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            css, depth = "cell none", 0
            if math.isfinite(value):
                share = value / high if value >= 0 and high > 0 else value / low if low < 0 else 0.0
                depth = round(10 * min(max(share, 0.0), 1.0))
                css = f"cell {'s0' if value >= 0 else 's1'} d{depth}"
                if numbered:
                    place = left + (j + 0.5) * cell, top + (i + 0.5) * tall + 4
                    texts.append((*place, text(value), "value on" if depth > 5 else "value"))
            corner = f"M{_number(left + j * cell + 0.5)} {_number(top + i * tall + 0.5)}"
            cells.setdefault(css, []).append(f"{corner}h{_number(cell - 1)}v{_number(tall - 1)}h-{_number(cell - 1)}z")
    for css, paths in cells.items():
        drawing.add("path", css, d="".join(paths))
    for x, y, number, css in texts:
        drawing.text(x, y, number, css, "middle")
    return drawing.svg(top + n * tall + 6)


def reliability_diagram(
    curves: Sequence[Calibrated], title: str, description: str, x_label: str, y_label: str, *, side: float = 380
) -> str:
    """Return the accuracy in bins of confidence with intervals, the diagonal, and the counts of each bin below."""
    if not any(_known(one.accuracy) for one in curves):
        return _nothing(title, description)
    drawing = _Drawing(title, description)
    top = _legend(drawing, [(one.name, one.tone, True) for one in curves], 0) if len(curves) > 1 else 4
    drawing.text(_PAD, top + 14, y_label, "label", width=WIDTH - 2 * _PAD)
    top += 28
    left, right = 44.0, WIDTH - 16
    x, y = _Scale(0, 1, left, right), _Scale(0, 1, top + side, top)
    grid = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    _left_axis(drawing, y, left, right, [(value, f"{value:.1f}") for value in grid])
    after = _bottom_axis(drawing, x, top, top + side, x_label, values=grid)
    drawing.add("path", "reference", d=f"M{_number(x(0))} {_number(y(0))}L{_number(x(1))} {_number(y(1))}")
    drawing.text(x(0.04), y(0.93), "more often right than claimed", "tick halo")
    drawing.text(x(0.96), y(0.06), "less often right than claimed", "tick halo", "end")
    for number, one in enumerate(curves):
        known = [i for i in range(len(one.count)) if one.count[i] and math.isfinite(one.accuracy[i])]
        aside = 5 * (number - (len(curves) - 1) / 2)  # so that the intervals of two curves do not cover each other
        places = [(x(one.confidence[i]) + aside, y(one.accuracy[i])) for i in known]
        for i, (at, _) in zip(known, places, strict=True):
            drawing.whisker(y, one.low[i], one.high[i], at, one.tone, vertical=True)
        path = "L".join(f"{_number(a)} {_number(b)}" for a, b in places)
        if path:
            drawing.add("path", f"line s{one.tone % TONES}", one.name, d=f"M{path}")
        for i, (a, b) in zip(known, places, strict=True):
            shown = f"confidence {one.confidence[i]:.2f}, right {one.accuracy[i]:.2f}, {one.count[i]:,} {one.unit}"
            drawing.marker(a, b, one.tone, f"{one.name}: {shown}")
    return drawing.svg(after)


def cloud(
    x: Sequence[float],
    y: Sequence[float],
    title: str,
    description: str,
    x_label: str,
    y_label: str,
    *,
    line: Series | None = None,
    diagonal: bool = False,
    reference: float | None = None,
    above: str = "",
    below: str = "",
    dots: str = "an image",
    height: float = 340,
) -> str:
    """Return many points without names, with a line and its band over them.

    Parameters
    ----------
    line : with a band and the name of both; no legend without it.
    diagonal : whether x and y have one scale, with the line where both are equal.
    reference : a horizontal line.
    above, below : what lies above and below the diagonal or the reference.
    dots : what a point is, in the legend.
    """
    points = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    if not points:
        return _nothing(title, description)
    x_low, x_high = _limits([a for a, _ in points])
    y_low, y_high = _limits([b for _, b in points] + ([] if reference is None else [reference]))
    if diagonal:
        x_low, x_high = y_low, y_high = min(x_low, y_low), max(x_high, y_high)
    drawing = _Drawing(title, description)
    top = (
        0.0 if line is None else _legend(drawing, [(dots, 0, False), (line.name, line.tone or 1, True)], 0, [line.name])
    )
    drawing.text(_PAD, top + 16, y_label, "label", width=WIDTH - 2 * _PAD)
    top += 28
    texts = _left_texts(y_low, y_high, height)
    left = _PAD + max([text_width(text, _SMALL) for _, text in texts], default=0) + 8
    across, up = _Scale(x_low, x_high, left, WIDTH - 16), _Scale(y_low, y_high, top + height, top)
    _left_axis(drawing, up, left, WIDTH - 16, texts)
    bottom = _bottom_axis(drawing, across, top, top + height, x_label)
    # A few paths, because thousands of markers would be long, and several, so that dense places are darker.
    kept = [points[i] for i in _thinned(len(points), _MOST_DOTS)]
    dot = f"h{_DOT:g}v{_DOT:g}h-{_DOT:g}z"
    for layer in range(min(_LAYERS, len(kept))):
        path = "".join(
            f"M{_number(across(a) - _DOT / 2)} {_number(up(b) - _DOT / 2)}{dot}" for a, b in kept[layer::_LAYERS]
        )
        drawing.add("path", "cell s0 d4", d=path)
    if diagonal:
        drawing.add(
            "path",
            "reference",
            d=f"M{_number(across(x_low))} {_number(up(x_low))}L{_number(across(x_high))} {_number(up(x_high))}",
        )
    if reference is not None:
        drawing.add("path", "reference", d=f"M{_number(left)} {_number(up(reference))}H{_number(WIDTH - 16)}")
    if line is not None:
        _band(drawing, replace(line, tone=line.tone or 1), across, up)
        _line(drawing, replace(line, tone=line.tone or 1), across, up)
    for text, at, y_at, anchor in ((above, left + 8, top + 16, "start"), (below, WIDTH - 24, top + height - 10, "end")):
        if text:
            drawing.text(at, y_at, text, "tick halo", "end" if anchor == "end" else "start", size=_SMALL)
    return drawing.svg(bottom)


def reliability_panels(
    curves: Sequence[Calibrated],
    title: str,
    description: str,
    x_label: str,
    y_label: str,
    *,
    across: int = 4,
    side: float = 132,
) -> str:
    """Return a small reliability diagram for each curve, all with the axes 0 to 1 and the diagonal.

    Parameters
    ----------
    across : diagrams in a row.
    side : the height of each.
    """
    curves = [one for one in curves if _known(one.accuracy)]
    if not curves:
        return _nothing(title, description)
    drawing = _Drawing(title, description)
    drawing.text(_PAD, 14, y_label, "label", width=WIDTH - 2 * _PAD)
    columns = min(across, max(2, len(curves)))
    step, top, left = (WIDTH - 2 * _PAD) / columns, 24.0, 34.0
    tall = side + 56
    for number, one in enumerate(curves):
        start, upper = _PAD + (number % columns) * step + left, top + (number // columns) * tall + 22
        end = start + step - left - 8
        x, y = _Scale(0, 1, start, end), _Scale(0, 1, upper + side, upper)
        drawing.text(start, upper - 6, one.name, "strong", width=end - start)
        _left_axis(drawing, y, start, end, [(value, f"{value:.1f}") for value in (0.0, 0.5, 1.0)])
        for value, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
            drawing.add("path", "grid", d=f"M{_number(x(value))} {_number(upper)}V{_number(upper + side)}")
            place: Anchor = "start" if anchor == "start" else "end" if anchor == "end" else "middle"
            drawing.text(x(value), upper + side + 15, f"{value:.1f}", "tick", place)
        drawing.add("path", "reference", d=f"M{_number(start)} {_number(y(0))}L{_number(end)} {_number(y(1))}")
        known = [i for i in range(len(one.count)) if one.count[i] and math.isfinite(one.accuracy[i])]
        for i in known:
            drawing.whisker(y, one.low[i], one.high[i], x(one.confidence[i]), one.tone, vertical=True)
        path = "L".join(f"{_number(x(one.confidence[i]))} {_number(y(one.accuracy[i]))}" for i in known)
        drawing.add("path", f"line s{one.tone % TONES}", one.name, d=f"M{path}")
        for i in known:
            shown = f"probability {one.confidence[i]:.2f}, share {one.accuracy[i]:.2f}, {one.count[i]:,} {one.unit}"
            drawing.marker(x(one.confidence[i]), y(one.accuracy[i]), one.tone, f"{one.name}: {shown}", size=3.5)
    bottom = top + math.ceil(len(curves) / columns) * tall
    drawing.text(WIDTH / 2, bottom + 12, x_label, "label", "middle", width=WIDTH - 2 * _PAD)
    return drawing.svg(bottom + 22)
