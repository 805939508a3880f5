"""Read TOML from anywhere within limits; write plain values as TOML."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from folds.utils.bounded import check_bounded, read_bounded

MAX_BYTES = 16 * 2**20  # a record with attributes of thousands of classes has less than 1 MiB
MAX_DEPTH = 40
# Keys, parts of keys, tables and lists. tomllib needs 1 KiB for each part of a key: [a.b.c] takes 500 times its length.
MAX_PARTS = 400_000
_NUMBER = re.compile(r"(?<=[ ,\[=+-])\d++\.\d")  # of a key such as 1.2.3, at most the first part
# A dotted key of more than MAX_DEPTH parts: tomllib needs time quadratic in their number.
_LONG_KEY = re.compile(rf"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){{{MAX_DEPTH}}}""")


def parse_toml(text: str) -> dict[str, Any]:
    """Return the values of a TOML text.

    Raises
    ------
    ValueError : not TOML (`tomllib.TOMLDecodeError` is one), too long, too deep, or a number with too many digits.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES:,} characters")
    if sum(map(text.count, "=[{.")) > MAX_PARTS and _parts(text) > MAX_PARTS:
        raise ValueError(f"it has more than {MAX_PARTS:,} keys, tables and lists")
    if _LONG_KEY.search(text):
        raise ValueError(f"a key has more than {MAX_DEPTH} parts")
    import tomllib  # here, because most commands read none

    try:
        found = tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    check_bounded(found, depth=MAX_DEPTH)
    return found


def _parts(text: str) -> int:
    """Return the number of keys, parts of keys, tables and lists in a TOML text, or more; numbers count as none."""
    return sum(map(text.count, "=[{.")) - sum(1 for _ in _NUMBER.finditer(text))


def read_toml(path: Path) -> dict[str, Any]:
    """Return the values of a TOML file.

    Raises
    ------
    ValueError : as `parse_toml`; not UTF-8 (`UnicodeDecodeError`), or not a regular file.
    OSError : the file cannot be read.
    """
    return parse_toml(read_bounded(path, MAX_BYTES).decode("utf-8"))


def toml_value(value: Any) -> str:
    """Return a plain value as TOML on one line; None has no TOML form."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{toml_value(str(k))} = {toml_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")  # valid in JSON, not in TOML
