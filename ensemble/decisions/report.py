"""Show fitted decision rules: what they are, what they are worth on unseen people, and the risk–coverage curve."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ensemble.decisions.abstention import CurvePoint
from ensemble.decisions.costs import ABSTAIN
from ensemble.decisions.decision import Decision
from ensemble.decisions.label_decision import (
    AnyDecision,
    LabelDecision,
    label_guarantees,
    label_lines,
    label_scores,
)
from ensemble.decisions.number_decision import NumberDecision, number_guarantees, number_lines
from ensemble.decisions.record import (
    CROSS_FITTED,
    ONE_MODEL,
    SELECTED,
    STUDENT,
    UNKNOWN,
    DecisionSource,
    MeasuredValue,
)
from ensemble.decisions.rows import PERSON
from ensemble.decisions.sets import EVERYTHING
from folds.utils.display import Displayed, Table

if TYPE_CHECKING:
    import pandas as pd

HEADER = ("measure", "nested value", "95% CI (over people)", "people", "aim")
CURVE_HEADER = ("answered", "from confidence", "error", "95% CI (over people)")  # and what is counted: `noun_of`
_MAX_NAME = 40
_BASIS = {
    ONE_MODEL: "one model predicted all of these people: for it, guarantees hold as stated",
    CROSS_FITTED: "each fold's model predicted its own people: for the mean of the models, guarantees are approximate",
    SELECTED: "a model was selected by its score on these people, so its predictions of them are optimistic: "
    "guarantees are approximate",
    STUDENT: "a model learned the predictions of models that have seen these people (docs/distill.md), so its "
    "predictions of them are optimistic: nothing is guaranteed for other people",
    UNKNOWN: "guarantees hold for one model that predicted all rows and was trained on none of these people",
}


@dataclass(frozen=True, eq=False, repr=False)
class DecisionReport(Displayed):
    """Fitted decision rules, and what they are worth.

    Attributes
    ----------
    decision : the rules; `decision.apply` gives labels and sets for probabilities.
    curve_points : the risk–coverage curve of the nested decisions.
    warnings : what limits the rules.
    """

    decision: Decision
    curve_points: tuple[CurvePoint, ...]
    warnings: tuple[str, ...] = ()

    @property
    def thresholds(self) -> dict[str, float]:
        """Return class → fitted or given threshold; {} without thresholds."""
        rule = self.decision.labels
        if rule is None or rule.costs is not None:
            return {}
        pairs = zip(rule.classes, rule.thresholds.tolist(), strict=True)
        return {name: value for name, value in pairs if not math.isnan(value)}

    @property
    def scores(self) -> dict[str, MeasuredValue]:
        """Return measure → its nested value with the interval over people."""
        return {score.measure: score for record in self.decision.records.values() for score in record.scores}

    def curve(self) -> pd.DataFrame:
        """Return the risk–coverage curve as a DataFrame: coverage, threshold, risk, low, high, images.

        Coverage and risk count people equally: they are those of a random image of a random person.
        """
        import pandas as pd

        return pd.DataFrame(self._curve_rows())

    def _curve_rows(self) -> list[dict[str, Any]]:
        return [
            {
                "coverage": point.coverage,
                "threshold": point.threshold,
                "risk": point.risk.value,
                "low": point.risk.low,
                "high": point.risk.high,
                "images": point.images,
            }
            for point in self.curve_points
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as ``ensemble decide --json`` prints them."""
        rows = [
            {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}
            for row in self._curve_rows()
        ]
        return {"decision": self.decision.to_dict(), "curve": rows, "warnings": list(self.warnings)}

    def display_table(self) -> Table:
        """Return the table to display: one row per nested score, and the rules below."""
        source = self.decision.source
        title = f"Decision rules of {source.kind} {source.name}".rstrip()
        title += f", fitted to {fitted_to(source, self.decision.unit)}"
        notes = [*rule_lines(self.decision), *guarantee_lines(self.decision)]
        notes += [f"warning: {text}" for text in self.warnings]
        return Table(title, HEADER, score_rows(self.decision), tuple(notes), left=1)


def noun_of(unit: str) -> str:
    """Return what the rows of a unit are: ``images`` or ``people``."""
    return "people" if unit == PERSON else "images"


def fitted_to(source: DecisionSource, unit: str) -> str:
    """Return on whom rules were fitted: ``30 people (90 images)``; the rows of people have no images to count."""
    return f"{source.people:,} people" + ("" if unit == PERSON else f" ({source.images:,} images)")


def score_rows(decision: Decision) -> list[list[object]]:
    """Return the rows of the table of nested scores, under `HEADER`."""
    rows: list[list[object]] = []
    for record in decision.records.values():
        rows += map(measured_row, record.scores)
    return rows


def measured_row(score: MeasuredValue) -> list[object]:
    """Return one row of the table of nested scores, under `HEADER`."""
    interval = score.interval
    value = "–" if math.isnan(interval.value) else f"{interval.value:.3f}"
    aim = ""
    if score.target is not None:
        aim = f"{'≥' if score.at_least else '≤'} {score.target:.3g}: {score.verdict}"
    return [_clipped(score.measure), value, interval.ci_text(), f"{interval.people:,}", aim]


def score_lines(scores: Sequence[MeasuredValue]) -> list[str]:
    """Return one line for each measured value: ``error of answers 0.031 [0.012, 0.070], aim ≤ 0.05: not shown``."""
    lines = []
    for score in scores:
        aim = f", aim {'≥' if score.at_least else '≤'} {score.target:.3g}: {score.verdict}" if score.target else ""
        lines.append(f"  {_clipped(score.measure)} {score.interval.text()}{aim}")
    return lines


def curve_rows(points: tuple[CurvePoint, ...]) -> list[list[object]]:
    """Return the rows of the risk–coverage table, under `CURVE_HEADER` and the noun of the unit."""
    return [
        [
            f"{point.coverage:.1%}",
            f"{point.threshold:.4f}",
            f"{point.risk.value:.4f}",
            point.risk.ci_text(),
            f"{point.images:,}",
        ]
        for point in points
    ]


def shown_scores(decision: AnyDecision) -> list[MeasuredValue]:
    """Return the nested scores that are shown beside predictions and in the card of a model."""
    if isinstance(decision, LabelDecision):
        return label_scores(decision)
    return [score for record in decision.records.values() for score in record.scores]


def rule_lines(decision: AnyDecision) -> list[str]:
    """Return the fitted rules in words, one line each."""
    if isinstance(decision, LabelDecision):
        return label_lines(decision)
    if isinstance(decision, NumberDecision):
        return number_lines(decision)
    lines = _label_lines(decision)
    if decision.answers_nothing:
        lines.append(f"'{decision.abstain_label}' for every image: no confidence keeps the stated error")
    elif decision.threshold is not None:
        lines.append(f"'{decision.abstain_label}' below a confidence of {decision.threshold:.4g}")
    if decision.sets is not None:
        rule = decision.sets
        limits: Mapping[str, float] = (
            dict(zip(decision.classes, rule.limits, strict=True)) if len(rule.limits) > 1 else {"": rule.limits[0]}
        )
        shown = [f"{name} {'any' if value >= EVERYTHING else f'{value:.4g}'}".strip() for name, value in limits.items()]
        lines.append(f"sets: the classes with a score ({rule.score}) of at most {_listed(shown)}")
    return lines


def _label_lines(decision: Decision) -> list[str]:
    rule = decision.labels
    if rule is None:
        return []
    if rule.costs is not None:
        extra = f", '{ABSTAIN}' included" if rule.costs.shape[1] > len(rule.classes) else ""
        return [f"label: the decision with the smallest expected cost{extra}"]
    if rule.cuts is not None:
        cuts = zip(rule.classes[1:], rule.cuts.tolist(), strict=True)
        steps = [
            f"'{_clipped(name)}' never" if cut >= len(rule.classes) else f"'{_clipped(name)}' from {cut:.4g}"
            for name, cut in cuts
        ]
        return [f"label: the expected grade (Σ p · grade, from 0), {_listed(steps)}"]
    pairs = [
        (name, value) for name, value in zip(rule.classes, rule.thresholds.tolist(), strict=True) if value == value
    ]
    if rule.kind == "ratio":
        return [
            f"label: the largest probability / threshold, {_listed([f'{name} {value:.4g}' for name, value in pairs])}"
        ]
    return [f"label: '{_clipped(name)}' from a probability of {value:.4g} on" for name, value in pairs]


def guarantee_lines(decision: AnyDecision) -> list[str]:
    """Return what is guaranteed and what is only measured, one line per rule."""
    if isinstance(decision, LabelDecision):
        lines = label_guarantees(decision)
    elif isinstance(decision, NumberDecision):
        lines = number_guarantees(decision)
    else:
        lines = [record.guarantee for record in decision.records.values() if record.guarantee]
    basis = decision.source.basis
    return [*lines, _BASIS[basis]] if lines or basis in (SELECTED, STUDENT) else []


def optimism_warning(basis: str) -> str:
    """Return that rules are fitted to optimistic predictions, and why; "" if they are not.

    Parameters
    ----------
    basis : of their `DecisionSource`.
    """
    if basis not in (SELECTED, STUDENT):
        return ""
    return f"the rules and their scores are made of out-of-fold predictions that are optimistic: {_BASIS[basis]}"


def _listed(texts: list[str]) -> str:
    return ", ".join(texts[:8]) + (f", … ({len(texts)} in all)" if len(texts) > 8 else "")


def _clipped(text: str) -> str:
    return text if len(text) <= _MAX_NAME else f"{text[: _MAX_NAME - 1]}…"
