"""Read settings from flags, the environment and TOML files by precedence, and write the file that records them with a
run.
"""

from __future__ import annotations

import json
import logging
import os
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from folds.config.checks import check
from folds.config.command_settings import Settings
from folds.config.contradictions import displace
from folds.config.lookup import all_settings, by_key, key_of, known_hint, spelling_of, spellings_of
from folds.config.presets import preset_settings
from folds.config.recipe import Recipe
from folds.config.trust import CODE, check_trusted
from folds.errors import EnsembleError, UsageError, close_matches
from folds.utils.csv_table import cannot_read
from folds.utils.files import relocated
from folds.utils.schema import shown
from folds.utils.toml import read_toml, toml_value

logger = logging.getLogger(__name__)

CONFIG = Path("ensemble.toml")
RUN = "run"
TUNING = ("space", "tune")  # tables of `ensemble tune`
# Hint for a damaged record of a run: the settings of its folds are recorded only there.
DAMAGED = "retrain all folds from scratch with `force`, or start another run with `name=NEW`"


def load_settings(
    flags: Mapping[str, Any],
    config: Path | None = None,
    run: Mapping[str, Any] | None = None,
    tuning: bool = False,
    implicit: bool = True,
    runs_code: bool = True,
) -> tuple[Settings, Recipe, dict[str, str]]:
    """Return settings and recipe by precedence: flag > ENSEMBLE_* > `run` > `config` > ./ensemble.toml > default.

    Parameters
    ----------
    flags : setting, in any spelling → value, None if not given.
    config : a TOML file; it must exist.
    run : one of `read_run_tables`.
    tuning : whether the files may have the tables of `ensemble tune`, which are ignored here.
    implicit : False ignores the environment and ./ensemble.toml, so Python code uses only its arguments.
    runs_code : whether the command imports the code that settings name (`folds.config.trust`).

    Returns
    -------
    settings, recipe, and the origin of every key that is not at its default.

    Raises
    ------
    EnsembleError : a file is missing, is not TOML or has an unknown key; or ./ensemble.toml names code and is not
        trusted.
    UsageError : an unknown setting, two spellings of one setting in the same place, or an invalid value.
    """
    layers = [(origin, by_key(layer, origin)) for origin, layer in _file_layers(config, tuning, implicit)]
    layers.append(("[[run]]", by_key(run or {}, "[[run]]")))
    layers.append(("environment", by_key(_environment() if implicit else {}, "environment")))
    layers.append(("flag", by_key(flags)))

    known = all_settings()
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in layers:
        displace(values, layer)
        for key, value in layer.items():
            values[key] = _coerce(key, value, known[key].kind, origin)
            origins[key] = origin
    _follow_moved(values, origins, layers)
    known["preset"].check(values.get("preset"))
    for key, value in preset_settings(values.get("preset"), values).items():
        if not (tuning and key == "seeds"):  # a study has its own way to average over seeds
            values[key], origins[key] = value, f"preset {values['preset']}"
    if runs_code and (config is None or config.resolve() != CONFIG.resolve()):
        lying = {key: values[key] for key in CODE if key in values and origins[key] == str(CONFIG)}
        check_trusted(CONFIG, lying)
    settings = Settings(**{f.name: values[f.name] for f in fields(Settings) if f.name in values})
    recipe = Recipe(**{f.name: values[f.name] for f in fields(Recipe) if f.name in values})
    check(settings, recipe)
    return settings, recipe, {key: origin for key, origin in origins.items() if key in values}


def given_numbers(origins: Mapping[str, str]) -> dict[str, bool]:
    """Return whether `k` and `seeds` were chosen, not left open or decided by a preset, as `build_plan` takes it.

    Parameters
    ----------
    origins : of `load_settings`.
    """
    return {f"{key}_given": not origins.get(key, "preset").startswith("preset") for key in ("k", "seeds")}


def _follow_moved(
    values: dict[str, Any], origins: Mapping[str, str], layers: Sequence[tuple[str, Mapping[str, Any]]]
) -> None:
    """Let `test` of a settings file follow a table that was moved with it, if a flag names the table's new place.

    What was replaced is logged.
    """
    before = [layer["data"] for origin, layer in layers if "data" in layer and origin != "flag"]
    test = values.get("test")
    if origins.get("data") != "flag" or origins.get("test") in (None, "flag") or not before or test is None:
        return
    found = None if test.exists() else relocated(test, Path(str(before[-1])), values["data"])
    if found is not None:
        logger.info(f"test: {found} (moved with the table; {origins['test']} names {test}, which is not there)")
        values["test"] = found


def _file_layers(config: Path | None, tuning: bool, implicit: bool) -> list[tuple[str, dict[str, Any]]]:
    """Return the settings of ./ensemble.toml and of `config`, in this order, without the tables for other commands."""
    layers: list[tuple[str, dict[str, Any]]] = []
    if implicit and CONFIG.is_file():
        layers.append((str(CONFIG), _read_toml(CONFIG)))
    if config is not None:
        if not config.is_file():
            raise EnsembleError(f"there is no settings file {config}")
        layers.append((str(config), _read_toml(config)))
    wrong = next(((origin, key) for origin, layer in layers for key in TUNING if key in layer and not tuning), None)
    if wrong is not None:
        raise EnsembleError(
            f"{wrong[0]}: [{wrong[1]}] is not a setting of one training",
            hint=f"ensemble tune -c {wrong[0]}",
        )
    return [
        (origin, {key: value for key, value in layer.items() if key not in (RUN, *TUNING)}) for origin, layer in layers
    ]


def variable_of(name: str) -> str:
    """Return the environment variable of a setting or an option: ``ENSEMBLE_BATCH_SIZE`` for ``batch_size``."""
    return f"ENSEMBLE_{name.strip('_').upper()}"


def _environment() -> dict[str, str]:
    """Return the settings given as environment variables, by the spelling used."""
    names = spellings_of(all_settings())
    return {name: os.environ[variable_of(name)] for name in names if variable_of(name) in os.environ}


def given_settings(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given settings of a command that reads no settings file: flags, else environment variables, by key.

    Parameters
    ----------
    flags : setting → value, None if not given; settings that are no keys of it are not read.

    Raises
    ------
    UsageError : an unknown setting, or a value of another type.
    """
    keys = {key_of(name) for name in flags}
    values = {
        key: _coerce(key, value, all_settings()[key].kind, "environment")
        for key, value in by_key(_environment(), "environment").items()
        if key in keys
    }
    values |= {key: _coerce(key, value, all_settings()[key].kind, "flag") for key, value in by_key(flags).items()}
    for key in values:
        all_settings()[key].check(values[key])
    return values


def settings_in_environment() -> bool:
    """Return whether any setting is given as an environment variable."""
    return bool(_environment())


def read_run_tables(config: Path | None = None) -> list[dict[str, Any]]:
    """Return the ``[[run]]`` tables of `config`, or of ./ensemble.toml: the settings of each of several runs of one
    command.

    Raises
    ------
    EnsembleError : ``run`` is not a list of tables, a key is neither a setting of a recipe nor ``arch`` nor ``name``,
        or two runs have the same name.
    """
    path = config if config is not None else CONFIG
    tables = _read_toml(path).get(RUN, []) if path.is_file() else []
    if config is None:
        check_trusted(path, tables)
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise EnsembleError(f"{path}: 'run' must be tables", hint="write each as [[run]], followed by its settings")
    own = [f.name for f in fields(Recipe) if f.name != "seed"] + ["arch", "name"]
    read: list[dict[str, Any]] = []
    for number, given in enumerate(tables, 1):
        wrong = next((key for key in given if key_of(key) not in own), None)
        if wrong is not None:
            close = close_matches(wrong, spellings_of(own))
            suggestion = f"; did you mean {' or '.join(close)}?" if close else ""
            hint = "runs of one command share data and folds; each has its own arch, name and settings of training"
            raise EnsembleError(
                f"{path}: [[run]] {number}: '{wrong}' is not a setting of one run{suggestion}", hint=hint
            )
        table = by_key(given, f"{path}: [[run]] {number}")
        name = table.get("name")
        if name is not None and name in [other.get("name") for other in read]:
            raise EnsembleError(
                f"{path}: [[run]] {number}: there is a run '{name}' already",
                hint="give each [[run]] a different name, or none",
            )
        read.append(table)
    return read


def tuning_of(config: Path | None = None) -> tuple[Path, Any, Any]:
    """Return the settings file (`config`, otherwise ./ensemble.toml), its ``[space]`` and its ``[tune]``; {} for a
    missing table.

    Raises
    ------
    EnsembleError : the file does not exist or is not TOML.
    """
    path = config if config is not None else CONFIG
    if not path.is_file():
        raise EnsembleError(
            f"there is no settings file {path}", hint="ensemble tune -c FILE, where FILE has a table [space]"
        )
    content = _read_toml(path)
    if config is None:
        check_trusted(path, {name: content[name] for name in TUNING if name in content})
    return path, content.get(TUNING[0], {}), content.get(TUNING[1], {})


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        content = read_toml(path)
    except ValueError as error:
        raise EnsembleError(f"{path} is not TOML: {error}") from None
    except OSError as error:
        raise cannot_read(path, error) from None
    read: dict[str, Any] = {}
    for key, value in content.items():
        if key in (RUN, *TUNING):
            read[key] = value
            continue
        if key == "resolved":  # automatic decisions recorded by a run; ignored when its config is given again
            continue
        if key_of(key) is None:
            known = spellings_of(all_settings())
            close = close_matches(key.replace("-", "_"), known)
            suggestion = f"; did you mean {' or '.join(close)}?" if close else ""
            raise EnsembleError(f"{path}: unknown key '{key}'{suggestion}", hint=known_hint())
        read[key] = value
    if "resolved" in content and "init" in read and read.get("pretrained") is False:
        del read["pretrained"]  # a record says both; given together, they would contradict each other
    return read


# Types of settings in the words of messages.
_EXPECTED = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    tuple: "a name or a list of names",
    dict: "a table of names and values",
}


def _coerce(key: str, value: Any, kind: Any, origin: str) -> Any:
    """Return `value` as the type of its key; text (from the environment, or strings in TOML) is parsed."""
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if value is None or (isinstance(value, str) and value == "" and type(None) in options):
        return None
    target = next(option for option in options if option is not type(None))
    source = "" if origin == "flag" else f" (from {origin})"
    try:
        if target is bool:
            booleans = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
            return value if isinstance(value, bool) else booleans[str(value).lower()]
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
        expected = _EXPECTED.get(typing.get_origin(target) or target, "another type")
        raise UsageError(f"{spelling_of(key)} = {shown(value, 200)}{source}: expected {expected}") from None


def to_toml(settings: Settings, recipe: Recipe, resolved: Mapping[str, Any]) -> str:
    """Return the record of a run: every setting with a value, and automatic decisions under [resolved]."""
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
    """Return a recorded `config.toml` as plain values; raise EnsembleError if it cannot be read."""
    try:
        return read_toml(path)
    except (OSError, ValueError) as error:
        raise EnsembleError(f"{path} cannot be read: {error}", hint=DAMAGED) from None
