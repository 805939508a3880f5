"""Complete commands, flags and names of runs for a shell, without the heavy libraries."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ensemble.cli.terminal.parser import build_parser
from folds.predictions.named import prediction_names

EVERYWHERE = ("--help", "--json", "--quiet", "--wide", "--debug")
# Command → the words that may follow it at once; commands that take names of runs, and options that do.
WORDS = {"folds": ("check",), "completion": ("bash", "zsh", "fish")}
TAKE_RUNS = ("blend", "tta", "runs diff", "runs note", "runs show", "runs rm", "runs rename", "runs mv")
RUN_OPTIONS = ("--resume", "--baseline", "--init-run", "--run")


def candidates(words: Sequence[str], commands: Sequence[str], runs: Path = Path("runs")) -> list[str]:
    """Return what the last word can become.

    Parameters
    ----------
    words : the words of the command line after ``ensemble``; the last one is being typed and may be "".
    commands : the names of all commands.
    """
    *before, typed = words or [""]
    if not before:
        return _beginning(typed, [*commands, *EVERYWHERE, "--version"])
    name = before[0]
    if name not in commands:
        return []
    module = importlib.import_module(f"ensemble.cli.commands.{name}")
    subcommands: Mapping[str, Any] = getattr(module, "SUBCOMMANDS", {})
    command = getattr(module, name)
    if len(before) > 1 and before[1] in subcommands:
        command, name = subcommands[before[1]], f"{name} {before[1]}"
    if typed.startswith("-"):
        parser = build_parser(name, command)
        flags = [flag for one in parser.params for flag in (*one.opts, *one.secondary_opts) if flag.startswith("--")]
        return _beginning(typed, [*flags, *EVERYWHERE])
    found = [*subcommands, *WORDS.get(name, ())] if len(before) == 1 else []
    if name in TAKE_RUNS or before[-1] in RUN_OPTIONS:
        found += _names(runs)
    elif before[-1].startswith("--"):
        found += _choices(build_parser(name, command), before[-1])
    return _beginning(typed, found)


def _names(runs: Path) -> list[str]:
    started = {path.parent.name for path in runs.glob("*/config.toml")}
    return sorted({*prediction_names(runs), *started})


def _choices(parser: Any, flag: str) -> list[str]:
    """Return the values of a setting that has a fixed list of them."""
    from folds.config.lookup import all_settings, key_of

    name = next((one.name for one in parser.params if flag in one.opts), None)
    key = None if name is None else key_of(name)
    return [] if key is None else [str(choice) for choice in all_settings()[key].choices or ()]


def _beginning(typed: str, words: Sequence[str]) -> list[str]:
    return [word for word in dict.fromkeys(words) if word.startswith(typed)]
