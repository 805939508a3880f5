"""Draw points with names or intervals (a scatter), and clouds of many points."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from folds.utils.charts.curves import draw_band, draw_line, thinned_index
from folds.utils.charts.drawing import (
    PAD,
    WIDTH,
    Anchor,
    Canvas,
    bottom_axis,
    draw_legend,
    empty_chart,
    left_axis,
    left_tick_texts,
)
from folds.utils.charts.scales import SMALL, STRONG, Scale, axis_limits, known_values, num, shortened, text_width
from folds.utils.charts.series import Point, Series

_NAME = 260.0  # units of the name of a point, at most
_MOST_DOTS, _DOT, _LAYERS = 3000, 5.0, 24  # of a cloud, their side, and in how many layers they are drawn


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
        return empty_chart(title, description)
    ys = known_values([value for one in points for value in (one.y, one.low, one.high)]) + [b for _, b in frontier]
    x_low, x_high = axis_limits([one.x for one in points] + [a for a, _ in frontier], x_log, 0.08)
    if not x_log and min(one.x for one in points) >= 0:
        x_low = max(x_low, 0.0)
    y_low, y_high = axis_limits(ys)
    drawing = Canvas(title, description)
    listed: list[tuple[str, int | None, bool]] = [(name, tone, False) for name, tone in legend]
    top = draw_legend(drawing, [*listed, *([(frontier_name, None, True)] if frontier and frontier_name else [])], 0)
    drawing.text(PAD, top + 16, y_label, "label", width=WIDTH - 2 * PAD)
    top += 28
    texts = left_tick_texts(y_low, y_high, height)
    left = PAD + max([text_width(text, SMALL) for _, text in texts], default=0) + 8
    x, y = Scale(x_low, x_high, left, WIDTH - 16, x_log), Scale(y_low, y_high, top + height, top)
    left_axis(drawing, y, left, WIDTH - 16, texts)
    bottom = bottom_axis(drawing, x, top, top + height, x_label, whole=x_whole)
    if frontier:
        path = f"M{num(x(frontier[0][0]))} {num(y(frontier[0][1]))}"
        path += "".join(f"H{num(x(a))}V{num(y(b))}" for a, b in frontier[1:]) + f"H{num(WIDTH - 16)}"
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
    drawing: Canvas, one: Point, x: float, y: float, taken: list[_Box], whiskers: list[_Box], inside: _Box
) -> None:
    """Write the name of a point where it overlaps nothing, else where it covers a part of a whisker; where there is no
    room, leave it out.
    """
    name = shortened(one.name, _NAME, SMALL)
    wide = text_width(name, SMALL) * (STRONG if one.strong else 1)
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
            drawing.text(at, base, one.name, css, anchor, width=_NAME, size=SMALL)
            return


def _overlap(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


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
        return empty_chart(title, description)
    x_low, x_high = axis_limits([a for a, _ in points])
    y_low, y_high = axis_limits([b for _, b in points] + ([] if reference is None else [reference]))
    if diagonal:
        x_low, x_high = y_low, y_high = min(x_low, y_low), max(x_high, y_high)
    drawing = Canvas(title, description)
    top = (
        0.0
        if line is None
        else draw_legend(drawing, [(dots, 0, False), (line.name, line.tone or 1, True)], 0, [line.name])
    )
    drawing.text(PAD, top + 16, y_label, "label", width=WIDTH - 2 * PAD)
    top += 28
    texts = left_tick_texts(y_low, y_high, height)
    left = PAD + max([text_width(text, SMALL) for _, text in texts], default=0) + 8
    across, up = Scale(x_low, x_high, left, WIDTH - 16), Scale(y_low, y_high, top + height, top)
    left_axis(drawing, up, left, WIDTH - 16, texts)
    bottom = bottom_axis(drawing, across, top, top + height, x_label)
    # A few paths, because thousands of markers would be long, and several, so that dense places are darker.
    kept = [points[i] for i in thinned_index(len(points), _MOST_DOTS)]
    dot = f"h{_DOT:g}v{_DOT:g}h-{_DOT:g}z"
    for layer in range(min(_LAYERS, len(kept))):
        path = "".join(f"M{num(across(a) - _DOT / 2)} {num(up(b) - _DOT / 2)}{dot}" for a, b in kept[layer::_LAYERS])
        drawing.add("path", "cell s0 d4", d=path)
    if diagonal:
        drawing.add(
            "path",
            "reference",
            d=f"M{num(across(x_low))} {num(up(x_low))}L{num(across(x_high))} {num(up(x_high))}",
        )
    if reference is not None:
        drawing.add("path", "reference", d=f"M{num(left)} {num(up(reference))}H{num(WIDTH - 16)}")
    if line is not None:
        draw_band(drawing, replace(line, tone=line.tone or 1), across, up)
        draw_line(drawing, replace(line, tone=line.tone or 1), across, up)
    for text, at, y_at, anchor in ((above, left + 8, top + 16, "start"), (below, WIDTH - 24, top + height - 10, "end")):
        if text:
            drawing.text(at, y_at, text, "tick halo", "end" if anchor == "end" else "start", size=SMALL)
    return drawing.svg(bottom)
