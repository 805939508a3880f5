"""Build the plan of a command: data, folds and runs, checked before anything is trained."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from folds.config.checks import features_notes
from folds.config.column_tasks import with_task_defaults
from folds.config.command_settings import Settings
from folds.config.files import to_toml
from folds.config.frozen import LOGISTIC, check_fitted_losses
from folds.config.presets import one_seed_note, preset_note
from folds.config.recipe import Recipe
from folds.config.sweep import RequestedRecipe
from folds.data.grades import grades_of_attribute, in_order
from folds.data.sources import LoadedData, open_data
from folds.data.table import Dataset, DataSpec, SampleTable
from folds.data.targets import Target, resolve_target
from folds.data.tasks import task_of, with_task
from folds.errors import UsageError
from folds.execution.placement import DevicePlan, Execution, plan_devices
from folds.images.settings import CACHE
from folds.metrics.task_names import CLASSES, ORDINAL
from folds.metrics.tasks import metric_for_task
from folds.models.accelerators import device_name, kind_of
from folds.models.gpus import busy_gpus, torch_name
from folds.optim.ema import ema_note
from folds.predictions.file_names import RUN_CONFIG
from folds.predictions.files import LABEL
from folds.runs.found_folds import named_columns, with_found_folds
from folds.runs.initial_weights import InitialWeights, find_initial_weights
from folds.runs.matrix import RunVariant, compared_with, make_runs, names_of
from folds.runs.plan_checks import channel_note, check_backend, check_recipes, check_shared_batches
from folds.runs.recorded_folds import with_recorded_folds
from folds.runs.recorded_resources import RecordedResources, recorded_reading, recorded_start
from folds.runs.run import Run
from folds.runs.size_note import size_note
from folds.splits.assignment import FoldAssignment, load_folds
from folds.splits.checks import check_folds
from folds.splits.columns import unused_fold_note
from folds.splits.repeated import make_splits, repeat_warnings
from folds.training.label_changes import check_classes_left, label_changes_of
from folds.training.pseudo_labels import PseudoLabels, pseudo_labels_of, pseudo_warnings
from folds.training.resolve import check_for_classes, trained_labels, validate_recipe, with_ordered_head
from folds.training.sample_weights import check_weights_of_folds, sample_weights_of, zero_weight_note
from folds.training.soft_labels import soft_columns_note, soft_labels_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """The runs of a command on one table: architectures × splits into k folds × seeds.

    Attributes
    ----------
    folds : the folds to train.
    refit : whether to train one model on all people as well, after the folds.
    built_in : whether the data are synthetic.
    initial_weights : run name → its initial weights.
    pseudo : run name → the pseudo-labels of the test images, of runs that learn them.
    root : folder with ``runs``, ``checkpoints`` and ``.ensemble``.
    warnings : warnings about the data, the folds or the recipe, which were also logged.
    """

    settings: Settings
    spec: DataSpec
    data: Dataset
    runs: tuple[Run, ...]
    folds: tuple[int, ...]
    placement: DevicePlan
    built_in: bool
    execution: Execution
    initial_weights: Mapping[str, InitialWeights] = field(default_factory=dict)
    root: Path = Path()
    warnings: tuple[str, ...] = ()
    refit: bool = False
    pseudo: Mapping[str, PseudoLabels] = field(default_factory=dict)

    @property
    def table(self) -> SampleTable:
        """Return the training samples."""
        return self.data.train

    @property
    def assignment(self) -> FoldAssignment:
        """Return the folds of the first run; without repeats, all runs have the same folds."""
        return self.runs[0].assignment

    @property
    def assignments(self) -> tuple[FoldAssignment, ...]:
        """Return the different splits of the runs."""
        return tuple(dict.fromkeys(run.assignment for run in self.runs))

    @property
    def forced_folds(self) -> tuple[int, ...]:
        """Return the folds that `force` trains again: with a refit none, because it keeps the folds."""
        return () if self.refit else self.folds

    @property
    def trains_all_folds(self) -> bool:
        """Return whether `force` trains all folds again."""
        return self.runs[0].has_all(self.forced_folds)

    @property
    def trainings(self) -> int:
        """Return the number of trainings: the folds of all runs, and their models of all people."""
        return len(self.runs) * (len(self.folds) + self.refit)

    @property
    def image_cache(self) -> Path:
        """Return the folder of decoded images, ``.ensemble/images``."""
        return self.root / CACHE / "images"

    def check_not_started(self, resume: bool = False, force: bool = False) -> None:
        """Raise EnsembleError if a run exists and neither `resume` nor `force` is given."""
        for run in self.runs:
            if self.refit:
                run.check_refit_not_started(resume, force)
            else:
                run.check_not_started(self.folds, resume, force)


def build_plan(
    settings: Settings,
    recipe: Recipe,
    *,
    folds: Sequence[int] | None = None,
    execution: Execution | None = None,
    force: bool = False,
    resume: bool = False,
    variants: Sequence[RequestedRecipe] = (),
    baseline: str | None = None,
    root: Path = Path(),
    found_folds: Path | None = None,
    k_given: bool = False,
    seeds_given: bool = False,
    refit: bool = False,
) -> Plan:
    """Read the table, split it, resolve the architectures and name the runs; return the plan.

    Nothing is written except synthetic data. Warnings are logged, and included in the plan.

    Parameters
    ----------
    folds : the folds to train; None for all.
    execution : where and how the jobs run.
    force : retrain the folds from scratch; if they are all folds, the records of existing runs are ignored.
    resume : existing runs must have these settings; if not, nothing is fetched.
    variants : recipes to train instead of `recipe`, which still determines the folds.
    baseline : run that all runs are compared with; None to compare each variant with the first one of its architecture.
    root : folder with ``runs``, ``checkpoints`` and ``.ensemble``.
    found_folds : a file of folds that the user did not name, such as ./folds.csv. It is used if it fits the table and
        `settings`; whether and why is logged.
    k_given : whether the number of folds was chosen, so that `found_folds` must have it.
    seeds_given : whether the number of seeds was chosen, not by a preset; those of a preset are not for logistic heads.
    refit : whether to train one model on all people as well, after the folds, which must be all folds.
    """
    # Check names before anything is read or trained.
    execution = execution or Execution()
    execution.check()
    first = _plan_devices(1, execution).devices[0]
    requested = list(variants) or [RequestedRecipe("", recipe)]
    asked = [one.recipe for one in requested]
    warnings = _warned(check_recipes(asked, first))
    seeds = _seeds_of(settings, recipe, asked, seeds_given)
    source = _opened(settings, requested, root, force)
    data, built_in = with_task(source.data, asked), source.built_in
    table = data.train  # folds do not depend on the order of the classes
    check_backend(asked, execution)
    resolved = [
        RunVariant(one.suffix, *_resolve_recipe(one.recipe, data, built_in), one.arch, count)
        for one, count in zip(requested, seeds, strict=True)
    ]
    settings = with_found_folds(settings, found_folds, k_given, table, _recorded(settings, root, force))
    assignments = _assign(settings, recipe, table)
    selected = _select_folds(folds, assignments[0].k)
    anew = force and not refit and len(selected) == assignments[0].k
    if not anew:
        assignments = with_recorded_folds(assignments, settings, table, root / "runs", names_of(settings, requested))
    warnings += [*data.warnings, *_split_warnings(settings, assignments, table)]
    small = built_in and _are_reduced(asked, first)
    check = _check_of_settings(settings) if resume else lambda run: None
    runs = make_runs(settings, resolved, assignments, small, root, check, anew=anew)
    weights = find_initial_weights(runs, selected, refit)
    warnings += [line for one in weights.values() for line in one.warnings]
    _log(size_note(run, data) for run in {run.base: run for run in runs}.values())
    pseudo, doubts = _learned_from(runs, data, root)
    warnings += _warned(doubts)
    if baseline is not None:
        runs = compared_with(baseline, runs, table)
    notes = dict.fromkeys(line for one in resolved for line in features_notes(one.recipe))
    warnings += _warned(notes)
    _log(channel_note(settings, run.recipe) for run in runs)
    retrains = force and not refit and runs[0].has_all(selected)
    recorded = RecordedResources() if retrains else recorded_start(runs)
    execution, placement = _placed(runs, len(selected), execution, recorded)
    if execution.devices == "auto" and placement.kind == "cuda" and placement.backend == "local":
        warnings += _warned(busy_gpus([*placement.devices, *itertools.chain(*placement.partners)]))
    if built_in:
        models = "reduced 64 px models, " if small else ""
        logger.info(f"synthetic data: {models}random initial weights (use `data` for your own images)")
    return Plan(
        settings,
        source.spec,
        data,
        runs,
        selected,
        placement,
        built_in,
        execution,
        weights,
        root,
        tuple(warnings),
        refit,
        pseudo,
    )


def _opened(settings: Settings, requested: Sequence[RequestedRecipe], root: Path, force: bool) -> LoadedData:
    """Return the data, read for the task of the recipes, or for that which the existing runs have recorded."""
    asked = [one.recipe for one in requested]
    task = task_of(asked) or (None if force else recorded_reading(root / "runs", names_of(settings, requested)))
    return _in_order(open_data(settings, root, task), asked)


def _are_reduced(recipes: Sequence[Recipe], device: str) -> bool:
    """Return whether models for synthetic data are the reduced ones.

    Full-size models from random weights learn next to nothing from 840 drawings, on a GPU too; there, a size or weights
    of one's own say that the full model is meant.
    """
    return device == "cpu" or not any(one.img_size or one.init for one in recipes)


def _check_of_settings(settings: Settings) -> Callable[[Run], None]:
    """Return a function that raises an error if an existing run has other settings than these."""

    def check(run: Run) -> None:
        own = replace(settings, arch=(run.architecture.name,), k=run.assignment.k, name=run.name)
        run.check_same_settings(to_toml(replace(own, repeats=1, seeds=1), run.recipe, {}))

    return check


def _log(lines: Iterable[str]) -> None:
    """Log each line once; empty ones are left out."""
    for line in filter(None, dict.fromkeys(lines)):
        logger.info(line)


def _in_order(source: LoadedData, recipes: Sequence[Recipe]) -> LoadedData:
    """Return the data with the classes in the order of their grades, if a recipe of the label has the task ordinal.

    Raises
    ------
    UsageError : the order is not known, or recipes give different ones.
    """
    orders = {one.class_order or () for one in recipes if one.task == ORDINAL and one.target == LABEL}
    if len(orders) > 1:
        raise UsageError("runs on one table have one order of its classes, found several `class_order`")
    if not orders:
        return source
    data = in_order(source.data, next(iter(orders)))
    spec = source.spec if data is source.data else replace(source.spec, classes=data.train.classes)
    logger.info(f"grades, from the lowest: {', '.join(data.train.classes)}")
    return replace(source, data=data, spec=spec)


def _seeds_of(settings: Settings, recipe: Recipe, recipes: Sequence[Recipe], given: bool) -> list[int | None]:
    """Return the number of seeds of each recipe, None for that of the settings; log what a preset decided."""
    if settings.preset is None:
        return [None] * len(recipes)
    fitted = [one.features is True and one.head in (None, LOGISTIC) for one in recipes]
    few = any(fitted) and settings.seeds > 1 and not given
    without = ("seeds",) if few and all(fitted) else ()
    logger.info(preset_note(settings.preset, asdict(settings) | asdict(recipe), without))
    if few:
        logger.info(one_seed_note(settings.preset))
    return [1 if few and one else None for one in fitted]


def _placed(
    runs: Sequence[Run], folds: int, execution: Execution, recorded: RecordedResources
) -> tuple[Execution, DevicePlan]:
    """Return how and where the jobs run: as asked, else as the runs were started."""
    first = _plan_devices(1, execution).devices[0] if recorded.jobs_measured_on else ""
    execution = replace(
        execution,
        per_device=execution.per_device or _recorded_jobs(recorded, first),
        gpus_per_job=recorded.gpus(execution.gpus_per_job),
    )
    execution.check()
    check_shared_batches([run.recipe for run in runs], execution.gpus_per_job or 1)
    return execution, _plan_devices(len(runs) * folds, execution, recorded.threads)


def _recorded_jobs(recorded: RecordedResources, device: str) -> int | None:
    """Return the jobs per device that a run was started with; None if they were measured on another GPU.

    Parameters
    ----------
    device : the first device of this command.
    """
    if not recorded.jobs_measured_on or kind_of(device) != "cuda":
        return recorded.jobs
    name = device_name(torch_name(device))
    jobs = recorded.jobs_on(name)
    if jobs is None:
        logger.info(
            f"jobs on each GPU: {recorded.jobs} were measured on {', '.join(recorded.jobs_measured_on)}; this machine "
            f"has {name}, so the number is chosen anew, which changes no result"
        )
    return jobs


def _learned_from(runs: Sequence[Run], data: Dataset, root: Path) -> tuple[dict[str, PseudoLabels], list[str]]:
    """Return the pseudo-labels of the runs that learn some, and warnings about them; log what the runs learn from."""
    found: dict[str, PseudoLabels] = {}
    lines: list[str] = []
    notes: list[str] = []
    for run in runs:
        weights = sample_weights_of(run.recipe, data.train)
        if weights is not None and run.recipe.weight_column is not None:
            check_weights_of_folds(weights, run.assignment, range(run.assignment.k))
            notes.append(zero_weight_note(run.recipe.weight_column, weights))
        changes = label_changes_of(run.recipe, data.train, run.target, data.test)
        if changes is not None:
            if not run.target.has_columns:
                check_classes_left(changes, data.train, run.assignment)
            notes.append(changes.note(run.assignment.persons))
        sizes = [len(run.assignment.training_index(fold)) for fold in range(run.assignment.k)]
        steps = run.recipe.epochs * max(1, round(min(sizes) / (run.recipe.batch_size or 1)))
        notes += [ema_note(steps, run.recipe.ema or 0.0, run.recipe.ema_warmup), soft_columns_note(run.recipe)]
        if run.recipe.pseudo is not None:
            _check_teachers(run, runs, [name.strip() for name in run.recipe.pseudo.split(",")])
        labels = pseudo_labels_of(run.recipe, run.assignment, data.train, data.test, root)
        if labels is not None and data.test is not None:
            found[run.name] = labels
            _check_teachers(run, runs, labels.teachers)
            labeled = data.test.labels is not None and bool((data.test.labels != "").any())
            notes.append(f"{run.name}: {labels.note(labeled)}")
            lines += pseudo_warnings(labels, data.test)
    for note in filter(None, dict.fromkeys(notes)):
        logger.info(note)
    return found, list(dict.fromkeys(lines))


def _check_teachers(run: Run, runs: Sequence[Run], teachers: Iterable[str]) -> None:
    """Raise UsageError if this command trains a teacher of its own pseudo-labels."""
    own = set(teachers) & {other.name for other in runs}
    if own:
        raise UsageError(
            f"`pseudo={run.recipe.pseudo}`: this command trains {sorted(own)[0]} itself",
            hint="use another name for the new run (`name=NEW`), and train the teacher first, in another command",
        )


def _resolve_recipe(recipe: Recipe, data: Dataset, built_in: bool) -> tuple[Recipe, Target]:
    """Return the recipe with `pretrained` resolved (no pretrained weights for synthetic data), and its target."""
    table = data.train
    if table.has_columns:
        recipe = with_task_defaults(replace(recipe, task=table.task))
        validate_recipe(recipe)  # its losses are known to fit only now, if the table says the task
    check_fitted_losses(recipe, recipe.task or CLASSES)
    metric = metric_for_task(recipe.metric, recipe.task or CLASSES)
    if metric.function is None:
        recipe = replace(recipe, metric=metric.name)  # the one spelling of its settings
    if recipe.pretrained is None:
        recipe = replace(recipe, pretrained=recipe.init is None and recipe.init_run is None and not built_in)
    recipe = with_ordered_head(recipe)
    if recipe.task == ORDINAL and recipe.target != LABEL:
        values = resolve_target(recipe.target, table.classes, table.class_attributes).classes
        recipe = replace(recipe, class_order=grades_of_attribute(values, recipe.class_order or (), recipe.target))
    target = check_for_classes(recipe, table.classes, table.class_attributes)
    label_changes_of(recipe, table, target, data.test)
    trained_labels(recipe, table)
    soft_labels_of(recipe, table, target)
    sample_weights_of(recipe, table)
    return recipe, target


def _assign(settings: Settings, recipe: Recipe, table: SampleTable) -> list[FoldAssignment]:
    if settings.folds is not None:
        if not settings.folds.exists() and str(settings.folds) in table.attributes:
            raise UsageError(
                f"there is no file {settings.folds}; {table.source} has a column of this name",
                hint=f"`fold_column={settings.folds}` uses the folds in it",
            )
        return [load_folds(settings.folds, table, named_columns(settings))]
    if settings.fold_column is None:
        for line in unused_fold_note(table):
            logger.info(line)
    return make_splits(table, settings, recipe.seed)


def _recorded(settings: Settings, root: Path, force: bool) -> list[Path]:
    """Return the records of existing runs of this name, which were started with folds of their own."""
    names = [settings.name] if settings.name is not None else list(settings.arch)
    return [] if force else [path for name in names if (path := root / "runs" / name / RUN_CONFIG).is_file()]


def _split_warnings(settings: Settings, assignments: list[FoldAssignment], table: SampleTable) -> list[str]:
    """Return warnings about the folds; log those that `make_splits` has not logged."""
    checked = [
        f"repeat {repeat}: {line}" if repeat else line
        for repeat, assignment in enumerate(assignments)
        for line in check_folds(assignment, table.classes, table.class_attributes)
    ]
    return [*repeat_warnings(assignments, settings.repair), *_warned(checked)]


def _select_folds(folds: Sequence[int] | None, k: int) -> tuple[int, ...]:
    selected = tuple(range(k)) if folds is None else tuple(sorted(set(folds)))
    if any(not 0 <= fold < k for fold in selected):
        raise UsageError(f"`fold={','.join(map(str, folds or ()))}`: the folds are 0 to {k - 1}")
    return selected


def _plan_devices(jobs: int, execution: Execution, threads: int | None = None) -> DevicePlan:
    if execution.backend == "ray":
        from folds.execution.ray_cluster import place_on_cluster

        return place_on_cluster(jobs, execution, threads)
    return plan_devices(jobs, execution.devices, execution.per_device, threads, execution.gpus_per_job or 1)


def _warned(lines: Iterable[str]) -> list[str]:
    """Log the lines as warnings and return them."""
    warned = list(lines)
    for line in warned:
        logger.warning(line)
    return warned
