"""Write the thresholds of several labels as plain values, and read them from a file that may come from a stranger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ensemble.decisions.abstention import NEVER
from ensemble.decisions.record import (
    FIT_AGAIN,
    MAX_CLASSES,
    RULE,
    SCHEMA,
    SHARE,
    TEXT_LINE,
    check_record,
    number_in,
    read_rule,
    read_scores,
    read_source,
    rule_fields,
)
from ensemble.decisions.rows import IMAGE, PERSON
from folds.errors import EnsembleError
from folds.metrics.label_scores import THRESHOLD
from folds.metrics.task_names import MULTILABEL
from folds.utils.schema import ANYTHING, integer, list_of, mapping_of, named, one_of, optional

# No field `classes`, which rules for classes have: a version that knows only those refuses the record.
_FIELDS = {
    "schema": integer(1, 10**6),
    "task": one_of(MULTILABEL),
    "labels": named(list_of(TEXT_LINE), "a list of labels"),
    "unit": one_of(IMAGE, PERSON),
    "confidence": SHARE,
    "source": mapping_of(ANYTHING),
    "thresholds": named(
        mapping_of(number_in(0, NEVER, open_low=True), TEXT_LINE), "a number above 0 and at most 1 for each label"
    ),
    # Above 1 of a label that is never given and never unsure.
    "unsure": optional(mapping_of(number_in(0, NEVER), TEXT_LINE)),
    "rules": mapping_of(mapping_of(ANYTHING), TEXT_LINE),
    "totals": list_of(mapping_of(ANYTHING)),
}


def to_label_record(decision: Any) -> dict[str, Any]:
    """Return the thresholds of several labels as plain values without None."""
    record = {
        "schema": SCHEMA,
        "task": MULTILABEL,
        "labels": list(decision.classes),
        "unit": decision.unit,
        "confidence": decision.confidence,
        "source": asdict(decision.source),
        "thresholds": dict(zip(decision.classes, decision.thresholds, strict=True)),
        "rules": {name: rule_fields(record) for name, record in decision.records.items()},
        "totals": [score.to_dict() for score in decision.totals],
    }
    # Only where there are two cuts: a version that knows one cut refuses the field.
    return record | ({"unsure": dict(zip(decision.classes, decision.lows, strict=True))} if decision.lows else {})


def read_label_record(record: Any, classes: Sequence[str] | None, source: str) -> dict[str, Any]:
    """Return the fields of the `LabelDecision` of a record.

    Parameters
    ----------
    classes : the labels of the model, in the order of its columns; None if unknown.

    Raises
    ------
    EnsembleError : see `ensemble.decisions.label_decision.LabelDecision.from_json`.
    """
    check_record(record, _FIELDS, source)
    names, thresholds, rules = tuple(record["labels"]), record["thresholds"], record["rules"]
    if not 1 <= len(names) <= MAX_CLASSES or len(set(names)) < len(names) or not all(names):
        raise EnsembleError(f"{source}: 'labels' must be one or more different names", hint=FIT_AGAIN)
    if classes is not None and tuple(classes) != names:
        raise EnsembleError(
            f"{source}: the thresholds are for the labels {', '.join(names[:10])}, the model has "
            f"{', '.join(list(classes)[:10])}",
            hint=FIT_AGAIN,
        )
    if set(thresholds) != set(names):
        raise EnsembleError(f"{source}: 'thresholds' must have one for each label, and no other", hint=FIT_AGAIN)
    if not set(rules) <= set(names):
        raise EnsembleError(f"{source}: 'rules' must be those of labels", hint=FIT_AGAIN)
    kept = next((name for name in names if name not in rules and thresholds[name] != THRESHOLD), None)
    if kept is not None:
        raise EnsembleError(
            f"{source}: '{kept}' has no rule, so its threshold must be {THRESHOLD:g}, found {thresholds[kept]:g}",
            hint=FIT_AGAIN,
        )
    lows = record.get("unsure")
    if lows is not None and (set(lows) != set(names) or any(lows[name] > thresholds[name] for name in names)):
        raise EnsembleError(f"{source}: 'unsure' must have a number up to its threshold for each label", hint=FIT_AGAIN)
    wrong = next((name for name in names if lows is None and thresholds[name] > 1), None)
    if wrong is not None:
        raise EnsembleError(
            f"{source}: the threshold of '{wrong}' must be above 0 and at most 1, found {thresholds[wrong]:g}",
            hint=FIT_AGAIN,
        )
    return {
        "classes": names,
        "thresholds": tuple(float(thresholds[name]) for name in names),
        "unit": record["unit"],
        "confidence": float(record["confidence"]),
        "source": read_source(record["source"], source),
        "records": {name: read_rule(rules[name], RULE, f"{source}: 'rules'") for name in names if name in rules},
        "totals": read_scores(record["totals"], f"{source}: 'totals'"),
        "lows": () if lows is None else tuple(float(lows[name]) for name in names),
    }
