"""Load a metric of the user, named ``module:function``."""

from __future__ import annotations

import inspect
import math
import pickle
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numpy as np

from folds.errors import EnsembleError, UsageError, unknown_name
from folds.metrics.classification import COLUMN_METRICS, METRICS, Metric, built_in_metric, metric_forms
from folds.metrics.confusion import Labels, Probabilities
from folds.utils.arguments import METRIC, wrong_argument
from folds.utils.files import sha256_bytes, sha256_file
from folds.utils.plugins import load_object

_EXAMPLE = "`metric=my_scores:cost` takes cost from my_scores.py in the current folder"


def find_metric(name: str) -> Metric:
    """Return a built-in metric by its name, with settings (``f_beta:beta=2``), or a user's ``module:function``.

    Raises
    ------
    UsageError : the name is unknown, or an error of `load_metric`.
    """
    found = built_in_metric(name)
    if found is not None:
        return found
    if ":" not in name:
        raise unknown_name("metric", name, [*METRICS, *COLUMN_METRICS, "module:function"], _known_hint())
    head, _, rest = name.partition(":")
    if "=" in rest:  # no function has such a name: settings of a metric that does not exist
        raise unknown_name("metric", head, [*METRICS, *COLUMN_METRICS], _known_hint())
    return load_metric(name)


def _known_hint() -> str:
    return f"known: {', '.join(metric_forms())}, or your own module:function"


def metric_of(metric: str | Metric | Callable[..., Any]) -> Metric:
    """Return the metric of a name, or of a function of (labels (n,) int, probabilities (n, classes)) → float.

    Greater is better, unless the function has an attribute ``greater_is_better = False``.

    Raises
    ------
    UsageError : the name is unknown, or `metric` is neither a name nor a function.
    """
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, str):
        return find_metric(metric)
    if not callable(metric):
        raise wrong_argument("metric", METRIC.expected, metric, hint=_known_hint())
    name = getattr(metric, "__name__", type(metric).__name__)
    better = bool(getattr(metric, "greater_is_better", True))
    return Metric(
        name,
        name,
        better,
        function=_checked(name, metric),
        lower_bound=-math.inf,
        upper_bound=math.inf,
        sha=_content_of(metric),
    )


def _content_of(function: Callable[..., Any]) -> str:
    """Return a hash of a function's code and of the values it uses, so that fits and blends by different functions
    are not confused; a unique text if they cannot be determined.
    """
    code = getattr(function, "__code__", None)
    try:
        if code is None:
            return sha256_bytes(pickle.dumps(function))
        used = inspect.getclosurevars(function)
        names = {**used.globals, **used.nonlocals}
        known = [
            (name, pickle.dumps(value)) for name, value in sorted(names.items()) if not isinstance(value, ModuleType)
        ]
        defaults = pickle.dumps((function.__defaults__, function.__kwdefaults__))  # type: ignore[attr-defined]
    except Exception:  # pickling calls any code
        return uuid.uuid4().hex
    return sha256_bytes(repr((_instructions(code), known, defaults)).encode())


def _instructions(code: CodeType) -> tuple[Any, ...]:
    """Return what a code object does, without its place in a file."""
    constants = [_instructions(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts]
    return code.co_code, code.co_names, code.co_varnames, constants


def load_metric(name: str) -> Metric:
    """Return a user's function of labels (n,) int and probabilities (n, classes) → float as a metric.

    Greater is better, unless the function has an attribute ``greater_is_better = False``. The current folder is
    searched first. Importing a module runs it, so use this only for a name that the user gave, never for one read from
    a file.

    Raises
    ------
    UsageError : the module or the function does not exist, cannot be imported, or cannot be called with two arguments.
    """
    module, found = load_object(name, "metric", _EXAMPLE)
    if inspect.isclass(found) or not callable(found):
        what = "class" if inspect.isclass(found) else type(found).__name__
        raise UsageError(f"`metric={name}` is a {what}, expected a function of (labels, probabilities)", hint=_EXAMPLE)
    try:
        signature = inspect.signature(found)
        signature.bind(None, None)
    except ValueError:  # written in C: no signature
        pass
    except TypeError:
        raise UsageError(
            f"`metric={name}` takes {signature}, expected (labels, probabilities)",
            hint="labels are class indices (n,), probabilities (n, classes)",
        ) from None
    better = getattr(found, "greater_is_better", True)
    if not isinstance(better, bool):
        raise UsageError(
            f"`metric={name}`: greater_is_better is {better!r}, expected True or False",
            hint=f"in {module.__name__}: cost.greater_is_better = False",
        )
    file = getattr(module, "__file__", None)
    sha = sha256_file(Path(file)) if file else ""
    return Metric(
        name,
        name.partition(":")[2],
        better,
        function=_checked(name, found),
        lower_bound=-math.inf,
        upper_bound=math.inf,
        sha=sha,
    )


def _checked(name: str, function: Callable[..., Any]) -> Callable[[Labels, Probabilities], float]:
    return partial(_call, name, function)  # not a closure, which could not be pickled


def _call(name: str, function: Callable[..., Any], labels: Labels, probabilities: Probabilities) -> float:
    """Return the finite number that a user's function returns."""
    # Copies, because the function may change its arguments.
    of_columns = np.ndim(labels) == 2
    what = "columns" if of_columns else "classes"
    try:
        value = function(np.array(labels), np.array(probabilities))
    except Exception as error:
        rows = f"{len(labels)} rows of {np.shape(probabilities)[1]} {what}"
        raise EnsembleError(
            f"`metric={name}` failed on {rows}: {type(error).__name__}: {error}",
            hint="it is called with labels (n, columns), nan where one is not known, and predictions (n, columns)"
            if of_columns
            else "it is called with labels (n,), probabilities (n, classes)",
        ) from error
    try:
        number = float(value)
        shown = str(number)  # not np.float64(nan)
    except (TypeError, ValueError):
        number, shown = math.nan, repr(value)
    if not math.isfinite(number):
        raise EnsembleError(
            f"`metric={name}` returned {shown} on {len(labels):,} rows of {np.shape(probabilities)[1]} {what}, "
            "expected a finite number",
            hint="return a float for any rows: subsets of the people are scored too and may lack a "
            + ("label" if of_columns else "class"),
        )
    return number
