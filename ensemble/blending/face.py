"""`ensemble.blend`: combine arrays, predictions, runs or files, and return a `Blend`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ensemble.blending.arrays import ArrayMembers, members_of_arrays
from ensemble.blending.blend import Blend, blend_members, make_blend
from ensemble.blending.request import BlendConfig
from folds.errors import UsageError
from folds.predictions.predictions import Predictions
from folds.utils.bars import log_in_notebook, progress_of
from folds.utils.progress import Progress

if TYPE_CHECKING:
    from ensemble.blending.arrays import Predicted


def blend(
    predictions: Mapping[str, Predicted] | Mapping[str, Any] | Sequence[Any] | str | Path,
    *,
    y: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    fold: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    classes: Sequence[Any] | None = None,
    test: Mapping[str, Predicted] | None = None,
    method: str | None = None,
    weights: str | Mapping[str, float] | Sequence[float] | None = None,
    runs: str | Sequence[str] | None = None,
    metric: str = "macro_f1",
    per_person: bool = False,
    calibrate: str | None = None,
    power: float | None = None,
    trim: float | None = None,
    by: str = "class",
    max_members: int | None = None,
    budget: float | None = None,
    cost: str | Mapping[str, float] | None = None,
    contributions: bool | None = None,
    breakdown: bool = False,
    labels: str | Path | None = None,
    logits: bool = False,
    allow_duplicates: bool | None = None,
    unfinished: bool = False,
    progress: bool | Progress = True,
) -> Blend:
    """Combine several predictions, and score the combination by nested cross-validation if it is fitted.

    The same as the command ``ensemble blend``.

    Parameters
    ----------
    predictions : name → (n, classes) out-of-fold probabilities of the same rows in the same order (arrays, or
        DataFrames whose columns are the classes), or name → `Predictions`, which are aligned by id; or the result of
        `kfold`; or files (patterns too), or names of runs and blends.
    y : (n,) true class of each row of the arrays. Without it, the arrays are treated as test samples, and no method can
        be fitted.
    groups : (n,) the person (patient, camera, writer) of each row; without it, every row counts as one person.
    fold : (n,) the fold of each row, if all predictions have the same folds; nested scores use them as outer folds.
    ids : (n,) the id of each row; rows are numbered by default.
    classes : class of each column of the arrays; by default the sorted values of `y`, as in scikit-learn.
    test : predictions of test samples with the same names, which are blended too.
    method : ``soft`` (the default), ``hard``, ``weighted``, ``geometric``, ``power``, ``median``, ``trimmed``, ``max``,
        ``rank``; learned: ``best``, ``greedy``, ``greedy-bagged``, ``greedy-warm``, ``simplex``, ``exp``,
        ``per-class``, ``bias``, ``bias-geometric``, ``stacking``, ``stacking-bias``; or ``auto``, which selects one and
        includes the selection in the nested score.
    weights : weights for ``weighted``: name → weight, or a sequence in the order of the names.
    runs : names of the runs to use; all by default.
    metric : metric to score by and to optimize.
    per_person : whether to average the probabilities of each person's rows before scoring.
    calibrate : ``temperature`` or ``vector``, with the prefix ``before:`` or ``after:`` for before or after pooling.
    power, trim : parameters of the methods ``power`` and ``trimmed``.
    by : ``class``, or ``attribute`` to vote on each attribute (mask, gender, age) separately.
    max_members, budget : maximum number of runs, and maximum cost per image.
    cost : name → cost of one forward pass of the run.
    contributions : whether the record includes the contribution of each run; by default with ``auto``.
        `Blend.contributions` is always available.
    breakdown : whether the record includes scores by class and attribute.
    labels : a CSV of true labels, for files.
    logits : whether files without a sidecar hold logits.
    allow_duplicates : whether equal predictions with two names vote twice; by default only for arrays.
    unfinished : whether runs that are not trained on all folds take part beside finished ones, for files.
    progress : False for no progress output.

    Raises
    ------
    UsageError : an unknown method, metric or run, arguments that exclude each other, or arrays of different shapes.
    EnsembleError : a file cannot be used, or there are no labeled out-of-fold predictions to fit on.

    Examples
    --------
    >>> import ensemble as en, numpy as np
    >>> rng = np.random.default_rng(0)
    >>> person = np.arange(120) // 4
    >>> y = rng.choice(["cat", "dog"], 30)[person]
    >>> one_hot = (y[:, None] == np.array(["cat", "dog"])) * 1.0
    >>> a, b = (0.5 * one_hot + 0.5 * rng.dirichlet([1, 1], 120) for _ in range(2))
    >>> made = en.blend({"a": a, "b": b}, y=y, groups=person, method="greedy")
    >>> sorted(made.weights), made.nested.value >= 0.9
    (['a', 'b'], True)
    >>> made.predict_proba({"a": a[:3], "b": b[:3]}).shape
    (3, 2)
    """
    log_in_notebook()
    config = BlendConfig(
        method=method,
        weights=_weights(weights),
        runs=(runs,) if isinstance(runs, str) else None if runs is None else tuple(runs),
        metric=metric,
        per_person=per_person,
        labels=None if labels is None else Path(labels),
        logits=logits,
        power=power,
        trim=trim,
        by=by,
        allow_duplicates=bool(allow_duplicates),
        calibrate=calibrate,
        max_members=max_members,
        budget=budget,
        cost=cost if cost is None or isinstance(cost, str) else _named(cost),
        contributions=contributions,
        detail=breakdown,
        unfinished=unfinished,
    )
    config.check()
    files = _files(predictions)
    if files is not None:
        given = {"y": y, "groups": groups, "fold": fold, "ids": ids, "classes": classes, "test": test}
        for name, value in given.items():
            if value is not None:
                raise UsageError(
                    f"`{name}` applies to arrays, found files",
                    hint="files contain it; pass labels for files as `labels=FILE.csv`",
                )
        return make_blend(files, config, progress_of(progress))
    named = _by_name(predictions)
    if config.runs is not None:
        named = {name: value for name, value in named.items() if name in config.runs} or named
    made, config = _array_members(named, test, config, y=y, groups=groups, fold=fold, ids=ids, classes=classes)
    if allow_duplicates is None:
        config = replace(config, allow_duplicates=True)
    return replace(blend_members(made.members, config, progress_of(progress)), stated_classes=made.classes)


def _array_members(
    named: Mapping[str, Any], test: Mapping[str, Any] | None, config: BlendConfig, **about: Any
) -> tuple[ArrayMembers, BlendConfig]:
    """Return the members of both splits, and the options."""
    if config.labels is not None or config.logits:
        raise UsageError("`labels` and `logits` apply to files, found arrays", hint="pass the labels of arrays as `y`")
    own = [value for value in named.values() if isinstance(value, Predictions)]
    labeled = about["y"] is not None or any(value.split == "oof" for value in own)
    if not labeled:
        if test is not None:
            raise UsageError(
                "`test` needs out-of-fold predictions and their `y`",
                hint="remove `test` to blend test samples alone",
            )
        if config.is_fitted:
            raise UsageError(
                f"`method={config.name}` is fitted on labels, found no `y`", hint="`method='soft'` needs no labels"
            )
    made = members_of_arrays(named, "oof" if labeled else "test", **about)
    if test is None:
        return made, config
    unmatched = sorted(set(test) - set(named))
    if unmatched:
        raise UsageError(f"`test` has '{unmatched[0]}', which has no out-of-fold predictions")
    order = (
        None
        if any(isinstance(value, Predictions) or hasattr(value, "columns") for value in test.values())
        else made.classes
    )
    others = members_of_arrays(test, "test", classes=order)
    return ArrayMembers((*made.members, *others.members), made.classes), config


def _files(predictions: Any) -> list[Path] | None:
    """Return the given files, or those of the given runs; None for arrays and predictions."""
    if isinstance(predictions, str | Path):
        return [Path(predictions)]
    if isinstance(predictions, Mapping):
        kept = [getattr(value, "files", None) for value in predictions.values()]
        return (
            [Path(file) for files in kept for file in files or ()]
            if kept and all(f is not None for f in kept)
            else None
        )
    if isinstance(predictions, Sequence) and predictions and all(isinstance(one, str | Path) for one in predictions):
        return [Path(one) for one in predictions]
    return None


def _by_name(predictions: Any) -> Mapping[str, Any]:
    if isinstance(predictions, Mapping):
        return predictions
    if isinstance(predictions, Sequence) and all(isinstance(one, Predictions) for one in predictions):
        names = [one.run for one in predictions]
        if not all(names) or len(set(names)) < len(names):
            raise UsageError(
                "predictions in a list must have different values of `run`", hint="blend({'a': a, 'b': b})"
            )
        return dict(zip(names, predictions, strict=True))
    found = "an array" if isinstance(predictions, np.ndarray) else f"a {type(predictions).__name__}"
    raise UsageError(f"expected name → predictions, runs or files, found {found}", hint="blend({'a': a, 'b': b}, y=y)")


def _weights(weights: Any) -> str | None:
    if weights is None or isinstance(weights, str):
        return weights
    return _named(weights) if isinstance(weights, Mapping) else ",".join(repr(float(value)) for value in weights)


def _named(values: Mapping[str, float]) -> str:
    return ",".join(f"{name}={float(value)!r}" for name, value in values.items())
