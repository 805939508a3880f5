"""Make the standard streams usable whatever they are: closed, full, or of an encoding without some characters."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from typing import TextIO

# What is printed where the encoding of the terminal or of cron (ASCII, Latin-1, cp437) lacks a character. Others, such
# as letters of a name, are escaped: another letter in their place would be another name.
PLAIN = {
    **{"–": "-", "—": "-", "−": "-", "…": "...", "×": "x", "·": "*", "±": "+/-", "≤": "<=", "≥": ">=", "≠": "!="},
    **{"→": "->", "←": "<-", "²": "^2", "µ": "u", "‘": "'", "’": "'", "“": '"', "”": '"', "✓": "ok", "•": "*"},
    **{"━": "-", "╸": "-", "╺": "-", "─": "-", "│": "|", "Δ": "d", "≈": "~", "α": "alpha", "β": "beta"},
}
_HANDLER = "ensemble.plain"


def _plainly(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return the replacement of characters that an encoding lacks, as an error handler of `codecs`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    escaped = (PLAIN.get(one) or one.encode("ascii", "backslashreplace").decode("ascii") for one in text)
    return "".join(escaped), error.end


def prepare_streams() -> None:
    """Open closed streams on the null device, and let the others replace characters that their encoding lacks.

    A daemon may start without any stream. A file that is opened then gets the number of standard output, and what other
    libraries print would be written into it.
    """
    with contextlib.suppress(OSError):
        while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(opened)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - open until the end
    codecs.register_error(_HANDLER, _plainly)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):  # a stream of a test or of a notebook
            stream.reconfigure(errors=_HANDLER)  # type: ignore[union-attr]


def is_unicode(stream: TextIO) -> bool:
    """Return whether a stream has all characters."""
    with contextlib.suppress(LookupError, TypeError):
        return codecs.lookup(stream.encoding or "utf-8").name.startswith("utf")
    return True


def print_to_stderr(text: str) -> None:
    """Print a line on stderr; if that is full or closed, the line is lost, because there is nowhere to say so."""
    try:
        print(text, file=sys.stderr, flush=True)
    except BrokenPipeError:
        raise
    except (OSError, ValueError):
        discard("stderr")


def flush_stdout() -> OSError | None:
    """Write what is waiting on stdout; return the error if that is not possible, and discard the rest."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        discard("stdout")
    except (OSError, ValueError) as error:
        discard("stdout")
        return error if isinstance(error, OSError) else None
    return None


def discard(name: str) -> None:
    """Send the rest of a stream to the null device; otherwise Python prints an error of its own at exit."""
    stream = getattr(sys, name)
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError, AttributeError):
        setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - open until the end
