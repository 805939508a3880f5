"""Describe one (run, fold) to train as plain values, which can be sent to another process or machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from folds.errors import EnsembleError

# A worker whose parent was killed leaves within moments; on another machine, the file system must notice it first.
LOCK_SECONDS = 120.0


@dataclass(frozen=True)
class Job:
    """One fold of a run.

    Attributes
    ----------
    folder : ``runs/<run>`` with its folds.csv, whose rows are the rows of the `pixels` file.
    checkpoint : the file to write.
    device, threads, amp : where and how.
    save_seconds : an epoch that takes longer is saved inside, too.
    memory_fraction : of the device's memory that is the job's: where two train on it, half.
    trained : a CSV ``id,label`` of what is trained on, where that is not what is scored.
    init : a checkpoint that the fold begins with.
    selected_on_validation : something about what it begins with was chosen on the fold that is scored.
    """

    run: str
    fold: int
    k: int
    folder: str
    checkpoint: str
    pixels: str
    test_pixels: str | None
    architecture: dict[str, Any]
    recipe: dict[str, Any]
    images: dict[str, Any]
    data: dict[str, Any]
    classes: tuple[str, ...]
    class_attributes: dict[str, dict[str, str]]
    folds_sha: str
    device: str = "cpu"
    threads: int = 1
    amp: str = "auto"
    save_seconds: float = 180.0
    memory_fraction: float = 1.0
    trained: str | None = None
    init: str | None = None
    selected_on_validation: bool = False
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def fold_dir(self) -> Path:
        """Return ``runs/<run>/fold<i>``, where the job keeps its state and leaves its results."""
        return Path(self.folder) / f"fold{self.fold}"

    @property
    def lock(self) -> Path:
        """Held while the job is trained. Beside the run's folder, not in it: --force removes the folder."""
        return lock_of(Path(self.folder), self.fold)

    @property
    def reads(self) -> tuple[str, ...]:
        """Return the files that must be there before it begins."""
        given = (self.pixels, self.test_pixels, self.recipe.get("init"), self.trained, self.init)
        return str(Path(self.folder) / "folds.csv"), *(path for path in given if path)

    @property
    def writes(self) -> tuple[str, ...]:
        """Return the folders that it leaves files in."""
        return self.folder, str(Path(self.checkpoint).parent), str(self.lock.parent)

    @property
    def title(self) -> str:
        """Return ``swin fold 2``."""
        return f"{self.run} fold {self.fold}"

    def with_absolute_paths(self) -> Job:
        """Return the job with absolute paths, for a process that works in another folder."""

        def absolute(path: str) -> str:
            return str(Path(path).absolute())

        test = None if self.test_pixels is None else absolute(self.test_pixels)
        init = {"init": absolute(self.recipe["init"])} if self.recipe.get("init") else {}
        return replace(
            self,
            folder=absolute(self.folder),
            checkpoint=absolute(self.checkpoint),
            pixels=absolute(self.pixels),
            test_pixels=test,
            trained=None if self.trained is None else absolute(self.trained),
            init=None if self.init is None else absolute(self.init),
            recipe=self.recipe | init,
        )


@dataclass(frozen=True)
class Outcome:
    """How a job ended: `result` is the content of its done.json, or `error` says why there is none."""

    job: Job
    result: dict[str, Any] | None = None
    error: EnsembleError | None = None


def lock_of(folder: Path, fold: int) -> Path:
    """Return ``runs/.<run>.fold<i>.lock`` of the fold of the run in `folder`."""
    return folder.parent / f".{folder.name}.fold{fold}.lock"


def job_as_dict(job: Job) -> dict[str, Any]:
    """Return the job as plain values, for JSON."""
    return asdict(job)


def job_from_dict(record: Mapping[str, Any]) -> Job:
    """Return the job of `job_as_dict`, after JSON."""
    return replace(Job(**record), classes=tuple(record["classes"]))
