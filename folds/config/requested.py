"""Find the recipes that one command trains: those of a sweep, or of the ``[[run]]`` tables of a settings file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from folds.config.files import load_settings, read_run_tables
from folds.config.lookup import spelling_of
from folds.config.sweep import RequestedRecipe, parse_sweep
from folds.errors import UsageError


def requested_recipes(
    flags: Mapping[str, Any], config: Path | None, sweep: Sequence[str] = (), *, implicit: bool = True
) -> list[RequestedRecipe]:
    """Return the recipes of a sweep, or of the ``[[run]]`` tables of the settings file; [] for a single recipe.

    Parameters
    ----------
    flags : key of a setting → value, None if not given.
    sweep : texts as `parse_sweep` takes them.
    implicit : whether the environment and ./ensemble.toml count, as in `load_settings`.

    Raises
    ------
    UsageError : a setting is given and swept, a sweep and tables are given, or a table has several architectures.
    """
    points = parse_sweep(sweep) if sweep else ()
    given = {key for key, value in flags.items() if value is not None}
    twice = next((spelling_of(key) for point in points for key in point.values if key in given), None)
    if twice is not None:
        raise UsageError(f"`{twice}` and `sweep` {twice} contradict each other", hint=f"remove `{twice}`")
    requested = [
        RequestedRecipe(point.suffix, load_settings({**flags, **point.values}, config, implicit=implicit)[1])
        for point in points
    ]
    tables = read_run_tables(config) if implicit or config is not None else []
    for number, table in enumerate(tables, 1):
        if sweep:
            raise UsageError("`sweep` and [[run]] tables contradict each other", hint="remove one of them")
        own, recipe, _ = load_settings(flags, config, table, implicit=implicit)
        if len(own.arch) != 1:
            raise UsageError(
                f"[[run]] {number}: expected one architecture, found {', '.join(own.arch)}",
                hint="write one [[run]] per architecture",
            )
        requested.append(RequestedRecipe(str(table.get("name", "")), recipe, own.arch[0]))
    return requested
