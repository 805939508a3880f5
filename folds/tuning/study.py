"""A tuning: its trials as they are drawn, its folder, and what a later command must not change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from folds.config.files import load_settings, read_record, read_run_tables, tuning_of
from folds.config.recipe import Recipe, Settings
from folds.errors import EnsembleError, UsageError
from folds.runs.run import file_safe
from folds.training.job import LOCK_SECONDS, lock_of
from folds.tuning.space import Parameter, TuneOptions, draw, read_options, read_space
from folds.tuning.trials import Trial, best_of, read_trial, trial_name
from folds.utils.files import make_folder, read_json, remove, write_json
from folds.utils.locks import exclusive_lock

TUNE = Path("runs/tune")
RECORD = "tuning.json"
# Ray Tune's own files: never read, removed at the end; on the drive that all machines share, as everything else
RAY = ".ray"
# With what a tuning may be gone on: more trials begin with the same ones; how many are trained at a time is a matter of
# room.
_MAY_CHANGE = ("trials", "parallel")


@dataclass(frozen=True)
class TrialSpec:
    """A trial before it is trained: the values drawn for it, and all settings that follow."""

    number: int
    values: Mapping[str, Any]
    settings: Settings
    recipe: Recipe

    @property
    def name(self) -> str:
        """Return ``t007``."""
        return trial_name(self.number)


@dataclass(frozen=True)
class Study:
    """Trials of different settings on the same folds, images and people.

    Attributes
    ----------
    settings, recipe : what all have in common.
    root : the folder that holds ``runs``, ``checkpoints`` and ``.ensemble``.
    """

    name: str
    settings: Settings
    recipe: Recipe
    space: tuple[Parameter, ...]
    options: TuneOptions
    candidates: tuple[TrialSpec, ...]
    root: Path = Path()

    @property
    def folder(self) -> Path:
        """Return ``runs/tune/<name>``; no ``runs/*.npy`` reaches into it."""
        return self.root / TUNE / self.name

    @property
    def max_epochs(self) -> int:
        """Epochs of a fold of the longest trial that could be drawn."""
        return longest_of(self.space, self.recipe)

    @property
    def best_run(self) -> str:
        """Return the name of the run that ``best.toml`` trains."""
        return f"{self.name}-best"

    def trial_dir(self, number: int) -> Path:
        """Return the folder of a trial."""
        return self.folder / trial_name(number)

    def ended(self) -> dict[int, Trial]:
        """Return the trials that have ended, by number."""
        found = {one.number: read_trial(self.trial_dir(one.number)) for one in self.candidates}
        return {number: trial for number, trial in found.items() if trial is not None}


def longest_of(space: Sequence[Parameter], recipe: Recipe) -> int:
    """Epochs of a fold of the longest trial that could be drawn: more trials do not change it."""
    return next((int(axis.largest) for axis in space if axis.key == "epochs"), recipe.epochs)


def make_tuning(
    flags: Mapping[str, Any], config: Path | None = None, trials: int | None = None, root: Path = Path()
) -> Study:
    """Read the settings, the space and the options, and draw the trials; neither data nor images are read.

    Parameters
    ----------
    flags : as for `folds.config.files.gather`.
    config : a TOML file with a table ``[space]``; None for ./ensemble.toml.
    trials : instead of the file's.
    root : the folder that holds ``runs``, ``checkpoints`` and ``.ensemble``.

    Raises
    ------
    EnsembleError : what is wrong in the file; a setting that stands both in the space and beside it; a value that
        cannot be.
    """
    from folds.training.resolve import validate_recipe

    path, table, more = tuning_of(config)
    if read_run_tables(config):
        raise EnsembleError(f"{path}: [[run]] and [space] contradict each other", hint="leave one of them out")
    space, options = read_space(path, table), read_options(path, more, trials)
    settings, recipe, origins = load_settings(flags, config, tuning=True)
    for axis in space:
        # ./ensemble.toml may say what is usual; what was said of this very tuning contradicts it.
        if origins.get(axis.key) in (str(path), "environment", "flag"):
            raise UsageError(
                f"{path}: [space] {axis.key} contradicts {axis.key} given by {origins[axis.key]}",
                hint="leave one of them out",
            )
        for value in axis.choices or (axis.low, axis.high):
            _, one, _ = load_settings({**flags, axis.key: value}, config, tuning=True)
            validate_recipe(one)
    parts = 1 if settings.holdout is not None else settings.k
    if settings.folds is None and max(options.folds) >= parts:
        raise EnsembleError(
            f"{path}: [tune] folds = {list(options.folds)}: the folds are 0 to {parts - 1}", hint="folds = [0]"
        )
    candidates = []
    for number, values in enumerate(draw(space, options)):
        own, one, _ = load_settings({**flags, **values}, config, tuning=True)
        validate_recipe(one)
        if len(own.arch) != 1:
            raise UsageError(
                f"a trial is of one architecture, found {', '.join(own.arch)}",
                hint=f"put arch = {_listed(own.arch)} into [space]",
            )
        candidates.append(TrialSpec(number, values, own, one))
    most = longest_of(space, recipe) * len(options.folds)
    if options.grace > most:
        raise EnsembleError(
            f"{path}: [tune] grace = {options.grace}: the longest trial has {most} epochs",
            hint=f"grace = {most} stops none early",
        )
    name = file_safe(f"{settings.name or (path.stem if config is not None else 'settings')}-best").removesuffix(
        "-best"
    )  # as its run
    return Study(name, replace(settings, repeats=1, seeds=1), recipe, space, options, tuple(candidates), root)


def _listed(names: tuple[str, ...]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"


@contextmanager
def open_study(tuning: Study, resume: bool = False, force: bool = False) -> Iterator[None]:
    """Hold the tuning's folder, begun or gone on with; nothing is trained over.

    Raises
    ------
    EnsembleError : it exists and neither `resume` nor `force` is given, or it was begun with other settings (shown); it
        is
        in use.
    """
    folder = tuning.folder.parent
    make_folder(folder)
    with exclusive_lock(folder / f".{tuning.name}.lock", f"the tuning {tuning.folder}"):
        path, now = tuning.folder / RECORD, _record(tuning)
        if force:
            remove(path)
            remove(tuning.folder)
        elif tuning.folder.exists() and not resume:
            hint = "--resume goes on with it, --name NEW begins another one, --force begins it again from nothing"
            raise EnsembleError(f"the tuning {tuning.folder} exists", hint=hint)
        elif path.exists():
            _check_same_study(tuning, read_json(path), now)
        write_json(path, now)
        yield
        clean_up(tuning)


def _record(tuning: Study) -> dict[str, Any]:
    plain = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in (asdict(tuning.settings) | asdict(tuning.recipe)).items()
    }
    free = {key: value for key, value in plain.items() if key not in {axis.key for axis in tuning.space}}
    values = {
        "settings": free,
        "space": {axis.key: axis.to_dict() for axis in tuning.space},
        "tune": asdict(tuning.options),
    }
    return _as_json(values)


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _as_json(inside) for key, inside in value.items()}
    return [_as_json(inside) for inside in value] if isinstance(value, list | tuple) else value


def _check_same_study(tuning: Study, before: Any, now: Mapping[str, Any]) -> None:
    flat = [_flat(record) if isinstance(record, dict) else {} for record in (before, now)]
    changed = sorted(
        key
        for key in flat[0].keys() | flat[1].keys()
        if flat[0].get(key) != flat[1].get(key) and key.split()[-1] not in _MAY_CHANGE
    )
    if changed:
        raise EnsembleError(
            f"the tuning {tuning.folder} was begun with other settings",
            hint="give those it was begun with, or --name NEW for another one, or --force to begin it again from "
            "nothing",
            details=[f"{key}: {flat[0].get(key, 'not set')} → {flat[1].get(key, 'not set')}" for key in changed],
        )


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"[{table}] {key}": value
        for table, values in record.items()
        if isinstance(values, dict)
        for key, value in values.items()
    }


def clean_up(tuning: Study) -> None:
    """Remove what trials that have ended need no more: states and weights. Their courses and predictions stay.

    What says that a fold is trained goes first: a trial is no run, and nothing of it looks like one.
    """
    remove(tuning.folder / RAY)
    for number in tuning.ended():
        place = tuning.trial_dir(number)
        for fold in tuning.options.folds:
            left = [place / f"fold{fold}" / "done.json", place / f"fold{fold}" / "state.pt", place / f"fold{fold}.pt"]
            if any(path.exists() for path in left):
                with exclusive_lock(lock_of(place, fold), f"fold {fold} of the trial {place}", wait=LOCK_SECONDS):
                    for path in left:
                        remove(path)


def score_on_other_folds(tuning: Study) -> dict[str, Any] | None:
    """Return what the run of ``best.toml`` scores on the folds that nothing was chosen on, pooled, with its 95 %
    interval over people.

    None where it is not trained there, or was trained with other settings than the best that was found.
    """
    import numpy as np

    from folds.predictions.files import oof_file
    from folds.predictions.reading import oof_predictions, score_rows

    best, runs = best_of(list(tuning.ended().values()), tuning.options), tuning.root / "runs"
    path = runs / tuning.best_run / "config.toml"
    if best is None or not path.exists() or not oof_file(runs, tuning.best_run).exists():
        return None
    record, own = read_record(path), read_record(tuning.trial_dir(best.number) / "config.toml")
    if any(record.get(key) != own.get(key) for key in (*best.settings, "epochs", "seed")) or _folds_of(
        record
    ) != _folds_of(own):
        return None
    probabilities, sidecar = oof_predictions(runs, tuning.best_run)
    fold = np.broadcast_to(np.asarray(sidecar.fold), len(probabilities))
    index = np.flatnonzero(~np.isin(fold, tuning.options.folds))
    if not len(index):
        return None
    score = score_rows(
        probabilities[index], replace(sidecar, rows=sidecar.rows.take(index), fold=fold[index]), tuning.options.metric
    ).interval
    return {
        "folds": sorted(set(fold[index].tolist())),
        "score": score.value,
        "low": score.low,
        "high": score.high,
        "rows": len(index),
    }


def _folds_of(record: Mapping[str, Any]) -> Any:
    resolved = record.get("resolved")
    return resolved.get("folds_sha") if isinstance(resolved, dict) else None
