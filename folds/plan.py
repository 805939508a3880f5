"""What is to be trained: the data, the folds and the runs of one command, checked before anything starts."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from folds.architectures import IMAGENET_MEAN, IMAGENET_STD, SMALL_SIBLINGS, check_forward, create, resolve
from folds.assignment import FoldAssignment, load_folds, save_folds
from folds.augment import preset
from folds.checkpoint import load_checkpoint
from folds.criterion import check_head_losses
from folds.csv_table import csv_text
from folds.decode import ImageSettings
from folds.devices import Execution, Placement, place, resolve_amp
from folds.errors import EnsembleError, UsageError, unknown
from folds.files import sha256_bytes, write_atomic, write_json
from folds.images import ImageCache, load_images
from folds.job import Job
from folds.losses import build_loss
from folds.optimise import build_optimizer
from folds.recipe import Recipe, Settings, to_toml
from folds.run import Run, file_safe, recorded_threads
from folds.samples import Data, DataSpec, SampleTable
from folds.sources import open_data
from folds.split import check_folds, hold_out, split_by_person
from folds.targets import LABEL, Target, rebinned, resolve_target

CACHE = Path(".ensemble")
TRAINED = "trained.csv"  # in the run's folder: what is trained on, where that is not what is scored
Note = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """All runs of a command on one table and one fold assignment."""

    settings: Settings
    spec: DataSpec
    data: Data
    assignment: FoldAssignment
    runs: tuple[Run, ...]
    folds: tuple[int, ...]
    placement: Placement
    built_in: bool
    execution: Execution

    @property
    def table(self) -> SampleTable:
        """The training samples."""
        return self.data.train


def make_plan(
    settings: Settings,
    recipe: Recipe,
    *,
    folds: Sequence[int] | None = None,
    execution: Execution | None = None,
    note: Note = lambda text: None,
    warn: Note = lambda text: None,
) -> Plan:
    """Read the table, split it, resolve the architectures and name the runs. Nothing is written but the built-in people.

    Parameters
    ----------
    folds : the folds to train now; None for all.
    execution : where and how the jobs are run.
    note, warn : called with lines for the user.
    """
    # What has a name is looked up before anything is read or trained.
    execution = execution or Execution()
    execution.check()
    first = _place(1, execution).devices[0]
    preset(recipe.augment or "none")
    for loss in (recipe.loss, *recipe.head_loss.values()):
        build_loss(loss, recipe.label_smoothing)
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
        recipe = replace(recipe, pretrained=recipe.init is None and recipe.init_run is None)
    target = resolve_target(recipe.target, data.train.classes, data.train.class_attributes)
    check_head_losses(target, recipe.head_loss)
    _trained_labels(data.train, recipe)
    assignment = _assign(settings, recipe, data.train, note)
    for line in check_folds(assignment, data.train.classes, data.train.class_attributes):
        warn(line)
    chosen = tuple(range(assignment.k)) if folds is None else tuple(sorted(set(folds)))
    if any(not 0 <= fold < assignment.k for fold in chosen):
        raise UsageError(f"--fold {','.join(map(str, folds or ()))}: the folds are 0 to {assignment.k - 1}")
    runs = _name_runs(settings, recipe, target, small=built_in and on_cpu)
    placement = _place(len(runs) * len(chosen), execution, recorded_threads(runs))
    if built_in:
        small = "small siblings of the models at 64 px, " if on_cpu else ""
        note(f"built-in people: {small}random weights; your own data: --data FOLDER or CSV")
    return Plan(settings, spec, data, assignment, runs, chosen, placement, built_in, execution)


def _place(jobs: int, execution: Execution, threads: int | None = None) -> Placement:
    if execution.backend == "ray":
        from folds.cluster import place_on_cluster

        return place_on_cluster(jobs, execution, threads)
    return place(jobs, execution.devices, execution.per_device, threads)


def _assign(settings: Settings, recipe: Recipe, table: SampleTable, note: Note) -> FoldAssignment:
    if settings.folds is not None:
        return load_folds(settings.folds, table)
    if settings.holdout is not None:
        return hold_out(table, settings.holdout, recipe.seed, repaired=settings.repair)
    assignment = split_by_person(table, settings.k, recipe.seed, repaired=settings.repair)
    if assignment.repair is not None:
        note(f"folds: scikit-learn's, repaired: {assignment.repair}")
    return assignment


def _name_runs(settings: Settings, recipe: Recipe, target: Target, small: bool) -> tuple[Run, ...]:
    runs: list[Run] = []
    for arch in settings.arch:
        architecture = resolve(arch, recipe.size(), small=small, arguments=recipe.model_args)
        if recipe.normalise == "imagenet":
            architecture = replace(architecture, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        own = arch if target.name == LABEL else f"{arch}-{target.name}"
        base = file_safe(own if settings.name is None else settings.name if len(settings.arch) == 1 else f"{settings.name}-{arch}")
        name, count = base, 1
        while any(run.name == name for run in runs):
            count += 1
            name = f"{base}-{count}"
        # Built once here: what cannot be built or fetched is found before anything is decoded or trained.
        model = create(architecture, target.outputs, pretrained=bool(recipe.pretrained) and recipe.init is None, init=recipe.init)
        check_forward(model, architecture)
        build_optimizer(model, recipe.opt, recipe.weight_decay, recipe.layer_decay, recipe.opt_args)
        if recipe.grad_checkpointing and not hasattr(model, "set_grad_checkpointing"):
            raise UsageError(f"grad_checkpointing: {architecture.timm_name} cannot", hint="grad_checkpointing = false")
        complete, why = recipe.completed(SMALL_SIBLINGS[arch].recipe if small and arch in SMALL_SIBLINGS else {})
        runs.append(Run(name, architecture, complete, sum(parameter.numel() for parameter in model.parameters()), target, why))
    return tuple(runs)


def _trained_labels(table: SampleTable, recipe: Recipe) -> list[str] | None:
    """The label that each sample is trained on, where that is not the one it is scored by."""
    if not recipe.rebin or table.labels is None:
        return None
    labels: list[str] = table.labels.tolist()
    for attribute, how in recipe.rebin.items():
        if not isinstance(how, Mapping) or set(how) != {"column", "cuts"} or not isinstance(how["cuts"], list | tuple):
            raise UsageError(
                f"rebin of {attribute}: expected a column and cuts, found {how}", hint='rebin = {age = {column = "years", cuts = [30, 58]}}'
            )
        if how["column"] not in table.attributes:
            raise unknown(f"column of rebin of {attribute}", str(how["column"]), list(table.attributes))
        numbers = table.attributes[how["column"]].tolist()
        labels = rebinned(labels, table.class_attributes, attribute, numbers, how["cuts"], table.where)
    return labels


def _first_checkpoints(run: Run, plan: Plan) -> dict[int, Path]:
    """Where each fold begins, for `init_run`: the same fold of another run on the same folds, so that nobody is seen who is scored."""
    name = run.recipe.init_run
    if name is None:
        return {}
    paths = {fold: run.checkpoints / name / f"fold{fold}.pt" for fold in plan.folds}
    for fold, path in paths.items():
        checkpoint = load_checkpoint(path)
        if checkpoint.folds_sha != plan.assignment.sha or checkpoint.fold != fold:
            raise EnsembleError(
                f"--init-run {name}: {path} was trained on other folds: people who are scored here would have been seen there",
                hint=f"the same --data, --k and --seed, or --folds runs/{name}/folds.csv",
            )
    return paths


def open_runs(
    plan: Plan,
    *,
    resume: bool = False,
    force: bool = False,
    note: Note = lambda text: None,
    progress: Callable[[int, int], None] | None = None,
    decoded: Callable[[Plan, ImageCache, ImageCache | None], None] | None = None,
) -> list[Job]:
    """Decode the images, write the run folders, and list the jobs that are still to do, longest first.

    `decoded` is called once with the images of training and test, before anything is written or removed, and may refuse them.

    Raises
    ------
    EnsembleError : a run exists and neither `resume` nor `force` is given, or it was begun with other settings, data
        or folds (the difference is shown); an image cannot be used.
    """
    for run in plan.runs:
        run.refuse_started(plan.folds, resume, force)
    jobs: list[tuple[int, Job]] = []
    prepared: list[tuple[Run, ImageSettings, ImageCache, ImageCache | None, str, str, list[str] | None, dict[int, Path]]] = []
    for run in plan.runs:
        images = ImageSettings(run.architecture.height, run.architecture.width, run.recipe.fit, run.recipe.value_window())
        load = partial(load_images, settings=images, cache_dir=CACHE / "images", note=note, progress=progress)
        train = load(plan.table.paths or (), where=plan.table.where)
        test = plan.data.test
        test_cache = None if test is None else load(test.paths or (), where=test.where)
        if decoded is not None and run is plan.runs[0]:
            decoded(plan, train, test_cache)
        amp = resolve_amp(run.recipe.amp, plan.placement.devices[0])[0]
        trained = _trained_labels(plan.table, run.recipe)
        begun = _first_checkpoints(run, plan)
        resolved = {
            "architecture": _plain(asdict(run.architecture)),
            "table_sha": plan.table.sha,
            "test_sha": test.sha if test is not None else "",
            "folds_sha": plan.assignment.sha,
            "images_sha": sha256_bytes("".join([*train.content, *(test_cache.content if test_cache else ())]).encode()),
            "init_sha": sha256_bytes(run.recipe.init.read_bytes()) if run.recipe.init else "",
            "trained_sha": sha256_bytes("\n".join(trained).encode()) if trained else "",
            "amp": amp,
            "threads": plan.placement.threads,
        }
        settings = replace(plan.settings, data=plan.spec.data, arch=(run.architecture.name,), name=run.name, k=plan.assignment.k)
        record = to_toml(settings, run.recipe, resolved)
        if not (force and len(plan.folds) == plan.assignment.k):
            run.refuse_changed(record)
        prepared.append((run, images, train, test_cache, record, amp, trained, begun))
    # Nothing is removed before everything has been found to be in order, for all runs.
    for run, images, train, test_cache, record, amp, trained, begun in prepared:
        if force:
            run.remove(plan.folds, plan.assignment.k)
        if not (run.folder / "config.toml").exists():
            save_folds(run.folder / "folds.csv", plan.assignment, force=True)
            write_json(run.folder / "environment.json", environment())
            if trained is not None:
                write_atomic(run.folder / TRAINED, csv_text({"id": plan.table.ids.tolist(), "label": trained}))
            write_atomic(run.folder / "config.toml", record)
        job = Job(
            run=run.name,
            fold=0,
            k=plan.assignment.k,
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
            folds_sha=plan.assignment.sha,
            threads=plan.placement.threads,
            amp=amp,
            save_seconds=plan.execution.save_seconds,
            versions=environment(),
            trained=None if trained is None else str(run.folder / TRAINED),
        )
        for fold in plan.folds:
            if run.done(fold) is not None:
                # Of a process that was killed just before it removed it.
                (run.fold_folder(fold) / "state.pt").unlink(missing_ok=True)
            else:
                rows = len(plan.assignment.training_index(fold))
                cost = rows * run.recipe.epochs * run.parameters * images.height * images.width
                jobs.append((cost, replace(job, fold=fold, checkpoint=str(run.checkpoint(fold)), init=str(begun[fold]) if begun else None)))
    # Longest first: the last slot to finish then has the least left to do.
    return [job for _, job in sorted(jobs, key=lambda pair: (-pair[0], pair[1].run, pair[1].fold))]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def environment() -> dict[str, str]:
    """Versions that decide whether a result can be had again to the bit."""
    import sklearn
    import timm
    import torch
    import torchvision

    from folds import __version__

    versions = {"ensemble": __version__, "python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    versions |= {"torch": str(torch.__version__), "torchvision": str(torchvision.__version__)}
    versions |= {"timm": timm.__version__, "scikit-learn": sklearn.__version__}
    if torch.cuda.is_available():
        versions["cuda device"] = torch.cuda.get_device_name(0)
    return versions
