"""The command line: one module per command, imported only when that command is called."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ensemble import __version__
from ensemble.cli.terminal import console
from ensemble.cli.terminal.commands import COMMANDS, MEANT
from ensemble.cli.terminal.parser import (
    NO_PARTIAL_FILES,
    build_parser,
    check_environment,
    check_spellings,
    flags_of,
    typed_options,
)
from ensemble.cli.terminal.streams import discard, flush_stdout, prepare_streams, print_to_stderr
from folds.errors import EnsembleError, Interrupted, UsageError, printable, unknown_name

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
    prepare_streams()
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # processes that are started import nothing from the working folder
    if sys.platform == "darwin":  # read when torch is loaded: operators that Apple's GPUs lack run on the CPU
        os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    words = list(sys.argv[1:] if arguments is None else arguments)
    console.words = list(words)
    debug = _take(words, "--debug")
    console.as_json = _take(words, "--json")
    console.quiet = _take(words, "-q", "--quiet")
    console.wide = _take(words, "--wide")
    console.flags, console.typed, console.answered = {}, (), False
    try:
        with console.printing_logs():
            code = _run(words)
    except KeyboardInterrupt:
        code = _explain(Interrupted(NO_PARTIAL_FILES))
    except BrokenPipeError:
        discard("stdout")  # its reader (head, less) has ended
        code = 0
    except Exception as error:
        if debug:
            raise
        code = _explain(error)
    unwritten = flush_stdout()
    if unwritten is not None and not code:
        code = _explain(EnsembleError(f"cannot write to standard output: {_reason(unwritten)}"))
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
    _check_folder()
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
    console.flags, console.typed = flags_of(parser), typed_options(parser, rest)
    if not {"--help", "-h"} & set(rest):
        check_environment(command, list(COMMANDS))
        check_spellings(parser, rest)
    code = parser.main(args=rest, prog_name=f"ensemble {name}", standalone_mode=False)
    return code if isinstance(code, int) else 0


def _check_folder() -> None:
    """Raise EnsembleError if the working folder was removed: every relative path would fail."""
    try:
        Path.cwd()
    except OSError:
        raise EnsembleError(
            "the working folder does not exist any more (it was removed or moved)", hint="cd to an existing folder"
        ) from None


def _explain(error: Exception) -> int:
    if isinstance(error, EnsembleError):
        for line in error.lines(console.spelled):
            print_to_stderr(line)
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
    known = _of_surroundings(error)
    if known is not None:
        return _explain(known)
    message = f"{type(error).__name__}: {printable(str(error))}"
    hint = "internal error: rerun with --debug for a traceback and report it"
    print_to_stderr(f"error: {message}")
    print_to_stderr(f"hint: {hint}")
    console.error_result(message, hint, (), 1)
    return 1


def _of_surroundings(error: BaseException) -> EnsembleError | None:
    """Return the error for something outside of the program (a file, memory, a limit); None for a fault of its own."""
    if isinstance(error, MemoryError) or "allocate memory" in str(error) or "failed to map segment" in str(error):
        what = f" (while loading {error.name})" if isinstance(error, ImportError) and error.name else ""
        return EnsembleError(
            f"there is not enough memory{what}: {printable(str(error))[:200] or 'an allocation failed'}",
            hint="a memory limit (ulimit -v) may be lower than torch needs, about 10 GB of addresses; or use fewer "
            "`jobs` and a smaller `batch_size`",
        )
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return EnsembleError(
            "no new thread can be started: the limit of this user is reached",
            hint="ulimit -u shows it; or fewer `jobs`",
        )
    if isinstance(error, OSError) and error.errno:
        named = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
        named = named if len(named) <= 150 else f"{named[:150]}…"
        hint = f"ls -ld {named} shows whether it can be used" if named and error.errno != errno.ENAMETOOLONG else None
        return EnsembleError(f"{named or 'a file or stream'} cannot be used: {_reason(error)}", hint=hint)
    if isinstance(error, UnicodeEncodeError) and error.reason.startswith("surrogates"):
        return EnsembleError(
            f"a name is not Unicode and cannot be written: {printable(str(error.object))[:100]}",
            hint="rename the file, for example with convmv",
        )
    return None


def _reason(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error)
