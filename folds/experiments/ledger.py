"""Read and append to the ledger of experiments, ``runs/ledger.jsonl``: one JSON object per line.

A damaged line does not affect the others: a line that a crash has cut off is skipped and counted, and the next line is
appended after a line break. No command depends on the ledger: the files of a run are complete without it.

A run that is removed or renamed gets a line that says so (`REMOVED_KIND`, `RENAMED_KIND`); its earlier lines stay in
the file and are read accordingly. So the file is only ever appended to, and a crash or a second writer loses nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from folds.errors import EnsembleError
from folds.metrics.task_names import ALL_TASKS, COLUMN_TASKS
from folds.utils.files import cannot_write, make_folder
from folds.utils.locks import try_lock
from folds.utils.schema import (
    ANYTHING,
    BOOL,
    FILE_SAFE,
    NUMBER,
    TEXT,
    FieldType,
    integer,
    list_of,
    mapping_of,
    one_of,
    optional,
    validate_fields,
)

LEDGER = "ledger.jsonl"
SCHEMA = 3  # the newest that is read
_OF_COLUMNS = 3  # scores of several labels or numbers
REMOVED_KIND, RENAMED_KIND = "removed", "renamed"
# Lines get the oldest schema that can say them, so that an earlier version still reads the lines it knows.
_SCHEMA_OF = {"run": 1, "note": 1, REMOVED_KIND: 2, RENAMED_KIND: 2}


def _record(table: Mapping[str, FieldType]) -> FieldType:
    return FieldType("an object", lambda value: isinstance(value, Mapping) and not validate_fields(value, table))


# The ends are null if the score is that of a single person.
_INTERVAL = _record({"score": NUMBER, "low": optional(NUMBER), "high": optional(NUMBER)})
_COUNTED = {"rows": integer(1), "people": integer(1)}
# People of whom the run has changed training labels, and whether they are left out.
_COUNTED |= {"changed_people": optional(integer(1)), "left_out": optional(BOOL)}
# Whether a row is a person, because only persons are labeled.
_COUNTED |= {"by_person": optional(BOOL)}
_CLASS_SCORES = _record(_COUNTED | {"macro_f1": _INTERVAL, "accuracy": _INTERVAL, "log_loss": _INTERVAL})


def _hold_columns(value: Any) -> bool:
    """Return whether a value is the scores of several labels or numbers, by the metrics of the task."""
    if not isinstance(value, Mapping) or value.get("task") not in COLUMN_TASKS:
        return False
    others = {name: one for name, one in value.items() if name not in (*_COUNTED, "task")}
    return not validate_fields(dict(value), _COUNTED) and all(map(_INTERVAL.holds, others.values()))


def _hold_scores(value: Any) -> bool:
    task = value.get("task") if isinstance(value, Mapping) else None
    return _CLASS_SCORES.holds(value) if task in (None, *_CLASS_TASKS) else _hold_columns(value)


_CLASS_TASKS = tuple(task for task in ALL_TASKS if task not in COLUMN_TASKS)
_SCORES = FieldType("an object", _hold_scores)
_DIFFERENCE = _record(
    {
        "first": NUMBER,
        "second": NUMBER,
        "difference": NUMBER,
        "low": optional(NUMBER),
        "high": optional(NUMBER),
        "chance": NUMBER,
    }
)
_TRAINED = mapping_of(TEXT)
_FOLDS = FieldType(
    "an object: fold → hash of its checkpoint",
    lambda value: _TRAINED.holds(value) and all(fold.isdecimal() for fold in value),
)
_BASELINE = _record(
    {
        "run": FILE_SAFE,
        "folds": _FOLDS,
        "varied": mapping_of(list_of(ANYTHING, 2)),
        "controlled": list_of(TEXT),
        "differences": optional(mapping_of(_DIFFERENCE)),
        "notes": optional(list_of(TEXT)),
    }
)
_COST = _record(
    {
        "seconds": NUMBER,
        "images": integer(),
        "parameters": optional(integer()),
        "devices": list_of(TEXT),
        "jobs": optional(integer(1)),
        "threads": optional(integer(1)),
    }
)
# The model of all people; `test` is its score on labeled test images.
_REFIT = _record(
    {"epochs": integer(1), "seconds": NUMBER, "checkpoint_sha": TEXT, "test": optional(_SCORES)},
)
_TABLES: dict[str, dict[str, FieldType]] = {
    "run": {
        "run": FILE_SAFE,
        "time": TEXT,
        "arch": TEXT,
        "folds": _FOLDS,
        "k": integer(1),
        "settings": mapping_of(ANYTHING),
        "hypothesis": optional(TEXT),
        "stated_after": optional(integer()),
        "baseline": optional(_BASELINE),
        "oof": _SCORES,
        "test": optional(_SCORES),
        "cost": _COST,
        "optimistic": BOOL,
        "versions": mapping_of(TEXT),
        "git": optional(_record({"commit": TEXT, "dirty": BOOL})),
        "folds_sha": TEXT,
        "table_sha": TEXT,
        "config_sha": TEXT,
        "changed": list_of(TEXT),
        "data": optional(TEXT),
        "refit": optional(_REFIT),
        "teacher": optional(TEXT),
    },
    "note": {"run": FILE_SAFE, "time": TEXT, "text": TEXT},
    REMOVED_KIND: {"run": FILE_SAFE, "time": TEXT},
    # configs: hash of a config.toml before → after, for the files in which the name was replaced
    RENAMED_KIND: {"run": FILE_SAFE, "time": TEXT, "to": FILE_SAFE, "configs": optional(mapping_of(TEXT))},
}
_KIND = one_of(*_TABLES)


@dataclass(frozen=True)
class Ledger:
    """The content of a ledger, in the order of its lines.

    Attributes
    ----------
    entries : the lines about runs.
    notes : the notes on runs: ``{"run", "time", "text"}``.
    damaged : numbers of the lines that cannot be read.
    newer : numbers of the lines written by a later version of the package.
    """

    path: Path
    entries: tuple[dict[str, Any], ...] = ()
    notes: tuple[dict[str, Any], ...] = ()
    damaged: tuple[int, ...] = ()
    newer: tuple[int, ...] = ()

    def latest(self) -> dict[str, dict[str, Any]]:
        """Return run → its last line, which replaces its earlier lines, in the order of these lines."""
        last: dict[str, dict[str, Any]] = {}
        for entry in self.entries:
            last.pop(entry["run"], None)
            last[entry["run"]] = entry
        return last

    def notes_of(self, run: str) -> list[str]:
        """Return the notes on a run, oldest first."""
        return [note["text"] for note in self.notes if note["run"] == run]

    def skipped_lines(self) -> list[str]:
        """Return one warning for each kind of skipped line; [] if every line was read."""
        warnings = []
        for lines, reason in ((self.damaged, "damaged"), (self.newer, "written by a later version")):
            if lines:
                subject = f"line {lines[0]} is" if len(lines) == 1 else f"{len(lines)} lines are"
                listed = (
                    "" if len(lines) == 1 else f" ({', '.join(map(str, lines[:5]))}{', …' if len(lines) > 5 else ''})"
                )
                warnings.append(f"{self.path}: {subject} {reason} and skipped{listed}")
        return warnings


def ledger_file(runs: Path = Path("runs")) -> Path:
    """Return ``runs/ledger.jsonl``."""
    return runs / LEDGER


def now() -> str:
    """Return the current time for a line: ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def append(path: Path, kind: str, record: Mapping[str, Any]) -> None:
    """Append a line; a lock lets concurrent writers write one after the other.

    An incomplete last line, of a process that died while writing, is ended with a line break first. If the disk is
    full, the part of the new line that was written is removed.

    Raises
    ------
    EnsembleError : the file cannot be written.
    ValueError : `record` has fields that `read_ledger` would reject.
    """
    wrong = validate_fields(record, _TABLES[kind])
    if wrong:
        raise ValueError(f"not a line of the ledger: {'; '.join(wrong)}")
    schema = _OF_COLUMNS if "task" in (record.get("oof") or {}) else _SCHEMA_OF[kind]
    line = json.dumps({"schema": schema, "kind": kind, **record}, ensure_ascii=False, allow_nan=False)
    # Bytes of a file name that are not valid UTF-8 are lone surrogates, which JSON can hold only as escapes.
    content = line.encode("utf-8", "backslashreplace") + b"\n"
    make_folder(path.parent)
    try:
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            # Without locks, as on some network drives, the line is appended all the same.
            _append(file, content, alone=try_lock(file, wait=True) is True)
        finally:
            os.close(file)  # this also releases the lock
    except OSError as error:
        raise cannot_write(path, error) from None


def _append(file: int, content: bytes, alone: bool) -> None:
    size = os.fstat(file).st_size
    if size and os.pread(file, 1, size - 1) != b"\n":
        content = b"\n" + content
    try:
        left = memoryview(content)
        while left:  # one call writes everything, unless the disk is full
            left = left[os.write(file, left) :]
        os.fsync(file)
    except OSError:
        if alone:  # without the lock, the truncation could remove another writer's line
            with contextlib.suppress(OSError):
                os.ftruncate(file, size)
        raise


def read_ledger(path: Path) -> Ledger:
    """Return all readable lines of a ledger; an empty ledger if the file does not exist.

    Raises
    ------
    EnsembleError : the file cannot be read.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return Ledger(path)
    except OSError as error:
        raise EnsembleError(f"cannot read {path}: {os.strerror(error.errno or 0).lower()}") from None
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in _TABLES}
    damaged, newer = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        record = _parsed(line)
        schema = record.get("schema") if record is not None else None
        if record is None or type(schema) is not int:
            damaged.append(number)
        elif schema > SCHEMA:
            newer.append(number)
        elif not _KIND.holds(record.get("kind")) or validate_fields(record, _TABLES[record["kind"]]):
            damaged.append(number)
        elif record["kind"] == REMOVED_KIND:
            found = {kind: [one for one in lines if one["run"] != record["run"]] for kind, lines in found.items()}
        elif record["kind"] == RENAMED_KIND:
            found = {kind: [_renamed(one, record) for one in lines] for kind, lines in found.items()}
        else:
            found[record["kind"]].append(record)
    return Ledger(path, tuple(found["run"]), tuple(found["note"]), tuple(damaged), tuple(newer))


def _renamed(entry: dict[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line with the new name of a run, also where it is the baseline."""
    before, after, configs = record["run"], record["to"], record.get("configs") or {}
    renamed = dict(entry)
    if entry["run"] == before:
        renamed["run"] = after
    if "config_sha" in entry:
        renamed["config_sha"] = configs.get(entry["config_sha"], entry["config_sha"])
    baseline = entry.get("baseline")
    if baseline is not None and baseline["run"] == before:
        renamed["baseline"] = {**baseline, "run": after}
    return renamed


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
