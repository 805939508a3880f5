"""Prepare the runs of a plan: decode images, check existing runs, write run folders, list the jobs to train."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from folds.augmentation.custom import load_transform
from folds.config.defaults import DEFAULTS
from folds.config.files import to_toml
from folds.config.frozen import OF_FEATURES
from folds.config.lookup import default_of
from folds.data.sources import FOUND
from folds.execution.placement import DevicePlan
from folds.features.persons import write_test_persons
from folds.images.cache import DecodedImages, load_images
from folds.images.settings import CACHE, ImageSettings
from folds.models.head_spec import is_of_person
from folds.models.pretrained import FOLDER, PretrainedWeights, keep_weights, weights_for_features
from folds.predictions.changed_labels import write_changed_labels
from folds.predictions.file_names import FOLD_STATE, RUN_CONFIG
from folds.runs.environment import environment, version_warnings
from folds.runs.gpu_jobs import decide_jobs
from folds.runs.initial_weights import InitialWeights
from folds.runs.plan import Plan
from folds.runs.run import Run
from folds.runs.run_formats import decide_formats, log_formats, resolved_format
from folds.splits.assignment import save_folds
from folds.training.job import COURSE, Job
from folds.training.label_changes import LabelChanges, label_changes_of
from folds.training.measured_formats import Format
from folds.training.resolve import trained_labels
from folds.training.sample_weights import sample_weights_of
from folds.training.soft_labels import SoftLabels, soft_labels_of
from folds.utils.csv_table import csv_text
from folds.utils.files import sha256_bytes, write_atomic, write_json
from folds.utils.progress import SILENT, Advance, Progress

logger = logging.getLogger(__name__)

# Fields of a `DataSpec` that version 0.1.0 does not know: its checkpoints and those without them are the same.
_LATER_FIELDS = (
    "images",
    "test_images",
    "test_labels",
    "missing_persons",
    "merge_spellings",
    "skip_unusable",
    "max_pixels",
    "stack",
    "task",
    "label_of",
    "uncertain",
)
# Settings that checkpoints do not record unless they are given, so that those of other runs stay as they were.
_LATER_SETTINGS = (
    *("soft_labels", "soft_weight", "soft_temperature", "soft_columns", "weight_column"),
    *("pseudo", "pseudo_confidence", "pseudo_per_class", "pseudo_soft", "pseudo_weight", "pseudo_spread"),
    *("relabel", "drop", "soften", "soften_weight"),
    *("ema_warmup", "average_last", "head", "drop_path", "head_lr"),
    *("cache_scale", "crop_scale", "crop_ratio", "progressive"),
    *("task", "positive", "class_order"),
    *("channels", "frame"),
    *OF_FEATURES,
)
SOFT = "soft.npy"  # file in the run's folder with the soft labels, in the order of folds.csv
WEIGHTS = "weights.npy"  # the weights of the images in the loss, likewise
DROPPED = "dropped.csv"  # the ids of images that are not learned
SOFTENED = "softened.npy"  # the target of each image, in the order of folds.csv, if some labels are mixed with votes
PSEUDO = "pseudo.npy"  # the pseudo-labels of the test images for each fold, beside pseudo.csv with their ids
TRAINED = "trained.csv"  # file in the run's folder with the training labels, if they differ from the scored labels


class Images(NamedTuple):
    """The decoded images of a plan, at one size."""

    train: DecodedImages
    test: DecodedImages | None


@dataclass(frozen=True)
class OpenedRun:
    """A run that has passed all checks.

    Attributes
    ----------
    record : content of its config.toml.
    format : how the training is computed.
    training_labels : training label of each sample, if they differ from the scored labels; otherwise None.
    soft_labels : soft label of each sample; None without them.
    weights : (n,) weight of each sample in the loss; None without them.
    pretrained : the pretrained weights of the folds; None if they start from others.
    changes : changes of the training labels; None without any.
    """

    run: Run
    images: Images
    record: str
    format: Format
    training_labels: list[str] | None
    soft_labels: SoftLabels | None = None
    weights: NDArray[np.float64] | None = None
    pretrained: PretrainedWeights | None = None
    changes: LabelChanges | None = None


@dataclass(frozen=True)
class Prepared:
    """The jobs of a plan.

    Attributes
    ----------
    jobs : the remaining folds, longest first.
    templates : run → its first fold as a job, trained or not.
    placement : that of the plan, with the number of jobs that each GPU trains at once.
    """

    jobs: list[Job]
    templates: Mapping[str, Job]
    placement: DevicePlan


def prepare_jobs(
    plan: Plan,
    *,
    resume: bool = False,
    force: bool = False,
    progress: Progress = SILENT,
    decoded: Callable[[Images], None] | None = None,
) -> list[Job]:
    """Prepare a plan (`prepare`) and return the remaining jobs of its folds."""
    return prepare(plan, resume=resume, force=force, progress=progress, decoded=decoded).jobs


def prepare(
    plan: Plan,
    *,
    resume: bool = False,
    force: bool = False,
    progress: Progress = SILENT,
    decoded: Callable[[Images], None] | None = None,
) -> Prepared:
    """Decode the images, write the run folders, and return the remaining jobs, longest first.

    A warning is logged if a run that is not finished was started with different versions.

    Parameters
    ----------
    decoded : called once with the images of the first run, before anything is written or removed; it may raise an
        error.

    Raises
    ------
    EnsembleError : a run exists and neither `resume` nor `force` is given; it was started with different settings, data
        or folds, or on another kind of device (the details list the differences); or an image cannot be used.
    """
    plan.check_not_started(resume, force)
    with progress.step("decoding images") as advance:
        images = decode_images(plan, advance)
    if decoded is not None:
        decoded(images[plan.runs[0].image_settings])
    plan = replace(plan, placement=decide_jobs(plan, {key: _bytes_of(one) for key, one in images.items()}, progress))
    # All runs are checked before anything is removed.
    anew = force and plan.trains_all_folds
    formats = decide_formats(plan, anew=anew, progress=progress)
    opened = [_check_run(plan, run, images[run.image_settings], formats[run.name], anew) for run in plan.runs]
    log_formats([(one.run, one.format) for one in opened])
    versions = environment()
    for one in opened:
        _write_run(plan, one, versions, force)
    jobs = {one.run.name: _job(plan, one, versions) for one in opened}
    return Prepared(_list_jobs(plan, opened, jobs, versions), jobs, plan.placement)


def _bytes_of(images: Images) -> int:
    return images.train.pixels.nbytes + (images.test.pixels.nbytes if images.test is not None else 0)


def decode_images(plan: Plan, progress: Advance | None = None) -> dict[ImageSettings, Images]:
    """Return decoded training and test images by settings; runs with equal settings share them.

    Raises
    ------
    EnsembleError : some images cannot be used; the error lists them.
    """

    def load(paths: Sequence[Path], settings: ImageSettings, locations: Sequence[str]) -> DecodedImages:
        return load_images(paths, settings, cache_dir=plan.image_cache, locations=locations, progress=progress)

    images: dict[ImageSettings, Images] = {}
    for settings in dict.fromkeys(run.image_settings for run in plan.runs):
        train = load(plan.table.paths or (), settings, plan.table.locations)
        test = plan.data.test
        images[settings] = Images(train, None if test is None else load(test.paths or (), settings, test.locations))
    return images


def _check_run(plan: Plan, run: Run, images: Images, decided: Format, anew: bool) -> OpenedRun:
    """Raise if a run was started with different settings."""
    training_labels = trained_labels(run.recipe, plan.table)
    soft = soft_labels_of(run.recipe, plan.table, run.target)
    weights = sample_weights_of(run.recipe, plan.table)
    pretrained = _pretrained(plan, run)
    changes = label_changes_of(run.recipe, plan.table, run.target, plan.data.test)
    record = _record(plan, run, images, decided, training_labels, soft, weights, pretrained, changes)
    if not anew:
        run.check_same_settings(record)
    return OpenedRun(run, images, record, decided, training_labels, soft, weights, pretrained, changes)


def _pretrained(plan: Plan, run: Run) -> PretrainedWeights | None:
    """Return the pretrained weights of a run, fetched if they are not kept yet; None if it starts from others."""
    recipe = run.recipe
    if not recipe.pretrained or recipe.init is not None or recipe.init_run is not None:
        return None
    folder = plan.root / CACHE / FOLDER
    if recipe.features:  # whatever the head is
        return keep_weights(folder, *weights_for_features(run.architecture))
    return keep_weights(folder, run.architecture, run.target.outputs)


def _write_run(plan: Plan, one: OpenedRun, versions: Mapping[str, str], force: bool) -> None:
    """Remove the folds to retrain, and write the folder of a new run, config.toml last."""
    run = one.run
    if force and plan.refit:
        run.remove_refit()
    elif force:
        run.remove(plan.folds)
    if (run.folder / RUN_CONFIG).exists():
        return
    save_folds(run.folder / "folds.csv", run.assignment, force=True)
    write_json(run.folder / "environment.json", versions)
    if one.training_labels is not None:
        write_atomic(run.folder / TRAINED, csv_text({"id": plan.table.ids.tolist(), "label": one.training_labels}))
    if one.soft_labels is not None:
        values = one.soft_labels.values
        write_atomic(run.folder / SOFT, lambda file: np.save(file, values, allow_pickle=False))
    if one.weights is not None:
        column = one.weights[:, None].astype(np.float32)
        write_atomic(run.folder / WEIGHTS, lambda file: np.save(file, column, allow_pickle=False))
    if one.changes is not None:
        _write_changes(run, one.changes, plan)
    if run.name in plan.pseudo and plan.data.test is not None:
        test, targets = plan.data.test, plan.pseudo[run.name].values
        persons = [""] * len(test) if test.persons is None else test.persons.tolist()
        write_atomic((run.folder / PSEUDO).with_suffix(".csv"), csv_text({"id": test.ids.tolist(), "person": persons}))
        write_atomic(run.folder / PSEUDO, lambda file: np.save(file, targets, allow_pickle=False))
    if is_of_person(run.architecture.head) and plan.data.test is not None:
        write_test_persons(run.folder, plan.data.test.persons)
    write_atomic(run.folder / RUN_CONFIG, one.record)


def _write_changes(run: Run, changes: LabelChanges, plan: Plan) -> None:
    """Write what a run changes about the training labels: what its folds read, and what comparisons leave out."""
    if changes.dropped.any():
        write_atomic(run.folder / DROPPED, csv_text({"id": plan.table.ids[changes.dropped].tolist()}))
    if changes.targets is not None:
        targets = changes.targets
        write_atomic(run.folder / SOFTENED, lambda file: np.save(file, targets, allow_pickle=False))
    write_changed_labels(run.folder, changes.columns(plan.table))


def _list_jobs(
    plan: Plan, opened: Sequence[OpenedRun], first: Mapping[str, Job], versions: dict[str, str]
) -> list[Job]:
    """Return the jobs of untrained folds, longest first, so that all slots finish at about the same time."""
    jobs: list[tuple[int, Job]] = []
    for one in opened:
        run, job = one.run, first[one.run.name]
        weights = plan.initial_weights.get(run.name, InitialWeights())
        for fold in plan.folds:
            if run.done(fold) is not None:
                # A process that was killed may have left the state of a finished fold.
                (run.fold_folder(fold) / FOLD_STATE).unlink(missing_ok=True)
                continue
            rows = len(run.assignment.training_index(fold))
            cost = rows * run.recipe.epochs * run.parameters * run.architecture.height * run.architecture.width
            init = str(weights.paths[fold]) if weights.paths else None
            jobs.append((cost, replace(job, fold=fold, checkpoint=str(run.checkpoint(fold)), init=init)))
    unfinished = {job.folder for _, job in jobs}
    folders = [run.folder for run in plan.runs if str(run.folder) in unfinished]
    for line in version_warnings(folders, versions, plan.placement.kind != "cpu"):
        logger.warning(line)
    return [job for _, job in sorted(jobs, key=lambda pair: (-pair[0], pair[1].run, pair[1].fold))]


def _job(plan: Plan, one: OpenedRun, versions: dict[str, str]) -> Job:
    """Return the first fold of a run as a job; the others differ in `fold`, `checkpoint` and `init`."""
    run, (train, test) = one.run, one.images
    return Job(
        run=run.name,
        fold=0,
        k=run.assignment.k,
        folder=str(run.folder),
        checkpoint="",
        pixels=str(train.path),
        test_pixels=str(test.path) if test else None,
        architecture=run.architecture.to_dict(),
        recipe={
            key: str(value) if isinstance(value, Path) else value
            for key, value in _recorded_settings(run).items()
            if key
            not in (
                "soft_labels",
                "pseudo",
                "relabel",
                "drop",
                "soften",
            )  # places; `teacher` of the job has what was read from them
        },
        images=_images(run.input_settings),
        data={
            key: str(value) if isinstance(value, Path) else value
            for key, value in _without_open(asdict(plan.spec), _LATER_FIELDS).items()
        }
        | ({FOUND: dict(plan.data.found)} if plan.data.found else {}),
        classes=plan.table.classes,
        class_attributes={name: dict(meaning) for name, meaning in plan.table.class_attributes.items()},
        folds_sha=run.assignment.sha,
        threads=plan.placement.threads,
        course=run.recorded_course,
        amp=one.format.amp,
        channels_last=one.format.channels_last,
        compiled=one.format.compiled,
        validation=one.format.validation,
        stored=one.format.stored,
        save_seconds=plan.execution.save_seconds,
        versions=versions,
        training_labels=None if one.training_labels is None else str(run.folder / TRAINED),
        soft_labels=None if one.soft_labels is None else str(run.folder / SOFT),
        teacher=_teachers(plan, one),
        selected_on_validation=plan.initial_weights.get(run.name, InitialWeights()).selected_on_validation
        or (run.name in plan.pseudo and plan.pseudo[run.name].optimistic),
        annotated=one.soft_labels is not None and one.soft_labels.annotated,
        weights=None if one.weights is None else str(run.folder / WEIGHTS),
        pseudo=str(run.folder / PSEUDO) if run.name in plan.pseudo else None,
        pretrained=None if one.pretrained is None else str(one.pretrained.path),
        pretrained_sha="" if one.pretrained is None else one.pretrained.sha,
        dropped=str(run.folder / DROPPED) if one.changes is not None and one.changes.dropped.any() else None,
        softened=str(run.folder / SOFTENED) if one.changes is not None and one.changes.targets is not None else None,
    )


def _teachers(plan: Plan, one: OpenedRun) -> dict[str, str]:
    """Return what the soft labels and the pseudo-labels of a run are."""
    soft = {} if one.soft_labels is None else one.soft_labels.record()
    return soft | (plan.pseudo[one.run.name].record() if one.run.name in plan.pseudo else {})


def _recorded_settings(run: Run) -> dict[str, Any]:
    """Return the settings that a job and its checkpoint have; that of a head has its kind, also if linear."""
    found = _without_defaults(asdict(run.recipe), _LATER_SETTINGS)
    return found | {"head": run.recipe.head} if run.recipe.features else found


def _without_defaults(values: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the settings without those of `names` that have their default."""
    return {key: value for key, value in values.items() if key not in names or value != default_of(key)}


def _images(settings: ImageSettings) -> dict[str, Any]:
    """Return how a checkpoint records the decoding of images."""
    values = _without_open(asdict(settings), ("max_pixels", "frame"))
    unused = {"preview", *(name for name in ("channels", "stack") if not values[name])}
    unused |= set() if any(settings.margin) else {"margin"}
    return {key: value for key, value in values.items() if key not in unused}


def _without_open(values: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the values without those of `names` that are not given."""
    return {key: value for key, value in values.items() if key not in names or value is not None}


def _record(
    plan: Plan,
    run: Run,
    images: Images,
    decided: Format,
    training_labels: Sequence[str] | None,
    soft: SoftLabels | None,
    weights: NDArray[np.float64] | None,
    pretrained: PretrainedWeights | None,
    changes: LabelChanges | None,
) -> str:
    """Return the content of a run's config.toml, which reproduces the run with ``ensemble kfold -c``."""
    train, test = images
    settings = replace(
        plan.settings,
        data=plan.spec.data,
        arch=(run.architecture.name,),
        name=run.name,
        k=run.assignment.k,
        repeats=1,
        seeds=1,
    )
    if settings.folds is None and (
        run.assignment is not plan.assignment or run.recipe.seed != plan.runs[0].recipe.seed
    ):
        # Its folds do not follow from its seed: use those saved with the record.
        settings = replace(
            settings, folds=run.folder / "folds.csv", holdout=None, stratify=(), group_within=None, leave_out=None
        )
    resolved = {
        "architecture": _plain(run.architecture.to_dict()),
        "table_sha": plan.table.sha,
        "test_sha": plan.data.test.sha if plan.data.test is not None else "",
        "folds_sha": run.assignment.sha,
        "images_sha": sha256_bytes("".join([*train.content, *(test.content if test else ())]).encode()),
        "init_sha": sha256_bytes(run.recipe.init.read_bytes()) if run.recipe.init else "",
        "init_run_sha": plan.initial_weights.get(run.name, InitialWeights()).sha or None,
        **({} if pretrained is None else {"pretrained_sha": pretrained.sha}),
        "transform_sha": load_transform(run.recipe.transform).sha if run.recipe.transform else "",
        "trained_sha": sha256_bytes("\n".join(training_labels).encode()) if training_labels else "",
        **({} if changes is None else changes.record(plan.table.ids)),
        **({} if soft is None else soft.record()),
        "weights_sha": None if weights is None else sha256_bytes(weights.tobytes()),
        **(plan.pseudo[run.name].record() if run.name in plan.pseudo else {}),
        **resolved_format(decided),
        "device": plan.placement.kind,
        "threads": plan.placement.threads,
        "course": COURSE,
        "defaults": DEFAULTS,
        **({"gpus_per_job": plan.placement.gpus_per_job} if plan.placement.gpus_per_job > 1 else {}),
        # On a CPU the number of jobs follows from the threads, and may be larger on a larger machine.
        "jobs": plan.execution.per_device or (None if plan.placement.kind == "cpu" else plan.placement.per_device),
        "jobs_measured_on": plan.placement.measured_on or None,
        "jobs_reason": plan.placement.jobs_reason or None,
    }
    return to_toml(settings, run.recipe, resolved)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
