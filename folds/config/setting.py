"""Describe one setting in one place: help, default, range, choices, spellings.

The flags, the keys of TOML files, the ``ENSEMBLE_*`` variables, ``--help``, the checks, docs/settings.md and the
signature of the Python functions are derived from it (`folds.config.recipe` and `folds.config.command_settings` define
the settings; `ensemble.cli.terminal.options` derives flags from them).
"""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING, Field, dataclass, field
from typing import Any

from folds.errors import UsageError, unknown_name

# Titles of the groups of settings, in the order of `--help` and of docs/settings.md.
DATA, FOLDS, MODEL, TRAINING = "Data", "Folds", "Model", "Training"
OPTIMIZER, SAMPLING, FROZEN, RUN = "Optimizer and schedule", "Sampling and augmentation", "Frozen features", "This run"
PANELS = (DATA, FOLDS, MODEL, TRAINING, OPTIMIZER, SAMPLING, FROZEN, RUN)


@dataclass(frozen=True)
class Range:
    """The range of a number.

    Attributes
    ----------
    minimum, maximum : inclusive limits; `above` and `below` are exclusive limits. Infinite numbers are never in the
        range.
    off : the value that disables the feature, named in messages.
    """

    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    below: float | None = None
    off: float | None = None

    def holds(self, value: float) -> bool:
        """Return whether a number is in the range; NaN never is."""
        low = (
            value >= self.minimum
            if self.minimum is not None
            else value > (-math.inf if self.above is None else self.above)
        )
        high = (
            value <= self.maximum
            if self.maximum is not None
            else value < (math.inf if self.below is None else self.below)
        )
        return low and high

    def text(self, unit: str = "") -> str:
        """Return the range in words: ``from 0 (off) to below 1``, ``2 or more``."""
        words = f" {unit}" if unit else ""
        low = self._number(self.minimum if self.above is None else self.above)
        if self.maximum is None and self.below is None:
            return f"above {low}{words}" if self.above is not None else f"{low} or more{words}"
        high = f"below {self._number(self.below)}" if self.below is not None else self._number(self.maximum)
        if self.above is not None:
            return f"above {low} and {'at most ' if self.below is None else ''}{high}{words}"
        return f"from {low} to {high}{words}"

    def _number(self, value: float | None) -> str:
        text = "2**32" if value == 2**32 else f"{value or 0:g}"
        return f"{text} (off)" if value is not None and value == self.off else text


@dataclass(frozen=True)
class Setting:
    """The description of one field of `Recipe` or `Settings`.

    Attributes
    ----------
    key : the name of the field, recorded in config.toml and checkpoints; it is always accepted.
    kind : its type; ``X | None`` if None means "not given" or "decided later".
    spelling : the preferred spelling, shown in help and messages.
    aliases : further accepted spellings.
    shown : the default in words, if the value does not show it (decided later, or a folder that is searched).
    range, choices : the valid values; one of them, or neither if another function checks the value.
    unit : of a number: ``epochs``, ``pixels``.
    short : a flag of one letter, ``-k``.
    hint : for a value out of range.
    word : of a number: the text that is accepted in its place.
    """

    key: str
    kind: Any
    default: Any
    help: str
    panel: str
    spelling: str
    aliases: tuple[str, ...] = ()
    shown: str | None = None
    metavar: str | None = None
    range: Range | None = None
    choices: tuple[str, ...] = ()
    unit: str = ""
    short: str | None = None
    hint: str | None = None
    word: str | None = None

    @property
    def spellings(self) -> tuple[str, ...]:
        """Return all accepted names, the preferred one first."""
        return tuple(dict.fromkeys((self.spelling, self.key, *self.aliases)))

    @property
    def flag(self) -> str:
        """Return the preferred flag, ``--batch-size``; settings that are tables have none (`is_table`)."""
        return f"--{self.spelling.replace('_', '-')}"

    @property
    def type(self) -> Any:
        """Return the type of a given value: ``int`` for ``int | None``, ``dict`` for ``dict[str, Any]``."""
        options = typing.get_args(self.kind) if isinstance(self.kind, types.UnionType) else (self.kind,)
        target = next(option for option in options if option is not type(None))
        return typing.get_origin(target) or target

    @property
    def is_table(self) -> bool:
        """Return whether it is a table of names and values: a key of a file (or JSON in a variable), not a flag."""
        return self.type is dict

    @property
    def default_text(self) -> str:
        """Return the default in words; empty if there is none."""
        if self.shown is not None or self.default in (None, (), {}):
            return self.shown or ""
        if isinstance(self.default, bool):
            return "yes" if self.default else "no"
        if isinstance(self.default, tuple):
            return ",".join(self.default)
        text = self.default if isinstance(self.default, str) else f"{self.default:g}"
        return f"{text}: off" if self.range is not None and self.range.off == self.default else text

    @property
    def help_text(self) -> str:
        """Return the line of ``--help``, with the default in brackets."""
        also = "".join(f"; also --{name.replace('_', '-')}" for name in self.aliases)
        return f"{self.help}{also} [{self.default_text}]" if self.default_text else f"{self.help}{also}"

    def check(self, value: Any) -> None:
        """Check a value against the range or the choices; None ("not given") is valid.

        Raises
        ------
        UsageError : the value is invalid; the message names the parameter, the expected values and the value found.
        """
        if value is None:
            return
        if self.range is not None and not self.range.holds(value):
            raise UsageError(f"`{self.spelling}` must be {self.range.text(self.unit)}, found {value}", hint=self.hint)
        if self.choices and value not in self.choices:
            raise unknown_name(f"`{self.spelling}`", value, self.choices)


class Usual(str):
    """The text of a default that was not given, so that another one can take its place."""

    __slots__ = ()


_KEY = "setting"


def setting(
    default: Any,
    help: str,
    panel: str,
    *,
    spelling: str | None = None,
    aliases: Sequence[str] = (),
    shown: str | None = None,
    metavar: str | None = None,
    choices: Sequence[str] = (),
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
    off: float | None = None,
    unit: str = "",
    short: str | None = None,
    hint: str | None = None,
    word: str | None = None,
) -> Any:
    """Return a dataclass field that describes a setting (see `Setting` and `Range`); the default ``dict`` is an empty
    table.
    """
    allowed = Range(minimum, above, maximum, below, off)
    described = {
        "help": help,
        "panel": panel,
        "spelling": spelling,
        "aliases": tuple(aliases),
        "shown": shown,
        "metavar": metavar,
        "range": allowed if allowed != Range() else None,
        "choices": tuple(choices),
        "unit": unit,
        "short": short,
        "hint": hint,
        "word": word,
    }
    if default is dict:
        return field(default_factory=dict, metadata={_KEY: described})
    return field(default=default, metadata={_KEY: described})


def setting_of(described: Field[Any], kind: Any) -> Setting:
    """Return the description in a dataclass field made by `setting`; `kind` is its type from
    `typing.get_type_hints`.
    """
    values = dict(described.metadata[_KEY])
    values["spelling"] = values["spelling"] or described.name
    default = {} if described.default is MISSING else described.default
    return Setting(key=described.name, kind=kind, default=default, **values)


def parameter_of(described: Setting) -> inspect.Parameter:
    """Return a setting as a keyword parameter of a Python function, by its preferred spelling."""
    kind = described.kind if described.word is None else described.kind | str
    return inspect.Parameter(
        described.spelling, inspect.Parameter.KEYWORD_ONLY, default=described.default, annotation=kind
    )
