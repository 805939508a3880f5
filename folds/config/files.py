"""Settings by precedence, from flags, the environment and TOML files; and the file that records them with a run."""

from __future__ import annotations

import json
import os
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from folds.config.recipe import Recipe, Settings, check, displace, known_settings
from folds.errors import EnsembleError, UsageError, close_matches
from folds.utils.toml import toml_value

CONFIG = Path("ensemble.toml")
RUN = "run"
TUNING = ("space", "tune")  # the tables of `ensemble tune`
# The hint where a run's record is damaged: nothing else knows what its folds were trained with.
DAMAGED = "--force, with all folds, trains it again from nothing; --name NEW begins another run"


def load_settings(
    flags: Mapping[str, Any], config: Path | None = None, run: Mapping[str, Any] | None = None, tuning: bool = False
) -> tuple[Settings, Recipe, dict[str, str]]:
    """Settings and recipe by precedence: flag > ENSEMBLE_* > `run` > `config` > ./ensemble.toml > default.

    Parameters
    ----------
    flags : key → value, None where a flag was not given.
    config : a TOML file; it must exist.
    run : one of `runs_of` the files.
    tuning : the files may have the tables of `ensemble tune`, which are passed over.

    Returns
    -------
    settings, recipe, and for every key that is not at its default where it came from.
    """
    known = known_settings()
    layers: list[tuple[str, Mapping[str, Any]]] = []
    if CONFIG.is_file():
        layers.append((str(CONFIG), _read_toml(CONFIG)))
    if config is not None:
        if not config.is_file():
            raise EnsembleError(f"there is no settings file {config}")
        layers.append((str(config), _read_toml(config)))
    wrong = next(((origin, key) for origin, layer in layers for key in TUNING if key in layer and not tuning), None)
    if wrong is not None:
        raise EnsembleError(
            f"{wrong[0]}: [{wrong[1]}] is not a setting of one training",
            hint=f"ensemble tune -c {wrong[0]} chooses from it",
        )
    layers = [
        (origin, {key: value for key, value in layer.items() if key not in (RUN, *TUNING)}) for origin, layer in layers
    ]
    if run is not None:
        layers.append(("[[run]]", run))
    layers.append(
        (
            "environment",
            {key: os.environ[f"ENSEMBLE_{key.upper()}"] for key in known if f"ENSEMBLE_{key.upper()}" in os.environ},
        )
    )
    layers.append(("flag", {key: value for key, value in flags.items() if value is not None}))

    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in layers:
        displace(values, layer)
        for key, value in layer.items():
            values[key] = _coerce(key, value, known[key], origin)
            origins[key] = origin
    settings = Settings(**{f.name: values[f.name] for f in fields(Settings) if f.name in values})
    recipe = Recipe(**{f.name: values[f.name] for f in fields(Recipe) if f.name in values})
    check(settings, recipe)
    return settings, recipe, {key: origin for key, origin in origins.items() if key in values}


def read_run_tables(config: Path | None = None) -> list[dict[str, Any]]:
    """The ``[[run]]`` tables of `config`, otherwise of ./ensemble.toml: what several runs of one command have each of their own.

    Raises
    ------
    EnsembleError : what is no list of tables, or a key that is no setting of a recipe, nor ``arch`` nor ``name``;
        two runs of one name.
    """
    path = config if config is not None else CONFIG
    tables = _read_toml(path).get(RUN, []) if path.is_file() else []
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise EnsembleError(f"{path}: 'run' must be tables", hint="write each as [[run]], followed by its settings")
    own = {f.name for f in fields(Recipe)} - {"seed"} | {"arch", "name"}
    read: list[dict[str, Any]] = []
    for number, table in enumerate(tables, 1):
        wrong = next((key for key in table if key.replace("-", "_") not in own), None)
        if wrong is not None:
            close = close_matches(wrong, own)
            meant = f"; did you mean {' or '.join(close)}?" if close else ""
            hint = "runs of one command share data and folds; each has its own arch, name and settings of training"
            raise EnsembleError(f"{path}: [[run]] {number}: '{wrong}' is not a setting of one run{meant}", hint=hint)
        name = table.get("name")
        if name is not None and name in [other.get("name") for other in read]:
            raise EnsembleError(
                f"{path}: [[run]] {number}: there is a run '{name}' already",
                hint="each [[run]] has a name of its own, or none",
            )
        read.append({key.replace("-", "_"): value for key, value in table.items()})
    return read


def tuning_of(config: Path | None = None) -> tuple[Path, Any, Any]:
    """The file that is meant (`config`, otherwise ./ensemble.toml), its ``[space]`` and its ``[tune]``; {} for what it does not have.

    Raises
    ------
    EnsembleError : there is no such file, or it is not TOML.
    """
    path = config if config is not None else CONFIG
    if not path.is_file():
        raise EnsembleError(
            f"there is no settings file {path}", hint="ensemble tune -c FILE, where FILE has a table [space]"
        )
    content = _read_toml(path)
    return path, content.get(TUNING[0], {}), content.get(TUNING[1], {})


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise EnsembleError(f"{path} is not TOML: {error}") from None
    known = known_settings()
    read: dict[str, Any] = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        if key in (RUN, *TUNING):
            read[key] = value
            continue
        if key == "resolved":  # what a run recorded beside its settings; a recorded config can be given again
            continue
        if name not in known:
            close = close_matches(name, known)
            meant = f"; did you mean {' or '.join(close)}?" if close else ""
            raise EnsembleError(f"{path}: unknown key '{key}'{meant}", hint="known: " + ", ".join(known))
        read[name] = value
    return read


def _coerce(key: str, value: Any, kind: Any, origin: str) -> Any:
    """`value` as the type of its key; text (from the environment, or where TOML is generous) is parsed."""
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if value is None or (isinstance(value, str) and value == "" and type(None) in options):
        return None
    target = next(option for option in options if option is not type(None))
    where = "" if origin == "flag" else f" (from {origin})"
    try:
        if target is bool:
            truth = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
            return value if isinstance(value, bool) else truth[str(value).lower()]
        if typing.get_origin(target) is tuple:
            parts = value.split(",") if isinstance(value, str) else list(value)
            return tuple(str(part).strip() for part in parts if str(part).strip())
        if typing.get_origin(target) is dict:
            return dict(json.loads(value) if isinstance(value, str) else value)
        if isinstance(value, bool | list | dict) or (
            target is int and isinstance(value, float) and not value.is_integer()
        ):
            raise ValueError
        return target(value)
    except (ValueError, KeyError, TypeError):
        name = getattr(target, "__name__", str(target))
        raise UsageError(f"{key} = {value!r}{where}: expected {name}") from None


def to_toml(settings: Settings, recipe: Recipe, resolved: Mapping[str, Any]) -> str:
    """The record of a run: every setting that has a value, and what was decided automatically under [resolved]."""
    flat = {
        key: value
        for key, value in (asdict(settings) | asdict(recipe)).items()
        if value is not None and value not in ({}, ())
    }
    lines = [f"{key} = {toml_value(value)}" for key, value in flat.items()]
    return "\n".join(
        [
            *lines,
            "",
            "[resolved]",
            *(f"{key} = {toml_value(value)}" for key, value in resolved.items() if value is not None),
            "",
        ]
    )


def read_record(path: Path) -> dict[str, Any]:
    """A recorded `config.toml` as plain values."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise EnsembleError(f"{path} cannot be read: {error}", hint=DAMAGED) from None
