"""Fit a threshold for each of several labels, and say what it is worth on unseen people; numpy only.

Each label is a decision of two classes, with and without it, on the rows where it is known: its aims, fits, guarantees
and nested scores are those of two classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.decisions.column_rows import LabeledColumns
from ensemble.decisions.decision import ABSTAIN_LABEL, Decision
from ensemble.decisions.fit import RuleRequest, fit_rules, nested_decisions
from ensemble.decisions.label_decision import LabelDecision
from ensemble.decisions.label_report import LabelThresholds
from ensemble.decisions.labels import (
    F1,
    GIVEN,
    MACRO_F1,
    NO_PROMISE,
    OBSERVED,
    UNREACHABLE,
    YOUDEN,
    Aim,
    LabelRule,
    fit_labels,
    missing_evidence,
    parse_aims,
)
from ensemble.decisions.record import DecisionSource, MeasuredValue, RuleRecord
from ensemble.decisions.report import optimism_warning
from ensemble.decisions.rows import IMAGE, PERSON, LabeledRows
from ensemble.decisions.scores import records_of
from ensemble.decisions.sets import ANY_IMAGE, LAC
from folds.errors import UsageError
from folds.metrics.intervals import Interval, interval_over_people
from folds.metrics.label_scores import THRESHOLD, is_predicted
from folds.metrics.scored_units import known_rows
from folds.metrics.task_names import MULTILABEL, REGRESSION, require_classes
from folds.metrics.tasks import metric_for_task
from folds.utils.numeric import factorize

PLAIN = THRESHOLD  # of a label without an aim
MIN_PEOPLE = 2  # with and without a label; with fewer, its threshold stays
_WHOLE = (MACRO_F1, F1, YOUDEN)  # aims that may be those of all labels
# What tasks of columns have, and what is named instead of what they do not have.
_OFFERED = {
    MULTILABEL: (
        ("threshold", "abstain", "cost_matrix"),
        f"`threshold={MACRO_F1}` fits a threshold for each label",
    ),
    REGRESSION: (
        ("sets", "sets_for", "set_score", "max_width"),
        "`sets=0.9` fits intervals of numbers; `metric=within:error=5` is the share of predictions at most 5 away",
    ),
}
_UNSET = {"sets_for": ANY_IMAGE, "set_score": LAC, "abstain_label": ABSTAIN_LABEL}  # else None


def check_column_rules(task: str, confidence: float = 0.9, **of_classes: Any) -> None:
    """Raise UsageError if decision rules do not support a task of labels or numbers, or a value is out of range.

    Parameters
    ----------
    task : one of `COLUMN_TASKS`.
    of_classes : the parameters of `ensemble.decide` that are for classes.
    """
    allowed, hint = _OFFERED[task]
    for name, value in of_classes.items():
        if name not in allowed and value != _UNSET.get(name):
            require_classes(task, f"`{name}`", hint)
    if not 0 <= confidence < 1:
        raise UsageError(f"`confidence` must be from 0 to below 1, found {confidence!r}", hint="`confidence=0.9`")


def label_texts_of(threshold: str | Sequence[str] | None) -> list[str]:
    """Return the texts of `threshold`."""
    return [threshold] if isinstance(threshold, str) else list(threshold or ())


def parse_label_aims(texts: Sequence[str], names: Sequence[str]) -> dict[str, Aim]:
    """Return label → aim.

    Parameters
    ----------
    texts : ``macro_f1`` (or ``f1``) or ``youden`` for all labels; ``LABEL=.3``, ``LABEL:sensitivity>=.95``,
        ``LABEL:f1``, ``LABEL:youden`` … for one.

    Raises
    ------
    UsageError : another form, an unknown label, or several aims of one label.
    """
    whole = [text for text in map(str.strip, texts) if text in _WHOLE and text not in names]
    if whole and len(texts) > 1:
        raise UsageError(
            f"`threshold={whole[0]}` sets the thresholds of all labels", hint="remove the other thresholds"
        )
    if whole:
        return {name: Aim(YOUDEN if whole[0] == YOUDEN else F1, name) for name in names}
    aims = parse_aims(texts, tuple(names))
    wrong = next((aim for aim in aims if not aim.name), None)
    if wrong is not None:
        raise UsageError(
            f"`threshold={wrong}` is for classes that exclude each other",
            hint=f"`threshold={MACRO_F1}`, or `threshold={names[0]}:sensitivity>=.9`",
        )
    return {aim.name: aim for aim in aims}


def fit_thresholds(
    rows: LabeledColumns,
    source: DecisionSource,
    texts: Sequence[str],
    confidence: float = 0.9,
    per_person: bool = False,
) -> LabelThresholds:
    """Return the thresholds fitted to aims, with their nested scores.

    Parameters
    ----------
    texts : see `parse_label_aims`.
    confidence : with which a guaranteed aim holds; 0 fits to observed values.
    """
    aims = parse_label_aims(texts, rows.names)
    decided = is_predicted(rows.values).astype(np.float64)
    plain = decided.copy()
    decisions: dict[str, Decision] = {}
    warnings: list[str] = []
    unit = PERSON if per_person else IMAGE
    for column, name in enumerate(rows.names):
        if name not in aims:
            continue
        one = rows.of_label(column)
        few = any(len(np.unique(one.persons[one.labels == value])) < MIN_PEOPLE for value in (0, 1))
        if few and aims[name].kind != GIVEN:
            warnings.append(f"fewer than {MIN_PEOPLE} people have or lack {name}: its threshold stays {PLAIN:g}")
            continue
        rule, record, unseen, doubts = (_given_rule if few else _fitted_rule)(one, name, aims[name], confidence)
        decided[~np.isnan(rows.labels[:, column]), column] = unseen
        decisions[name] = Decision(
            one.classes, unit, rule, confidence=confidence, source=source, records={"labels": record}
        )
        warnings += doubts
    if not source.persons_known:
        warnings.append("persons are unknown: every image counts as its own person, and the 95% CIs may be too narrow")
    if decisions:
        warnings += [text for text in (optimism_warning(source.basis),) if text]
    return LabelThresholds(
        rows.names,
        decisions,
        _totals(rows, decided, plain),
        source,
        unit,
        tuple(warnings),
        confidence,
    )


_Rule = tuple[LabelRule | None, RuleRecord, NDArray[np.int64], list[str]]


def _fitted_rule(one: LabeledRows, name: str, aim: Aim, confidence: float) -> _Rule:
    """Return the threshold of a label, what it is worth, the decisions for unseen people (n,), and what limits it."""
    request = RuleRequest((aim,), confidence=confidence)
    unseen, _ = nested_decisions(one, request)
    rules = fit_rules(one, request)
    record = _record(one, name, records_of(one, request, rules, unseen)["labels"], unseen.decided)
    return rules.labels, record, unseen.decided, _doubts(one, aim, rules.statuses[0], request.error)


def _given_rule(one: LabeledRows, name: str, aim: Aim, confidence: float) -> _Rule:
    """Return a given threshold, as `_fitted_rule` does; too few people have or lack the label to score it."""
    rule = fit_labels(one, (aim,), 0)[0]
    doubt = f"fewer than {MIN_PEOPLE} people have or lack {name}: its threshold has no score"
    return rule, RuleRecord((str(aim),), (NO_PROMISE,)), rule.decide(one.probabilities), [doubt]


def given_thresholds(names: Sequence[str], texts: Sequence[str], per_person: bool = False) -> LabelDecision | None:
    """Return thresholds that are given as numbers, of which no score is known; None if one would have to be fitted.

    Parameters
    ----------
    texts : see `parse_label_aims`.

    Raises
    ------
    UsageError : see `parse_label_aims`.
    """
    aims = parse_label_aims(texts, names)
    if any(aim.kind != GIVEN for aim in aims.values()):
        return None
    return LabelDecision(
        tuple(names),
        tuple(aims[name].value if name in aims else PLAIN for name in names),
        PERSON if per_person else IMAGE,
        confidence=0.0,
        records={name: RuleRecord((str(aim),), (NO_PROMISE,)) for name, aim in aims.items()},
    )


def measured_labels(
    given: NDArray[np.bool_],
    probabilities: NDArray[np.floating],
    labels: NDArray[np.float64],
    persons: NDArray[np.str_],
    names: Sequence[str],
) -> list[MeasuredValue]:
    """Return F1 over all labels, and of each, of decisions for rows that the thresholds were not fitted to.

    Parameters
    ----------
    given : (n, labels) whether each label is given.
    probabilities : (n, labels), for the scores of thresholds of 0.5.
    labels : (n, labels) 0, 1, or nan if unknown; rows of which none is known do not count.
    persons : (n,) the person of each row.
    names : the labels.

    Returns
    -------
    Measured values with intervals over people; [] if no label is known. A label that is nowhere known has none.
    """
    known = np.flatnonzero(known_rows(labels))
    if not len(known):
        return []
    codes = factorize(persons[known])[1]
    values, ids = np.asarray(probabilities, np.float64)[known], np.arange(len(known)).astype(str)
    rows = LabeledColumns(values, labels[known], codes, codes, ids, tuple(names))
    decided = given[known].astype(np.float64)
    totals = _totals(rows, decided, is_predicted(values).astype(np.float64))
    found = [MeasuredValue(name, interval) for name, interval in totals.items()]
    for column, name in enumerate(names):
        inside = np.flatnonzero(~np.isnan(rows.labels[:, column]))
        if len(inside):
            interval = _f1(rows.of_label(column), decided[inside, column].astype(np.int64))
            found.append(MeasuredValue(f"F1 of {name}", interval))
    return found


def _record(one: LabeledRows, name: str, record: RuleRecord, decided: NDArray[np.int64]) -> RuleRecord:
    """Return the record of a label with its F1 in the place of scores over both classes."""
    scores = [score for score in record.scores if score.measure.endswith(f" of {name}")]
    for measure, values in ((f"F1 of {name}", decided), (f"F1 at 0.5 of {name}", _plain(one))):
        scores.append(MeasuredValue(measure, _f1(one, values)))
    return replace(record, scores=tuple(scores))


def _f1(one: LabeledRows, decided: NDArray[np.int64]) -> Interval:
    return interval_over_people(
        metric_for_task("f_beta", "binary"), one.labels, np.eye(2)[decided], one.persons, predicted=decided
    )


def _plain(one: LabeledRows) -> NDArray[np.int64]:
    return is_predicted(one.probabilities[:, 1]).astype(np.int64)


def _totals(rows: LabeledColumns, decided: NDArray[np.float64], plain: NDArray[np.float64]) -> dict[str, Interval]:
    """Return the mean F1 of the labels and F1 of all cells, nested, and with thresholds of 0.5."""
    found = {}
    for name in ("macro_f1", "micro_f1"):
        metric = metric_for_task(name, MULTILABEL)
        found[metric.title] = interval_over_people(metric, rows.labels, decided, rows.persons)
        found[f"{metric.title} at 0.5"] = interval_over_people(metric, rows.labels, plain, rows.persons)
    return found


def _doubts(one: LabeledRows, aim: Aim, status: str, error: float) -> list[str]:
    if status == UNREACHABLE:
        return [f"{aim} is not reachable with any threshold; the nearest one was taken"]
    if status == OBSERVED and error > 0:
        return [f"{aim} is not guaranteed: {missing_evidence(one, aim, error)}"]
    return []
