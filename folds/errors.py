"""Define errors that a user can act on: what was expected, what was found, where, and how to mend it.

Messages and hints name parameters, never flags, and mark them with backticks: ``f"`k` must be 2 or more, found {k}"``.
A Python user reads the name (``k must be 2 or more, found 1``), a user of the command line reads the flag (``--k must
be 2 or more, found 1``).

- A value stands inside the backticks: ```holdout=0.2` `` is ``--holdout 0.2``; ```resume=True` `` is ``--resume``, and
  ```pretrained=False` `` is ``--no-pretrained``.
- Use the preferred spelling (`resize`, not `fit`). Names that are not options of the running command (keys of a
  settings file, arguments of a function) are shown as they are written.
- Whole commands (``ensemble folds --stratify ...``) are written out, without backticks.
- To build one message from another, take `EnsembleError.message`, which keeps the marks; ``str(error)`` has none.
- Notes and warnings are marked in the same way. `without_marks` and `with_flags` are the two ways to show a marked
  text; the command line calls the latter in `ensemble.cli.terminal.console`, with the spellings that `ensemble.cli.app`
  sets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

# Characters that move a terminal's cursor, begin a line, change the writing direction or cannot be encoded.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# Half of a surrogate pair: no file can hold it as UTF-8.
SURROGATE = re.compile("[\ud800-\udfff]")
# A parameter as messages mark it: `k`, `holdout=0.2`. Other text between backticks is left alone.
_PARAMETER = re.compile(r"`([A-Za-z_]\w*)(?:=([^`\n]*))?`")
# Values that Python reads as they are written: a name (FILE.csv stands for one), a number, a text, a list.
_PYTHON = re.compile(
    r"""[^\W\d][\w.]*|[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|'[^']*'|"[^"]*"|\[.*\]|\(.*\)|\{.*\}""", re.ASCII
)


def without_marks(text: str) -> str:
    """Return the text for Python users: ``"`k=5` and `holdout` contradict"`` → ``"k=5 and holdout contradict"``."""
    return _PARAMETER.sub(lambda found: found[0][1:-1], text)


def python_hint(text: str) -> str:
    """Return a hint for Python users, in which a value that is no value of Python is quoted, so that it can be typed:
    ```weights=swin=.7` `` → ``weights='swin=.7'``.
    """

    def argument(found: re.Match[str]) -> str:
        name, value = found.groups()
        return found[0][1:-1] if value is None or _PYTHON.fullmatch(value) else f"{name}={value!r}"

    return _PARAMETER.sub(argument, text)


def respell(text: str, spelling: Mapping[str, str]) -> str:
    """Return a marked text with parameters in the form that a function of Python takes them.

    Parameters
    ----------
    spelling : parameter → its form, in which ``{}`` is the value: ``{"id": "columns={'id': {}}"}`` makes
        ``columns={'id': 'COLUMN'}`` of ```id=COLUMN` ``.
    """

    def form(found: re.Match[str]) -> str:
        name, value = found.groups()
        if name not in spelling:
            return found[0]
        shown = "…" if value is None else value if _NUMBER_OR_TEXT.fullmatch(value) else repr(value)
        return spelling[name].replace("{}", shown, 1)

    return _PARAMETER.sub(form, text)


_NUMBER_OR_TEXT = re.compile(r"""[-+]?(?:\d+\.?\d*|\.\d+)|'[^']*'|"[^"]*"|True|False|None""", re.ASCII)


@contextmanager
def respelled(spelling: Mapping[str, str]) -> Iterator[None]:
    """Raise the errors of the block with parameters as `spelling` says (`respell`)."""
    try:
        yield
    except EnsembleError as error:
        error.message = respell(error.message, spelling)
        error.hint = None if error.hint is None else respell(error.hint, spelling)
        error.details = tuple(respell(line, spelling) for line in error.details)
        error.args = (without_marks(error.message),)
        raise


def with_flags(text: str, flags: Mapping[str, str]) -> str:
    """Return the text for users of the command line: ``"`k=5` and `folds`"`` → ``"--k 5 and --folds"``.

    Parameters
    ----------
    flags : parameter → its flag; other parameters keep their names.
    """

    def flag(found: re.Match[str]) -> str:
        name, value = found.groups()
        if name not in flags:
            return found[0][1:-1]
        if value in (None, "True"):
            return flags[name]
        if value == "False":
            return f"--no-{flags[name].lstrip('-')}"
        return f"{flags[name]} {value}"

    return _PARAMETER.sub(flag, text)


def printable(text: str) -> str:
    """Return the text with control characters escaped (``\\n``, ``\\x1b``).

    Names of samples, files and runs can have any.
    """
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


_LONGEST = 2_000  # characters of a line of an error; a value of a damaged file may have millions


def _clipped(line: str) -> str:
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}… ({len(line):,} characters)"


class EnsembleError(Exception):
    """Wrong input or data (exit 1). All texts may mark parameters (see the module).

    Parameters
    ----------
    message : one sentence without a full stop: what was expected, what was found, where (file, row, column).
    hint : how to mend it, preferably a command to type.
    details : further lines (one per problem), printed indented below the message.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None, details: Sequence[str] = ()) -> None:
        super().__init__(without_marks(message))
        self.message = message
        self.hint = hint
        self.details = tuple(details)

    def lines(self, show: Callable[[str], str] = without_marks) -> list[str]:
        """Return the lines to print on stderr; `show` decides how marked parameters are spelled."""
        printed = list(map(show, [f"error: {self.message}", *(f"  {line}" for line in self.details)]))
        hint = python_hint if show is without_marks else show
        return [_clipped(printable(line)) for line in printed + ([f"hint: {hint(self.hint)}"] if self.hint else [])]

    def full_text(self) -> str:
        """Return message, details and hint on separate lines, for a log."""
        lines = [self.message, *(f"  {line}" for line in self.details), *([f"hint: {self.hint}"] if self.hint else [])]
        return "\n".join(map(printable, lines))


class UsageError(EnsembleError, ValueError):
    """Wrong usage: an unknown name, an impossible value or combination of arguments (exit 2)."""

    exit_code = 2


class FoldsFailed(EnsembleError):
    """A failure of some folds; the results of the others are saved (exit 3)."""

    exit_code = 3


class ResourceLockedError(EnsembleError):
    """A file or folder is held by another running process (exit 1); the same command works once that process has
    ended.
    """


class TrainingDivergedError(EnsembleError):
    """Training produced a non-finite loss or prediction (exit 1). The settings cause it, not files or machines."""


class Interrupted(EnsembleError):
    """A stop by Ctrl-C (exit 130); `hint` is the command that continues the work."""

    exit_code = 130

    def lines(self, show: Callable[[str], str] = without_marks) -> list[str]:
        """Return the state of the work and the command that continues it."""
        return [f"interrupted: {show(self.message)}", *(["", f"next: {show(self.hint)}"] if self.hint else [])]


# Least likeness of the name of a column that is proposed: names are short, and 'label' is half like 'age'.
LIKE_COLUMN = 0.6


def close_matches(name: str, choices: Iterable[str], most: int = 3, cutoff: float = 0.5) -> list[str]:
    """Return the at most `most` choices that are closest to `name`, best first."""
    lower_case = {choice.lower(): choice for choice in choices}
    import difflib  # here, because only mistakes need it

    found = difflib.get_close_matches(name.lower(), lower_case, n=most, cutoff=cutoff)
    return [lower_case[match] for match in found]


def did_you_mean(name: str, columns: Iterable[str]) -> str:
    """Return ``; did you mean 'target'?`` for the name of a column that a table lacks; "" if no column is close."""
    close = close_matches(name, columns, cutoff=LIKE_COLUMN)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def no_column(source: str, name: str, columns: Collection[str], proposed: Iterable[str] | None = None) -> str:
    """Return that a table has no column of a name; a list of names where one column is expected is called so.

    Parameters
    ----------
    source : the table, or "no table".
    proposed : the columns that could be meant; None for all.
    """
    parts = [part.strip() for part in name.split(",") if part.strip()]
    if len(parts) < 2:
        meant = did_you_mean(name, columns if proposed is None else proposed)
        return f"{source} has {'a' if source == 'no table' else 'no'} column '{name}'{meant}"
    absent = [part for part in parts if part not in columns]
    unknown = (
        f", of which {', '.join(map(repr, absent))} {'is' if len(absent) == 1 else 'are'} unknown" if absent else ""
    )
    where = "" if source == "no table" else f" of {source}"
    return f"expected the name of one column{where}, found a list of {len(parts)}: {', '.join(parts)}{unknown}"


def unknown_name(kind: str, name: str, choices: Sequence[str], hint: str | None = None) -> UsageError:
    """Return an error for a name that is not among `choices`; it suggests the closest ones. `kind` may be marked
    (``"`loss`"``).
    """
    close = close_matches(name, choices)
    meant = f"; did you mean {' or '.join(close)}?" if close else ""
    listed = hint or f"known: {', '.join(list(choices)[:20])}{' …' if len(choices) > 20 else ''}"
    return UsageError(f"unknown {kind} '{name}'{meant}", hint=listed)


def combine_errors(problems: Sequence[str], summary: str, hint: str | None = None, shown: int = 10) -> EnsembleError:
    """Return one error for many problems: the first `shown` problems and the number of others.

    `summary` is completed by the number, e.g. ``"images cannot be used"`` gives ``"12 images cannot be used"``.
    """
    rest = len(problems) - shown
    lines = [*problems[:shown], *([f"… and {rest:,} more"] if rest > 0 else [])]
    return EnsembleError(f"{len(problems):,} {summary}", hint=hint, details=lines)
