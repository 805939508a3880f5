"""Write the intervals of numbers as plain values, and read them from a file that may come from a stranger."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ensemble.decisions.record import (
    FIT_AGAIN,
    MAX_CLASSES,
    RULE,
    SCHEMA,
    TEXT_LINE,
    check_record,
    number_in,
    read_rule,
    read_source,
    rule_fields,
)
from ensemble.decisions.rows import IMAGE, PERSON
from ensemble.decisions.sets import ALL_IMAGES, ANY_IMAGE
from folds.errors import EnsembleError
from folds.metrics.task_names import REGRESSION
from folds.utils.schema import ANYTHING, integer, list_of, mapping_of, named, one_of, optional

_LARGEST = 1e300
_WIDTHS = named(mapping_of(number_in(0, _LARGEST), TEXT_LINE), "numbers from 0, by the name of the number")
# The field `task` and no field `classes`: a version that knows only classes and labels refuses the record.
_FIELDS = {
    "schema": integer(1, 10**6),
    "task": one_of(REGRESSION),
    "numbers": named(list_of(TEXT_LINE), "a list of names"),
    "unit": one_of(IMAGE, PERSON),
    "source": mapping_of(ANYTHING),
    "level": number_in(0, 1, open_low=True),
    "target": one_of(ANY_IMAGE, ALL_IMAGES),
    "score": one_of("absolute", "spread"),
    "limits": _WIDTHS,
    "floors": optional(_WIDTHS),
    "max_widths": optional(_WIDTHS),
    "rules": mapping_of(mapping_of(ANYTHING), TEXT_LINE),
}


def to_number_record(decision: Any) -> dict[str, Any]:
    """Return the intervals of numbers as plain values without None; an unbounded interval has no limit."""
    names = decision.classes
    record = {
        "schema": SCHEMA,
        "task": REGRESSION,
        "numbers": list(names),
        "unit": decision.unit,
        "source": asdict(decision.source),
        "level": decision.level,
        "target": decision.target,
        "score": decision.score,
        "limits": {name: limit for name, limit in zip(names, decision.limits, strict=True) if math.isfinite(limit)},
        "rules": {name: rule_fields(one) for name, one in decision.records.items()},
    }
    if decision.floors:
        record["floors"] = dict(zip(names, decision.floors, strict=True))
    if decision.max_widths:
        pairs = zip(names, decision.max_widths, strict=True)
        record["max_widths"] = {name: width for name, width in pairs if not math.isnan(width)}
    return record


def read_number_record(record: Any, classes: Sequence[str] | None, source: str) -> dict[str, Any]:
    """Return the fields of the `NumberDecision` of a record.

    Parameters
    ----------
    classes : the numbers of the model, in the order of its columns; None if unknown.

    Raises
    ------
    EnsembleError : see `ensemble.decisions.number_decision.NumberDecision.from_json`.
    """
    check_record(record, _FIELDS, source)
    names = tuple(record["numbers"])
    if not 1 <= len(names) <= MAX_CLASSES or len(set(names)) < len(names) or not all(names):
        raise EnsembleError(f"{source}: 'numbers' must be one or more different names", hint=FIT_AGAIN)
    if classes is not None and tuple(classes) != names:
        raise EnsembleError(
            f"{source}: the intervals are for the numbers {', '.join(names[:10])}, the model has "
            f"{', '.join(list(classes)[:10])}",
            hint=FIT_AGAIN,
        )
    limits, floors, widths = record["limits"], record.get("floors"), record.get("max_widths")
    for field, given in (("limits", limits), ("floors", floors), ("max_widths", widths), ("rules", record["rules"])):
        if not set(given or ()) <= set(names):
            raise EnsembleError(f"{source}: '{field}' must be those of numbers", hint=FIT_AGAIN)
    if (record["score"] == "spread") != (floors is not None) or (floors is not None and set(floors) != set(names)):
        raise EnsembleError(f"{source}: expected 'floors' of all numbers for the score spread only", hint=FIT_AGAIN)
    return {
        "classes": names,
        "level": float(record["level"]),
        "limits": tuple(float(limits.get(name, math.inf)) for name in names),
        "target": record["target"],
        "score": record["score"],
        "floors": () if floors is None else tuple(float(floors[name]) for name in names),
        "max_widths": () if not widths else tuple(float(widths.get(name, math.nan)) for name in names),
        "unit": record["unit"],
        "source": read_source(record["source"], source),
        "records": {
            name: read_rule(record["rules"][name], RULE, f"{source}: 'rules'")
            for name in names
            if name in record["rules"]
        },
    }
