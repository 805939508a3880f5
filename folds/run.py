"""A run: one architecture and recipe over all folds; where its files are, and what must not happen to them."""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from folds.architectures import Architecture
from folds.errors import EnsembleError, UsageError
from folds.files import read_json
from folds.predictions import fold_files, oof_file, sidecar_path
from folds.recipe import Recipe, read_record
from folds.targets import Target

# Where a file lies does not change what is trained; its content is compared by hash.
_NOT_COMPARED = {"data", "test", "folds", "path", "label", "person", "id", "split", "person_regex", "init", "resolved", "name"}
# Which folds there are is compared by their hash.
_NOT_COMPARED |= {"holdout", "repair"}
_DONE: dict[str, type | tuple[type, ...]] = {
    "macro_f1": (int, float),
    "accuracy": (int, float),
    "seconds": (int, float),
    "epochs": int,
    "checkpoint_sha": str,
}


@dataclass(frozen=True)
class Run:
    """One architecture and recipe over all folds, and where its files are."""

    name: str
    architecture: Architecture
    recipe: Recipe
    parameters: int
    target: Target
    rate_reason: str = ""
    runs: Path = Path("runs")
    checkpoints: Path = Path("checkpoints")

    @property
    def folder(self) -> Path:
        """``runs/<run>``."""
        return self.runs / self.name

    def fold_folder(self, fold: int) -> Path:
        """``runs/<run>/fold<i>``."""
        return self.folder / f"fold{fold}"

    def checkpoint(self, fold: int) -> Path:
        """``checkpoints/<run>/fold<i>.pt``."""
        return self.checkpoints / self.name / f"fold{fold}.pt"

    def done(self, fold: int) -> dict[str, Any] | None:
        """What done.json of a fold says, None while it is not trained.

        Raises
        ------
        EnsembleError : it is damaged, or the predictions it stands for are gone.
        """
        path = self.fold_folder(fold) / "done.json"
        if not path.exists():
            return None
        record = read_json(path)
        wrong = not isinstance(record, dict) or next((key for key, kind in _DONE.items() if not isinstance(record.get(key), kind)), None)
        missing = next((file for file in (path.with_name("oof.npy"), self.checkpoint(fold)) if not file.exists()), None)
        if wrong or missing:
            what = f"says that the fold is trained, and {missing} is not there" if missing and not wrong else "is damaged"
            raise EnsembleError(f"{path} {what}", hint=f"rm -r {path.parent} and --resume train this fold again")
        return record

    def refuse_started(self, folds: Sequence[int], resume: bool = False, force: bool = False) -> None:
        """Nothing is trained over or written over: what exists wants `resume` or `force`."""
        if force:
            return
        started = [fold for fold in folds if self.fold_folder(fold).exists()]
        if started and not resume:
            done = [fold for fold in started if self.done(fold) is not None]
            state = f"folds {', '.join(map(str, done))} are trained" if done else "it has been started"
            raise EnsembleError(
                f"the run {self.folder} exists and {state}",
                hint="--resume goes on with what is missing, --name NEW begins another run, --force trains it again from nothing",
            )
        # Predictions under this name that this run has not made: a colleague's, or of a run whose folder was removed.
        if not (self.folder / "config.toml").exists():
            there = [path for path in self._results() if path.is_file()]
            if there:
                raise EnsembleError(
                    f"{there[0]} exists, and {self.folder}, which would have made it, does not", hint="give another --name, or --force to replace it"
                )

    def _results(self) -> list[Path]:
        checkpoints = sorted((self.checkpoints / self.name).glob("fold*.pt"))
        return [oof_file(self.runs, self.name), *fold_files(self.runs, self.name).values(), *checkpoints]

    def refuse_changed(self, record: str) -> None:
        """A run goes on with the settings, data and folds it was begun with, or not at all.

        Parameters
        ----------
        record : the content of the config.toml that this command would write.

        Raises
        ------
        EnsembleError : the one that is there differs; the differences are listed.
        """
        path = self.folder / "config.toml"
        if not path.exists():
            return
        before, after = _comparable(read_record(path)), _comparable(tomllib.loads(record))
        changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
        if changed:
            lines = [f"{key}: {_short(before.get(key))} → {_short(after.get(key))}" for key in changed]
            raise EnsembleError(
                f"the run {self.folder} was begun with other settings",
                hint="give the settings it was begun with, or --name NEW for another run, or --force to train all of it again from nothing",
                details=lines,
            )

    def remove(self, folds: Sequence[int], k: int) -> None:
        """Remove these folds (--force); where they are all `k`, everything else of the run too, so that other settings may take its place.

        What was predicted from them in several views goes with them: it would be of models that are no more.
        """
        tta = self.runs / "tta"
        for path in [oof_file(tta, self.name), *fold_files(tta, self.name).values(), oof_file(self.runs, self.name)]:
            _unlink(path)
        shutil.rmtree(tta / self.name, ignore_errors=True)
        tests = fold_files(self.runs, self.name)
        whole = set(folds) == set(range(k))
        for fold in sorted({*folds, *tests}) if whole else folds:
            if fold in tests:
                _unlink(tests[fold])
            shutil.rmtree(self.fold_folder(fold), ignore_errors=True)
            self.checkpoint(fold).unlink(missing_ok=True)
        if whole:
            for folder in (self.folder, self.checkpoints / self.name):
                shutil.rmtree(folder, ignore_errors=True)


def _unlink(path: Path) -> None:
    # The array first: a sidecar without its array is nothing, an array without its sidecar would be taken on trust.
    for file in (path, sidecar_path(path)):
        file.unlink(missing_ok=True)


def file_safe(name: str) -> str:
    """A run name of letters, digits, ``.``, ``_`` and ``-`` that no shell or file system minds.

    `tta` and `blends` are folders of the program itself.
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")
    if not safe or safe in ("tta", "blends"):
        raise UsageError(f"--name {name}: expected letters, digits, '-', '_' or '.', and not 'tta' or 'blends'")
    return safe


def recorded_threads(runs: Sequence[Run]) -> int | None:
    """The threads a job that an earlier start of these runs decided on: other threads give other sums."""
    recorded: dict[int, str] = {}
    for run in runs:
        path = run.folder / "config.toml"
        if path.exists():
            resolved = read_record(path).get("resolved", {})
            threads = resolved.get("threads", 1) if isinstance(resolved, dict) else None
            if not isinstance(threads, int) or threads < 1:
                raise EnsembleError(
                    f"{path} is damaged: [resolved] has no number of threads", hint="train it again under another --name, or with --force"
                )
            recorded[threads] = run.name
    if len(recorded) > 1:
        each = ", ".join(f"{name} with {threads}" for threads, name in sorted(recorded.items()))
        raise EnsembleError(f"these runs were begun with different numbers of threads a job: {each}", hint="--resume them one at a time: --arch NAME")
    return next(iter(recorded), None)


def _comparable(record: Mapping[str, Any]) -> dict[str, Any]:
    resolved = {f"resolved {key}": value for key, value in record.get("resolved", {}).items() if key != "threads"}
    return {key: value for key, value in record.items() if key not in _NOT_COMPARED} | resolved


def _short(value: Any) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "…"
