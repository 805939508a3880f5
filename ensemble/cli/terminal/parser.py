"""Parse the flags and environment variables of a command: typer's parser, panels in its help, spellings of options."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

from folds.errors import Interrupted, UsageError, close_matches

# Options that overwrite files must be typed each time: a variable would apply to every later command.
NOT_FROM_ENVIRONMENT = ("force",)
ARGUMENTS, REST = "Arguments", "This command"
PREFIX = "ENSEMBLE_"
CONTEXT = {"auto_envvar_prefix": "ENSEMBLE", "help_option_names": ["-h", "--help"], "max_content_width": 110}
NO_PARTIAL_FILES = "no partial files were written"


def build_parser(name: str, command: Callable[..., Any]) -> Any:
    """Return typer's parser of a function, with panels in its help, handling of Ctrl-C, and variables per spelling."""
    # Typer's rich help adds 0.14 s to each start; its plain help does not.
    os.environ.setdefault("TYPER_USE_RICH", "0")
    import typer

    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(name, context_settings=CONTEXT)(command)
    parser: Any = typer.main.get_command(app)
    _show_panels(parser)
    settings = getattr(command, "settings", ())  # load_settings reads their variables, and handles the precedence
    for parameter in parser.params:
        parameter.show_envvar = False  # the help of kfold explains the variables once
        parameter.allow_from_autoenv = parameter.name not in (*NOT_FROM_ENVIRONMENT, *settings)
        spellings = _spellings(parameter)
        if parameter.allow_from_autoenv and len(spellings) > 1 and parameter.envvar is None:
            parameter.envvar = list(map(_variable, spellings))
    parser.callback = _interruptible(parser.callback)
    return parser


def flags_of(parser: Any) -> dict[str, str]:
    """Return, for every spelling of every parameter of a command, the flag that messages show (see `folds.errors`)."""
    flags: dict[str, str] = {}
    for parameter in parser.params:
        long = [option for option in parameter.opts if option.startswith("--")]
        if long:
            names = [parameter.name, *(option.lstrip("-").replace("-", "_") for option in long)]
            flags |= dict.fromkeys(names, long[0])
    return flags


def typed_options(parser: Any, words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return the options of a typed command, in order: (parameter, its words), ``("images", ["--images", "test"])``.

    Parameters
    ----------
    words : the command without its name.
    """
    by_flag = {flag: one for one in parser.params for flag in (*one.opts, *one.secondary_opts) if flag[:1] == "-"}
    found, at = [], 0
    while at < len(words) and words[at] != "--":
        flag, equals, _ = words[at].partition("=")
        joined = not flag.startswith("--") and len(flag) > 2 and flag not in by_flag  # -k5
        option = by_flag.get(flag[:2] if joined else flag)
        if option is None:
            at += 1
            continue
        end = at + (1 if equals or joined or getattr(option, "is_flag", False) else 2)
        found.append((option.name, list(words[at:end])))
        at = end
    return found


def _interruptible(command: Callable[..., Any] | None) -> Callable[..., Any]:
    """Return `command` with Ctrl-C raised as `Interrupted`, because typer's own handling depends on its version."""

    def run(*values: Any, **named: Any) -> Any:
        assert command is not None  # noqa: S101 - every command has a function
        try:
            return command(*values, **named)
        except KeyboardInterrupt:
            raise Interrupted(NO_PARTIAL_FILES) from None

    return run


def _show_panels(parser: Any) -> None:
    """Make the help of a typer command list its options under their `rich_help_panel`, in their preferred spelling.

    Arguments come first, options without a panel last. If no option has a panel, they are under "Options", typer's
    default.
    """
    from ensemble.cli.terminal.options import FIRST_PANELS, LAST_PANELS

    def format_options(ctx: Any, formatter: Any) -> None:
        records: dict[str, list[tuple[str, str]]] = {}
        for parameter in parser.get_params(ctx):
            record = _in_one_spelling(parameter).get_help_record(ctx)
            if record is not None:
                panel = getattr(parameter, "rich_help_panel", None) or REST
                records.setdefault(ARGUMENTS if parameter.param_type_name == "argument" else panel, []).append(record)
        own = [title for title in records if title not in (*FIRST_PANELS, *LAST_PANELS, ARGUMENTS, REST)]
        titles = [title for title in (ARGUMENTS, *FIRST_PANELS, *own, *LAST_PANELS) if title in records]
        for title in [*titles, REST]:
            with formatter.section("Options" if title == REST and set(titles) <= {ARGUMENTS} else title):
                formatter.write_dl(records[title])

    parser.format_options = format_options


def _in_one_spelling(parameter: Any) -> Any:
    """Return a copy of an option that shows only its letter and its first long flag, not its other spellings."""
    shown = copy(parameter)
    for name in ("opts", "secondary_opts"):
        flags = getattr(parameter, name)
        long = [flag for flag in flags if flag.startswith("--")]
        setattr(shown, name, [flag for flag in flags if flag not in long[1:]])
    return shown


def _spellings(parameter: Any) -> list[str]:
    """Return the names of the long flags of an option, the preferred one first: ``["resize", "fit"]``."""
    return [flag.lstrip("-").replace("-", "_") for flag in parameter.opts if flag.startswith("--")]


def check_spellings(parser: Any, words: Sequence[str]) -> None:
    """Raise an error if a command contains two spellings of one option, because they could have different values."""
    typed = {word.partition("=")[0] for word in words[: words.index("--") if "--" in words else len(words)]}
    for parameter in parser.params:
        long = [flag for flag in parameter.opts if flag.startswith("--")]
        no = [flag for flag in parameter.secondary_opts if flag.startswith("--")]
        given = [flag for i, flag in enumerate(long) if typed & {flag, *no[i : i + 1]}]
        if len(given) > 1:
            raise UsageError(f"{given[0]} and {given[1]} are two spellings of one option", hint="give one of them")


def check_environment(command: Callable[..., Any], commands: Sequence[str]) -> None:
    """Raise an error if an ENSEMBLE_* environment variable is invalid.

    Parameters
    ----------
    commands : the names of all commands, whose variables are known, too.

    Raises
    ------
    UsageError : a variable that no command knows (with close matches), a variable for an option that must be typed, or
        two spellings of one option.
    """
    given = sorted(name for name in os.environ if name.startswith(PREFIX))
    if not given:
        return
    for name in given:
        if name in map(_variable, NOT_FROM_ENVIRONMENT):
            option = name.removeprefix(PREFIX).lower()
            raise UsageError(
                f"{name} is set, but --{option} cannot be set by an environment variable",
                hint=f"unset {name}, and type --{option} instead",
            )
    own = _variables_of(command)
    for spellings in own:
        twice = [name for name in spellings if name in given]
        if len(twice) > 1:
            raise UsageError(f"{twice[0]} and {twice[1]} are two spellings of one option", hint="unset one of them")
    if set(given) <= {name for spellings in own for name in spellings}:
        return
    # A variable can be for another command; the other commands are imported only now, because it takes time.
    known = _known_variables(commands)
    for name in given:
        if name not in known:
            close = close_matches(name.removeprefix(PREFIX), [other.removeprefix(PREFIX) for other in known], most=1)
            meant = f"; did you mean {PREFIX}{close[0]}?" if close else ""
            raise UsageError(
                f"unknown environment variable {name}{meant}",
                hint=f"unset {name}, or name it after an option, as {PREFIX}EPOCHS",
            )


def _known_variables(names: Sequence[str]) -> set[str]:
    from folds.config.lookup import all_settings, spellings_of

    modules = {name: importlib.import_module(f"ensemble.cli.commands.{name}") for name in names}
    commands = [getattr(module, name) for name, module in modules.items()]
    commands += [one for module in modules.values() for one in getattr(module, "SUBCOMMANDS", {}).values()]
    options = {name for command in commands for spellings in _variables_of(command) for name in spellings}
    settings = set(map(_variable, spellings_of(all_settings())))
    return (options | settings) - set(map(_variable, NOT_FROM_ENVIRONMENT))


def _variables_of(command: Callable[..., Any]) -> list[list[str]]:
    """Return the environment variables of each parameter of a command, one per spelling."""
    return [
        [_variable(name) for name in dict.fromkeys([parameter.name, *_spellings(parameter)])]
        for parameter in build_parser("command", command).params
    ]


def _variable(name: str) -> str:
    return f"{PREFIX}{name.strip('_').upper()}"
