"""Render decision rules as text: nested scores, the rules, what is guaranteed, and the risk–coverage curve."""

from __future__ import annotations

from ensemble.cli.terminal import console
from ensemble.decisions.label_report import LabelThresholds
from ensemble.decisions.number_report import NumberIntervals
from ensemble.decisions.report import (
    CURVE_HEADER,
    HEADER,
    DecisionReport,
    curve_rows,
    fitted_to,
    guarantee_lines,
    noun_of,
    rule_lines,
    score_rows,
)


def decide_report(found: DecisionReport | LabelThresholds | NumberIntervals) -> str:
    """Return the whole report."""
    if not isinstance(found, DecisionReport):
        what = "thresholds" if isinstance(found, LabelThresholds) else "intervals"
        title = f"{found.source.kind} {found.source.name}: {what} per {found.unit}, fitted to "
        title += fitted_to(found.source, found.unit)
        return "\n\n".join([title, console.table(HEADER, found.rows()), "\n".join(_lines(found.lines()))])
    source, unit = found.decision.source, found.decision.unit
    title = f"{source.kind} {source.name}: rules per {unit}, fitted to {fitted_to(source, unit)}"
    parts = [title, console.table(HEADER, score_rows(found.decision))]
    parts.append("\n".join(_lines(rule_lines(found.decision))))
    guarantees = guarantee_lines(found.decision)
    if guarantees:
        parts.append("\n".join(_lines(guarantees)))
    if found.curve_points:
        header = (*CURVE_HEADER, noun_of(unit))
        parts.append(f"risk–coverage curve (nested)\n{console.table(header, curve_rows(found.curve_points), left=0)}")
    return "\n\n".join(part for part in parts if part)


def _lines(texts: list[str]) -> list[str]:
    return [part for text in texts for part in console.wrapped(text)]
