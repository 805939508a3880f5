"""Read the arguments of `ensemble.blend`: what is combined, files of ids, columns of tables, weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ensemble.members.columns import ColumnNames
from folds.errors import UsageError, unknown_name
from folds.predictions.predictions import Predictions
from folds.utils.arguments import described


def has_files(value: Any) -> bool:
    """Return whether a value is a trained run or a result of `tta`."""
    return not isinstance(value, Predictions) and hasattr(value, "files") and hasattr(value, "oof")


def given_predictions(predictions: Any) -> Mapping[str, Any] | list[Path]:
    """Return name → array, predictions, run or TTA result; or the given files.

    Raises
    ------
    UsageError : another type, or entries of a list without a name or with the same name.
    """
    if isinstance(predictions, str | Path):
        return [Path(predictions)]
    if isinstance(predictions, Mapping):
        return predictions
    listed = [predictions] if isinstance(predictions, Predictions) or has_files(predictions) else predictions
    if isinstance(listed, list | tuple) and all(isinstance(one, str | Path) for one in listed):
        return [Path(one) for one in listed]
    expected = "name → predictions, runs or files, or a list of runs, `Predictions` or files"
    if not isinstance(listed, list | tuple):
        raise UsageError(f"expected {expected}, found {described(predictions)}", hint="blend({'a': a, 'b': b}, y=y)")
    names = []
    for one in listed:
        if not isinstance(one, Predictions) and not has_files(one):
            raise UsageError(
                f"expected {expected}, found a list with {described(one)}", hint="blend({'a': a, 'b': b}, y=y)"
            )
        names.append(getattr(one, "name", None) or one.run)
    twice = next((name for at, name in enumerate(names) if not name or name in names[:at]), None)
    if twice is not None:
        raise UsageError(
            "predictions in a list must have different values of `run`, "
            + (f"found '{twice}' twice" if twice else "found one without a value"),
            hint="name them: blend({'a': a, 'b': b})",
        )
    return dict(zip(names, listed, strict=True))


def id_files(ids: Any) -> tuple[Path, ...]:
    """Return the files with ids that the user named."""
    paths = [] if ids is None else [ids] if isinstance(ids, str | Path) else list(ids)
    if any(not isinstance(path, str | Path) for path in paths):
        raise UsageError("`ids` must be a file with ids, because the predictions are files", hint="`ids=test.csv`")
    return tuple(map(Path, paths))


def column_names(columns: Mapping[str, str | Sequence[str]] | None) -> ColumnNames:
    """Return the columns that the user named."""
    known = [field.name for field in fields(ColumnNames)]
    for role in columns or {}:
        if role not in known:
            raise unknown_name("key of `columns`", str(role), known)
    given = dict(columns or {})
    several = given.pop("probabilities", ())
    one: Any = {role: str(name) for role, name in given.items()}
    return ColumnNames(**one, probabilities=(several,) if isinstance(several, str) else tuple(several))


def weights_text(weights: Any) -> str | None:
    """Return weights as the command takes them, ``swin=0.7,vit=0.3`` or ``0.7,0.3``."""
    if weights is None or isinstance(weights, str):
        return weights
    return named_numbers(weights) if isinstance(weights, Mapping) else ",".join(repr(float(value)) for value in weights)


def named_numbers(values: Mapping[str, float]) -> str:
    """Return run → number as the command takes it, ``swin=0.7,vit=0.3``."""
    return ",".join(f"{name}={float(value)!r}" for name, value in values.items())
