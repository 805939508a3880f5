"""Describe the training of one fold of a run as plain values, which can be sent to another process or machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from folds.errors import EnsembleError
from folds.predictions.files import ALL

# A worker exits soon after its parent was killed; on another machine, the file system must notice this first.
LOCK_SECONDS = 120.0
REFIT_TEST = "predicted.npy"  # test predictions of a refit, before they are published as test.npy with its sidecar


# Version 1 (program 0.1.0): cyclic schedules could end at their peak, and frozen epochs were not followed by a warm-up.
# Version 2: batches of near-equal sizes instead of full ones (`folds.training.batches`), augmentation computed step by
# step, and losses with class weights that were not divided by the weights of the batch.
COURSE = 3


@dataclass(frozen=True)
class Job:
    """The training of one fold of a run, or of one model on all people (a refit).

    Attributes
    ----------
    fold : number of the fold; `k` for a refit, a number that no fold has.
    folder : ``runs/<run>``; its folds.csv has the same rows as the `pixels` file.
    checkpoint : the file to write.
    pixels, test_pixels : cache files of the decoded images.
    save_seconds : time between two saved states, which are taken after any step.
    memory_fraction : share of the device's memory for this job; 0.5 if two jobs train on the device.
    gives_way : whether the job ends with a DeviceSharedError if memory runs out, because others train on the device; it
        is continued later.
    training_labels : CSV file ``id,label`` with the training labels, if they differ from the scored labels.
    init : checkpoint with the initial weights.
    selected_on_validation : whether something about the initial weights was chosen on the scored fold.
    soft_labels : `.npy` file (rows, classes) with the soft label of each row of folds.csv.
    teacher : what the soft labels are, recorded in the checkpoint; the teachers of pseudo-labels too.
    annotated : whether the soft labels are given with the table, and not predicted by models.
    weights : `.npy` file (rows, 1) with the weight of each row of folds.csv in the loss.
    dropped : CSV file with the ids of images that are not learned.
    softened : `.npy` file (rows, outputs) with the target of each row, of which some are mixed with votes.
    pseudo : `.npy` file (k + 1, test images, classes) with the target of each test image for each fold, last for a
        refit; 0 if it is not learned. Beside it, `.csv` has the ids and people of the test images.
    channels_last : memory format of the training; None for that of the recipe.
    compiled : whether the training is compiled although the recipe does not ask for it.
    validation, stored : format of the predictions during the training, and of those that are stored (`Predictor`); ""
        for that of the training, as on a GPU and in runs of earlier versions.
    course : version of the order and the numbers of a training (`COURSE`); a run keeps the one it was started with.
    refit : what a refit follows from (`folds.runs.refit.RefitPlan`); None for a fold.
    pretrained, pretrained_sha : file of the pretrained weights and its hash (`folds.models.pretrained`); None if the
        weights are those of `init`, or random, or asked of the hub.
    person_metric : metric by which each epoch is also scored by person, as trials of labeled persons are compared; None
        for none.
    partners : further devices that train the fold together with `device`, each in a process of its own.
    physical_device : name of the device in the plan, if the process of the job sees only this one, as ``cuda:0``.
    features : of a head on frozen features: the files of the features of the training and test images (``train``,
        ``test``), and the hash of the weights that computed them (``weights``).
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
    save_seconds: float = 30.0
    memory_fraction: float = 1.0
    gives_way: bool = False
    training_labels: str | None = None
    init: str | None = None
    selected_on_validation: bool = False
    versions: dict[str, str] = field(default_factory=dict)
    soft_labels: str | None = None
    teacher: dict[str, str] = field(default_factory=dict)
    refit: dict[str, Any] | None = None
    course: int = COURSE
    annotated: bool = False
    weights: str | None = None
    pseudo: str | None = None
    physical_device: str | None = None
    channels_last: bool | None = None
    compiled: bool = False
    validation: str = ""
    stored: str = ""
    pretrained: str | None = None
    pretrained_sha: str = ""
    features: dict[str, str | None] | None = None
    partners: tuple[str, ...] = ()
    dropped: str | None = None
    softened: str | None = None
    person_metric: str | None = None

    @property
    def shown_device(self) -> str:
        """Return the device for messages and records: its name in the plan, not that in the worker's process."""
        return self.physical_device or self.device

    @property
    def part(self) -> str:
        """Return the name of the job's files: ``fold<i>``, or ``all`` for a refit."""
        return f"fold{self.fold}" if self.refit is None else ALL

    @property
    def fold_dir(self) -> Path:
        """Return ``runs/<run>/fold<i>`` or ``runs/<run>/all``, the folder of the job's state and results."""
        return Path(self.folder) / self.part

    @property
    def lock(self) -> Path:
        """Return the lock file of the job; it is outside the run's folder, which ``--force`` removes."""
        return lock_of(Path(self.folder), self.part)

    @property
    def reads(self) -> tuple[str, ...]:
        """Return the input files."""
        inputs = (self.pixels, self.test_pixels, self.recipe.get("init"), self.training_labels, self.soft_labels)
        pseudo = () if self.pseudo is None else (self.pseudo, str(Path(self.pseudo).with_suffix(".csv")))
        changes = (self.dropped, self.softened)
        others = (*inputs, self.init, self.weights, self.pretrained, *changes, *pseudo)
        return str(Path(self.folder) / "folds.csv"), *(path for path in others if path)

    @property
    def writes(self) -> tuple[str, ...]:
        """Return the folders of the output files."""
        return self.folder, str(Path(self.checkpoint).parent), str(self.lock.parent)

    @property
    def title(self) -> str:
        """Return ``swin fold 2``, or ``swin, all people`` for a refit."""
        return f"{self.run} fold {self.fold}" if self.refit is None else f"{self.run}, all people"

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
            training_labels=None if self.training_labels is None else absolute(self.training_labels),
            soft_labels=None if self.soft_labels is None else absolute(self.soft_labels),
            weights=None if self.weights is None else absolute(self.weights),
            pseudo=None if self.pseudo is None else absolute(self.pseudo),
            dropped=None if self.dropped is None else absolute(self.dropped),
            softened=None if self.softened is None else absolute(self.softened),
            init=None if self.init is None else absolute(self.init),
            pretrained=None if self.pretrained is None else absolute(self.pretrained),
            recipe=self.recipe | init,
        )


@dataclass(frozen=True)
class Outcome:
    """The outcome of a job: `result` is the content of its done.json; `error` is set if the job failed."""

    job: Job
    result: dict[str, Any] | None = None
    error: EnsembleError | None = None


def lock_of(folder: Path, part: int | str) -> Path:
    """Return the lock file of a fold of the run in `folder`: ``runs/.<run>.fold<i>.lock``, or ``….all.lock``."""
    return folder.parent / f".{folder.name}.{f'fold{part}' if isinstance(part, int) else part}.lock"


def job_as_dict(job: Job) -> dict[str, Any]:
    """Return the job as plain values, for JSON."""
    return asdict(job)


def job_from_dict(record: Mapping[str, Any]) -> Job:
    """Return the job from the values of `job_as_dict`, read from JSON."""
    return replace(Job(**record), classes=tuple(record["classes"]), partners=tuple(record.get("partners", ())))
