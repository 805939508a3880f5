"""The command line: one module a command, imported only when that command is called."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ensemble import __version__
from ensemble.cli.environment import NOT_FROM_ENVIRONMENT, check_environment
from ensemble.cli.help import in_panels
from ensemble.cli.terminal import console
from folds.errors import EnsembleError, Interrupted, UsageError, unknown

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
    try:
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
        raise unknown("command", name, list(COMMANDS), hint="ensemble --help lists the commands")
    module = importlib.import_module(f"ensemble.cli.{name}")
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
    parser.callback = _interruptible(parser.callback)
    if not {"--help", "-h"} & set(rest):
        check_environment(command)
    code = parser.main(args=rest, prog_name=f"ensemble {name}", standalone_mode=False)
    return code if isinstance(code, int) else 0


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
        for line in error.lines():
            print(line, file=sys.stderr)
        return error.exit_code
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # typer's own usage errors, under any of its versions
        usage = UsageError(" ".join(error.format_message().split()).rstrip("."), hint="add --help to see what the command takes")
        return _explain(usage)
    if type(error).__name__ == "Exit":
        return int(getattr(error, "exit_code", 0))
    print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
    print("hint: this is a fault of the program; add --debug to see where, and report it", file=sys.stderr)
    return 1
