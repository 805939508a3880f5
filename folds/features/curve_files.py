"""Write a learning curve: as JSON, as CSV, and drawn as SVG."""

from __future__ import annotations

from html import escape
from pathlib import Path

from folds.features.learning_curve import LearningCurve
from folds.metrics.custom import find_metric
from folds.utils.csv_table import csv_text
from folds.utils.files import write_atomic, write_json

NAME = "learning_curve"
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 400, 70, 20, 40, 60


def write_curve(folder: Path, curve: LearningCurve) -> Path:
    """Write ``learning_curve.json``, ``.csv`` and ``.svg`` into the folder of a run; return the path of the drawing."""
    write_json(folder / f"{NAME}.json", curve.to_dict())
    names = ("share", "people", "images", "score", "low", "high")
    columns = {name: [f"{getattr(point, name):.6g}" for point in curve.points] for name in names}
    write_atomic(folder / f"{NAME}.csv", csv_text(columns))
    return write_atomic(folder / f"{NAME}.svg", drawn(curve))


def drawn(curve: LearningCurve) -> str:
    """Return the curve as SVG: the score over the number of people, with its confidence interval."""
    points = curve.points
    most = max(point.people for point in points)
    low, high = min(point.low for point in points), max(point.high for point in points)
    step = _step((high - low) or 1e-3)
    low, high = step * int(low / step - 0.5), step * int(high / step + 1.5)

    def x(people: float) -> float:
        return _LEFT + people / most * (_WIDTH - _LEFT - _RIGHT)

    def y(score: float) -> float:
        return _HEIGHT - _BOTTOM - (score - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    title = f"{find_metric(curve.metric).title} of {curve.run}, out of fold, with its 95% CI"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="13" fill="#333"><rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="{_LEFT}" y="24" font-size="15">{escape(title)}</text>',
    ]
    for i in range(round((high - low) / step) + 1):
        at = low + i * step
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(at):.1f}" y2="{y(at):.1f}" stroke="#ddd"/>'
            f'<text x="{_LEFT - 8}" y="{y(at) + 4:.1f}" text-anchor="end">{at:.3g}</text>'
        )
    upper = [f"{x(point.people):.1f},{y(point.high):.1f}" for point in points]
    lower = [f"{x(point.people):.1f},{y(point.low):.1f}" for point in reversed(points)]
    line = " ".join(f"{x(point.people):.1f},{y(point.score):.1f}" for point in points)
    parts.append(f'<polygon points="{" ".join(upper + lower)}" fill="#0068b5" fill-opacity="0.15"/>')
    parts.append(f'<polyline points="{line}" fill="none" stroke="#0068b5" stroke-width="2"/>')
    for point in points:
        place = f"{x(point.people):.1f}"
        parts.append(f'<circle cx="{place}" cy="{y(point.score):.1f}" r="4" fill="#0068b5"/>')
        parts.append(f'<text x="{place}" y="{_HEIGHT - _BOTTOM + 20}" text-anchor="middle">{point.people:.0f}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 14}" text-anchor="middle">people in the training part</text></svg>')
    return "\n".join(parts) + "\n"


def _step(span: float) -> float:
    """Return a round distance of about five lines over a span."""
    size = 1.0
    while size > span:
        size /= 10
    while size * 10 <= span:
        size *= 10
    return next(size * share for share in (0.1, 0.2, 0.5, 1.0, 2.0) if size * share * 8 >= span)
