"""A run: one architecture and recipe over all folds, with its files and the checks before they are changed."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from folds.config.defaults import DEFAULTS, former_defaults
from folds.config.files import read_record
from folds.config.lookup import default_of
from folds.config.recipe import Recipe
from folds.data.targets import Target
from folds.errors import EnsembleError, UsageError
from folds.images.settings import ImageSettings, margin_of
from folds.metrics.task_names import CLASSES
from folds.models.factory import Architecture
from folds.predictions.file_names import FOLD_DONE, FOLD_STATE, RUN_CONFIG
from folds.predictions.files import ALL, fold_files, oof_file, sidecar_path
from folds.runs.recorded_settings import RESOLVED_PREFIX, comparable_settings, resolved_number, resolved_of
from folds.splits.assignment import FoldAssignment
from folds.training.job import COURSE
from folds.utils.files import read_json, remove

# Settings whose default depends on others since this version of the course (`COURSE`).
_NEW_DEFAULTS = {"weight_decay": 2, "label_smoothing": 3}
_DEVICE = f"{RESOLVED_PREFIX}device"
_CONTINUES = {
    "cpu": "`devices=cpu` continues",
    "cuda": "a machine with a GPU (`devices=auto`, or a CUDA number) continues",
    "mps": "a Mac with Apple silicon (`devices=mps`) continues",
    "xpu": "a machine with an Intel GPU (`devices=xpu`) continues",
}
_DONE: dict[str, type | tuple[type, ...]] = {
    "macro_f1": (int, float),
    "accuracy": (int, float),
    "seconds": (int, float),
    "epochs": int,
    "checkpoint_sha": str,
}
# Of several labels and of numbers the scores are those of the task.
_DONE_COLUMNS = {name: kind for name, kind in _DONE.items() if name not in ("macro_f1", "accuracy")} | {"scores": dict}


@dataclass(frozen=True)
class Run:
    """One architecture and recipe over all folds, with the locations of its files.

    Attributes
    ----------
    assignment : the folds; they differ between the repeats of one command.
    parameters : number of parameters of the model.
    rate_reason : reason for the learning rate.
    base : common name of the runs that differ only in repeat or seed.
    baseline : name of the run that it is compared with.
    max_pixels : largest image that is decoded, see `ImageSettings`.
    stack : columns of the files of a sample, see `ImageSettings`.
    """

    name: str
    architecture: Architecture
    recipe: Recipe
    assignment: FoldAssignment
    parameters: int
    target: Target
    rate_reason: str = ""
    base: str = ""
    runs: Path = Path("runs")
    checkpoints: Path = Path("checkpoints")
    baseline: str | None = None
    max_pixels: int | None = None
    stack: tuple[str, ...] = ()

    @property
    def image_settings(self) -> ImageSettings:
        """Return how images are decoded for the training of this run."""
        return self.input_settings.enlarged

    @property
    def input_settings(self) -> ImageSettings:
        """Return how images are decoded for predictions: without the margin that augmentation can show."""
        height, width = self.architecture.height, self.architecture.width
        return ImageSettings(
            height,
            width,
            self.recipe.fit,
            self.recipe.value_window(),
            self.max_pixels,
            margin_of(height, width, self.recipe.cache_scale),
            self.recipe.chosen_channels(),
            self.recipe.chosen_frame(),
            self.stack,
        )

    @property
    def folder(self) -> Path:
        """Return ``runs/<run>``."""
        return self.runs / self.name

    def fold_folder(self, fold: int) -> Path:
        """Return ``runs/<run>/fold<i>``."""
        return self.folder / f"fold{fold}"

    def checkpoint(self, fold: int) -> Path:
        """Return ``checkpoints/<run>/fold<i>.pt``."""
        return self.checkpoints / self.name / f"fold{fold}.pt"

    @property
    def refit_folder(self) -> Path:
        """Return ``runs/<run>/all``, the folder of the model that is trained on all people."""
        return self.folder / ALL

    @property
    def refit_checkpoint(self) -> Path:
        """Return ``checkpoints/<run>/all.pt``."""
        return self.checkpoints / self.name / f"{ALL}.pt"

    def done(self, fold: int) -> dict[str, Any] | None:
        """Return the content of done.json of a fold; None if the fold is not trained yet.

        Raises
        ------
        EnsembleError : the file is damaged, or the predictions or the checkpoint of the fold are missing.
        """
        path = self.fold_folder(fold) / FOLD_DONE
        if not path.exists():
            return None
        record = read_json(path)
        fields = _DONE_COLUMNS if self.target.has_columns else _DONE
        wrong = not isinstance(record, dict) or next(
            (key for key, kind in fields.items() if not isinstance(record.get(key), kind)), None
        )
        missing = next((file for file in (path.with_name("oof.npy"), self.checkpoint(fold)) if not file.exists()), None)
        if wrong or missing:
            problem = f"records a trained fold, but {missing} does not exist" if missing and not wrong else "is damaged"
            raise EnsembleError(
                f"{path} {problem}", hint=f"rm -r {path.parent}, then `resume=True` trains this fold again"
            )
        return record

    def check_not_started(self, folds: Sequence[int], resume: bool = False, force: bool = False) -> None:
        """Raise EnsembleError if the run exists and neither `resume` nor `force` is given."""
        if force:
            return
        started = [fold for fold in folds if self.fold_folder(fold).exists()]
        if started and not resume:
            done = [fold for fold in started if self.done(fold) is not None]
            state = f"folds {', '.join(map(str, done))} are trained" if done else "it has been started"
            raise EnsembleError(
                f"the run {self.folder} exists and {state}",
                hint="`resume=True` continues it, `name=NEW` starts another run, `force=True` retrains it from scratch",
            )
        # Predictions with this name may be of a colleague, or of a run whose folder was removed.
        if not (self.folder / RUN_CONFIG).exists():
            existing = [path for path in self._results() if path.is_file()]
            if existing:
                raise EnsembleError(
                    f"{existing[0]} exists, but its run {self.folder} does not",
                    hint="use another `name`, or `force=True` to replace it",
                )

    def check_refit_not_started(self, resume: bool = False, force: bool = False) -> None:
        """Raise EnsembleError if the model of all people, or a fold that it still needs, exists in part.

        Finished folds of the run are no obstacle: their settings are compared, and they are not trained again. `force`
        trains only the model of all people from scratch.
        """
        missing = [fold for fold in range(self.assignment.k) if self.done(fold) is None]
        self.check_not_started(missing, resume or force)
        if self.refit_folder.exists() and not resume and not force:
            state = "is trained" if (self.refit_folder / FOLD_DONE).exists() else "has been started"
            raise EnsembleError(
                f"the model of all people of the run {self.folder} exists: it {state}",
                hint="`resume=True` continues it, `force=True` trains this model from scratch and keeps the folds",
            )

    def _results(self) -> list[Path]:
        checkpoints = [*sorted((self.checkpoints / self.name).glob("fold*.pt")), self.refit_checkpoint]
        return [oof_file(self.runs, self.name), *fold_files(self.runs, self.name).values(), *checkpoints]

    @property
    def recorded_course(self) -> int:
        """Return the version of the course of the learning rate that the run was started with; see `COURSE`."""
        path = self.folder / RUN_CONFIG
        return (
            COURSE if not path.exists() else resolved_number(resolved_of(read_record(path), path), "course", path) or 1
        )

    def as_started(self, given: Recipe, own: Mapping[str, Any]) -> Run:
        """Return the run with the settings whose defaults were others when it was started.

        A setting that was given then, and is open now, has today's default, so the difference is found.

        Parameters
        ----------
        given : the recipe of the command, before it was completed.
        own : settings of the small variant of the model.
        """
        path = self.folder / RUN_CONFIG
        if not path.exists():
            return self
        record, course = read_record(path), self.recorded_course
        kept: dict[str, Any] = {
            name: float(value)
            for name, since in _NEW_DEFAULTS.items()
            if course < since and isinstance(value := record.get(name), int | float) and not isinstance(value, bool)
        }
        if (resolved_number(resolved_of(record, path), "defaults", path) or 1) < DEFAULTS:
            former = former_defaults(given.has_weights, given.opt, own)
            kept |= {key: value for key, value in former.items() if record.get(key, default_of(key)) == value}
        kept = {key: value for key, value in kept.items() if getattr(given, key) is None}
        # Both mean classes, unless two of them are a binary decision by their names.
        tasks = (given.task, record.get("task"))
        if all(task in (None, CLASSES) for task in tasks) and len(self.target.classes) > 2:
            kept["task"] = record.get("task")
        if kept.get("lr") not in (None, self.recipe.lr):
            return replace(self, recipe=replace(self.recipe, **kept), rate_reason="as this run was started")
        return replace(self, recipe=replace(self.recipe, **kept))

    def check_same_settings(self, record: str) -> None:
        """Raise EnsembleError if the run was started with different settings, data or folds.

        The details of the error list the differences.

        Parameters
        ----------
        record : content of the config.toml that this command would write.
        """
        path = self.folder / RUN_CONFIG
        if not path.exists():
            return
        before, after = comparable_settings(read_record(path), path), comparable_settings(tomllib.loads(record), path)
        # Keys that an earlier version did not record: settings had their defaults, resolved values are unknown.
        decided = {key for key in before.keys() ^ after.keys() if key.startswith(RESOLVED_PREFIX)}
        before, after = (
            {key: default_of(key) for key in before.keys() | after.keys()} | part for part in (before, after)
        )
        if "auto" in (before.get("resolved amp"), after.get("resolved amp")):  # it stayed open, or is still open
            decided.add("resolved amp")
        changed = sorted(key for key in before.keys() - decided if before[key] != after[key])
        if changed:
            lines = [f"{key}: {_short(before.get(key))} → {_short(after.get(key))}" for key in changed]
            if _DEVICE in changed and set(changed) <= {_DEVICE, "resolved amp"}:  # half precision comes with the device
                matching = _CONTINUES.get(str(before[_DEVICE]), _CONTINUES["cuda"])
                raise EnsembleError(
                    f"the run {self.folder} was started on another kind of device, which gives different numbers",
                    hint=f"{matching} it; `name=NEW` starts another run; `force=True` retrains it from scratch",
                    details=lines,
                )
            if changed == ["epochs"] and before["epochs"] < after["epochs"]:
                raise EnsembleError(
                    f"the run {self.folder} was started with fewer epochs; its learning rate ends with them, so no "
                    "epoch can be added",
                    hint=f"`init_run={self.name}` `name=NEW` trains on from its weights, fold by fold",
                    details=lines,
                )
            raise EnsembleError(
                f"the run {self.folder} was started with different settings",
                hint="use the settings it was started with, `name=NEW` for another run, or `force=True` to retrain it "
                "from scratch",
                details=lines,
            )

    def remove(self, folds: Sequence[int]) -> None:
        """Remove these folds; if they are all folds, remove the whole run, so that it can start with other settings.

        TTA predictions of the removed models are removed as well, and the model of all people, which follows from all
        folds. The files done.json are removed first, then the saved
        states: after an interruption at any point, no remaining fold looks finished, and none is continued with other
        settings.

        Raises
        ------
        EnsembleError : a file cannot be removed; after the problem is solved, the same command continues.
        """
        all_folds = self.has_all(folds)
        tests, tta = fold_files(self.runs, self.name), self.runs / "tta"
        fold_dirs = sorted(self.folder.glob("fold*/")) if all_folds else [self.fold_folder(fold) for fold in folds]
        for name in (FOLD_DONE, FOLD_STATE):
            for fold_dir in fold_dirs:
                remove(fold_dir / name)
        self.remove_refit()  # after a stop before it, what is left of it is not that of the new folds (`refit_done`)
        test_files = [path for fold, path in tests.items() if all_folds or fold in folds]
        oof_files = oof_file(self.runs, self.name), oof_file(tta, self.name)
        for path in [oof_files[0], *test_files, oof_files[1], *fold_files(tta, self.name).values()]:
            # The array first, because a sidecar alone is ignored, but an array alone is read without checks.
            remove(path)
            remove(sidecar_path(path))
        checkpoints = [self.checkpoints / self.name] if all_folds else [self.checkpoint(fold) for fold in folds]
        for path in [tta / self.name, *fold_dirs, *checkpoints, *([self.folder] if all_folds else [])]:
            remove(path)

    def remove_refit(self) -> None:
        """Remove the model of all people; a removal that was interrupted leaves nothing that looks finished."""
        for path in (self.refit_folder / FOLD_DONE, self.refit_folder, self.refit_checkpoint):
            remove(path)

    def has_all(self, folds: Sequence[int]) -> bool:
        """Return whether these are all folds of the run."""
        return set(folds) == set(range(self.assignment.k))


def file_safe(name: str) -> str:
    """Return a run name that is safe for shells and file systems: letters, digits, ``.``, ``_`` and ``-``.

    Raises
    ------
    UsageError : the name has no such character, or it is `tta`, `blends` or `tune`, which are folders of the program.
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")
    if not safe or safe in ("tta", "blends", "tune"):
        raise UsageError(f"`name={name}`: expected letters, digits, '-', '_' or '.', and not 'tta', 'blends' or 'tune'")
    return safe


def _short(value: Any) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "…"
