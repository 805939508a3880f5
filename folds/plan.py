"""What is to be trained: the data, the folds and the runs of one command, checked before anything starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from folds.architectures import SMALL_SIBLINGS, check_forward, create, resolve
from folds.assignment import FoldAssignment, load_folds, save_folds
from folds.augment import preset
from folds.decode import ImageSettings
from folds.devices import Execution, Placement, place, resolve_amp
from folds.errors import UsageError
from folds.files import sha256_bytes, write_atomic, write_json
from folds.images import ImageCache, load_images
from folds.job import Job
from folds.losses import build_loss
from folds.recipe import Recipe, Settings, to_toml
from folds.repeats import make_splits
from folds.run import Recorded, Run, file_safe, recorded_start
from folds.samples import Data, DataSpec, SampleTable
from folds.sources import open_data
from folds.split import check_folds
from folds.versions import environment, version_warnings

CACHE = Path(".ensemble")
Note = Callable[[str], None]
_Images = tuple[ImageCache, ImageCache | None]  # decoded: training, test


@dataclass(frozen=True)
class Plan:
    """All runs of a command on one table: architectures × independent partitions into k folds × seeds."""

    settings: Settings
    spec: DataSpec
    data: Data
    runs: tuple[Run, ...]
    folds: tuple[int, ...]
    placement: Placement
    built_in: bool
    execution: Execution

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


def make_plan(
    settings: Settings,
    recipe: Recipe,
    *,
    folds: Sequence[int] | None = None,
    execution: Execution | None = None,
    force: bool = False,
    note: Note = lambda text: None,
    warn: Note = lambda text: None,
) -> Plan:
    """Read the table, split it, resolve the architectures and name the runs. Nothing is written but the built-in people.

    Parameters
    ----------
    folds : the folds to train now; None for all.
    execution : where and how the jobs are run.
    force : the folds are trained again from nothing; where they are all, it does not matter what a run has recorded.
    note, warn : called with lines for the user.
    """
    # What has a name is looked up before anything is read or trained.
    execution = execution or Execution()
    execution.check()
    first = _place(1, execution).devices[0]
    preset(recipe.augment or "none")
    build_loss(recipe.loss, recipe.label_smoothing)
    resolve_amp(recipe.amp, first)
    source = open_data(settings, note=note)
    data, spec, built_in = source.data, source.spec, source.built_in
    for line in data.notes:
        note(line)
    for line in data.warnings:
        warn(line)
    on_cpu = first == "cpu"
    if built_in and recipe.pretrained is None and recipe.init is None:
        recipe = replace(recipe, pretrained=False)
    elif recipe.pretrained is None:
        recipe = replace(recipe, pretrained=recipe.init is None)
    assignments = _assign(settings, recipe, data.train, note, warn)
    for repeat, assignment in enumerate(assignments):
        for line in check_folds(assignment, data.train.classes, data.train.class_attributes):
            warn(f"repeat {repeat}: {line}" if repeat else line)
    k = assignments[0].k
    chosen = tuple(range(k)) if folds is None else tuple(sorted(set(folds)))
    if any(not 0 <= fold < k for fold in chosen):
        raise UsageError(f"--fold {','.join(map(str, folds or ()))}: the folds are 0 to {k - 1}")
    runs = _name_runs(settings, recipe, assignments, small=built_in and on_cpu, classes=len(data.train.classes))
    recorded = Recorded() if force and runs[0].is_whole(chosen) else recorded_start(runs)
    execution = replace(execution, per_device=execution.per_device or recorded.jobs)
    placement = _place(len(runs) * len(chosen), execution, recorded.threads)
    if built_in:
        small = "small siblings of the models at 64 px, " if on_cpu else ""
        note(f"built-in people: {small}random weights; your own data: --data FOLDER or CSV")
    return Plan(settings, spec, data, runs, chosen, placement, built_in, execution)


def _place(jobs: int, execution: Execution, threads: int | None = None) -> Placement:
    if execution.backend == "ray":
        from folds.cluster import place_on_cluster

        return place_on_cluster(jobs, execution, threads)
    return place(jobs, execution.devices, execution.per_device, threads)


def _assign(settings: Settings, recipe: Recipe, table: SampleTable, note: Note, warn: Note) -> list[FoldAssignment]:
    if settings.folds is not None:
        return [load_folds(settings.folds, table)]
    return make_splits(table, settings, recipe.seed, note, warn)


def _name_runs(settings: Settings, recipe: Recipe, assignments: Sequence[FoldAssignment], small: bool, classes: int) -> tuple[Run, ...]:
    runs: list[Run] = []
    for arch in settings.arch:
        architecture = resolve(arch, recipe.size(), small=small, arguments=recipe.model_args)
        base = file_safe(arch if settings.name is None else settings.name if len(settings.arch) == 1 else f"{settings.name}-{arch}")
        base = _unused(base, [run.base for run in runs])
        # Built once here: what cannot be built or fetched is found before anything is decoded or trained.
        model = create(architecture, classes, pretrained=bool(recipe.pretrained) and recipe.init is None, init=recipe.init)
        check_forward(model, architecture)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        complete, why = recipe.completed(SMALL_SIBLINGS[arch].recipe if small and arch in SMALL_SIBLINGS else {})
        for repeat, assignment in enumerate(assignments):
            for seed in range(recipe.seed, recipe.seed + settings.seeds):
                # The first is named as if it were alone, so that repeats and seeds can be added to a run that is there.
                name = base + (f"-r{repeat}" if repeat else "") + (f"-s{seed}" if seed != recipe.seed else "")
                name = _unused(name, [run.name for run in runs])
                runs.append(Run(name, architecture, replace(complete, seed=seed), assignment, parameters, why, base))
    return tuple(runs)


def _unused(name: str, used: Sequence[str]) -> str:
    """`name`, or with the first number from 2 on that makes it one of its own."""
    count, free = 1, name
    while free in used:
        count += 1
        free = f"{name}-{count}"
    return free


def open_runs(
    plan: Plan,
    *,
    resume: bool = False,
    force: bool = False,
    note: Note = lambda text: None,
    warn: Note = lambda text: None,
    progress: Callable[[int, int], None] | None = None,
    decoded: Callable[[Plan, ImageCache, ImageCache | None], None] | None = None,
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
        run.refuse_started(plan.folds, resume, force)
    now = environment()
    jobs: list[tuple[int, Job]] = []
    caches: dict[ImageSettings, _Images] = {}
    prepared: list[tuple[Run, ImageSettings, _Images, str, str]] = []
    for run in plan.runs:
        images = ImageSettings(run.architecture.height, run.architecture.width, run.recipe.fit, run.recipe.value_window())
        if images not in caches:
            load = partial(load_images, settings=images, cache_dir=CACHE / "images", note=note, progress=progress)
            train = load(plan.table.paths or (), where=plan.table.where)
            test = plan.data.test
            caches[images] = train, None if test is None else load(test.paths or (), where=test.where)
        if decoded is not None and run is plan.runs[0]:
            decoded(plan, *caches[images])
        amp = resolve_amp(run.recipe.amp, plan.placement.devices[0])[0]
        record = _record(plan, run, caches[images], amp)
        if not (force and plan.whole):
            run.refuse_changed(record)
        prepared.append((run, images, caches[images], record, amp))
    # Nothing is removed before everything has been found to be in order, for all runs.
    for run, images, (train, test_cache), record, amp in prepared:
        if force:
            run.remove(plan.folds)
        if not (run.folder / "config.toml").exists():
            save_folds(run.folder / "folds.csv", run.assignment, force=True)
            write_json(run.folder / "environment.json", now)
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
            images=asdict(images),
            data={key: str(value) if isinstance(value, Path) else value for key, value in asdict(plan.spec).items()},
            classes=plan.table.classes,
            class_attributes={name: dict(meaning) for name, meaning in plan.table.class_attributes.items()},
            folds_sha=run.assignment.sha,
            threads=plan.placement.threads,
            amp=amp,
            save_seconds=plan.execution.save_seconds,
            versions=now,
        )
        for fold in plan.folds:
            if run.done(fold) is not None:
                # Of a process that was killed just before it removed it.
                (run.fold_folder(fold) / "state.pt").unlink(missing_ok=True)
            else:
                rows = len(run.assignment.training_index(fold))
                cost = rows * run.recipe.epochs * run.parameters * images.height * images.width
                jobs.append((cost, replace(job, fold=fold, checkpoint=str(run.checkpoint(fold)))))
    unfinished = {job.folder for _, job in jobs}
    for line in version_warnings([run.folder for run in plan.runs if str(run.folder) in unfinished], now, plan.placement.kind == "cuda"):
        warn(line)
    # Longest first: the last slot to finish then has the least left to do.
    return [job for _, job in sorted(jobs, key=lambda pair: (-pair[0], pair[1].run, pair[1].fold))]


def _record(plan: Plan, run: Run, images: _Images, amp: str) -> str:
    """The content of a run's config.toml: given again, it makes this very run."""
    train, test = images
    settings = replace(plan.settings, data=plan.spec.data, arch=(run.architecture.name,), name=run.name, k=run.assignment.k, repeats=1, seeds=1)
    if settings.folds is None and (run.assignment is not plan.assignment or run.recipe.seed != plan.runs[0].recipe.seed):
        # Its folds do not follow from its seed: they are those beside the record.
        settings = replace(settings, folds=run.folder / "folds.csv", holdout=None, stratify=())
    resolved = {
        "architecture": _plain(asdict(run.architecture)),
        "table_sha": plan.table.sha,
        "test_sha": plan.data.test.sha if plan.data.test is not None else "",
        "folds_sha": run.assignment.sha,
        "images_sha": sha256_bytes("".join([*train.content, *(test.content if test else ())]).encode()),
        "init_sha": sha256_bytes(run.recipe.init.read_bytes()) if run.recipe.init else "",
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
