"""``blend.toml``: a blend as instructions that can be followed again for new images; read by people and by programs."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemble.attributes import JointRun
from ensemble.blends import Blend
from ensemble.combination import Combination
from ensemble.runs import Run, Split
from folds.errors import EnsembleError
from folds.kinds import TEXT, list_of, mapping_of, optional, whole, wrong_fields
from folds.toml_text import toml_value

SCHEMA = 1
_MENDED = "blend again, to have it written anew"
_RUN = {
    "name": TEXT,
    "target": optional(TEXT),
    "arch": optional(TEXT),
    "folds": list_of(whole(0)),
    "views": list_of(TEXT),
    "checkpoints": mapping_of(TEXT),
    "joined": optional(list_of(TEXT)),
}


@dataclass(frozen=True)
class RunRecipe:
    """One run of a blend.

    Attributes
    ----------
    folds : whose models predict; their probabilities are averaged.
    views : test-time views that are merged; () for the plain image.
    checkpoints : fold → SHA-256 of the checkpoint, where it is known.
    joined : the runs of attributes that it is joined of; () for a run of its own.
    """

    name: str
    target: str = "label"
    arch: str = ""
    folds: tuple[int, ...] = ()
    views: tuple[str, ...] = ()
    checkpoints: Mapping[str, str] | None = None
    joined: tuple[str, ...] = ()


@dataclass(frozen=True)
class BlendRecipe:
    """What ``blend.toml`` says: the runs, how they are combined, and the classes that come out."""

    identity: str
    classes: tuple[str, ...]
    combination: Combination
    runs: tuple[RunRecipe, ...]
    target: str = "label"


def recipe_of(blend: Blend) -> BlendRecipe | None:
    """The recipe of a blend; None where attributes are voted on apart, which is no combination of runs."""
    if blend.combination is None:
        return None
    splits = [blend.splits[name] for name in ("test", "oof") if name in blend.splits]
    found: dict[str, RunRecipe] = {}
    for name in blend.combination.runs:
        run, split = next((run, split) for split in splits for run in split.runs if run.name == name)
        if isinstance(run, JointRun):
            inside = [part for runs, _ in run.factors for part in runs]
            found[name] = RunRecipe(name, split.target, joined=tuple(dict.fromkeys(one.name for one in inside)), folds=run.folds)
            for one in inside:
                found.setdefault(one.name, _recipe_of_run(one, split))
        else:
            found[name] = _recipe_of_run(run, split)
    first = splits[0]
    return BlendRecipe(blend.identity, first.classes, blend.combination, tuple(found.values()), first.target)


def _recipe_of_run(run: Run, split: Split) -> RunRecipe:
    sidecars = [part.member.sidecar for part in run.parts if part.member.sidecar is not None]
    checkpoints: dict[str, str] = {}
    for sidecar in sidecars:
        sha = sidecar.checkpoint_sha
        if isinstance(sha, str) and isinstance(sidecar.fold, int):
            checkpoints[str(sidecar.fold)] = sha
        elif isinstance(sha, Mapping):
            checkpoints |= sha
    target, arch = (sidecars[0].target, sidecars[0].arch) if sidecars else (split.target, "")
    return RunRecipe(run.name, target, arch, run.folds, run.views, dict(sorted(checkpoints.items())))


def to_text(recipe: BlendRecipe, name: str) -> str:
    """The content of ``blend.toml``."""
    lines = [f"# How the blend {name} is made: the mean of each run's folds, then this combination."]
    top: dict[str, Any] = {"schema": SCHEMA, "identity": recipe.identity, "target": recipe.target, "classes": list(recipe.classes)}
    lines += [f"{key} = {toml_value(value)}" for key, value in top.items()]
    lines += ["", "[combination]"]
    lines += [f"{key} = {toml_value(value)}" for key, value in recipe.combination.as_record().items() if value not in (None, "")]
    for run in recipe.runs:
        values: dict[str, Any] = {"name": run.name, "target": run.target, "arch": run.arch, "folds": list(run.folds), "views": list(run.views)}
        values |= {"checkpoints": dict(run.checkpoints or {}), "joined": list(run.joined)}
        lines += ["", "[[run]]"]
        lines += [f"{key} = {toml_value(value)}" for key, value in values.items() if value not in ("", {}, []) or key in ("folds", "views")]
    return "\n".join([*lines, ""])


def read_recipe(path: Path) -> BlendRecipe:
    """What a ``blend.toml`` says, checked before anything is done with it.

    Raises
    ------
    EnsembleError : the file is not there, is no TOML, or something in it cannot be.
    """
    try:
        record = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EnsembleError(f"there is no blend {path}", hint="ensemble blend runs/*.npy writes runs/blends/NAME/blend.toml") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise EnsembleError(f"{path} cannot be read: {error}", hint=_MENDED) from None
    if record.get("schema") != SCHEMA:
        raise EnsembleError(f"{path} has schema {record.get('schema')}, this version reads {SCHEMA}", hint=_MENDED)
    wrong = wrong_fields(record, {"identity": TEXT, "classes": list_of(TEXT), "target": optional(TEXT)})
    tables = record.get("run", [])
    if not wrong and (not isinstance(record.get("combination"), dict) or not isinstance(tables, list) or not tables):
        wrong = ["expected a table [combination] and a table [[run]] for each run"]
    for i, table in enumerate(tables if not wrong else ()):
        run = wrong_fields({"views": [], "checkpoints": {}} | table, _RUN) if isinstance(table, dict) else ["expected a table"]
        wrong += [f"run {i}: {line}" for line in run]
    if wrong:
        raise EnsembleError(f"{path}: {wrong[0]}", hint=_MENDED, details=wrong[1:6])
    runs = tuple(
        RunRecipe(
            table["name"],
            table.get("target") or "label",
            table.get("arch") or "",
            tuple(table["folds"]),
            tuple(table.get("views", ())),
            dict(table.get("checkpoints", {})),
            tuple(table.get("joined") or ()),
        )
        for table in tables
    )
    combination = Combination.from_record(record["combination"], len(record["classes"]), str(path))
    named = {run.name for run in runs}
    missing = [name for name in (*combination.runs, *(name for run in runs for name in run.joined)) if name not in named]
    if missing:
        raise EnsembleError(f"{path}: run '{missing[0]}' is combined, and no table [[run]] describes it", hint=_MENDED)
    return BlendRecipe(record["identity"], tuple(record["classes"]), combination, runs, record.get("target") or "label")
