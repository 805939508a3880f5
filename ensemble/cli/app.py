"""The command line: one module per command, imported only when that command is called."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ensemble import __version__
from ensemble.cli.terminal import console
from ensemble.cli.terminal.parser import NO_PARTIAL_FILES, build_parser, check_environment, check_spellings, flags_of
from folds.errors import EnsembleError, Interrupted, UsageError, unknown_name

# Command → its line in `ensemble --help`. The lines are here so that the help imports no command module
# (ensemble.cli.commands.<name>, with a function of that name).
COMMANDS = {
    "demo": "run the full pipeline on synthetic data (a few minutes on a CPU)",
    "prepare": "write a new image set: cropped to faces, backgrounds replaced; originals stay untouched",
    "folds": "split a table by person (group); folds check: audit the data and a split",
    "kfold": "train one model per fold and architecture; write out-of-fold and test predictions",
    "tune": "tune hyperparameters on one fold; unpromising trials are stopped early (ASHA)",
    "blend": "combine prediction files by voting or by learned weights, aligned by id",
    "tta": "test-time augmentation of a checkpoint or a run",
    "predict": "predict new images with a checkpoint, a run or a blend; write a submission",
    "runs": "list, filter and compare the runs so far; add notes",
    "doctor": "check the installation: versions, devices, mismatched packages",
}

USAGE = """usage: ensemble COMMAND [OPTIONS]

person-grouped k-fold training and leakage-free ensembling of image classifiers

{commands}

options everywhere:
  --help      show the options of a command
  --json      print one JSON object instead of text
  -q --quiet  print the result only, no progress and no notes
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
    console.flags = {}
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
        raise unknown_name("command", name, list(COMMANDS), hint="ensemble --help lists the commands")
    module = importlib.import_module(f"ensemble.cli.commands.{name}")
    command: Callable[..., Any] = getattr(module, name)

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
    print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
    print("hint: internal error: rerun with --debug for a traceback and report it", file=sys.stderr)
    return 1
