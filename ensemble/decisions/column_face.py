"""Fit the decision rules that are asked for of several labels or numbers; numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ensemble.decisions.column_rows import LabeledColumns
from ensemble.decisions.label_bands import fit_bands, read_label_costs
from ensemble.decisions.label_columns import check_column_rules, fit_thresholds, label_texts_of, parse_label_aims
from ensemble.decisions.label_report import LabelThresholds
from ensemble.decisions.labels import MACRO_F1
from ensemble.decisions.number_intervals import fit_intervals, interval_request
from ensemble.decisions.number_report import NumberIntervals
from ensemble.decisions.record import DecisionSource
from folds.errors import UsageError
from folds.metrics.task_names import REGRESSION

_OF_LABELS = ("threshold", "abstain", "cost_matrix")
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
    if any(rules[name] is not None for name in _OF_LABELS):
        _check_labels(names, rules)


def fit_columns(
    task: str,
    rows: LabeledColumns,
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
    _check_labels(rows.names, rules)
    if rules["abstain"] is not None:
        return fit_bands(rows, source, float(rules["abstain"]), None, confidence, per_person)
    if rules["cost_matrix"] is not None:
        costs = read_label_costs(rules["cost_matrix"], rows.names)
        return fit_bands(rows, source, None, costs, confidence, per_person)
    return fit_thresholds(rows, source, label_texts_of(rules["threshold"]), confidence, per_person)


def _check_labels(names: Sequence[str], rules: Mapping[str, Any]) -> None:
    """Raise UsageError unless there is one kind of rule for labels, and its values are right."""
    given = [name for name in _OF_LABELS if rules[name] is not None]
    if not given:
        raise UsageError(
            "expected a rule for each label: `threshold`, `abstain` or `cost_matrix`", hint=f"`threshold={MACRO_F1}`"
        )
    if len(given) > 1:
        raise UsageError(f"`{given[0]}` and `{given[1]}` both set the cuts of labels", hint="give one of them")
    limit = rules["abstain"]
    if limit is not None and not 0 < limit < 1:
        raise UsageError(f"`abstain` must be above 0 and below 1, found {limit!r}", hint="`abstain=0.1`")
    if rules["cost_matrix"] is not None:
        read_label_costs(rules["cost_matrix"], names)
    parse_label_aims(label_texts_of(rules["threshold"]), names)
