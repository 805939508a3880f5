"""Write and read ``blend.toml``: how to apply a blend to new images."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.attributes import JointRun
from ensemble.alignment.split import AlignedSplit, RunPredictions
from ensemble.blending.coefficients import FILE, read_coefficients
from ensemble.learning.columns.combination import ColumnCombination
from ensemble.learning.combination import Combination
from ensemble.learning.cumulative import record_problem
from folds.errors import CONTROL, EnsembleError
from folds.metrics.task_names import CLASSES, COLUMN_TASKS
from folds.utils.files import is_file_safe
from folds.utils.schema import (
    NUMBER,
    ONE_LINE,
    SHA256,
    FieldType,
    integer,
    list_of,
    mapping_of,
    one_of,
    optional,
    raise_problems,
    shown,
    validate_fields,
)
from folds.utils.toml import read_toml, toml_value

if TYPE_CHECKING:
    from ensemble.blending.result import BlendResult

SCHEMA = 1
_REWRITE = "run ensemble blend again to rewrite it"
_FOLD = FieldType(
    "the number of a fold",
    lambda value: isinstance(value, str) and re.fullmatch(r"\d{1,9}", value, re.ASCII) is not None,
)
_TOP = {
    "identity": ONE_LINE,
    "classes": list_of(ONE_LINE),
    "target": optional(ONE_LINE),
    "class_attributes": optional(mapping_of(mapping_of(ONE_LINE, ONE_LINE), ONE_LINE)),
    "task": optional(one_of(*COLUMN_TASKS)),
}
_RUN = {
    "name": ONE_LINE,
    "run": optional(ONE_LINE),
    "target": optional(ONE_LINE),
    "arch": optional(ONE_LINE),
    "folds": list_of(integer(0, 2**31 - 1)),
    "views": list_of(ONE_LINE),
    "checkpoints": mapping_of(SHA256, _FOLD),
    "classes": optional(list_of(ONE_LINE)),
    "joined": optional(list_of(ONE_LINE)),
    "hand_over": optional(list_of(NUMBER)),
}


@dataclass(frozen=True)
class RunRecipe:
    """One run of a blend.

    Attributes
    ----------
    folds : folds whose models predict; their probabilities are averaged.
    views : test-time views that are merged; () for the plain image.
    checkpoints : fold → SHA-256 of the checkpoint, if known.
    classes : columns of a run that predicts an attribute, in the order of its files; () if they are those of the blend.
    joined : the attribute runs that this run combines; () for an ordinary run.
    run : the run that wrote the files, if that is not `name`: one run can predict several attributes.
    hand_over : slope, then cuts, of the fit that turns its number into the grades of the blend
        (`ensemble.learning.cumulative.NumberToGrades`); () for an ordinary run.
    """

    name: str
    target: str = "label"
    arch: str = ""
    folds: tuple[int, ...] = ()
    views: tuple[str, ...] = ()
    checkpoints: Mapping[str, str] | None = None
    classes: tuple[str, ...] = ()
    joined: tuple[str, ...] = ()
    run: str = ""
    hand_over: tuple[float, ...] = ()


@dataclass(frozen=True)
class BlendRecipe:
    """The content of ``blend.toml``: the runs, their combination, and the classes of the result.

    Attributes
    ----------
    class_attributes : class → attribute → value, for the attributes whose runs are joined: P(class) ∝ Π P(value of the
        class), after averaging the runs of one attribute (`ensemble.alignment.attributes.JointRun`).
    task : ``multilabel`` or ``regression`` if each class is a label or a number of its own; otherwise ``classes``.
    """

    identity: str
    classes: tuple[str, ...]
    combination: Combination
    runs: tuple[RunRecipe, ...]
    target: str = "label"
    class_attributes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    task: str = CLASSES


def recipe_of(blend: BlendResult) -> BlendRecipe | None:
    """Return the recipe of a blend; None if attributes are voted on separately, which is not a combination of runs."""
    if blend.combination is None:
        return None
    splits = [blend.splits[name] for name in ("test", "oof") if name in blend.splits]
    first = splits[0]
    found: dict[str, RunRecipe] = {}
    inside: dict[str, RunRecipe] = {}
    meaning: dict[str, dict[str, str]] = {name: {} for name in first.classes}
    for name in blend.combination.runs:
        run, split = next((run, split) for split in splits for run in split.runs if run.name == name)
        if not isinstance(run, JointRun):
            fit = blend.hand_overs.get(name)
            own = _recipe_of_run(run, split)
            found[name] = own if fit is None else replace(own, hand_over=tuple(fit.as_record()))
            continue
        parts: list[str] = []
        for runs, columns in run.factors:
            for one in runs:
                recipe = _recipe_of_run(one, split)
                label = _free_name(recipe, {*blend.combination.runs, *inside})
                inside[label] = replace(
                    recipe, name=label, run="" if label == recipe.name else recipe.name, classes=_columns_of(one)
                )
                parts.append(label)
            values = _values_of(runs[0])
            for of_class, column in zip(split.classes, columns.tolist(), strict=True):
                meaning[of_class][inside[parts[-1]].target] = values[column]
        found[name] = RunRecipe(name, split.target, folds=run.folds, joined=tuple(parts))
    meant = meaning if inside else {}
    return BlendRecipe(
        blend.identity,
        first.classes,
        blend.combination,
        (*found.values(), *inside.values()),
        first.target,
        meant,
        first.task if first.has_columns else CLASSES,
    )


def _free_name(recipe: RunRecipe, taken: Collection[str]) -> str:
    """Return the run's name, with its target appended if the name is taken."""
    name = recipe.name if recipe.name not in taken else f"{recipe.name}.{recipe.target}"
    while name in taken:
        name += "_"
    return name


def _columns_of(run: RunPredictions) -> tuple[str, ...]:
    """Return the classes of a run's files, in their order."""
    return next(part.member.sidecar.classes for part in run.parts if part.member.sidecar is not None)


def _values_of(run: RunPredictions) -> list[str]:
    """Return the classes of a run in the order of its aligned probabilities."""
    part = next(part for part in run.parts if part.member.sidecar is not None)
    names = _columns_of(run)
    return [names[column] for column in (range(len(names)) if part.columns is None else part.columns.tolist())]


def _recipe_of_run(run: RunPredictions, split: AlignedSplit) -> RunRecipe:
    sidecars = [part.member.sidecar for part in run.parts if part.member.sidecar is not None]
    checkpoints: dict[str, str] = {}
    for sidecar in sidecars:
        sha = sidecar.checkpoint_sha
        if isinstance(sha, str) and isinstance(sidecar.fold, int):
            checkpoints[str(sidecar.fold)] = sha
        elif isinstance(sha, Mapping):
            checkpoints |= sha
    # Files from other programs can hold any text: keep only entries that can name a checkpoint in a run's folder.
    known = {
        fold: sha
        for fold, sha in sorted(checkpoints.items())
        if _names_files(run.name) and _FOLD.holds(fold) and SHA256.holds(sha)
    }
    target, arch = (sidecars[0].target, sidecars[0].arch) if sidecars else (split.target, "")
    return RunRecipe(run.name, target, arch, run.folds, run.views, known)


def _names_files(name: str) -> bool:
    """Return whether a run's name is valid in a path; ``a+b`` is a joint run, ``a#2`` a run that votes twice."""
    return is_file_safe(re.sub("[+#]", "_", name))


def to_text(recipe: BlendRecipe, name: str) -> str:
    """Return the content of ``blend.toml``; many numbers are apart (`ensemble.blending.coefficients`)."""
    lines = [f"# How the blend {name} is made: the mean of each run's folds, then this combination."]
    top: dict[str, Any] = {
        "schema": SCHEMA,
        "identity": recipe.identity,
        "target": recipe.target,
        "classes": list(recipe.classes),
    }
    top |= {"task": recipe.task} if recipe.task != CLASSES else {}
    top |= {"class_attributes": recipe.class_attributes} if recipe.class_attributes else {}
    lines += [f"{key} = {toml_value(value)}" for key, value in top.items()]
    lines += ["", "[combination]"]
    lines += [f"# {key}: numbers in {FILE}" for key in recipe.combination.large_arrays()]
    lines += [
        f"{key} = {toml_value(value)}"
        for key, value in recipe.combination.as_record(inline=False).items()
        if value not in (None, "")
    ]
    for run in recipe.runs:
        values: dict[str, Any] = {"name": run.name, "run": run.run, "target": run.target, "arch": run.arch}
        values |= {"folds": list(run.folds), "views": list(run.views), "checkpoints": dict(run.checkpoints or {})}
        values |= {"classes": list(run.classes), "joined": list(run.joined)}
        values |= {"hand_over": list(run.hand_over)}
        lines += ["", "[[run]]"]
        lines += [
            f"{key} = {toml_value(value)}"
            for key, value in values.items()
            if value not in ("", {}, []) or key in ("folds", "views")
        ]
    return "\n".join([*lines, ""])


def check_written(recipe: BlendRecipe, name: str) -> None:
    """Raise EnsembleError if the combination of a recipe would be refused when its file is read."""
    combination, record = recipe.combination, {"classes": recipe.classes}
    if recipe.task != CLASSES:
        record["task"] = recipe.task  # type: ignore[assignment]
    arrays = combination.large_arrays()
    inline = {key: value for key, value in combination.as_record(inline=False).items() if key not in arrays}
    try:
        _combination_of(record, inline, arrays, Path(name))
    except EnsembleError as error:
        hint = "give numbers in another unit, in which they are neither huge nor tiny, or use another method"
        if any(CONTROL.search(run) for run in combination.runs):
            hint = "rename the file of predictions whose name has control characters"
        raise EnsembleError(
            f"the combination cannot be written to a file that can be read again: {error.message}", hint=hint
        ) from None


def read_recipe(path: Path) -> BlendRecipe:
    """Return the recipe in a ``blend.toml``, validated.

    Raises
    ------
    EnsembleError : the file or that of its coefficients is missing, is not TOML, or has an invalid value.
    """
    record = _read_toml(path)
    wrong = _wrong_fields(record)
    raise_problems(wrong, str(path), _REWRITE)
    combination = record["combination"]
    arrays = read_coefficients(path, combination)
    inline = {name: value for name, value in combination.items() if name not in arrays}
    recipe = BlendRecipe(
        record["identity"],
        tuple(record["classes"]),
        _combination_of(record, inline, arrays, path),
        tuple(map(_run_of, record["run"])),
        record.get("target") or "label",
        record.get("class_attributes") or {},
        record.get("task") or CLASSES,
    )
    wrong = _invalid_values(recipe)
    raise_problems(wrong, str(path), _REWRITE)
    return recipe


def _combination_of(
    record: Mapping[str, Any], inline: Mapping[str, Any], arrays: Mapping[str, NDArray[np.float64]], path: Path
) -> Combination:
    classes, task = tuple(record["classes"]), record.get("task")
    if task is None:
        return Combination.from_record(inline, len(classes), str(path), arrays)
    found = ColumnCombination.of_record(inline, classes, str(path))
    if found.task != task:
        raise EnsembleError(f"{path}: the blend is of the task {task}, its combination of {found.task}", hint=_REWRITE)
    return found


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        record = read_toml(path)
    except FileNotFoundError:
        raise EnsembleError(
            f"blend not found: {path}", hint="ensemble blend runs/*.npy writes runs/blends/NAME/blend.toml"
        ) from None
    except (OSError, ValueError) as error:
        raise EnsembleError(f"{path} cannot be read: {error}", hint=_REWRITE) from None
    if record.get("schema") != SCHEMA:
        raise EnsembleError(f"{path} has schema {shown(record.get('schema'))}, expected {SCHEMA}", hint=_REWRITE)
    return record


def _wrong_fields(record: dict[str, Any]) -> list[str]:
    """Return one line per missing field or field of a wrong type."""
    wrong, tables = validate_fields(record, _TOP), record.get("run", [])
    if wrong:
        return wrong
    if not isinstance(record.get("combination"), dict) or not isinstance(tables, list) or not tables:
        return ["expected a table [combination] and a table [[run]] for each run"]
    for i, table in enumerate(tables):
        found = ["expected a table"]
        if isinstance(table, dict):
            found = validate_fields({"views": [], "checkpoints": {}} | table, _RUN)
        wrong += [f"run {i}: {line}" for line in found]
    return wrong


def _run_of(table: Mapping[str, Any]) -> RunRecipe:
    return RunRecipe(
        table["name"],
        table.get("target") or "label",
        table.get("arch") or "",
        tuple(table["folds"]),
        tuple(table.get("views", ())),
        dict(table.get("checkpoints", {})),
        tuple(table.get("classes") or ()),
        tuple(table.get("joined") or ()),
        table.get("run") or "",
        tuple(map(float, table.get("hand_over") or ())),
    )


def _invalid_values(recipe: BlendRecipe) -> list[str]:
    """Return one line per invalid value among fields of the right type."""
    wrong = []
    if not _all_names(recipe.classes):
        wrong.append("'classes' must be one or more distinct, non-empty names")
    by_name = {run.name: run for run in recipe.runs}
    if len(by_name) < len(recipe.runs):
        wrong.append("two tables [[run]] have the same name")
    missing = [name for name in recipe.combination.runs if name not in by_name]
    wrong += [f"run '{name}' is combined but has no table [[run]]" for name in missing]
    for run in recipe.runs:
        wrong += _invalid_run(run, by_name, recipe)
    return wrong


def _invalid_run(run: RunRecipe, by_name: Mapping[str, RunRecipe], recipe: BlendRecipe) -> list[str]:
    """Return one line per invalid value of a run."""
    wrong, folder = [], run.run or run.name
    parts = folder.split("/")
    if any(part in ("", ".", "..") for part in parts) or (run.checkpoints and not _names_files(folder)):
        wrong.append(f"run '{folder}': expected a name of letters, digits, '-', '_', '.', '+' and '#'")
    if run.classes and not _all_names(run.classes):
        wrong.append(f"run '{run.name}': 'classes' must be distinct, non-empty names")
    is_plain = run.name in recipe.combination.runs and not (run.joined or run.hand_over)
    if is_plain and run.classes and set(run.classes) != set(recipe.classes):
        wrong.append(f"run '{run.name}': 'classes' are not those of the blend, with which it is combined")
    if run.hand_over:
        if problem := record_problem(run.hand_over, len(recipe.classes)):
            wrong.append(f"run '{run.name}': 'hand_over' {problem}")
        if run.joined or run.name not in recipe.combination.runs or recipe.task in COLUMN_TASKS:
            wrong.append(f"run '{run.name}': 'hand_over' is for a run of one number that is combined with grades")
    if len(set(run.joined)) < len(run.joined):
        wrong.append(f"run '{run.name}': 'joined' names a run twice")
    for name in run.joined:
        part = by_name.get(name)
        if part is None:
            wrong.append(f"run '{name}' is joined but has no table [[run]]")
        elif part.joined:
            wrong.append(f"run '{run.name}' joins '{name}', which is a joined run itself")
        elif not part.classes or any(
            recipe.class_attributes.get(of, {}).get(part.target) not in part.classes for of in recipe.classes
        ):
            wrong.append(
                f"run '{name}': 'classes' and 'class_attributes' must give the column of each class's {part.target}"
            )
    return wrong


def _all_names(names: tuple[str, ...]) -> bool:
    return bool(names) and all(names) and len(set(names)) == len(names)
