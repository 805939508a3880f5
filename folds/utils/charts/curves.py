"""Draw lines with bands, and reliability diagrams."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from folds.utils.charts.drawing import (
    PAD,
    TONES,
    WIDTH,
    Anchor,
    Canvas,
    bottom_axis,
    draw_legend,
    empty_chart,
    left_axis,
    left_tick_texts,
)
from folds.utils.charts.scales import SMALL, Scale, axis_limits, known_values, num, text_width
from folds.utils.charts.series import Calibrated, Series

_DRAWN_POINTS = 400  # of a line: more cannot be seen


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
    xs = known_values([value for one in series for value, y in zip(one.x, one.y, strict=True) if y is not None])
    columns = [values for one in series for values in (one.y, one.low, one.high) if values is not None]
    ys = known_values([value for values in columns for value in values])
    if x_log:
        xs = [value for value in xs if value > 0]
    if y_log:
        ys = [value for value in ys if value > 0]
    if not xs or not ys:
        return empty_chart(title, description)
    ys += [value for value, _ in references if not y_log or value > 0]
    x_low, x_high = x_range or ((min(xs), max(xs)) if min(xs) < max(xs) else axis_limits(xs, x_log))
    y_low, y_high = y_range or axis_limits(ys, y_log)
    drawing = Canvas(title, description)
    named = [(one.name, one.tone or 0, True) for one in series if not one.faint and one.name]
    unmarked = [one.name for one in series if not one.markers]
    top = draw_legend(drawing, named, 0, unmarked) if len(named) > 1 else 4
    drawing.text(PAD, top + 14, y_label, "label", width=WIDTH - 2 * PAD)
    top += 26
    left_texts = left_tick_texts(y_low, y_high, height, y_log)
    left = PAD + max([text_width(text, SMALL) for _, text in left_texts], default=0) + 8
    x, y = Scale(x_low, x_high, left, WIDTH - 16, x_log), Scale(y_low, y_high, top + height, top, y_log)
    left_axis(drawing, y, left, WIDTH - 16, left_texts)
    bottom = bottom_axis(drawing, x, top, top + height, x_label, values=x_ticks, whole=x_whole, named=x_texts)
    for value, name in references:
        drawing.add("path", "reference", d=f"M{num(left)} {num(y(value))}H{num(WIDTH - 16)}")
        drawing.text(WIDTH - 20, y(value) - 5, name, "tick halo", "end", width=WIDTH / 2)
    for one in series:
        draw_band(drawing, one, x, y)
    for one in series:
        draw_line(drawing, one, x, y)
    return drawing.svg(bottom)


def thinned_index(count: int, most: int = _DRAWN_POINTS) -> Sequence[int]:
    if count <= most:
        return range(count)
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def _drawable(x: Scale, y: Scale, a: float, b: float) -> bool:
    return math.isfinite(a) and math.isfinite(b) and (a > 0 or not x.log) and (b > 0 or not y.log)


def draw_band(drawing: Canvas, one: Series, x: Scale, y: Scale) -> None:
    if one.low is None or one.high is None:
        return
    run: list[int] = []
    for i in [*thinned_index(len(one.x)), None]:
        if i is not None and _drawable(x, y, one.x[i], one.low[i]) and _drawable(x, y, one.x[i], one.high[i]):
            run.append(i)
            continue
        if len(run) > 1:
            around = [(one.x[j], one.high[j]) for j in run] + [(one.x[j], one.low[j]) for j in reversed(run)]
            points = " ".join(f"{num(x(a))},{num(y(b))}" for a, b in around)
            drawing.add("polygon", f"band s{(one.tone or 0) % TONES}", points=points)
        run = []


def draw_line(drawing: Canvas, one: Series, x: Scale, y: Scale) -> None:
    tone, pen_down = (one.tone or 0) % TONES, False
    path: list[str] = []
    alone: list[tuple[float, float, int]] = []  # points without a neighbor, which a line does not show
    kept = list(thinned_index(len(one.x)))
    for position, i in enumerate(kept):
        a, b = one.x[i], one.y[i]
        if not _drawable(x, y, a, b):
            pen_down = False
            continue
        at, height = x(a), y(b)
        if pen_down:
            path.append(f"H{num(at)}V{num(height)}" if one.steps else f"L{num(at)} {num(height)}")
        else:
            path.append(f"M{num(at)} {num(height)}")
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


def reliability_diagram(
    curves: Sequence[Calibrated], title: str, description: str, x_label: str, y_label: str, *, side: float = 380
) -> str:
    """Return the accuracy in bins of confidence with intervals, the diagonal, and the counts of each bin below."""
    if not any(known_values(one.accuracy) for one in curves):
        return empty_chart(title, description)
    drawing = Canvas(title, description)
    top = draw_legend(drawing, [(one.name, one.tone, True) for one in curves], 0) if len(curves) > 1 else 4
    drawing.text(PAD, top + 14, y_label, "label", width=WIDTH - 2 * PAD)
    top += 28
    left, right = 44.0, WIDTH - 16
    x, y = Scale(0, 1, left, right), Scale(0, 1, top + side, top)
    grid = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    left_axis(drawing, y, left, right, [(value, f"{value:.1f}") for value in grid])
    after = bottom_axis(drawing, x, top, top + side, x_label, values=grid)
    drawing.add("path", "reference", d=f"M{num(x(0))} {num(y(0))}L{num(x(1))} {num(y(1))}")
    drawing.text(x(0.04), y(0.93), "more often right than claimed", "tick halo")
    drawing.text(x(0.96), y(0.06), "less often right than claimed", "tick halo", "end")
    for number, one in enumerate(curves):
        known = [i for i in range(len(one.count)) if one.count[i] and math.isfinite(one.accuracy[i])]
        aside = 5 * (number - (len(curves) - 1) / 2)  # so that the intervals of two curves do not cover each other
        places = [(x(one.confidence[i]) + aside, y(one.accuracy[i])) for i in known]
        for i, (at, _) in zip(known, places, strict=True):
            drawing.whisker(y, one.low[i], one.high[i], at, one.tone, vertical=True)
        path = "L".join(f"{num(a)} {num(b)}" for a, b in places)
        if path:
            drawing.add("path", f"line s{one.tone % TONES}", one.name, d=f"M{path}")
        for i, (a, b) in zip(known, places, strict=True):
            shown = f"confidence {one.confidence[i]:.2f}, right {one.accuracy[i]:.2f}, {one.count[i]:,} {one.unit}"
            drawing.marker(a, b, one.tone, f"{one.name}: {shown}")
    return drawing.svg(after)


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
    curves = [one for one in curves if known_values(one.accuracy)]
    if not curves:
        return empty_chart(title, description)
    drawing = Canvas(title, description)
    drawing.text(PAD, 14, y_label, "label", width=WIDTH - 2 * PAD)
    columns = min(across, max(2, len(curves)))
    step, top, left = (WIDTH - 2 * PAD) / columns, 24.0, 34.0
    tall = side + 56
    for number, one in enumerate(curves):
        start, upper = PAD + (number % columns) * step + left, top + (number // columns) * tall + 22
        end = start + step - left - 8
        x, y = Scale(0, 1, start, end), Scale(0, 1, upper + side, upper)
        drawing.text(start, upper - 6, one.name, "strong", width=end - start)
        left_axis(drawing, y, start, end, [(value, f"{value:.1f}") for value in (0.0, 0.5, 1.0)])
        for value, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
            drawing.add("path", "grid", d=f"M{num(x(value))} {num(upper)}V{num(upper + side)}")
            place: Anchor = "start" if anchor == "start" else "end" if anchor == "end" else "middle"
            drawing.text(x(value), upper + side + 15, f"{value:.1f}", "tick", place)
        drawing.add("path", "reference", d=f"M{num(start)} {num(y(0))}L{num(end)} {num(y(1))}")
        known = [i for i in range(len(one.count)) if one.count[i] and math.isfinite(one.accuracy[i])]
        for i in known:
            drawing.whisker(y, one.low[i], one.high[i], x(one.confidence[i]), one.tone, vertical=True)
        path = "L".join(f"{num(x(one.confidence[i]))} {num(y(one.accuracy[i]))}" for i in known)
        drawing.add("path", f"line s{one.tone % TONES}", one.name, d=f"M{path}")
        for i in known:
            shown = f"probability {one.confidence[i]:.2f}, share {one.accuracy[i]:.2f}, {one.count[i]:,} {one.unit}"
            drawing.marker(x(one.confidence[i]), y(one.accuracy[i]), one.tone, f"{one.name}: {shown}", size=3.5)
    bottom = top + math.ceil(len(curves) / columns) * tall
    drawing.text(WIDTH / 2, bottom + 12, x_label, "label", "middle", width=WIDTH - 2 * PAD)
    return drawing.svg(bottom + 22)
