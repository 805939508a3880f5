"""Find the settings of `Recipe` and `Settings` by name: their keys, spellings, defaults and parameters."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any

from folds.config.command_settings import Settings
from folds.config.frozen import LINEAR
from folds.config.recipe import Recipe
from folds.config.setting import PANELS, Setting, parameter_of, setting_of
from folds.errors import UsageError, unknown_name


@lru_cache(maxsize=1)
def all_settings() -> dict[str, Setting]:
    """Return every setting, by key: those of `Settings`, then those of `Recipe`."""
    return {
        described.name: setting_of(described, typing.get_type_hints(owner)[described.name])
        for owner in (Settings, Recipe)
        for described in fields(owner)
    }


@lru_cache(maxsize=1)
def _keys() -> dict[str, str]:
    return {spelling: one.key for one in all_settings().values() for spelling in one.spellings}


def key_of(name: str) -> str | None:
    """Return the key of a setting from any of its spellings, with ``-`` or ``_``; None for other names."""
    return _keys().get(name.replace("-", "_"))


def spelling_of(key: str) -> str:
    """Return the preferred spelling of a key (or of another spelling); other names are returned unchanged."""
    known = key_of(key)
    return key if known is None else all_settings()[known].spelling


def spellings_of(keys: Iterable[str]) -> list[str]:
    """Return all spellings of these keys, the preferred ones first; other names are kept unchanged."""
    known = [all_settings()[key].spellings if key in all_settings() else (key,) for key in keys]
    return [names[0] for names in known] + [name for names in known for name in names[1:]]


def known_hint(keys: Iterable[str] | None = None) -> str:
    """Return the hint of an error about an unknown setting: the preferred spellings of these keys, or of all."""
    return "known: " + ", ".join(spelling_of(key) for key in (all_settings() if keys is None else keys))


def by_key(values: Mapping[str, Any], location: str = "") -> dict[str, Any]:
    """Return values by key from values by any spelling; None ("not given") is omitted.

    Parameters
    ----------
    location : text in front of errors.

    Raises
    ------
    UsageError : an unknown setting (the closest names are suggested), or two spellings of one setting.
    """
    given: dict[str, tuple[str, Any]] = {}
    prefix = f"{location}: " if location else ""
    for name, value in values.items():
        if value is None:
            continue
        key = key_of(name)
        if key is None:
            error = unknown_name("setting", name, spellings_of(all_settings()), hint=known_hint())
            raise UsageError(f"{prefix}{error.message}", hint=error.hint)
        if key in given:
            raise UsageError(
                f"{prefix}`{given[key][0]}` and `{name}` are two spellings of one setting", hint="give one of them"
            )
        given[key] = name, value
    return _freeze_all({key: value for key, (_, value) in given.items()}, prefix)


def _freeze_all(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Return the settings with ``freeze=all`` as `features`, which it is another name of."""
    if values.get("freeze") != all_settings()["freeze"].word:
        return values
    if str(values.get("features", True)).lower() in ("false", "no", "0"):
        raise UsageError(f"{prefix}`freeze=all` and `features=False` contradict each other", hint="give one of them")
    return {key: value for key, value in values.items() if key != "freeze"} | {"features": True}


def setting_parameters() -> list[inspect.Parameter]:
    """Return all settings as keyword parameters of a Python function, by their preferred spellings, in the order of
    ``--help``.
    """
    by_panel = sorted(all_settings().values(), key=lambda one: PANELS.index(one.panel))
    return [parameter_of(one) for one in by_panel]


def known_settings() -> dict[str, Any]:
    """Return the type of each setting, by key."""
    return {key: one.kind for key, one in all_settings().items()}


# Settings that had a fixed default and now depend on others, such as the optimizer or the model.
_FORMER = {"weight_decay": 0.05, "label_smoothing": 0.1, "ema": 0.0, "layer_decay": 1.0, "head": LINEAR}


def default_of(key: str) -> Any:
    """Return the default of a setting, by any spelling; None if it has none or is an empty table.

    It is also the value of a record that does not have the setting.
    """
    known = key_of(key)
    if known in _FORMER:
        return _FORMER[known]
    default = None if known is None else all_settings()[known].default
    return None if default == {} else default
