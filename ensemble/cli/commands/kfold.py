"""`ensemble kfold`: train one model per fold and architecture."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensemble.cli.terminal import console
from ensemble.cli.terminal.options import (
    EXECUTION,
    EXPERIMENT,
    FOLDS,
    RUN,
    ConfigOption,
    DryRunOption,
    ForceOption,
    GpusPerJobOption,
    JobsOption,
    RayOption,
    ResumeOption,
    ScoreByOption,
    check_resume_or_force,
    fold_numbers,
    jobs_asked,
    listed,
    resuming,
    scored_by_person,
    setting_flags,
    takes_settings,
)
from folds.config.setting import FROZEN
from folds.predictions.file_names import FOLDS_FILE, RUN_CONFIG, RUNS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from folds.config.command_settings import Settings
    from folds.config.recipe import Recipe
    from folds.execution.placement import Execution
    from folds.runs.plan import Plan

ALL = "all"  # of --fold
FoldOption = Annotated[
    str | None,
    typer.Option(
        help="train only these folds now; all: all folds, then one model on all people",
        metavar="I[,J]|all",
        rich_help_panel=FOLDS,
    ),
]
HypothesisOption = Annotated[
    str | None,
    typer.Option(
        help="what you expect and why; saved with the run in the ledger", metavar="TEXT", rich_help_panel=EXPERIMENT
    ),
]
BaselineOption = Annotated[
    str | None,
    typer.Option(
        help="compare with this run: changed settings, paired difference, 95% CI over people",
        metavar="RUN",
        rich_help_panel=EXPERIMENT,
    ),
]
HeadsOption = Annotated[
    str | None,
    typer.Option(
        help="with --features: one run per head, e.g. logistic,linear,mlp; the others are compared with the first",
        metavar="A[,B]",
        rich_help_panel=FROZEN,
    ),
]
JoinOption = Annotated[
    bool,
    typer.Option(
        "--join", help="with --features: join the features of all models of --arch in one run", rich_help_panel=FROZEN
    ),
]
LearningCurveOption = Annotated[
    bool,
    typer.Option(
        "--learning-curve",
        help="also train on 1/4 and 1/2 of the people; with --features: heads on 1/8, 1/4, 1/2 and 3/4",
        rich_help_panel=FROZEN,
    ),
]
SweepOption = Annotated[
    list[str] | None,
    typer.Option(
        help="train one run per value and compare each with the first; given again: every combination",
        metavar="KEY=V1,V2",
        rich_help_panel=EXPERIMENT,
    ),
]
LoggerOption = Annotated[
    list[str] | None,
    typer.Option(
        "--logger",
        "--track",
        help="also log to tensorboard, mlflow, wandb or trackio; may be repeated",
        metavar="NAME",
        rich_help_panel=EXPERIMENT,
    ),
]
DevicesOption = Annotated[
    str, typer.Option(help="auto, cpu, GPU numbers 0,1, UUIDs GPU-…,MIG-…, mps, or xpu", rich_help_panel=EXECUTION)
]
BackendOption = Annotated[
    str,
    typer.Option(
        help="local, or ray: train folds as tasks of a Ray cluster", metavar="NAME", rich_help_panel=EXECUTION
    ),
]
SaveEveryOption = Annotated[
    float,
    typer.Option(
        help="seconds between two saved states: about what is repeated after a kill",
        metavar="S",
        rich_help_panel=EXECUTION,
    ),
]
StrictOption = Annotated[
    bool,
    typer.Option(
        "--strict", help="treat warnings about the data and the folds as errors: train nothing", rich_help_panel=RUN
    ),
]
PreviewOption = Annotated[
    Path | None,
    typer.Option(
        help="draw some images as training sees them into this PNG, train nothing",
        metavar="FILE.png",
        rich_help_panel=RUN,
    ),
]


RunArgument = Annotated[
    str | None,
    typer.Argument(
        help="with --resume: the run to continue; --resume alone continues the one unfinished run, or lists them",
        metavar="[--resume RUN]",
        show_default=False,
    ),
]

_NAMED = 5  # runs of a command that are named in the command that comes next


@takes_settings(*setting_flags())
def kfold(
    run: RunArgument = None,
    fold: FoldOption = None,
    hypothesis: HypothesisOption = None,
    baseline: BaselineOption = None,
    heads: HeadsOption = None,
    join: JoinOption = False,
    learning_curve: LearningCurveOption = False,
    sweep: SweepOption = None,
    logger: LoggerOption = None,
    jobs: JobsOption = "auto",
    gpus_per_job: GpusPerJobOption = None,
    devices: DevicesOption = "auto",
    backend: BackendOption = "local",
    ray_address: RayOption = None,
    save_every: SaveEveryOption = 30.0,
    score_by: ScoreByOption = None,
    resume: ResumeOption = False,
    force: ForceOption = False,
    strict: StrictOption = False,
    preview: PreviewOption = None,
    dry_run: DryRunOption = False,
    config: ConfigOption = None,
    **given: Any,
) -> int:
    """Split by person, train one model per fold and architecture, write out-of-fold and test predictions.

    Settings can also be given in ./ensemble.toml or as ENSEMBLE_<NAME>. Precedence: flag, environment, -c FILE,
    ./ensemble.toml. These cannot be set in a file: --fold, --heads, --join, --learning-curve, --score-by, --jobs,
    --gpus-per-job, --devices, --backend, --ray-address, --save-every, --hypothesis, --baseline, --sweep, --logger,
    --resume, --force, --strict, --preview, --dry-run and -c. Defaults are in brackets. Without --folds, ./folds.csv is
    used if it fits the table, and --k if that is given.
    """
    from folds.config.contradictions import check_contradictions
    from folds.config.files import load_settings
    from folds.config.frozen import joined_arch, with_heads
    from folds.config.lookup import by_key
    from folds.config.requested import requested_recipes
    from folds.config.trust import check_file_trusted
    from folds.execution.placement import Execution

    training = training_of(score_by, resume, force, strict, hypothesis)
    check_contradictions({key: given[key] is not None for key in ("k", "holdout", "leave_out")})
    recorded = resumed_config(run, given, config, resume, bool(sweep or heads or join))
    if recorded is not None:  # it was found, not named: it may come from elsewhere
        check_file_trusted(recorded)
    config = recorded or config
    given, sweep = with_heads(given, listed(heads), sweep or [])
    given["arch"] = joined_arch(given["arch"], join)
    settings, recipe, origins = load_settings(given, config, implicit=recorded is None)
    execution = Execution(devices, jobs_asked(jobs), backend, ray_address, save_every, gpus_per_job)
    planning = planning_of(fold, execution, baseline, origins) | {
        "variants": requested_recipes(by_key(given), config, sweep or ()),
        "found_folds": FOLDS_FILE,
    }
    return run_training(
        settings,
        recipe,
        planning,
        training,
        logger=logger,
        preview=preview,
        dry_run=dry_run,
        learning_curve=learning_curve,
    )


def training_of(
    score_by: str | None, resume: bool, force: bool, strict: bool, hypothesis: str | None
) -> dict[str, Any]:
    """Return the arguments of `train_runs` that the options of all trainings say, checked."""
    per_person = scored_by_person(score_by)
    check_resume_or_force(resume, force)
    return {"resume": resume, "force": force, "strict": strict, "hypothesis": hypothesis, "per_person": per_person}


def planning_of(
    fold: str | None, execution: Execution, baseline: str | None, origins: Mapping[str, str]
) -> dict[str, Any]:
    """Return the arguments of `build_plan` that the options of all trainings say; `origins` are of `load_settings`."""
    from folds.config.files import given_numbers

    return {
        "folds": None if fold == ALL else fold_numbers(fold),
        "refit": fold == ALL,
        "execution": execution,
        "baseline": baseline,
        **given_numbers(origins),
    }


def resumed_config(
    run: str | None, given: Mapping[str, Any], config: Path | None, resume: bool, sweep: bool
) -> Path | None:
    """Return the config.toml of the run to continue, for ``--resume RUN`` and ``--resume`` alone; otherwise None."""
    from folds.config.command_settings import Settings
    from folds.config.files import CONFIG, settings_in_environment
    from folds.errors import EnsembleError, UsageError
    from folds.predictions.named import unfinished_runs

    if run is not None:
        return _named_run(run, config, resume, sweep)
    implicit = CONFIG.is_file() or settings_in_environment()
    if not resume or config is not None or sweep or implicit or any(value is not None for value in given.values()):
        return None
    unfinished = unfinished_runs(RUNS)
    if len(unfinished) > 1:
        listed = [f"{name}: {progress.text()}" for name, progress in unfinished.items()]
        raise UsageError(
            f"{len(unfinished)} runs are unfinished", hint=f"--resume {next(iter(unfinished))}", details=listed
        )
    if unfinished:
        name, progress = next(iter(unfinished.items()))
        console.note(f"continuing {name}: {progress.text()} finished")
        return RUNS / name / RUN_CONFIG
    finished = sorted(path.parent.name for path in RUNS.glob("*/config.toml"))
    if not finished:
        return None
    default = Settings().arch[0]
    if default not in finished:
        raise EnsembleError(
            "all runs are finished", hint="ensemble runs lists them; --data and --arch train another one"
        )
    return RUNS / default / RUN_CONFIG  # what the command without any setting has trained


def _named_run(run: str, config: Path | None, resume: bool, sweep: bool) -> Path:
    from folds.errors import UsageError, unknown_name

    if not resume:
        raise UsageError(
            f"unexpected argument '{run}'", hint=f"--resume {run} continues a run; --arch {run} trains one"
        )
    if config is not None or sweep:
        raise UsageError(
            f"--resume {run} takes the settings of {RUNS / run / 'config.toml'}, not those of another file or sweep",
            hint=f"ensemble kfold --resume {run}",
        )
    path = RUNS / run / RUN_CONFIG
    if not path.is_file():
        names = sorted(other.parent.name for other in RUNS.glob("*/config.toml"))
        raise unknown_name("run", run, names, hint=None if names else "ensemble kfold trains the first one")
    return path


def run_training(
    settings: Settings,
    recipe: Recipe,
    planning: dict[str, Any],
    training: dict[str, Any],
    *,
    logger: Sequence[str] | None,
    preview: Path | None,
    dry_run: bool,
    learning_curve: bool = False,
) -> int:
    """Plan, describe and train; `planning` has the arguments of `build_plan`, `training` those of `train_runs`."""
    from folds.execution.local import prepare_workers

    if not dry_run and preview is None:  # before the imports below, which take as long as those of the workers
        prepare_workers(planning["execution"].devices, planning["execution"].backend)
    from folds.utils.startup import lasting_imports

    with lasting_imports():
        from ensemble.cli.reports.training import describe, raise_failed, show, train_shown
        from ensemble.cli.terminal.progress import TerminalProgress
        from folds.errors import Interrupted
        from folds.experiments.loggers.open import open_tracker
        from folds.runs.learning_curves import check_learning_curve, write_learning_curves
        from folds.runs.plan import build_plan

    tracker, again, force = open_tracker(logger), resuming(), training["force"]
    plan = build_plan(settings, recipe, force=force, resume=training["resume"], **planning)
    plan.check_not_started(training["resume"] or dry_run or preview is not None, force)
    if learning_curve:
        check_learning_curve(plan)
    describe(plan)
    if learning_curve and not all(run.recipe.features for run in plan.runs):
        console.note("learning curve: each run is trained again on 1/4 and 1/2 of its people, in about 3/4 of its time")
    if preview is not None:
        return _write_preview(plan, preview, force)
    if dry_run:
        return _show_dry_run(plan, training["strict"])
    trained = train_shown(plan, again, tracker=tracker, **training)
    curves: dict[str, tuple[Any, Path]] = {}
    try:
        if learning_curve and not trained.failed:
            curves = write_learning_curves(plan, TerminalProgress())
    except KeyboardInterrupt:
        raise Interrupted("the run is trained; its learning curve continues where it was", hint=again) from None
    finally:
        show(trained, [curve for curve, _ in curves.values()])
    raise_failed(trained, again)
    for _, path in curves.values():
        console.note(f"{path} written")
    _name_next(plan, bool(planning["variants"]))
    return 0


def _write_preview(plan: Plan, file: Path, force: bool) -> int:
    """Draw some images as training sees them."""
    from ensemble.cli.terminal.progress import TerminalProgress
    from folds.runs.preview import write_previews

    for path in write_previews(plan, file, force, TerminalProgress()):
        console.result(str(path), {"preview": str(path)})
    console.note("\nnothing was trained (--preview)")
    return 0


def _show_dry_run(plan: Plan, strict: bool) -> int:
    """Print the plan; if `strict`, warnings about the data and the folds are errors."""
    from ensemble.cli.reports.training import show_plan
    from folds.auditing.run import check_strict

    if strict:
        check_strict(plan.warnings)
    show_plan(plan)
    console.note("\nnothing was trained (--dry-run)")
    return 0


def _name_next(plan: Plan, compared: bool) -> None:
    """Name the next command: that which lists runs if they are `compared`, else the report."""
    if compared or plan.assignment.leave_out is not None:
        console.next_step("ensemble runs")
        return
    options = console.again("metric", "score_by")
    if len(plan.runs) > 1:
        words = shlex.join(options)
        console.note(f"\nto combine them: ensemble blend {plan.runs[0].runs}/*.npy --method soft {words}".rstrip())
    names = [run.name for run in plan.runs] if len(plan.runs) <= _NAMED else []
    page = ["--open", *(["--force"] if Path("report.html").exists() else [])]
    console.next_step("ensemble report", [*names, *options, *page])
