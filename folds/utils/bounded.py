"""Limit the size, depth and time of what comes from a stranger, before it is used."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from folds.errors import UsageError

MAX_DEPTH = 20
MAX_VALUES = 20_000_000  # of a nested value, repetitions counted each time
MAX_DIGITS = 4_000  # Python refuses to print longer numbers


def check_bounded(value: Any, depth: int = MAX_DEPTH, values: int = MAX_VALUES) -> None:
    """Raise ValueError if nested lists and mappings are too deep or too large to be walked or printed.

    A list that is contained twice counts twice, because everything that walks it (a check, ``repr``, a copy) visits it
    twice: a file of a few hundred bytes can hold 2**100 values. Here it is visited once and its size is remembered.

    Parameters
    ----------
    depth : most levels of lists and mappings.
    values : most values in total.
    """
    sizes: dict[int, tuple[int, int]] = {}  # id of a list or mapping → its values in total, and its levels

    def measure(one: Any, level: int) -> tuple[int, int]:
        """Return how many values `one` holds and how many levels it has; `level` are those around it."""
        if type(one) is int and one.bit_length() > 3 * MAX_DIGITS:
            raise ValueError(f"it holds a number of more than {MAX_DIGITS:,} digits")
        if not isinstance(one, Mapping | list | tuple | set | frozenset):
            return 0, 0
        inner: Iterable[Any] = chain(one, one.values()) if isinstance(one, Mapping) else one
        count = 2 * len(one) if isinstance(one, Mapping) else len(one)
        if count > values:
            raise ValueError(f"it holds more than {values:,} values")
        size, levels = sizes.get(id(one), (0, 0))
        # What contains itself ends here as well: its size is known only when all that it holds has been visited.
        if level + max(levels, 1) > depth:
            raise ValueError(f"it is nested more than {depth} levels deep")
        if levels:
            return size, levels
        below = 0
        for held in inner:
            size, levels = measure(held, level + 1)
            count, below = count + size, max(below, levels)
            if count > values:
                raise ValueError(f"it holds more than {values:,} values")
        return sizes.setdefault(id(one), (count, below + 1))

    measure(value, 0)


def check_regular(path: Path) -> None:
    """Raise OSError if `path` does not exist or is neither a file nor a folder: reading a pipe can wait for ever."""
    mode = Path(path).stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def read_bounded(path: Path, limit: int) -> bytes:
    """Return the content of a regular file of at most `limit` bytes.

    Raises
    ------
    ValueError : it is not a regular file (a pipe, a device), or larger.
    OSError : it cannot be read.
    """
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb") as file:
        if stat.S_ISDIR(mode := os.fstat(file.fileno()).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise ValueError("it is not a regular file")
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it has more than {limit:,} bytes")
    return content


def text_room(texts: Sequence[str]) -> str:
    """Return why texts should not become one array; "" if they may.

    An array of text gives every entry the room of the longest: a short file with one long entry among many would need
    all memory.
    """
    if not texts:
        return ""
    longest = max(map(len, texts))
    room = longest * len(texts)
    if room > 64_000_000 and room > 50 * sum(map(len, texts)):
        return f"one entry has {longest:,} characters, and there are {len(texts):,} entries"
    return ""


_SECONDS = 5.0  # for the search in all texts, plus `_SECONDS_EACH` of each
_SECONDS_EACH = 2e-5
_REPETITION = re.compile(r"[*+{]|(?<!\()\?")
_SEARCH = """
import json, re, sys
pattern, group, texts = json.load(sys.stdin)
search = re.compile(pattern).search
json.dump([None if (one := search(text)) is None else one[group] for text in texts], sys.stdout)
"""


def search_each(pattern: re.Pattern[str], group: str | int, texts: Sequence[str], option: str) -> list[str | None]:
    """Return the group of the first match of a regular expression in each text; None without one.

    A pattern such as ``(a+)+$`` can need more time than anybody has, and Python cannot stop it. A pattern with more
    than one repetition is therefore searched in a process of its own, with a time limit.

    Parameters
    ----------
    option : the parameter that holds the pattern, for errors.

    Raises
    ------
    UsageError : it takes too long.
    """
    if len(_REPETITION.findall(pattern.pattern)) <= 1:
        found = map(pattern.search, texts)
        return [None if one is None else one[group] for one in found]
    import subprocess  # here, because it takes longer to import than most files to read

    limit = _SECONDS + _SECONDS_EACH * len(texts)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _SEARCH],
            input=json.dumps([pattern.pattern, group, list(texts)]),
            capture_output=True,
            encoding="ascii",
            timeout=limit,
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise UsageError(
            f"`{option}={pattern.pattern[:200]}` takes more than {limit:.0f} s for {len(texts):,} names: there are too "
            "many ways to match",
            hint="avoid a repetition inside a repetition, such as (a+)+; [^_]+ in place of .+ often helps",
        ) from None
    except (OSError, subprocess.CalledProcessError) as error:
        raise UsageError(f"`{option}={pattern.pattern[:200]}` could not be searched: {error}") from None
    return list(json.loads(done.stdout))
