"""Read a table of new images with the columns and the rule for persons that the training recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ensemble.prediction.source import PredictionSource
from folds.data.column_labels import read_column_labels
from folds.data.image_folder import find_images, is_image, persons_by_regex
from folds.data.layouts import only_table
from folds.data.mask_competition import is_evaluation
from folds.data.raw_columns import MISSING
from folds.data.sources import FOUND
from folds.data.table import AUTO_COPIES, DataSpec
from folds.errors import EnsembleError, UsageError
from folds.metrics.task_names import COLUMN_TASKS, MULTILABEL
from folds.predictions.columns import find_columns
from folds.predictions.files import LABEL
from folds.utils.csv_table import CsvTable
from folds.utils.tables import read_table_file

_COLUMNS = ("path", "id", "label", "person")
_PERSONS = ("missing_persons", "merge_spellings")  # how persons and labels are written


def spec_as_trained(path: Path, source: PredictionSource, spec: DataSpec | None = None) -> tuple[DataSpec, list[str]]:
    """Return how to read images: as the user says, else with the columns of the training that are there.

    Parameters
    ----------
    path : a table, a folder or an image.
    spec : what the user named; it takes precedence.

    Returns
    -------
    spec, notes : a note names what was taken from the training, and what the table lacks.
    """
    plain = DataSpec(path)
    spec = plain if spec is None else replace(spec, data=path)
    given = {name for name in vars(plain) if getattr(spec, name) != getattr(plain, name)}
    stack = stack_of(source)
    if stack:
        spec = replace(spec, stack=stack)
    tasks = {source.task, *(model.checkpoint.data.get("task") for model in source.models)}
    if spec.uncertain is not None and MULTILABEL not in tasks:
        raise UsageError(
            f"`uncertain={spec.uncertain}` is about several labels, and {source.name} predicts {source.task}",
            hint="leave it out",
        )
    if source.task in COLUMN_TASKS:
        spec = replace(spec, task=source.task)
    records = {repr(sorted(one.items())): one for one in _records(source)}
    if not any(records.values()) or not path.exists() or is_evaluation(path) is not None or is_image(path.name):
        return spec, []
    if len(records) > 1:
        return spec, ["the models were trained on tables with different columns: none of their names is used here"]
    table = _table_of(path, spec)
    return _with_recorded(spec, given, next(iter(records.values())), table, source)


def stack_of(source: PredictionSource) -> tuple[str, ...]:
    """Return the columns of the files of a sample that the models read; () if a sample is one file.

    Raises
    ------
    EnsembleError : the models read different ones.
    """
    found = {model.checkpoint.image_settings.stack for model in source.models}
    if len(found) > 1:
        listed = "; ".join(", ".join(one) or "one file" for one in sorted(found))
        raise EnsembleError(
            f"the models of {source.name} read different files of a sample ({listed}), and a table is read in one way",
            hint="predict with each of its runs",
        )
    return next(iter(found), ())


def _records(source: PredictionSource) -> list[dict[str, Any]]:
    """Return the columns of the tables of the training, of models whose labels are those of the result."""
    models = [model for run in source.runs if run.hand_over is None for model in run.models]
    if models:
        return [_recorded(model.checkpoint.data) for model in models]
    found = [_recorded(model.checkpoint.data) for model in source.models]  # of numbers that are all handed over
    return [{name: value for name, value in one.items() if name not in ("label", "task")} for one in found]


def _recorded(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns and the rule for persons in a checkpoint that differ from the defaults."""
    plain = DataSpec(Path())
    found = data.get(FOUND) or {}
    names = (*_COLUMNS, "person_regex", *_PERSONS, "task", "label_of", "uncertain")
    values = {name: found.get(name) or data.get(name) for name in names}
    return {name: value for name, value in values.items() if value and value not in (getattr(plain, name), AUTO_COPIES)}


def _table_of(path: Path, spec: DataSpec) -> CsvTable | None:
    file = only_table(path, spec, training=False) if path.is_dir() else path
    return None if file is None else read_table_file(file)


def _with_recorded(
    spec: DataSpec, given: set[str], record: Mapping[str, Any], table: CsvTable | None, source: PredictionSource
) -> tuple[DataSpec, list[str]]:
    if record.get("label_of") and "label_of" not in given:
        spec = replace(spec, label_of=record["label_of"])
    if record.get("uncertain") and "uncertain" not in given:
        spec = replace(spec, uncertain=record["uncertain"])
    taken: dict[str, Any] = {}
    lacking: list[str] = []
    where = spec.data if table is None else table.source
    if record.get("task") and "task" not in given:
        spec = replace(spec, task=record["task"])
    for name in _COLUMNS if table is not None else ():
        column = record.get(name)
        if column is None or name in given or (name == "person" and "person_regex" in given):
            continue
        parts = [part.strip() for part in column.split(",")] if name == "label" else [column]
        assert table is not None  # noqa: S101
        if column in table.columns or all(part in table.columns for part in parts):
            problem = ""
            if name == "label" and spec.task in COLUMN_TASKS:
                problem = _columns_problem(table, [column] if column in table.columns else parts, spec, source)
            elif name == "label":
                problem = _label_problem(table, column, source, bool(record.get("label_of")))
            if problem:
                lacking.append(problem)
            else:
                taken[name] = column
        elif name in ("label", "person"):
            lacking.append(f"it has no column '{column}', the {name} of the training")
    if record.get("person_regex") and not {"person", "person_regex"} & given and "person" not in taken:
        regex = record["person_regex"]
        problem = _regex_problem(regex, _image_names(replace(spec, **taken), table))
        if problem:
            lacking.append(problem)
        else:
            taken["person_regex"] = regex
    if "person" in taken or "person_regex" in taken or "label" in taken:
        taken |= {name: record[name] for name in _PERSONS if name in record and name not in given}
    notes = []
    if taken:
        listed = ", ".join(f"{name} = {value}" for name, value in taken.items() if name not in _PERSONS)
        names = ", ".join(f"`{name}`" for name in taken if name not in _PERSONS)
        notes.append(f"{where}: read as in the training: {listed} ({names} change{'s' * (len(taken) == 1)} it)")
    if lacking:
        notes.append(f"{where}: {'; '.join(lacking)}")
    return replace(spec, **taken), notes


def _label_problem(table: CsvTable, column: str, source: PredictionSource, of_person: bool = False) -> str:
    """Return why a column does not hold labels of the training; "" if it does, or if it is several one-hot columns.

    Parameters
    ----------
    of_person : whether an image without a label takes that of its person.
    """
    if column not in table.columns or source.target != LABEL:
        return ""
    every = set(table.columns[column])
    cells = every - MISSING
    strange = sorted(cells - set(source.classes))
    if not cells or (len(every) == 1 and len(table) > 1):
        return ""  # without labels, or all equal, as in a sample submission: read_test says so
    if cells != every and not of_person:
        return f"its column '{column}' is not read as the label: some of its cells are empty"
    if not strange:
        return ""
    return f"its column '{column}' is not read as the label: '{strange[0]}' is no class of the training"


def _columns_problem(table: CsvTable, columns: Sequence[str], spec: DataSpec, source: PredictionSource) -> str:
    """Return why columns do not hold several labels or numbers of the training; "" if they do."""
    try:
        labels = read_column_labels(
            table, columns, None, spec.task, source.classes, training=False, uncertain=spec.uncertain
        )
    except EnsembleError as error:
        return f"its columns {', '.join(columns)} are not read as labels: {error.message}"
    known = [text != "" for text in labels.texts] if labels is not None else []
    if any(known) and not all(known):
        return f"its columns {', '.join(columns)} are not read as labels: in some rows none of them is known"
    return ""


def _image_names(spec: DataSpec, table: CsvTable | None) -> Sequence[str]:
    """Return the names in which the person is looked for, as the readers do."""
    if table is None:
        return [name.strip() for name in find_images(spec.data).images]
    if spec.path in table.columns:
        return [name.replace("\\", "/") for name in table.columns[spec.path]]
    found = find_columns(list(table.columns), table.source, ("path", "id"))
    column = found.get("path") or found.get("id")
    return [] if column is None else [name.replace("\\", "/") for name in table.columns[column]]


def _regex_problem(regex: str, names: Sequence[str]) -> str:
    """Return why a rule for persons does not fit names; "" if it matches all of them."""
    if not names:
        return f"persons are unknown: the rule of the training, '{regex}', finds no names of images"
    try:
        persons_by_regex(names, regex, names)
    except EnsembleError as error:
        first = error.details[0] if error.details else error.message
        return f"persons are unknown: the rule of the training, '{regex}', does not fit {first}"
    return ""
