"""Read the costs of decisions, and check whether probabilities are calibrated, which expected costs need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.decisions.rows import LabeledRows, share_interval, sums_by_person
from folds.errors import EnsembleError, UsageError
from folds.metrics.calibration import classwise_calibration_error
from folds.metrics.intervals import LEVEL, Interval
from folds.utils.bounded import read_bounded
from folds.utils.csv_table import parse_bytes
from folds.utils.schema import NUMBER, mapping_of, shown
from folds.utils.toml import parse_toml

ABSTAIN = "abstain"
MAX_COST = 1e9
_MAX_BYTES = 64 << 20
_FORM = mapping_of(mapping_of(NUMBER))


def read_costs(costs: str | Path | Mapping[str, Mapping[str, float]], classes: Sequence[str]) -> NDArray[np.float64]:
    """Return (classes, classes) the cost of each decision (column) by true class (row).

    A further column holds the cost of no answer, if the costs have a decision ``abstain`` and no class has this name.

    Parameters
    ----------
    costs : a CSV whose first column names the true class and whose other columns are decisions; a TOML file with a
        table per true class (``[sick]``, ``healthy = 10``); or a mapping true class → decision → cost. A right
        decision may be left out of the last two; it costs 0.

    Raises
    ------
    EnsembleError : the file cannot be read, a class is unknown or missing, or a cost is not a number from 0 on.
    """
    source = source_of_costs(costs)
    table = read_cost_table(costs, "true class → decision → number")
    decisions = [
        *classes,
        *([ABSTAIN] if ABSTAIN not in classes and any(ABSTAIN in row for row in table.values()) else []),
    ]
    unknown = [name for name in table if name not in classes]
    unknown += [name for row in table.values() for name in row if name not in decisions]
    if unknown:
        raise EnsembleError(
            f"{source}: '{unknown[0]}' is not a class", hint=f"the classes are {', '.join(list(classes)[:20])}"
        )
    result = np.zeros((len(classes), len(decisions)))
    for i, true in enumerate(classes):
        for j, decided in enumerate(decisions):
            value = table.get(true, {}).get(decided, 0.0 if true == decided else None)
            if value is None:
                raise EnsembleError(f"{source}: the cost of deciding '{decided}' for '{true}' is missing")
            if not 0 <= value <= MAX_COST:
                raise EnsembleError(
                    f"{source}: the cost of deciding '{decided}' for '{true}' is {value:g}, expected 0 to {MAX_COST:g}"
                )
            result[i, j] = value
    if not result.any():
        raise EnsembleError(f"{source}: every decision costs 0", hint="wrong decisions need a cost")
    return result


def source_of_costs(costs: str | Path | Mapping[str, Any]) -> str:
    """Return where costs are from, for errors."""
    return "`cost_matrix`" if isinstance(costs, Mapping) else f"`cost_matrix={costs}`"


def read_cost_table(
    costs: str | Path | Mapping[str, Mapping[str, float]], expected: str
) -> Mapping[str, Mapping[str, float]]:
    """Return row → column → number of a CSV, a TOML file or a mapping.

    Parameters
    ----------
    expected : what rows and columns are, for the error.

    Raises
    ------
    EnsembleError : the file cannot be read, or a cell is not a number.
    """
    source = source_of_costs(costs)
    table = costs if isinstance(costs, Mapping) else _read(Path(costs), source)
    if not _FORM.holds(table):
        raise UsageError(f"{source}: expected {expected}, found {shown(table)}")
    return table


def _read(path: Path, source: str) -> Mapping[str, Any]:
    try:
        content = read_bounded(path, _MAX_BYTES)
        if path.suffix == ".toml":
            return parse_toml(content.decode("utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise EnsembleError(f"{source} cannot be read: {reason}") from None
    columns = parse_bytes(str(path), content, path).columns
    first, *decisions = columns
    if len(set(columns[first])) < len(columns[first]):
        raise EnsembleError(f"{source}: column '{first}' repeats a class", hint="use one row per true class")
    table: dict[str, dict[str, float]] = {}
    for row, true in enumerate(columns[first]):
        table[true] = {}
        for name in decisions:
            try:
                table[true][name] = float(columns[name][row])
            except ValueError:
                raise EnsembleError(
                    f"{source}: the cost of deciding '{name}' for '{true}' is '{columns[name][row]}', expected a number"
                ) from None
    return table


def calibration_gap(rows: LabeledRows) -> tuple[float, str, Interval]:
    """Return the calibration error, and the class whose mean probability differs most from its frequency.

    Returns
    -------
    The classwise calibration error (equal-mass bins), the class, and the difference of its mean probability and its
    frequency, each the mean over people, with an interval that is corrected for the number of classes.
    """
    error = classwise_calibration_error(rows.labels, rows.probabilities, equal_mass=True)
    level = 1 - (1 - LEVEL) / len(rows.classes)
    found: list[tuple[str, Interval]] = []
    for column, name in enumerate(rows.classes):
        gap = (rows.probabilities[:, column] - (rows.labels == column)) * rows.weights
        found.append((name, _gap_interval(gap, rows, level)))
    # The class whose interval is farthest from 0, else the largest difference.
    name, gap_interval = max(found, key=lambda one: (max(one[1].low, -one[1].high), abs(one[1].value)))
    return error, name, gap_interval


def confidence_gap(rows: LabeledRows) -> Interval:
    """Return mean confidence minus accuracy over people: above 0 if the probabilities are overconfident."""
    top = rows.probabilities.max(axis=1) - (rows.probabilities.argmax(axis=1) == rows.labels)
    return _gap_interval(top * rows.weights, rows, LEVEL)


def _gap_interval(gap: NDArray[np.float64], rows: LabeledRows, level: float) -> Interval:
    """Return the mean over people of gaps from −1 to 1, which are mapped to 0…1 for the interval of a share."""
    share = (sums_by_person(gap, rows.persons, rows.people) + 1) / 2
    inside = share_interval(share, np.ones(rows.people), level)
    value, low, high = (2 * end - 1 for end in (inside.value, inside.low, inside.high))
    return Interval(value, low, high, level, inside.people, inside.warning)


def calibration_warning(rows: LabeledRows) -> str:
    """Return a warning if probabilities are not calibrated beyond what other people could explain; empty otherwise."""
    error, name, gap = calibration_gap(rows)
    confidence = confidence_gap(rows)
    mend = "ensemble blend --calibrate after:vector calibrates them"
    if confidence.low > 0 or confidence.high < 0:
        word = "overconfident" if confidence.value > 0 else "underconfident"
        return (
            f"the probabilities are {word}: mean confidence minus accuracy is {confidence.signed_text()} over people, "
            f"calibration error {error:.3f}; expected costs need calibrated probabilities ({mend})"
        )
    if gap.low > 0 or gap.high < 0:
        return (
            f"the mean probability of '{name}' differs from its frequency by {gap.signed_text()} over people, "
            f"calibration error {error:.3f}; expected costs need calibrated probabilities ({mend})"
        )
    return ""
