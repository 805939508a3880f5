"""Collect the elements of a drawing as inline SVG, with its axes and legend.

The drawings have CSS classes only (``folds/utils/charts.css``): no inline style, no id and no script, so that they
follow the colors of the page and its Content-Security-Policy. Every text is escaped here. Why not matplotlib: see
``docs/architecture.md``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal
from xml.sax.saxutils import escape, quoteattr

from folds.errors import printable
from folds.utils.charts.scales import (
    FONT,
    SMALL,
    Scale,
    log_ticks,
    num,
    shortened,
    text_width,
    tick_texts,
    ticks,
)

TONES = 8  # classes s0 … s7 of charts.css
MARK_TONE = 4  # of the hollow mark of a row
WIDTH = 720.0  # units of the view box; a text is 13 units high
_LINE = 18.0  # from one line of text to the next
PAD = 8.0
Anchor = Literal["start", "middle", "end"]


def _clean(text: str) -> str:
    # XML has no such characters, so a reader of the drawing would refuse it.
    return escape(printable(text).replace("\ufffe", "").replace("\uffff", ""))


@dataclass
class Canvas:
    """Collect the elements of a drawing."""

    title: str
    description: str
    width: float = WIDTH
    parts: list[str] = field(default_factory=list)

    def add(self, tag: str, css: str, tooltip: str = "", **numbers: float | str) -> None:
        """Add an element; numbers are its attributes."""
        written = "".join(
            f' {name}="{value if isinstance(value, str) else num(value)}"' for name, value in numbers.items()
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
        size: float = FONT,
    ) -> None:
        """Add a text with its baseline at `y`, shortened to `width`; the whole text is then its tooltip."""
        shown = text if width is None else shortened(text, width, size)
        classes = " ".join(filter(None, [css, "" if anchor == "start" else anchor]))
        attributes = f" class={quoteattr(classes)}" if classes else ""
        if turned:
            attributes += f' transform="rotate(-90 {num(x)} {num(y)})"'
        tooltip = f"<title>{_clean(text)}</title>" if shown != text else ""
        self.parts.append(f'<text x="{num(x)}" y="{num(y)}"{attributes}>{_clean(shown)}{tooltip}</text>')

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
        written = " ".join(f"{num(x + a * size)},{num(y + b * size)}" for a, b in points)
        self.add("polygon", css, tooltip, points=written)

    def whisker(
        self, scale: Scale, low: float | None, high: float | None, at: float, tone: int, vertical: bool
    ) -> None:
        """Add an interval with caps; an end beyond the axis has no cap."""
        if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
            return
        start, end, cap = scale(low), scale(high), 4.0
        path = f"M{num(start)} {num(at)}H{num(end)}"
        if vertical:
            path = f"M{num(at)} {num(start)}V{num(end)}"
        for value, place in ((low, start), (high, end)):
            if scale.low <= value <= scale.high and vertical:
                path += f"M{num(at - cap)} {num(place)}h{num(2 * cap)}"
            elif scale.low <= value <= scale.high:
                path += f"M{num(place)} {num(at - cap)}v{num(2 * cap)}"
        self.add("path", f"whisker s{tone % TONES}", d=path)

    def svg(self, height: float) -> str:
        """Return the finished drawing."""
        head = (
            f'<svg class="chart" role="img" viewBox="0 0 {num(self.width)} {num(height)}" '
            f'xmlns="http://www.w3.org/2000/svg"><title>{_clean(self.title)}</title>'
            f"<desc>{_clean(self.description)}</desc>"
        )
        return head + "".join(self.parts) + "</svg>"


def empty_chart(title: str, description: str) -> str:
    drawing = Canvas(title, description)
    drawing.text(WIDTH / 2, 28, "nothing to draw", "quiet", "middle")
    return drawing.svg(44)


def draw_legend(
    drawing: Canvas, names: Sequence[tuple[str, int | None, bool]], top: float, unmarked: Sequence[str] = ()
) -> float:
    """Draw names with their lines or markers in as many rows as needed; return the lower end.

    Parameters
    ----------
    names : name, tone (None for a frontier), and whether a line is shown beside the marker.
    unmarked : those of the names whose line has no markers.
    """
    x, y = PAD, top + _LINE - 4
    for name, tone, line in names:
        shown = shortened(name, 300)
        wide = (30 if line else 18) + text_width(shown) + 18
        if x > PAD and x + wide > drawing.width:
            x, y = PAD, y + _LINE + 2
        if tone is None:
            drawing.add("path", "frontier", d=f"M{num(x)} {num(y - 4)}h24")
        elif line:
            drawing.add("path", f"line s{tone % TONES}", d=f"M{num(x)} {num(y - 4)}h24")
            if name not in unmarked:
                drawing.marker(x + 12, y - 4, tone, size=3.5)
        else:
            drawing.marker(x + 6, y - 4, tone)
        drawing.text(x + (30 if line else 18), y, name, width=300)
        x += wide
    return y + 8 if names else top


def bottom_axis(
    drawing: Canvas,
    scale: Scale,
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
        at, wide = scale(value), text_width(text, SMALL)
        drawing.add("path", "grid", d=f"M{num(at)} {num(top)}V{num(bottom)}")
        if at - wide / 2 > right + 6:
            drawing.text(at, bottom + 17, text, "tick", "middle")
            right = at + wide / 2
    drawing.add("path", "axis", d=f"M{num(scale.start)} {num(bottom)}H{num(scale.end)}")
    if label:
        drawing.text((scale.start + scale.end) / 2, bottom + 38, label, "label", "middle", width=drawing.width - 20)
    return bottom + (48 if label else 26)


def left_axis(drawing: Canvas, scale: Scale, left: float, right: float, texts: Sequence[tuple[float, str]]) -> None:
    for value, text in texts:
        at = scale(value)
        drawing.add("path", "grid", d=f"M{num(left)} {num(at)}H{num(right)}")
        drawing.text(left - 6, at + 4, text, "tick", "end")


def left_tick_texts(low: float, high: float, height: float, log: bool = False) -> list[tuple[float, str]]:
    count = max(2, int(height / 45))
    found = log_ticks(low, high, count) if log else ticks(low, high, count)
    return list(zip(found, tick_texts(found, log=log), strict=True))
