"""What is printed where: the result on stdout, everything else on stderr; understandable without colour.

The library speaks through `logging`; while a command runs, `printing_logs` has it printed as the command line's own
lines are.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from folds.errors import CONTROL, printable, with_flags

as_json = False  # --json: one object on stdout
quiet = False  # --quiet: no notes
words: list[str] = []  # the command as it was typed, without the program's name
flags: Mapping[str, str] = {}  # parameter → its flag, of the command that runs


def spelled(text: str) -> str:
    """Return a text of the library with the parameters that it marks (see `folds.errors`) as flags of this command."""
    return with_flags(text, flags)


def note(text: str) -> None:
    """A line about what is being done, on stderr."""
    if not quiet:
        print(_safe(spelled(text)), file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Something the user should know, on stderr, also under --quiet."""
    print(_safe(f"warning: {spelled(text)}"), file=sys.stderr, flush=True)


def fail(text: str) -> None:
    """What went wrong while the command goes on (a fold that failed, say), on stderr."""
    print(_safe(f"error: {spelled(text)}"), file=sys.stderr, flush=True)


class _Printer(logging.Handler):
    """Prints the records of the library. Nothing is kept: whatever stands for stderr now gets the line, a bar that is
    shown too.
    """

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        (fail if record.levelno >= logging.ERROR else warn if record.levelno >= logging.WARNING else note)(text)


@contextmanager
def printing_logs() -> Iterator[None]:
    """Print what the library logs from INFO on, while the block runs; what was set up before is restored afterwards."""
    printer, before = _Printer(logging.INFO), []
    for logger in (logging.getLogger("folds"), logging.getLogger("ensemble")):
        before.append((logger, logger.level, logger.propagate))
        logger.addHandler(printer)
        logger.setLevel(logging.INFO)
        logger.propagate = False  # a handler that somebody's code has put on the root would print it again
    try:
        yield
    finally:
        for logger, level, propagate in before:
            logger.removeHandler(printer)
            logger.setLevel(level)
            logger.propagate = propagate


def result(text: str, record: dict[str, Any]) -> None:
    """The result of a command: `text` for a person, or `record` under --json."""
    # JSON escapes the first 32 characters by itself, and the others that move a cursor only if all of Unicode is
    # escaped.
    dumped = (
        CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(record, ensure_ascii=False)) if as_json else ""
    )
    print(dumped if as_json else _safe(text), flush=True)


def _safe(text: str) -> str:
    """Return the text in its lines, with whatever else in it would move the cursor escaped: names of files may hold
    anything.
    """
    return "\n".join(map(printable, text.split("\n")))


def next_step(command: str) -> None:
    """The command to type next."""
    note(f"\nnext: {command}")


def table(header: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1) -> str:
    """Columns in line, the first `left` of them flush left, the others flush right."""
    cells = [list(map(str, row)) for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "  ".join(
            c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths).rstrip(), *lines[1:]])
