"""Validate the fields of a file before use: one table of field types per format."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from folds.errors import CONTROL, SURROGATE, EnsembleError
from folds.utils.files import is_file_safe


@dataclass(frozen=True)
class FieldType:
    """A type of value.

    Attributes
    ----------
    expected : its name in errors (``text``, ``a whole number``).
    holds : whether a value is of this type; must not raise for any value.
    optional : whether the field may be absent or None.
    all_hold : whether all values of a list are of this type, if that is faster than one by one (a list may have an
        entry per sample).
    """

    expected: str
    holds: Callable[[Any], bool]
    optional: bool = False
    all_hold: Callable[[Sequence[Any]], bool] | None = None


def optional(kind: FieldType) -> FieldType:
    """Return the type for a field that may be absent."""
    return FieldType(kind.expected, kind.holds, optional=True)


def named(kind: FieldType, expected: str) -> FieldType:
    """Return the type under a more specific name."""
    return FieldType(expected, kind.holds, kind.optional)


def integer(low: int = 0, high: int = 2**63 - 1) -> FieldType:
    """Return the type of whole numbers from `low` to `high`, by default those that fit into int64. True and False are
    not numbers.
    """
    limits = f"from {low}" if high > 2**30 else f"from {low} to {high}"

    def all_hold(values: Sequence[Any]) -> bool:
        return not values or (set(map(type, values)) == {int} and low <= min(values) and max(values) <= high)

    return FieldType(
        f"a whole number {limits}", lambda value: type(value) is int and low <= value <= high, all_hold=all_hold
    )


def one_of(*choices: str) -> FieldType:
    """Return the type of one of these texts."""
    return FieldType(" or ".join(choices), lambda value: isinstance(value, str) and value in choices)


def list_of(kind: FieldType, length: int | None = None) -> FieldType:
    """Return the type of a list or tuple whose entries are all of `kind`."""

    def holds(value: Any) -> bool:
        if not isinstance(value, list | tuple) or (length is not None and len(value) != length):
            return False
        return all(map(kind.holds, value)) if kind.all_hold is None else kind.all_hold(value)

    return FieldType(f"a list of {'' if length is None else f'{length} '}{_plural(kind)}", holds)


def mapping_of(kind: FieldType, names: FieldType | None = None) -> FieldType:
    """Return the type of a mapping: names (text, or of the type `names`), each with a value of `kind`."""

    key = TEXT if names is None else names

    def holds(value: Any) -> bool:
        return isinstance(value, Mapping) and all(
            key.holds(name) and kind.holds(entry) for name, entry in value.items()
        )

    described = "names" if names is None else f"names ({names.expected})"
    return FieldType(f"{described} with {'values' if kind is ANYTHING else f'{kind.expected} each'}", holds)


def either(*kinds: FieldType) -> FieldType:
    """Return the type of values of any of several types."""
    return FieldType(
        " or ".join(kind.expected for kind in kinds), lambda value: any(kind.holds(value) for kind in kinds)
    )


def _plural(kind: FieldType) -> str:
    known = {
        "text": "texts",
        ONE_LINE.expected: "texts without control characters",
        "a number": "numbers",
        "anything": "values",
    }
    return known.get(kind.expected, f"entries ({kind.expected})")


def is_encodable(text: str) -> bool:
    """Return whether a text can be written as UTF-8, which a lone surrogate cannot."""
    return text.isascii() or SURROGATE.search(text) is None


ANYTHING = FieldType("anything", lambda value: True)
TEXT = FieldType("text", lambda value: isinstance(value, str))
# Text that is written to files and hashed, which half of a surrogate pair cannot be.
UNICODE = FieldType("text", lambda value: isinstance(value, str) and is_encodable(value))
BOOL = FieldType("true or false", lambda value: isinstance(value, bool))
# Printed text: control characters could move a terminal's cursor or begin a line; half a surrogate cannot be printed.
ONE_LINE = FieldType(
    "text without control characters", lambda value: isinstance(value, str) and CONTROL.search(value) is None
)
# A whole number in TOML or JSON may be too large for a float.
NUMBER = FieldType("a number", lambda value: type(value) in (int, float) and abs(value) <= sys.float_info.max)
# This text becomes part of paths that are written.
SHA256 = FieldType(
    "a SHA-256 in hex", lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None
)
FILE_SAFE = FieldType(
    "a name of letters, digits, '-', '_' or '.'", lambda value: isinstance(value, str) and is_file_safe(value)
)


def validate_fields(record: Any, table: Mapping[str, FieldType], others: bool = True) -> list[str]:
    """Return one line for each field of `record` that is missing or of another type; [] if all are valid.

    Parameters
    ----------
    others : whether fields outside the table are ignored; otherwise they are errors.
    """
    if not isinstance(record, Mapping):
        return [f"expected names with values, found {shown(record)}"]
    wrong = []
    for name, kind in table.items():
        if record.get(name) is None:
            if not kind.optional:
                wrong.append(f"'{name}' is missing, expected {kind.expected}")
        elif not kind.holds(record[name]):
            wrong.append(f"'{name}' is {shown(record[name])}, expected {kind.expected}")
    if not others:
        wrong += [f"'{name}' is not known" for name in record if name not in table]
    return wrong


def raise_problems(problems: Sequence[str], source: str, hint: str) -> None:
    """Raise EnsembleError with the first problem, and up to five more as details; do nothing without a problem.

    Parameters
    ----------
    source : the file, and the part of it, for the message.
    """
    if problems:
        raise EnsembleError(f"{source}: {problems[0]}", hint=hint, details=problems[1:6])


def shown(value: Any, most: int = 60) -> str:
    """Return a value in one line of at most `most` characters."""
    try:
        text = " ".join(repr(value).split())
    except (ValueError, RecursionError):  # a number with thousands of digits, a list that contains itself
        text = f"of type {type(value).__name__}"
    return text if len(text) <= most else f"{text[: most - 1]}…"
