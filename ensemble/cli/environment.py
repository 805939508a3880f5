"""Settings in the environment, ENSEMBLE_<NAME>: one that nothing would hear is an error, as an unknown key of a file is."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

from folds.errors import UsageError, nearest

PREFIX = "ENSEMBLE_"
# A word that overwrites is typed each time: a variable set once would take the guard off every later command.
NOT_FROM_ENVIRONMENT = ("force",)


def check_environment(command: Callable[..., Any]) -> None:
    """Refuse ENSEMBLE_* variables that no command knows, with the nearest that one does.

    Raises
    ------
    UsageError : an unknown variable, or one for what must be typed.
    """
    given = sorted(name for name in os.environ if name.startswith(PREFIX))
    for name in given:
        if name in map(_variable, NOT_FROM_ENVIRONMENT):
            option = name.removeprefix(PREFIX).lower()
            raise UsageError(
                f"{name} is set, but --{option} is not taken from the environment", hint=f"unset {name}; type --{option} where it is meant"
            )
    if set(given) <= _variables_of(command):
        return
    # Only now the other commands are imported: a variable for one of them is no mistake.
    known = _known()
    for name in given:
        if name not in known:
            close = nearest(name.removeprefix(PREFIX), [other.removeprefix(PREFIX) for other in known], most=1)
            meant = f"; did you mean {PREFIX}{close[0]}?" if close else ""
            raise UsageError(f"unknown environment variable {name}{meant}", hint=f"unset {name}, or name it after an option, as {PREFIX}EPOCHS")


def _known() -> set[str]:
    from ensemble.cli import COMMANDS
    from folds.config.recipe import known_keys

    commands = [getattr(importlib.import_module(f"ensemble.cli.{name}"), name) for name in COMMANDS]
    return set(map(_variable, known_keys())).union(*map(_variables_of, commands)) - set(map(_variable, NOT_FROM_ENVIRONMENT))


def _variables_of(command: Callable[..., Any]) -> set[str]:
    import inspect

    return set(map(_variable, inspect.signature(command).parameters))


def _variable(name: str) -> str:
    return f"{PREFIX}{name.strip('_').upper()}"
