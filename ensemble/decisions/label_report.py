"""Show the fitted thresholds of several labels: what they are, and what they are worth on unseen people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ensemble.decisions.decision import Decision
from ensemble.decisions.label_decision import LabelDecision
from ensemble.decisions.record import DecisionSource, MeasuredValue
from ensemble.decisions.report import HEADER, fitted_to, guarantee_lines, measured_row, rule_lines
from ensemble.decisions.rows import IMAGE
from folds.metrics.intervals import Interval
from folds.metrics.label_scores import THRESHOLD
from folds.metrics.task_names import MULTILABEL
from folds.utils.display import Displayed, Table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class LabelThresholds(Displayed):
    """A threshold for each of several labels, and what these are worth.

    Attributes
    ----------
    labels : the labels, in the order of the columns.
    decisions : label → its rule, with its nested scores; without labels that keep a threshold of 0.5.
    totals : measure → nested value over all labels, and that of thresholds of 0.5.
    unit : ``image``, or ``person`` if they were fitted to the mean probabilities of each person's images.
    warnings : what limits the rules.
    confidence : with which guaranteed aims hold.
    lows : label → probability below which it is not given, and from which on it is unsure up to its threshold; {} if no
        label stays open.
    """

    labels: tuple[str, ...]
    decisions: Mapping[str, Decision]
    totals: Mapping[str, Interval]
    source: DecisionSource
    unit: str = IMAGE
    warnings: tuple[str, ...] = ()
    confidence: float = 0.9
    lows: Mapping[str, float] = field(default_factory=dict)

    @property
    def thresholds(self) -> dict[str, float]:
        """Return label → the probability above which (from which on, if it was fitted) the label is given."""
        return {name: _threshold(self.decisions[name]) if name in self.decisions else THRESHOLD for name in self.labels}

    @property
    def scores(self) -> dict[str, MeasuredValue]:
        """Return measure → its nested value with the interval over people."""
        found = {name: MeasuredValue(name, interval) for name, interval in self.totals.items()}
        for decision in self.decisions.values():
            for record in decision.records.values():
                found |= {score.measure: score for score in record.scores}
        return found

    @property
    def decision(self) -> LabelDecision:
        """Return the thresholds as decision rules, which predictions, exported models and servers apply."""
        records = {name: one.records["labels"] for name, one in self.decisions.items()}
        totals = tuple(MeasuredValue(name, interval) for name, interval in self.totals.items())
        values = tuple(self.thresholds[name] for name in self.labels)
        lows = tuple(self.lows.get(name, self.thresholds[name]) for name in self.labels) if self.lows else ()
        return LabelDecision(self.labels, values, self.unit, self.confidence, self.source, records, totals, lows)

    def apply(self, probabilities: ArrayLike) -> NDArray[np.bool_]:
        """Return (n, labels) whether each label is given, for probabilities (n, labels).

        Raises
        ------
        UsageError : another number of columns.
        """
        return self.decision.apply(probabilities).given

    def frame(self) -> pd.DataFrame:
        """Return one row per label: its threshold, and nested F1, sensitivity, specificity and precision."""
        import pandas as pd

        rows = []
        for name, threshold in self.thresholds.items():
            row: dict[str, Any] = {"label": name, "threshold": threshold}
            row |= {"unsure from": self.lows.get(name, threshold)} if self.lows else {}
            for record in self.decisions[name].records.values() if name in self.decisions else ():
                for score in record.scores:
                    if score.measure.endswith(f" of {name}"):
                        row[score.measure[: -len(f" of {name}")]] = score.interval.value
            rows.append(row)
        return pd.DataFrame(rows).set_index("label")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as ``ensemble decide --json`` prints them."""
        return {
            "task": MULTILABEL,
            "thresholds": self.thresholds,
            **({"unsure": dict(self.lows)} if self.lows else {}),
            "totals": {name: interval.to_dict() for name, interval in self.totals.items()},
            "labels": {name: decision.to_dict() for name, decision in self.decisions.items()},
            "warnings": list(self.warnings),
        }

    def display_table(self) -> Table:
        """Return the table to display: one row per nested score, and the thresholds below."""
        title = f"Thresholds of {self.source.kind} {self.source.name}".rstrip()
        title += f", fitted to {fitted_to(self.source, self.unit)}"
        notes = [*self.lines(), *(f"warning: {text}" for text in self.warnings)]
        return Table(title, HEADER, self.rows(), tuple(notes), left=1)

    def rows(self) -> list[list[object]]:
        """Return the rows of the table of nested scores, under `HEADER`: all labels together, then each."""
        found = [MeasuredValue(name, interval) for name, interval in self.totals.items()]
        for decision in self.decisions.values():
            found += [score for record in decision.records.values() for score in record.scores]
        return [measured_row(score) for score in found]

    def lines(self) -> list[str]:
        """Return the thresholds in words, and what is guaranteed."""
        return [*rule_lines(self.decision), *guarantee_lines(self.decision)]


def _threshold(decision: Decision) -> float:
    assert decision.labels is not None  # noqa: S101 - every decision of a label has a threshold
    return float(decision.labels.thresholds[1])
