"""The command line: one module per command, imported only when that command is called."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ensemble import __version__
from ensemble.cli.terminal import console
from ensemble.cli.terminal.commands import COMMANDS, MEANT
from ensemble.cli.terminal.parser import NO_PARTIAL_FILES, build_parser, check_environment, check_spellings, flags_of
from folds.errors import EnsembleError, Interrupted, UsageError, unknown_name

USAGE = """usage: ensemble COMMAND [OPTIONS]

person-grouped k-fold training and leakage-free ensembling of image classifiers

{commands}

options everywhere:
  --help      show the options of a command
  --json      print one JSON object instead of text, also for an error
  -q --quiet  print the result only, no progress and no notes
  --wide      show all columns of tables (without it they fit in 100 characters)
  --debug     show the traceback of an error
  --version   print the version

next: ensemble demo
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program and exit: 0 success, 1 invalid input, 2 invalid usage, 3 failed folds, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    console.words = list(words)
    debug = _take(words, "--debug")
    console.as_json = _take(words, "--json")
    console.quiet = _take(words, "-q", "--quiet")
    console.wide = _take(words, "--wide")
    console.flags, console.answered = {}, False
    try:
        with console.printing_logs():
            code = _run(words)
    except KeyboardInterrupt:
        code = _explain(Interrupted(NO_PARTIAL_FILES))
    except BrokenPipeError:
        # The reader of stdout (head, less) has ended. Redirect stdout, or Python prints an error at exit.
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
        if name in MEANT:
            raise UsageError(f"unknown command '{name}'; did you mean {MEANT[name]}?", hint=f"ensemble {MEANT[name]}")
        raise unknown_name("command", name, list(COMMANDS), hint="ensemble --help lists the commands")
    module = importlib.import_module(f"ensemble.cli.commands.{name}")
    command: Callable[..., Any] = getattr(module, name)
    subcommands: dict[str, Callable[..., Any]] = getattr(module, "SUBCOMMANDS", {})
    if rest and rest[0] in subcommands:
        name, command, rest = f"{name} {rest[0]}", subcommands[rest[0]], rest[1:]

    parser = build_parser(name, command)
    console.flags = flags_of(parser)
    if not {"--help", "-h"} & set(rest):
        check_environment(command, list(COMMANDS))
        check_spellings(parser, rest)
    code = parser.main(args=rest, prog_name=f"ensemble {name}", standalone_mode=False)
    return code if isinstance(code, int) else 0


def _explain(error: Exception) -> int:
    if isinstance(error, EnsembleError):
        for line in error.lines(console.spelled):
            print(line, file=sys.stderr)
        console.error_result(error.message, error.hint, error.details, error.exit_code)
        return error.exit_code
    if hasattr(error, "format_message") and hasattr(
        error, "exit_code"
    ):  # typer's own usage errors, under any of its versions
        usage = UsageError(
            " ".join(error.format_message().split()).rstrip("."), hint="--help shows the options of the command"
        )
        return _explain(usage)
    if type(error).__name__ == "Exit":
        return int(getattr(error, "exit_code", 0))
    message, hint = (
        f"{type(error).__name__}: {error}",
        "internal error: rerun with --debug for a traceback and report it",
    )
    print(f"error: {message}", file=sys.stderr)
    print(f"hint: {hint}", file=sys.stderr)
    console.error_result(message, hint, (), 1)
    return 1
