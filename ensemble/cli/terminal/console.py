"""Print the result on stdout and everything else on stderr, without colors.

The library uses `logging`. While a command runs, `printing_logs` prints its records in the format of the command line.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ensemble.cli.terminal.streams import discard, is_unicode, print_to_stderr
from folds.errors import CONTROL, EnsembleError, printable, with_flags

as_json = False  # --json: one object on stdout
quiet = False  # --quiet: no notes
wide = False  # --wide: all columns of every table
words: list[str] = []  # the command as typed, without the name of the program
typed: Sequence[tuple[str, list[str]]] = ()  # the options of the command: parameter, and its words
flags: Mapping[str, str] = {}  # parameter → its flag, of the command that runs


def spelled(text: str) -> str:
    """Return a text of the library with the parameters that it marks (see `folds.errors`) as flags of this command."""
    return with_flags(text, flags)


def note(text: str) -> None:
    """Print a note on stderr, except under --quiet."""
    if not quiet:
        print_to_stderr(_safe(spelled(text)))


def warn(text: str) -> None:
    """Print a warning on stderr, also under --quiet."""
    print_to_stderr(_safe(f"warning: {spelled(text)}"))


def fail(text: str) -> None:
    """Print an error that does not end the command, e.g. a failed fold, on stderr."""
    print_to_stderr(_safe(f"error: {spelled(text)}"))


class _Printer(logging.Handler):
    """A logging handler that prints the records of the library on the current `sys.stderr`, above progress bars."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._once: set[str] = set()  # printed texts of records that are printed once

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if getattr(record, "once", False):
            if text in self._once:
                return
            self._once.add(text)
        (fail if record.levelno >= logging.ERROR else warn if record.levelno >= logging.WARNING else note)(text)


@contextmanager
def printing_logs() -> Iterator[None]:
    """Print the log records of the library from INFO on inside the block; restore the logging setup afterwards."""
    printer, before = _Printer(logging.INFO), []
    for logger in (logging.getLogger("folds"), logging.getLogger("ensemble")):
        before.append((logger, logger.level, logger.propagate))
        logger.addHandler(printer)
        logger.setLevel(logging.INFO)
        logger.propagate = False  # a handler of the root logger would print the record again
    try:
        yield
    finally:
        for logger, level, propagate in before:
            logger.removeHandler(printer)
            logger.setLevel(level)
            logger.propagate = propagate


answered = False  # whether a result is printed: under --json a command prints one object


def result(text: str, record: dict[str, Any]) -> None:
    """Print the result of a command: `text`, or `record` as JSON under --json."""
    global answered
    answered = True
    try:
        print(_dumped(record) if as_json else _safe(text), flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        discard("stdout")
        reason = os.strerror(error.errno or 0).lower()
        raise EnsembleError(
            f"the result could not be printed on standard output: {reason}", hint="files that were written are complete"
        ) from None
    if left_out and not as_json:
        note(f"--wide also shows: {', '.join(dict.fromkeys(left_out))}")
    left_out.clear()


def error_result(message: str, hint: str | None, details: Sequence[str], exit_code: int) -> None:
    """Print an error as JSON on stdout under --json, unless the command has printed its result before it failed."""
    if as_json and not answered:
        record: dict[str, Any] = {"error": spelled(message), "hint": None if hint is None else spelled(hint)}
        record |= {"details": list(map(spelled, details))} if details else {}
        try:
            print(_dumped(record | {"exit_code": exit_code}), flush=True)
        except OSError:
            discard("stdout")  # the error is on stderr


def _dumped(record: Mapping[str, Any]) -> str:
    # JSON escapes only the first 32 control characters, unless all of Unicode is escaped.
    return CONTROL.sub(
        lambda found: f"\\u{ord(found[0]):04x}", json.dumps(record, ensure_ascii=not is_unicode(sys.stdout))
    )


def _safe(text: str) -> str:
    """Return the text with its line breaks, and other control characters escaped: file names can contain any."""
    return "\n".join(map(printable, text.split("\n")))


def next_step(command: str, options: Sequence[str] = ()) -> None:
    """Print the suggested next command, with the words of its options (`again`, `again_without`)."""
    note(f"\nnext: {' '.join([command, *map(shlex.quote, options)])}")


def again(*names: str) -> list[str]:
    """Return the words of the given options of this command that have these names, as they were typed."""
    return [word for name, words in typed if name in names for word in words]


def again_without(*names: str) -> list[str]:
    """Return the words of all given options of this command but these, as they were typed."""
    return [word for name, words in typed if name not in names for word in words]


WIDTH = 100  # characters of a table, without --wide


def wrapped(line: str) -> list[str]:
    """Return a line of prose as lines of at most `WIDTH` characters; further ones are indented."""
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.wrap(line, WIDTH, subsequent_indent=f"{indent}  ", break_on_hyphens=False) or [line]


left_out: list[str] = []  # titles of the columns that tables left out since the last result


def table(
    header: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1, optional: Sequence[str | int] = ()
) -> str:
    """Return an aligned table; the first `left` columns are left-aligned, the others right-aligned.

    Parameters
    ----------
    optional : columns, by title or by position, that are left out one after the other while the table is wider than
        `WIDTH`; a note after the result names them. With ``--wide`` all are shown.
    """
    cells = [list(map(str, row)) for row in [header, *rows]]
    shown = list(range(len(header)))
    dropped: list[int] = []
    for one in () if wide else optional:
        if _width(cells, shown) <= WIDTH:
            break
        found = [i for i in shown if i == one or header[i] == one]
        shown = [i for i in shown if i not in found]
        dropped += found
    cells = [[row[i] for i in shown] for row in cells]
    left = sum(i < left for i in shown)
    widths = [max(len(row[i]) for row in cells) for i in range(len(shown))]
    lines = [
        "  ".join(
            c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    left_out.extend(header[i] for i in sorted(dropped))
    return "\n".join([lines[0], "  ".join("-" * w for w in widths).rstrip(), *lines[1:]])


def _width(cells: Sequence[Sequence[str]], shown: Sequence[int]) -> int:
    return sum(max(len(row[i]) for row in cells) for i in shown) + 2 * (len(shown) - 1)
