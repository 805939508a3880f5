"""Parse ``--sweep KEY=V1,V2``: the variants of a recipe that one command trains."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from folds.config.lookup import key_of, known_hint, spelling_of, spellings_of
from folds.config.recipe import Recipe
from folds.errors import UsageError, close_matches
from folds.utils.toml import parse_toml

# Settings with their own way to give several values.
_ELSEWHERE = {
    "arch": "`arch=A,B` trains several architectures",
    "seed": "`seeds=N` trains with several seeds on the same folds",
    "repeats": "`repeats=R` makes several splits",
    "seeds": "`seeds=N` trains with several seeds on the same folds",
}


@dataclass(frozen=True)
class SweepPoint:
    """One combination of swept values.

    Attributes
    ----------
    values : key of a setting → its value, as text or as in TOML.
    suffix : added to the name of a run: the value, with the setting in front if the value alone is ambiguous
        (``focal``, ``lr-1e-3``).
    """

    values: Mapping[str, Any]
    suffix: str


MAX_POINTS = 1_000  # combinations of one command


class RequestedRecipe(NamedTuple):
    """A recipe to train: with every architecture, adding `suffix` to the runs' names; or with `arch`, as a run of that
    name.
    """

    suffix: str
    recipe: Recipe
    arch: str | None = None


def parse_sweep(texts: Sequence[str]) -> tuple[SweepPoint, ...]:
    """Return the variants of ``["loss=ce,focal", "lr=1e-3,3e-4"]``: every combination, the first values first.

    All combinations are trained, because two settings that are each better alone are not necessarily better together;
    one setting at a time takes two commands. Values with a comma are given as a TOML array: ``window=["0,255",
    "0,4095"]``.

    Raises
    ------
    UsageError : a key is not a setting of a recipe or is given twice, there are fewer than two values, or a value is
        repeated.
    """
    axes: dict[str, list[Any]] = {}
    for text in texts:
        key, values = _parse(text)
        if key in axes:
            name, listed = spelling_of(key), ",".join(map(_text, [*axes[key], *values]))
            raise UsageError(f"`sweep` {name} is given twice", hint=f"`sweep` {name}={listed}")
        axes[key] = values
    count = math.prod(map(len, axes.values()))
    if count > MAX_POINTS:
        raise UsageError(
            f"`sweep` has {count:,} combinations, more than {MAX_POINTS:,}",
            hint="ensemble tune samples a space of many settings and stops unpromising trials early",
        )
    combinations = itertools.product(*axes.values())
    return tuple(
        SweepPoint(dict(zip(axes, combination)), "-".join(_part(key, value) for key, value in zip(axes, combination)))
        for combination in combinations
    )


def _parse(text: str) -> tuple[str, list[Any]]:
    given, equals, listed = text.partition("=")
    name = given.strip()
    key = key_of(name)
    own = [field.name for field in fields(Recipe) if field.name not in _ELSEWHERE]
    if key in _ELSEWHERE:
        raise UsageError(f"`sweep` {name}: not a setting of a recipe", hint=_ELSEWHERE[key])
    if key is None:
        close = close_matches(name.replace("-", "_"), spellings_of(own))
        suggestion = f"; did you mean {' or '.join(close)}?" if close else ""
        raise UsageError(f"`sweep` {name}: unknown setting{suggestion}", hint=known_hint(own))
    if key not in own:
        raise UsageError(
            f"`sweep` {name}: it decides the data or the folds, which all variants share",
            hint="run one command per value, with different `name`",
        )
    values = _values(name, listed.strip()) if equals else []
    if len(values) < 2:
        raise UsageError(f"`sweep` {text}: expected two values or more", hint=f"`sweep` {name}=V1,V2")
    repeated = next((value for i, value in enumerate(values) if value in values[:i]), None)
    if repeated is not None:
        raise UsageError(f"`sweep` {text}: {_text(repeated)} is given twice", hint="name each value once")
    return key, values


def _values(name: str, listed: str) -> list[Any]:
    if not listed.startswith("["):
        return [value.strip() for value in listed.split(",") if value.strip()]
    try:
        return list(parse_toml(f"values = {listed}")["values"])
    except ValueError as error:
        hint = f"""`sweep` '{name}=["A,B", "C,D"]'"""
        raise UsageError(f"`sweep` {name}={listed}: not a TOML array: {error}", hint=hint) from None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _part(key: str, value: Any) -> str:
    text = _text(value)
    return (
        text if re.match(r"[A-Za-z]", text) and text.lower() not in ("true", "false", "yes", "no") else f"{key}-{text}"
    )
