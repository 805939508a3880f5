"""`blend` of the face: arrays in memory, predictions, runs or files in; a `Blend` out."""

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
    progress: bool | Progress = True,
) -> Blend:
    """Return a combination of several predictions, with a nested score of whatever is fitted. As ``ensemble blend``.

    Parameters
    ----------
    predictions : name → (n, classes) out-of-fold probabilities of the same rows in the same order (arrays, DataFrames
        whose columns are
        the classes), or → `Predictions`, which are put in line by id; or what `kfold` has returned; or files (patterns
        too).
    y : (n,) true classes of the rows of arrays; without it they are taken for test samples, on which nothing can be
        learned.
    groups : (n,) the person (patient, camera, writer) of each row; without it every row counts as a person of its own.
    fold : (n,) the fold of each row, where all predictions are of one split: nested scores leave these out, one at a
        time.
    ids : (n,) names of the rows; without it they are numbered.
    classes : of the columns of arrays, in order; without it the sorted values of `y`, as in scikit-learn.
    test : the same names → predictions of test samples, which are blended too.
    method : ``soft`` (the default), ``hard``, ``weighted``, ``geometric``, ``power``, ``median``, ``trimmed``, ``max``,
        ``rank``; learned:
        ``best``, ``greedy``, ``greedy-bagged``, ``greedy-warm``, ``simplex``, ``exp``, ``per-class``, ``bias``,
        ``bias-geometric``,
        ``stacking``, ``stacking-bias``; or ``auto``, which chooses, and scores the choice.
    weights : of ``weighted``: name → weight, or one for each in order.
    runs : blend only these.
    metric : what is scored, and what is learned for.
    per_person : score people: the probabilities of a person's rows are averaged first.
    calibrate : ``temperature`` or ``vector``, with ``before:`` or ``after:`` pooling.
    power, trim : of the methods of these names.
    by : ``class``, or ``attribute``: mask, gender, age are voted on apart.
    max_members, budget : how many runs, or what cost an image, at most.
    cost : what a pass of each run costs: name → cost.
    contributions : say in the record what each run is worth (with ``auto`` by default); `Blend.contributions` tells it
        in any case.
    breakdown : put scores by class and attribute into the record.
    labels : a CSV of true labels, for files.
    logits : files without a sidecar hold logits.
    allow_duplicates : equal predictions under two names vote twice (as arrays do by default), not once.
    progress : False for silence.

    Raises
    ------
    UsageError : an unknown method, metric or run, arguments that do not go together, or arrays that do not fit.
    EnsembleError : a file cannot be used, or there is nothing to learn from.

    Examples
    --------
    >>> import ensemble as en, numpy as np
    >>> rng = np.random.default_rng(0)
    >>> person = np.arange(120) // 4
    >>> y = rng.choice(["cat", "dog"], 30)[person]
    >>> truth = (y[:, None] == np.array(["cat", "dog"])) * 1.0
    >>> mine, hers = (0.5 * truth + 0.5 * rng.dirichlet([1, 1], 120) for _ in range(2))
    >>> made = en.blend({"mine": mine, "hers": hers}, y=y, groups=person, method="greedy")
    >>> sorted(made.weights), made.nested.value >= 0.9
    (['hers', 'mine'], True)
    >>> made.predict_proba({"mine": mine[:3], "hers": hers[:3]}).shape
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
        worth=contributions,
        detail=breakdown,
    )
    config.check()
    files = _files(predictions)
    if files is not None:
        given = {"y": y, "groups": groups, "fold": fold, "ids": ids, "classes": classes, "test": test}
        for name, value in given.items():
            if value is not None:
                raise UsageError(
                    f"`{name}` goes with arrays, and files are given",
                    hint="files say it themselves; `labels` is a CSV of labels",
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
    """The members of both splits."""
    if config.labels is not None or config.logits:
        raise UsageError("`labels` and `logits` go with files", hint="`y` has the labels of arrays")
    own = [value for value in named.values() if isinstance(value, Predictions)]
    labelled = about["y"] is not None or any(value.split == "oof" for value in own)
    if not labelled:
        if test is not None:
            raise UsageError(
                "`test` goes with out-of-fold predictions and their `y`",
                hint="leave it out to blend test samples alone",
            )
        if config.is_fitted:
            raise UsageError(
                f"`method={config.name}` learns from labels, and there is no `y`", hint="`method='soft'` learns nothing"
            )
    made = members_of_arrays(named, "oof" if labelled else "test", **about)
    if test is None:
        return made, config
    strange = sorted(set(test) - set(named))
    if strange:
        raise UsageError(f"`test` has '{strange[0]}', of which there are no out-of-fold predictions")
    order = (
        None
        if any(isinstance(value, Predictions) or hasattr(value, "columns") for value in test.values())
        else made.classes
    )
    others = members_of_arrays(test, "test", classes=order)
    return ArrayMembers((*made.members, *others.members), made.classes), config


def _files(predictions: Any) -> list[Path] | None:
    """The files that are given, or those of the runs; None where it is arrays or predictions."""
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
                "predictions in a list need a `run` each, none twice", hint="blend({'mine': a, 'hers': b})"
            )
        return dict(zip(names, predictions, strict=True))
    found = "an array" if isinstance(predictions, np.ndarray) else f"a {type(predictions).__name__}"
    raise UsageError(
        f"expected name → predictions, runs or files, found {found}", hint="blend({'mine': a, 'hers': b}, y=y)"
    )


def _weights(weights: Any) -> str | None:
    if weights is None or isinstance(weights, str):
        return weights
    return _named(weights) if isinstance(weights, Mapping) else ",".join(repr(float(value)) for value in weights)


def _named(values: Mapping[str, float]) -> str:
    return ",".join(f"{name}={float(value)!r}" for name, value in values.items())
