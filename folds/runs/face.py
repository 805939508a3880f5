"""`kfold` of the face: settings as keywords in, trained runs out."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from folds.config.files import load_settings, read_run_tables
from folds.config.recipe import Recipe, Settings, by_key, setting_parameters
from folds.config.sweep import RequestedRecipe, parse_sweep
from folds.data.read_table import data_settings, training_table
from folds.errors import FoldsFailed, UsageError
from folds.execution.placement import Execution
from folds.experiments.loggers import open_tracker
from folds.runs.plan import build_plan
from folds.runs.results import Runs, TrainedRun
from folds.runs.session import train_runs
from folds.splits.assignment import FoldAssignment
from folds.splits.split import folds_of_column
from folds.utils.bars import log_in_notebook, progress_of
from folds.utils.progress import Progress

if TYPE_CHECKING:
    from folds.data.read_table import Data


def kfold(
    data: Data | None = None,
    *,
    folds: FoldAssignment | str | Path | None = None,
    fold: int | Sequence[int] | None = None,
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
    save_every: float = 180.0,
    root: str | Path = ".",
    progress: bool | Progress = True,
    **settings: Any,
) -> Runs:
    """Train one model for each fold and architecture, and return the runs with their scores. As ``ensemble kfold``.

    What is trained already is not trained again: the same call goes on where an earlier one, or a Ctrl-C, has left off.

    Parameters
    ----------
    data : what `read_table` has returned, or takes; without it ``data`` in the folder `root`, or else the synthetic
        people.
    folds : a split that exists: what `split` or `load_folds` has returned, a file, or a column of the table; without it
        one is made.
    fold : train these folds only.
    sweep : setting → values: a run for each combination, compared with the first.
    config : a TOML file of settings; keywords come before it. ``ensemble.toml`` is not read unless it is named here.
    resume : go on with runs that were begun; False: a run that exists is an error. `force` : train them again from
        scratch.
    strict : warnings about the data and the folds are errors, raised before anything is written.
    per_person : score people: the probabilities of a person's images are averaged first.
    baseline : the run that all are compared with.
    hypothesis : what is expected, kept with the runs.
    logger : ``tensorboard`` or ``mlflow``.
    devices, jobs, backend, ray_address, save_every : where and how it is trained; none of it changes what comes out.
    root : the folder that holds ``runs/``, ``checkpoints/`` and ``.ensemble/``.
    progress : False for silence.
    settings : any setting of ``ensemble kfold``: ``arch``, ``k``, ``seed``, ``epochs``, ``batch_size``, ``lr``,
        ``img_size``, ``augment``, …

    Raises
    ------
    UsageError : an unknown setting, an impossible value or combination.
    EnsembleError : something is wrong with the data; a run exists with other settings; another process trains it.
    FoldsFailed : some folds failed; the others are saved, and the same call tries those again.

    Examples
    --------
    >>> import folds
    >>> folds.kfold(k=1)
    Traceback (most recent call last):
    ...
    folds.errors.UsageError: ... must be 2 or more, found 1
    """
    log_in_notebook()
    if resume and force:
        resume = False
    base = Path(root)
    flags = joined_settings(settings, data_settings(data, base)) | {"folds": _folds_file(folds, data, base)}
    path = None if config is None else Path(config)
    own, recipe, variants = _recipes(flags, path, sweep)
    plan = build_plan(
        own,
        recipe,
        folds=None if fold is None else [fold] if isinstance(fold, int) else list(fold),
        execution=Execution(devices, jobs, backend, ray_address, save_every),
        force=force,
        variants=variants,
        baseline=baseline,
        root=base,
    )
    plan.check_not_started(resume, force)
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
    if trained.failed:
        lines = [f"{one.job.title}: {one.error.message}" for one in trained.failed if one.error is not None]
        raise FoldsFailed(
            f"{len(trained.failed)} of {len(plan.runs) * len(plan.folds)} folds failed; the rest is saved",
            hint="the same call tries them again",
            details=lines,
        )
    runs = [TrainedRun(name, base) for name in trained.runs]
    return Runs(runs, trained.summaries, trained.pooled, trained.comparisons)


def joined_settings(given: Mapping[str, Any], of_data: Mapping[str, Any]) -> dict[str, Any]:
    """Return keywords and what the table says of itself, by key; a column that both name is an error."""
    own = {key: value for key, value in by_key(given).items() if value is not None}
    for key in own:
        if key in of_data and own[key] != of_data[key]:
            raise UsageError(f"`{key}` is said by the table already: {of_data[key]}", hint=f"leave `{key}` out")
    return {**own, **of_data}


def with_settings(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of a function that takes any setting as a keyword, with all of them in place of
    ``**settings``.
    """
    signature = inspect.signature(function)
    own = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    names = {one.name for one in own}
    return signature.replace(parameters=[*own, *(one for one in setting_parameters() if one.name not in names)])


kfold.__signature__ = with_settings(kfold)  # type: ignore[attr-defined]


def _recipes(
    flags: Mapping[str, Any], config: Path | None, sweep: Mapping[str, Sequence[Any]] | None
) -> tuple[Settings, Recipe, list[RequestedRecipe]]:
    """The settings that all share, and the recipes that are trained where they are several."""
    own, recipe, _ = load_settings(flags, config, implicit=False)
    tables = read_run_tables(config) if config is not None else []
    if not sweep:
        asked = []
        for number, table in enumerate(tables, 1):
            one, of_run, _ = load_settings(flags, config, table, implicit=False)
            if len(one.arch) != 1:
                raise UsageError(f"[[run]] {number} has the architectures {', '.join(one.arch)}, expected one")
            asked.append(RequestedRecipe(str(table.get("name", "")), of_run, one.arch[0]))
        return own, recipe, asked
    if tables:
        raise UsageError("`sweep` and [[run]] tables contradict each other", hint="leave one of them out")
    points = parse_sweep([f"{key}={_toml_array(values)}" for key, values in sweep.items()])
    for key in points[0].values:
        if flags.get(key) is not None:
            raise UsageError(f"`{key}` and `sweep` of it contradict each other", hint=f"leave `{key}` out")
    made = [
        RequestedRecipe(point.suffix, load_settings({**flags, **point.values}, config, implicit=False)[1])
        for point in points
    ]
    return own, recipe, made


def _toml_array(values: Sequence[Any]) -> str:
    return json.dumps(list(values))


def _folds_file(folds: FoldAssignment | str | Path | None, data: Any, root: Path) -> Path | None:
    """The file of a split; what is no file yet is kept under ``.ensemble/folds``, named by its content."""
    if folds is None or isinstance(folds, Path):
        return folds
    if isinstance(folds, str):
        if folds.endswith(".csv") or Path(folds).exists():
            return Path(folds)
        folds = folds_of_column(training_table(data, root=root), folds)
    rows = hashlib.sha256(f"{folds.sha} {folds.table_sha}".encode()).hexdigest()[:12]
    return folds.save(root / ".ensemble" / "folds" / f"folds-{rows}.csv", force=True)
