"""Check the arguments of public functions on entry: one table of types per function, and one form of the error."""

from __future__ import annotations

import os
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from folds.errors import UsageError
from folds.utils.schema import FieldType, either, named, shown


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not _is_flag(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not _is_flag(value)


def _is_list(value: Any) -> bool:
    # Arrays and Series have `tolist`; text, mappings and sets have no order of entries that are meant one by one.
    return isinstance(value, list | tuple | range) or (hasattr(value, "tolist") and getattr(value, "ndim", 0) == 1)


def list_of(kind: FieldType, what: str) -> FieldType:
    """Return the type of a list, a tuple or an array with one axis, whose entries are all of `kind`; `what` names
    them: ``a list of names``.
    """

    def holds(value: Any) -> bool:
        return _is_list(value) and all(map(kind.holds, value.tolist() if hasattr(value, "tolist") else value))

    return FieldType(f"a list of {what}", holds)


def mapping_to(kind: FieldType, what: str) -> FieldType:
    """Return the type of a mapping whose values are all of `kind`; `what` describes it: ``run → weight``."""

    def holds(value: Any) -> bool:
        return isinstance(value, Mapping) and all(map(kind.holds, value.values()))

    return FieldType(f"a mapping {what}", holds)


def whole(minimum: int | None = None) -> FieldType:
    """Return the type of whole numbers, from `minimum` on if it is given; True and False are not numbers."""
    limits = "" if minimum is None else f", {minimum} or more"
    return FieldType(
        f"a whole number{limits}", lambda value: _is_whole(value) and (minimum is None or value >= minimum)
    )


FLAG = FieldType("True or False", _is_flag)
NUMBER = FieldType("a number", _is_number)
NAME = FieldType("text", lambda value: isinstance(value, str))
NAMES = named(either(NAME, list_of(NAME, "names")), "a name or a list of names")
PATH = FieldType("a path", lambda value: isinstance(value, str | os.PathLike))
FOLDS = named(either(whole(0), list_of(whole(0), "folds")), "a fold or a list of folds, whole numbers from 0")
CLASSES = FieldType("a list with the class of each column", _is_list)
METRIC = FieldType("a name or a function of (labels, probabilities)", lambda value: True)
WINDOW = FieldType(
    "text LO,HI or two numbers",
    lambda value: isinstance(value, str) or (_is_list(value) and len(value) == 2 and all(map(_is_number, value))),
)
SPLIT = FieldType(
    "a split, a file of folds, or a column of the table",
    lambda value: PATH.holds(value) or (hasattr(value, "validation_index") and hasattr(value, "sha")),
)
# True, False, or an object with the methods of `folds.utils.progress.Progress`.
PROGRESS = FieldType("True or False", lambda value: _is_flag(value) or hasattr(value, "step"))


def check_arguments(given: Mapping[str, Any], kinds: Mapping[str, FieldType]) -> None:
    """Raise UsageError for the first argument that is not of its type; it names the parameter, the expected type and
    the value found.

    A function calls it first, so that no wrong type fails deep inside and no text like ``"no"`` counts as True.

    Parameters
    ----------
    given : the arguments by name, such as ``locals()`` at the start of a function; those without a type are ignored.
    kinds : parameter → its type; one made by `folds.utils.schema.optional` may be None.
    """
    for name, kind in kinds.items():
        value = given.get(name)
        if value is None and kind.optional:
            continue
        if value is None or not kind.holds(value):
            raise wrong_argument(name, kind.expected, value)


def wrong_argument(name: str, expected: str, found: Any, hint: str | None = None) -> UsageError:
    """Return the error for an argument of the wrong type."""
    return UsageError(f"`{name}` must be {expected}, found {described(found)}", hint=hint)


def described(value: Any) -> str:
    """Return a value for an error: plain values as they are written, others by their type and shape."""
    shape, name = getattr(value, "shape", None), type(value).__name__
    name = "array" if name == "ndarray" else name
    if isinstance(shape, tuple) and shape:
        return f"{_a(name)} of shape {' × '.join(map(str, shape))}"
    entries = value.values() if type(value) is dict else value if type(value) in (list, tuple, set) else [value]
    return shown(value) if all(map(_is_plain, entries)) else _a(name)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | bytes | Real)


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"
