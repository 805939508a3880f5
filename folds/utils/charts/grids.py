"""Draw histograms, and grids of colored cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from folds.utils.charts.drawing import (
    PAD,
    TONES,
    WIDTH,
    Canvas,
    bottom_axis,
    draw_legend,
    empty_chart,
    left_axis,
    left_tick_texts,
)
from folds.utils.charts.scales import SMALL, Scale, num, text_width


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
        return empty_chart(title, description)
    drawing = Canvas(title, description)
    top = draw_legend(drawing, [(name, i, False) for i, name in enumerate(names)], 0) if len(names) > 1 else 4
    drawing.text(PAD, top + 14, y_label, "label", width=WIDTH - 2 * PAD)
    top += 26
    high = max(totals) * 1.05
    texts = [one for one in left_tick_texts(0, high, height) if float(one[0]).is_integer()]
    left = PAD + max([text_width(text, SMALL) for _, text in texts], default=0) + 8
    x, y = Scale(edges[0], edges[-1], left, WIDTH - 16), Scale(0, high, top + height, top)
    left_axis(drawing, y, left, WIDTH - 16, texts)
    for i, total in enumerate(totals):
        base, a, b = 0, x(edges[i]), x(edges[i + 1])
        for tone, column in enumerate(counts):
            if column[i]:
                text = f"{names[tone]}, {edges[i]:.4g} to {edges[i + 1]:.4g}: {column[i]:,} of {total:,}"
                upper, lower = y(base + column[i]), y(base)
                box = {"x": a + 0.5, "y": upper, "width": max(b - a - 1, 0.5), "height": max(lower - upper, 0.5)}
                drawing.add("rect", f"bar s{tone % TONES}", text, **box)
                base += column[i]
    return drawing.svg(bottom_axis(drawing, x, top + height, top + height, x_label))


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
        return empty_chart(title, description)
    drawing = Canvas(title, description)
    longest = max(text_width(f"{i + 1}  {name}") for i, name in enumerate(names))
    left = PAD + min(longest, WIDTH * 0.3) + 10
    cell = min(64.0, (WIDTH - left - PAD) / n)
    tall = min(cell, 40.0) if n <= 12 else cell
    numbered, texts = cell >= 34, list[tuple[float, float, str, str]]()
    # Names above the columns are numbers if they would not fit into them.
    whole = all(text_width(name, SMALL) <= cell - 6 for name in names)
    above = [name if whole else str(i + 1) for i, name in enumerate(names)]
    stride = max(1, math.ceil((text_width(str(n), SMALL) + 4) / cell))
    for i, name in enumerate(above):
        if whole or i % stride == 0:
            drawing.text(left + (i + 0.5) * cell, 16, name, "tick", "middle")
    top = 24.0
    for i, name in enumerate(names):
        if tall >= 15 or i % math.ceil(15 / tall) == 0:
            shown = name if whole else f"{i + 1}  {name}"
            drawing.text(left - 8, top + (i + 0.5) * tall + 4, shown, "", "end", width=left - 8 - PAD)
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
            corner = f"M{num(left + j * cell + 0.5)} {num(top + i * tall + 0.5)}"
            cells.setdefault(css, []).append(f"{corner}h{num(cell - 1)}v{num(tall - 1)}h-{num(cell - 1)}z")
    for css, paths in cells.items():
        drawing.add("path", css, d="".join(paths))
    for x, y, number, css in texts:
        drawing.text(x, y, number, css, "middle")
    return drawing.svg(top + n * tall + 6)
