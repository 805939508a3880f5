"""Show what ways to predict score and cost: as text, as plain values, and as a CSV."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from folds.metrics.intervals import Difference, Interval
from folds.utils.csv_table import csv_bytes
from folds.utils.display import Displayed, Table

ROWS = ("best fold", "k folds", "+ TTA", "full blend", "cascade", "refit", "student", "soup")


@dataclass(frozen=True)
class CostRow:
    """One way to predict.

    Attributes
    ----------
    name : one of `ROWS`; `what` names the run, fold or setting.
    score : out-of-fold score, nested where anything was fitted; of a refit, that of the procedure.
    difference : minus the full blend, paired over people.
    test : score of the test images, if their labels are known.
    passes : forward passes per image.
    seconds : per image on this machine, without the start.
    megabytes : size of the checkpoints.
    memory : peak memory of a process that predicts, in megabytes.
    missing : how to get it, if it does not exist.
    warning : why the score is optimistic; "" if it is not known to be.
    """

    name: str
    what: str = ""
    score: Interval | None = None
    difference: Difference | None = None
    test: Interval | None = None
    passes: float | None = None
    seconds: float | None = None
    megabytes: float | None = None
    memory: float | None = None
    missing: str = ""
    warning: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        plain = {
            name: getattr(self, name)
            for name in ("name", "what", "passes", "seconds", "megabytes", "memory", "missing", "warning")
        }
        found = {
            name: None if (value := getattr(self, name)) is None else value.to_dict()
            for name in ("score", "difference", "test")
        }
        return plain | found


@dataclass(frozen=True, eq=False, repr=False)
class CostTable(Displayed):
    """What a blend and its parts score and cost."""

    what: str
    metric: str
    rows: tuple[CostRow, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as ``ensemble costs --json`` prints them."""
        rows = [row.to_dict() for row in self.rows]
        return {"blend": self.what, "metric": self.metric, "rows": rows, "notes": list(self.notes)}

    def csv(self) -> bytes:
        """Return the table as a CSV with a column for every number."""
        columns: dict[str, list[str]] = {}
        for row in self.rows:
            score, change, test = row.score, row.difference, row.test
            cells: dict[str, Any] = {"row": row.name, "what": row.what}
            cells |= dict(zip(("score", "low", "high"), _ends(score), strict=True))
            cells |= dict(
                zip(
                    ("difference", "difference_low", "difference_high"),
                    _ends(None if change is None else change.difference),
                    strict=True,
                )
            )
            cells["p_value"] = None if change is None else change.p_value
            cells |= dict(zip(("test", "test_low", "test_high"), _ends(test), strict=True))
            cells |= {"passes": row.passes, "seconds": row.seconds, "megabytes": row.megabytes}
            cells |= {"memory_megabytes": row.memory, "missing": row.missing, "warning": row.warning}
            for name, value in cells.items():
                text = "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
                columns.setdefault(name, []).append(text)
        return bytes(csv_bytes(columns))

    def display_table(self) -> Table:
        """Return the table to display, in at most 100 columns."""
        header = ["", "OOF [95% CI]", "minus full blend", "test", "passes", "ms/image", "MB", "peak MB"]
        rows: list[list[object]] = []
        notes = [f"{row.name}: {row.what}" for row in self.rows if row.what]
        for row in self.rows:
            cells = [
                "–" if row.score is None else row.score.text(),
                "–" if row.difference is None else row.difference.difference.signed_text(),
                "–" if row.test is None else f"{row.test.value:.3f}",
                "–" if row.passes is None else f"{row.passes:.1f}",
                "–" if row.seconds is None else f"{1000 * row.seconds:.1f}",
                "–" if row.megabytes is None else f"{row.megabytes:.1f}",
                "–" if row.memory is None else f"{row.memory:.0f}",
            ]
            rows.append([row.name, *cells])
            notes += [f"{row.name}: {row.missing}"] if row.missing else []
            notes += [f"{row.name}: warning: {row.warning}"] if row.warning else []
        return Table(f"{self.what}: {self.metric}", header, rows, (*notes, *self.notes), left=1)


def _ends(found: Interval | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if found is None else (found.value, found.low, found.high)
