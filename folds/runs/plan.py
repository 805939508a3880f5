"""What is to be trained: the data, the folds and the runs of one command, checked before anything starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from folds.augmentation.custom import load_transform
from folds.config.files import to_toml
from folds.config.recipe import Recipe, Settings
from folds.config.sweep import RequestedRecipe
from folds.data.sources import open_data
from folds.data.table import Dataset, DataSpec, SampleTable
from folds.data.targets import Target
from folds.errors import UsageError
from folds.execution.placement import DevicePlan, Execution, plan_devices
from folds.images.cache import DecodedImages, load_images
from folds.images.settings import CACHE, ImageSettings
from folds.models.precision import resolve_amp
from folds.runs.environment import environment, version_warnings
from folds.runs.initial_weights import InitialWeights, beginnings
from folds.runs.matrix import RunVariant, compared_with, make_runs
from folds.runs.run import RecordedResources, Run, recorded_start
from folds.splits.assignment import FoldAssignment, load_folds, save_folds
from folds.splits.checks import check_folds
from folds.splits.repeated import make_splits
from folds.training.job import Job
from folds.training.resolve import check_for_classes, recipe_warnings, trained_labels, validate_recipe
from folds.utils.csv_table import csv_text
from folds.utils.files import sha256_bytes, write_atomic, write_json

TRAINED = "trained.csv"  # in the run's folder: what is trained on, where that is not what is scored
Note = Callable[[str], None]
_Images = tuple[DecodedImages, DecodedImages | None]  # decoded: training, test


class _Prepared(NamedTuple):
    """A run that has been found to be in order."""

    run: Run
    images: _Images
    record: str
    amp: str
    trained: list[str] | None


@dataclass(frozen=True)
class Plan:
    """All runs of a command on one table: architectures × independent partitions into k folds × seeds."""

    settings: Settings
    spec: DataSpec
    data: Dataset
    runs: tuple[Run, ...]
    folds: tuple[int, ...]
    placement: DevicePlan
    built_in: bool
    execution: Execution
    beginnings: Mapping[str, InitialWeights] = field(default_factory=dict)

    @property
    def table(self) -> SampleTable:
        """The training samples."""
        return self.data.train

    @property
    def assignment(self) -> FoldAssignment:
        """The folds of the first run, which are those of all where nothing is repeated."""
        return self.runs[0].assignment

    @property
    def assignments(self) -> tuple[FoldAssignment, ...]:
        """The different ones."""
        return tuple(dict.fromkeys(run.assignment for run in self.runs))

    @property
    def whole(self) -> bool:
        """Whether all folds of its runs are to be trained."""
        return self.runs[0].is_whole(self.folds)


def build_plan(
    settings: Settings,
    recipe: Recipe,
    *,
    folds: Sequence[int] | None = None,
    execution: Execution | None = None,
    force: bool = False,
    variants: Sequence[RequestedRecipe] = (),
    baseline: str | None = None,
    note: Note = lambda text: None,
    warn: Note = lambda text: None,
) -> Plan:
    """Read the table, split it, resolve the architectures and name the runs. Nothing is written but the built-in people.

    Parameters
    ----------
    folds : the folds to train now; None for all.
    execution : where and how the jobs are run.
    force : the folds are trained again from nothing; where they are all, it does not matter what a run has recorded.
    variants : what is trained instead of `recipe`, which still decides the folds.
    baseline : the run that all are compared with; without it each variant is compared with the first of its architecture.
    note, warn : called with lines for the user.
    """
    # What has a name is looked up before anything is read or trained.
    execution = execution or Execution()
    execution.check()
    first = _place(1, execution).devices[0]
    asked = list(variants) or [RequestedRecipe("", recipe)]
    for one in asked:
        validate_recipe(one.recipe)
        resolve_amp(one.recipe.amp, first)
    for line in dict.fromkeys(line for one in asked for line in recipe_warnings(one.recipe)):
        warn(line)
    source = open_data(settings, note=note)
    data, spec, built_in = source.data, source.spec, source.built_in
    for line in data.notes:
        note(line)
    for line in data.warnings:
        warn(line)
    on_cpu = first == "cpu"
    made = [RunVariant(one.suffix, *_started(one.recipe, data.train, built_in), one.arch) for one in asked]
    assignments = _assign(settings, recipe, data.train, note, warn)
    for repeat, assignment in enumerate(assignments):
        for line in check_folds(assignment, data.train.classes, data.train.class_attributes):
            warn(f"repeat {repeat}: {line}" if repeat else line)
    k = assignments[0].k
    chosen = tuple(range(k)) if folds is None else tuple(sorted(set(folds)))
    if any(not 0 <= fold < k for fold in chosen):
        raise UsageError(f"--fold {','.join(map(str, folds or ()))}: the folds are 0 to {k - 1}")
    runs = make_runs(settings, made, assignments, small=built_in and on_cpu)
    begun = beginnings(runs, chosen, warn)
    if baseline is not None:
        runs = compared_with(baseline, runs, data.train)
    recorded = RecordedResources() if force and runs[0].is_whole(chosen) else recorded_start(runs)
    execution = replace(execution, per_device=execution.per_device or recorded.jobs)
    placement = _place(len(runs) * len(chosen), execution, recorded.threads)
    if built_in:
        small = "small siblings of the models at 64 px, " if on_cpu else ""
        note(f"built-in people: {small}random weights; your own data: --data FOLDER or CSV")
    return Plan(settings, spec, data, runs, chosen, placement, built_in, execution, begun)


def _started(recipe: Recipe, table: SampleTable, built_in: bool) -> tuple[Recipe, Target]:
    """The recipe with its start decided (the built-in people have no pretrained weights), and what it predicts."""
    if recipe.pretrained is None:
        recipe = replace(recipe, pretrained=recipe.init is None and recipe.init_run is None and not built_in)
    target = check_for_classes(recipe, table.classes, table.class_attributes)
    trained_labels(recipe, table)
    return recipe, target


def _place(jobs: int, execution: Execution, threads: int | None = None) -> DevicePlan:
    if execution.backend == "ray":
        from folds.execution.ray_cluster import place_on_cluster

        return place_on_cluster(jobs, execution, threads)
    return plan_devices(jobs, execution.devices, execution.per_device, threads)


def _assign(settings: Settings, recipe: Recipe, table: SampleTable, note: Note, warn: Note) -> list[FoldAssignment]:
    if settings.folds is not None:
        return [load_folds(settings.folds, table)]
    return make_splits(table, settings, recipe.seed, note, warn)


def prepare_jobs(
    plan: Plan,
    *,
    resume: bool = False,
    force: bool = False,
    note: Note = lambda text: None,
    warn: Note = lambda text: None,
    progress: Callable[[int, int], None] | None = None,
    decoded: Callable[[Plan, DecodedImages, DecodedImages | None], None] | None = None,
) -> list[Job]:
    """Decode the images, write the run folders, and list the jobs that are still to do, longest first.

    `warn` is told where versions differ from those that a run was begun with, before it is trained further.
    `decoded` is called once with the images of training and test, before anything is written or removed, and may refuse them.

    Raises
    ------
    EnsembleError : a run exists and neither `resume` nor `force` is given, or it was begun with other settings, data
        or folds, or on another kind of device (the difference is shown); an image cannot be used.
    """
    for run in plan.runs:
        run.check_not_started(plan.folds, resume, force)
    now = environment()
    jobs: list[tuple[int, Job]] = []
    caches: dict[ImageSettings, _Images] = {}
    prepared: list[_Prepared] = []
    for run in plan.runs:
        images = run.image_settings
        if images not in caches:
            load = partial(load_images, settings=images, cache_dir=CACHE / "images", note=note, progress=progress)
            train = load(plan.table.paths or (), where=plan.table.locations)
            test = plan.data.test
            caches[images] = train, None if test is None else load(test.paths or (), where=test.locations)
        if decoded is not None and run is plan.runs[0]:
            decoded(plan, *caches[images])
        amp = resolve_amp(run.recipe.amp, plan.placement.devices[0])[0]
        trained = trained_labels(run.recipe, plan.table)
        record = _record(plan, run, caches[images], amp, trained)
        if not (force and plan.whole):
            run.check_same_settings(record)
        prepared.append(_Prepared(run, caches[images], record, amp, trained))
    # Nothing is removed before everything has been found to be in order, for all runs.
    for run, (train, test_cache), record, amp, trained in prepared:
        begun = plan.beginnings.get(run.name, InitialWeights())
        if force:
            run.remove(plan.folds)
        if not (run.folder / "config.toml").exists():
            save_folds(run.folder / "folds.csv", run.assignment, force=True)
            write_json(run.folder / "environment.json", now)
            if trained is not None:
                write_atomic(run.folder / TRAINED, csv_text({"id": plan.table.ids.tolist(), "label": trained}))
            write_atomic(run.folder / "config.toml", record)
        job = Job(
            run=run.name,
            fold=0,
            k=run.assignment.k,
            folder=str(run.folder),
            checkpoint="",
            pixels=str(train.path),
            test_pixels=str(test_cache.path) if test_cache else None,
            architecture=asdict(run.architecture),
            recipe={key: str(value) if isinstance(value, Path) else value for key, value in asdict(run.recipe).items()},
            images=asdict(run.image_settings),
            data={key: str(value) if isinstance(value, Path) else value for key, value in asdict(plan.spec).items()},
            classes=plan.table.classes,
            class_attributes={name: dict(meaning) for name, meaning in plan.table.class_attributes.items()},
            folds_sha=run.assignment.sha,
            threads=plan.placement.threads,
            amp=amp,
            save_seconds=plan.execution.save_seconds,
            versions=now,
            trained=None if trained is None else str(run.folder / TRAINED),
            selected_on_validation=begun.selected_on_validation,
        )
        for fold in plan.folds:
            if run.done(fold) is not None:
                # Of a process that was killed just before it removed it.
                (run.fold_folder(fold) / "state.pt").unlink(missing_ok=True)
            else:
                rows = len(run.assignment.training_index(fold))
                cost = rows * run.recipe.epochs * run.parameters * run.architecture.height * run.architecture.width
                init = str(begun.paths[fold]) if begun.paths else None
                jobs.append((cost, replace(job, fold=fold, checkpoint=str(run.checkpoint(fold)), init=init)))
    unfinished = {job.folder for _, job in jobs}
    for line in version_warnings(
        [run.folder for run in plan.runs if str(run.folder) in unfinished], now, plan.placement.kind == "cuda"
    ):
        warn(line)
    # Longest first: the last slot to finish then has the least left to do.
    return [job for _, job in sorted(jobs, key=lambda pair: (-pair[0], pair[1].run, pair[1].fold))]


def _record(plan: Plan, run: Run, images: _Images, amp: str, trained: Sequence[str] | None) -> str:
    """The content of a run's config.toml: given again, it makes this very run."""
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
        # Its folds do not follow from its seed: they are those beside the record.
        settings = replace(settings, folds=run.folder / "folds.csv", holdout=None, stratify=())
    resolved = {
        "architecture": _plain(asdict(run.architecture)),
        "table_sha": plan.table.sha,
        "test_sha": plan.data.test.sha if plan.data.test is not None else "",
        "folds_sha": run.assignment.sha,
        "images_sha": sha256_bytes("".join([*train.content, *(test.content if test else ())]).encode()),
        "init_sha": sha256_bytes(run.recipe.init.read_bytes()) if run.recipe.init else "",
        "init_run_sha": plan.beginnings.get(run.name, InitialWeights()).sha or None,
        "transform_sha": load_transform(run.recipe.transform).sha if run.recipe.transform else "",
        "trained_sha": sha256_bytes("\n".join(trained).encode()) if trained else "",
        "amp": amp,
        "device": plan.placement.kind,
        "threads": plan.placement.threads,
        # On a CPU the threads make the same choice again, and on a larger machine a larger one.
        "jobs": plan.execution.per_device or (None if plan.placement.kind == "cpu" else 1),
    }
    return to_toml(settings, run.recipe, resolved)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
