"""The command line: one module a command, imported only when that command is called."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ensemble import __version__
from ensemble.cli.terminal import console
from folds.errors import EnsembleError, Interrupted, UsageError, close_matches, unknown_name

Panels = Mapping[str, Sequence[str]]  # title → names of parameters, in the order shown


REST = "This command"


def in_panels(parser: Any, panels: Panels) -> None:
    """Make the help of a typer command list its options under these titles; those that none names come last."""
    title = {name: heading for heading, names in panels.items() for name in names}

    def format_options(ctx: Any, formatter: Any) -> None:
        records: dict[str, list[tuple[str, str]]] = {heading: [] for heading in [*panels, REST]}
        by_name = {parameter.name: parameter for parameter in parser.get_params(ctx)}
        ordered = [name for names in panels.values() for name in names if name in by_name]
        for name in [*ordered, *(name for name in by_name if name not in title)]:
            record = by_name[name].get_help_record(ctx)
            if record is not None:
                records[title.get(name, REST)].append(record)
        for heading, lines in records.items():
            if lines:
                with formatter.section(heading):
                    formatter.write_dl(lines)

    if panels:
        parser.format_options = format_options


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
                f"{name} is set, but --{option} is not taken from the environment",
                hint=f"unset {name}; type --{option} where it is meant",
            )
    if set(given) <= _variables_of(command):
        return
    # Only now the other commands are imported: a variable for one of them is no mistake.
    known = _known()
    for name in given:
        if name not in known:
            close = close_matches(name.removeprefix(PREFIX), [other.removeprefix(PREFIX) for other in known], most=1)
            meant = f"; did you mean {PREFIX}{close[0]}?" if close else ""
            raise UsageError(
                f"unknown environment variable {name}{meant}",
                hint=f"unset {name}, or name it after an option, as {PREFIX}EPOCHS",
            )


def _known() -> set[str]:
    from ensemble.cli.app import COMMANDS
    from folds.config.recipe import known_keys

    commands = [getattr(importlib.import_module(f"ensemble.cli.commands.{name}"), name) for name in COMMANDS]
    return set(map(_variable, known_keys())).union(*map(_variables_of, commands)) - set(
        map(_variable, NOT_FROM_ENVIRONMENT)
    )


def _variables_of(command: Callable[..., Any]) -> set[str]:
    import inspect

    return set(map(_variable, inspect.signature(command).parameters))


def _variable(name: str) -> str:
    return f"{PREFIX}{name.strip('_').upper()}"


# name → the line in `ensemble --help`. The module ensemble.cli.<name> holds a function of that name; nothing of it is
# imported for the help, which is why the lines stand here.
COMMANDS = {
    "demo": "draw people, train, blend, TTA: the whole road in minutes on a CPU",
    "prepare": "a new image set: cut to faces, backgrounds replaced; originals untouched",
    "folds": "split a table by person; folds check: audit the data and a split",
    "kfold": "train one model per fold and architecture; write out-of-fold and test predictions",
    "tune": "choose settings on one fold: many short trainings, the hopeless stopped early",
    "blend": "combine prediction files by voting, lined up by id",
    "tta": "test-time augmentation of a checkpoint or a run",
    "runs": "the experiments so far: list, filter, compare two, note what was learnt",
    "doctor": "look at the installation: versions, devices, mismatched packages",
}
CONTEXT = {"auto_envvar_prefix": "ENSEMBLE", "help_option_names": ["-h", "--help"], "max_content_width": 110}
NOTHING_HALF_WRITTEN = "what was written is whole, the rest is not there"

USAGE = """usage: ensemble COMMAND [OPTIONS]

k-fold training and honest ensembling of image classifiers, split by person

{commands}

options everywhere:
  --help      what a command takes
  --json      print one JSON object instead of text
  -q --quiet  no progress and notes, only the result
  --debug     show the traceback of an error
  --version   print the version

next: ensemble demo
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program and leave with its exit code: 0 done, 1 wrong input, 2 wrong usage, 3 folds failed, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    console.words = list(words)
    debug = _take(words, "--debug")
    console.as_json = _take(words, "--json")
    console.quiet = _take(words, "-q", "--quiet")
    console.flags = {}
    try:
        with console.printing_logs():
            code = _run(words)
    except KeyboardInterrupt:
        code = _explain(Interrupted(NOTHING_HALF_WRITTEN))
    except BrokenPipeError:
        # The reader (head, less) has gone: nothing to report, and Python must not complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        if debug:
            raise
        code = _explain(error)
    sys.exit(code)


def _take(words: list[str], *flags: str) -> bool:
    end = words.index("--") if "--" in words else len(words)
    found = [i for i in range(end) if words[i] in flags]
    for i in reversed(found):
        del words[i]
    return bool(found)


def _run(words: list[str]) -> int:
    if words[:1] == ["--version"]:
        print(f"ensemble {__version__}")
        return 0
    if not words or words[0] in ("--help", "-h", "help"):
        width = max(map(len, COMMANDS))
        print(USAGE.format(commands="\n".join(f"  {name:{width}}  {line}" for name, line in COMMANDS.items())), end="")
        return 0
    name, *rest = words
    if name not in COMMANDS:
        raise unknown_name("command", name, list(COMMANDS), hint="ensemble --help lists the commands")
    module = importlib.import_module(f"ensemble.cli.commands.{name}")
    command: Callable[..., Any] = getattr(module, name)

    # Typer's rich help costs .14 s a start; its plain help does not.
    os.environ.setdefault("TYPER_USE_RICH", "0")
    import typer

    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(name, context_settings=CONTEXT)(command)
    parser = typer.main.get_command(app)
    in_panels(parser, getattr(module, "PANELS", {}))
    for parameter in parser.params:
        parameter.show_envvar = False  # type: ignore[attr-defined]  # one sentence in the help of kfold says it for all
        parameter.allow_from_autoenv = parameter.name not in NOT_FROM_ENVIRONMENT  # type: ignore[attr-defined]
    console.flags = _flags_of(parser)
    parser.callback = _interruptible(parser.callback)
    if not {"--help", "-h"} & set(rest):
        check_environment(command)
    code = parser.main(args=rest, prog_name=f"ensemble {name}", standalone_mode=False)
    return code if isinstance(code, int) else 0


def _flags_of(parser: Any) -> dict[str, str]:
    """Return, for every spelling of every parameter of a command, the flag that messages show (see `folds.errors`)."""
    flags: dict[str, str] = {}
    for parameter in parser.params:
        long = [option for option in parameter.opts if option.startswith("--")]
        if long:
            names = [parameter.name, *(option.lstrip("-").replace("-", "_") for option in long)]
            flags |= dict.fromkeys(names, long[0])
    return flags


def _interruptible(command: Callable[..., Any] | None) -> Callable[..., Any]:
    """`command`, whose Ctrl-C is an error of ours before typer, which treats it otherwise in every version, sees it."""

    def run(*values: Any, **named: Any) -> Any:
        assert command is not None  # noqa: S101 - every command has a function
        try:
            return command(*values, **named)
        except KeyboardInterrupt:
            raise Interrupted(NOTHING_HALF_WRITTEN) from None

    return run


def _explain(error: Exception) -> int:
    if isinstance(error, EnsembleError):
        for line in error.lines(console.spelled):
            print(line, file=sys.stderr)
        return error.exit_code
    if hasattr(error, "format_message") and hasattr(
        error, "exit_code"
    ):  # typer's own usage errors, under any of its versions
        usage = UsageError(
            " ".join(error.format_message().split()).rstrip("."), hint="add --help to see what the command takes"
        )
        return _explain(usage)
    if type(error).__name__ == "Exit":
        return int(getattr(error, "exit_code", 0))
    print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
    print("hint: this is a fault of the program; add --debug to see where, and report it", file=sys.stderr)
    return 1
