"""`ensemble.blend`: combine arrays, predictions, runs or files, and return a `Blend`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from ensemble.blending.arrays import check_name
from ensemble.blending.blend import Blend, blend_members, make_blend
from ensemble.blending.face_arguments import (
    column_names,
    given_predictions,
    has_files,
    id_files,
    named_numbers,
    weights_text,
)
from ensemble.blending.given_arrays import named_members, selected
from ensemble.blending.request import BlendConfig
from ensemble.learning.further_columns import parse_columns
from ensemble.members.columns import ColumnNames
from ensemble.members.discovery import find_files
from ensemble.members.reading import Member, read_members
from folds.errors import EnsembleError, UsageError, respelled
from folds.metrics.arrays import column_classes
from folds.metrics.classification import Metric
from folds.metrics.custom import metric_of
from folds.predictions.predictions import Predictions
from folds.utils.arguments import (
    CLASSES,
    FLAG,
    NAME,
    NAMES,
    NUMBER,
    PATH,
    PROGRESS,
    check_arguments,
    list_of,
    mapping_to,
    whole,
)
from folds.utils.bars import log_in_notebook, progress_of
from folds.utils.progress import Progress
from folds.utils.schema import ANYTHING, either, optional

if TYPE_CHECKING:
    from ensemble.blending.arrays import Predicted

_log = logging.getLogger(__name__)
# The roles of columns are options of the command, here they are keys of `columns`.
_OF_COLUMNS = {one.name: f"columns={{{one.name!r}: {{}}}}" for one in fields(ColumnNames)}
_OF_COLUMNS["probabilities"] = "columns={'probabilities': [{}]}"
_NUMBERS = mapping_to(NUMBER, "run → number")
_KINDS = {
    "classes": optional(CLASSES),
    "test": optional(mapping_to(ANYTHING, "run → predictions")),
    "method": optional(NAME),
    "weights": optional(either(NAME, _NUMBERS, list_of(NUMBER, "numbers"))),
    "runs": optional(NAMES),
    "per_person": FLAG,
    "unfinished": FLAG,
    "positive": optional(ANYTHING),
    "task": optional(NAME),
    "pool": optional(NAME),
    "extra": optional(either(NAMES, mapping_to(ANYTHING, "name → values of the rows"))),
    "calibrate": optional(NAME),
    "power": optional(NUMBER),
    "trim": optional(NUMBER),
    "by": NAME,
    "max_members": optional(whole()),
    "budget": optional(NUMBER),
    "cost": optional(either(NAME, _NUMBERS)),
    "contributions": optional(FLAG),
    "breakdown": FLAG,
    "labels": optional(PATH),
    "uncertain": optional(NAME),
    "logits": FLAG,
    "allow_duplicates": optional(FLAG),
    "progress": PROGRESS,
}


def blend(
    predictions: Mapping[str, Predicted] | Mapping[str, Any] | Sequence[Any] | Predictions | str | Path,
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
    metric: str | Metric | Callable[..., float] | None = None,
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
    columns: Mapping[str, str | Sequence[str]] | None = None,
    unfinished: bool = False,
    positive: Any = None,
    task: str | None = None,
    pool: str | None = None,
    extra: str | Sequence[str] | Mapping[str, ArrayLike] | None = None,
    uncertain: str | None = None,
    progress: bool | Progress = True,
) -> Blend:
    """Combine several predictions, and score the combination by nested cross-validation if it is fitted.

    The same as the command ``ensemble blend``.

    Parameters
    ----------
    predictions : name → (n, classes) out-of-fold probabilities of the same rows in the same order (arrays, or
        DataFrames whose columns are the classes), or name → `Predictions`, which are aligned by id; or the result of
        `kfold`; or name → run or result of `tta`; or a list of `Predictions`, runs and results of `tta`, under their
        own names; files (patterns too), or names of runs and blends. For two classes also (n,) or
        (n, 1), the probability of the positive class.
    y : (n,) true class of each row of the arrays; of several labels (n, labels) of 0, 1 and nan if unknown, of numbers
        (n,) or (n, numbers). Without it, the arrays are treated as test samples, and no method can
        be fitted.
    groups : (n,) the person (patient, camera, writer) of each row; without it, every row counts as one person.
    fold : (n,) the fold of each row, if all predictions have the same folds; nested scores use them as outer folds.
    ids : (n,) the id of each row; rows are numbered by default. For files: a file (or several) with the ids of the
        rows of arrays without ids, in their order.
    classes : class of each column of the arrays; by default the sorted values of `y`, as in scikit-learn. Required if
        other predictions name their classes in another order. For one column the negative and the positive class.
    test : predictions of test samples with the same names, which are blended too. A run with a weight must have them.
    method : ``soft`` (the default), ``hard``, ``grades``, ``weighted``, ``geometric``, ``power``, ``median``,
        ``trimmed``, ``max``, ``rank``; learned: ``best``, ``greedy``, ``greedy-bagged``, ``greedy-warm``, ``simplex``,
        ``exp``, ``per-class``, ``bias``, ``bias-geometric``, ``stacking``, ``stacking-bias``; or ``auto``, which
        selects one and includes the selection in the nested score. Numbers have ``nnls`` as well.
    weights : weights for ``weighted``: name → weight, or a sequence in the order of the names.
    runs : names of the runs to use; all by default.
    metric : metric to score by and to optimize: a name, ``module:function``, or a function of (labels (n,) int,
        probabilities (n, classes)); by default ``macro_f1``, of several labels ``roc_auc``, of numbers ``mae``.
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
    columns : for files: what the columns of tables hold: ``id``, ``label``, ``person``, ``fold``, ``prediction`` → a
        column, ``probabilities`` → the columns of the classes.
    unfinished : whether runs that are not trained on all folds take part beside finished ones, for files.
    positive : the positive one of two classes, for metrics of a positive class; by default the one that files state,
        else the one that the names tell (1, yes, malignant, …), else the second.
    task : ``multilabel`` (columns are labels, of which a sample has any number) or ``regression`` (columns are numbers)
        for arrays, and files without a sidecar.
    pool : the images of a person become one row before anything is fitted and scored: ``mean``, ``median``, ``max``,
        ``top-k:k=3``, ``noisy-or``, or fitted: ``log-odds``, ``learned``; ``auto`` chooses one and includes the choice
        in the nested score. Several labels have all of them, numbers neither ``noisy-or`` nor ``log-odds``. It implies
        `per_person`.
    extra : columns of the samples that ``stacking`` uses beside the predictions: their names, or, for arrays, name →
        (n,) values. Missing values are None, nan or "".
    uncertain : what -1 means among several labels in the table `labels`: ``unknown``, ``absent`` or ``present``.
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
    check_arguments(locals(), _KINDS)
    config = BlendConfig(
        method=method,
        weights=weights_text(weights),
        runs=(runs,) if isinstance(runs, str) else None if runs is None else tuple(runs),
        metric=metric if metric is None or isinstance(metric, str) else metric_of(metric),
        per_person=per_person,
        labels=None if labels is None else Path(labels),
        logits=logits,
        power=power,
        trim=trim,
        by=by,
        allow_duplicates=bool(allow_duplicates),
        calibrate=calibrate,
        max_members=None if max_members is None else int(max_members),
        budget=budget,
        cost=cost if cost is None or isinstance(cost, str) else named_numbers(cost),
        contributions=contributions,
        detail=breakdown,
        columns=column_names(columns),
        unfinished=unfinished,
        positive=None if positive is None else str(positive),
        task=task,
        pool=pool,
        extra=(extra,) if isinstance(extra, str) else tuple(map(str, extra or ())),
        uncertain=uncertain,
    )
    config.check()
    about: dict[str, Any] = {"y": y, "groups": groups, "fold": fold, "ids": ids, "classes": classes}
    if isinstance(extra, Mapping):
        about["extra"] = {parse_columns([name])[0][0]: values for name, values in extra.items()}
    given, shown = given_predictions(predictions), progress_of(progress)
    if isinstance(given, list):
        return _blend_files(given, test, config, about, shown)
    if columns is not None:
        raise UsageError("`columns` applies to files, found arrays", hint="pass the columns of a DataFrame as arrays")
    if given and all(map(has_files, given.values())):
        return _blend_runs(given, test, config, about, shown)
    return _blend_arrays(given, test, config, about, allow_duplicates, shown)


def _blend_runs(
    given: Mapping[str, Any], test: Any, config: BlendConfig, about: Mapping[str, Any], progress: Progress
) -> Blend:
    """Return the blend of the files of runs and TTA results; arguments of arrays are an error."""
    _check_absent({**about, "test": test}, "runs")
    made = blend_members(_members_of_runs(given, config), config, progress)
    _check_test(made, required=False)
    return made


def _blend_files(
    files: list[Path], test: Any, config: BlendConfig, about: Mapping[str, Any], progress: Progress
) -> Blend:
    """Return the blend of files; arguments of arrays are an error."""
    _check_absent({**{name: about.get(name) for name in ("y", "groups", "fold", "extra")}, "test": test}, "files")
    classes = about["classes"]
    names = None if classes is None else column_classes(None, classes)
    config = replace(config, classes=names, ids=id_files(about["ids"]))
    config.check()
    with respelled(_OF_COLUMNS):
        return make_blend(files, config, progress)


def _blend_arrays(
    given: Mapping[str, Any],
    test: Mapping[str, Any] | None,
    config: BlendConfig,
    about: Mapping[str, Any],
    allow_duplicates: bool | None,
    progress: Progress,
) -> Blend:
    """Return the blend of arrays, of which equal ones vote twice unless it is refused."""
    found, config = named_members(selected(given, config.runs), test, config, **about)
    if allow_duplicates is None:
        config = replace(config, allow_duplicates=True)
    made = replace(blend_members(found.members, config, progress), stated_classes=found.classes)
    _check_test(made, required=True)
    return made


def _check_absent(about: Mapping[str, Any], found: str) -> None:
    """Raise UsageError if an argument that describes arrays is given."""
    for name, value in about.items():
        if value is not None:
            raise UsageError(
                f"`{name}` applies to arrays, found {found}",
                hint="files contain it; pass labels for files as `labels=FILE.csv`",
            )


def _check_test(made: Blend, required: bool) -> None:
    """Raise UsageError, or log a warning unless `required`, if a run with a weight has no test predictions but others
    have.
    """
    if "test" not in made.splits or "oof" not in made.splits:
        return
    present = [run.name for run in made.splits["test"].runs]
    missing = [name for name, weight in made.weights.items() if weight > 0 and name not in present]
    if not missing:
        return
    if required:
        raise UsageError(
            f"`test` has no predictions of {', '.join(missing)}, found those of {', '.join(present)}",
            hint="give the test predictions of every run, or select runs with `runs`",
        )
    _log.warning("%s has no test predictions: the test blend uses only %s", ", ".join(missing), ", ".join(present))


def _members_of_runs(given: Mapping[str, Any], config: BlendConfig) -> list[Member]:
    """Return the members in the files of runs and TTA results, under the names of the mapping."""
    members: list[Member] = []
    for name, value in given.items():
        check_name(name)
        if not value.files:
            raise EnsembleError(f"the run '{name}' has no predictions", hint="train it: kfold(...)")
        files = find_files([Path(file) for file in value.files], config.allow_duplicates)
        members += [replace(member, run=name) for member in read_members(files, config.logits, config.allow_duplicates)]
    return members
