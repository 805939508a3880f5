"""A study: its sampled trials, its folder, and the settings that a later command must not change."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from folds.config.command_settings import Settings
from folds.config.files import load_settings, read_record, read_run_tables, tuning_of
from folds.config.recipe import Recipe
from folds.errors import EnsembleError, UsageError
from folds.predictions.file_names import FOLD_DONE, FOLD_STATE, FOLDS_FILE, RUN_CONFIG
from folds.runs.run import file_safe
from folds.training.job import LOCK_SECONDS, lock_of
from folds.tuning.space import ALWAYS, Parameter, TuneOptions, read_options, read_space, sample_settings
from folds.tuning.trials import Trial, best_of, read_trial, trial_name
from folds.utils.files import make_folder, read_json, remove, write_json
from folds.utils.locks import exclusive_lock

logger = logging.getLogger(__name__)
TUNE = Path("runs/tune")
RECORD = "tuning.json"
# Ray Tune's own files, on the drive that all machines share: never read, and removed at the end.
RAY = ".ray"
# Options of [tune] that a resumed study may change without changing the settings of its earlier trials.
_MAY_CHANGE = ("trials", "parallel")


@dataclass(frozen=True)
class TrialSpec:
    """A trial before training: the values sampled for it, and all its settings."""

    number: int
    values: Mapping[str, Any]
    settings: Settings
    recipe: Recipe

    @property
    def name(self) -> str:
        """Return the name of the trial, e.g. ``t007``."""
        return trial_name(self.number)


@dataclass(frozen=True)
class Study:
    """A study: trials of different settings on the same folds, images and people.

    Attributes
    ----------
    settings, recipe : settings that all trials have in common.
    candidates : the trials, by number.
    root : the folder that holds ``runs``, ``checkpoints`` and ``.ensemble``.
    found_folds, k_given : ``folds.csv`` of the folder, used if it fits as by `kfold`, and whether `k` is given.
    task : what the labels of the table are; None until it is decided (`folds.tuning.objective.with_objective`).
    by_person : whether trials are compared by the scores of people, with the mean of their images, as their runs are
        scored if only persons are labeled.
    """

    name: str
    settings: Settings
    recipe: Recipe
    space: tuple[Parameter, ...]
    options: TuneOptions
    candidates: tuple[TrialSpec, ...]
    root: Path = Path()
    found_folds: Path | None = None
    k_given: bool = False
    task: str | None = None
    by_person: bool = False

    @property
    def objective(self) -> str:
        """Return what trials are compared by: ``macro_f1``, or ``macro_f1 by person``."""
        return f"{self.options.metric}{' by person' if self.by_person else ''}"

    @property
    def folder(self) -> Path:
        """Return ``runs/tune/<name>``, a folder that the pattern ``runs/*.npy`` does not match."""
        return self.root / TUNE / self.name

    @property
    def max_epochs(self) -> int:
        """Return the epochs per fold of the longest trial that can be sampled."""
        return max_epochs_of(self.space, self.recipe)

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


def max_epochs_of(space: Sequence[Parameter], recipe: Recipe) -> int:
    """Return the epochs per fold of the longest trial that can be sampled, whatever the number of trials."""
    return next((int(axis.maximum) for axis in space if axis.key == "epochs"), recipe.epochs)


def make_study(
    flags: Mapping[str, Any],
    config: Path | None = None,
    trials: int | None = None,
    root: Path = Path(),
    metric: str | None = None,
) -> Study:
    """Read the settings, the space and the options, and sample the trials; neither data nor images are read.

    Parameters
    ----------
    flags : setting → value, as for `folds.config.files.load_settings`.
    config : a TOML file with a table ``[space]``; None for ./ensemble.toml.
    trials, metric : replace the number of trials and the metric of the file.
    root : the folder that holds ``runs``, ``checkpoints`` and ``.ensemble``.

    Raises
    ------
    EnsembleError : an invalid file, a setting both in the space and outside it, or an invalid value.
    """
    from folds.training.resolve import validate_recipe

    path, table, more = tuning_of(config)
    if read_run_tables(config):
        raise EnsembleError(f"{path}: [[run]] and [space] contradict each other", hint="remove one of them")
    space, options = read_space(path, table), read_options(path, more, trials, metric)
    settings, recipe, origins = load_settings(flags, config, tuning=True)
    for axis in space:
        # ./ensemble.toml may hold defaults for every command; a value given for this study contradicts the space.
        if origins.get(axis.key) in (str(path), "environment", "flag"):
            raise UsageError(
                f"{path}: [space] {axis.key} contradicts {axis.key} given by {origins[axis.key]}",
                hint="remove one of them",
            )
        for value in axis.choices or (axis.low, axis.high):
            _, one, _ = load_settings({**flags, axis.key: value}, config, tuning=True)
            validate_recipe(one)
    parts = 1 if settings.holdout is not None else settings.k
    made_elsewhere = {settings.folds, settings.fold_column, settings.leave_out} != {None}
    if not made_elsewhere and max(options.folds) >= parts:
        raise EnsembleError(
            f"{path}: [tune] folds = {list(options.folds)}: the folds are 0 to {parts - 1}", hint="folds = [0]"
        )
    candidates = []
    for number, values in enumerate(sample_settings(space, options)):
        own, one, _ = load_settings({**flags, **values}, config, tuning=True)
        validate_recipe(one)
        if len(own.arch) != 1:
            raise UsageError(
                f"a trial must have one architecture, found {', '.join(own.arch)}",
                hint=f"put arch = {_listed(own.arch)} into [space]",
            )
        if options.metric not in ALWAYS:  # then each epoch has to be scored by it, too
            one = replace(one, metric=options.metric)
        candidates.append(TrialSpec(number, values, own, one))
    max_epochs = max_epochs_of(space, recipe) * len(options.folds)
    if options.grace > max_epochs:
        raise EnsembleError(
            f"{path}: [tune] grace = {options.grace}: the longest trial has {max_epochs} epochs",
            hint=f"grace = {max_epochs} stops no trial early",
        )
    name = file_safe(f"{settings.name or (path.stem if config is not None else 'settings')}-best").removesuffix(
        "-best"
    )  # the name must also be valid as the name of its run
    found = root / FOLDS_FILE if settings.folds is None and (root / FOLDS_FILE).is_file() else None
    own, given = replace(settings, repeats=1, seeds=1), "k" in origins
    by_person = settings.label_of is not None
    return Study(name, own, recipe, space, options, tuple(candidates), root, found, given, by_person=by_person)


def as_started(study: Study) -> Study:
    """Return a study that continues with the folds of its beginning, whatever ``folds.csv`` is there now, and with
    the unit by which its trials were compared: earlier versions compared them by image.
    """
    path = study.folder / RECORD
    if not path.is_file():
        return study
    record = read_json(path)
    found = record.get("found", {}) if isinstance(record, dict) else {}
    name = found.get("folds") if isinstance(found, dict) else None
    by_person = study.by_person
    if by_person and isinstance(record, dict) and "unit" not in record:
        logger.warning(
            f"the trials of {study.folder} were compared by image, by an earlier version, and the others are too; "
            "`force=True` starts it again, by person"
        )
        by_person = False
    return replace(study, found_folds=study.root / FOLDS_FILE if name == str(FOLDS_FILE) else None, by_person=by_person)


def _listed(names: tuple[str, ...]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"


@contextmanager
def open_study(study: Study, resume: bool = False, force: bool = False) -> Iterator[None]:
    """Lock the folder of a study, new or resumed; never overwrite an existing study without `force`.

    Raises
    ------
    EnsembleError : the study exists and neither `resume` nor `force` is given, it was started with different settings
        (listed), or another process uses it.
    """
    folder = study.folder.parent
    make_folder(folder)
    with exclusive_lock(folder / f".{study.name}.lock", f"the study {study.folder}"):
        path, now = study.folder / RECORD, _record(study)
        if force:
            remove(path)
            remove(study.folder)
        elif study.folder.exists() and not resume:
            hint = "`resume=True` continues it, `name=NEW` starts another one, `force=True` deletes it and starts again"
            raise EnsembleError(f"the study {study.folder} exists", hint=hint)
        elif path.exists():
            _check_same_study(study, read_json(path), now)
        write_json(path, now)
        yield
        clean_up(study)


def _record(study: Study) -> dict[str, Any]:
    plain = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in (asdict(study.settings) | asdict(study.recipe)).items()
    }
    fixed = {key: value for key, value in plain.items() if key not in {axis.key for axis in study.space}}
    values = {
        "settings": fixed,
        "space": {axis.key: axis.to_dict() for axis in study.space},
        "tune": asdict(study.options),
        "found": {"folds": None if study.found_folds is None else study.found_folds.name},
    }
    if study.by_person:  # a table of its own, which versions that compare by image refuse
        values["unit"] = {"scored": study.settings.label_of}
    return _as_json(values)


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _as_json(inside) for key, inside in value.items()}
    return [_as_json(inside) for inside in value] if isinstance(value, list | tuple) else value


def _check_same_study(study: Study, before: Any, now: Mapping[str, Any]) -> None:
    flat = [_flat(record) if isinstance(record, dict) else {} for record in (before, now)]
    different = sorted(
        key
        for key in flat[0].keys() | flat[1].keys()
        if flat[0].get(key) != flat[1].get(key) and key.split()[-1] not in _MAY_CHANGE
    )
    if different:
        raise EnsembleError(
            f"the study {study.folder} was started with different settings",
            hint="restore these settings; `name=NEW` starts another study, `force=True` deletes this one and starts "
            "again",
            details=[f"{key}: {flat[0].get(key, 'not set')} → {flat[1].get(key, 'not set')}" for key in different],
        )


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"[{table}] {key}": value
        for table, values in record.items()
        if isinstance(values, dict)
        for key, value in values.items()
    }


def clean_up(study: Study) -> None:
    """Remove the saved states and weights of the trials that have ended; keep their histories and predictions.

    done.json is removed first: a fold without it never counts as trained, also if the removal is interrupted.
    """
    remove(study.folder / RAY)
    for number in study.ended():
        trial_dir = study.trial_dir(number)
        for fold in study.options.folds:
            fold_dir = trial_dir / f"fold{fold}"
            unneeded = [fold_dir / FOLD_DONE, fold_dir / FOLD_STATE, trial_dir / f"fold{fold}.pt"]
            if any(path.exists() for path in unneeded):
                lock = lock_of(trial_dir, fold)
                with exclusive_lock(lock, f"fold {fold} of the trial {trial_dir}", wait=LOCK_SECONDS):
                    for path in unneeded:
                        remove(path)


def score_on_other_folds(study: Study) -> dict[str, Any] | None:
    """Return the score of the run of ``best.toml`` on the folds not used for the choice, pooled, with its 95% CI.

    The CI is over people. None if the run is not trained on such folds, or was trained with settings that differ from
    the best trial.
    """
    import numpy as np

    from folds.predictions.files import oof_file
    from folds.predictions.reading import oof_predictions, score_rows

    best, runs = best_of(list(study.ended().values()), study.options), study.root / "runs"
    path = runs / study.best_run / RUN_CONFIG
    if best is None or not path.exists() or not oof_file(runs, study.best_run).exists():
        return None
    record, own = read_record(path), read_record(study.trial_dir(best.number) / RUN_CONFIG)
    same = (*best.settings, "epochs", "seed", "label", "label_of", "uncertain")
    if any(record.get(key) != own.get(key) for key in same) or _folds_of(record) != _folds_of(own):
        return None
    probabilities, sidecar = oof_predictions(runs, study.best_run)
    fold = np.broadcast_to(np.asarray(sidecar.fold), len(probabilities))
    index = np.flatnonzero(~np.isin(fold, study.options.folds))
    if not len(index):
        return None
    score = score_rows(
        probabilities[index], replace(sidecar, rows=sidecar.rows.take(index), fold=fold[index]), study.options.metric
    ).interval.to_dict()
    ends = {name: score[name] for name in ("score", "low", "high")}
    return {"folds": sorted(set(fold[index].tolist())), **ends, "rows": len(index)}


def _folds_of(record: Mapping[str, Any]) -> Any:
    resolved = record.get("resolved")
    return resolved.get("folds_sha") if isinstance(resolved, dict) else None
