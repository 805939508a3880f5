"""Write decision rules as plain values, and read them from a file that may come from a stranger."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ensemble.decisions.abstention import NEVER
from ensemble.decisions.costs import ABSTAIN, MAX_COST
from ensemble.decisions.labels import STATUSES, LabelRule
from ensemble.decisions.rows import IMAGE, PERSON
from ensemble.decisions.sets import EACH_CLASS, EVERYTHING, SCORES, TARGETS, SetRule
from folds.errors import EnsembleError
from folds.metrics.intervals import Interval
from folds.utils.bounded import check_bounded
from folds.utils.schema import (
    ANYTHING,
    BOOL,
    NUMBER,
    ONE_LINE,
    FieldType,
    integer,
    list_of,
    mapping_of,
    named,
    one_of,
    optional,
    validate_fields,
)

SCHEMA = 1
MAX_CLASSES = 100_000
_MAX_TEXT = 2_000
_MAX_GUARANTEE = 100_000  # of labels: a sentence for each aim, and each class can have one
_MAX_VALUES = 2_000_000
FIT_AGAIN = "fit the rules again with ensemble decide"
KINDS = ("thresholds", "ratio", "costs", "rounder")


ONE_MODEL, CROSS_FITTED, SELECTED, UNKNOWN = "one model", "cross-fitted", "selected", "unknown"
STUDENT = "student"
BASES = (ONE_MODEL, CROSS_FITTED, SELECTED, STUDENT, UNKNOWN)
SHOWN, NOT_SHOWN, MISSED = "shown", "not shown", "missed"


@dataclass(frozen=True)
class MeasuredValue:
    """What a rule achieved on people who were not used to fit it.

    Attributes
    ----------
    measure : what was measured: ``sensitivity of sick``.
    interval : its value, with the 95% CI over people.
    target : the stated aim; None if this is no aim.
    at_least : whether the aim is reached from below (sensitivity) or from above (error).
    """

    measure: str
    interval: Interval
    target: float | None = None
    at_least: bool = True

    @property
    def verdict(self) -> str:
        """Return whether the interval shows that the aim is reached; "" without an aim."""
        if self.target is None:
            return ""
        low, high = (
            (self.interval.low, self.interval.high) if self.at_least else (-self.interval.high, -self.interval.low)
        )
        target = self.target if self.at_least else -self.target
        return SHOWN if low >= target - 1e-12 else MISSED if high < target - 1e-12 else NOT_SHOWN

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; unknown ends of the interval are left out."""
        ends = {"value": self.interval.value, "low": self.interval.low, "high": self.interval.high}
        record: dict[str, Any] = {"measure": self.measure, "people": self.interval.people}
        record |= {name: float(value) for name, value in ends.items() if math.isfinite(value)}
        if self.target is not None:
            record |= {"target": self.target, "at_least": self.at_least, "verdict": self.verdict}
        return record | ({"warning": self.interval.warning} if self.interval.warning else {})


@dataclass(frozen=True)
class RuleRecord:
    """How a rule was fitted, and what it is worth.

    Attributes
    ----------
    aims : what was asked for.
    status : how each aim was reached (`ensemble.decisions.labels.STATUSES`).
    guarantee : what is guaranteed, and what is only measured, in words.
    scores : nested scores over people.
    """

    aims: tuple[str, ...] = ()
    status: tuple[str, ...] = ()
    guarantee: str = ""
    scores: tuple[MeasuredValue, ...] = ()


@dataclass(frozen=True)
class DecisionSource:
    """The out-of-fold predictions that the rules were fitted to.

    Attributes
    ----------
    name, kind : the blend, the run or the arrays.
    sha : hash of the predictions and labels.
    people, images : their number.
    persons_known : False if every image counts as its own person, because persons are unknown.
    basis : `ONE_MODEL` that predicted all rows, `CROSS_FITTED` if each fold's model predicted its own,
        `SELECTED` if a model was selected by its score on these people, `STUDENT` if a model learned predictions of
        models that have seen these people, or `UNKNOWN`.
    """

    name: str = ""
    kind: str = "arrays"
    sha: str = ""
    people: int = 0
    images: int = 0
    basis: str = UNKNOWN
    persons_known: bool = True


def number_in(low: float, high: float, open_low: bool = False) -> FieldType:
    """Return the type of finite numbers from `low`, or above it, to `high`."""

    def holds(value: Any) -> bool:
        return NUMBER.holds(value) and (low < value if open_low else low <= value) and value <= high

    return FieldType(f"a number {'above' if open_low else 'from'} {low:g} to {high:g}", holds)


TEXT_LINE = FieldType("a line of text", lambda value: ONE_LINE.holds(value) and len(value) <= _MAX_TEXT)
SHARE = number_in(0, 1)
RULE = {
    "aims": list_of(TEXT_LINE),
    "status": list_of(one_of(*STATUSES)),
    "guarantee": TEXT_LINE,
    "scores": list_of(mapping_of(ANYTHING)),
}
_LABELS = RULE | {
    "kind": one_of(*KINDS),
    "guarantee": FieldType("a line of text", lambda value: ONE_LINE.holds(value) and len(value) <= _MAX_GUARANTEE),
    "thresholds": optional(mapping_of(number_in(0, 1, open_low=True), TEXT_LINE)),
    "costs": optional(mapping_of(mapping_of(number_in(0, MAX_COST), TEXT_LINE), TEXT_LINE)),
    "cuts": optional(list_of(number_in(0, MAX_CLASSES))),
}
_ABSTENTION = RULE | {"error": number_in(0, 1, open_low=True), "threshold": optional(SHARE)}
_SETS = RULE | {
    "level": number_in(0, 1, open_low=True),
    "target": one_of(*TARGETS),
    "score": one_of(*SCORES),
    "limits": list_of(number_in(0, EVERYTHING)),
}
_SCORE = {
    "measure": TEXT_LINE,
    "people": integer(0),
    **dict.fromkeys(("value", "low", "high", "target"), optional(NUMBER)),
    "at_least": optional(BOOL),
    "verdict": optional(TEXT_LINE),
    "warning": optional(TEXT_LINE),
}
_SOURCE = {
    "name": TEXT_LINE,
    "kind": TEXT_LINE,
    "sha": TEXT_LINE,
    "people": integer(0),
    "images": integer(0),
    "basis": one_of(*BASES),
    "persons_known": BOOL,
}
_FIELDS = {
    "schema": integer(1, 10**6),
    "classes": named(list_of(TEXT_LINE), "a list of class names"),
    "unit": one_of(IMAGE, PERSON),
    "abstain_label": TEXT_LINE,
    "confidence": SHARE,
    "source": mapping_of(ANYTHING),
    "labels": optional(mapping_of(ANYTHING)),
    "abstention": optional(mapping_of(ANYTHING)),
    "sets": optional(mapping_of(ANYTHING)),
}


def to_record(decision: Any) -> dict[str, Any]:
    """Return a decision as plain values without None."""
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "classes": list(decision.classes),
        "unit": decision.unit,
        "abstain_label": decision.abstain_label,
        "confidence": decision.confidence,
        "source": asdict(decision.source),
    }
    if decision.labels is not None:
        record["labels"] = _label_record(decision.labels) | _rule_record(decision, "labels")
    if decision.error is not None:
        answered = {} if decision.answers_nothing else {"threshold": decision.threshold}
        record["abstention"] = {"error": decision.error} | answered | _rule_record(decision, "abstention")
    if decision.sets is not None:
        rule = decision.sets
        found = {"level": rule.level, "target": rule.target, "score": rule.score, "limits": list(rule.limits)}
        record["sets"] = found | _rule_record(decision, "sets")
    return record


def _label_record(rule: LabelRule) -> dict[str, Any]:
    if rule.costs is not None:
        decisions = [*rule.classes, ABSTAIN][: rule.costs.shape[1]]
        rows = [dict(zip(decisions, row, strict=True)) for row in rule.costs.tolist()]
        return {"kind": rule.kind, "costs": dict(zip(rule.classes, rows, strict=True))}
    if rule.cuts is not None:
        return {"kind": rule.kind, "cuts": rule.cuts.tolist()}
    found = {
        name: value for name, value in zip(rule.classes, rule.thresholds.tolist(), strict=True) if not math.isnan(value)
    }
    return {"kind": rule.kind, "thresholds": found}


def _rule_record(decision: Any, name: str) -> dict[str, Any]:
    return rule_fields(decision.records.get(name, RuleRecord()))


def rule_fields(record: RuleRecord) -> dict[str, Any]:
    """Return the fields `RULE` of how a rule was fitted and what it is worth; `read_rule` reads them."""
    return {
        "aims": list(record.aims),
        "status": list(record.status),
        "guarantee": record.guarantee,
        "scores": [score.to_dict() for score in record.scores],
    }


def read_record(record: Any, classes: Sequence[str] | None, source: str) -> dict[str, Any]:
    """Return the fields of the `Decision` of a record; see `ensemble.decisions.decision.Decision.from_json`."""
    check_record(record, _FIELDS, source)
    names = tuple(record["classes"])
    if not 2 <= len(names) <= MAX_CLASSES or len(set(names)) < len(names) or not all(names):
        raise EnsembleError(f"{source}: 'classes' must be two or more different names", hint=FIT_AGAIN)
    if classes is not None and tuple(classes) != names:
        raise EnsembleError(
            f"{source}: the rules are for the classes {', '.join(names[:10])}, the model has "
            f"{', '.join(list(classes)[:10])}",
            hint=FIT_AGAIN,
        )
    if record["abstain_label"] in names or not record["abstain_label"].strip():
        raise EnsembleError(f"{source}: 'abstain_label' must not be a class or empty", hint=FIT_AGAIN)
    parts = {name: record[name] for name in ("labels", "abstention", "sets") if record.get(name) is not None}
    tables = {"labels": _LABELS, "abstention": _ABSTENTION, "sets": _SETS}
    records = {name: read_rule(part, tables[name], f"{source}: '{name}'") for name, part in parts.items()}
    abstention = parts.get("abstention")
    threshold = limit = None
    if abstention is not None:
        limit, threshold = float(abstention["error"]), _or_default(abstention.get("threshold"), NEVER)
    return {
        "classes": names,
        "unit": record["unit"],
        "labels": _labels_of(parts["labels"], names, f"{source}: 'labels'") if "labels" in parts else None,
        "threshold": threshold,
        "error": limit,
        "sets": _sets_of(parts["sets"], names, f"{source}: 'sets'") if "sets" in parts else None,
        "confidence": float(record["confidence"]),
        "source": read_source(record["source"], source),
        "records": records,
        "abstain_label": record["abstain_label"],
    }


def check_record(record: Any, table: Mapping[str, FieldType], source: str) -> None:
    """Raise EnsembleError unless a record is of bounded size, of a schema known here, and has exactly these fields."""
    try:
        check_bounded(record, values=_MAX_VALUES)
    except ValueError as error:
        raise EnsembleError(f"{source}: {error}", hint=FIT_AGAIN) from None
    if isinstance(record, Mapping) and type(record.get("schema")) is int and record["schema"] > SCHEMA:
        raise EnsembleError(
            f"{source} has schema {record['schema']}, this version reads {SCHEMA}", hint="install a newer version"
        )
    check_fields(record, table, source)


def check_fields(record: Any, table: Mapping[str, FieldType], source: str) -> None:
    """Raise EnsembleError unless a record has exactly these fields, each of its type."""
    problems = validate_fields(record, table, others=False)
    if problems:
        raise EnsembleError(f"{source}: {problems[0]}", hint=FIT_AGAIN, details=problems[1:6])


def read_rule(record: Any, table: Mapping[str, FieldType], source: str) -> RuleRecord:
    """Return how a rule was fitted and what it is worth; the fields of `table` are those of `RULE`, and others."""
    check_fields(record, table, source)
    return RuleRecord(
        tuple(record["aims"]), tuple(record["status"]), record["guarantee"], read_scores(record["scores"], source)
    )


def read_scores(records: Sequence[Any], source: str) -> tuple[MeasuredValue, ...]:
    """Return measured values from their plain values."""
    scores = []
    for one in records:
        check_fields(one, _SCORE, f"{source}: 'scores'")
        value, low, high = (_or_default(one.get(name), math.nan) for name in ("value", "low", "high"))
        interval = Interval(value, low, high, people=one["people"], warning=one.get("warning") or "")
        target = one.get("target")
        scores.append(
            MeasuredValue(
                one["measure"], interval, None if target is None else float(target), one.get("at_least") is not False
            )
        )
    return tuple(scores)


def read_source(record: Any, source: str) -> DecisionSource:
    """Return what rules were fitted to from its plain values."""
    check_fields(record, _SOURCE, f"{source}: 'source'")
    return DecisionSource(**record)


def _or_default(value: float | None, default: float) -> float:
    return default if value is None else float(value)


def _labels_of(record: Mapping[str, Any], classes: tuple[str, ...], source: str) -> LabelRule:
    thresholds, costs, kind = record.get("thresholds"), record.get("costs"), record["kind"]
    if (kind == "rounder") != (record.get("cuts") is not None):
        raise EnsembleError(f"{source}: expected 'cuts' for the kind rounder, and for no other", hint=FIT_AGAIN)
    if kind == "rounder":
        cuts = np.array(record["cuts"], np.float64)
        if (thresholds, costs) != (None, None) or len(cuts) != len(classes) - 1 or (np.diff(cuts) < 0).any():
            raise EnsembleError(
                f"{source}: 'cuts' must be {len(classes) - 1} ascending numbers, and stand alone", hint=FIT_AGAIN
            )
        return LabelRule(kind, classes, np.full(len(classes), np.nan), cuts=cuts)
    if (costs is None) == (thresholds is None) or (kind == "costs") != (costs is not None):
        raise EnsembleError(f"{source}: expected 'costs' for the kind costs, else 'thresholds'", hint=FIT_AGAIN)
    values = np.full(len(classes), np.nan)
    if thresholds is not None:
        position = {name: column for column, name in enumerate(classes)}
        unknown = [name for name in thresholds if name not in position]
        if unknown or not thresholds or (kind == "ratio" and len(thresholds) < len(classes)):
            raise EnsembleError(f"{source}: 'thresholds' must be classes, and for the kind ratio all", hint=FIT_AGAIN)
        for name, value in thresholds.items():
            values[position[name]] = value
        return LabelRule(kind, classes, values)
    costs = costs or {}
    first = list(next(iter(costs.values()), ()))
    decisions = [*classes, ABSTAIN][: len(first)]
    if set(costs) != set(classes) or any(set(row) != set(decisions) for row in costs.values()):
        raise EnsembleError(f"{source}: 'costs' must have a cost of every decision for every class", hint=FIT_AGAIN)
    if len(decisions) < len(classes):
        raise EnsembleError(f"{source}: 'costs' must have a cost of every decision for every class", hint=FIT_AGAIN)
    matrix = np.array([[float(costs[true][decided]) for decided in decisions] for true in classes])
    return LabelRule(kind, classes, values, matrix)


def _sets_of(record: Mapping[str, Any], classes: tuple[str, ...], source: str) -> SetRule:
    limits, level = tuple(map(float, record["limits"])), float(record["level"])
    expected = len(classes) if record["target"] == EACH_CLASS else 1
    if len(limits) != expected or level >= 1:
        raise EnsembleError(f"{source}: expected {expected} limits, and a level below 1", hint=FIT_AGAIN)
    return SetRule(level, record["target"], record["score"], limits)
