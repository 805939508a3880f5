"""Draw rows with intervals (a forest), and bars."""

from __future__ import annotations

import math
from collections.abc import Sequence

from folds.utils.charts.drawing import MARK_TONE, PAD, TONES, WIDTH, Canvas, bottom_axis, draw_legend, empty_chart
from folds.utils.charts.scales import SMALL, STRONG, Scale, axis_limits, known_values, num, text_width
from folds.utils.charts.series import Row


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
    ends = known_values([value for row in rows for value in (row.value, row.low, row.high, row.mark)])
    if not ends:
        return empty_chart(title, description)
    drawing = Canvas(title, description)
    start, end = _columns(drawing, rows)
    low, high = axis_limits([*ends, *([] if reference is None else [reference])])
    x, step = Scale(low, high, start, end), 26.0
    top = draw_legend(drawing, [(name, tone, False) for name, tone in legend], 0) + (0 if legend else 6)
    if reference is not None and (left or right):
        at = x(reference)
        if left and text_width(f"← {left}", SMALL) <= at - 12:  # where there is no room, the other side says it
            drawing.text(at - 8, top + 10, f"← {left}", "tick", "end", size=SMALL)
        if right and text_width(f"{right} →", SMALL) <= WIDTH - at - 12:
            drawing.text(at + 8, top + 10, f"{right} →", "tick", size=SMALL)
        top += 18
    bottom = top + step * len(rows) + 6
    after = bottom_axis(drawing, x, top, bottom, x_label, signed)
    if reference is not None:
        drawing.add("path", "reference", d=f"M{num(x(reference))} {num(top)}V{num(bottom)}")
    for number, row in enumerate(rows):
        y = top + step * (number + 0.5) + 3
        _names(drawing, row, start, end, y)
        if row.mark is not None and math.isfinite(row.mark):
            drawing.marker(x(row.mark), y, MARK_TONE, f"{row.name}: {row.mark:.3f}")
        if math.isfinite(row.value):
            drawing.whisker(x, row.low, row.high, y, row.tone, vertical=False)
            drawing.marker(x(row.value), y, row.tone, f"{row.name}: {row.text}" if row.text else row.name)
    return drawing.svg(after)


def _columns(drawing: Canvas, rows: Sequence[Row]) -> tuple[float, float]:
    """Return where the plot starts and ends between the names and the texts of the rows."""
    names = max([text_width(row.name) * (STRONG if row.strong else 1) for row in rows], default=0)
    texts = max([text_width(row.text, SMALL) * (STRONG if row.strong else 1) for row in rows], default=0)
    start = PAD + min(names, drawing.width * 0.3) + 12
    end = drawing.width - min(texts, drawing.width * 0.3) - (14 if texts else 8) - PAD
    return start, end


def _names(drawing: Canvas, row: Row, start: float, end: float, y: float) -> None:
    css, factor = ("strong", STRONG) if row.strong else ("", 1.0)
    drawing.text(start - 10, y + 4.5, row.name, css, "end", width=(start - 10 - PAD) / factor)
    if row.text:
        room = (WIDTH - end - 14) / factor
        drawing.text(end + 12, y + 4.5, row.text, f"value {css}".strip(), width=room, size=SMALL)


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
    ends = known_values([value for row in rows for value in (row.value, row.low, row.high)])
    if not ends:
        return empty_chart(title, description)
    drawing = Canvas(title, description)
    start, end = _columns(drawing, rows)
    low, high = x_range or (min(0.0, *ends, 0.0), max(0.0, *ends, 0.0))
    low, high = min(low, 0.0), max(high, 0.0)
    if x_range is None:
        span = (high - low) or 1.0
        low, high = low - (0.05 * span if low < 0 else 0), high + (0.05 * span if high > 0 or low == high else 0)
    x, top, step = Scale(low, high, start, end), 6.0, 26.0
    bottom = top + step * len(rows) + 4
    after = bottom_axis(drawing, x, top, bottom, x_label)
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
        drawing.add("path", css, d=f"M{num(x(value))} {num(top)}V{num(bottom)}")
    return drawing.svg(after)
