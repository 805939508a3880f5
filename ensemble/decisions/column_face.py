"""Fit the decision rules that are asked for of several labels or numbers; numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ensemble.decisions.column_rows import ColumnRows
from ensemble.decisions.label_columns import check_column_rules, fit_thresholds, label_texts_of, parse_label_aims
from ensemble.decisions.label_report import LabelThresholds
from ensemble.decisions.number_intervals import fit_intervals, interval_request
from ensemble.decisions.number_report import NumberIntervals
from ensemble.decisions.record import DecisionSource
from folds.metrics.task_names import REGRESSION

_OF_NUMBERS = ("sets", "sets_for", "set_score", "max_width")


def check_columns(task: str, names: Sequence[str], rules: Mapping[str, Any], confidence: float) -> None:
    """Raise UsageError if rules that are asked for are not for the task, unknown, or contradict each other.

    Parameters
    ----------
    names : the labels or numbers.
    rules : parameters of `ensemble.decide`, by name.
    """
    check_column_rules(task, **{**rules, "confidence": confidence})
    if task == REGRESSION:
        interval_request(names, **{name: rules[name] for name in _OF_NUMBERS})
        return
    threshold = rules["threshold"]
    parse_label_aims([threshold] if isinstance(threshold, str) else list(threshold or ()), names)


def fit_columns(
    task: str,
    rows: ColumnRows,
    source: DecisionSource,
    rules: Mapping[str, Any],
    confidence: float,
    per_person: bool,
) -> LabelThresholds | NumberIntervals:
    """Return the rules of several labels, or the intervals of numbers, with their nested scores.

    Parameters
    ----------
    rules : parameters of `ensemble.decide`, by name.

    Raises
    ------
    UsageError : no rule is asked for, or one is wrong.
    """
    if task == REGRESSION:
        request = interval_request(rows.names, **{name: rules[name] for name in _OF_NUMBERS})
        return fit_intervals(rows, source, request, per_person)
    return fit_thresholds(rows, source, label_texts_of(rules["threshold"]), confidence, per_person)
