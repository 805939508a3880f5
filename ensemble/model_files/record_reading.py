"""Read ``model.toml``: every field is checked, then what the fields say of each other."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.decisions.label_decision import read_decision
from ensemble.decisions.rows import IMAGE, PERSON
from ensemble.learning.columns.combination import ColumnCombination
from ensemble.learning.combination import Combination
from ensemble.learning.cumulative import record_problem
from ensemble.model_files.container import EXPORT_AGAIN, RECORD, WEIGHTS, is_part, refused
from ensemble.model_files.expected import MAX_IMAGES
from ensemble.model_files.record import CASCADE, DECISION, SCHEMA, FileEntry, ModelRecord, RunEntry
from ensemble.tta.merge import Merge
from folds.errors import EnsembleError, printable
from folds.metrics.task_names import ALL_TASKS, BINARY, COLUMN_TASKS, ORDINAL, REGRESSION
from folds.utils.files import sha256_bytes
from folds.utils.schema import (
    BOOL,
    FILE_SAFE,
    NUMBER,
    ONE_LINE,
    SHA256,
    TEXT,
    FieldType,
    integer,
    list_of,
    mapping_of,
    one_of,
    optional,
    shown,
    validate_fields,
)
from folds.utils.toml import parse_toml

MAX_PASSES = 4096  # forward passes per image
PRECISIONS = ("fp32", "fp16")
_PART = FieldType("the name of a part of a model", lambda value: isinstance(value, str) and is_part(value))
_WEIGHTS = FieldType(
    f"{WEIGHTS}/NAME.safetensors", lambda value: _PART.holds(value) and str(value).startswith(f"{WEIGHTS}/")
)
_TABLE = mapping_of(FieldType("anything", lambda value: True))
_TABLES = FieldType(
    "one table or more",
    lambda value: isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value),
)
_TOP = {
    "schema": integer(1),
    "program": ONE_LINE,
    "name": ONE_LINE,
    "kind": one_of("checkpoint", "run", "refit", "blend", "model"),
    "target": ONE_LINE,
    "classes": list_of(ONE_LINE),
    "class_attributes": optional(mapping_of(mapping_of(ONE_LINE, ONE_LINE), ONE_LINE)),
    "ranking": list_of(ONE_LINE),
    "precision": one_of(*PRECISIONS),
    "half_difference": optional(NUMBER),
    "refit": optional(BOOL),
    "task": optional(one_of(*ALL_TASKS)),
    "unit": optional(one_of(PERSON)),
    "persons": optional(BOOL),
    "extra_columns": optional(list_of(TEXT)),
    **{"combination": _TABLE, "score": optional(_TABLE), "test_score": optional(_TABLE), "trained": optional(_TABLE)},
    **{"run": _TABLES, "model": _TABLES, "expected": _TABLE, "files": _TABLE, "integrity": _TABLE},
}
_SCORE = {
    "metric": ONE_LINE,
    "score": NUMBER,
    "low": optional(NUMBER),
    "high": optional(NUMBER),
    "level": NUMBER,
    "people": optional(integer()),
    "images": integer(),
    "accuracy": optional(NUMBER),
    "basis": ONE_LINE,
    "per_person": BOOL,
    "warning": optional(ONE_LINE),
    "per_class": optional(mapping_of(list_of(NUMBER, 4), ONE_LINE)),
}
_TRAINED = {"images": integer(), "people": optional(integer()), "images_per_class": optional(mapping_of(integer()))}
_KINDS = ("cpu", "gpu", "fp16", "bf16")  # of number formats and devices, which have a tolerance each
_TOLERANCE = FieldType(
    f"a number above 0 for each of {', '.join(_KINDS)}",
    lambda value: (
        isinstance(value, dict) and set(value) == set(_KINDS) and all(NUMBER.holds(v) and v > 0 for v in value.values())
    ),
)
_EXPECTED = {"images": integer(1, MAX_IMAGES), "seed": integer(), "tolerance": _TOLERANCE}
_RUN = {
    "name": ONE_LINE,
    "target": ONE_LINE,
    "classes": list_of(ONE_LINE),
    "joined": optional(list_of(ONE_LINE)),
    "models": list_of(integer(0, 9_999)),
    "merge": optional(_TABLE),
    "hand_over": optional(list_of(NUMBER)),
}
_MODEL = {
    "file": _WEIGHTS,
    "run": FILE_SAFE,
    "fold": integer(0, 9999),
    "k": integer(0, 10000),
    "amp": one_of("off", "bf16", "fp16"),
    "target": ONE_LINE,
    "classes": list_of(ONE_LINE),
    "heads": optional(list_of(ONE_LINE)),
    "architecture": _TABLE,
    "images": _TABLE,
    "recipe": optional(_TABLE),
    "training_images": integer(),
    "validation_images": integer(),
    "selected_on_validation": optional(BOOL),
}
_FILE = {"sha256": SHA256, "bytes": integer()}

# Optional tables of a model, e.g. [decision]: name → function (table, classes) that raises EnsembleError if the table
# is not valid. `PredictionSource.extras` holds them; they are written and read by name.
ExtraCheck = Callable[[Mapping[str, Any], tuple[str, ...]], object]
EXTRAS: dict[str, ExtraCheck] = {
    DECISION: lambda table, classes: read_decision(table, classes, f"[{DECISION}]"),
    # Checked with the runs, views and models of the record (`ensemble.prediction.source.source_of`).
    CASCADE: lambda table, classes: None,
}


Coefficients = Callable[[Mapping[str, Any]], Mapping[str, NDArray[np.float64]]]


def from_text(content: bytes, path: Path, coefficients: Coefficients = lambda combination: {}) -> ModelRecord:
    """Return the record in a ``model.toml``, validated.

    Parameters
    ----------
    path : the model, for errors.
    coefficients : reads the numbers of [combination] that are in a file of their own.

    Raises
    ------
    EnsembleError : it was changed, was written by a newer version, or has an invalid value.
    """
    try:
        record = parse_toml(content.decode("utf-8"))
    except ValueError as error:
        raise refused(path, f"{RECORD} cannot be read: {printable(str(error))}") from None
    _check_version(record, path)
    sha = _check_integrity(content, path)
    wrong = _wrong(record)
    if not wrong:
        found = _record_of(record, path, sha, coefficients)
        wrong = _contradictions(found) + _wrong_needs(record, found)
    if wrong:
        raise EnsembleError(f"{path} was not loaded: {RECORD}: {wrong[0]}", hint=EXPORT_AGAIN, details=wrong[1:6])
    return found


def _check_version(record: Mapping[str, Any], path: Path) -> None:
    """Raise EnsembleError if a newer version wrote the record: another schema, or a table that is not known here."""
    schema, program = record.get("schema"), printable(shown(record.get("program")))
    update = "update this program: pip install --upgrade ensemble-folds"
    if type(schema) is int and schema > SCHEMA:
        raise refused(path, f"it was exported by a newer version ({program}, schema {schema}; known: {SCHEMA})", update)
    if schema != SCHEMA:
        raise refused(path, f"{RECORD} has schema {shown(schema)}, expected {SCHEMA}")
    unknown = [name for name in record if name not in _TOP and name not in EXTRAS]
    if unknown:
        raise refused(
            path, f"{RECORD} has {shown(unknown[0])}, which this version does not know; {program} exported it", update
        )


def _check_integrity(content: bytes, path: Path) -> str:
    """Return the hash of the record; raise EnsembleError if it is not that of the content before it."""
    found = re.fullmatch(rb'(.*\n)\n\[integrity\]\nsha256 = "([0-9a-f]{64})"\n', content, re.DOTALL)
    if found is None or sha256_bytes(found[1]) != found[2].decode():
        raise refused(path, f"{RECORD} was changed after the export: its hash is another")
    return found[2].decode()


def _wrong(record: Mapping[str, Any]) -> list[str]:
    """Return one line for each field that is missing, of another type, or not known."""
    wrong = validate_fields({name: value for name, value in record.items() if name not in EXTRAS}, _TOP, others=False)
    if wrong:
        return wrong
    parts: list[tuple[str, Any, Mapping[str, FieldType]]] = []
    for name, fields in (("score", _SCORE), ("test_score", _SCORE), ("trained", _TRAINED), ("expected", _EXPECTED)):
        parts += [(f"[{name}]", record[name], fields)] if name in record else []
    for name, fields in (("run", _RUN), ("model", _MODEL)):
        parts += [(f"[[{name}]] {i}", table, fields) for i, table in enumerate(record[name])]
    parts += [(f"[files] {shown(name)}", entry, _FILE) for name, entry in record["files"].items()]
    wrong += [
        f"{place}: {line}" for place, table, fields in parts for line in validate_fields(table, fields, others=False)
    ]
    wrong += [
        f"[files]: {shown(name)} is not the name of a part of a model" for name in record["files"] if not is_part(name)
    ]
    wrong += [f"[{name}]: expected a table" for name in EXTRAS if not isinstance(record.get(name, {}), dict)]
    return wrong


def _record_of(record: Mapping[str, Any], path: Path, sha: str, coefficients: Coefficients) -> ModelRecord:
    classes = tuple(record["classes"])
    for name in EXTRAS:
        if name in record:
            EXTRAS[name](record[name], classes)
    arrays = coefficients(record["combination"])
    inline = {name: value for name, value in record["combination"].items() if name not in arrays}
    return ModelRecord(
        **{key: record[key] for key in ("name", "kind", "program", "target", "precision", "expected")},
        classes=classes,
        combination=ColumnCombination.of_record(inline, classes, str(path))
        if record.get("task") in COLUMN_TASKS
        else Combination.from_record(inline, len(classes), str(path), arrays),
        runs=tuple(map(_run_of, record["run"])),
        models=tuple(record["model"]),
        class_attributes=record.get("class_attributes") or {},
        ranking=tuple(record["ranking"]),
        half_difference=record.get("half_difference"),
        refit=bool(record.get("refit")),
        task=record.get("task") or "",
        score=record.get("score") or {},
        test_score=record.get("test_score") or {},
        trained=record.get("trained") or {},
        files={name: FileEntry(**entry) for name, entry in record["files"].items()},
        extras={name: record[name] for name in EXTRAS if name in record},
        sha256=sha,
    )


def _run_of(table: Mapping[str, Any]) -> RunEntry:
    classes = tuple(table["classes"])
    stored = table.get("merge") or {"how": "mean", "weights": {"none": 1.0}}
    merge = Merge.from_json(stored, len(classes))
    joined, hand_over = tuple(table.get("joined") or ()), tuple(map(float, table.get("hand_over") or ()))
    return RunEntry(table["name"], table["target"], classes, tuple(table["models"]), merge, joined, hand_over)


def _contradictions(record: ModelRecord) -> list[str]:
    """Return one line for each contradiction between fields that are valid on their own."""
    wrong = []
    least = 1 if record.has_columns else 2
    if len(record.classes) < least or not all(record.classes) or len(set(record.classes)) < len(record.classes):
        wrong.append(f"'classes' must be {'one' if least == 1 else 'two'} or more different names")
    wrong += _wrong_task(record)
    by_name = {run.name: run for run in record.runs}
    if len(by_name) < len(record.runs):
        wrong.append("two tables [[run]] have the same name")
    wrong += [
        f"run {shown(name)} is combined but has no [[run]]" for name in record.combination.runs if name not in by_name
    ]
    wrong += [f"'ranking' names {shown(name)}, which is not combined" for name in record.ranking if name not in by_name]
    for run in record.runs:
        wrong += _wrong_run(run, by_name, record)
    passes = sum(len(run.models) * len(run.merge.views) for run in record.runs)
    if passes > MAX_PASSES:
        wrong.append(f"its runs need {passes:,} forward passes per image (models × views), at most {MAX_PASSES:,}")
    files = [str(model["file"]) for model in record.models]
    if len(set(files)) < len(files):
        wrong.append("two tables [[model]] have the same file")
    stored = {name for name in record.files if name.startswith(f"{WEIGHTS}/")}
    wrong += [f"[files] lacks {name}" for name in files if name not in stored]
    wrong += [f"{name} belongs to no [[model]]" for name in sorted(stored - set(files))]
    return wrong


def _wrong_task(record: ModelRecord) -> list[str]:
    """Return one line if the task of the record is not that of its models, merges and classes."""
    plain = {at for run in record.runs if not run.hand_over for at in run.models}
    handed = {at for run in record.runs if run.hand_over for at in run.models} - plain
    tasks = {_task_of(model) for at, model in enumerate(record.models) if at not in handed}
    of_columns = tasks & set(COLUMN_TASKS)
    if (record.has_columns or of_columns) and tasks != {record.task}:
        return [
            f"'task' is {shown(record.task or None)}, and that of the models {', '.join(sorted(map(shown, tasks)))}"
        ]
    if isinstance(record.combination, ColumnCombination) and record.combination.task != record.task:
        return [f"'task' is {record.task}, and that of [combination] {record.combination.task}"]
    if record.task == BINARY and len(record.classes) != 2:
        return [f"'task' is binary, with {len(record.classes)} classes"]
    rules = record.extras.get(DECISION)
    if rules is not None and rules.get("task") != (record.task if record.has_columns else None):
        is_for = rules.get("task") or "exclusive classes"
        return [f"[{DECISION}] is for {is_for}, and the task is {record.task or 'classes'}"]
    if record.has_columns:
        for run in record.runs:
            try:
                run.merge.check_task(record.task)
            except EnsembleError as error:
                return [f"run {shown(run.name)}: {error.message}"]
        if CASCADE in record.extras:
            return [f"[{CASCADE}] is for exclusive classes, and the task is {record.task}"]
    return []


def _wrong_needs(stated: Mapping[str, Any], record: ModelRecord) -> list[str]:
    """Return one line for each contradiction of the combination and what is stated of persons and columns."""
    wrong, pooling = [], record.combination.pooling
    if (stated.get("unit") or IMAGE) != record.unit:
        wrong.append(f"'unit' is {shown(stated.get('unit'))}, and [combination] answers for each {record.unit}")
    if bool(stated.get("persons")) != (record.person_head is not None):
        head = f"the head {record.person_head}" if record.person_head else "no head of persons"
        wrong.append(f"'persons' is {shown(stated.get('persons'))}, and its models have {head}")
    if tuple(stated.get("extra_columns") or ()) != record.extra_columns:
        wrong.append("'extra_columns' are not the columns of [combination]")
    if pooling is None:
        return wrong
    lacking = [name for name in record.combination.runs if pooling.runs and name not in pooling.runs]
    wrong += [f"the pooling of [combination] was not fitted to run {shown(name)}" for name in lacking]
    wrong += [f"run {shown(run.name)} joins attributes, which are not pooled" for run in record.runs if run.joined]
    return wrong


def _task_of(model: Mapping[str, Any]) -> str | None:
    found: str | None = (model.get("recipe") or {}).get("task")
    return found


def _wrong_hand_over(run: RunEntry, record: ModelRecord) -> list[str]:
    """Return one line for each thing that a run whose number is handed over to grades must not be."""
    wrong = [problem] if (problem := record_problem(run.hand_over, len(record.classes))) else []
    if len(run.classes) != 1 or {_task_of(record.models[at]) for at in run.models} != {REGRESSION}:
        wrong.append("must belong to models of one number")
    elif record.task not in ("", ORDINAL) or run.name not in record.combination.runs:
        wrong.append(f"must belong to a run that is combined as {ORDINAL}")
    elif CASCADE in record.extras:
        wrong.append(f"is not for a model with [{CASCADE}]")
    else:
        try:
            run.merge.check_task(REGRESSION)
        except EnsembleError as error:
            wrong.append(f"is for views of numbers: {error.message}")
    return [f"run {shown(run.name)}: 'hand_over' {line}" for line in wrong]


def _wrong_run(run: RunEntry, by_name: Mapping[str, RunEntry], record: ModelRecord) -> list[str]:
    wrong = []
    place = f"run {shown(run.name)}"
    if bool(run.joined) == bool(run.models):
        wrong.append(f"{place} must have either 'models' or 'joined'")
    if any(at >= len(record.models) for at in run.models):
        return [f"{place} names a [[model]] that does not exist"]
    for at in run.models:
        if set(run.classes) != set(record.models[at]["classes"]):
            wrong.append(f"{place}: 'classes' are not those of its models")
    folds = [record.models[at]["fold"] for at in run.models]
    if len(set(folds)) < len(folds):
        wrong.append(f"{place} has two models of one fold")
    if run.joined:
        wrong += [f"{place} has both 'joined' and 'hand_over'"] if run.hand_over else []
        wrong += [
            f"{place} joins {shown(name)}, which is no run with models"
            for name in run.joined
            if not by_name.get(name, run).models
        ]
    elif run.hand_over:
        wrong += _wrong_hand_over(run, record)
    elif run.name in record.combination.runs and run.classes != record.classes:  # its columns are combined as they are
        wrong.append(f"{place}: 'classes' are not those of the model, in their order")
    return wrong
