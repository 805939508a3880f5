"""Train runs from Python: `kfold` of the public interface."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from folds.config.command_settings import Settings
from folds.config.contradictions import check_contradictions
from folds.config.files import given_numbers, load_settings
from folds.config.frozen import joined_arch, with_heads
from folds.config.lookup import by_key, setting_parameters
from folds.config.recipe import Recipe
from folds.config.requested import requested_recipes
from folds.config.sweep import RequestedRecipe
from folds.data.face import data_settings, training_table
from folds.errors import FoldsFailed, UsageError
from folds.execution.local import prepare_workers
from folds.execution.placement import Execution
from folds.experiments.loggers.open import open_tracker
from folds.predictions.file_names import FOLDS_FILE
from folds.predictions.files import ALL
from folds.runs.learning_curves import check_learning_curve, write_learning_curves
from folds.runs.plan import build_plan
from folds.runs.results import Runs, TrainedRun
from folds.runs.session import TrainingResult, train_runs
from folds.splits.assignment import FoldAssignment
from folds.splits.columns import folds_of_column
from folds.utils.arguments import (
    FLAG,
    FOLDS,
    NAME,
    NUMBER,
    PATH,
    PROGRESS,
    SPLIT,
    check_arguments,
    list_of,
    mapping_to,
    whole,
)
from folds.utils.bars import log_in_notebook, progress_of
from folds.utils.progress import Progress
from folds.utils.schema import ANYTHING, FILE_SAFE, either, named, one_of, optional
from folds.utils.text import counted

if TYPE_CHECKING:
    from folds.data.face import Data

_KINDS = {
    "folds": optional(SPLIT),
    "fold": optional(named(either(one_of(ALL), FOLDS), f"{FOLDS.expected}, or 'all'")),
    "sweep": optional(mapping_to(list_of(ANYTHING, "values"), "setting → list of values")),
    **dict.fromkeys(("resume", "force", "strict", "per_person", "join", "learning_curve"), FLAG),
    "heads": optional(list_of(NAME, "heads")),
    **dict.fromkeys(("baseline", "hypothesis", "logger", "ray_address"), optional(NAME)),
    "config": optional(PATH),
    "devices": NAME,
    "jobs": optional(whole(1)),
    "gpus_per_job": optional(whole(1)),
    "backend": NAME,
    "save_every": NUMBER,
    "root": PATH,
    "progress": PROGRESS,
}


def kfold(
    data: Data | None = None,
    *,
    folds: FoldAssignment | str | Path | None = None,
    fold: int | Sequence[int] | str | None = None,
    heads: Sequence[str] | None = None,
    join: bool = False,
    learning_curve: bool = False,
    sweep: Mapping[str, Sequence[Any]] | None = None,
    config: str | Path | None = None,
    resume: bool = True,
    force: bool = False,
    strict: bool = False,
    per_person: bool = False,
    baseline: str | None = None,
    hypothesis: str | None = None,
    logger: str | None = None,
    devices: str = "auto",
    jobs: int | None = None,
    backend: str = "local",
    ray_address: str | None = None,
    save_every: float = 30.0,
    gpus_per_job: int | None = None,
    root: str | Path = ".",
    progress: bool | Progress = True,
    **settings: Any,
) -> Runs:
    """Train one model for each fold and architecture, as ``ensemble kfold`` does; return the runs with their scores.

    Trained folds are not trained again: the same call continues after an interruption.

    Parameters
    ----------
    data : the result or an argument of `read_table`; None for ``data`` in the folder `root` or, without it, synthetic
        data.
    folds : an existing split: the result of `split` or `load_folds`, a file, or a column of the table; None to make
        one, or to use ``folds.csv`` in the folder `root` if it fits the table, and `k` if that is given.
    fold : the folds to train; None for all folds; ``"all"`` for all folds and one model on all people, with as many
        epochs as the folds say (`Run.refit`).
    heads, join : with ``features=True``: one run for each head, such as ``["logistic", "mlp"]``; and whether the
        features of all models of `arch` are joined in one run.
    learning_curve : also train on a quarter and on half of the people, and score these models on the same people; with
        ``features=True``, score heads that were trained on shares of the people (`Run.learning_curve`).
    sweep : setting → values; one run is trained for each combination, and compared with the first.
    config : TOML file of settings; keywords take precedence. ``ensemble.toml`` is read only if it is named here.
    resume : continue existing runs; if False, an existing run is an error.
    force : retrain existing runs from scratch; with ``fold="all"`` only the model of all people.
    strict : treat warnings about the data and the folds as errors, raised before anything is written.
    per_person : average the probabilities of each person's images before scoring.
    baseline : run that all runs are compared with.
    hypothesis : expected result, saved with the runs.
    logger : ``tensorboard``, ``mlflow``, ``wandb`` or ``trackio``.
    devices, jobs, backend, ray_address, save_every : where and how the runs are trained; they do not change the
        results.
    gpus_per_job : GPUs that train one fold together; None for 1, or the number that the run was started with.
    root : folder with ``runs/``, ``checkpoints/`` and ``.ensemble/``.
    progress : False to print nothing.
    settings : any setting of ``ensemble kfold``: ``arch``, ``k``, ``seed``, ``epochs``, ``batch_size``, ``lr``,
        ``img_size``, ``augment``, …

    Raises
    ------
    UsageError : an unknown setting, an invalid value, or settings that contradict each other.
    EnsembleError : the data are invalid, a run exists with different settings, or another process trains it.
    FoldsFailed : some folds failed; the others are saved, and the same call tries the failed ones again.

    Examples
    --------
    Train two architectures on five folds; the second call trains nothing and returns the same runs::

        data = folds.read_table("photos.csv", person="patient")
        runs = folds.kfold(data, arch=["swin", "resnet18"], k=5, epochs=15)
        runs["swin"].score("macro_f1")  # 0.676 [0.592, 0.749]
        folds.kfold(data, arch=["swin", "resnet18"], k=5, epochs=15)

    Settings are checked before anything is trained:

    >>> import folds
    >>> folds.kfold(k=1)
    Traceback (most recent call last):
    ...
    folds.errors.UsageError: ... must be 2 or more, found 1
    """
    log_in_notebook()
    check_arguments(locals(), _KINDS)
    if resume and force:
        resume = False
    base = Path(root)
    flags = joined_settings(settings, data_settings(data, base)) | {"folds": _folds_file(folds, data, base)}
    path = None if config is None else Path(config)
    flags, sweep = _with_frozen(flags, heads, join, sweep)
    own, recipe, variants, given = _recipes(flags, path, sweep)
    prepare_workers(devices, backend)
    plan = build_plan(
        own,
        recipe,
        folds=None if fold is None or isinstance(fold, str) else fold_list(fold),
        refit=isinstance(fold, str),
        execution=Execution(devices, jobs, backend, ray_address, save_every, gpus_per_job),
        force=force,
        variants=variants,
        baseline=baseline,
        root=base,
        found_folds=base / FOLDS_FILE,
        **given,
    )
    plan.check_not_started(resume, force)
    if learning_curve:
        check_learning_curve(plan)
    trained = train_runs(
        plan,
        resume=resume,
        force=force,
        strict=strict,
        hypothesis=hypothesis,
        tracker=open_tracker(logger, base / "runs"),
        per_person=per_person,
        progress=progress_of(progress),
    )
    if learning_curve and not trained.failed:
        write_learning_curves(plan, progress_of(progress))
    _raise_failed(trained)
    runs = [TrainedRun(name, base) for name in trained.runs]
    return Runs(runs, trained.summaries, trained.pooled, trained.comparisons, trained.new_sites)


def _raise_failed(trained: TrainingResult) -> None:
    """Raise FoldsFailed if a training failed."""
    if not trained.failed:
        return
    plan, failed = trained.plan, trained.failed
    of = counted(plan.trainings, "training" if plan.refit else "fold")
    raise FoldsFailed(
        f"{len(failed)} of {of} failed; the other folds are saved",
        hint="the same call tries the failed folds again",
        details=[f"{one.job.title}: {one.error.message}" for one in failed if one.error is not None],
    )


def _with_frozen(
    flags: Mapping[str, Any], heads: Sequence[str] | None, join: bool, sweep: Mapping[str, Sequence[Any]] | None
) -> tuple[dict[str, Any], Mapping[str, Sequence[Any]] | None]:
    """Return the settings and the sweep with `heads` and `join`."""
    own, swept = with_heads(flags, heads, list(sweep or {}))
    if join:
        own["arch"] = tuple(str(joined_arch(own.get("arch"), join)).split(","))
    return own, {"head": list(heads or ())} | dict(sweep or {}) if len(swept) > len(sweep or {}) else sweep


def fold_list(fold: int | Sequence[int]) -> list[int]:
    """Return the folds of a ``fold`` argument: one, or a list."""
    return [int(one) for one in (np.atleast_1d(fold).tolist())]


def joined_settings(given: Mapping[str, Any], of_data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords and the settings that the table defines, by key.

    Raises
    ------
    UsageError : both define a setting, with different values, or two of `k`, `holdout` and `leave_out` are given.
    """
    own = {key: value for key, value in by_key(given).items() if value is not None}
    check_contradictions({key: key in own for key in ("k", "holdout", "leave_out")})
    check_arguments(own, {"name": optional(FILE_SAFE)})
    for key in own:
        if key in of_data and own[key] != of_data[key]:
            raise UsageError(
                f"`{key}` is already defined by the table: {of_data[key]}, found {own[key]}", hint=f"leave out `{key}`"
            )
    return {**own, **of_data}


def with_settings(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of a function with all settings as keywords in place of ``**settings``."""
    signature = inspect.signature(function)
    own = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    names = {one.name for one in own}
    return signature.replace(parameters=[*own, *(one for one in setting_parameters() if one.name not in names)])


kfold.__signature__ = with_settings(kfold)  # type: ignore[attr-defined]


def _recipes(
    flags: Mapping[str, Any], config: Path | None, sweep: Mapping[str, Sequence[Any]] | None
) -> tuple[Settings, Recipe, list[RequestedRecipe], dict[str, bool]]:
    """Return the settings, the recipe, for a sweep or several runs the recipe of each run, and what was given."""
    own, recipe, origins = load_settings(flags, config, implicit=False)
    texts = [f"{key}={_toml_array(values)}" for key, values in (sweep or {}).items()]
    return own, recipe, requested_recipes(flags, config, texts, implicit=False), given_numbers(origins)


def _toml_array(values: Sequence[Any]) -> str:
    return json.dumps(values.tolist() if hasattr(values, "tolist") else list(values))


def _folds_file(folds: FoldAssignment | str | Path | None, data: Any, root: Path) -> Path | None:
    """Return the file of a split; a split without a file is saved in ``.ensemble/folds``, named by its hash."""
    if folds is None or isinstance(folds, Path):
        return folds
    if isinstance(folds, str):
        if folds.endswith(".csv") or Path(folds).exists():
            return Path(folds)
        folds = folds_of_column(training_table(data, root=root), folds)
    rows = hashlib.sha256(f"{folds.sha} {folds.table_sha}".encode()).hexdigest()[:12]
    return folds.save(root / ".ensemble" / "folds" / f"folds-{rows}.csv", force=True)
