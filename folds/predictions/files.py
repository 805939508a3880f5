"""Write and read prediction files: a float32 `.npy` and its sidecar `.json`; numpy only.

The sidecar describes the rows and columns (ids, classes, fold, split), so files are aligned by name and not by
position. Rows are given inline (`ids`, `labels`, `persons`) or by reference to a samples file in the same folder that
many prediction files share (`samples`, `samples_sha`, and `rows` if only some of its rows are predicted).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError, UsageError
from folds.metrics.positive import scored_class
from folds.metrics.task_names import ALL_TASKS, BINARY, CLASSES, COLUMN_TASKS, REGRESSION
from folds.predictions.label_columns import check_column_names
from folds.predictions.long_lists import json_with_folds, read_with_folds
from folds.predictions.rows import SampleRows, read_samples_file, text_array, write_samples
from folds.utils.bounded import check_regular
from folds.utils.files import write_atomic
from folds.utils.memmap import blocks
from folds.utils.schema import (
    ANYTHING,
    BOOL,
    NUMBER,
    ONE_LINE,
    UNICODE,
    either,
    integer,
    list_of,
    mapping_of,
    named,
    one_of,
    optional,
    shown,
    validate_fields,
)

LABEL = "label"
ALL = "all"  # the part of a run that is trained on all people, in the place of ``fold<i>``
SCHEMA = 1
NUMBERS = "number"  # what files of a regression have; those of several labels have a probability for each
KINDS = ("probability", "logit", NUMBERS)
SPLITS = ("oof", "test")

# Types of the fields of a sidecar, which may come from anywhere. Class names and attribute values may be numbers (0, 1,
# 2). Names are printed, so they have no control characters.
_NAME = named(either(ONE_LINE, NUMBER), "text without control characters, or a number")
_MEANING = named(
    mapping_of(mapping_of(either(ONE_LINE, NUMBER, BOOL), ONE_LINE), ONE_LINE),
    "an object: class → attribute → value, without control characters",
)
_FOLD = named(either(integer(0, 2**31 - 1), list_of(integer(0, 2**31 - 1))), "a whole number from 0, or one per row")
_TRAINED = named(
    either(list_of(UNICODE), mapping_of(list_of(UNICODE))), "a list of ids, or an object: fold → list of ids"
)
_SHA = named(either(UNICODE, mapping_of(UNICODE)), "text, or an object: fold → text")
_FIELDS = {
    "kind": one_of(*KINDS),
    "split": one_of(*SPLITS),
    "target": optional(ONE_LINE),
    "classes": list_of(_NAME),
    "class_attributes": optional(_MEANING),
    "samples": optional(UNICODE),
    "samples_sha": optional(UNICODE),
    "fold": optional(_FOLD),
    "run": optional(ONE_LINE),
    "teacher": optional(ONE_LINE),
    "label_of": optional(one_of("person")),
    "unit": optional(one_of("person")),
    "task": optional(ONE_LINE),
    "positive": optional(_NAME),
    "arch": optional(ONE_LINE),
    "seed": optional(integer(0)),
    "repeat": optional(integer(0)),
    "views": optional(list_of(ONE_LINE)),
    "merge": optional(mapping_of(ANYTHING)),
    "decision": optional(mapping_of(ANYTHING)),
    "folds_sha": optional(UNICODE),
    "checkpoint_sha": optional(_SHA),
    "images_sha": optional(_SHA),
    "trained_on": optional(_TRAINED),
    "formats": optional(mapping_of(ANYTHING)),
    "cascade": optional(mapping_of(ANYTHING)),
    "created": optional(UNICODE),
}


@dataclass(frozen=True)
class PredictionMetadata:
    """The description of one prediction file: the fields of its `.json`."""

    kind: str
    split: str
    classes: tuple[str, ...]
    rows: SampleRows
    target: str = "label"
    class_attributes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    fold: int | NDArray[np.integer] | None = None
    run: str = ""
    arch: str = ""
    seed: int | None = None
    repeat: int = 0
    views: tuple[str, ...] = ()
    merge: Mapping[str, Any] | None = None  # how views were merged; checked by its users
    folds_sha: str | None = None
    checkpoint_sha: str | Mapping[str, str] | None = None  # or fold → sha, in an out-of-fold file
    images_sha: str | Mapping[str, str] | None = None  # of the predicted images' contents; likewise
    # Sample ids, or fold → sample ids, if a file from another program has them.
    trained_on: Sequence[str] | Mapping[str, Sequence[str]] | None = None
    formats: Mapping[str, Any] | None = None  # how each architecture was computed; only recorded
    # The order of the models that were skipped for images that did not need them; then the probabilities are not those
    # of all models.
    cascade: Mapping[str, Any] | None = None
    created: str | None = None
    samples_sha: str | None = None
    decision: Mapping[str, Any] | None = None  # rules from these probabilities to labels; checked by its users
    # What the classes are, one of `ALL_TASKS`. Of several labels and of numbers, `classes` are the names of the
    # columns, and the labels of the rows are texts of `folds.predictions.label_columns`.
    task: str = CLASSES
    # Whether `task=classes` was asked for: then no name of a class is taken for that of a positive one.
    exclusive: bool = False
    # Blend or run whose out-of-fold predictions the models learned: then these are optimistic (docs/distill.md).
    teacher: str | None = None
    # ``person`` if images have the labels of their persons, and none of their own: then scores are by person.
    label_of: str | None = None
    # ``person`` if each row is a person, pooled from images; None if rows are images.
    unit: str | None = None

    @property
    def positive(self) -> str | None:
        """Return the positive class of a binary decision; None for another task."""
        return self.classes[-1] if self.task == BINARY else None

    @property
    def has_columns(self) -> bool:
        """Return whether every column has labels or numbers of its own (`COLUMN_TASKS`)."""
        return self.task in COLUMN_TASKS

    @property
    def scored(self) -> str | None:
        """Return the class whose score a metric of a positive class is, as in training; None if the names decide."""
        return scored_class(self.classes, self.task, self.exclusive, self.target != LABEL)


def sidecar_path(path: Path) -> Path:
    """Return the path of the sidecar: ``runs/swin.oof.npy`` → ``runs/swin.oof.json``."""
    return Path(path).with_suffix(".json")


def write_prediction(
    path: Path,
    values: NDArray[np.floating],
    sidecar: PredictionMetadata,
    samples: SampleRows | None = None,
    samples_file: Path | None = None,
) -> Path:
    """Write ``NAME.npy`` (float32) and ``NAME.json``. The sidecar is written first, so an existing array always has
    one.

    Parameters
    ----------
    values : (n, classes), finite.
    samples : the rows of the whole table, to which the sidecar refers (one shared file); without it the ids are inline.
    samples_file : an existing samples file with `samples`.

    Raises
    ------
    EnsembleError : the shape of `values` does not match the sidecar, or a value is not finite.
    """
    path = Path(path)
    values = np.ascontiguousarray(values, dtype=np.float32)
    expected = (len(sidecar.rows), len(sidecar.classes))
    if values.shape != expected:
        raise EnsembleError(f"{path}: predictions are {values.shape}, expected {expected} (samples, classes)")
    # The sum in float64 of finite float32 values is finite, and needs no extra array.
    if not all(np.isfinite(block.sum(dtype=np.float64)) for block in blocks(values)):
        row = int(np.flatnonzero(~np.isfinite(values).all(1))[0])
        raise EnsembleError(
            f"{path}: the prediction of sample '{sidecar.rows.ids[row]}' is not finite",
            hint="the training diverged: try a lower `lr`",
        )
    # Remove a replaced array first, so an old array is never beside a new sidecar.
    path.unlink(missing_ok=True)
    write_atomic(sidecar_path(path), json_with_folds(_to_json(path, sidecar, samples, samples_file)))
    return write_atomic(path, lambda file: _save(file, values))


def _save(file: IO[bytes], values: NDArray[np.float32]) -> None:
    """Write an array as np.save does, in blocks, because a map may be larger than memory."""
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(values))
    for block in blocks(values):
        file.write(block.data)


def _to_json(
    path: Path, sidecar: PredictionMetadata, samples: SampleRows | None, samples_file: Path | None
) -> dict[str, Any]:
    record: dict[str, Any] = {"schema": SCHEMA, "kind": sidecar.kind, "split": sidecar.split, "target": sidecar.target}
    record["classes"] = list(sidecar.classes)
    if sidecar.task != CLASSES or sidecar.exclusive:
        record["task"] = sidecar.task
    if sidecar.positive is not None:
        record["positive"] = sidecar.positive
    if sidecar.class_attributes:
        record["class_attributes"] = {name: dict(meaning) for name, meaning in sidecar.class_attributes.items()}
    if samples is None:
        record["ids"] = sidecar.rows.ids.tolist()
        if sidecar.rows.labels is not None:
            record["labels"] = sidecar.rows.labels.tolist()
        if sidecar.rows.persons is not None:
            record["persons"] = sidecar.rows.persons.tolist()
    else:
        record["samples"], record["samples_sha"] = write_samples(path.parent, samples, samples_file)
        if samples.ids is not sidecar.rows.ids and not np.array_equal(samples.ids, sidecar.rows.ids):
            position = {name: i for i, name in enumerate(samples.ids.tolist())}
            record["rows"] = [position[name] for name in sidecar.rows.ids.tolist()]
    record["fold"] = sidecar.fold
    record |= {
        "run": sidecar.run,
        "arch": sidecar.arch,
        "seed": sidecar.seed,
        "repeat": sidecar.repeat,
        "views": list(sidecar.views),
    }
    if sidecar.merge is not None:
        record["merge"] = dict(sidecar.merge)
    if sidecar.decision is not None:
        record["decision"] = dict(sidecar.decision)
    record |= {"folds_sha": sidecar.folds_sha, "checkpoint_sha": sidecar.checkpoint_sha}
    if sidecar.images_sha is not None:
        record["images_sha"] = sidecar.images_sha
    if sidecar.trained_on is not None:
        record["trained_on"] = (
            dict(sidecar.trained_on) if isinstance(sidecar.trained_on, Mapping) else list(sidecar.trained_on)
        )
    if sidecar.teacher is not None:
        record["teacher"] = sidecar.teacher
    if sidecar.label_of is not None:
        record["label_of"] = sidecar.label_of
    if sidecar.unit is not None:
        record["unit"] = sidecar.unit
    if sidecar.formats is not None:
        record["formats"] = dict(sidecar.formats)
    if sidecar.cascade is not None:
        record["cascade"] = dict(sidecar.cascade)
    record["created"] = sidecar.created or datetime.now(UTC).isoformat(timespec="seconds")
    return record


def read_sidecar(path: Path, samples_cache: dict[str, SampleRows] | None = None) -> PredictionMetadata | None:
    """Return the sidecar of the prediction file `path`, or None if there is none.

    Parameters
    ----------
    samples_cache : sha of a samples file → its rows, so that files that share one parse it once.

    Raises
    ------
    EnsembleError : the sidecar or its samples file is damaged, or a field is wrong.
    """
    beside = sidecar_path(path)
    if not beside.exists():
        return None
    record, fold = read_with_folds(beside)
    if not isinstance(record, dict) or not isinstance(record.get("classes"), list):
        raise EnsembleError(f"{beside} is not a sidecar: expected an object with 'classes'")
    if record.get("schema", SCHEMA) != SCHEMA:
        raise EnsembleError(f"{beside} has schema {record['schema']}, this version reads {SCHEMA}")
    wrong = validate_fields(record, _FIELDS)
    if wrong:
        raise EnsembleError(
            f"{beside}: {wrong[0]}",
            hint="correct it, or remove the sidecar to take the rows on trust",
            details=wrong[1:6],
        )
    _check_task(beside, record)
    rows = _rows_of(beside, record, {} if samples_cache is None else samples_cache)
    if fold is None and isinstance(record.get("fold"), list):
        fold = np.array(record["fold"])
    if fold is not None and len(fold) != len(rows):
        raise EnsembleError(f"{beside}: 'fold' has {len(fold):,} entries for {len(rows):,} rows")
    return PredictionMetadata(
        kind=record["kind"],
        split=record["split"],
        classes=tuple(map(str, record["classes"])),  # class names may be numbers in JSON
        rows=rows,
        target=record.get("target") or "label",
        class_attributes={
            name: {attribute: str(value) for attribute, value in meaning.items()}
            for name, meaning in (record.get("class_attributes") or {}).items()
        },
        fold=record.get("fold") if fold is None else fold,
        run=record.get("run") or Path(path).name.removesuffix(".npy").removesuffix(f".{record['split']}"),
        arch=record.get("arch") or "",
        seed=record.get("seed"),
        repeat=record.get("repeat") or 0,
        views=tuple(record.get("views") or ()),
        merge=record.get("merge"),
        folds_sha=record.get("folds_sha"),
        checkpoint_sha=record.get("checkpoint_sha"),
        images_sha=record.get("images_sha"),
        formats=record.get("formats"),
        cascade=record.get("cascade"),
        trained_on=record.get("trained_on"),
        created=record.get("created"),
        samples_sha=record.get("samples_sha"),
        decision=record.get("decision"),
        teacher=record.get("teacher"),
        label_of=record.get("label_of"),
        unit=record.get("unit"),
        task=record.get("task") or CLASSES,
        exclusive=record.get("task") == CLASSES,
    )


def _check_task(beside: Path, record: Mapping[str, Any]) -> None:
    """Raise EnsembleError unless the task is known and fits the kind of the values and the classes."""
    task = record.get("task") or CLASSES
    if task not in ALL_TASKS:
        raise EnsembleError(f"{beside}: unknown task {shown(task)}", hint=f"this version reads {', '.join(ALL_TASKS)}")
    if (task == REGRESSION) != (record["kind"] == NUMBERS):
        expected = f"'{NUMBERS}'" if task == REGRESSION else "'probability' or 'logit'"
        raise EnsembleError(f"{beside}: task {task!r} has the kind {shown(record['kind'])}, expected {expected}")
    if task in COLUMN_TASKS:
        try:
            check_column_names(list(map(str, record["classes"])), task)
        except UsageError as error:
            raise EnsembleError(f"{beside}: {error.message}", hint="the file is damaged: write it again") from None
    if task != BINARY:
        return
    classes, positive = list(map(str, record["classes"])), record.get("positive")
    if len(classes) != 2 or (positive is not None and str(positive) != classes[1]):
        raise EnsembleError(
            f"{beside}: task 'binary' with the classes {', '.join(classes[:10])} and the positive class "
            f"{shown(positive)}: expected two classes, the positive one last",
            hint="reorder 'classes' and the columns of the array, or correct 'positive'",
        )


def _rows_of(beside: Path, record: dict[str, Any], cache: dict[str, SampleRows]) -> SampleRows:
    if record.get("ids") is not None:
        listed = {name: record[name] for name in ("ids", "labels", "persons") if record.get(name) is not None}
        for name, entries in listed.items():
            if not isinstance(entries, list) or any(isinstance(entry, list | dict) for entry in entries):
                raise EnsembleError(f"{beside}: '{name}' must be a list with one entry per row")
        columns = {name: text_array(entries, f"{beside}: '{name}'") for name, entries in listed.items()}
        for name, values in columns.items():
            if values.shape != columns["ids"].shape or values.ndim != 1:
                raise EnsembleError(f"{beside}: '{name}' has {values.size:,} entries for {columns['ids'].size:,} ids")
        return SampleRows(columns["ids"], columns.get("labels"), columns.get("persons"))
    file, sha = record.get("samples"), record.get("samples_sha")
    if not isinstance(file, str) or not isinstance(sha, str):
        raise EnsembleError(f"{beside} names no samples: expected 'ids', or 'samples' and 'samples_sha'")
    if Path(file).name != file or file in ("", "..") or "\0" in file:
        raise EnsembleError(f"{beside}: 'samples' must be a file in the same folder, found '{file}'")
    if sha not in cache:
        cache[sha] = read_samples_file(beside.parent / file, sha)
    rows = cache[sha]
    if record.get("rows") is None:
        return rows
    positions = record["rows"]
    all_int = isinstance(positions, list) and not set(map(type, positions)) - {int}
    index = np.array(positions if all_int else [])
    if index.size == 0 or index.dtype.kind != "i" or index.min() < 0 or index.max() >= len(rows):
        raise EnsembleError(f"{beside}: 'rows' must be positions in the {len(rows):,} rows of {file}")
    return rows.take(index)


def oof_file(runs: Path, run: str) -> Path:
    """Return ``runs/<run>.oof.npy``."""
    return runs / f"{run}.oof.npy"


def fold_files(runs: Path, run: str) -> dict[int, Path]:
    """Return fold → ``runs/<run>.fold<i>.test.npy``, without files of runs with a longer name (``<run>.fold9``)."""
    name = re.compile(re.escape(run) + r"\.fold(\d+)\.test\.npy")
    found = {int(match[1]): path for path in runs.glob("*.test.npy") if (match := name.fullmatch(path.name))}
    return dict(sorted(found.items()))


def refit_file(runs: Path, run: str) -> Path:
    """Return ``runs/<run>/all/test.npy``, the test predictions of the model that was trained on all people.

    They are not beside those of the folds, so that no pattern and no mean over folds takes them for a fold.
    """
    return runs / run / ALL / "test.npy"


def read_array(path: Path) -> NDArray[np.floating]:
    """Return a prediction array, memory-mapped; its values are not checked. Object arrays (pickle) are refused without
    running them.

    Raises
    ------
    EnsembleError : the file does not exist, is not a `.npy` array, or is not 2-D and numeric.
    """
    values = load_npy(path)
    if not isinstance(values, np.ndarray) or values.ndim != 2 or 0 in values.shape:
        shape = getattr(values, "shape", None)
        found = "an archive" if shape is None else shape
        raise EnsembleError(
            f"{path}: expected a 2-D array (samples, classes), found {found}",
            hint="save one row per sample and one column per class",
        )
    if values.dtype.kind not in "fiu":
        raise EnsembleError(
            f"{path}: expected numbers, found dtype {values.dtype}",
            hint="save it again with np.save(file, array.astype('float32'))",
        )
    return values


def load_npy(path: Path) -> Any:
    """Return what `np.load` finds in a file, memory-mapped if it is an array of any shape and type; never pickles.

    Raises
    ------
    EnsembleError : the file does not exist, or is no `.npy` array and no `.npz` archive.
    """
    try:
        check_regular(path)
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise EnsembleError(f"there is no prediction file {path}") from None
    except Exception as error:  # a damaged header raises what its parser raises, a damaged archive BadZipFile
        reason = str(error)
        # numpy has several messages for this, depending on how it opens the file.
        if "Object arrays" in reason or "Python objects" in reason:
            reason = "it contains Python objects, which could run code"
        elif "allow_pickle" in reason:  # the message for every file without the header of an array
            reason = "it has no .npy header; pickle files are refused because they could run code"
        raise EnsembleError(
            f"{path} is not a usable .npy array: {reason}",
            hint="save it again with np.save(file, array.astype('float32'))",
        ) from None
