"""Errors a user can act on: what was expected, what was found, where, and the command that mends it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

# What is no text but moves a terminal's cursor, begins a line, turns the direction of writing or cannot be encoded.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with its control characters escaped (``\\n``, ``\\x1b``): names of samples, files and runs may hold any."""
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


class EnsembleError(Exception):
    """Wrong input or data (exit 1).

    Parameters
    ----------
    message : one sentence without a full stop: what was expected, what was found, where (file, row, column).
    hint : how to mend it, ideally a command to type.
    details : further lines (one a problem), printed indented below the message.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = tuple(details)

    def lines(self) -> list[str]:
        """What the command line prints on stderr, a line each."""
        printed = [f"error: {self.message}", *(f"  {line}" for line in self.details)]
        return [*map(printable, printed + ([f"hint: {self.hint}"] if self.hint else []))]


class UsageError(EnsembleError):
    """Wrong usage: an unknown name, an impossible value or combination (exit 2)."""

    exit_code = 2


class FoldsFailed(EnsembleError):
    """Some folds failed, the rest is saved (exit 3)."""

    exit_code = 3


class ResourceLockedError(EnsembleError):
    """Another living process holds what is needed (exit 1); when it is gone, the same will do."""


class TrainingDivergedError(EnsembleError):
    """A training that has left the numbers (exit 1): what its settings lead to, and no fault of files or machines."""


class Interrupted(EnsembleError):
    """Stopped by Ctrl-C (exit 130); `hint` is the command that goes on."""

    exit_code = 130

    def lines(self) -> list[str]:
        """What became of the work, and the command that goes on with it."""
        return [f"interrupted: {self.message}", *(["", f"next: {self.hint}"] if self.hint else [])]


def close_matches(name: str, choices: Iterable[str], most: int = 3) -> list[str]:
    """The choices that `name` was probably meant to be, best first."""
    folded = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(name.lower(), folded, n=most, cutoff=0.5)
    return [folded[match] for match in found]


def unknown_name(kind: str, name: str, choices: Sequence[str], hint: str | None = None) -> UsageError:
    """An error for a name that is none of `choices`, with the nearest ones offered."""
    close = close_matches(name, choices)
    meant = f"; did you mean {' or '.join(close)}?" if close else ""
    listed = hint or f"known: {', '.join(list(choices)[:20])}{' …' if len(choices) > 20 else ''}"
    return UsageError(f"unknown {kind} '{name}'{meant}", hint=listed)


def combine_errors(problems: Sequence[str], summary: str, hint: str | None = None, shown: int = 10) -> EnsembleError:
    """One error out of many problems: the first `shown`, and how many there are.

    `summary` is completed by the count, e.g. ``"images cannot be used"`` gives ``"12 images cannot be used"``.
    """
    rest = len(problems) - shown
    lines = [*problems[:shown], *([f"… and {rest:,} more"] if rest > 0 else [])]
    return EnsembleError(f"{len(problems):,} {summary}", hint=hint, details=lines)
