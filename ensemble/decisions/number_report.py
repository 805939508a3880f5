"""Show the prediction intervals of numbers: how wide they are, and what they are worth on unseen people."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ensemble.decisions.number_decision import NumberDecision
from ensemble.decisions.record import DecisionSource, MeasuredValue
from ensemble.decisions.report import HEADER, fitted_to, guarantee_lines, measured_row, rule_lines
from folds.metrics.task_names import REGRESSION
from folds.utils.display import Displayed, Table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class NumberIntervals(Displayed):
    """Prediction intervals of numbers, and what these are worth.

    Attributes
    ----------
    decision : the intervals; `decision.apply` gives their ends for predicted numbers.
    warnings : what limits them.
    """

    decision: NumberDecision
    warnings: tuple[str, ...] = ()

    @property
    def limits(self) -> dict[str, float]:
        """Return number → half the width of its interval (`NumberDecision.limits`)."""
        return dict(zip(self.decision.classes, self.decision.limits, strict=True))

    @property
    def scores(self) -> dict[str, MeasuredValue]:
        """Return measure → its nested value with the interval over people."""
        return {score.measure: score for record in self.decision.records.values() for score in record.scores}

    @property
    def source(self) -> DecisionSource:
        """Return what the intervals were fitted to."""
        return self.decision.source

    @property
    def unit(self) -> str:
        """Return what a row is."""
        return self.decision.unit

    def frame(self) -> pd.DataFrame:
        """Return one row per number: its limit, and the nested coverage and width."""
        import pandas as pd

        rows = []
        for name, limit in self.limits.items():
            row: dict[str, Any] = {"number": name, "limit": limit}
            for measure in ("coverage", "width"):
                score = self.scores.get(f"{measure} of {name}")
                row[measure] = math.nan if score is None else score.interval.value
            rows.append(row)
        return pd.DataFrame(rows).set_index("number")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as ``ensemble decide --json`` prints them; an unbounded interval has the limit None."""
        return {
            "task": REGRESSION,
            "limits": {name: limit if math.isfinite(limit) else None for name, limit in self.limits.items()},
            "decision": self.decision.to_dict(),
            "warnings": list(self.warnings),
        }

    def display_table(self) -> Table:
        """Return the table to display: one row per nested score, and the intervals below."""
        title = f"Intervals of {self.source.kind} {self.source.name}".rstrip()
        title += f", fitted to {fitted_to(self.source, self.unit)}"
        notes = [*self.lines(), *(f"warning: {text}" for text in self.warnings)]
        return Table(title, HEADER, self.rows(), tuple(notes), left=1)

    def rows(self) -> list[list[object]]:
        """Return the rows of the table of nested scores, under `HEADER`."""
        return [measured_row(score) for score in self.scores.values()]

    def lines(self) -> list[str]:
        """Return the intervals in words, and what is guaranteed."""
        return [*rule_lines(self.decision), *guarantee_lines(self.decision)]
